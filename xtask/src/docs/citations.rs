//! What comments and pages name: files, headings, items.

use std::path::Path;

use ciderfs_testkit::documents::Page;

use super::{Found, Tree};

/// Where code lies.
const CODE: [&str; 6] = ["crates", "xtask", "fuzz", "deploy", ".ci", "Cargo.toml"];
/// What a citation of a file in the tree begins with. There is no `spec` in it, and no page for what it said.
const PLACES: [&str; 8] = ["crates/", "docs/", "deploy/", "xtask/", "fuzz/", ".ci/", ".cargo/", "spec/"];
/// Pages whose names of tests are read by [`super::promises`], or that tell of what was.
const NOT_ITEMS: [&str; 2] = ["docs/semantics.md", "CHANGELOG.md"];

pub fn check(tree: &Tree) -> Found {
    let mut all = Found::default();
    for place in CODE {
        for (name, text) in tree.texts(place) {
            if !name.ends_with(".md") {
                all.add(of_code(tree, &name, &text));
            }
        }
    }
    for page in &tree.pages {
        all.add(of_page(tree, page));
    }
    all
}

/// Citations in the comments of a file, and pages that its texts name.
fn of_code(tree: &Tree, name: &str, text: &str) -> Found {
    let mut found = Found::default();
    for (i, line) in text.lines().enumerate() {
        let comment = comment(name, line);
        let code = &line[..line.len() - comment.len()];
        let pages = tokens(code).into_iter().filter(|t| t.starts_with("docs/") && is_citation(t));
        for token in pages.chain(tokens(comment).into_iter().filter(|t| is_citation(t))) {
            found.count += 1;
            let reason = refused(tree, name, &token);
            found.wrong.extend(reason.map(|reason| format!("{name}:{}: {reason}", i + 1)));
        }
    }
    found
}

/// Files and items in the code spans of a page.
fn of_page(tree: &Tree, page: &Page) -> Found {
    let mut found = Found::default();
    for (line, span) in &page.spans {
        let reason = if is_citation(span) {
            refused(tree, &page.name, span)
        } else if is_item(span) && !NOT_ITEMS.contains(&page.name.as_str()) {
            let (krate, path) = span.split_once("::").unwrap_or((span, ""));
            match crate_dir(tree, krate) {
                Some(dir) => no_item(tree, &dir, path).then(|| format!("there is no {span}")),
                None => continue,
            }
        } else {
            continue;
        };
        found.count += 1;
        found.wrong.extend(reason.map(|reason| format!("{}:{line}: {reason}", page.name)));
    }
    found
}

/// What of a line is a comment.
pub fn comment<'a>(name: &str, line: &'a str) -> &'a str {
    let name = Path::new(name);
    let marks: &[&str] = match name.extension().and_then(|e| e.to_str()) {
        Some("rs" | "proto" | "json" | "js") => &["//"],
        Some("lua" | "sql") => &["--"],
        // Texts that people read.
        Some("txt" | "tpl") => return line,
        _ => &["#"],
    };
    let at = marks.iter().filter_map(|mark| {
        let starts = |at: usize| at == 0 || line[..at].ends_with([' ', '\t']);
        line.match_indices(mark).map(|(at, _)| at).find(|at| starts(*at))
    });
    at.min().map_or("", |at| &line[at..])
}

/// Words of a text that may be names of files.
fn tokens(text: &str) -> Vec<String> {
    let apart = |c: char| c.is_whitespace() || "`'\"()<>|;=".contains(c);
    let ends = ['.', ',', ':', '!', '?', '[', ']'];
    text.split(apart)
        .map(|word| word.trim_start_matches(['[', ':']).trim_end_matches(ends).to_owned())
        .collect()
}

/// Whether a word names a file of the tree, or a page.
fn is_citation(word: &str) -> bool {
    let is_place = PLACES.iter().any(|place| word.starts_with(place)) && !word.contains([' ', '*', '$', '…']);
    let path = word.split('#').next().unwrap_or_default();
    let is_page = path.strip_suffix(".md").is_some_and(|stem| {
        stem.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-'))
            && stem.len() > 1
    });
    is_place || (is_page && !word.contains("://"))
}

