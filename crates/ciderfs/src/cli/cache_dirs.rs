//! `--cache-dir`: a list of directories and patterns (`docs/reference/commands.md#mount-meta-url-mountpoint`).
//!
//! Entries are separated by `:`, or by `,` where there is no `:`. A pattern (`*`, `?`, `[...]`) stands for the directories that
//! exist when the volume is mounted; what follows its last part with such a character is created. A backslash makes such a
//! character mean itself. Otherwise than for the official client, an entry with backslashes alone is no pattern: it names one
//! directory, and a backslash before any other character is one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::places;
use crate::failure::{Failure, Result};

/// Characters of patterns.
const MAGIC: &[u8] = b"*?[\\";

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Dir(PathBuf),
    /// A pattern below a directory.
    Pattern(PathBuf, OsString),
}

/// Parses the list; `memory` is the empty one.
pub fn parse(list: &OsStr) -> Result<Vec<Entry>> {
    let bytes = list.as_bytes();
    if bytes == b"memory" {
        return Ok(Vec::new());
    }
    let separator = if bytes.contains(&b':') { b':' } else { b',' };
    let mut out = Vec::new();
    for entry in bytes.split(|b| *b == separator).filter(|e| !e.is_empty()) {
        out.push(match entry {
            _ if !is_pattern(entry) => Entry::Dir(places::absolute(&literal(entry))?),
            [b'/', rest @ ..] => Entry::Pattern("/".into(), OsStr::from_bytes(rest).to_owned()),
            _ => Entry::Pattern(places::absolute(OsStr::new("."))?, OsStr::from_bytes(entry).to_owned()),
        });
    }
    if out.is_empty() {
        return Err(Failure::new("--cache-dir names no directory; use memory for a cache in memory"));
    }
    Ok(out)
}

/// The list as the flag takes it from any directory; as it was if a name in it cannot stand in one.
pub fn from_everywhere(list: &OsStr) -> OsString {
    let Ok(entries) = parse(list) else { return list.to_owned() };
    let texts: Vec<_> = entries.iter().map(Entry::text).collect();
    if texts.is_empty() || texts.iter().any(|text| text.contains(&b':')) {
        return list.to_owned();
    }
    // One after each of them: a comma in a name is one then.
    OsString::from_vec(texts.into_iter().flat_map(|text| [&text[..], b":"].concat()).collect())
}

impl Entry {
    /// The directories that it stands for.
    pub fn expand(&self) -> Vec<PathBuf> {
        let (base, pattern) = match self {
            Self::Dir(dir) => return vec![dir.clone()],
            Self::Pattern(base, pattern) => (base, pattern),
        };
        let mut found = vec![base.clone()];
        let mut is_malformed = false;
        for part in pattern.as_bytes().split(|b| *b == b'/').filter(|p| !p.is_empty()) {
            if !is_pattern(part) {
                found.iter_mut().for_each(|dir| dir.push(literal(part)));
                continue;
            }
            is_malformed |= matches(part, b"").is_none();
            found = found.iter().flat_map(|dir| directories_like(dir, part)).collect();
        }
        // A name that only looks like a pattern.
        let literal = base.join(pattern);
        if is_malformed || (found.is_empty() && literal.is_dir()) {
            return vec![literal];
        }
        found
    }

    /// The entry as the flag takes it, from any directory. Separators may stand in it.
    pub fn text(&self) -> Vec<u8> {
        let quoted = |path: &Path| -> Vec<u8> {
            let quote = |b: &u8| if MAGIC.contains(b) { vec![b'\\', *b] } else { vec![*b] };
            path.as_os_str().as_bytes().iter().flat_map(quote).collect()
        };
        match self {
            Self::Dir(dir) => quoted(dir),
            Self::Pattern(base, pattern) => {
                let mut out = quoted(base);
                if out.last() != Some(&b'/') {
                    out.push(b'/');
                }
                out.extend(pattern.as_bytes());
                out
            }
        }
    }
}

fn is_pattern(text: &[u8]) -> bool {
    let mut rest = text;
    loop {
        match rest {
            [b'\\', after, tail @ ..] if MAGIC.contains(after) => rest = tail,
            [b'*' | b'?' | b'[', ..] => return true,
            [_, tail @ ..] => rest = tail,
            [] => return false,
        }
    }
}

/// The name that a text without a pattern means.
fn literal(text: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        match tail {
            [after, tail @ ..] if *first == b'\\' && MAGIC.contains(after) => {
                out.push(*after);
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out)
}

fn directories_like(dir: &Path, pattern: &[u8]) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name());
    let mut found: Vec<PathBuf> = names
        .filter(|name| matches(pattern, name.as_bytes()) == Some(true))
        .map(|name| dir.join(OsString::from_vec(name.into_vec())))
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

/// Does a name match? `None`: the pattern is malformed.
fn matches(pattern: &[u8], name: &[u8]) -> Option<bool> {
    let Some((&first, rest)) = pattern.split_first() else { return Some(name.is_empty()) };
    if first == b'*' {
        let mut any = false;
        for at in 0..=name.len() {
            any |= matches(rest, &name[at..])?;
        }
        return Some(any);
    }
    let (character, left) = first_character(name);
    let (fits, rest) = match first {
        b'?' => (true, rest),
        b'[' => class(rest, character)?,
        b'\\' => rest.split_first().map(|(b, rest)| (name.first() == Some(b), rest))?,
        b => (name.first() == Some(&b), rest),
    };
    let left = if matches!(first, b'?' | b'[') { left } else { name.get(1..).unwrap_or_default() };
    // The rest is looked at in any case, for whether it is well-formed.
    Some(matches(rest, left)? && fits && !name.is_empty())
}

