//! Promises of `docs/semantics.md`: rows of tables whose last column is "shown by".

use ciderfs_testkit::documents::Page;

use super::citations::expanded;
use super::{Found, Tree};

const PAGE: &str = "docs/semantics.md";
/// Tests that are named without a path.
const END_TO_END: &str = "crates/ciderfs/tests";
/// The heading of a table's last column.
const SHOWN_BY: &str = "shown by";
/// Characters of a promise. What needs more is a note.
const PROMISE_MAX: usize = 260;

pub fn check(tree: &Tree) -> Found {
    match std::fs::read_to_string(tree.top.join(PAGE)) {
        Ok(text) => of_text(tree, &text),
        Err(e) => Found { count: 0, wrong: vec![format!("{PAGE}: {e}")] },
    }
}

fn of_text(tree: &Tree, text: &str) -> Found {
    let mut found = Found::default();
    let mut is_promise = false;
    for (i, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix('|').and_then(|l| l.trim_end().strip_suffix('|')) else {
            is_promise = false;
            continue;
        };
        let (promise, tests) = row.rsplit_once(" | ").unwrap_or((row, ""));
        if tests.trim() == SHOWN_BY {
            is_promise = true;
        } else if is_promise && !row.trim().starts_with('-') {
            found.count += 1;
            let at = format!("{PAGE}:{}", i + 1);
            found.wrong.extend(is_not_one_sentence(promise).map(|reason| format!("{at}: {reason}")));
            found
                .wrong
                .extend(missing_tests(tree, tests).into_iter().map(|reason| format!("{at}: {reason}")));
        }
    }
    found
}

/// Why a promise is hard to read.
fn is_not_one_sentence(promise: &str) -> Option<String> {
    let promise = promise.trim();
    if promise.chars().count() > PROMISE_MAX {
        return Some(format!("a promise of more than {PROMISE_MAX} characters: what needs more is a note"));
    }
    let is_text = |at: usize| promise[..at].matches('`').count().is_multiple_of(2);
    let ends = promise.match_indices(". ").filter(|(at, _)| is_text(*at));
    (ends.count() > 0).then(|| "a promise of several sentences: what needs more is a note".to_owned())
}

/// What is wrong with the tests of a promise: `suite`, `suite::test`, paths, and "`test` and `test` in `path`".
fn missing_tests(tree: &Tree, cell: &str) -> Vec<String> {
    let spans: Vec<String> = Page::parse("row", cell).spans.into_iter().map(|(_, span)| span).collect();
    if spans.is_empty() {
        return vec!["a promise that no test shows".to_owned()];
    }
    let mut wrong = Vec::new();
    for item in cell.split("`, `") {
        let names: Vec<&str> =
            item.split('`').map(str::trim).filter(|s| !s.is_empty() && *s != "and").collect();
        match names.as_slice() {
            [names @ .., "in", path] => {
                let texts = tree.texts(path);
                wrong.extend(
                    names
                        .iter()
                        .filter(|name| !has_test(&texts, name))
                        .map(|name| format!("{path} has no test {name}")),
                );
            }
            names => wrong.extend(names.iter().filter_map(|name| missing_test(tree, name))),
        }
    }
    wrong
}

fn missing_test(tree: &Tree, name: &str) -> Option<String> {
    if name.contains('/') {
        let missing = expanded(name).into_iter().find(|path| !tree.top.join(path).exists());
        return missing.map(|path| format!("{path} is not there"));
    }
    let (suite, test) = name.split_once("::").unwrap_or((name, ""));
    let file = format!("{END_TO_END}/{suite}.rs");
    if !tree.top.join(&file).exists() {
        return Some(format!("there is no suite {file}"));
    }
    let mut texts = tree.texts(&file);
    texts.extend(tree.texts(&format!("{END_TO_END}/{suite}")));
    (!test.is_empty() && !has_test(&texts, test)).then(|| format!("{file} has no test {test}"))
}