/// What is wrong with a citation.
fn refused(tree: &Tree, name: &str, word: &str) -> Option<String> {
    let (path, anchor) = word.split_once('#').unwrap_or((word, ""));
    let beside = tree.top.join(name).parent().map(Path::to_owned).unwrap_or_default();
    for path in expanded(path) {
        // From the top, or beside whoever cites it.
        let there = [tree.top.join(&path), beside.join(&path)].into_iter().find(|p| p.exists());
        let Some(there) = there.and_then(|p| p.canonicalize().ok()) else {
            return Some(format!("{path} is not there"));
        };
        if anchor.is_empty() {
            continue;
        }
        let shown = tree.shown(&there);
        match tree.by_name().get(shown.as_str()) {
            Some(page) if page.anchors.contains(anchor) => {}
            _ => return Some(format!("{shown} has no heading #{anchor}")),
        }
    }
    None
}

/// `a/{b,c}.rs` as two paths.
pub fn expanded(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
        Some((before, (names, after))) => {
            names.split(',').map(|n| format!("{before}{}{after}", n.trim())).collect()
        }
        None => vec![path.to_owned()],
    }
}

/// Whether a span names an item by its path.
fn is_item(span: &str) -> bool {
    span.contains("::") && span.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
}

/// The sources of the crate that pages call so.
fn crate_dir(tree: &Tree, name: &str) -> Option<String> {
    let name = name.strip_prefix("ciderfs_").unwrap_or(name).replace('_', "-");
    let dir = if name == "xtask" { "xtask/src".to_owned() } else { format!("crates/{name}/src") };
    tree.top.join(&dir).is_dir().then_some(dir)
}

/// Whether a path below the sources of a crate leads to nothing: modules as far as they go, then names that their files mention.
fn no_item(tree: &Tree, dir: &str, path: &str) -> bool {
    let (mut dir, mut file) = (dir.to_owned(), String::new());
    let mut names = path.split("::").filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.peek() {
        let (module, below) = (format!("{dir}/{name}.rs"), format!("{dir}/{name}"));
        if !tree.top.join(&module).exists() && !tree.top.join(&below).is_dir() {
            break;
        }
        (dir, file) = (below, module);
        names.next();
    }
    let mut texts = tree.texts(&dir);
    texts.extend(tree.texts(&file).into_iter().filter(|(name, _)| *name == file));
    names.any(|name| !texts.iter().any(|(_, text)| has_word(text, name)))
}

/// Whether a text has a word.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// `@` is the directory of the pages: what tests plant must not be found in this file.
    fn planted(text: &str) -> String {
        text.replace('@', "docs/")
    }

    #[test]
    fn a_comment_that_cites_what_is_not_there_is_found() {
        let tree = Tree::read().unwrap();
        let wrong = |name: &str, text: &str| of_code(&tree, name, &planted(text)).wrong;
        let comments =
            |path: &str| [("a.rs", format!("//! About (`{path}`).")), ("a.lua", format!("-- {path}."))];
        for bad in [
            "@format/nothing.md",
            "@format/trash.md#no-such-heading",
            "crates/format/src/nothing.rs",
            "crates/{format,nothing}/Cargo.toml",
            "spec/data-path.md",
            "meta-redis.md",
            "NOTHING.md",
        ] {
            for (name, text) in comments(bad) {
                assert_eq!(wrong(name, &text).len(), 1, "{text}");
            }
        }
        for good in
            ["@format/trash.md#layout", "crates/format", "crates/{format,meta}/Cargo.toml", "ARCHITECTURE.md"]
        {
            for (name, text) in comments(good) {
                assert_eq!(wrong(name, &text), [""; 0], "{text}");
            }
        }
        // A text for users counts, other texts of a program do not.
        assert_eq!(wrong("a.rs", "let a = \"see @nothing.md\";").len(), 1);
        assert_eq!(wrong("a.rs", "let a = \"crates/nothing\"; // https://example/docs/nothing.md"), [""; 0]);
    }

    #[test]
    fn a_page_that_names_what_is_not_there_is_found() {
        let tree = Tree::read().unwrap();
        let wrong = |text: &str| of_page(&tree, &Page::parse("docs/redis.md", &planted(text))).wrong;
        for bad in [
            "`crates/nothing`",
            "`@redis.md#nothing`",
            "`format::no_such_module`",
            "`format::slice::NO_SUCH_ITEM`",
            "`meta_redis::no_such_module`",
        ] {
            assert_eq!(wrong(bad).len(), 1, "{bad}");
        }
        for good in [
            "`crates/format`",
            "`redis.md#rights`",
            "`format::slice::CHUNK_SIZE`",
            "`std::nothing`",
            "`meta_redis::encode`",
        ] {
            assert_eq!(wrong(good), [""; 0], "{good}");
        }
    }
}
