//! `doctor`: a good set-up is found good, and each fault that is planted fails the check that it is for, with its own text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use ciderfs_testkit::s3::{Op, Policy, S3Options, S3Server, Scripted};
use serde_json::Value;
use support::client::{Ran, program, run_within, succeed};
use support::volume::NAME;
use support::{Engine, Volume};
use tempfile::TempDir;

/// No run may take longer.
const LIMIT: Duration = Duration::from_secs(30);
/// Somebody else.
const STRANGER: u32 = 12_345;
/// In whatever is a secret.
const SECRET: &str = "planted-secret";

/// What a run said.
struct Said {
    ran: Ran,
    findings: Vec<Value>,
}

impl Said {
    #[track_caller]
    fn has(&self, check: &str, status: &str, text: &str) -> &Self {
        let is = |f: &&Value| {
            let said = format!("{} {}", f["text"].as_str().unwrap(), f["remedy"].as_str().unwrap());
            f["check"] == check && f["status"] == status && said.contains(text)
        };
        assert!(self.findings.iter().any(|f| is(&f)), "{check} {status} {text:?}:\n{}", self.ran.stdout);
        let is_failure = self.findings.iter().any(|f| f["status"] == "failed");
        assert_eq!(self.ran.code, i32::from(is_failure), "{}{}", self.ran.stdout, self.ran.stderr);
        self
    }

    /// Nothing is wrong but what the names say.
    #[track_caller]
    fn is_good_but(&self, checks: &[&str]) {
        for finding in &self.findings {
            let check = finding["check"].as_str().unwrap();
            let is_excused = checks.contains(&check) || check == "clock";
            assert!(finding["status"] == "ok" || is_excused, "{finding}");
        }
    }
}

/// Without anything of this machine that a run might meet.
fn doctor() -> Command {
    let mut command = program();
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.env_remove("REDIS_PASSWORD").args(["doctor", "--json"]);
    command
}

#[track_caller]
fn said(command: &mut Command) -> Said {
    let ran = run_within(command, LIMIT);
    let findings: Vec<Value> =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", ran.stdout, ran.stderr));
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(SECRET), "{}{}", ran.stdout, ran.stderr);
    for f in &findings {
        assert_eq!(f["status"] == "ok", f["remedy"] == "", "a remedy where one is needed: {f}");
    }
    Said { ran, findings }
}

#[track_caller]
fn examine(args: &[&str]) -> Said {
    said(doctor().arg("--cache-dir=memory").args(args))
}

fn server() -> S3Server {
    let secret_key = format!("{SECRET}-s3");
    S3Server::start_now(S3Options { buckets: vec!["have".into()], secret_key, ..S3Options::default() })
        .unwrap()
}

fn redis(options: RedisOptions) -> RedisServer {
    RedisServer::start(options).unwrap_or_else(|e| panic!("{e:#}"))
}

fn good() -> RedisOptions {
    RedisOptions { append_only: true, ..RedisOptions::default() }
}

/// A volume whose objects are in a bucket of the server.
fn on(server: &S3Server, meta: &str, flags: &[&str]) {
    let mut format: Vec<String> =
        ["format", meta, NAME, "--storage=s3"].iter().map(|s| (*s).to_owned()).collect();
    format.extend([
        format!("--bucket={}", server.bucket_url("have")),
        format!("--access-key={}", server.access_key),
        format!("--secret-key={}", server.secret_key),
    ]);
    format.extend(flags.iter().map(|f| (*f).to_owned()));
    succeed(&format);
}

fn s3_volume(server: &S3Server) -> Volume {
    let volume = Volume::unformatted(Engine::Sqlite);
    on(server, &volume.meta, &[]);
    volume
}

fn write(path: &Path, text: &str) -> PathBuf {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    path.to_owned()
}

