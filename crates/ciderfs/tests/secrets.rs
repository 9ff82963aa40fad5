//! Secrets that were planted in every way in which the program gets them are found nowhere in what it leaves or says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use ciderfs_testkit::s3::{Op, S3Options, S3Server, Scripted};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use support::client::{Mount, PATIENCE, Ran, is_mounted, program, run_within, sh, wait_for};
use tempfile::TempDir;

/// Letters and digits stay as they are in an address: the pieces of these passwords and keys are looked for one by one, so that a
/// part of one is found as well.
const PASSWORD: &str = "Aq7redisone@Bw9redistwo/Cm2redisthree";
const WRONG_PASSWORD: &str = "Dk4wrongone@Ej6wrongtwo";
const SECRET_KEY: &str = "Fp3secretkey/Gr8secretkey+x";
const WRONG_KEY: &str = "Hs5wrongkey/It7wrongkey";
const TOKEN: &str = "Ju2sessiontoken/Kv4sessiontoken==";
const PASSPHRASE: &str = "Lw6passphrase";
/// Not a secret.
const ACCESS_KEY: &str = "visibleaccesskey";

/// What must not be seen of all of these, plain and in base64 at each of its three places.
fn planted() -> Vec<String> {
    let pieces = [PASSWORD, WRONG_PASSWORD, SECRET_KEY, WRONG_KEY, TOKEN, PASSPHRASE]
        .into_iter()
        .flat_map(|secret| secret.split(|c: char| !c.is_ascii_alphanumeric()).filter(|p| p.len() > 4));
    pieces
        .flat_map(|piece| {
            let encoded = (0..3).map(|before| {
                let text = STANDARD.encode([&vec![0; before], piece.as_bytes()].concat());
                // Those characters that depend on nothing but the piece.
                let (from, to) = ([0, 2, 3][before], (before + piece.len()) * 8 / 6);
                text[from..to].to_owned()
            });
            std::iter::once(piece.to_owned()).chain(encoded).collect::<Vec<_>>()
        })
        .collect()
}

/// Looks through what was said or left.
#[track_caller]
fn assert_hidden(what: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let decoded = percent_decode_str(&text).decode_utf8_lossy();
    for secret in planted() {
        for text in [&text, &decoded] {
            if let Some(at) = text.find(&secret) {
                let line = text[..at].rfind('\n').map_or(0, |at| at + 1);
                panic!("{what} has {secret}: {}", text[line..].lines().next().unwrap_or_default());
            }
        }
    }
}

/// Runs a command; what it says holds no secret.
#[track_caller]
fn say(command: &mut Command) -> Ran {
    let ran = run_within(command, PATIENCE);
    let what = format!("the output of {command:?}");
    assert_hidden(&what, ran.stdout.as_bytes());
    assert_hidden(&what, ran.stderr.as_bytes());
    ran
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let ran = say(command);
    assert_eq!(ran.code, 0, "{command:?}: {}{}", ran.stdout, ran.stderr);
    ran.stdout + &ran.stderr
}

#[track_caller]
fn fail(command: &mut Command, words: &[&str]) {
    let ran = say(command);
    assert!(ran.code > 0 && words.iter().all(|w| ran.stderr.contains(w)), "{command:?} {words:?}: {ran:?}");
}

/// The program with arguments.
fn ciderfs(args: &[&str]) -> Command {
    let mut command = program();
    command.args(args);
    command
}

/// The program with everything logged that may be, in both ways in which that can be asked for.
fn loud(args: &[&str]) -> Command {
    let mut command = ciderfs(args);
    command.arg("--trace").env("RUST_LOG", "trace");
    command
}

