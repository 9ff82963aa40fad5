//! Quotas and limits of the volume on real mounts, alone and beside the official client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ciderfs_testkit::official::Official;
use support::client::{run, run_within, succeed, wait_for};
use support::{Engine, Volume};

const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

on_engines!(
    directory_quota,
    owner_quotas,
    two_clients_fill_a_volume,
    beside_the_official_client,
    killed_while_writing,
    quota_command,
);

fn official() -> Official {
    Official::locate().unwrap_or_else(|e| panic!("{e:#}"))
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: io::Result<T>, errno: i32) {
    match result {
        Err(e) => assert_eq!(e.raw_os_error(), Some(errno), "{e}"),
        Ok(v) => panic!("expected errno {errno}, got {v:?}"),
    }
}

fn quota(volume: &Volume, args: &[&str]) -> support::Ran {
    run(&[&["quota", args[0], &volume.meta], &args[1..]].concat())
}

#[track_caller]
fn set(volume: &Volume, args: &[&str]) {
    let ran = quota(volume, &[&["set"], args].concat());
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
}

/// What either client finds wrong with recorded usage; the official one sums up in its own way.
/// `walked`: not from the statistics of directories, which the official client lets drift when it is not alone.
fn wrong(volume: &Volume, paths: &[&str], owners: bool, walked: bool) -> Option<String> {
    let mut targets: Vec<Vec<&str>> = Vec::new();
    for path in paths {
        if !walked {
            targets.push(vec!["--path", path]);
        }
        targets.push(vec!["--path", path, "--strict"]);
    }
    if owners {
        targets.push(vec![]);
    }
    for target in targets {
        let ours = quota(volume, &[&["check"], &target[..]].concat());
        if ours.code != 0 {
            return Some(format!("{target:?}\n{}{}", ours.stdout, ours.stderr));
        }
        let args = [&["quota", "check", &volume.meta], &target[..]].concat();
        let theirs = official().run(args).unwrap();
        if theirs.code != 0 {
            return Some(format!("{target:?}\n{}", theirs.text()));
        }
    }
    None
}

#[track_caller]
fn consistent(volume: &Volume, paths: &[&str], owners: bool) {
    if let Some(found) = wrong(volume, paths, owners, false) {
        panic!("{found}");
    }
}

/// Waits until a mount knows of a limit: making a file is refused.
#[track_caller]
fn wait_until_full(dir: &Path, errno: i32) {
    wait_for("the limit to be known", || match File::create(dir.join("probe")) {
        Ok(_) => {
            fs::remove_file(dir.join("probe")).unwrap();
            std::thread::sleep(Duration::from_millis(100));
            false
        }
        Err(e) => e.raw_os_error() == Some(errno),
    });
}

/// (bytes, free bytes, inodes, free inodes) as `df` shows them.
fn df(path: &Path) -> (u64, u64, u64, u64) {
    let s = rustix::fs::statvfs(path).unwrap();
    (s.f_blocks * s.f_frsize, s.f_bavail * s.f_frsize, s.f_files, s.f_ffree)
}

/// A quota binds within a heartbeat, at the call that the user can act on, and shows in `df` of the directory.
fn directory_quota(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&["--heartbeat=1"]);
    let q = mount.join("q");
    fs::create_dir_all(q.join("sub")).unwrap();
    fs::write(q.join("sub/old"), [1; 5000]).unwrap();
    set(&volume, &["--path", "/q", "--capacity", "1M", "--inodes", "2"]);
    wait_until_full(&q, EDQUOT);
    set(&volume, &["--path", "/q", "--inodes", "10"]);
    let file = File::create(q.join("f")).unwrap();
    file.write_all_at(&[2; 500_000], 0).unwrap();
    // Buffered, not committed: counted all the same.
    refused(file.write_all_at(&[3; 600_000], 500_000), EDQUOT);
    refused(file.set_len(2 << 20), EDQUOT);
    file.sync_all().unwrap();
    drop(file);
    // Room elsewhere does not help; a tree that is too big does not come in.
    fs::create_dir_all(mount.join("big/tree")).unwrap();
    for i in 0..8 {
        fs::write(mount.join(format!("big/tree/{i}")), [4; 10]).unwrap();
    }
    refused(fs::rename(mount.join("big"), q.join("big")), EDQUOT);
    fs::write(mount.join("large"), vec![5; 600_000]).unwrap();
    refused(fs::rename(mount.join("large"), q.join("large")), EDQUOT);
    refused(fs::hard_link(mount.join("large"), q.join("large")), EDQUOT);
    // What is given back can be used.
    fs::remove_file(q.join("f")).unwrap();
    fs::rename(mount.join("large"), q.join("large")).unwrap();
    fs::remove_file(q.join("large")).unwrap();
    fs::remove_file(mount.join("big/tree/7")).unwrap();
    fs::remove_file(mount.join("big/tree/6")).unwrap();
    fs::rename(mount.join("big"), q.join("big")).unwrap();
    refused(File::create(q.join("more")), EDQUOT);
    consistent(&volume, &["/q"], false);
    let id = fs::metadata(&q).unwrap().ino();
    let shown = ["max_space_bytes 1048576", "max_inodes 10", "used_inodes 10"]
        .map(|figure| figure.split_once(' ').unwrap())
        .map(|(name, n)| format!("juicefs_dir_quota_{name}_{id} {n}"));
    wait_for("the quota among the metrics", || {
        let stats = fs::read_to_string(mount.join(".stats")).unwrap();
        shown.iter().all(|line| stats.lines().any(|l| l == line))
    });

    let sub = volume.mount(&["--subdir=/q"]);
    let used = (2 + 8) * 4096 + 4096;
    assert_eq!(df(sub.path()), (1 << 20, (1 << 20) - used, 10, 0));
    assert!(df(mount.path()).0 > 1 << 40);
    sub.unmount();
    assert_eq!(quota(&volume, &["delete", "--path", "/q"]).code, 0);
    wait_for("the quota to be gone", || File::create(q.join("more")).is_ok());
    mount.unmount();
    volume.check();
}

