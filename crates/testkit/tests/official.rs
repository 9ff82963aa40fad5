//! The official client accepts our S3 servers: it formats, mounts, writes, reads, and its `fsck` finds nothing.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use ciderfs_testkit::official::Official;
use ciderfs_testkit::s3::{Op, S3Options, S3Server};
use ciderfs_testkit::{require, s3fs};

fn exercise(official: &Official, server: &S3Server, dir: &Path) {
    let meta = format!("sqlite3://{}", dir.join("meta.db").display());
    let keys = ["--access-key", &server.access_key, "--secret-key", &server.secret_key];
    let bucket = server.bucket_url("volume");
    let mut flags = vec!["--storage", "s3", "--bucket", &bucket, "--trash-days", "0"];
    flags.extend(keys);
    official.format(&meta, "vol", &flags).unwrap();
    let mount = official.mount(&meta, &dir.join("mnt"), &[]).unwrap();
    let content: Vec<u8> = (0..9_000_000_u32).map(|i| (i % 251) as u8).collect();
    std::fs::write(mount.path().join("big"), &content).unwrap();
    for n in 0..20 {
        std::fs::write(mount.path().join(format!("small{n}")), vec![n; 1000]).unwrap();
    }
    std::fs::remove_file(mount.path().join("small3")).unwrap();
    mount.unmount().unwrap();
    // A fresh cache: what is read now comes from the server.
    let mount = official.mount(&meta, &dir.join("mnt"), &[]).unwrap();
    assert!(std::fs::read(mount.path().join("big")).unwrap() == content);
    assert_eq!(std::fs::read(mount.path().join("small7")).unwrap(), vec![7; 1000]);
    mount.unmount().unwrap();
    let fsck = official.fsck(&meta, &[]).unwrap().text();
    assert!(!fsck.contains("ERROR"), "{fsck}");
    official.gc(&meta, &[]).unwrap();
    assert_eq!(official.status(&meta).unwrap()["Setting"]["Name"], "vol");
    let seen = server.control();
    assert!(seen.count(Op::Put) >= 22 && seen.count(Op::Get) >= 4 && seen.count(Op::List) >= 1);
    assert!(seen.requests().iter().all(|r| r.payload_hash.as_deref() == Some("UNSIGNED-PAYLOAD")));
}

#[test]
fn official_client_works_on_our_server() {
    let Some(official) = require(Official::locate()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start_now(S3Options::default()).unwrap();
    exercise(&official, &server, dir.path());
    // The checksum that the client wrote is there for others.
    let put = server.control().requests().into_iter().find(|r| r.op == Op::Put && r.path.contains("chunks"));
    assert!(put.is_some_and(|r| r.path.starts_with("/volume/vol/chunks/0/0/")));
}

#[test]
fn official_client_works_on_a_directory_server_that_restarts() {
    let Some(official) = require(Official::locate()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let options = S3Options { dir: Some(dir.path().join("objects")), ..S3Options::default() };
    let mut server = S3Server::start_now(options.clone()).unwrap();
    exercise(&official, &server, dir.path());
    let meta = format!("sqlite3://{}", dir.path().join("meta.db").display());
    server.restart().unwrap();
    official.fsck(&meta, &[]).unwrap();
    // A new process would see the same.
    let port = server.port();
    drop(server);
    let _server = S3Server::start_now(S3Options { port, ..options }).unwrap();
    official.fsck(&meta, &[]).unwrap();
}

#[test]
fn official_client_works_on_s3s_fs() {
    let Some(official) = require(Official::locate()) else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("objects")).unwrap();
    let options = S3Options { buckets: vec!["volume".to_owned()], ..S3Options::default() };
    let server = s3fs::start(&dir.path().join("objects"), options).unwrap();
    exercise(&official, &server, dir.path());
}
