//! Redis with few rights, without room, or at a bad moment, as a mount and its user meet it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ciderfs_testkit::redis::RedisServer;
use rustix::process::{Pid, Signal, kill_process};
use support::client::{is_mounted, program, run_within, sh, succeed, wait_for};
use support::{Engine, Volume};

/// What ends promptly on a busy machine.
const PROMPT: Duration = Duration::from_secs(12);

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), signal).unwrap();
}

fn ends_within(child: &mut Child, limit: Duration) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            panic!("still running after {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes are refused for now, as if the replicas of the server were away. Reads go on.
fn refuse_writes(redis: &RedisServer, refuse: bool) {
    redis.command(&["CONFIG", "SET", "min-replicas-to-write", if refuse { "1" } else { "0" }]).unwrap();
}

fn refusals(redis: &RedisServer) -> usize {
    let info = redis.command(&["INFO", "errorstats"]).unwrap();
    info.lines().filter(|l| l.starts_with("errorstat_NOREPLICAS")).count()
}

fn mount_command(volume: &Volume, at: &Path) -> Command {
    let mut command = program();
    command.args(["mount", "--metrics=", "--cache-dir=memory", &volume.meta]).arg(at);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn sessions(volume: &Volume) -> usize {
    let out = succeed(&["status", &volume.meta]).stdout;
    let status: serde_json::Value = serde_json::from_str(&out).unwrap();
    status["Sessions"].as_array().unwrap().len()
}

/// A mount that waits for its engine at the start dies of the signal, and leaves neither a session nor a mount behind.
#[test]
fn a_mount_that_waits_at_its_start_ends_on_a_signal() {
    let volume = Volume::new(Engine::Redis, &[]);
    let redis = volume.redis.as_ref().unwrap();
    for by in [Signal::TERM, Signal::INT] {
        refuse_writes(redis, true);
        redis.command(&["CONFIG", "RESETSTAT"]).unwrap();
        let at = volume.new_path();
        let mut mount = mount_command(&volume, &at).spawn().unwrap();
        wait_for("the session to be refused", || refusals(redis) > 0);
        signal(&mount, by);
        let status = ends_within(&mut mount, PROMPT);
        assert_eq!(status.signal(), Some(by.as_raw()), "{status:?}");
        refuse_writes(redis, false);
        assert!(!is_mounted(&at));
        assert_eq!(sessions(&volume), 0);
    }
}

/// The command in front of a background mount takes it along when it ends before the mount is ready.
#[test]
fn a_background_mount_that_waits_ends_with_its_command() {
    let volume = Volume::new(Engine::Redis, &[]);
    let redis = volume.redis.as_ref().unwrap();
    refuse_writes(redis, true);
    redis.command(&["CONFIG", "RESETSTAT"]).unwrap();
    let at = volume.new_path();
    let log = volume.dir.path().join("background.log");
    let mut command = mount_command(&volume, &at);
    let mut front = command.arg("-d").arg(format!("--log={}", log.display())).spawn().unwrap();
    wait_for("the session to be refused", || refusals(redis) > 0);
    let pattern = at.display().to_string();
    let running = || {
        let procs = fs::read_dir("/proc").unwrap().flatten();
        procs
            .filter(|p| {
                fs::read(p.path().join("cmdline"))
                    .is_ok_and(|c| String::from_utf8_lossy(&c).contains(&pattern))
            })
            .count()
    };
    assert_eq!(running(), 2);
    signal(&front, Signal::INT);
    ends_within(&mut front, PROMPT);
    wait_for("the mount process to end", || running() == 0);
    refuse_writes(redis, false);
    assert!(!is_mounted(&at));
    assert_eq!(sessions(&volume), 0);
}

/// Also at the end: soon if all is stored, at once on a second signal.
#[test]
fn a_mount_that_waits_at_its_end_ends_on_a_signal() {
    let volume = Volume::new(Engine::Redis, &[]);
    let redis = volume.redis.as_ref().unwrap();
    for again in [false, true] {
        refuse_writes(redis, false);
        let at = volume.new_path();
        let mut mount = mount_command(&volume, &at).spawn().unwrap();
        wait_for("the mount", || is_mounted(&at));
        sh(&at, "echo x > f; sync f");
        refuse_writes(redis, true);
        signal(&mount, Signal::TERM);
        wait_for("the unmount", || !is_mounted(&at));
        if again {
            std::thread::sleep(Duration::from_millis(200));
            signal(&mount, Signal::TERM);
            let status = ends_within(&mut mount, Duration::from_secs(3));
            assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{status:?}");
        } else {
            let status = ends_within(&mut mount, PROMPT);
            assert_eq!(status.code(), Some(11), "{status:?}");
        }
    }
}

/// Commands that wait for a server end on Ctrl-C.
#[test]
fn commands_that_wait_end_on_a_signal() {
    let volume = Volume::new(Engine::Redis, &[]);
    let redis = volume.redis.as_ref().unwrap();
    let pid = Pid::from_raw(redis.pid().unwrap() as i32).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let quota = ["quota", "set", &volume.meta, "--path=/", "--capacity=1"];
    let commands: [&[&str]; 4] =
        [&["status", &volume.meta], &["config", &volume.meta], &quota, &["format", &volume.meta, "vol"]];
    for args in commands {
        let mut child = program().args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(child.try_wait().unwrap().is_none(), "{args:?} did not wait");
        signal(&child, Signal::INT);
        assert_eq!(ends_within(&mut child, PROMPT).signal(), Some(Signal::INT.as_raw()), "{args:?}");
    }
    kill_process(pid, Signal::CONT).unwrap();
}

/// Everything that writes says at once that it was given a replica, and whose.
#[test]
fn commands_that_write_refuse_a_replica_at_once() {
    let volume = Volume::new(Engine::Redis, &[]);
    let master = volume.redis.as_ref().unwrap();
    let replica = Volume::unformatted(Engine::Redis);
    let server = replica.redis.as_ref().unwrap();
    server.command(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]).unwrap();
    wait_for("the replica", || {
        server.command(&["INFO", "replication"]).unwrap().contains("master_link_status:up")
    });
    let at = replica.new_path().display().to_string();
    let url = replica.meta.as_str();
    let named = format!("127.0.0.1:{}", master.port());
    for args in [
        &["mount", "--metrics=", url, &at][..],
        &["quota", "set", url, "--path=/", "--capacity=1"],
        &["config", url, "--trash-days=3"],
        &["format", url, "vol"],
    ] {
        let ran = run_within(program().args(args), PROMPT);
        let said = ran.stderr + &ran.stdout;
        assert!(ran.code > 0 && said.contains("replica") && said.contains(&named), "{args:?}: {said}");
    }
    succeed(&["status", url]);
}

/// A user with the documented rights can do everything that a volume's user does.
#[test]
fn a_mount_with_the_documented_rights() {
    let volume = Volume::unformatted(Engine::Redis);
    let redis = volume.redis.as_ref().unwrap();
    let text = include_str!("../../../docs/redis.md");
    let rule = text[text.find("ACL SETUSER").unwrap()..].split("```").next().unwrap();
    let words = rule.replace("PASSWORD", "s3cret");
    let words: Vec<&str> = words.split_whitespace().filter(|w| *w != "\\").collect();
    redis.command(&words).unwrap();
    let url = volume.meta.replace("redis://", "redis://ciderfs:s3cret@");
    let bucket = format!("--bucket={}/", volume.objects.display());
    succeed(&["format", "--storage=file", &bucket, &url, "vol"]);
    let at = volume.new_path();
    let log = volume.dir.path().join("rights.log");
    let mut mount = program();
    mount.args(["mount", "--metrics=", "--cache-dir=memory", "--heartbeat=1", &url]).arg(&at);
    mount.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut mount = mount.spawn().unwrap();
    wait_for("the mount", || is_mounted(&at));
    sh(
        &at,
        "mkdir d; echo x > d/f; ln d/f d/g; ln -s f d/s; mv d/f d/h; setfattr -n user.a -v b d/h; truncate -s 0 d/h; \
             flock d/h true; rm d/g; ls -lR .; sleep 2.5; rm -r d",
    );
    succeed(&["quota", "set", &url, "--path=/", "--capacity=1"]);
    succeed(&["config", &url, "--trash-days=2"]);
    signal(&mount, Signal::TERM);
    assert_eq!(ends_within(&mut mount, PROMPT).code(), Some(0));
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("INFO") && !log.contains("s3cret") && !log.contains("<ERROR>"), "{log}");
    let warned = log.lines().filter(|l| l.contains("let this user run")).count();
    assert!(warned <= 3, "once each:\n{log}");
    // Without a needed one, it is named.
    redis.command(&["ACL", "SETUSER", "ciderfs", "-zadd"]).unwrap();
    let mut mount = program();
    let ran = run_within(mount.args(["mount", "--metrics=", "--cache-dir=memory", &url]).arg(&at), PROMPT);
    let said = ran.stderr + &ran.stdout;
    assert!(ran.code > 0 && said.contains("+zadd") && !said.contains("s3cret"), "{said}");
}

