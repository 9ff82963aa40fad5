//! What goes wrong for a person at a terminal: one line with the cause and what to do, an exit code, and an end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use ciderfs_testkit::s3::{S3Options, S3Server};
use support::client::{program, run_within, sh};
use support::{Engine, Volume};

/// Nobody waits longer for an error.
const PROMPT: Duration = Duration::from_secs(45);

/// Runs the program, which must fail with a last line that holds all the words.
#[track_caller]
fn refuse<S: AsRef<str>>(args: &[S], words: &[&str]) {
    refuse_with(program().args(args.iter().map(AsRef::as_ref)), words);
}

#[track_caller]
fn refuse_with(command: &mut Command, words: &[&str]) {
    let ran = run_within(command, PROMPT);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.code > 0, "{command:?} succeeded or died ({}):\n{said}", ran.code);
    let last = said.lines().rfind(|l| !l.trim().is_empty()).unwrap_or_default();
    for word in words {
        assert!(last.to_lowercase().contains(&word.to_lowercase()), "{word:?} is missing:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

/// A port of this machine where nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn addresses_of_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("mnt").display().to_string();
    for (url, words) in [
        ("nosuch://host/1", &["nosuch", "supported"][..]),
        ("postgres://host/1", &["postgres", "supported"]),
        ("redis://", &["host"]),
        ("redis://127.0.0.1:1/x", &["database number"]),
        ("sqlite3://", &["file"]),
        ("sqlite3:///no/such/directory/v.db", &["/no/such/directory"]),
    ] {
        refuse(&["format", url, "vol"], words);
        refuse(&["mount", url, &at], words);
        refuse(&["status", url], words);
    }
    let closed = format!("redis://127.0.0.1:{}/1", closed_port());
    refuse(&["format", &closed, "vol"], &["127.0.0.1", "refused", "is Redis running"]);
    refuse(&["mount", &closed, &at], &["127.0.0.1", "refused", "is Redis running"]);
    let secret =
        RedisServer::start(RedisOptions { password: Some("right".into()), ..Default::default() }).unwrap();
    let wrong = format!("redis://:wrong@127.0.0.1:{}/1", secret.port());
    refuse(&["mount", &wrong, &at], &["password", "META_PASSWORD"]);
    // No volume there.
    refuse(&["mount", &secret.url(), &at], &["format"]);
    refuse(&["status", &secret.url()], &["format"]);
    let missing = dir.path().join("missing.db");
    refuse(&["mount", &format!("sqlite3://{}", missing.display()), &at], &["no volume", "format"]);
    assert!(!missing.exists(), "a mistyped path leaves no file behind");
    let file = dir.path().join("text");
    fs::write(&file, "this is no database, whatever its length may be".repeat(100)).unwrap();
    refuse(&["mount", &format!("sqlite3://{}", file.display()), &at], &["is not a SQLite database"]);
}

#[test]
fn volumes() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    let storage = volume.storage_flags(&[]);
    let format = |name: &str, flags: &[&str]| {
        let mut args = vec!["format".to_owned(), volume.meta.clone(), name.to_owned()];
        args.extend(storage.clone());
        args.extend(flags.iter().map(|f| (*f).to_owned()));
        args
    };
    refuse(&format("other", &[]), &["cannot update volume name from vol to other"]);
    refuse(&["format", "sqlite3:///tmp/never-made.db", "Bad_Name"], &["name"]);
    // Another volume at the same place.
    let second = Volume::unformatted(Engine::Sqlite);
    let mut args = vec!["format".to_owned(), second.meta.clone(), "vol".to_owned()];
    args.extend(storage.clone());
    refuse(&args, &["not empty", "--force"]);
    // Flags.
    refuse(&format("vol", &["--no-such-flag"]), &["no-such-flag"]);
    refuse(&["mount", &volume.meta, "/nowhere", "--writeback"], &["writeback"]);
    refuse(&["mount", &volume.meta, "/nowhere", "--cache-size=many"], &["cache-size"]);
    refuse(&["mount", &volume.meta, "/nowhere", "--backup-meta=1h"], &["backup-meta"]);
    refuse(&["mount", &volume.meta], &["at least 2 arguments"]);
    refuse(&["warmup", "up"], &["warmup"]);
    // A bucket that cannot be reached does not become the volume's.
    let closed = format!("--bucket=http://127.0.0.1:{}/bucket", closed_port());
    let keys = ["--access-key=a", "--secret-key=b"];
    refuse(&["config", &volume.meta, "--storage=s3", &closed, keys[0], keys[1]], &["nothing was changed"]);
    let status = run_within(program().args(["status", &volume.meta]), PROMPT).stdout;
    assert!(status.contains(&volume.objects.display().to_string()), "{status}");
    refuse(&["nonsense"], &["nonsense"]);
}