/// Is the character one of `[^a-z...]`, whose bracket has been read? And what follows.
fn class(mut pattern: &[u8], character: u32) -> Option<(bool, &[u8])> {
    let negated = pattern.first() == Some(&b'^');
    pattern = &pattern[usize::from(negated)..];
    let mut found = false;
    let mut is_first = true;
    while is_first || pattern.first() != Some(&b']') {
        is_first = false;
        let low = member(&mut pattern)?;
        let mut high = low;
        if pattern.first() == Some(&b'-') {
            pattern = &pattern[1..];
            high = member(&mut pattern)?;
        }
        found |= (low..=high).contains(&character);
    }
    Some((found != negated, &pattern[1..]))
}

fn member(pattern: &mut &[u8]) -> Option<u32> {
    match pattern.first()? {
        b'-' | b']' => return None,
        b'\\' => *pattern = &pattern[1..],
        _ => {}
    }
    let (character, rest) = first_character(pattern);
    (!pattern.is_empty()).then(|| *pattern = rest)?;
    Some(character)
}

/// The first character of a text, or its first byte where it is no UTF-8, and the rest.
fn first_character(text: &[u8]) -> (u32, &[u8]) {
    let valid = text.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
    match (valid, text.first()) {
        (Some(c), _) => (c.into(), &text[c.len_utf8()..]),
        // Beyond every character.
        (None, Some(b)) => (u32::from(char::MAX) + 1 + u32::from(*b), &text[1..]),
        (None, None) => (u32::MAX, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns() {
        for (pattern, name, want) in [
            ("disk*", "disk1", true),
            ("disk*", "adisk1", false),
            ("*", ".hidden", true),
            ("d?sk[0-3]", "d\u{fc}sk3", true),
            ("d[^0-3]", "d3", false),
            ("d[^0-3]", "d\u{fc}", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*b", "xxaxxab", true),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), Some(want), "{pattern} {name}");
        }
        assert_eq!(matches(b"?", b"\xff"), Some(true));
        for malformed in ["a[", "[]", "[a-]", "a\\", "x[z"] {
            assert_eq!(matches(malformed.as_bytes(), b""), None, "{malformed}");
        }
    }

    #[test]
    fn lists_and_patterns_of_cache_directories() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for dir in ["disk1", "disk2", "[x]", "a,b"] {
            std::fs::create_dir(at(dir)).unwrap();
        }
        std::fs::write(at("disk3"), "").unwrap();
        let dirs = |list: String| -> Vec<PathBuf> {
            parse(list.as_ref()).unwrap().iter().flat_map(Entry::expand).collect()
        };
        let r = root.path().display();
        assert_eq!(dirs("memory".into()), Vec::<PathBuf>::new());
        assert_eq!(dirs(format!("{r}/c1,{r}/c2")), [at("c1"), at("c2")]);
        assert_eq!(dirs(format!("{r}/c1:{r}/a,b")), [at("c1"), at("a,b")]);
        assert_eq!(dirs(format!("{r}/disk*")), [at("disk1"), at("disk2")]);
        assert_eq!(dirs(format!("{r}/disk*/cache/")), [at("disk1/cache"), at("disk2/cache")]);
        assert_eq!(dirs(format!("{r}/none*")), Vec::<PathBuf>::new());
        assert_eq!(dirs(format!("{r}/[x]")), [at("[x]")]);
        for (entry, name) in [("a\\b", "a\\b"), ("a\\*b", "a*b"), ("a\\\\b", "a\\b"), ("a\\", "a\\")] {
            let parsed = parse(format!("{r}/{entry}").as_ref()).unwrap();
            assert_eq!(parsed, [Entry::Dir(at(name))], "{entry}");
            assert_eq!(parse(OsStr::from_bytes(&parsed[0].text())).unwrap(), parsed, "{entry}");
        }
        assert_eq!(dirs(format!("{r}/d*1/a\\*b")), [at("disk1/a*b")]);
        assert!(parse(OsStr::new("")).is_err() && parse(OsStr::new("::")).is_err());
        // The directory from which a pattern is looked up is none.
        let entry = Entry::Pattern(at("[x]"), "*".into());
        assert_eq!(entry.expand(), Vec::<PathBuf>::new());
        std::fs::create_dir(at("[x]/in")).unwrap();
        assert_eq!(entry.expand(), [at("[x]/in")]);
        let again = parse(OsStr::from_bytes(&entry.text())).unwrap();
        assert_eq!(again[0].expand(), [at("[x]/in")]);
    }

    #[test]
    fn a_list_means_the_same_in_another_directory() {
        let here = std::env::current_dir().unwrap();
        let full = |list: &str| from_everywhere(OsStr::new(list)).into_string().unwrap();
        assert_eq!(full("memory"), "memory");
        assert_eq!(full("/x,/y"), "/x:/y:");
        assert_eq!(full("a,d*/e"), format!("{0}/a:{0}/d*/e:", here.display()));
        // A comma in a name.
        assert_eq!(full("/b:a,c"), format!("/b:{}/a,c:", here.display()));
        assert_eq!(parse(full("d\\*e").as_ref()).unwrap(), [Entry::Dir(here.join("d*e"))]);
    }
}
