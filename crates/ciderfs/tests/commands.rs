//! The command line as a whole: every flag of the official client, help, completions, the manual, the reference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use ciderfs_testkit::official::Official;
use support::client::{PATIENCE, Ran, program, run, run_within, succeed};

/// Commands of ours that the official client has, too.
const SHARED: [&str; 10] =
    ["format", "config", "mount", "umount", "status", "quota", "info", "version", "clone", "rmr"];
/// Values of which each flag takes one.
const VALUES: [&str; 9] = ["1", "0", "0600", "127.0.0.1:1", "noatime", "s3-fifo", "k=v", "k:v", "/nowhere"];

/// Flags in the help of the official client, with their dashes, and whether they have a value.
fn official_flags(help: &str) -> Vec<(String, bool)> {
    let mut flags = Vec::new();
    for line in help.lines().map(str::trim).filter(|line| line.starts_with('-')) {
        // Names end where the description begins.
        let names = line.split("  ").next().unwrap();
        let has_value = names.split([' ', ',']).any(|word| !word.is_empty() && !word.starts_with('-'));
        flags.extend(
            names.split([' ', ',']).filter(|w| w.starts_with('-')).map(|w| (w.to_owned(), has_value)),
        );
    }
    flags
}

#[test]
fn every_flag_of_the_official_client_works_or_is_refused_with_a_reason() {
    let official = Official::locate().unwrap();
    let (mut all, mut refused) = (0, Vec::new());
    for command in SHARED {
        let help = Command::new(official.exe()).args([command, "--help"]).output().unwrap();
        let global = Command::new(official.exe()).arg("--help").output().unwrap();
        let text = String::from_utf8(help.stdout).unwrap() + &String::from_utf8(global.stdout).unwrap();
        let ours = succeed(&[command, "--help"]).stdout;
        for (flag, has_value) in official_flags(&text) {
            all += 1;
            assert!(ours.split([' ', ',', '\n']).any(|word| word == flag), "{command} {flag} is not in help");
            let accepts = |ran: &Ran| ran.code == 0;
            let refuses = |ran: &Ran| {
                let reason = ran.stderr.split("is not supported in this version: ").nth(1);
                reason.is_some_and(|reason| reason.trim().len() > 10)
            };
            let tries: Vec<Ran> = match has_value {
                false => vec![run(&[command, &flag, "--help"])],
                true => VALUES.iter().map(|value| run(&[command, &flag, value, "--help"])).collect(),
            };
            if !tries.iter().any(accepts) {
                assert!(tries.iter().any(refuses), "{command} {flag}: {tries:?}");
                refused.push(format!("{command} {flag}"));
            }
        }
    }
    assert!(all > 180, "{all}");
    // What was made to work is not refused again.
    let works = [
        "--log-id",
        "--custom-labels",
        "--network-interfaces",
        "--upload-limit",
        "--download-limit",
        "--cache-items",
        "--cache-mode",
        "--cache-expire",
        "--cache-eviction",
        "--open-cache",
        "--open-cache-limit",
        "--storage-class",
        "--tag",
    ];
    for flag in works {
        assert!(!refused.iter().any(|r| r.ends_with(flag)), "{refused:?}");
    }
}

#[test]
fn slips_of_the_finger_are_understood() {
    let ran = run(&["moutn", "a", "b"]);
    assert_eq!(ran.code, 3);
    assert_eq!(ran.stderr.trim(), "No help topic for 'moutn'; did you mean `ciderfs mount`?");
    let ran = run(&["mount", "--cahce-dir=/x", "a", "b"]);
    assert!(ran.code == 1 && ran.stderr.contains("did you mean --cache-dir?"), "{ran:?}");
    let ran = run(&["mount", "--zzzzzz", "a", "b"]);
    assert!(ran.code == 1 && !ran.stderr.contains("did you mean"), "{ran:?}");
}