#[test]
fn versions_of_the_volume() {
    for (change, words) in [
        ("s/\"MetaVersion\": *1/\"MetaVersion\": 9/", &["version", "9"][..]),
        ("s/\"MinClientVersion\": *\"[^\"]*\"/\"MinClientVersion\": \"9.1.0\"/", &["9.1.0"]),
    ] {
        let volume = Volume::new(Engine::Redis, &[]);
        let redis = volume.redis.as_ref().unwrap();
        let script = format!(
            "redis-cli -n 1 -p {} get setting > setting; sed -i '{change}' setting; redis-cli -n 1 -p {} -x set setting < setting",
            redis.port(),
            redis.port()
        );
        sh(volume.dir.path(), &script);
        let at = volume.new_path().display().to_string();
        refuse(&["mount", &volume.meta, &at], words);
    }
}

#[test]
fn mount_points() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    let full = volume.dir.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("something"), "").unwrap();
    let file = volume.dir.path().join("file");
    fs::write(&file, "").unwrap();
    refuse(&["mount", &volume.meta, &file.display().to_string()], &["directory"]);
    let mount = volume.mount(&[]);
    let busy = mount.path().display().to_string();
    // In use: it is not taken away under its users.
    let user = fs::File::create(mount.join("open")).unwrap();
    refuse(&["umount", &busy], &["busy"]);
    drop(user);
    mount.unmount();
    refuse(&["umount", &busy], &["mounted"]);
    refuse(&["umount", "/no/such/place"], &["/no/such/place"]);
}

#[test]
fn object_stores() {
    let server =
        S3Server::start_now(S3Options { buckets: vec!["bucket".into()], ..S3Options::default() }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let meta = format!("sqlite3://{}", dir.path().join("v.db").display());
    let args = |bucket: &str, key: &str, secret: &str| {
        [
            "format",
            &meta,
            "vol",
            "--storage=s3",
            &format!("--bucket={bucket}"),
            &format!("--access-key={key}"),
            &format!("--secret-key={secret}"),
        ]
        .map(str::to_owned)
    };
    let url = server.bucket_url("bucket");
    refuse(&args(&url, &server.access_key, "wrong"), &["SignatureDoesNotMatch"]);
    refuse(&args(&url, "nobody", &server.secret_key), &["key"]);
    let closed = format!("http://127.0.0.1:{}/bucket", closed_port());
    refuse(&args(&closed, "a", "b"), &["127.0.0.1"]);
    // A server that accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}/bucket", silent.local_addr().unwrap());
    refuse(&args(&silent_url, "a", "b"), &["127.0.0.1"]);
    // Nothing was left behind: the right key makes the volume, and a wrong passphrase or a lost key does not open it.
    let ran = run_within(program().args(args(&url, &server.access_key, &server.secret_key)), PROMPT);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let shown = run_within(program().args(["status", &meta]), PROMPT).stdout;
    assert!(shown.contains("\"removed\"") && !shown.contains(&server.secret_key), "{shown}");
}

#[test]
fn passphrases_of_private_keys() {
    let volume = Volume::unformatted(Engine::Sqlite);
    sh(volume.dir.path(), "openssl genrsa -aes256 -passout pass:right -out key.pem 2048 2> /dev/null");
    let key = format!("--encrypt-rsa-key={}", volume.dir.path().join("key.pem").display());
    let mut args = vec!["format".to_owned(), volume.meta.clone(), "vol".to_owned(), key];
    args.extend(volume.storage_flags(&[]));
    refuse(&args, &["JFS_RSA_PASSPHRASE"]);
    refuse_with(program().args(&args).env("JFS_RSA_PASSPHRASE", "wrong"), &["passphrase"]);
    let ran = run_within(program().args(&args).env("JFS_RSA_PASSPHRASE", "right"), PROMPT);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    let at = volume.new_path().display().to_string();
    let mount = ["mount", &volume.meta, &at];
    refuse(&mount, &["JFS_RSA_PASSPHRASE"]);
    refuse_with(program().args(mount).env("JFS_RSA_PASSPHRASE", "wrong"), &["passphrase"]);
}
