//! Mounts that outlive the process that serves them: killed at any moment, replaced by another program, not to be started again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "supervised/app.rs"]
mod app;
#[path = "supervised/asking.rs"]
mod asking;
mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use app::App;
use rustix::process::{Pid, Signal, kill_process};
use support::client::{Mount, PATIENCE, is_mounted, program, run, run_within, succeed, wait_for};
use support::{Engine, Volume};

/// Between two ends of a worker.
const GAP: Duration = Duration::from_millis(1100);

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

/// Children of a process.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn worker(mount: &Mount) -> u32 {
    let mut found = 0;
    wait_for("a worker", || {
        found = children(mount.pid()).first().copied().unwrap_or(0);
        found != 0
    });
    found
}

/// Kills the worker, and waits until another one is there.
fn kill_worker(mount: &Mount) {
    let old = worker(mount);
    kill(old);
    wait_for("another worker", || children(mount.pid()).first().is_some_and(|pid| *pid != old));
}

fn supervised(volume: &Volume, flags: &[&str]) -> Mount {
    let mount = volume.mount(&[&["--supervised", "--cache-dir=memory"], flags].concat());
    wait_for("the mount to be served", || asking::is_serving(mount.path()));
    mount
}

/// Whether somebody holds a POSIX lock on a file, and a BSD one.
fn locks(of: &Path) -> String {
    let mut command = Command::new("python3");
    command.args(["-c", include_str!("supervised/locked.py")]).arg(of);
    let ran = run_within(&mut command, PATIENCE);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stdout.trim().to_owned()
}

#[test]
fn nobody_notices_that_the_worker_was_killed() {
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let mount = supervised(&volume, &[]);
    let other = volume.mount(&[]);
    let mut app = App::start(mount.path());
    for round in 0..4 {
        kill_worker(&mount);
        app.go();
        app.hears(&format!("round {round}"));
        // The lock is that of the same session.
        assert_eq!(locks(&other.join("locked")), "held held");
    }
    app.end();
    let content = fs::read(other.join("appended")).unwrap();
    let want: String = (0..4).map(|round| format!("before {round}\nafter {round}\n")).collect();
    assert_eq!(String::from_utf8(content).unwrap(), want);
    wait_for("locks to be given back", || locks(&other.join("locked")) == "free free");
    fs::remove_dir_all(mount.join("listed")).unwrap();
    mount.unmount_after_errors();
    other.unmount();
    // The removed file is gone, and with it what it took.
    volume.check_after_crash();
}

#[test]
fn what_must_happen_once_happens_once() {
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let mount = supervised(&volume, &[]);
    let stop = AtomicBool::new(false);
    let done = AtomicUsize::new(0);
    let mut expected = BTreeSet::new();
    std::thread::scope(|scope| {
        let mut storms = Vec::new();
        for storm in 0..4 {
            let dir = mount.join(format!("storm{storm}"));
            let (stop, done) = (&stop, &done);
            storms.push(scope.spawn(move || {
                fs::create_dir(&dir).unwrap();
                let mut log = OpenOptions::new().append(true).create_new(true).open(dir.join("log")).unwrap();
                let mut left = BTreeSet::new();
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let at = |name: &str| dir.join(format!("{name}{n}"));
                    OpenOptions::new().write(true).create_new(true).open(at("new")).expect("create");
                    fs::rename(at("new"), at("moved")).expect("rename");
                    fs::hard_link(at("moved"), at("link")).expect("link");
                    fs::remove_file(at("moved")).expect("unlink");
                    fs::create_dir(at("dir")).expect("mkdir");
                    std::os::unix::fs::symlink("to", at("symlink")).expect("symlink");
                    fs::remove_dir(at("dir")).expect("rmdir");
                    fs::remove_file(at("symlink")).expect("unlink of a symlink");
                    log.write_all(format!("{n}\n").as_bytes()).expect("append");
                    left.insert(format!("link{n}"));
                    n += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                left.insert("log".into());
                (dir, left, n)
            }));
        }
        for _ in 0..8 {
            let before = done.load(Ordering::Relaxed);
            wait_for("progress", || done.load(Ordering::Relaxed) > before + 8);
            kill_worker(&mount);
            wait_for("the mount to be served", || asking::is_serving(mount.path()));
            // One that dies sooner counts as killed by what waited for it.
            std::thread::sleep(GAP);
        }
        stop.store(true, Ordering::Relaxed);
        for storm in storms {
            expected.insert(storm.join().unwrap());
        }
    });
    for (dir, left, n) in expected {
        let there: BTreeSet<String> =
            fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(there, left);
        let lines: String = (0..n).map(|n| format!("{n}\n")).collect();
        assert_eq!(fs::read_to_string(dir.join("log")).unwrap(), lines);
    }
    mount.unmount_after_errors();
    volume.check_after_crash();
}

