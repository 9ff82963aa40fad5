//! Storage classes and tags on the wire: the same headers as the official client sends for the same settings.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use ciderfs_format::Settings;
use ciderfs_object::{ObjectError, StoreConfig, has_other_objects, open, probe, try_tier};
use ciderfs_testkit::official::Official;
use ciderfs_testkit::require;
use ciderfs_testkit::s3::{Op, S3Options, S3Server};

const BUCKET: &str = "volume";

async fn server() -> S3Server {
    S3Server::start(S3Options { buckets: vec![BUCKET.to_owned()], ..S3Options::default() }).await.unwrap()
}

fn config(server: &S3Server, settings: &Settings) -> StoreConfig {
    StoreConfig {
        storage: "s3".to_owned(),
        bucket: server.bucket_url(BUCKET),
        access_key: server.access_key.clone(),
        secret_key: server.secret_key.as_str().into(),
        tiers: settings.all_tiers(),
        ..StoreConfig::default()
    }
}

type Headers = (Option<String>, Option<String>);

/// Class and tag of all objects below `prefix` that were stored since the last call.
fn stored(server: &S3Server, prefix: &str) -> BTreeSet<Headers> {
    let prefix = format!("/{BUCKET}/{prefix}");
    let puts = server.control().requests().into_iter().filter(|r| r.op == Op::Put);
    let found = puts
        .filter(|r| r.path.starts_with(&prefix))
        .inspect(|r| assert_eq!(r.status, 200, "{r:?}"))
        .map(|r| (r.storage_class, r.tagging))
        .collect();
    server.control().clear();
    found
}

fn headers(class: &str, tag: &str) -> BTreeSet<Headers> {
    let header = |text: &str| Some(text.to_owned()).filter(|t| !t.is_empty());
    [(header(class), header(tag))].into()
}

/// What we send for each tier.
async fn ours(server: &S3Server, settings: &Settings) -> Vec<BTreeSet<Headers>> {
    let store = open(&config(server, settings)).unwrap();
    let mut found = Vec::new();
    server.control().clear();
    for tier in 0..4 {
        store.put_in_tier("ours/k", Bytes::from(vec![tier; 100_000]), tier).await.unwrap();
        found.push(stored(server, "ours/"));
        assert_eq!(store.get("ours/k", None).await.unwrap(), vec![tier; 100_000]);
    }
    found
}