/// Gives the lines on standard input.
#[track_caller]
fn succeed_with_input(command: &mut Command, lines: &str) -> String {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(lines.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    succeed(command.stdin(Stdio::from(file)))
}

/// A Redis with [`PASSWORD`], an S3 with [`SECRET_KEY`], and a directory.
struct Field {
    redis: RedisServer,
    s3: S3Server,
    dir: TempDir,
}

impl Field {
    fn new() -> Self {
        let options =
            RedisOptions { password: Some(PASSWORD.into()), append_only: true, ..RedisOptions::default() };
        let s3 = S3Options {
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            buckets: vec!["bucket".into()],
            ..S3Options::default()
        };
        Self {
            redis: RedisServer::start(options).unwrap(),
            s3: S3Server::start_now(s3).unwrap(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Host, port and database.
    fn host(&self, db: u32) -> String {
        format!("127.0.0.1:{}/{db}", self.redis.port())
    }

    /// The right address in every form that may be written.
    fn addresses(&self, db: u32) -> Vec<String> {
        let (host, encoded) = (self.host(db), utf8_percent_encode(PASSWORD, NON_ALPHANUMERIC));
        vec![
            format!("redis://:{PASSWORD}@{host}"),
            format!("redis://:{encoded}@{host}"),
            format!("redis://default:{PASSWORD}@{host}?read-timeout=20s"),
            format!("default:{PASSWORD}@{host}"),
            format!("unix://default:{encoded}@{}?db={db}", self.redis.socket().display()),
        ]
    }

    fn format(&self, meta: &str, name: &str, flags: &[&str]) -> Command {
        let mut command = loud(&["format", meta, name, "--storage=s3"]);
        command.arg("--bucket").arg(self.s3.bucket_url("bucket")).args(flags);
        command
    }

    /// Mounts in the background with a log.
    fn mount(&self, meta: &str, name: &str, flags: &[&str]) -> (Command, Served) {
        let served = Served { path: self.at(name), log: self.at(name).with_extension("log") };
        let mut command = ciderfs(&["mount", "-d", meta, "--metrics=", "--cache-dir=memory"]);
        command.args(["--io-retries=1", "--heartbeat=1"]).args(flags);
        command.arg(&served.path).arg("--log").arg(&served.log);
        (command, served)
    }
}

/// A mount in the background.
struct Served {
    path: PathBuf,
    log: PathBuf,
}

impl Served {
    fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Where everybody can look, and what root can.
    #[track_caller]
    fn look(&self) {
        let config = fs::read(self.join(".config")).unwrap();
        assert_hidden(".config", &config);
        assert_hidden(".stats", &fs::read(self.join(".stats")).unwrap());
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(config["Format"]["SecretKey"], "removed");
        let pid = u32::try_from(config["Pid"].as_u64().unwrap()).unwrap();
        assert_hidden("the mount table", &fs::read("/proc/self/mountinfo").unwrap());
        let shown = command_line(pid);
        assert!(shown.contains(" mount -d ") && shown.contains("****@"), "{shown}");
        assert_hidden("the environment", &fs::read(format!("/proc/{pid}/environ")).unwrap());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = run_within(program().arg("umount").arg(&self.path), PATIENCE);
    }
}

/// What `ps` shows of a process.
#[track_caller]
fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert_hidden("the command line", &bytes);
    String::from_utf8(bytes).unwrap().replace('\0', " ")
}

#[test]
fn a_volume_on_redis_and_s3_tells_no_secret() {
    let field = Field::new();
    let addresses = field.addresses(1);
    let meta = &addresses[0];
    let access = format!("--access-key={ACCESS_KEY}");
    let token = format!("--session-token={TOKEN}");
    let keys = |secret: &str| format!("--secret-key={secret}");
    // Refused, then made, with a warning for everything that was typed.
    fail(&mut field.format(meta, "vol", &[&access, &keys(WRONG_KEY), &token]), &["SignatureDoesNotMatch"]);
    let said = succeed(&mut field.format(meta, "vol", &[&access, &keys(SECRET_KEY), &token]));
    assert_eq!(said.matches("--meta-password-file").count(), 1, "{said}");
    assert_eq!(said.matches("--secret-key-file").count(), 1, "{said}");
    assert!(said.contains("\"removed\""), "{said}");
    fail(&mut field.format(meta, "vol", &[&keys(WRONG_KEY)]), &["nothing was changed"]);
    for (i, meta) in addresses.iter().enumerate() {
        // A flag and its value may stand before the command.
        let said = say(ciderfs(&["--secret-key", WRONG_KEY, "conig", meta]).arg("--force"));
        assert!(
            said.code == 3 && said.stderr.contains("'conig'; did you mean `ciderfs config`?"),
            "{said:?}"
        );
        for command in ["status", "config"] {
            let said = succeed(&mut loud(&[command, meta]));
            assert!(said.contains("\"removed\""), "{said}");
        }
        succeed(&mut loud(&["quota", "list", meta]));
        let (mut command, served) = field.mount(meta, &format!("mnt{i}"), &["--trace"]);
        // The flag alone, and the variable alone.
        if i % 2 == 0 {
            command.args(["--verbose", "--trace=false"]);
        } else {
            command.env("RUST_LOG", "trace");
        }
        succeed(&mut command);
        let body = noise(300_000);
        fs::write(served.join("file"), &body).unwrap();
        assert_eq!(fs::read(served.join("file")).unwrap(), body);
        succeed(loud(&["info"]).arg(served.join("file")));
        served.look();
        let said = succeed(&mut loud(&["status", meta]));
        assert!(said.contains("\"MountPoint\""), "{said}");
        if i == 0 {
            go_wrong(&field, meta, &served);
        }
        succeed(loud(&["umount"]).arg(&served.path));
        wait_for("the end of the mount", || !is_mounted(&served.path));
        let log = served.log();
        assert!(log.contains("Meta address: ") && log.contains("<DEBUG>"), "{log}");
        assert_hidden("the log", log.as_bytes());
        assert_eq!(fs::metadata(&served.log).unwrap().mode() & 0o777, 0o600);
    }
}

/// What a mount says of errors: a store that repeats what it was sent, and keys that are wrong from now on.
fn go_wrong(field: &Field, meta: &str, served: &Served) {
    let write = |name: &str| {
        let mut file = File::create(served.join(name)).unwrap();
        file.write_all(&noise(100_000)).unwrap();
        file.sync_all()
    };
    let repeated = Scripted {
        elements: "<Message>The token Ju2sessiontoken/Kv4sessiontoken== is not one of ours</Message>",
        ..Scripted::always(Op::Put, 400, "InvalidToken")
    };
    field.s3.control().prescribe(vec![repeated]);
    write("refused").unwrap_err();
    wait_for("the error in the log", || served.log().contains("is not one of ours"));
    field.s3.control().prescribe(Vec::new());
    for (key, then) in [(WRONG_KEY, false), (SECRET_KEY, true)] {
        let before = served.log().matches("objects are now at").count();
        let mut config = loud(&["config", meta, "--force", "--secret-key", "-", "--session-token=-"]);
        let said = succeed_with_input(&mut config, &format!("{key}\n{TOKEN}2\n"));
        assert!(!said.contains("on standard input"), "nothing was typed: {said}");
        wait_for("the new key", || served.log().matches("objects are now at").count() > before);
        assert_eq!(write("again").is_ok(), then);
    }
    assert!(served.log().contains("SignatureDoesNotMatch"));
}

#[test]
fn what_comes_from_the_environment_stays_there() {
    let field = Field::new();
    sh(
        field.dir.path(),
        &format!("openssl genrsa -aes256 -passout pass:{PASSPHRASE} -out key.pem 2048 2> /dev/null"),
    );
    let pem = fs::read_to_string(field.at("key.pem")).unwrap();
    let key = format!("--encrypt-rsa-key={}", field.at("key.pem").display());
    let meta = format!("redis://{}", field.host(2));
    let environment = [
        ("META_PASSWORD", PASSWORD),
        ("ACCESS_KEY", ACCESS_KEY),
        ("SECRET_KEY", SECRET_KEY),
        ("SESSION_TOKEN", TOKEN),
        ("JFS_RSA_PASSPHRASE", PASSPHRASE),
    ];
    let wrong = |name: &str| {
        let mut command = field.format(&meta, "vol", &[&key]);
        command.envs(environment).env(name, WRONG_KEY);
        command
    };
    for name in ["META_PASSWORD", "SECRET_KEY", "JFS_RSA_PASSPHRASE"] {
        fail(&mut wrong(name), &["FATAL"]);
    }
    let said = succeed(field.format(&meta, "vol", &[&key]).envs(environment));
    assert!(!said.contains("(ps)"), "nothing was typed: {said}");
    // A log of an older version, for everybody.
    let (mut command, served) = field.mount(&meta, "mnt", &["--verbose"]);
    fs::write(&served.log, "").unwrap();
    fs::set_permissions(&served.log, Permissions::from_mode(0o644)).unwrap();
    succeed(command.envs([environment[0], environment[4]]).env("RUST_LOG", "trace"));
    fs::write(served.join("file"), "text").unwrap();
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(served.join(".config")).unwrap()).unwrap();
    for name in ["SecretKey", "SessionToken", "EncryptKey"] {
        assert_eq!(config["Format"][name], "removed");
    }
    let pid = u32::try_from(config["Pid"].as_u64().unwrap()).unwrap();
    assert_hidden("the environment", &fs::read(format!("/proc/{pid}/environ")).unwrap());
    command_line(pid);
    drop(served);
    wait_for("the end of the mount", || !is_mounted(&field.at("mnt")));
    let log = fs::read_to_string(field.at("mnt.log")).unwrap();
    assert_hidden("the log", log.as_bytes());
    assert!(pem.lines().filter(|l| l.len() > 60).all(|line| !log.contains(line) && !said.contains(line)));
    assert_eq!(fs::metadata(field.at("mnt.log")).unwrap().mode() & 0o777, 0o640);
}

/// The ways in which secrets are given that do not stand in a command line.
const WAYS: [&str; 4] = ["files", "pipes", "variables", "credentials"];

/// A command that is given the password of the engine and the keys of the object store, or the password alone. In the shell
/// because of the pipes.
fn given(field: &Field, way: &str, keys: bool, args: &[&str]) -> Command {
    let mut secrets = vec![("meta-password", "META_PASSWORD", PASSWORD)];
    if keys {
        secrets.push(("access-key", "ACCESS_KEY", ACCESS_KEY));
        secrets.push(("secret-key", "SECRET_KEY", SECRET_KEY));
        secrets.push(("session-token", "SESSION_TOKEN", TOKEN));
    }
    let dir = field.at(if keys { "all" } else { "password" });
    fs::create_dir_all(&dir).unwrap();
    for (name, _, value) in &secrets {
        fs::write(dir.join(name), format!("{value}\n")).unwrap();
    }
    let plain = program();
    let mut command = Command::new("bash");
    for (name, value) in plain.get_envs() {
        assert!(value.is_none());
        command.env_remove(name);
    }
    let mut script = String::from("exec \"$0\" \"$@\"");
    match way {
        "files" => {
            for (name, _, _) in &secrets {
                script += &format!(" --{name}-file={}", dir.join(name).display());
            }
        }
        "pipes" => {
            for (name, _, _) in &secrets {
                script += &format!(" --{name}-file <(cat {})", dir.join(name).display());
            }
        }
        "variables" => _ = command.envs(secrets.iter().map(|(_, name, value)| (name, value))),
        _ => _ = command.env("CREDENTIALS_DIRECTORY", &dir),
    }
    command.stdin(Stdio::null()).args(["-c", &script]).arg(plain.get_program()).args(args);
    command
}

#[test]
fn secrets_are_taken_from_files_pipes_variables_and_credentials() {
    let field = Field::new();
    let bucket = field.s3.bucket_url("bucket");
    for (i, way) in WAYS.into_iter().enumerate() {
        let meta = format!("redis://{}", field.host(4 + i as u32));
        let name = format!("vol-{way}");
        fail(&mut loud(&["status", &meta]), &["META_PASSWORD"]);
        let format = ["format", &meta, &name, "--storage=s3", "--bucket", &bucket, "--trace"];
        let said = succeed(&mut given(&field, way, true, &format));
        assert!(!said.contains("(ps)"), "nothing was typed: {said}");
        for command in ["status", "config"] {
            let said = succeed(&mut given(&field, way, false, &[command, &meta, "--trace"]));
            assert!(said.contains("\"removed\""), "{said}");
        }
        // With the keys of the volume; then with those that are given, because the volume has none any more.
        for own in [true, false] {
            if !own {
                let mut config = given(&field, way, false, &["config", &meta, "--access-key=", "--force"]);
                config.args(["--secret-key=", "--session-token="]);
                succeed(&mut config);
            }
            let (template, served) = field.mount(&meta, &format!("{way}-{own}"), &["--trace"]);
            let args: Vec<&str> = template.get_args().map(|arg| arg.to_str().unwrap()).collect();
            succeed(&mut given(&field, way, !own, &args));
            let body = noise(200_000);
            let mut file = File::create(served.join("file")).unwrap();
            file.write_all(&body).unwrap();
            file.sync_all().unwrap();
            drop(file);
            assert_eq!(fs::read(served.join("file")).unwrap(), body);
            let config = fs::read(served.join(".config")).unwrap();
            assert_hidden(".config", &config);
            let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
            let pid = u32::try_from(config["Pid"].as_u64().unwrap()).unwrap();
            command_line(pid);
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap();
            assert_hidden("the environment", &environ);
            if way == "variables" {
                assert!(String::from_utf8_lossy(&environ).contains("META_PASSWORD=****"));
            }
            succeed(loud(&["umount"]).arg(&served.path));
            wait_for("the end of the mount", || !is_mounted(&served.path));
            assert_hidden("the log", served.log().as_bytes());
        }
        // What is there without being asked for changes no volume.
        let said = succeed(&mut given(&field, way, false, &["config", &meta, "--trash-days=2"]));
        assert!(said.contains("\"TrashDays\": ") && !said.contains(ACCESS_KEY), "{said}");
        if way == "variables" || way == "credentials" {
            let said = succeed(&mut given(&field, way, true, &["config", &meta, "--trash-days=3"]));
            assert!(said.contains("\"TrashDays\": ") && !said.contains(ACCESS_KEY), "{said}");
        }
    }
    // The file of the password, which the process in the background does not see; and REDIS_PASSWORD before META_PASSWORD.
    let meta = format!("redis://{}", field.host(4));
    let password = field.at("all").join("meta-password");
    let (mut command, served) = field.mount(&meta, "password-file", &["--trace"]);
    succeed(command.env("META_PASSWORD_FILE", &password));
    succeed(loud(&["umount"]).arg(&served.path));
    let both = [("REDIS_PASSWORD", PASSWORD), ("META_PASSWORD", WRONG_PASSWORD)];
    succeed(loud(&["status", &meta]).envs(both));
    succeed(loud(&["status", &meta]).env("META_PASSWORD_FILE", &password));
    // As mount(8) calls it for a line of fstab.
    let path = field.at("helper");
    let options = format!(
        "_netdev,metrics=,cache-dir=memory,meta-password-file={},log={}",
        password.display(),
        field.at("helper.log").display()
    );
    let mut helper = ciderfs(&[&meta, path.to_str().unwrap(), "-o", &options]);
    succeed(helper.env("CALL_VIA_MOUNT", "1"));
    assert!(is_mounted(&path));
    succeed(loud(&["umount"]).arg(&path));
    let empty = field.at("empty");
    fs::write(&empty, "\n").unwrap();
    for (path, why) in [("/dev/zero", "neither a file nor a pipe"), ("/nowhere/x", "No such file")] {
        let flag = format!("--meta-password-file={path}");
        fail(&mut loud(&["status", "redis://127.0.0.1/1", &flag]), &["--meta-password-file", path, why]);
    }
    let flag = format!("--secret-key-file={}", empty.display());
    fail(&mut loud(&["config", "redis://127.0.0.1/1", &flag]), &["--secret-key-file", "empty"]);
}

#[test]
fn a_mount_in_the_foreground_covers_its_command_line() {
    let field = Field::new();
    let meta = field.addresses(3).swap_remove(2);
    let keys = [("ACCESS_KEY", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY), ("SESSION_TOKEN", TOKEN)];
    let bucket = format!("--bucket={}", field.at("objects").display());
    succeed(&mut loud(&["format", &meta, "vol", &bucket]));
    let path = field.at("mnt");
    let mut command = loud(&["mount", &meta, "--metrics=", "--cache-dir=memory"]);
    command.arg(&path).envs(keys);
    let mount = Mount::start(command, &path, &field.at("log"));
    assert_hidden("the environment", &fs::read(format!("/proc/{}/environ", mount.pid())).unwrap());
    let shown = command_line(mount.pid());
    let host = field.host(3);
    assert!(shown.contains(&format!(" mount redis://default:****@{host}?read-timeout=20s ")), "{shown}");
    assert_hidden("the log", mount.log().as_bytes());
    let warnings = mount.log().matches("--meta-password-file").count();
    assert_eq!(warnings, 1, "{}", mount.log());
    mount.unmount();
}

/// Wrong passwords, forgotten hosts, addresses where something else is wanted.
#[test]
fn no_error_repeats_a_password() {
    let field = Field::new();
    let dir = field.dir.path();
    let (host, mnt) = (field.host(1), field.at("mnt").display().to_string());
    let encoded = utf8_percent_encode(WRONG_PASSWORD, NON_ALPHANUMERIC).to_string();
    let (socket, first) = (field.redis.socket().display().to_string(), "Dk4wrongone");
    let run = |args: &[&str]| {
        let mut command = loud(args);
        command.current_dir(dir);
        fail(&mut command, &[]);
    };
    for meta in [
        format!("redis://:{WRONG_PASSWORD}@{host}"),
        format!("redis://:{encoded}@{host}"),
        format!("redis://nobody:{WRONG_PASSWORD}@{host}"),
        format!("redis://{WRONG_PASSWORD}@{host}"),
        format!(":{WRONG_PASSWORD}@{host}"),
        format!("nobody:{first}://x@{host}"),
        format!("redis://:{first}?Ej6wrongtwo@{host}"),
        format!("redis://:{first}?x=1&Ej6wrongtwo@{host}"),
        format!("redis://:{first}#Ej6wrongtwo@{host}"),
        format!("redis://:{first}/Ej6wrongtwo@{host}"),
        format!("redis://{host}?password={WRONG_PASSWORD}"),
        format!("redis://{host}?Pass%77ord={first}&Ej6wrongtwo"),
        format!("redis://:{first}"),
        format!("redis://:{first}/1"),
        format!("redis://127.0.0.1:{first}/1"),
        format!("redis://:{WRONG_PASSWORD}@127.0.0.1:no/1"),
        format!("redis://:{WRONG_PASSWORD}@127.0.0.1/no"),
        format!("redis://:{WRONG_PASSWORD}@[::1"),
        format!("unix://:{WRONG_PASSWORD}@{socket}?db=1"),
        format!("unix://:{first}?Ej6wrongtwo@{socket}"),
        format!("unix://:{WRONG_PASSWORD}@nowhere.sock"),
        format!("postgres://u:{WRONG_PASSWORD}@h/db"),
        format!("postgres://h/db?user=u&password={first}"),
        format!("mysql://u:{WRONG_PASSWORD}@(h:3306)/db"),
        format!("host=h user=u password={first} dbname=d"),
        format!("nosuch://u:{WRONG_PASSWORD}@h"),
    ] {
        run(&["status", &meta]);
        run(&["mount", "-d", &meta, &mnt, "--log=log", "--metrics="]);
        // Where no address, or another number of words is wanted.
        run(&[&meta, "vol"]);
        run(&["status", &meta, "more"]);
        run(&["quota", &meta, "list"]);
        run(&["mount", "sqlite3:///x.db", &format!("x://{meta}"), "--log=log"]);
    }
    for bucket in [
        format!("http://k:{WRONG_PASSWORD}@127.0.0.1:1/b"),
        format!("http://k:{first}/Ej6wrongtwo@127.0.0.1:1/b"),
        format!("http://k:80/{first}@127.0.0.1:1/b"),
        format!("http://k:{first}?Ej6wrongtwo@127.0.0.1:1/b"),
        format!("k:{WRONG_PASSWORD}@127.0.0.1:1/b"),
        format!("http://k:{first}"),
        format!("http://k:{encoded}@127.0.0.1:1/b#x"),
        format!("ftp://k:{encoded}@127.0.0.1:1/b"),
        format!("http://127.0.0.1:1/b?token={first}"),
    ] {
        for storage in ["s3", "minio", "file", "nosuch"] {
            if storage == "file" && !bucket.contains("://") {
                // The name of a directory.
                continue;
            }
            let flag = format!("--bucket={bucket}");
            run(&["format", "sqlite3://new.db", "vol", "--storage", storage, &flag]);
        }
        run(&["format", "sqlite3://new.db", "vol", "--storage=s3", "--bucket=b", "--endpoint", &bucket]);
    }
    for flag in
        [format!("--secretkey={first}"), format!("--secret-key={first}"), format!("-o=password={first}")]
    {
        run(&["mount", "sqlite3:///x.db", &mnt, &flag]);
    }
    assert_hidden("the log", &fs::read(Path::new(dir).join("log")).unwrap_or_default());
}

fn noise(len: usize) -> Vec<u8> {
    support::noise(7, len)
}