/// The program that serves a mount before it is upgraded: that of the last commit where deploy/tests/upgrade.sh has made it.
fn earlier() -> PathBuf {
    std::env::var_os("CIDERFS_TEST_EARLIER").map_or_else(|| program().get_program().into(), PathBuf::from)
}

/// Which states of mounts a program reads.
fn handover(of: &Path) -> serde_json::Value {
    let ran = run_within(Command::new(of).args(["version", "--check-handover"]), PATIENCE);
    serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["Handover"].take()
}

#[test]
fn an_upgrade_under_load() {
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let (earlier, path) = (earlier(), volume.new_path());
    let mut command = Command::new(&earlier);
    command.args(["mount", "--supervised", "--cache-dir=memory", "--metrics="]).arg(&volume.meta).arg(&path);
    let mount = Mount::start(command, &path, &path.with_extension("log"));
    wait_for("the mount to be served", || asking::is_serving(mount.path()));
    let other = volume.mount(&[]);
    let mut app = App::start(mount.path());
    let fio = Command::new("fio")
        .args(["--name=verify", "--rw=randrw", "--bs=16k", "--size=24m", "--verify=crc32c", "--time_based=0"])
        .args(["--ioengine=psync", "--verify_fatal=1", "--do_verify=1", "--loops=3", "--verify_state_save=0"])
        .arg(format!("--directory={}", mount.path().display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("fio is installed");
    let python = |script: &str, words: &[PathBuf]| {
        Command::new("python3").args(["-c", script]).args(words).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut sqlite = python(include_str!("supervised/database.py"), &[mount.join("data.db")]);
    let pages = [mount.join("pages"), other.join("pages")];
    let mapped = python(include_str!("supervised/mapped.py"), &pages);
    wait_for("the load", || {
        ["verify.0.0", "data.db", "pages"]
            .iter()
            .all(|name| mount.join(name).metadata().is_ok_and(|m| m.len() > 0))
    });
    // A new layout of what goes over is refused before anything has happened.
    let reads = handover(&earlier) == handover(Path::new(program().get_program()));
    for round in 0..4 {
        let old = worker(&mount);
        if round % 2 == 1 {
            kill_worker(&mount);
            wait_for("the mount to be served", || asking::is_serving(mount.path()));
        } else if reads {
            let ran = succeed(&["upgrade", "--json", mount.path().to_str().unwrap()]);
            let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(said["worker"], worker(&mount));
            assert_ne!(said["worker"], old);
            assert!(said["milliseconds"].as_u64().unwrap() < 30_000, "{said}");
        } else {
            assert_eq!(run(&["upgrade", mount.path().to_str().unwrap()]).code, 3);
            assert_eq!(worker(&mount), old);
        }
        assert!(
            round > 0 || sqlite.try_wait().unwrap().is_none(),
            "nobody used the mount while it was upgraded"
        );
        app.go();
        app.hears(&format!("round {round}"));
        assert_eq!(locks(&other.join("locked")), "held held");
        std::thread::sleep(GAP);
    }
    for child in [fio, sqlite, mapped] {
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    }
    app.end();
    other.unmount();
    mount.unmount_after_errors();
    volume.check_after_crash();
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let volume = Volume::new(Engine::Redis, &[]);
    let mount = supervised(&volume, &[]);
    let mut file = File::create(mount.join("f")).unwrap();
    let at = mount.path().display().to_string();
    let at = at.as_str();
    let unfit = run(&["upgrade", "--binary=/bin/true", at]);
    assert_eq!(unfit.code, 3, "{unfit:?}");
    assert_eq!(run(&["upgrade", "--binary=/none", at]).code, 3);
    let old = worker(&mount);
    // One that says that it can, and cannot.
    let liar = volume.dir.path().join("liar");
    let real = env!("CARGO_BIN_EXE_ciderfs");
    fs::write(&liar, format!("#!/bin/sh\n[ \"$1\" = version ] && exec {real} \"$@\"\nexit 9\n")).unwrap();
    fs::set_permissions(&liar, fs::Permissions::from_mode(0o755)).unwrap();
    let back = run(&["upgrade", &format!("--binary={}", liar.display()), at]);
    assert_eq!(back.code, 4, "{back:?}");
    assert!(back.stderr.contains("the old one serves again"), "{}", back.stderr);
    assert_ne!(worker(&mount), old);
    file.write_all(b"goes on").unwrap();
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"goes on");
    // One that hangs.
    fs::write(&liar, format!("#!/bin/sh\n[ \"$1\" = version ] && exec {real} \"$@\"\nexec sleep 1000\n"))
        .unwrap();
    let back = run(&["upgrade", "--wait=1s", &format!("--binary={}", liar.display()), at]);
    assert_eq!(back.code, 4, "{back:?}");
    file.write_all(b", twice").unwrap();
    drop(file);
    assert_eq!(fs::read(mount.join("f")).unwrap(), b"goes on, twice");
    mount.unmount_after_errors();
    assert_eq!(run(&["upgrade", at]).code, 2);
    let plain = volume.mount(&[]);
    let refused = run(&["upgrade", plain.path().to_str().unwrap()]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--supervised"), "{}", refused.stderr);
    plain.unmount();
}

#[test]
fn a_mount_that_nobody_can_serve_ends() {
    let mut volume = Volume::new(Engine::Redis, &[]);
    let mut mount = supervised(&volume, &["--restart-limit=2s"]);
    fs::write(mount.join("f"), "x").unwrap();
    let held = File::open(mount.join("f")).unwrap();
    drop(volume.redis.take());
    kill(worker(&mount));
    let began = Instant::now();
    let asked = fs::metadata(mount.join("other")).unwrap_err();
    assert!(began.elapsed() < PATIENCE, "it hangs");
    assert!([libc::ENOTCONN, libc::ECONNABORTED].contains(&asked.raw_os_error().unwrap()), "{asked}");
    assert_eq!(mount.wait(PATIENCE).unwrap().code(), Some(11), "{}", mount.log());
    assert!(!is_mounted(mount.path()));
    assert!(held.read_at(&mut [0], 0).is_err());
    assert!(mount.log().contains("no worker can serve"), "{}", mount.log());
}

#[test]
fn it_ends_like_any_other_mount() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    // From outside.
    let mut mount = supervised(&volume, &[]);
    kill_worker(&mount);
    fs::write(mount.join("f"), "x").unwrap();
    succeed(&["umount", mount.path().to_str().unwrap()]);
    assert_eq!(mount.wait(PATIENCE).unwrap().code(), Some(0), "{}", mount.log());
    // By a signal that all processes get, as a service manager sends it.
    let mut mount = supervised(&volume, &[]);
    for pid in children(mount.pid()).into_iter().chain([mount.pid()]) {
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::TERM).unwrap();
    }
    assert_eq!(mount.wait(PATIENCE).unwrap().code(), Some(0), "{}", mount.log());
    assert!(!is_mounted(mount.path()));
    // In the background, and with an error that the command tells.
    let at = volume.new_path();
    let log = volume.dir.path().join("background.log");
    let flags = ["mount", "-d", "--supervised", "--cache-dir=memory", "--metrics="];
    let begin = |meta: &str| {
        run_within(program().args(flags).arg(format!("--log={}", log.display())).arg(meta).arg(&at), PATIENCE)
    };
    let none = begin(&format!("sqlite3://{}/none.db", volume.dir.path().display()));
    assert_ne!(none.code, 0);
    assert!(!none.stderr.is_empty());
    let ran = begin(&volume.meta);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("is ready at"), "{ran:?}");
    assert_eq!(fs::read(at.join("f")).unwrap(), b"x");
    let status = asking::status(&at);
    let (pid, worker) = (status["supervisor"].as_u64().unwrap(), status["worker"].as_u64().unwrap());
    kill(worker as u32);
    assert_eq!(fs::read(at.join("f")).unwrap(), b"x");
    succeed(&["umount", "--flush", at.to_str().unwrap()]);
    wait_for("both to end", || !PathBuf::from(format!("/proc/{pid}/exe")).exists());
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("the mount goes on") && !log.contains("READY"), "{log}");
}