/// What is wrong with the path of a unit test, as `cargo test --lib` names it, of a crate whose sources are here.
pub(super) fn missing_unit_test(tree: &Tree, sources: &str, name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split("::").collect();
    let file = |n: usize| format!("{sources}/{}.rs", parts[..n].join("/"));
    let Some(n) = (1..parts.len()).rev().find(|n| tree.top.join(file(*n)).exists()) else {
        return Some(format!("{sources} has no module of a test {name}"));
    };
    let texts = tree.texts(&file(n));
    // The whole of the name: cargo is asked for this one alone.
    let whole =
        |(i, part): (usize, &&str)| format!("{part}{}", if n + i + 1 < parts.len() { " {" } else { "(" });
    let mut missing = parts[n..].iter().enumerate().map(whole).filter(|part| !has_test(&texts, part));
    missing.next().map(|_| format!("{} has no test {name}", file(n)))
}

/// Whether the files have a function, or are a module, whose name begins so.
fn has_test(texts: &[(String, String)], name: &str) -> bool {
    let last = name.rsplit("::").next().unwrap_or(name);
    let is_module =
        |path: &str| path.ends_with(&format!("/{last}.rs")) || path.contains(&format!("/{last}/"));
    let starts = |text: &str| {
        text.lines().any(|line| {
            let line = line.trim_start();
            let is_item = ["fn ", "async fn ", "pub fn ", "pub async fn ", "mod ", "pub mod "].iter();
            is_item.filter_map(|item| line.strip_prefix(item)).any(|rest| rest.starts_with(last))
        })
    };
    texts.iter().any(|(path, text)| is_module(path) || starts(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_promise_without_its_test_is_found() {
        let tree = Tree::read().unwrap();
        let wrong =
            |row: &str| of_text(&tree, &format!("| statement | shown by |\n|---|---|\n{row}\n")).wrong;
        for bad in [
            "| It is so | `locks::no_such_test` |",
            "| It is so | `nosuchsuite` |",
            "| It is so | `crates/vfs/src/no_such.rs` |",
            "| It is so | `crates/ciderfs/src/cli/{parse,nosuch}.rs` |",
            "| It is so | `no_such_test` in `crates/object/tests/s3.rs` |",
            "| It is so | `locks::appends`, `no_such` and `hostile` in `crates/meta/src/suite` |",
            "| It is so | by a look |",
            "| It is so. And so | `locks` |",
        ] {
            assert_eq!(wrong(bad).len(), 1, "{bad}: {:?}", wrong(bad));
        }
        assert_eq!(wrong(&format!("| {} | `locks` |", "so ".repeat(200))).len(), 1);
        for good in [
            "| It is `a. b` so | `locks`, `locks::appends` |",
            "| It is so | `hostile` and `model` in `crates/meta/src/suite`, `crates/vfs/src/tests` |",
        ] {
            assert_eq!(wrong(good), [""; 0], "{good}");
        }
        assert_eq!(of_text(&tree, "| a. b | c |\n|---|---|\n| d. e | f |\n").count, 0);
    }

    #[test]
    fn a_unit_test_is_found_by_all_of_its_name() {
        let tree = Tree::read().unwrap();
        let unit = |name: &str| missing_unit_test(&tree, "crates/vfs/src", name);
        for good in [
            "kernel::pages::tests::nobody_relies_on_a_drop_that_the_kernel_has_not_done",
            "tests::sharing::replaced_names::are_opened_as_they_were_found",
        ] {
            assert_eq!(unit(good), None);
        }
        for bad in [
            "kernel::pages::tests::nobody_relies_on_a_drop",
            "tests::sharing::replaced::are_opened_as_they_were_found",
            "no_such::tests::are_opened_as_they_were_found",
            "are_opened_as_they_were_found",
        ] {
            assert!(unit(bad).is_some(), "{bad}");
        }
    }
}