fn scratch() -> TempDir {
    // Of another device than the root file system.
    let dir = tempfile::Builder::new().prefix("doctor").tempdir_in("/dev/shm").unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Everything is in order, and stays as it was: no object, no key, no file more. No secret is told in any form.
#[test]
fn a_good_node_is_found_good() {
    let server = server();
    let password = format!("{SECRET}-redis");
    let redis = redis(RedisOptions { password: Some(password.clone()), ..good() });
    let meta = format!("redis://127.0.0.1:{}/1", redis.port());
    let dir = scratch();
    let file = write(
        &dir.path().join("env"),
        &format!(
            "# as deployed\nACCESS_KEY={}\nSECRET_KEY='{}'\nENDPOINT={}\nBUCKET=have\nREDIS_URL={meta}\nMETA_PASSWORD=\"{password}\"\n",
            server.access_key,
            server.secret_key,
            server.endpoint()
        ),
    );
    on(&server, &redis.url_db(1), &[]);
    fs::create_dir(dir.path().join("mnt")).unwrap();
    let objects = || {
        let mut there = BTreeSet::new();
        for request in server.control().requests() {
            match request.op {
                Op::Put => _ = there.insert(request.path),
                Op::Delete => _ = there.remove(&request.path),
                _ => {}
            }
        }
        there
    };
    let (before, keys) = (objects(), redis.command(&["INFO", "keyspace"]).unwrap());
    let args = [
        format!("--env-file={}", file.display()),
        format!("--cache-dir={}", dir.path().join("cache").display()),
        "--cache-size=1".into(),
        "--free-space-ratio=0".into(),
        format!("--mount-point={}", dir.path().join("mnt").display()),
    ];
    let found = said(doctor().args(&args));
    found.is_good_but(&[]);
    for check in [
        "env file",
        "kernel FUSE",
        "fusermount3",
        "clock",
        "engine DNS",
        "engine TCP",
        "engine login",
        "engine version",
        "engine persistence",
        "engine eviction",
        "engine memory",
        "engine password",
        "engine keys",
        "engine latency",
        "engine clock",
        "volume",
        "bucket address",
        "bucket DNS",
        "bucket TCP",
        "bucket clock",
        "bucket region",
        "bucket delete",
        "bucket put",
        "bucket get",
        "bucket range",
        "bucket list",
        "bucket multi-delete",
        "bucket volume",
        "cache directory",
        "mount point",
        "open files",
        "encryption",
    ] {
        assert_eq!(found.findings.iter().filter(|f| f["check"] == check).count(), 1, "{check}");
    }
    assert_eq!(objects(), before);
    assert_eq!(redis.command(&["INFO", "keyspace"]).unwrap(), keys);
    assert!(!dir.path().join("cache").exists());
    // The same in lines.
    let lines = run_within(program().arg("doctor").args(&args), LIMIT);
    assert_eq!((lines.code, lines.stdout.lines().count()), (0, found.findings.len()), "{}", lines.stdout);
    assert!(!format!("{}{}", lines.stdout, lines.stderr).contains(SECRET), "{}", lines.stdout);
    assert!(lines.stdout.contains("ok       engine version: Redis "), "{}", lines.stdout);
    // A password in the address is not told either, nor one that is wrong.
    let wrong = format!("redis://:{SECRET}-wrong@127.0.0.1:{}/1", redis.port());
    examine(&[&wrong]).has("engine login", "failed", "check user and password").has("volume", "skipped", "");
    // Without an address this machine alone is looked at.
    let found = examine(&[]);
    found.has("engine", "skipped", "no META-URL").has("bucket", "skipped", "");
    assert_eq!(found.ran.code, 0);
}

#[test]
fn faults_of_the_machine() {
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    for name in ["theirs", "open", "full", "empty"] {
        fs::create_dir(at(name)).unwrap();
    }
    chown(at("theirs"), Some(STRANGER), None).unwrap();
    fs::set_permissions(at("open"), Permissions::from_mode(0o777)).unwrap();
    write(&at("full/file"), "");
    let cache =
        |dir: &Path, flags: &[&str]| said(doctor().arg(format!("--cache-dir={}", dir.display())).args(flags));
    let small = ["--cache-size=1", "--free-space-ratio=0"];
    cache(&at("theirs"), &small).has("cache directory", "failed", "belongs to user 12345");
    cache(&at("theirs/below"), &small).has("cache directory", "failed", "belongs to user 12345");
    cache(&at("open"), &small).has("cache directory", "failed", "others may write");
    cache(&at("full/file"), &small).has("cache directory", "failed", "is no directory");
    cache(&at("empty"), &["--free-space-ratio=1"]).has("cache directory", "failed", "nothing is cached");
    cache(&at("empty"), &["--cache-size=1E"]).has("cache directory", "warning", "--cache-size is");
    cache(Path::new("/var/tmp"), &small).has("cache directory", "warning", "disk of the root file system");
    cache(&at("empty"), &small).has("cache directory", "ok", "");

    let mount = |path: &Path| examine(&[&format!("--mount-point={}", path.display())]);
    mount(&at("full")).has("mount point", "failed", "is not empty");
    mount(&at("full/file")).has("mount point", "failed", "is no directory");
    mount(&at("none")).has("mount point", "warning", "mkdir -p");
    mount(Path::new("/")).has("mount point", "failed", "another directory");
    mount(Path::new("/proc")).has("mount point", "failed", "is mounted at");
    mount(&at("empty")).has("mount point", "ok", "");
    let volume = Volume::new(Engine::Sqlite, &[]);
    let live = volume.mount(&[]);
    mount(live.path()).has("mount point", "warning", "is mounted at");
    live.unmount();

    // As somebody who is not root.
    let other = |path: &str, args: &[String]| {
        said(doctor().arg("--cache-dir=memory").args(args).env("PATH", path).uid(STRANGER).gid(STRANGER))
    };
    other("/nowhere", &[]).has("fusermount3", "failed", "install the package fuse3");
    write(&at("empty/fusermount3"), "#!/bin/sh\n");
    other(at("empty").to_str().unwrap(), &[]).has("fusermount3", "failed", "does not run as root");
    other("/usr/bin:/bin", &[]).has("fusermount3", "ok", "");
    let point = format!("--mount-point={}", at("theirs").display());
    other("/usr/bin:/bin", &[point]).has("mount point", "ok", "");
    fs::create_dir(at("roots")).unwrap();
    let point = format!("--mount-point={}", at("roots").display());
    other("/usr/bin:/bin", &[point]).has("mount point", "failed", "is not for this user");
    // SQLite: the directory, and the file.
    let meta = format!("sqlite3://{}", at("roots/meta.db").display());
    other("/usr/bin:/bin", &[meta]).has("engine file", "failed", "write to the directory");
    write(&at("theirs/meta.db"), "");
    let meta = format!("sqlite3://{}", at("theirs/meta.db").display());
    other("/usr/bin:/bin", &[meta]).has("engine file", "failed", "of user 0");

    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 200; exec \"$0\" doctor --json --cache-dir=memory"])
        .arg(doctor().get_program());
    said(&mut few).has("open files", "warning", "LimitNOFILE");
}