fn as_user(uid: u32, gid: u32, script: &str, dir: &Path) -> String {
    let mut sh = Command::new("sh");
    sh.args(["-c", script]).current_dir(dir).uid(uid).gid(gid);
    let ran = run_within(&mut sh, support::client::PATIENCE);
    format!("{}{}", ran.stdout, ran.stderr)
}

/// Users and groups are charged for what they own, trash included, and bound together with everybody else's clients.
fn owner_quotas(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=1"]);
    let mount = volume.mount(&["--heartbeat=1"]);
    let d = mount.join("d");
    fs::create_dir(&d).unwrap();
    fs::set_permissions(&d, Permissions::from_mode(0o777)).unwrap();
    let said = as_user(1234, 2345, "echo old > old; mkdir sub; ln old sub/link", &d);
    assert_eq!(said, "");
    // The first quota counts what is there.
    set(&volume, &["--uid", "1234", "--capacity", "1M", "--inodes", "4"]);
    set(&volume, &["--gid", "2345", "--capacity", "1G"]);
    wait_for("the quota to be known", || {
        let said = as_user(1234, 2345, "head -c 2000000 /dev/zero > big; rm -f big", &d);
        // What was written before counts, lies in the trash, and is repaired below.
        said.contains("quota exceeded")
    });
    succeed(&["quota", "check", &volume.meta, "--repair"]);
    wait_for("inodes to be exceeded", || as_user(1234, 2345, "echo x > $$", &d).contains("quota exceeded"));
    assert_eq!(as_user(99, 99, "echo y > mine", &d), "", "nobody else is bound");
    chown(d.join("mine"), Some(1234), Some(2345)).unwrap();
    succeed(&["quota", "check", &volume.meta]);
    let shown = quota(&volume, &["get", "--uid", "1234", "--json"]).stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown[0]["uid"], &shown[0]["max_inodes"]), (&1234.into(), &4.into()));
    assert!(shown[0]["used_inodes"].as_i64().unwrap() > 4, "the superuser gives beyond a limit");
    mount.unmount_after_errors();
    // Not the official check: it finds the hours of the trash, which no client charges to anybody.
    succeed(&["quota", "check", &volume.meta]);
}

/// A limit of the volume: `ENOSPC` by the write, also when another client has filled it, and raised while mounted.
fn two_clients_fill_a_volume(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0", "--capacity=8M", "--inodes=20"]);
    let (a, b) = (volume.mount(&["--heartbeat=1"]), volume.mount(&["--heartbeat=1"]));
    fs::write(a.join("a"), vec![1; 5 << 20]).unwrap();
    let file = File::create(b.join("b")).unwrap();
    refused(file.write_all_at(&vec![2; 4 << 20], 0), ENOSPC);
    file.set_len(0).unwrap();
    fs::remove_file(a.join("a")).unwrap();
    file.write_all_at(&vec![2; 4 << 20], 0).unwrap();
    file.sync_all().unwrap();
    for i in 0..19 {
        File::create(a.join(format!("n{i}"))).unwrap();
    }
    refused(File::create(a.join("more")), ENOSPC);
    refused(fs::create_dir(b.join("more")), ENOSPC);
    refused(file.write_all_at(&vec![3; 5 << 20], 4 << 20), ENOSPC);
    succeed(&["config", &volume.meta, "--capacity=1G", "--inodes=1000"]);
    wait_for("the new limits to be known", || File::create(b.join("more")).is_ok());
    file.write_all_at(&vec![3; 5 << 20], 4 << 20).unwrap();
    drop(file);
    wait_for("the other client to know them", || File::create(a.join("even more")).is_ok());
    a.unmount();
    b.unmount();
    volume.check();
}

