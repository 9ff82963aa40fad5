//! The pages of the tree: their shell blocks are run, their links lead somewhere, and the commands that they show exist.
//!
//! A block `sh` is run: the blocks of a page in their order, in one shell with `set -eu`, from the top of the tree, on a machine of
//! its own (`documents/stage.sh`). A block `sh foreground` is one command that stays there until the page ends it. `sh example` and
//! `console` (with `$` before what is typed) are not run. A comment `<!-- test: COMMANDS -->` is run as a block is, with the words of
//! `documents/words.sh`; readers do not see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "documents/page.rs"]
mod page;
#[path = "documents/reference.rs"]
mod reference;
mod support;

use std::collections::HashMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ciderfs_testkit::s3::{S3Options, S3Server};
use page::{Block, Page, Part, pages, tree};
use reference::{Reference, command_lines};
use support::client::{run_within, succeed};

/// The blocks of one page.
const LIMIT: Duration = Duration::from_secs(180);
/// What starts a page's object store: `PORT ACCESS_KEY SECRET_KEY DIRECTORY`.
const STORE: &str = "DOCUMENTS_STORE";

/// Buckets that pages name, which are there.
const BUCKETS: [&str; 2] = ["juicefs-k3s", "mybucket"];

/// What a test does with a shell block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Run,
    Foreground,
    Example,
    Session,
}

/// How a block is marked; nothing if it is none for a shell.
fn mark(block: &Block) -> Result<Option<Mark>, String> {
    let looks_typed = |text: &str| text.lines().any(|l| l.starts_with("$ ") || l.starts_with("ciderfs "));
    match block.info.as_str() {
        "sh" => Ok(Some(Mark::Run)),
        "sh foreground" => Ok(Some(Mark::Foreground)),
        "sh example" => Ok(Some(Mark::Example)),
        "console" => Ok(Some(Mark::Session)),
        info => match info.split([' ', ',', '{']).next().unwrap_or_default() {
            "sh" | "bash" | "shell" | "zsh" | "fish" | "console" | "shell-session" | "shellsession" => {
                Err(format!("`{info}` is no mark of a shell block: sh, sh foreground, sh example or console"))
            }
            "" if looks_typed(&block.text) => Err("a shell block without a mark".to_owned()),
            _ => Ok(None),
        },
    }
}

