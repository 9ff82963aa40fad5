//! The pages of the tree: their shell blocks are run. What they cite is checked by `cargo xtask docs`.
//!
//! A block `sh` is run: the blocks of a page in their order, in one shell with `set -eu`, from the top of the tree, on a machine of
//! its own (`documents/stage.sh`). A block `sh foreground` is one command that stays there until the page ends it. `sh example` and
//! `console` (with `$` before what is typed) are not run. A comment `<!-- test: COMMANDS -->` is run as a block is, with the words of
//! `documents/words.sh`; readers do not see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ciderfs_testkit::documents::{Mark, Page, Part, pages, tree};
use ciderfs_testkit::s3::{S3Options, S3Server};
use support::client::run_within;

/// The blocks of one page.
const LIMIT: Duration = Duration::from_secs(180);
/// What starts a page's object store: `PORT ACCESS_KEY SECRET_KEY DIRECTORY`.
const STORE: &str = "DOCUMENTS_STORE";

/// Buckets that pages name, which are there.
const BUCKETS: [&str; 2] = ["juicefs-k3s", "mybucket"];

/// All that is wrong, one a line.
#[track_caller]
fn nothing_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_shell_block_is_marked_and_is_shell() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages() {
        for block in page.blocks() {
            let at = format!("{}:{}", page.name, block.line);
            match Mark::of(block) {
                Err(reason) => wrong.push(format!("{at}: {reason}")),
                Ok(None) => {}
                Ok(Some(mark)) => {
                    count += 1;
                    let script = mark.typed(block);
                    let mut shell = Command::new("bash");
                    let ran = run_within(shell.args(["-nc", &script]), LIMIT);
                    if ran.code != 0 || script.trim().is_empty() {
                        wrong.push(format!("{at}: no shell takes it: {}", ran.stderr.trim()));
                    }
                }
            }
        }
    }
    assert!(count > 20, "{count}");
    nothing_wrong(&wrong);
}

#[test]
fn a_block_without_a_mark_is_found() {
    let find = |text: &str| {
        let page = Page::parse("page.md", text);
        page.blocks().map(Mark::of).any(|m| m.is_err())
    };
    for bad in
        ["```bash\nls\n```", "```\n$ ls\n```", "* a\n\n  ```shell\n  ls\n  ```", "```sh exmaple\nls\n```"]
    {
        assert!(find(bad), "{bad}");
    }
    for good in ["```sh\nls\n```", "```sh example\nls\n```", "```console\n$ ls\n```", "```\npicture\n```"] {
        assert!(!find(good), "{good}");
    }
}

/// The script of a page: its blocks and tests; nothing if it has none.
fn script(page: &Page) -> Option<String> {
    let is_run = |part: &Part| match part {
        Part::Test { .. } => true,
        Part::Block(block) => matches!(Mark::of(block), Ok(Some(Mark::Run | Mark::Foreground))),
    };
    if !page.parts.iter().any(is_run) {
        return None;
    }
    let mut script = include_str!("documents/words.sh").to_owned();
    for part in &page.parts {
        let (line, text) = match part {
            Part::Test { line, text } => (*line, text.clone()),
            Part::Block(block) => match Mark::of(block).ok().flatten() {
                Some(Mark::Run) => (block.line, block.text.clone()),
                Some(Mark::Foreground) => {
                    (block.line, format!("{} &\nforeground=$!\n", block.text.trim_end()))
                }
                _ => continue,
            },
        };
        writeln!(script, "echo '== {}:{line}'; echo '== {0}:{line}' >&2\n{text}", page.name).unwrap();
    }
    Some(script + "echo '== end'\n")
}

/// Runs a script on a stage; what is wrong.
fn run_on_stage(name: &str, script: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let (empty, file) = (dir.path().join("stage"), dir.path().join("page.sh"));
    fs::create_dir(&empty).unwrap();
    fs::write(&file, script).unwrap();
    let stage = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents/stage.sh");
    let mut unshare = Command::new("unshare");
    unshare
        .args(["--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"])
        .arg(stage)
        .arg(env!("CARGO_BIN_EXE_ciderfs"))
        .args([env::current_exe().unwrap(), tree(), file])
        .current_dir(&empty);
    let ran = run_within(&mut unshare, LIMIT);
    if ran.code == 0 && ran.stdout.trim_end().ends_with("== end") {
        return Ok(());
    }
    // The commands, and what they said last.
    let last = |text: &str| {
        text.lines()
            .rev()
            .take(40)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .fold(String::new(), |all, line| all + "    " + line + "\n")
    };
    Err(format!(
        "{name} ended with {}\n  output:\n{}  errors:\n{}",
        ran.code,
        last(&ran.stdout),
        last(&ran.stderr)
    ))
}

#[test]
fn the_shell_blocks_of_every_page_run() {
    let only = env::var("PAGE").ok();
    let scripts: Vec<(String, String)> = pages()
        .iter()
        .filter(|page| only.as_ref().is_none_or(|only| page.name == *only))
        .filter_map(|page| Some((page.name.clone(), script(page)?)))
        .collect();
    assert!(scripts.len() > 3 || only.is_some(), "{}", scripts.len());
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let pages: Vec<_> =
            scripts.iter().map(|(name, script)| scope.spawn(|| run_on_stage(name, script).err())).collect();
        pages.into_iter().filter_map(|page| page.join().unwrap()).collect()
    });
    nothing_wrong(&wrong);
}

#[test]
fn a_page_that_says_what_is_not_so_fails() {
    let run = |text: &str| {
        let page = Page::parse("page.md", text);
        run_on_stage("page.md", &script(&page).expect("a block that is run"))
    };
    run("```sh\ntrue\n```\n\n<!-- test: no is_mounted /mnt/a -->").unwrap();
    for bad in [
        "```sh\nfalse\ntrue\n```",
        "```sh\ntrue\n```\n<!-- test: is_mounted /mnt/a -->",
        "```sh\necho $NOTHING\n```",
        "```sh\ntrue\n```\n<!-- test: no true -->",
    ] {
        assert!(run(bad).is_err(), "{bad}");
    }
}

/// No test: [`the_shell_blocks_of_every_page_run`] starts it as a program, on the stage of a page.
#[test]
#[ignore = "an object store that pages start"]
fn an_object_store_for_pages() {
    let Ok(options) = env::var(STORE) else { return };
    let words: Vec<&str> = options.split(' ').collect();
    let [port, access_key, secret_key, dir] = words[..] else { panic!("{options}") };
    let options = S3Options {
        port: port.parse().unwrap(),
        dir: Some(dir.into()),
        access_key: access_key.to_owned(),
        secret_key: secret_key.to_owned(),
        buckets: BUCKETS.map(str::to_owned).to_vec(),
        ..S3Options::default()
    };
    let _server = S3Server::start_now(options).unwrap();
    loop {
        std::thread::park();
    }
}