/// The script that completes our command lines, in a file.
fn script(shell: &str, dir: &Path) -> String {
    let text = succeed(&["completions", shell]).stdout;
    let path = dir.join(format!("_ciderfs.{shell}"));
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What a shell says; it must not complain.
#[track_caller]
fn say(shell: &mut Command) -> String {
    let ran = run_within(shell, PATIENCE);
    assert!(ran.code == 0 && ran.stderr.is_empty(), "{ran:?}");
    ran.stdout
}

#[test]
fn completions_of_bash() {
    let dir = tempfile::tempdir().unwrap();
    let file = script("bash", dir.path());
    let complete = |words: &[&str]| {
        let last = words.len() - 1;
        let quoted: Vec<String> = words.iter().map(|w| format!("'{w}'")).collect();
        let line = format!(
            "set -u; source '{file}'; compopt() {{ :; }}; COMP_WORDS=({}); COMP_CWORD={last}; _ciderfs || :; echo \"${{COMPREPLY[@]-}}\"",
            quoted.join(" ")
        );
        say(Command::new("bash").args(["--norc", "-c", &line]))
    };
    assert_eq!(complete(&["ciderfs", "umo"]).trim(), "umount");
    assert_eq!(complete(&["ciderfs", "mount", "--cache-si"]).trim(), "--cache-size");
    assert_eq!(complete(&["ciderfs", "--quiet", "mount", "M", "--cache-si"]).trim(), "--cache-size");
    assert_eq!(complete(&["ciderfs", "mount", "--atime-mode", "rel"]).trim(), "relatime");
    assert_eq!(complete(&["ciderfs", "mount", "--atime-mode", "=", "rel"]).trim(), "relatime");
    assert_eq!(complete(&["ciderfs", "quota", "li"]).trim(), "list");
    assert_eq!(complete(&["ciderfs", "umount", "--cache-si"]).trim(), "");
}

#[test]
fn completions_of_fish() {
    let dir = tempfile::tempdir().unwrap();
    let file = script("fish", dir.path());
    let complete = |line: &str| {
        let script = format!("source '{file}'; complete -C '{line}'");
        let mut fish = Command::new("fish");
        say(fish.env("HOME", dir.path()).args(["--no-config", "-c", &script]))
    };
    assert!(complete("ciderfs mou").starts_with("mount\t"));
    assert!(complete("ciderfs mount --cache-si").starts_with("--cache-size"));
    assert!(complete("ciderfs mount --atime-mode rel").starts_with("relatime"));
    assert!(complete("ciderfs quota li").contains("list"));
}

#[test]
fn completions_of_zsh() {
    /// Types a line into a terminal with a zsh, presses the key, and shows what stands there then.
    const TYPE: &str = r#"
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PS1= PS2= RPS1=; unsetopt zle_bracketed_paste; autoload -U compinit; compinit -D -u; source '$1'; echo READY\$((40+2))"
while zpty -r z line; do [[ $line == *READY42* ]] && break; [[ $line == *rror* ]] && print -r -- "$line"; done
zpty -w -n z "$2"$'\t'
zpty -w -n z $'\x01echo GOT:\x05\n'
while zpty -r z line; do [[ $line == GOT:ciderfs* ]] && break; done
zpty -d z
print -r -- "$line"
"#;
    let dir = tempfile::tempdir().unwrap();
    let file = script("zsh", dir.path());
    let complete = |line: &str| {
        let mut zsh = Command::new("zsh");
        zsh.env("TERM", "dumb").env("HOME", dir.path()).args(["-fc", TYPE, "zsh", &file, line]);
        let said = say(&mut zsh);
        said.split("GOT:").nth(1).unwrap().trim().to_owned()
    };
    assert_eq!(complete("ciderfs mou"), "ciderfs mount");
    assert_eq!(complete("ciderfs mount --cache-si"), "ciderfs mount --cache-size");
    assert_eq!(complete("ciderfs mount --atime-mode=rel"), "ciderfs mount --atime-mode=relatime");
    assert_eq!(complete("ciderfs quota li"), "ciderfs quota list");
}

#[test]
fn the_manual_page_renders_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("ciderfs.8");
    fs::write(&page, succeed(&["man"]).stdout).unwrap();
    let mut man = Command::new("man");
    let text =
        say(man.env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8").args(["--warnings=w", "-l"]).arg(&page));
    for part in ["--cache-size SIZE", "mount META-URL MOUNTPOINT", "EXIT STATUS", "META_PASSWORD_FILE"] {
        assert!(text.contains(part), "{part}");
    }
    let groff = say(Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page));
    assert_eq!(groff, "");
}

#[test]
fn the_reference_is_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/commands.md");
    let now = succeed(&["man", "--markdown"]).stdout;
    assert!(
        fs::read_to_string(&path).unwrap() == now,
        "docs/reference/commands.md is old: cargo run -q -- man --markdown > docs/reference/commands.md"
    );
}

#[test]
fn flags_that_texts_name_are_there() {
    /// Options of other programs, and of none.
    const OTHERS: [&str; 17] = [
        "--cacert",
        "--cahce-dir",
        "--cahce-size",
        "--collect",
        "--dir",
        "--disable-pip-version-check",
        "--extra-create-metadata",
        "--field-manager",
        "--force-conflicts",
        "--port",
        "--property",
        "--secretkey",
        "--server-side",
        "--service-type",
        "--tls",
        "--unit",
        "--value",
    ];
    let reference = succeed(&["man", "--markdown"]).stdout;
    let known: Vec<&str> = reference.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').collect();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut dirs, mut named) = (vec![crates], 0);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") && !path.ends_with("testkit") {
                dirs.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                    for flag in line.split(|c: char| !c.is_ascii_lowercase() && c != '-').filter(|word| {
                        word.strip_prefix("--")
                            .is_some_and(|w| w.len() > 2 && !w.starts_with('-') && !w.ends_with('-'))
                    }) {
                        named += 1;
                        let is_known = known.contains(&flag) || OTHERS.contains(&flag);
                        assert!(is_known, "{}: {flag} is no flag: {line}", path.display());
                    }
                }
            }
        }
    }
    assert!(named > 100, "{named}");
}

#[test]
fn the_version_is_told_by_command_and_flag() {
    let version = succeed(&["version"]).stdout;
    assert!(version.starts_with("ciderfs version 1."), "{version}");
    for words in [["--version"].as_slice(), &["-V"], &["mount", "--version"]] {
        assert_eq!(run_within(program().args(words), PATIENCE).stdout, version, "{words:?}");
    }
}