#[test]
fn faults_of_an_env_file() {
    let dir = scratch();
    let path = dir.path().join("env");
    let check = |text: &str| {
        write(&path, text);
        examine(&[&format!("--env-file={}", path.display())])
    };
    let good = format!("ACCESS_KEY=a\nSECRET_KEY={SECRET}\n");
    check(&good).has("env file", "ok", "ACCESS_KEY, SECRET_KEY");
    for (text, status, why) in [
        (good.replace('\n', "\r\n"), "failed", "CRLF"),
        (format!("export {good}"), "failed", "line 1 begins with export"),
        (good.replace("KEY=", "KEY ="), "failed", "line 1 has spaces around ="),
        (good.replace("KEY=", "KEY= "), "failed", "line 2 has spaces around ="),
        (format!("{good}{SECRET}\n"), "failed", "line 3 has no ="),
        (format!("{good}2{SECRET}=x\n"), "failed", "line 3 is no name"),
        (format!("{good}META_PASSWORD='{SECRET}\n"), "failed", "line 3 (META_PASSWORD) is not closed"),
        (format!("{good}META_PASSWORD={SECRET}$HOME\n"), "warning", "line 3 (META_PASSWORD) has $"),
        (format!("{good}SECRET_KEY={SECRET}2\n"), "warning", "SECRET_KEY is there more than once"),
        (format!("{good}REGION=\n"), "warning", "REGION has no value"),
        (format!("{good}ENDPIONT=x\n"), "warning", "did you mean ENDPOINT?"),
        (format!("ACCESS_KEY=a\nSECRET_KYE={SECRET}\n"), "failed", "ACCESS_KEY and no SECRET_KEY"),
        ("META_URL=sqlite3:///a/b\nREDIS_URL=redis://127.0.0.1:1\n".into(), "warning", "META_URL counts"),
    ] {
        check(&text).has("env file", status, why);
    }
    write(&path, &good);
    for (mode, who) in [(0o640, "its group"), (0o644, "everybody")] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let found = examine(&[&format!("--env-file={}", path.display())]);
        found.has("env file", "failed", who).has("env file", "failed", "chmod 0600");
    }
    fs::write(&path, b"ACCESS_KEY=\xff\n").unwrap();
    examine(&[&format!("--env-file={}", path.display())]).has("env file", "failed", "UTF-8");
    let none = format!("--env-file={}", dir.path().join("none").display());
    examine(&[&none]).has("env file", "failed", "No such file");
}

