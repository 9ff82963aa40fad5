//! What the program leaves on a machine is for its owner only, whatever the caller's umask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use support::client::{is_mounted, program, sh};
use support::wait_for;

/// Everything below a directory.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            out.extend(below(&entry.path()));
        }
        out.push(entry.path());
    }
    out
}

#[track_caller]
fn assert_private(paths: &[PathBuf]) {
    assert!(!paths.is_empty());
    for path in paths {
        let meta = fs::metadata(path).unwrap();
        let mode = if meta.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(meta.mode() & 0o777, mode, "{}", path.display());
    }
}

#[test]
fn nobody_else_reads_objects_metadata_cache_or_log() {
    let top = tempfile::tempdir().unwrap();
    let at = |name: &str| top.path().join(name);
    let ciderfs = program().get_program().to_string_lossy().into_owned();
    let script = "umask 0
        $0 format --quiet sqlite3://$1/meta.db vol --bucket $1/made/objects
        $0 mount -d sqlite3://$1/meta.db $1/mnt --cache-dir $1/made/cache --log $1/log --metrics ''
        mkdir -m 755 $1/mnt/dir
        head -c 5000000 /dev/urandom > $1/mnt/dir/file
        cat $1/mnt/dir/file > /dev/null";
    let words = [script, &ciderfs, &top.path().to_string_lossy()];
    let ran = support::client::run_within(
        std::process::Command::new("sh").arg("-euc").args(words),
        support::client::PATIENCE,
    );
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    // While it is mounted: the files beside the database go at the end.
    let database: Vec<PathBuf> = ["meta.db", "meta.db-wal", "meta.db-shm"].map(at).to_vec();
    assert_private(&database);
    assert_private(&[at("log")]);
    let objects = below(&at("made/objects"));
    assert!(objects.iter().filter(|p| p.is_file()).count() >= 3, "{objects:?}");
    assert_private(&objects);
    assert_private(&[at("made/objects")]);
    assert_private(&below(&at("made/cache")));
    sh(top.path(), "umount mnt");
    wait_for("the mount ends", || !is_mounted(&at("mnt")));
}

#[test]
fn a_cache_directory_of_somebody_else_is_not_used() {
    let top = tempfile::tempdir().unwrap();
    let ciderfs = program().get_program().to_string_lossy().into_owned();
    let words = [&ciderfs, &*top.path().to_string_lossy()];
    let script = "$0 format --quiet sqlite3://$1/meta.db vol --bucket $1/objects
        mkdir $1/theirs $1/mnt
        chown 12345 $1/theirs
        $0 mount -d sqlite3://$1/meta.db $1/mnt --cache-dir $1/theirs/cache --log $1/log --metrics ''
        umount $1/mnt";
    let ran = support::client::run_within(
        std::process::Command::new("sh").arg("-euc").arg(script).args(words),
        support::client::PATIENCE,
    );
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert!(!top.path().join("theirs/cache").exists());
    let log = fs::read_to_string(top.path().join("log")).unwrap();
    assert!(log.contains("belongs to user 12345"), "{log}");
}
