//! Objects of the official client: ours reads what it wrote, checksums included, and it reads what ours wrote.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;

use ciderfs_object::layers::Prefixed;
use ciderfs_object::{ObjectError, ObjectStore, StoreConfig, has_other_objects, open};
use ciderfs_testkit::official::Official;
use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use ciderfs_testkit::require;
use ciderfs_testkit::s3::{Faults, S3Options, S3Server};
use ciderfs_testkit::sshd::Sshd;
use ciderfs_testkit::webdav::WebDav;

/// Writes a file with the official client; then every object is rewritten by us, and the official client reads and checks it.
async fn exchange(official: &Official, dir: &Path, cfg: &StoreConfig) -> Arc<dyn ObjectStore> {
    let meta = format!("sqlite3://{}", dir.join("meta.db").display());
    let mut flags = vec!["--storage", &cfg.storage, "--bucket", &cfg.bucket];
    if !cfg.access_key.is_empty() {
        flags.extend(["--access-key", &cfg.access_key]);
    }
    if !cfg.secret_key.is_empty() {
        flags.extend(["--secret-key", cfg.secret_key.expose()]);
    }
    let shards = cfg.shards.to_string();
    if cfg.shards > 1 {
        flags.extend(["--shards", &shards]);
    }
    official.format(&meta, "vol", &flags).unwrap();
    let content: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mount = official.mount(&meta, &dir.join("mnt"), &[]).unwrap();
    std::fs::write(mount.path().join("f"), &content).unwrap();
    mount.unmount().unwrap();

    let store: Arc<dyn ObjectStore> = Arc::new(Prefixed::new(open(cfg).unwrap(), "vol"));
    assert!(has_other_objects(store.as_ref()).await.unwrap());
    let blocks = store.list("chunks/", "", 100).await.unwrap();
    let sizes: Vec<u64> = blocks.iter().map(|e| e.size).collect();
    // How many slices it makes of them depends on how fast it is.
    assert_eq!(sizes.iter().sum::<u64>(), 5_000_000);
    let mut bodies = Vec::new();
    for block in &blocks {
        let body = store.get(&block.key, None).await.unwrap();
        store.delete(&block.key).await.unwrap();
        bodies.push(body);
    }
    assert!(bodies.concat() == content);
    assert_eq!(store.get("juicefs_uuid", None).await.unwrap().len(), 36);
    for (block, body) in blocks.iter().zip(bodies) {
        store.put(&block.key, body).await.unwrap();
    }

    let mount = official.mount(&meta, &dir.join("mnt"), &[]).unwrap();
    assert!(std::fs::read(mount.path().join("f")).unwrap() == content);
    mount.unmount().unwrap();
    official.fsck(&meta, &[]).unwrap();
    store
}

#[tokio::test]
async fn blocks_are_exchanged_through_s3() {
    let Some(official) = require(Official::locate()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(S3Options::default()).await.unwrap();
    let cfg = StoreConfig {
        storage: "s3".to_owned(),
        bucket: server.bucket_url("volume"),
        access_key: server.access_key.clone(),
        secret_key: server.secret_key.as_str().into(),
        ..StoreConfig::default()
    };
    let store = exchange(&official, dir.path(), &cfg).await;
    // The checksum of the official client is verified, too: its UUID object was left as it was.
    server.control().set(Faults { corrupt_next: 1, ..Faults::default() });
    assert!(matches!(store.get("juicefs_uuid", None).await, Err(ObjectError::Corrupt(..))));
}

#[tokio::test]
async fn blocks_are_exchanged_through_sharded_minio_buckets() {
    let Some(official) = require(Official::locate()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = S3Server::start(S3Options::default()).await.unwrap();
    let cfg = StoreConfig {
        storage: "minio".to_owned(),
        bucket: server.bucket_url("shard%d"),
        access_key: server.access_key.clone(),
        secret_key: server.secret_key.as_str().into(),
        shards: 3,
        ..StoreConfig::default()
    };
    exchange(&official, dir.path(), &cfg).await;
}

#[tokio::test]
async fn blocks_are_exchanged_through_a_directory() {
    let Some(official) = require(Official::locate()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let cfg = StoreConfig {
        storage: "file".to_owned(),
        bucket: format!("{}/", dir.path().join("objects").display()),
        ..StoreConfig::default()
    };
    exchange(&official, dir.path(), &cfg).await;
}

#[tokio::test]
async fn blocks_are_exchanged_through_webdav() {
    let Some(official) = require(Official::locate()) else { return };
    let Some(server) = require(WebDav::start()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let cfg = StoreConfig {
        storage: "webdav".to_owned(),
        bucket: format!("{}/", server.url()),
        access_key: server.user.clone(),
        secret_key: server.password.as_str().into(),
        ..StoreConfig::default()
    };
    exchange(&official, dir.path(), &cfg).await;
    assert!(server.files().join("vol/juicefs_uuid").is_file());
}

#[tokio::test]
async fn blocks_are_exchanged_through_redis() {
    let Some(official) = require(Official::locate()) else { return };
    let options = RedisOptions { password: Some("a-secret".to_owned()), ..RedisOptions::default() };
    let Some(server) = require(RedisServer::start(options)) else { return };
    let dir = tempfile::tempdir().unwrap();
    let cfg = StoreConfig {
        storage: "redis".to_owned(),
        bucket: format!("redis://127.0.0.1:{}/3", server.port()),
        access_key: "default".to_owned(),
        secret_key: "a-secret".into(),
        ..StoreConfig::default()
    };
    exchange(&official, dir.path(), &cfg).await;
}

/// Set for [`through_sftp`]: bucket and user.
const SFTP: &str = "TEST_SFTP";

/// A part of the next test, with a key in the environment.
#[tokio::test]
async fn through_sftp() {
    let Ok(place) = std::env::var(SFTP) else { return };
    let Some(official) = require(Official::locate()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (bucket, user) = place.split_once(' ').unwrap();
    let cfg = StoreConfig {
        storage: "sftp".to_owned(),
        bucket: bucket.to_owned(),
        access_key: user.to_owned(),
        ..StoreConfig::default()
    };
    exchange(&official, dir.path(), &cfg).await;
    println!("all done");
}

#[test]
fn blocks_are_exchanged_through_sftp() {
    let Some(server) = require(Sshd::start()) else { return };
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "through_sftp", "--nocapture"])
        .env(SFTP, format!("{} {}", server.bucket(), server.user().unwrap()))
        .env("SSH_PRIVATE_KEY_PATH", server.key_file())
        .env_remove("SSH_KNOWN_HOSTS")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("all done"), "{text}");
}