#[test]
fn faults_of_redis() {
    let with = |lines: &[&str]| {
        let config = lines.iter().map(|line| (*line).to_owned()).collect();
        redis(RedisOptions { config, ..good() })
    };
    let bad = |lines: &[&str], check: &str, status: &str, text: &str| {
        let redis = with(lines);
        examine(&[&redis.url_db(1)]).has(check, status, text);
    };
    bad(&["maxmemory-policy allkeys-lru"], "engine eviction", "failed", "is allkeys-lru");
    bad(&["maxmemory 500kb"], "engine memory", "failed", "raise maxmemory");
    bad(&["protected-mode no", "bind 0.0.0.0"], "engine password", "failed", "asks for no password");
    bad(&["replicaof 127.0.0.1 1"], "engine role", "failed", "takes no writes");
    bad(&["appendonly no"], "engine persistence", "failed", "neither AOF nor snapshots");
    bad(&["appendonly no", "save 60 1"], "engine persistence", "warning", "AOF is off");
    bad(&["user default on nopass ~* &* +@all -info"], "engine version", "skipped", "+info");

    let redis = with(&[]);
    let meta = redis.url_db(1);
    examine(&[&meta]).has("volume", "warning", "ciderfs format").has("engine keys", "ok", "");
    // Nothing was made.
    assert!(!redis.command(&["INFO", "keyspace"]).unwrap().contains("db"));
    let mut socket = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    socket.write_all(b"SELECT 1\r\nSET session:abc 1\r\n").unwrap();
    let mut answer = [0; 10];
    socket.read_exact(&mut answer).unwrap();
    examine(&[&meta]).has("engine keys", "warning", "session:abc");

    let old = relay(redis.port(), |bytes| replace(bytes, b"redis_version:", b"5.0"));
    examine(&[&format!("redis://127.0.0.1:{old}/1")]).has("engine version", "failed", "is too old");
    let slow = relay(redis.port(), |_| std::thread::sleep(Duration::from_millis(20)));
    examine(&[&format!("redis://127.0.0.1:{slow}/1")]).has("engine latency", "warning", "a turn takes");
    // The first digit of the seconds.
    let late = relay(redis.port(), |bytes| replace(bytes, b"*2\r\n$10\r\n", b"16"));
    examine(&[&format!("redis://127.0.0.1:{late}/1")]).has("engine clock", "failed", "ahead of it");

    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    examine(&[&format!("redis://127.0.0.1:{closed}/1")]).has("engine TCP", "failed", "refused");
    examine(&["redis://no-such-host.invalid/1"]).has("engine DNS", "failed", "no-such-host.invalid");
    examine(&[&format!("redis://:{SECRET}@h:x/1")]).has("engine address", "failed", "no port");

    let tls = self::redis(RedisOptions { tls: true, ..good() });
    examine(&[&tls.url_db(1)]).has("engine TLS", "failed", "tls-ca-cert-file");
    let trusted = format!("{}?tls-ca-cert-file={}", tls.url_db(1), tls.ca_file().display());
    examine(&[&trusted]).has("engine TLS", "ok", "").has("engine version", "ok", "");
}