#[test]
fn a_stop_during_an_upgrade_ends_the_mount_and_stores_what_was_written() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    let mut mount = supervised(&volume, &[]);
    // Written and not closed, by another process: to start one here, while the worker stands still, would wait for a close.
    let mut holder = Command::new("sh");
    holder.args(["-c", "exec 3>f; printf written >&3; echo; read -r end || :"]).current_dir(mount.path());
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    // The worker hears of both together.
    let worker = Pid::from_raw(worker(&mount) as i32).unwrap();
    kill_process(worker, Signal::STOP).unwrap();
    let mut upgrade = program().arg("upgrade").arg(mount.path()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the upgrade to begin", || mount.log().contains("an upgrade to"));
    let supervisor = Pid::from_raw(mount.pid() as i32).unwrap();
    kill_process(supervisor, Signal::TERM).unwrap();
    let status = format!("/proc/{}/status", mount.pid());
    let pending = |line: &&str| line.starts_with("ShdPnd:") && line.chars().any(|c| ('1'..='9').contains(&c));
    wait_for("the supervisor to hear the signal", || {
        fs::read_to_string(&status).unwrap().lines().find(pending).is_none()
    });
    kill_process(worker, Signal::CONT).unwrap();
    wait_for("the end to begin", || mount.log().contains("unmounting"));
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert_eq!(mount.wait(PATIENCE).unwrap().code(), Some(0), "{}", mount.log());
    assert!(!is_mounted(mount.path()));
    upgrade.wait().unwrap();
    let again = volume.mount(&[]);
    assert_eq!(fs::read(again.join("f")).unwrap(), b"written");
    again.unmount();
}

