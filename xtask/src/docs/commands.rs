//! Commands that pages show, and flags that they name.

use ciderfs_testkit::documents::{Mark, Page, command_lines};

use super::citations::comment;
use super::{Found, REFERENCE, Tree};

/// Flags of other programs that pages and comments name alone.
const FLAGS_OF_OTHERS: [&str; 4] = ["--advisories", "--appendonly", "--extra-create-metadata", "--live"];

pub fn check(tree: &Tree) -> Found {
    let mut all = Found::default();
    for page in &tree.pages {
        all.add(of_page(tree, page));
    }
    for (name, text) in tree.texts("crates") {
        if name.ends_with(".rs") {
            all.add(of_code(tree, &name, &text));
        }
    }
    all
}

/// Flags in the comments of a file.
fn of_code(tree: &Tree, name: &str, text: &str) -> Found {
    let mut found = Found::default();
    for (i, line) in text.lines().enumerate() {
        for span in comment(name, line).split('`').skip(1).step_by(2) {
            found.add(flag(tree, &format!("{name}:{}", i + 1), span));
        }
    }
    found
}

/// A span that names a flag.
fn flag(tree: &Tree, at: &str, span: &str) -> Found {
    let flag = span.split([' ', '=', '[', ',']).next().unwrap_or_default();
    let mut found = Found::default();
    if flag.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase())) {
        found.count = 1;
        if !tree.reference.has_flag(flag) && !FLAGS_OF_OTHERS.contains(&flag) {
            found.wrong.push(format!("{at}: no command has a flag {flag}"));
        }
    }
    found
}

fn of_page(tree: &Tree, page: &Page) -> Found {
    let mut found = Found::default();
    let blocks = page.blocks().filter_map(|b| Some((b.line, Mark::of(b).ok()??.typed(b), true)));
    let spans = page.spans.iter().map(|(line, span)| (*line, span.clone(), false));
    for (line, text, is_block) in blocks.chain(spans) {
        if !is_block && page.name != REFERENCE {
            found.add(flag(tree, &format!("{}:{line}", page.name), &text));
        }
        if !is_block && !text.starts_with("ciderfs ") {
            continue;
        }
        for words in command_lines(&text) {
            // A pattern of commands: `ciderfs COMMAND --help`.
            if words.first().is_none_or(|w| w.chars().all(|c| c.is_ascii_uppercase() || c == '.')) {
                continue;
            }
            found.count += 1;
            if let Some(reason) = tree.reference.refuses(&words) {
                found.wrong.push(format!("{}:{line}: ciderfs {}: {reason}", page.name, words.join(" ")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_command_or_flag_that_is_not_there_is_found() {
        let tree = Tree::read().unwrap();
        let wrong = |text: &str| of_page(&tree, &Page::parse("page.md", text)).wrong;
        for bad in [
            "ciderfs moutn M /mnt",
            "sudo ciderfs mount --no-such M /mnt",
            "A=b /usr/bin/ciderfs mount \\\n  --cache-szie=1 M /mnt",
            "x=$(ciderfs status --background M)",
            "ciderfs status M --changelog",
        ] {
            assert_eq!(wrong(&format!("```sh\n{bad}\n```")).len(), 1, "{bad}");
        }
        for good in [
            "ciderfs mount -d --cache-size=1 M /mnt # --no-such",
            "ciderfs config M --secret-key-file 'a --b' && ls --all | ciderfs version",
            "ciderfs --help",
        ] {
            assert_eq!(wrong(&format!("```sh\n{good}\n```")), [""; 0], "{good}");
        }
        assert_eq!(wrong("`--cache-szie`, `--cache-size 7`, `ciderfs moutn M`, `ls --all`").len(), 2);
        let code =
            of_code(&tree, "a.rs", "/// With `--cache-szie`, `--cache-size=7`.\nlet a = \"`--no-such`\";");
        assert_eq!((code.count, code.wrong.len()), (2, 1));
    }
}