#[test]
fn faults_of_sqlite_and_of_the_volume() {
    let dir = scratch();
    let meta = |name: &str| format!("sqlite3://{}", dir.path().join(name).display());
    examine(&[&meta("none/meta.db")]).has("engine file", "failed", "mkdir -p");
    examine(&[&meta("meta.db")]).has("volume", "warning", "ciderfs format");
    assert!(!dir.path().join("meta.db").exists());
    fs::create_dir(dir.path().join("meta.db")).unwrap();
    examine(&[&meta("meta.db")]).has("engine file", "failed", "is no file");
    // A file on a mount of ours, which is a network to SQLite.
    let volume = Volume::new(Engine::Sqlite, &[]);
    let mount = volume.mount(&[]);
    let there = format!("sqlite3://{}", mount.join("meta.db").display());
    examine(&[&there]).has("engine file", "warning", "is on FUSE");
    mount.unmount();
    examine(&[&volume.meta])
        .has("volume", "ok", NAME)
        .has("bucket put", "ok", "")
        .is_good_but(&["mount point"]);
    fs::remove_dir_all(&volume.objects).unwrap();
    examine(&[&volume.meta]).has("bucket address", "failed", "is no directory");
    // A later format.
    support::client::sh(
        volume.dir.path(),
        "sqlite3 meta.db \"UPDATE jfs_setting SET value = replace(value, '\\\"MetaVersion\\\": 1', '\\\"MetaVersion\\\": 9')\"",
    );
    examine(&[&volume.meta]).has("volume", "failed", "version");
}

