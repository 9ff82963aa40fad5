//! Places that a command line names: relative ones, from the caller's directory, in any bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use ciderfs_testkit::official::Official;
use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use rustix::mount::UnmountFlags;
use support::client::{PATIENCE, Ran, is_mounted, program, run_within, sh, wait_for};

/// A name with everything that names may hold.
const ODD: &[u8] = b"a b\nc\\d\t#\xff\xc3\xbc";

/// A directory in which the program runs. What is mounted below it goes with it.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("ciderfs-places").tempdir().unwrap())
    }

    fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.path().join(name.as_ref())
    }

    /// Runs the program in the directory.
    fn ran<S: AsRef<OsStr>>(&self, words: &[S]) -> Ran {
        run_within(program().args(words).current_dir(self.0.path()), PATIENCE)
    }

    /// The same; it must succeed.
    #[track_caller]
    fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Ran {
        let ran = self.ran(words);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
        ran
    }

    /// Unmounts with the program, by the name that it is given, and waits for the end of the mount.
    #[track_caller]
    fn umount(&self, name: impl AsRef<OsStr>) {
        let at = self.at(&name);
        self.run(&[OsStr::new("umount"), name.as_ref()]);
        wait_for("the end of the mount", || !is_mounted(&at));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for entry in fs::read_dir(self.0.path()).into_iter().flatten().flatten() {
            let _ = rustix::mount::unmount(entry.path(), UnmountFlags::DETACH);
        }
    }
}

fn joined(before: &str, name: &[u8]) -> OsString {
    OsString::from_vec([before.as_bytes(), name].concat())
}

#[test]
fn a_background_mount_takes_relative_places_from_the_callers_directory() {
    let w = World::new();
    let meta = "sqlite3://meta.db?_sync=1&max_open_conns=2";
    w.run(&["format", "--quiet", meta, "vol", "--bucket", "objects"]);
    let words =
        ["mount", "-d", meta, "m", "--cache-dir", "c1,c2", "--log", "logs/log", "--metrics=", "--subdir=s"];
    let said = w.run(&words);
    assert_eq!(said.stdout, format!("OK, vol is ready at {:?}\n", w.at("m")));
    assert!(is_mounted(&w.at("m")));
    fs::write(w.at("m/f"), "content").unwrap();
    for place in ["meta.db", "objects", "c1", "c2", "logs/log"] {
        assert!(w.at(place).exists(), "{place}");
    }
    let info = w.run(&["info", "m/f"]).stdout;
    assert!(info.starts_with("m/f :") && info.contains("path: /f\n"), "{info}");
    // Settings and the session hold the full names.
    let status: serde_json::Value = serde_json::from_str(&w.run(&["status", meta]).stdout).unwrap();
    assert_eq!(status["Setting"]["Bucket"], format!("{}/", w.at("objects").display()));
    assert_eq!(status["Sessions"][0]["MountPoint"], w.at("m").to_str().unwrap());
    // A path of quota is one of the volume, wherever the caller is.
    w.run(&["quota", "set", meta, "--path", "s", "--capacity", "1"]);
    assert!(w.run(&["quota", "get", meta, "--path", "/s"]).stdout.contains("1.0 GiB"));
    w.umount("m");
    w.run(&["mount", "-d", meta, "m", "--bucket", "objects", "--cache-dir=memory", "--log=l", "--metrics="]);
    assert_eq!(fs::read_to_string(w.at("m/s/f")).unwrap(), "content");
    w.umount("m");
}