/// Each client enforces what the other one has set, and what both charge adds up.
fn beside_the_official_client(engine: Engine) {
    let volume = Volume::unformatted(engine);
    let official = official();
    volume.format_official(&official, &["--trash-days=0"]);
    let theirs = official.mount(&volume.meta, &volume.new_path(), &["--heartbeat=1"]).unwrap();
    let ours = volume.mount(&["--heartbeat=1"]);
    for dir in ["by-them", "by-us", "by-us/deep"] {
        fs::create_dir(ours.join(dir)).unwrap();
    }
    let args = ["quota", "set", &volume.meta, "--path", "/by-them", "--inodes", "40", "--capacity", "0.01"];
    assert_eq!(official.run(args).unwrap().code, 0);
    set(&volume, &["--path", "/by-us", "--inodes", "40", "--capacity", "10M"]);
    set(&volume, &["--path", "/by-us/deep", "--inodes", "100"]);
    set(&volume, &["--uid", "1234", "--capacity", "1G"]);
    set(&volume, &["--path", "/", "--capacity", "1T"]);
    let at = [ours.path().to_owned(), theirs.path().to_owned()];
    // Whoever knows of the last one knows of all.
    for root in &at {
        wait_for("the quotas to be known", || df(root).0 == 1 << 40);
    }
    // The official client records statistics of directories every second, and charges quotas every three.
    let paths = ["/", "/by-them", "/by-us", "/by-us/deep"];
    let settle = || wait_for("all charges to be made", || wrong(&volume, &paths, true, true).is_none());
    std::thread::scope(|s| {
        for (n, root) in at.iter().enumerate() {
            s.spawn(move || {
                for i in 0..12 {
                    for dir in ["by-them", "by-us/deep"] {
                        let path = root.join(dir).join(format!("{n}-{i}"));
                        fs::write(&path, vec![7; 1000 * (i + 1)]).unwrap();
                        if i % 3 == 0 {
                            chown(&path, Some(1234), Some(1234)).unwrap();
                        }
                        if i % 4 == 0 {
                            fs::remove_file(&path).unwrap();
                        }
                        if i % 4 == 1 {
                            let file = OpenOptions::new().append(true).open(&path).unwrap();
                            (&file).write_all(&[8; 9000]).unwrap();
                        }
                    }
                    if i % 4 == 2 {
                        let name = format!("{n}-{i}");
                        fs::rename(root.join("by-them").join(&name), root.join("by-us").join(&name)).unwrap();
                    }
                }
                fs::create_dir_all(root.join(format!("tree{n}/x"))).unwrap();
                fs::write(root.join(format!("tree{n}/x/y")), [1; 100]).unwrap();
            });
        }
    });
    settle();
    fs::rename(at[0].join("tree1"), at[0].join("by-us/tree1")).unwrap();
    fs::rename(at[1].join("tree0"), at[1].join("by-us/deep/tree0")).unwrap();
    settle();
    // Each enforces the other's limit.
    for (root, dir) in [(&at[0], "by-them"), (&at[1], "by-us")] {
        let mut errno = None;
        for i in 0..45 {
            if let Err(e) = File::create(root.join(dir).join(format!("fill{i}"))) {
                errno = e.raw_os_error();
                break;
            }
        }
        assert_eq!(errno, Some(EDQUOT), "{dir}");
    }
    settle();
    refused(File::create(at[0].join("by-us/more")), EDQUOT);
    theirs.unmount().unwrap();
    ours.unmount();
    assert_eq!(wrong(&volume, &paths, true, true), None);
    // It complains about what it repairs; the check that follows decides.
    let _ = official.fsck(&volume.meta, &["--path", "/", "--recursive", "--sync-dir-stat", "--repair"]);
    consistent(&volume, &paths, true);
    volume.check();
}

