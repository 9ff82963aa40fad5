//! Workers of supervised mounts that are replaced in bad moments: while somebody waits, by programs that cannot be, from places that
//! are named from elsewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "supervised/asking.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod asking;
mod support;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::agent::Agent;
use support::client::{Mount, PATIENCE, is_mounted, program, run, run_within, succeed, wait_for};
use support::{Engine, Volume};

fn signal(pid: u64, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

fn is_served(path: &Path) -> bool {
    asking::status(path)["serving"] == true
}

fn worker(path: &Path) -> u64 {
    asking::status(path)["worker"].as_u64().unwrap()
}

fn supervised(volume: &Volume, flags: &[&str]) -> Mount {
    let mount = volume.mount(&[&["--supervised", "--cache-dir=memory"], flags].concat());
    // Its supervisor hears that it is there after everybody sees it.
    let dev = fs::metadata(mount.path()).unwrap().dev();
    let socket = format!("/run/ciderfs/{}-{}.sock", rustix::fs::major(dev), rustix::fs::minor(dev));
    wait_for("the supervisor to listen", || {
        mount.log().contains("is ready at") && Path::new(&socket).exists()
    });
    wait_for("the mount to be served", || is_served(mount.path()));
    mount
}

#[test]
fn who_waits_for_a_lock_goes_on_waiting() {
    let volume = Volume::new(Engine::Redis, &[]);
    let mount = supervised(&volume, &[]);
    let path = mount.path().to_str().unwrap().to_owned();
    let (mut a, mut b) = (Agent::start(), Agent::start());
    for agent in [&mut a, &mut b] {
        agent.must(&format!("open f {path}/locked rw"));
    }
    a.must("flock f ex");
    b.begin("flock f ex");
    b.still_waits();
    succeed(&["upgrade", &path]);
    b.still_waits();
    let old = worker(mount.path());
    signal(old, Signal::KILL);
    wait_for("another worker", || worker(mount.path()) != old && is_served(mount.path()));
    b.still_waits();
    a.must("flock f un");
    assert_eq!(b.answer(), "");
    drop((a, b));
    mount.unmount_after_errors();
}

#[test]
fn a_program_that_disappears_or_lies_on_the_mount() {
    let volume = Volume::new(Engine::Redis, &[]);
    let mount = supervised(&volume, &[]);
    let path = mount.path().to_str().unwrap();
    let real = env!("CARGO_BIN_EXE_ciderfs");
    let script = |at: &Path, text: &str| {
        fs::write(at, text).unwrap();
        fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
        format!("--binary={}", at.display())
    };
    // It says what it can, and is gone before it is to serve.
    let flag =
        script(&volume.dir.path().join("gone"), &format!("#!/bin/sh\n{real} \"$@\" && rm -f \"$0\"\n"));
    let back = run(&["upgrade", &flag, path]);
    assert_eq!(back.code, 4, "{back:?}");
    assert!(back.stderr.contains("the old one serves again"), "{back:?}");
    fs::write(mount.join("f"), "x").unwrap();
    // Refused while the worker serves.
    let old = worker(mount.path());
    let flag = script(&mount.join("on-it"), &format!("#!/bin/sh\nexec {real} \"$@\"\n"));
    let refused = run(&["upgrade", &flag, path]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("lies on the mount"), "{refused:?}");
    assert_eq!(worker(mount.path()), old);
    mount.unmount_after_errors();
}

#[test]
fn a_worker_that_hangs_before_it_serves_is_ended() {
    // Somebody who accepts, and is silent.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let volume = Volume::new(Engine::Redis, &[]);
    let at = volume.new_path();
    fs::create_dir(&at).unwrap();
    let mut child = program()
        .args(["mount", "--supervised", "--cache-dir=memory", "--metrics="])
        .arg(format!("redis://{}/1", silent.local_addr().unwrap()))
        .arg(&at)
        .spawn()
        .unwrap();
    let (_held, _) = silent.accept().unwrap();
    let began = Instant::now();
    signal(child.id().into(), Signal::TERM);
    let mut status = None;
    wait_for("its end", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(!status.unwrap().success());
    // The engine hangs when the next one starts.
    let mut mount = supervised(&volume, &["--restart-limit=2s"]);
    let redis = u64::from(volume.redis.as_ref().unwrap().pid().unwrap());
    signal(redis, Signal::STOP);
    signal(worker(mount.path()), Signal::KILL);
    let status = mount.wait(PATIENCE);
    signal(redis, Signal::CONT);
    assert_eq!(status.expect("it goes on for ever").code(), Some(11), "{}", mount.log());
    assert!(!is_mounted(mount.path()));
}

#[test]
fn a_damaged_record_costs_one_file() {
    let volume = Volume::new(Engine::Redis, &[]);
    let mount = supervised(&volume, &[]);
    let make = |name: &str| {
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).open(mount.join(name)).unwrap();
        file.write_all(b"before").unwrap();
        file.sync_all().unwrap();
        file
    };
    let (mut bad, mut good) = (make("bad"), make("good"));
    let ino = bad.metadata().unwrap().ino();
    let redis = volume.redis.as_ref().unwrap();
    let script = format!("redis.call('SELECT', 1); return redis.call('SET', 'i{ino}', 'x')");
    let said = redis.command(&["EVAL", &script, "0"]).unwrap();
    assert!(said.contains("OK"), "{said}");
    let old = worker(mount.path());
    signal(old, Signal::KILL);
    wait_for("another worker", || worker(mount.path()) != old && is_served(mount.path()));
    good.write_all(b" and after").unwrap();
    good.sync_all().unwrap();
    assert_eq!(fs::read(mount.join("good")).unwrap(), b"before and after");
    assert!(bad.write_all(b"x").and_then(|()| bad.sync_all()).is_err());
    drop((bad, good));
    mount.unmount_after_errors();
}

#[test]
fn places_are_those_of_who_mounts() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    let here = volume.dir.path();
    let ran = run_within(
        program().current_dir(here).args([
            "mount",
            "-d",
            "--supervised",
            "--cache-dir=cache",
            "--metrics=",
            "--log=log",
            "sqlite3://meta.db",
            "at",
        ]),
        PATIENCE,
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let at = here.join("at");
    assert!(is_mounted(&at));
    fs::write(at.join("f"), "x").unwrap();
    let old = worker(&at);
    signal(old, Signal::KILL);
    wait_for("another worker", || worker(&at) != old && is_served(&at));
    assert_eq!(fs::read(at.join("f")).unwrap(), b"x");
    assert!(here.join("cache").is_dir());
    succeed(&["umount", "--flush", at.to_str().unwrap()]);
}
