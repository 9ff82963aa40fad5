//! The node side of the CSI driver when something is not as it should be: a container that ends, a Secret that has changed, a
//! directory that is not empty.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[allow(dead_code, reason = "others use the rest")]
mod csi_kit;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use ciderfs_mounter::{Client, Spec};
use csi_kit::{Claim, Node, mounts_at, own_mounts, pid, refused};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::process::{Signal, kill_process};
use support::client::{PATIENCE, program, wait_for};
use support::{Engine, Volume};
use tonic::Code;

const SIZE: usize = 3 << 20;

fn volume() -> Volume {
    Volume::new(Engine::Redis, &["--trash-days=0"])
}

fn stores_what_was_written(flags: &[&str]) {
    let volume = volume();
    let dir = tempfile::Builder::new().prefix("ciderfs-end").tempdir_in("/dev/shm").unwrap();
    own_mounts();
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
    kill_process(pid(first), Signal::TERM).unwrap();
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
fn clients_without_supervisors_leave_nothing_unstored() {
    stores_what_was_written(&["--no-supervisor"]);
}

#[test]
fn a_changed_secret_leaves_running_pods_alone() {
    own_mounts();
    let (volume, node) = (volume(), Node::start());
    let mut claim = Claim::new("pvc-1", &volume.meta);
    node.stage(&claim).unwrap();
    let target = node.publish(&claim, "a").unwrap();
    let before = mounts_at(&target);
    // A new kubelet asks for everything again, with the Secret as it is now.
    claim.secrets.insert("envs".into(), r#"{"TZ": "Europe/Paris"}"#.into());
    node.stage(&claim).unwrap();
    assert_eq!(node.publish(&claim, "a").unwrap(), target);
    assert_eq!(mounts_at(&target), before);
    fs::write(target.join("f"), "x").unwrap();
    // New pods have a client with the new one.
    let other = node.publish(&claim, "b").unwrap();
    assert_eq!(node.client().list().unwrap().len(), 2);
    wait_for("the file", || fs::read(other.join("f")).is_ok_and(|t| t == b"x"));
    for pod in ["a", "b"] {
        node.unpublish("pvc-1", pod).unwrap();
    }
    node.unstage("pvc-1").unwrap();
    assert!(node.client().list().unwrap().is_empty());
}

#[test]
fn a_target_that_cannot_be_removed_is_not_bound_again() {
    own_mounts();
    let (volume, node) = (volume(), Node::start());
    let claim = Claim::new("pvc-1", &volume.meta);
    node.stage(&claim).unwrap();
    let target = node.target("a");
    fs::create_dir_all(&target).unwrap();
    fs::write(target.join("below"), "x").unwrap();
    node.publish(&claim, "a").unwrap();
    assert_eq!(mounts_at(&target).len(), 1);
    assert!(refused(node.unpublish("pvc-1", "a"), Code::Internal).contains("cannot be removed"));
    // Two rounds of whoever binds again what has disappeared.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(mounts_at(&target).is_empty());
    fs::remove_file(target.join("below")).unwrap();
    node.unpublish("pvc-1", "a").unwrap();
    node.unstage("pvc-1").unwrap();
}
