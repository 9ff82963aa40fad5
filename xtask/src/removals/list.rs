//! The list: what is taken away, where, and how.
//!
//! Blocks of `key: value`, with an empty line between them; a key that comes again goes on with another line, `#` begins a comment.
//!
//! * `name`: by which it is called. `file`: below `crates/vfs/src`. `what`: what the removed code does, in a sentence.
//! * `old`: the code, and as much around it as makes it the only one in the file, or `nth`: which of them, from 0. Spaces, line breaks
//!   and comments count for nothing.
//! * `new`: what stands there instead. `REMOVED` is true if it is removed, `OLD` stands for `old`. A statement needs none: it is left
//!   out. `REMOVED` goes where it is asked only if that makes a difference, or "never reached" says nothing.
//! * `with`: another one, if each makes up for the other: it is removed as well.
//! * `test`: the unit test of the crate that fails without it, as `cargo test --lib` names it. It is run instead of the seeds.
//! * `unseen`: why nobody looks for it.

use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Where the lists are.
pub const LISTS: &str = "crates/vfs/tests/sim/removals";
/// Where the code is.
pub const SOURCES: &str = "crates/vfs/src";
/// What a statement becomes.
const LEFT_OUT: &str = "if !REMOVED { OLD }";

/// Something to be taken away.
#[derive(Debug, Default, Clone)]
pub struct Removal {
    pub name: String,
    /// Below [`SOURCES`].
    pub file: String,
    pub what: String,
    old: String,
    new: Option<String>,
    nth: Option<String>,
    pub with: Option<String>,
    pub test: Option<String>,
    pub unseen: Option<String>,
    /// Where it is listed.
    pub at: String,
}

/// A place in a source, and what comes there.
#[derive(Debug)]
pub struct Edit {
    range: Range<usize>,
    text: String,
}

/// All removals, and what is wrong with the lists.
pub fn read(top: &Path) -> Result<(Vec<Removal>, Vec<String>)> {
    let dir = top.join(LISTS);
    let entries = fs::read_dir(&dir).with_context(|| dir.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for file in files {
        let shown = file.strip_prefix(top).unwrap_or(&file).display().to_string();
        let text = fs::read_to_string(&file).with_context(|| shown.clone())?;
        parse(&shown, &text, &mut all, &mut wrong);
    }
    for (i, removal) in all.iter().enumerate() {
        wrong.extend(removal.is_incomplete(&all[..i], &all));
    }
    Ok((all, wrong))
}

fn parse(shown: &str, text: &str, all: &mut Vec<Removal>, wrong: &mut Vec<String>) {
    let mut is_in_block = false;
    for (i, line) in text.lines().enumerate() {
        let at = format!("{shown}:{}", i + 1);
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            is_in_block = false;
            continue;
        }
        if !is_in_block {
            all.push(Removal { at: at.clone(), ..Removal::default() });
            is_in_block = true;
        }
        let (key, value) = line.split_once(':').unwrap_or((line, ""));
        let (Some(removal), value) = (all.last_mut(), value.trim()) else { continue };
        let field = match key {
            "name" => &mut removal.name,
            "file" => &mut removal.file,
            "what" => &mut removal.what,
            "old" => &mut removal.old,
            "new" => removal.new.get_or_insert_default(),
            "nth" => removal.nth.get_or_insert_default(),
            "with" => removal.with.get_or_insert_default(),
            "test" => removal.test.get_or_insert_default(),
            "unseen" => removal.unseen.get_or_insert_default(),
            _ => {
                wrong.push(format!("{at}: {key:?} is no key of a removal"));
                continue;
            }
        };
        if !field.is_empty() {
            field.push('\n');
        }
        field.push_str(value);
    }
}

impl Removal {
    /// What is missing or wrong in its block.
    fn is_incomplete(&self, before: &[Self], all: &[Self]) -> Option<String> {
        let is_name =
            |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let required = [("name", &self.name), ("file", &self.file), ("what", &self.what), ("old", &self.old)];
        let why = if let Some((key, _)) = required.iter().find(|(_, value)| value.is_empty()) {
            format!("no {key}")
        } else if !is_name(&self.name) {
            format!("{}: a name has small letters, digits and hyphens", self.name)
        } else if before.iter().any(|other| other.name == self.name) {
            format!("{} is there twice", self.name)
        } else if let Some(with) = &self.with
            && !all.iter().any(|other| other.name == *with)
        {
            format!("{} is to be removed with {with}, which is not there", self.name)
        } else if self.test.is_some() && self.unseen.is_some() {
            format!("{} has a test that finds it, and a reason why nobody looks for it", self.name)
        } else {
            return None;
        };
        Some(format!("{}: {why}", self.at))
    }