#[test]
fn the_connection_outlives_its_supervisor() {
    let volume = Volume::new(Engine::Redis, &[]);
    let mut mount = supervised(&volume, &[]);
    let path = mount.path().to_owned();
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(path.join("f")).unwrap();
    file.write_all(b"held").unwrap();
    let holder = asking::Holder::of(&path, &volume.dir.path().join("holder.sock"));
    let orphan = worker(&mount);
    kill(mount.pid());
    mount.wait(PATIENCE).unwrap();
    // Served by the worker alone.
    assert_eq!(fs::read(path.join("f")).unwrap(), b"held");
    let mut command = program();
    command.args(["mount", "--supervised", "--resume-from"]).arg(holder.socket());
    let next = Mount::start(command, &path, &path.with_extension("next"));
    wait_for("the next worker", || children(next.pid()).first().is_some_and(|pid| *pid != orphan));
    let mut content = String::new();
    file.write_all(b" on").unwrap();
    file.sync_all().unwrap();
    assert!(file.read_to_string(&mut content).is_ok());
    assert_eq!(fs::read(path.join("f")).unwrap(), b"held on");
    assert!(!PathBuf::from(format!("/proc/{orphan}/exe")).exists());
    drop(file);
    drop(holder);
    next.unmount_after_errors();
}