#[test]
fn faults_of_a_bucket() {
    let server = server();
    let volume = s3_volume(&server);
    let meta = volume.meta.as_str();
    examine(&[meta]).is_good_but(&["mount point"]);
    let deny = |op| server.control().restrict(Policy { deny: vec![op], ..Policy::default() });
    for (op, check, status, right) in [
        (Op::Put, "bucket put", "failed", "s3:PutObject on have/vol/*"),
        (Op::Get, "bucket get", "failed", "s3:GetObject on have/vol/*"),
        (Op::Delete, "bucket delete", "failed", "s3:DeleteObject on have/vol/*"),
        (Op::List, "bucket list", "failed", "s3:ListBucket on have"),
        (Op::Other, "bucket multi-delete", "warning", "s3:DeleteObject on have/vol/*"),
    ] {
        deny(op);
        server.control().clear();
        let found = examine(&[meta]);
        found.has(check, status, right);
        let failed = found.findings.iter().filter(|f| f["status"] == status);
        assert_eq!(failed.filter(|f| f["check"] != "clock").count(), 1, "{}", found.ran.stdout);
        // Nothing is written that could not be deleted again.
        let is_written = server.control().requests().iter().any(|r| r.op == Op::Put && r.status == 200);
        assert_eq!(is_written, !matches!(op, Op::Put | Op::Delete));
    }
    server.control().restrict(Policy::default());
    let script = |scripted: Vec<Scripted>| server.control().prescribe(scripted);
    script(vec![Scripted { times: 1, ..Scripted::always(Op::Get, 403, "AccessDenied") }]);
    examine(&[meta]).has("bucket get", "failed", "s3:GetObject").has("bucket range", "skipped", "");
    script(vec![Scripted {
        region: Some("gra"),
        ..Scripted::always(Op::Delete, 400, "AuthorizationHeaderMalformed")
    }]);
    examine(&[meta]).has("bucket region", "failed", "AWS_REGION=gra").has("bucket put", "skipped", "");
    script(vec![Scripted::always(Op::Delete, 403, "RequestTimeTooSkewed")]);
    examine(&[meta]).has("bucket clock", "failed", "correct the time here");
    script(vec![Scripted::always(Op::Delete, 403, "InvalidAccessKeyId")]);
    examine(&[meta]).has("bucket delete", "failed", "check --access-key");
    script(Vec::new());
    let wrong = [meta, "--access-key=other", "--secret-key=other-planted"];
    examine(&wrong).has("bucket delete", "failed", "--access-key");
    let bucket = format!("--bucket={}", server.bucket_url("missing"));
    examine(&[meta, &bucket]).has("bucket put", "failed", "the bucket does not exist");

    // Whose objects they are.
    let dir = scratch();
    let file = |text: &str| format!("--env-file={}", write(&dir.path().join("env"), text).display());
    let keys = format!("ACCESS_KEY={}\nSECRET_KEY={}\n", server.access_key, server.secret_key);
    let to_be = file(&format!("{keys}ENDPOINT={}\nBUCKET=have\nVOLUME={NAME}\n", server.endpoint()));
    let empty = format!("sqlite3://{}", dir.path().join("meta.db").display());
    examine(&[&to_be, &empty]).has("bucket volume", "failed", "objects of a volume below vol/");
    let new = file(&format!("{keys}ENDPOINT={}\nBUCKET=have\nVOLUME=new\n", server.endpoint()));
    examine(&[&new, &empty]).has("bucket volume", "ok", "no objects below new/");
    let elsewhere = file(&format!("{keys}ENDPOINT={}\nBUCKET=other\n", server.endpoint()));
    examine(&[&elsewhere, meta]).has("bucket address", "failed", "is it another volume?");
    let odd = file(&format!("{keys}ENDPOINT={}/path\nBUCKET=have\n", server.endpoint()));
    examine(&[&odd]).has("bucket address", "failed", "/path");
    let second = Volume::unformatted(Engine::Sqlite);
    on(&server, &second.meta, &["--force"]);
    examine(&[meta]).has("bucket volume", "failed", "another volume of this name");
    examine(&[&second.meta]).has("bucket volume", "ok", "");
}