    /// What is to be changed in the source to have it removed by a switch.
    fn edit(&self, source: &str, switch: &str) -> Result<Edit> {
        let (code, old) = (Code::of(source), Code::of(&self.old));
        let nth: Option<usize> = self.nth.as_deref().map(str::parse).transpose().context("nth")?;
        let found: Vec<usize> = code.text.match_indices(&old.text).map(|(at, _)| at).collect();
        ensure!(!found.is_empty(), "there is no such code any more in {}: {}", self.file, self.old);
        ensure!(nth.is_some() || found.len() == 1, "{} has {} of: {}", self.file, found.len(), self.old);
        let nth = nth.unwrap_or(0);
        let at = *found.get(nth).with_context(|| format!("{} has no {nth}th of: {}", self.file, self.old))?;
        let new = self.new.as_deref().unwrap_or(LEFT_OUT);
        ensure!(new.contains("REMOVED"), "REMOVED is not in its new code");
        let new = new.replace("OLD", &self.old).replace("REMOVED", switch);
        let (begin, end, text) = old.difference(&new);
        Ok(Edit { range: code.range(at + begin..at + end), text })
    }
}

/// Code without spaces, line breaks and comments.
struct Code {
    text: String,
    /// Where each byte was.
    places: Vec<usize>,
}

impl Code {
    fn of(source: &str) -> Self {
        let mut code = Self { text: String::new(), places: Vec::new() };
        let mut at = 0;
        for line in source.split_inclusive('\n') {
            let end = line.find("//").unwrap_or(line.len());
            for (i, c) in line[..end].char_indices().filter(|(_, c)| !c.is_whitespace()) {
                code.text.push(c);
                code.places.extend((0..c.len_utf8()).map(|byte| at + i + byte));
            }
            at += line.len();
        }
        code
    }

    /// Where bytes were; behind the byte before, where there are none.
    fn range(&self, bytes: Range<usize>) -> Range<usize> {
        let behind = |n: usize| n.checked_sub(1).map_or(0, |n| self.places[n] + 1);
        let begin = if bytes.is_empty() { behind(bytes.start) } else { self.places[bytes.start] };
        begin..behind(bytes.end).max(begin)
    }

    /// What differs in the new code: from where to where in this one, and what it is there. What is the same around it may belong to
    /// another removal.
    fn difference(&self, new: &str) -> (usize, usize, String) {
        let other = Self::of(new);
        let (a, b) = (self.text.as_bytes(), other.text.as_bytes());
        let most = a.len().min(b.len());
        let mut head = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let mut tail =
            a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count().min(most - head);
        // Not in the middle of a word.
        let is_word = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_');
        while head > 0 && is_word(a.get(head - 1)) && (is_word(a.get(head)) || is_word(b.get(head))) {
            head -= 1;
        }
        let before =
            |text: &[u8], tail: usize| is_word((text.len() - tail).checked_sub(1).and_then(|n| text.get(n)));
        while tail > 0 && is_word(a.get(a.len() - tail)) && (before(a, tail) || before(b, tail)) {
            tail -= 1;
        }
        let range = other.range(head..other.text.len() - tail);
        (head, self.text.len() - tail, format!(" {} ", &new[range]))
    }
}