/// A client that is killed in the middle of everything leaves usage that equals a walk.
fn killed_while_writing(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    succeed(&["config", &volume.meta, "--user-group-quota"]);
    for round in 0..2 {
        let mount = volume.mount(&["--heartbeat=1"]);
        for dir in ["q/a", "q/b"] {
            fs::create_dir_all(mount.join(dir)).unwrap();
        }
        if round == 0 {
            set(&volume, &["--path", "/q", "--capacity", "1G"]);
            set(&volume, &["--path", "/q/a", "--capacity", "1G"]);
            // A heartbeat later the mount charges them.
            let used = || quota(&volume, &["get", "--path", "/q/a", "--json"]).stdout;
            wait_for("the quota to be known", || {
                let before = used();
                File::create(mount.join("q/a/probe")).unwrap();
                let known = used() != before;
                fs::remove_file(mount.join("q/a/probe")).unwrap();
                known
            });
            succeed(&["quota", "check", &volume.meta, "--path", "/q", "--repair"]);
            succeed(&["quota", "check", &volume.meta, "--path", "/q/a", "--repair"]);
        }
        let root = mount.path().to_owned();
        std::thread::scope(|s| {
            let worker = s.spawn(move || {
                for i in 0.. {
                    let work = || -> io::Result<()> {
                        let (a, b) =
                            (root.join(format!("q/a/{round}-{i}")), root.join(format!("q/b/{round}-{i}")));
                        fs::write(&a, vec![1; 5000 * (i % 7)])?;
                        fs::rename(&a, &b)?;
                        fs::hard_link(&b, &a)?;
                        File::options().write(true).open(&a)?.set_len(100_000)?;
                        if i % 2 == 0 {
                            fs::remove_file(&b)?;
                        }
                        if i % 3 == 0 {
                            let dir = root.join(format!("q/b/d{round}-{i}"));
                            fs::create_dir(&dir)?;
                            fs::rename(&a, dir.join("f"))?;
                            fs::rename(&dir, root.join(format!("q/a/d{round}-{i}")))?;
                        }
                        Ok(())
                    };
                    if work().is_err() {
                        return i;
                    }
                }
                0
            });
            std::thread::sleep(Duration::from_millis(1200));
            mount.kill();
            assert!(worker.join().unwrap() > 0);
        });
        consistent(&volume, &["/q", "/q/a"], true);
    }
}

/// The command's forms, tables and exit codes are the official one's.
fn quota_command(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let official = official();
    let both = |args: &[&str]| {
        let ours = quota(&volume, args);
        let theirs = official.run([&["quota", args[0], &volume.meta], &args[1..]].concat()).unwrap();
        assert_eq!(
            (ours.code, &ours.stdout),
            (theirs.code, &theirs.stdout),
            "{args:?}\n{}\n{}",
            ours.stderr,
            theirs.stderr
        );
        ours
    };
    both(&["set", "--path", "/d", "--capacity", "1"]);
    both(&["set"]);
    both(&["get", "--path", "/d"]);
    both(&["set", "--uid", "0", "--inodes", "1"]);
    both(&["set", "--uid", "1", "--gid", "1", "--inodes", "1"]);
    both(&["frobnicate"]);
    both(&["list"]);
    let made = quota(&volume, &["set", "--path", "/a/d", "--capacity", "1", "--create"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    let mount = volume.mount(&["--heartbeat=1"]);
    fs::write(mount.join("a/d/f"), vec![1; 3 << 20]).unwrap();
    fs::create_dir_all(mount.join("b/c")).unwrap();
    mount.unmount();
    set(&volume, &["--path", "b", "--inodes", "1000"]);
    set(&volume, &["--uid", "1000", "--inodes", "5"]);
    set(&volume, &["--gid", "7", "--capacity", "0.5"]);
    for args in [
        &["get", "--path", "/a/d"][..],
        &["get", "--path", "b"],
        &["get", "--uid", "1000"],
        &["get", "--gid", "7"],
        &["get", "--uid", "8"],
        &["list"],
        &["ls"],
        &["check", "--path", "/a/d"],
        &["check", "--path", "/a/d", "--strict"],
        &["check", "--path", "/b", "--repair"],
        &["check", "--path", "/a"],
    ] {
        both(args);
    }
    let list = quota(&volume, &["list", "--json"]).stdout;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 4);
    assert_eq!(list[0]["path"], "/a/d");
    assert_eq!((&list[0]["max_space"], &list[0]["used_space"]), (&(1 << 30).into(), &(3 << 20).into()));
    assert!(run(&["config", &volume.meta, "--dir-stats=false"]).stderr.contains("delete the quotas first"));
    for target in [["--path", "/a/d"], ["--path", "b"], ["--uid", "1000"], ["--gid", "7"], ["--gid", "8"]] {
        both(&["delete", target[0], target[1]]);
    }
    both(&["list"]);
    volume.check_official();
    succeed(&["config", &volume.meta, "--dir-stats=false"]);
}
