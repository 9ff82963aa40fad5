//! Storage classes, tags and bandwidth that the official client sets on a volume, kept by a mount, also when they change meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ciderfs_testkit::official::Official;
use ciderfs_testkit::require;
use ciderfs_testkit::s3::{Op, S3Options, S3Server};
use support::client::wait_for;
use support::{Engine, Volume, noise};

type Headers = (Option<String>, Option<String>);

/// Class and tag of the blocks that were stored since the last call.
fn stored(server: &S3Server) -> BTreeSet<Headers> {
    let puts =
        server.control().requests().into_iter().filter(|r| r.op == Op::Put && r.path.contains("/chunks/"));
    let found = puts.map(|r| (r.storage_class, r.tagging)).collect();
    server.control().clear();
    found
}

fn headers(class: &str, tag: &str) -> BTreeSet<Headers> {
    let header = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    [(header(class), header(tag))].into()
}

/// Writes a file and waits until it is stored; how long that took.
fn write(path: &Path, len: usize) -> Duration {
    let content = noise(len as u64, len);
    let start = Instant::now();
    let mut file = File::create(path).unwrap();
    file.write_all(&content).unwrap();
    file.sync_all().unwrap();
    start.elapsed()
}

#[test]
fn a_mount_follows_classes_tags_and_limits() {
    let Some(official) = require(Official::locate()) else { return };
    let options = S3Options { buckets: vec!["bucket".into()], ..S3Options::default() };
    let server = S3Server::start_now(options).unwrap();
    let volume = Volume::unformatted(Engine::Sqlite);
    let flags = [
        "--storage=s3".to_owned(),
        format!("--bucket={}", server.bucket_url("bucket")),
        format!("--access-key={}", server.access_key),
        format!("--secret-key={}", server.secret_key),
    ];
    volume.format(&flags.each_ref().map(String::as_str));
    let run = |args: &[&str]| {
        let done = official.run(args).unwrap();
        assert_eq!(done.code, 0, "{}", done.text());
    };
    let change = |flags: &[&str]| run(&[&["config", &volume.meta, "--yes"], flags].concat());
    change(&["--tier", "2", "--storage-class", "GLACIER_IR", "--tag", "kind=cold one"]);
    let mount = volume.mount(&["--heartbeat=1s"]);
    fs::create_dir(mount.join("cold")).unwrap();
    write(&mount.join("plain"), 100_000);
    assert_eq!(stored(&server), headers("", ""));

    // The mount knows the directory already.
    run(&["tier", "set", &volume.meta, "/cold", "--tier", "2"]);
    let mut n = 0;
    wait_for("the directory's tier to be known", || {
        n += 1;
        write(&mount.join(format!("cold/{n}")), 5 << 20);
        stored(&server) == headers("GLACIER_IR", "kind=cold+one")
    });

    change(&["--storage-class", "ONEZONE_IA", "--tag", "a=b"]);
    wait_for("the new class", || {
        write(&mount.join("plain"), 100_000);
        stored(&server) == headers("ONEZONE_IA", "a=b")
    });
    write(&mount.join("cold/again"), 100_000);
    assert_eq!(stored(&server), headers("GLACIER_IR", "kind=cold+one"));

    // 3 MB at 1 MB/s.
    change(&["--upload-limit", "8"]);
    wait_for("the limit", || write(&mount.join("large"), 1_000_000) > Duration::from_millis(900));
    assert!(write(&mount.join("large"), 3_000_000) > Duration::from_millis(2700));
    change(&["--upload-limit", "0"]);
    wait_for("the end of the limit", || write(&mount.join("large"), 1_000_000) < Duration::from_millis(700));
    mount.unmount();
    volume.check();
}