#[test]
fn names_of_places_are_bytes() {
    let w = World::new();
    let odd = OsStr::from_bytes(ODD);
    let meta = joined("sqlite3://", &[ODD, b".db"].concat());
    let words =
        [OsStr::new("format"), OsStr::new("--quiet"), &meta, OsStr::new("vol"), OsStr::new("--bucket=o")];
    w.run(&words);
    assert!(w.at(OsStr::from_bytes(&[ODD, b".db"].concat())).exists());
    let words: Vec<OsString> = vec![
        "mount".into(),
        "-d".into(),
        meta.clone(),
        odd.into(),
        joined("--cache-dir=c", ODD),
        joined("--log=l", ODD),
        joined("--subdir=s/", ODD),
        "--metrics=".into(),
    ];
    let said = w.run(&words).stdout;
    assert!(said.lines().count() == 1 && !said.contains('\u{fffd}'), "{said}");
    let mounted = w.at(odd);
    assert!(is_mounted(&mounted));
    fs::write(mounted.join(odd), "content").unwrap();
    let mut names: Vec<OsString> =
        fs::read_dir(w.0.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.retain(|n| n.as_bytes().ends_with(ODD));
    names.sort();
    assert_eq!(names, [odd.to_owned(), joined("c", ODD), joined("l", ODD)]);
    // The mount is found by its name, and by one through it.
    let file = [ODD, b"/", ODD].concat();
    let info = w.run(&[OsStr::new("info"), OsStr::from_bytes(&file)]);
    let shown = "a b\\012c\\134d\\011#\\377\u{fc}";
    assert!(info.stdout.starts_with(&format!("{shown}/{shown} :\n  inode: ")), "{info:?}");
    assert!(info.stdout.contains(&format!("path: /{shown}\n")), "{info:?}");
    let status: serde_json::Value =
        serde_json::from_str(&w.run(&[OsStr::new("status"), &meta]).stdout).unwrap();
    let point = status["Sessions"][0]["MountPoint"].as_str().unwrap();
    assert_eq!(point, format!("{}/{shown}", w.0.path().display()));
    let path = joined("--path=/s/", ODD);
    w.run(&[OsStr::new("quota"), OsStr::new("set"), &meta, &path, OsStr::new("--capacity=1")]);
    let listed = w.run(&[OsStr::new("quota"), OsStr::new("list"), &meta]).stdout;
    assert!(listed.contains(&format!("/s/{shown}")), "{listed}");
    w.umount(odd);
    let log = fs::read(w.at(joined("l", ODD))).unwrap();
    let log = String::from_utf8(log).expect("a log in UTF-8");
    assert!(!log.contains('\u{fffd}') && !log.contains("<ERROR>"), "{log}");
    // Where only text can be kept, other bytes are refused and not replaced.
    let words = [OsStr::new("format"), OsStr::new("sqlite3://other.db"), OsStr::from_bytes(b"v\xff")];
    let ran = w.ran(&words);
    assert!(ran.code == 1 && ran.stderr.contains("v\\377"), "{ran:?}");
    let bucket = joined("--bucket=", ODD);
    let ran = w.ran(&[OsStr::new("format"), OsStr::new("sqlite3://other.db"), OsStr::new("v"), &bucket]);
    assert!(ran.code == 1 && ran.stderr.contains("--bucket") && ran.stderr.contains("\\377"), "{ran:?}");
    // A line of fstab is the same command.
    let helper = w.at("mount.ciderfs");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_ciderfs"), &helper).unwrap();
    let options = joined("rw,_netdev,metrics=,cache-dir=memory,log=fstab.log,subdir=s/", ODD);
    let mut command = Command::new(&helper);
    command.arg(&meta).arg(odd).arg("-o").arg(options).current_dir(w.0.path());
    let ran = run_within(&mut command, PATIENCE);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fs::read_to_string(mounted.join(odd)).unwrap(), "content");
    w.umount(odd);
}

#[test]
fn sockets_and_certificates_are_taken_from_the_callers_directory() {
    let redis = RedisServer::start(RedisOptions::default()).unwrap_or_else(|e| panic!("{e:#}"));
    let w = World::new();
    std::os::unix::fs::symlink(redis.socket(), w.at("a@b s.sock")).unwrap();
    let login = redis.url_db(3);
    let login =
        login.split_once("://").unwrap().1.split_once('@').map_or(String::new(), |(l, _)| format!("{l}@"));
    let meta = format!("unix://{login}a%40b%20s.sock?db=3");
    w.run(&["format", "--quiet", &meta, "vol", "--bucket=o"]);
    w.run(&["mount", "-d", &meta, "m", "--cache-dir=memory", "--log=l", "--metrics="]);
    assert!(is_mounted(&w.at("m")));
    w.umount("m");
    // Named as it was understood.
    let ran = w.ran(&["status", "rediss://127.0.0.1:1/1?tls-ca-cert-file=no+ca.pem"]);
    let ca = w.at("no ca.pem");
    assert!(ran.code == 1 && ran.stderr.contains(ca.to_str().unwrap()), "{ran:?}");
}