#[test]
fn faults_on_the_way_to_a_bucket() {
    let bucket = |url: &str| examine(&[&format!("--bucket={url}"), "--storage=s3"]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bucket(&format!("http://127.0.0.1:{closed}/b")).has("bucket TCP", "failed", "refused");
    bucket("http://no-such-host.invalid/b").has("bucket DNS", "failed", "no-such-host.invalid");
    let late = answering(
        "HTTP/1.1 403 Forbidden\r\nDate: Mon, 30 Nov 2020 10:00:00 GMT\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    bucket(&format!("http://127.0.0.1:{late}/b")).has("bucket clock", "failed", "ahead of it");
    // A certificate of an authority that is not known, and one that ends tomorrow.
    let tls = redis(RedisOptions { tls: true, ..good() });
    let certificates = tls.ca_file().parent().unwrap().to_owned();
    let https = Https::start(&certificates, closed);
    let url = format!("https://127.0.0.1:{}/b", https.port);
    bucket(&url).has("bucket TLS", "failed", "ca-certs=FILE");
    let trusted = format!("{url}?ca-certs={}", tls.ca_file().display());
    bucket(&trusted).has("bucket TLS", "warning", "renewed");
    bucket(&format!("https://127.0.0.1:{}/b", tls_less())).has("bucket TLS", "failed", "does not speak TLS");
}

/// Both ends take connections, and never answer.
#[test]
fn black_holes_are_left_in_time() {
    let (one, two) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let bucket = format!("--bucket=http://127.0.0.1:{}/b", port(&two));
    let found = examine(&[&format!("redis://127.0.0.1:{}/1", port(&one)), &bucket, "--storage=s3"]);
    found.has("engine login", "failed", "does not answer").has("volume", "skipped", "");
    found.has("bucket answers", "failed", "does not answer").has("bucket put", "skipped", "");
    assert!(found.ran.took < LIMIT, "{:?}", found.ran.took);
}

#[test]
fn the_passphrase_of_an_encrypted_volume() {
    let volume = Volume::unformatted(Engine::Sqlite);
    let dir = scratch();
    let pass = format!("{SECRET}-phrase");
    let key = dir.path().join("key.pem");
    let made = Command::new("openssl")
        .args(["genrsa", "-aes256", "-passout", &format!("pass:{pass}"), "-out"])
        .arg(&key)
        .arg("2048")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let mut format = program();
    format.env("JFS_RSA_PASSPHRASE", &pass).arg("format").args(volume.storage_flags(&[]));
    format.arg(format!("--encrypt-rsa-key={}", key.display())).args([&volume.meta, NAME]);
    let ran = run_within(&mut format, LIMIT);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    examine(&[&volume.meta]).has("encryption", "failed", "JFS_RSA_PASSPHRASE");
    let with = |pass: &str| {
        let file = write(&dir.path().join("env"), &format!("JFS_RSA_PASSPHRASE={pass}\n"));
        examine(&[&format!("--env-file={}", file.display()), &volume.meta])
    };
    with(&pass).has("encryption", "ok", "").has("bucket volume", "skipped", "");
    with(&format!("{SECRET}-wrong")).has("encryption", "failed", "");
}

/// Overwrites what follows some bytes.
fn replace(bytes: &mut [u8], after: &[u8], with: &[u8]) {
    if let Some(at) = bytes.windows(after.len()).position(|w| w == after) {
        bytes[at + after.len()..][..with.len()].copy_from_slice(with);
    }
}

/// A port that passes everything on to another one, and has its answers changed.
fn relay(to: u16, change: fn(&mut [u8])) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            let (mut asks, mut takes) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || _ = std::io::copy(&mut asks, &mut takes));
            let (mut answers, mut gets) = (server, client);
            std::thread::spawn(move || {
                let mut piece = vec![0; 1 << 16];
                while let Ok(n @ 1..) = answers.read(&mut piece) {
                    change(&mut piece[..n]);
                    if gets.write_all(&piece[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// A port that answers every request like this.
fn answering(text: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                while let Ok(n @ 1..) = client.read(&mut request) {
                    if request[..n].ends_with(b"\r\n\r\n") {
                        let _ = client.write_all(text.as_bytes());
                        return;
                    }
                }
            });
        }
    });
    port
}

/// A port that speaks no TLS.
fn tls_less() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = client.read(&mut [0; 4096]);
        }
    });
    port
}

/// A server that speaks HTTP over TLS.
struct Https {
    child: Child,
    port: u16,
}

impl Https {
    fn start(certificates: &Path, port: u16) -> Self {
        const SERVE: &str = "import http.server, ssl, sys\n\
            server = http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)\n\
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
            context.load_cert_chain('server.crt', 'server.key')\n\
            server.socket = context.wrap_socket(server.socket, server_side=True)\n\
            server.serve_forever()";
        let child = Command::new("python3")
            .args(["-c", SERVE, &port.to_string()])
            .current_dir(certificates)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        support::wait_for("the HTTPS server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { child, port }
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
