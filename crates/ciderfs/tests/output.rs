//! What commands do when nobody reads what they print, or it cannot be written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::File;
use std::io::Read as _;
use std::process::Stdio;

use support::client::program;
use support::{Engine, Volume};

/// Runs a command with such a standard output; its code and what it complains of.
fn run(words: &[&str], stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let mut child = program().args(words).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    (child.wait().unwrap().code(), complaint)
}

#[test]
fn commands_end_quietly_when_nobody_reads() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    let mount = volume.mount(&[]);
    let meta = volume.meta.as_str();
    let at = mount.path().to_str().unwrap();
    program().args(["quota", "set", meta, "--path", "/q", "--capacity", "1", "--create"]).status().unwrap();
    let commands: &[&[&str]] = &[
        &[],
        &["--version"],
        &["--help"],
        &["mount", "--help"],
        &["version"],
        &["version", "--check-handover"],
        &["man"],
        &["completions", "bash"],
        &["config", meta],
        &["status", meta],
        &["quota", "list", meta],
        &["quota", "list", meta, "--json"],
        &["quota", "get", meta, "--path", "/q"],
        &["info", at],
        &["info", "--json", at],
        &["stats", "--count=1", at],
        &["doctor", meta],
    ];
    for words in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, complaint) = run(words, writer);
        assert!(!complaint.contains("panicked") && !complaint.contains("FATAL"), "{words:?}: {complaint}");
        assert_eq!(code, Some(0), "{words:?}: {complaint}");
    }
    let (code, complaint) = run(&["config", meta], File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.contains("cannot write to the standard output: No space left"), "{complaint}");
    // Nobody hears that it is mounted already: it is, and that was all that was asked.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(run(&["mount", "-d", meta, at], writer).0, Some(0));
    mount.unmount();
}