#[test]
fn cache_directories_are_lists_and_patterns_as_for_the_official_client() {
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    let w = World::new();
    w.run(&["format", "--quiet", "sqlite3://meta.db", "vol", "--bucket=o"]);
    let meta = format!("sqlite3://{}", w.at("meta.db").display());
    // Which directories a list makes a client use, below a directory with two disks and a file.
    let used = |client: &str, mount: &dyn Fn(&str), list: &str| -> Vec<String> {
        // A place for each: a mount still tidies up when it is gone from the table.
        let name: String = list.chars().filter(char::is_ascii_alphanumeric).collect();
        let root = w.at(format!("{client}-{name}"));
        for dir in ["disk1", "disk2/sub"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        mount(&list.replace('@', root.to_str().unwrap()));
        let found = sh(&root, "find . -path '*-*-*-*-*' -prune -printf '%h\\n' | sort");
        found.lines().map(str::to_owned).collect()
    };
    let ours = |list: &str| {
        w.run(&["mount", "-d", &meta, "m", "--cache-dir", list, "--log=l", "--metrics="]);
        w.umount("m");
    };
    let theirs = |list: &str| {
        let mount =
            official.mount(&meta, &w.at("n"), &["--cache-dir", list]).unwrap_or_else(|e| panic!("{e:#}"));
        mount.unmount().unwrap_or_else(|e| panic!("{e:#}"));
    };
    for (list, want) in [
        ("@/disk*", &["./disk1", "./disk2"][..]),
        ("@/c1,@/c2", &["./c1", "./c2"]),
        ("@/c1:@/disk?/cache", &["./c1", "./disk1/cache", "./disk2/cache"]),
        ("@/c,1:@/d[^1]sk2", &["./c,1", "./disk2"]),
        ("@/none*", &[]),
    ] {
        assert_eq!(used("ours", &ours, list), want, "{list}");
        assert_eq!(used("theirs", &theirs, list), want, "the official client, {list}");
    }
    assert!(fs::read_to_string(w.at("l")).unwrap().contains("there is no such directory"));
    // From the caller's directory, whatever it is called.
    let here = w.at("[here]");
    fs::create_dir_all(here.join("disk1")).unwrap();
    let words = ["mount", "-d", &meta, "../m", "--cache-dir=disk*", "--log=../l", "--metrics="];
    let ran = run_within(program().args(words).current_dir(&here), PATIENCE);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(fs::read_dir(here.join("disk1")).unwrap().count(), 1);
    w.umount("m");
}

#[test]
fn without_a_home_directory_defaults_are_full_paths() {
    let w = World::new();
    w.run(&["format", "--quiet", "sqlite3://meta.db", "vol", "--bucket=o"]);
    sh(w.0.path(), "chmod -R a+rwX .");
    let as_user = |uid: &str, home: Option<&str>, words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([
            "--clear-groups",
            "--reuid",
            uid,
            "--regid",
            uid,
            "env",
            "-u",
            "HOME",
            "-u",
            "XDG_DATA_HOME",
        ]);
        command.args(home.map(|home| format!("HOME={home}")));
        command.arg(env!("CARGO_BIN_EXE_ciderfs")).args(words).current_dir(w.0.path());
        run_within(&mut command, PATIENCE)
    };
    // Nobody has this number.
    for home in [None, Some(""), Some(".")] {
        for (words, flag) in [
            (&["mount", "-d", "sqlite3://meta.db", "m", "--metrics="][..], "--log"),
            (&["format", "sqlite3://other.db", "other"], "--bucket"),
            (&["up", "m"], "--data"),
        ] {
            let ran = as_user("54321", home, words);
            let said = ran.stderr.contains("HOME is not set") && ran.stderr.contains(flag);
            assert!(ran.code == 1 && said, "{words:?} {home:?} {ran:?}");
        }
    }
    for name in [".ciderfs", ".cache", ".juicefs", ".local"] {
        assert!(!w.at(name).exists(), "{name}");
    }
}

#[test]
fn a_missing_subdirectory_of_a_read_only_mount_is_named() {
    let w = World::new();
    w.run(&["format", "--quiet", "sqlite3://meta.db", "vol", "--bucket=o"]);
    for background in [&["-f"][..], &["-d", "--log=l"]] {
        let words = ["mount", "--read-only", "--subdir=/absent/one", "--metrics=", "sqlite3://meta.db", "m"];
        let ran = w.ran(&[&words[..], background].concat());
        let fatal = ran.stderr.lines().last().unwrap_or_default();
        assert!(
            ran.code == 1 && fatal.contains("/absent/one") && fatal.contains("directory absent"),
            "{ran:?}"
        );
    }
    assert!(!is_mounted(&w.at("m")));
}

/// Size and use of a place in KiB, as `df` tells them.
fn df(path: &Path) -> (u64, u64) {
    let said = sh(Path::new("/"), &format!("df -k --output=size,used '{}' | tail -1", path.display()));
    let mut numbers = said.split_whitespace().map(|n| n.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn df_of_a_directory_with_a_quota_shows_its_size_and_use() {
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    let w = World::new();
    w.run(&["format", "--quiet", "sqlite3://meta.db", "vol", "--bucket=o"]);
    let meta = format!("sqlite3://{}", w.at("meta.db").display());
    w.run(&["quota", "set", &meta, "--path=/q", "--capacity=1", "--create"]);
    w.run(&["mount", "-d", &meta, "m", "--cache-dir=memory", "--log=l", "--metrics="]);
    let mount = w.at("m");
    fs::create_dir(mount.join("q/sub")).unwrap();
    fs::write(mount.join("q/sub/f"), vec![1; 1 << 20]).unwrap();
    fs::create_dir(mount.join("other")).unwrap();
    for place in ["q", "q/sub", "q/sub/f"] {
        assert_eq!(df(&mount.join(place)), (1 << 20, (1 << 10) + 4), "{place}");
    }
    let whole = df(&mount);
    assert!(whole.0 > 1 << 30, "{whole:?}");
    assert_eq!(df(&mount.join("other")), whole);
    w.umount("m");
    let theirs = official.mount(&meta, &w.at("n"), &[]).unwrap_or_else(|e| panic!("{e:#}"));
    assert_eq!(df(&w.at("n/q/sub")), (1 << 20, (1 << 10) + 4), "the official client");
    theirs.unmount().unwrap_or_else(|e| panic!("{e:#}"));
}