/// What a shell would be given.
fn typed(block: &Block, mark: Mark) -> String {
    if mark != Mark::Session {
        return block.text.clone();
    }
    let lines = block.text.lines().filter_map(|l| l.strip_prefix("$ ").or_else(|| l.strip_prefix("# ")));
    lines.map(|line| format!("{line}\n")).collect()
}

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
            match mark(block) {
                Err(reason) => wrong.push(format!("{at}: {reason}")),
                Ok(None) => {}
                Ok(Some(mark)) => {
                    count += 1;
                    let script = typed(block, mark);
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
        page.blocks().map(mark).any(|m| m.is_err())
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

/// Links of a page within the tree, and what is wrong with them.
fn look_at_links(page: &Page, pages: &[Page]) -> (usize, Vec<String>) {
    let by_name: HashMap<&str, &Page> = pages.iter().map(|page| (page.name.as_str(), page)).collect();
    let (mut wrong, mut count) = (Vec::new(), 0);
    let top = tree();
    let dir = top.join(&page.name).parent().unwrap().to_owned();
    for (line, link) in &page.links {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        count += 1;
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = match path {
            "" => top.join(&page.name),
            path => dir.join(path),
        };
        let Ok(target) = target.canonicalize() else {
            wrong.push(format!("{}:{line}: {link} is not there", page.name));
            continue;
        };
        let name = target.strip_prefix(&top).map(|p| p.display().to_string()).unwrap_or_default();
        match by_name.get(name.as_str()) {
            Some(there) if !anchor.is_empty() && !there.anchors.contains(anchor) => {
                wrong.push(format!("{}:{line}: {name} has no heading #{anchor}", page.name));
            }
            None if !target.starts_with(&top) || !anchor.is_empty() => {
                wrong.push(format!("{}:{line}: {link} leads to no page of the tree", page.name));
            }
            _ => {}
        }
    }
    (count, wrong)
}

#[test]
fn links_and_anchors_lead_somewhere() {
    let pages = pages();
    let (counts, wrong): (Vec<usize>, Vec<_>) = pages.iter().map(|page| look_at_links(page, &pages)).unzip();
    assert!(counts.iter().sum::<usize>() > 30, "{counts:?}");
    nothing_wrong(&wrong.concat());
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let pages = pages();
    let look = |text: &str| look_at_links(&Page::parse("docs/setup.md", text), &pages);
    for bad in [
        "[a](nothing.md)",
        "[a\nb](redis.md#no-such)",
        "![a](no.svg)",
        "[a](../../outside.md)",
        "[a](#nowhere)",
    ] {
        assert_eq!(look(bad).1.len(), 1, "{bad}");
    }
    for good in
        ["[a](redis.md)", "[a](redis.md#rights)", "![a](architecture.svg)", "[a](../deploy)", "[a](#nixos)"]
    {
        assert_eq!(look(good), (1, Vec::new()), "{good}");
    }
    assert_eq!(look("`[a](nothing.md)` [b](https://nowhere.example/#a)").0, 0);
}

#[test]
fn commands_that_pages_show_are_there() {
    let reference = Reference::parse(&succeed(&["man", "--markdown"]).stdout);
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages() {
        let blocks = page.blocks().filter_map(|b| Some((b.line, typed(b, mark(b).ok()??), true)));
        let spans = page.spans.iter().map(|(line, span)| (*line, span.clone(), false));
        for (line, text, is_block) in blocks.chain(spans) {
            if !is_block && !text.starts_with("ciderfs ") {
                continue;
            }
            for words in command_lines(&text) {
                // A pattern of commands: `ciderfs COMMAND --help`.
                if words.first().is_none_or(|w| w.chars().all(|c| c.is_ascii_uppercase() || c == '.')) {
                    continue;
                }
                count += 1;
                if let Some(reason) = reference.refuses(&words) {
                    wrong.push(format!("{}:{line}: ciderfs {}: {reason}", page.name, words.join(" ")));
                }
            }
        }
    }
    assert!(count > 40, "{count}");
    nothing_wrong(&wrong);
}

#[test]
fn a_command_that_is_not_there_is_found() {
    let reference = Reference::parse(&succeed(&["man", "--markdown"]).stdout);
    let refuses = |script: &str| command_lines(script).iter().any(|words| reference.refuses(words).is_some());
    for bad in [
        "ciderfs moutn M /mnt",
        "sudo ciderfs mount --no-such M /mnt",
        "A=b /usr/bin/ciderfs mount \\\n  --cache-szie=1 M /mnt",
        "x=$(ciderfs status --background M)",
        "ciderfs status M --changelog",
    ] {
        assert!(refuses(bad), "{bad}");
    }
    for good in [
        "ciderfs mount -d --cache-size=1 M /mnt # --no-such",
        "ciderfs config M --secret-key-file 'a --b' && ls --all | ciderfs version",
        "ciderfs --help",
    ] {
        assert!(!refuses(good), "{good}");
    }
}

/// The script of a page: its blocks and tests; nothing if it has none.
fn script(page: &Page) -> Option<String> {
    let is_run = |part: &Part| match part {
        Part::Test { .. } => true,
        Part::Block(block) => matches!(mark(block), Ok(Some(Mark::Run | Mark::Foreground))),
    };
    if !page.parts.iter().any(is_run) {
        return None;
    }
    let mut script = include_str!("documents/words.sh").to_owned();
    for part in &page.parts {
        let (line, text) = match part {
            Part::Test { line, text } => (*line, text.clone()),
            Part::Block(block) => match mark(block).ok().flatten() {
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
