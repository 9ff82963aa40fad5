//! What is at a mount point already: nothing, a dead mount, the same volume, another one, a file system of another kind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::UnmountFlags;
use support::client::{Ran, is_mounted, program, run, run_within, sh, wait_for};
use support::{Engine, Volume};

on_engines!(
    a_dead_mount_is_replaced_by_the_same_command,
    mounting_what_is_mounted_succeeds_and_mounts_nothing,
    another_volume_is_refused,
    two_commands_at_once_make_one_mount,
);

/// Detaches whatever is left at a place, at the end.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        while rustix::mount::unmount(&self.0, UnmountFlags::DETACH).is_ok() {}
    }
}

/// How many file systems are mounted right here, one upon the other.
fn mounts_at(path: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    table.lines().filter(|l| l.split(' ').nth(1) == path.to_str()).count()
}

fn words(volume: &Volume, at: &Path, flags: &[&str]) -> Vec<String> {
    let log = volume.dir.path().join("log");
    let mut words = vec![
        "mount".to_owned(),
        "--cache-dir=memory".into(),
        "--metrics=".into(),
        format!("--log={}", log.display()),
    ];
    words.extend(flags.iter().map(|f| (*f).to_owned()));
    words.extend([volume.meta.clone(), at.display().to_string()]);
    words
}

fn mount(volume: &Volume, at: &Path, flags: &[&str]) -> Ran {
    run(&words(volume, at, flags))
}

/// The process that serves a mount.
fn server(at: &Path) -> rustix::process::Pid {
    let config: serde_json::Value = serde_json::from_slice(&fs::read(at.join(".config")).unwrap()).unwrap();
    rustix::process::Pid::from_raw(config["Pid"].as_i64().unwrap() as i32).unwrap()
}

fn gone(pid: rustix::process::Pid) -> bool {
    match fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) {
        Ok(stat) => stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'),
        Err(_) => true,
    }
}

fn unmount(at: &Path) {
    let pid = server(at);
    let ran = run(&["umount", at.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(mounts_at(at), 0);
    wait_for("the end of the server", || gone(pid));
}

fn a_dead_mount_is_replaced_by_the_same_command(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let at = Place(volume.dir.path().join("missing/parents/m"));
    let ran = mount(&volume, &at.0, &["-d"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    sh(&at.0, "echo x > f; sync f");
    let pid = server(&at.0);
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait_for("the mount to be dead", || fs::metadata(&at.0).is_err_and(|e| e.raw_os_error() == Some(107)));
    let ran = mount(&volume, &at.0, &["-d"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(mounts_at(&at.0), 1);
    assert_eq!(fs::read_to_string(at.0.join("f")).unwrap(), "x\n");
    unmount(&at.0);
}

fn mounting_what_is_mounted_succeeds_and_mounts_nothing(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let at = Place(volume.dir.path().join("m"));
    assert_eq!(mount(&volume, &at.0, &["-d"]).code, 0);
    let pid = server(&at.0);
    let helper = |at: &Path| {
        let mut c = program();
        run_within(
            c.env("CALL_VIA_MOUNT", "1").args([volume.meta.as_str(), at.to_str().unwrap()]),
            support::client::PATIENCE,
        )
    };
    let inside = [mount(&volume, &at.0, &["-d"]), mount(&volume, &at.0, &[]), helper(&at.0)];
    for (i, ran) in inside.iter().enumerate() {
        assert_eq!(ran.code, 0, "{i}: {}", ran.stderr);
        assert!(ran.stdout.contains("vol is already mounted at"), "{i}: {}{}", ran.stdout, ran.stderr);
        assert_eq!((mounts_at(&at.0), server(&at.0)), (1, pid), "{i}");
    }
    // Another directory of it is another thing.
    sh(&at.0, "mkdir sub");
    let ran = mount(&volume, &at.0, &["-d", "--subdir=sub"]);
    assert_eq!((ran.code, mounts_at(&at.0)), (1, 1), "{}", ran.stderr);
    assert!(ran.stderr.contains("with its directory /"), "{}", ran.stderr);
    unmount(&at.0);
    assert_eq!(mount(&volume, &at.0, &["-d", "--subdir=/sub"]).code, 0);
    assert_eq!(mount(&volume, &at.0, &["-d", "--subdir=sub/"]).code, 0);
    assert_eq!((mount(&volume, &at.0, &["-d"]).code, mounts_at(&at.0)), (1, 1));
    unmount(&at.0);
}

fn another_volume_is_refused(engine: Engine) {
    let (volume, other) = (Volume::new(engine, &[]), Volume::new(engine, &[]));
    let at = Place(volume.dir.path().join("m"));
    assert_eq!(mount(&volume, &at.0, &["-d"]).code, 0);
    for flags in [&["-d"][..], &[]] {
        // It has the same name.
        let ran = mount(&other, &at.0, flags);
        assert_eq!((ran.code, mounts_at(&at.0)), (1, 1), "{}", ran.stderr);
        assert!(ran.stderr.contains("another volume with the name vol is mounted at"), "{}", ran.stderr);
        assert!(ran.stderr.contains("choose another directory"), "{}", ran.stderr);
    }
    unmount(&at.0);
}

fn two_commands_at_once_make_one_mount(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let at = Place(volume.dir.path().join("m"));
    let start = |_| {
        let mut c = program();
        c.args(words(&volume, &at.0, &["-d"])).stdout(Stdio::null()).spawn().unwrap()
    };
    let commands: Vec<_> = (0..4).map(start).collect();
    for mut command in commands {
        assert!(command.wait().unwrap().success());
    }
    assert_eq!(mounts_at(&at.0), 1);
    unmount(&at.0);
}

#[test]
fn mounts_of_other_kinds_are_mounted_over_and_never_unmounted() {
    let volume = Volume::new(Engine::Sqlite, &["--trash-days=0"]);
    let at = Place(volume.dir.path().join("m"));
    sh(volume.dir.path(), "mkdir m; mount -t tmpfs none m; echo below > m/f");
    assert_eq!(mount(&volume, &at.0, &["-d"]).code, 0);
    assert_eq!(mounts_at(&at.0), 2);
    unmount_top(&at.0);
    assert_eq!(fs::read_to_string(at.0.join("f")).unwrap(), "below\n");
    for flags in [&["umount"][..], &["umount", "--force"]] {
        let ran = run_within(program().args(flags).arg(&at.0), support::client::PATIENCE);
        assert_eq!((ran.code, mounts_at(&at.0)), (1, 1), "{}", ran.stderr);
        assert!(ran.stderr.contains("a mount of none (tmpfs)"), "{}", ran.stderr);
    }
    assert!(is_mounted(&at.0));
    let said = run_within(Command::new("umount").arg(&at.0), support::client::PATIENCE);
    assert_eq!(said.code, 0);
}

fn unmount_top(at: &Path) {
    let (pid, before) = (server(at), mounts_at(at));
    assert_eq!(run(&["umount", at.to_str().unwrap()]).code, 0);
    assert_eq!(mounts_at(at), before - 1);
    wait_for("the end of the server", || gone(pid));
}