/// The source of a file with a switch for each of its removals.
pub fn planted(
    all: &[Removal],
    file: &str,
    source: &str,
    switch: impl Fn(usize) -> String,
) -> Result<String, Vec<String>> {
    let (mut edits, mut wrong) = (Vec::new(), Vec::new());
    for (n, removal) in all.iter().enumerate().filter(|(_, removal)| removal.file == file) {
        match removal.edit(source, &switch(n)) {
            Ok(edit) => edits.push((edit, removal)),
            Err(e) => wrong.push(format!("{}: {}: {e:#}", removal.at, removal.name)),
        }
    }
    edits.sort_by_key(|(edit, _)| (edit.range.start, edit.range.end));
    for ((a, one), (b, other)) in edits.iter().zip(edits.iter().skip(1)) {
        if a.range.end > b.range.start || a.range == b.range {
            wrong.push(format!("{}: {} changes the same code as {}", other.at, other.name, one.name));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut text = source.to_owned();
    for (edit, _) in edits.into_iter().rev() {
        text.replace_range(edit.range, &edit.text);
    }
    Ok(text)
}

/// The files that something is removed of.
pub fn files(all: &[Removal]) -> Vec<&str> {
    let mut files: Vec<&str> = all.iter().map(|removal| removal.file.as_str()).collect();
    files.sort_unstable();
    files.dedup();
    files
}

/// All of them, and what is wrong with them: each must be found in the code.
pub fn check(top: &Path) -> (Vec<Removal>, Vec<String>) {
    let (all, mut wrong) = match read(top) {
        Ok(read) => read,
        Err(e) => return (Vec::new(), vec![format!("{e:#}")]),
    };
    for file in files(&all).into_iter().filter(|file| !file.is_empty()) {
        match fs::read_to_string(top.join(SOURCES).join(file)) {
            Ok(source) => {
                wrong.extend(planted(&all, file, &source, |n| n.to_string()).err().into_iter().flatten())
            }
            Err(e) => wrong.push(format!("{LISTS}: {SOURCES}/{file}: {e}")),
        }
    }
    (all, wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn plant(list: &str, source: &str) -> Result<String, Vec<String>> {
        let (mut all, mut wrong) = (Vec::new(), Vec::new());
        parse("list", list, &mut all, &mut wrong);
        assert_eq!(wrong, [""; 0]);
        assert_eq!(all.iter().find_map(|removal| removal.is_incomplete(&[], &all)), None);
        planted(&all, "a.rs", source, |n| format!("off({n})")).map(|text| text.split_whitespace().collect())
    }

    fn block(name: &str, rest: &str) -> String {
        format!("name: {name}\nfile: a.rs\nwhat: Does it.\n{rest}\n\n")
    }

    #[test]
    fn code_is_found_however_it_is_laid_out() {
        let source = "fn f() {\n    if one() // why\n        && two() {\n        g();\n    }\n}\n";
        let lists = [
            block("statement", "old: g();"),
            block("one", "old: if one() && two\nnew: if (one() && !REMOVED) && two"),
            block("two", "old: && two() {\nold: g\nnew: && (two() && !REMOVED) {\nnew: g"),
        ];
        let want = "fnf(){ifone()//why&&two(){g();}}"
            .replace("g();", "if!off(0){g();}")
            .replace("one()", "(one()&&!off(1))")
            .replace("two()", "(two()&&!off(2))");
        // In any order: none changes what another one is found by.
        assert_eq!(plant(&lists.concat(), source).unwrap(), want);
        let (last, first) = (lists[2].clone(), lists[..2].concat());
        let renumbered =
            want.replace("off(1)", "off(b)").replace("off(0)", "off(1)").replace("off(2)", "off(0)");
        assert_eq!(plant(&(last + &first), source).unwrap(), renumbered.replace("off(b)", "off(2)"));
    }

    #[test]
    fn a_removal_that_does_not_fit_is_told() {
        let source = "f(a);\nf(a);\ng();\n";
        for (list, why) in [
            (block("gone", "old: h();"), "no such code any more"),
            (block("two", "old: f(a);"), "has 2 of"),
            (block("third", "old: f(a);\nnth: 2"), "has no 2th of"),
            (block("no-switch", "old: g();\nnew: h();"), "REMOVED is not in"),
            (block("one", "old: g();") + &block("other", "old: f(a); g();\nnth: 0"), "the same code as"),
        ] {
            let wrong = plant(&list, source).unwrap_err();
            assert!(wrong.len() == 1 && wrong[0].contains(why), "{wrong:?}");
        }
        assert_eq!(
            plant(&block("second", "old: f(a);\nnth: 1"), source).unwrap(),
            "f(a);if!off(0){f(a);}g();"
        );
    }

    #[test]
    fn a_list_that_is_not_complete_is_told() {
        let wrong = |list: &str| {
            let (mut all, mut wrong) = (Vec::new(), Vec::new());
            parse("list", list, &mut all, &mut wrong);
            wrong.extend(all.iter().enumerate().filter_map(|(i, r)| r.is_incomplete(&all[..i], &all)));
            wrong
        };
        assert_eq!(wrong(&(block("a", "old: f") + "# a word\n" + &block("b", "old: f\nwith: a"))), [""; 0]);
        for bad in [
            block("a", "old:"),
            block("A b", "old: f"),
            block("a", "old: f\nwith: b"),
            block("a", "old: f\nwhere: b"),
            block("a", "old: f\ntest: t\nunseen: b"),
            block("a", "old: f") + &block("a", "old: f"),
        ] {
            assert_eq!(wrong(&bad).len(), 1, "{bad}");
        }
    }
}