#[tokio::test]
async fn the_same_headers_as_the_official_client() {
    let Some(official) = require(Official::locate()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = server().await;
    let meta = format!("sqlite3://{}", dir.path().join("meta.db").display());
    let bucket = server.bucket_url(BUCKET);
    let keys = ["--access-key", &server.access_key, "--secret-key", &server.secret_key];
    let flags =
        [&["--storage", "s3", "--bucket", &bucket, "--storage-class", "STANDARD_IA"][..], &keys].concat();
    official.format(&meta, "vol", &flags).unwrap();
    let change = |flags: &[&str]| {
        let args = [&["config", &meta, "--yes"][..], flags].concat();
        let done = official.run(args).unwrap();
        assert_eq!(done.code, 0, "{}", done.text());
    };
    let settings = || {
        let document = official.status(&meta).unwrap()["Setting"].to_string();
        Settings::parse(document.as_bytes()).unwrap()
    };
    // Before any tier there is a class for all.
    assert_eq!(stored(&server, "vol/juicefs_uuid"), headers("STANDARD_IA", ""));
    assert_eq!(ours(&server, &settings()).await, vec![headers("STANDARD_IA", ""); 4]);

    change(&["--tag", "team=a b_-.c"]);
    change(&["--tier", "1", "--tag", "k=1/2:3@4+5"]);
    change(&["--tier", "2", "--storage-class", "GLACIER_IR", "--tag", "kind=cold"]);
    let official_stores = |flags: &[&str]| {
        let mount = official.mount(&meta, &dir.path().join("mnt"), flags).unwrap();
        let mut found = Vec::new();
        for tier in 0..4 {
            let path = mount.path().join(format!("d{tier}"));
            if !path.exists() {
                std::fs::create_dir(&path).unwrap();
            }
            // Tier 3 is not set, and no directory can be given it.
            if tier < 3 {
                let (name, number) = (format!("/d{tier}"), tier.to_string());
                let done = official.run(["tier", "set", &meta, &name, "--tier", &number]).unwrap();
                assert_eq!(done.code, 0, "{}", done.text());
            }
            server.control().clear();
            write(&path.join(format!("f{}", flags.len())));
            found.push(stored(&server, "vol/chunks/"));
        }
        mount.unmount().unwrap();
        found
    };
    let theirs = official_stores(&[]);
    assert_eq!(theirs[0], headers("STANDARD_IA", "team=a+b_-.c"));
    assert_eq!(theirs[1], headers("", "k=1%2F2%3A3%404%2B5"));
    assert_eq!(theirs[2], headers("GLACIER_IR", "kind=cold"));
    assert_eq!(ours(&server, &settings()).await, theirs);

    // A mount has its own class, or its own tag, for tier 0.
    for (flags, class, tag) in [
        (&["--storage-class", "STANDARD"][..], Some("STANDARD"), None),
        (&["--tag", "team=of one"], None, Some("team=of one")),
    ] {
        let theirs = official_stores(flags);
        let mut own = settings();
        own.override_class(class, tag).unwrap();
        assert_eq!(ours(&server, &own).await, theirs, "{flags:?}");
    }
}

/// Writes a file of two blocks and waits until it is stored.
fn write(path: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(&vec![7; 5 << 20]).unwrap();
    file.sync_all().unwrap();
}

#[tokio::test]
async fn what_the_store_refuses_is_told_with_its_reason() {
    let server = server().await;
    let mut settings = Settings::new("vol", "cb17d9ba-a2e6-4b75-bb43-3b00415f41f1", "s3", "");
    settings.set_tier(Some(1), Some("NO_SUCH_CLASS"), None).unwrap();
    settings.set_tier(Some(2), None, Some("k=ä#")).unwrap();
    let store = open(&config(&server, &settings)).unwrap();
    for (tier, code) in [(1, "InvalidStorageClass"), (2, "InvalidTag")] {
        let error = store.put_in_tier("k", Bytes::from_static(b"x"), tier).await.unwrap_err();
        assert!(error.to_string().contains(code) && !error.is_retryable(), "{error}");
        let error = try_tier(store.as_ref(), "vol", 1, tier).await.unwrap_err();
        assert!(error.to_string().contains(code), "{error}");
    }
    settings.set_tier(Some(3), Some("GLACIER"), None).unwrap();
    let fits = open(&config(&server, &settings)).unwrap();
    server.control().clear();
    try_tier(fits.as_ref(), "vol", 1, 3).await.unwrap();
    assert_eq!(stored(&server, "testing/"), headers("GLACIER", ""));
    assert!(!has_other_objects(fits.as_ref()).await.unwrap());
    store.put("k", Bytes::from_static(b"x")).await.unwrap();
    // What somebody else has stored in the settings, and no header can hold.
    settings.tiers.get_mut(&1).unwrap().storage_class = "a\nb".to_owned();
    let error = open(&config(&server, &settings)).unwrap_err();
    assert!(matches!(&error, ObjectError::Config(text) if text.contains("of tier 1")), "{error}");
}

/// A directory has neither classes nor tags.
#[tokio::test]
async fn stores_without_classes_ignore_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new("vol", "cb17d9ba-a2e6-4b75-bb43-3b00415f41f1", "file", "");
    settings.set_tier(Some(2), Some("GLACIER"), Some("k=v")).unwrap();
    let bucket = format!("{}/", dir.path().display());
    let tiers = settings.all_tiers();
    let store =
        open(&StoreConfig { storage: "file".to_owned(), bucket, tiers, ..StoreConfig::default() }).unwrap();
    store.put_in_tier("a/k", Bytes::from_static(b"x"), 2).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("a/k")).unwrap(), b"x");
    probe(store.as_ref(), "vol", 1).await.unwrap();
}