/// A server at its maxmemory: what frees room works on a mount, with the trash of a new hour and without trash.
#[test]
fn removing_works_when_redis_is_full() {
    for days in ["--trash-days=0", "--trash-days=1"] {
        let volume = Volume::new(Engine::Redis, &[days]);
        let redis = volume.redis.as_ref().unwrap();
        let mount = volume.mount(&["--heartbeat=1"]);
        sh(
            mount.path(),
            "mkdir d e; for i in 1 2 3 4 5 6; do seq 1000 > d/$i; done; ln -s x d/s; setfattr -n user.a -v b d/6; sync d/[1-6]",
        );
        redis.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
        let full =
            run_within(Command::new("sh").args(["-c", "mkdir d/more"]).current_dir(mount.path()), PROMPT);
        assert!(full.code != 0 && full.stderr.contains("No space left"), "{full:?}");
        sh(
            mount.path(),
            "rm d/1; mv d/2 d/3; truncate -s 10 d/3; : > d/4; setfattr -x user.a d/6; rmdir e; rm d/s; flock d/5 true; chmod 600 d/5; \
             exec 3< d/5; rm d/5; cat <&3 > /dev/null; exec 3<&-; sleep 1.2; rm -r d",
        );
        assert!(mount.path().read_dir().unwrap().all(|e| e.unwrap().file_name() != "d"));
        redis.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
        mount.unmount_after_errors();
        volume.check();
    }
}
