//! The end of the mounter's container: what programs have written and not synced is stored.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use ciderfs_mounter::{Client, Spec};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::process::{Pid, Signal, kill_process};
use support::client::{PATIENCE, program, wait_for};
use support::{Engine, Volume};

const SIZE: usize = 3 << 20;

fn stores_what_was_written(flags: &[&str]) {
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let dir = tempfile::Builder::new().prefix("ciderfs-end").tempdir_in("/dev/shm").unwrap();
    // SAFETY: no code here relies on threads sharing mounts or a working directory.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    // What is mounted in the container is seen here.
    mount_bind(dir.path(), dir.path()).unwrap();
    mount_change(dir.path(), MountPropagationFlags::SHARED).unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "unchanged"]);
    command.arg(program().get_program()).arg("mounter").args(flags);
    for (flag, name) in [("mounter-socket", "socket"), ("run-dir", "run"), ("mount-dir", "mounts")] {
        command.arg(format!("--{flag}={}", at(name).display()));
    }
    let mut container = command.spawn().unwrap();
    let client = Client::new(&at("socket"));
    wait_for("the mounter", || client.list().is_ok());
    let options = vec!["cache-dir=memory".into(), "metrics=".into()];
    let spec = Spec::new("v", &volume.meta, options, BTreeMap::new()).unwrap();
    let info = client.mount(spec, PATIENCE).unwrap();
    let mut open = fs::File::create(info.mountpoint.join("f")).unwrap();
    open.write_all(&vec![7; SIZE]).unwrap();
    let first = fs::read_to_string(format!("/proc/{0}/task/{0}/children", container.id())).unwrap();
    let first: i32 = first.split_whitespace().next().unwrap().parse().unwrap();
    let since = Instant::now();
    kill_process(Pid::from_raw(first).unwrap(), Signal::TERM).unwrap();
    assert!(container.wait().unwrap().success());
    assert!(since.elapsed() < Duration::from_secs(40), "{:?}", since.elapsed());
    drop(open);
    let _ = unmount(&info.mountpoint, UnmountFlags::DETACH);
    let mount = volume.mount(&["--cache-dir=memory"]);
    assert!(fs::read(mount.path().join("f")).unwrap() == vec![7; SIZE], "it is not stored");
    mount.unmount();
    let _ = unmount(dir.path(), UnmountFlags::DETACH);
}

#[test]
fn clients_with_supervisors_leave_nothing_unstored() {
    stores_what_was_written(&[]);
}

#[test]
fn clients_without_supervisors_leave_nothing_unstored() {
    stores_what_was_written(&["--no-supervisor"]);
}
