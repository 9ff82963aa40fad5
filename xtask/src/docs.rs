//! `cargo xtask docs`: what pages and comments cite exists.
//!
//! * Links and anchors of pages lead to something in the tree (`links`).
//! * Files, headings and items that comments and pages name are there; nothing cites a page outside of the tree (`citations`).
//! * Commands and flags that pages show are in the reference (`commands`).
//! * Promises of `docs/semantics.md` are one sentence each, and the tests that they name are there (`promises`).
//! * What `cargo xtask removals` takes away is in the code (`removals::list`), and the tests that find it are there.

mod citations;
mod commands;
mod links;
mod promises;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use ciderfs_testkit::documents::{Page, Reference, pages, tree};

use crate::removals::list;

/// The reference of commands, which a test compares with the program.
const REFERENCE: &str = "docs/reference/commands.md";
/// Directories of the tree where nothing of ours lies.
const NOT_OURS: [&str; 4] = ["target", "node_modules", "result", "testdata"];
/// Files beyond this are no text of ours.
const FILE_MAX: u64 = 1 << 20;

/// What citations may lead to, and who cites.
struct Tree {
    top: PathBuf,
    pages: Vec<Page>,
    reference: Reference,
}

/// What a rule has looked at, and what is wrong.
#[derive(Debug, Default)]
struct Found {
    count: usize,
    wrong: Vec<String>,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.wrong.extend(other.wrong);
    }
}

impl Tree {
    fn read() -> anyhow::Result<Self> {
        let top = tree();
        let reference = Reference::parse(&fs::read_to_string(top.join(REFERENCE))?);
        Ok(Self { pages: pages(), top, reference })
    }

    fn by_name(&self) -> HashMap<&str, &Page> {
        self.pages.iter().map(|page| (page.name.as_str(), page)).collect()
    }

    /// Files below a directory of the tree that hold text: path in the tree, and text.
    fn texts(&self, below: &str) -> Vec<(String, String)> {
        let (mut found, mut paths) = (Vec::new(), vec![self.top.join(below)]);
        while let Some(path) = paths.pop() {
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let entries = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
                if !NOT_OURS.contains(&name.as_str()) {
                    paths.extend(entries);
                }
            } else if path.metadata().is_ok_and(|m| m.len() <= FILE_MAX)
                && let Ok(text) = fs::read_to_string(&path)
            {
                found.push((self.shown(&path), text));
            }
        }
        found.sort();
        found
    }

    /// A path as it is named in the tree.
    fn shown(&self, path: &Path) -> String {
        path.strip_prefix(&self.top).unwrap_or(path).display().to_string()
    }
}

/// What `cargo xtask removals` takes away is still there.
fn removals(tree: &Tree) -> Found {
    let (all, mut wrong) = list::check(&tree.top);
    for removal in &all {
        let missing = removal.test.as_ref().and_then(|t| promises::missing_unit_test(tree, list::SOURCES, t));
        wrong.extend(missing.map(|why| format!("{}: {}: {why}", removal.at, removal.name)));
    }
    Found { count: all.len(), wrong }
}

/// Checks the tree.
pub fn run(args: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(args.is_empty(), "cargo xtask docs takes no arguments");
    let tree = Tree::read()?;
    let mut all = Found::default();
    for (rule, least, found) in [
        ("links", 30, links::check(&tree)),
        ("citations", 100, citations::check(&tree)),
        ("commands and flags", 100, commands::check(&tree)),
        ("promises", 50, promises::check(&tree)),
        ("removals", 100, removals(&tree)),
    ] {
        println!("{rule}: {} looked at", found.count);
        anyhow::ensure!(
            found.count >= least,
            "{rule}: only {} found: the rule itself does not work",
            found.count
        );
        all.add(found);
    }
    anyhow::ensure!(all.wrong.is_empty(), "{}", all.wrong.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    #[test]
    fn the_tree_cites_what_is_there() {
        super::run(&[]).unwrap();
    }
}
