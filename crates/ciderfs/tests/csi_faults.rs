//! The node side of the CSI driver when something is not as it should be: a container that ends, a Secret that has changed, a
//! directory that is not empty.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[allow(dead_code, reason = "others use the rest")]
mod csi_kit;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use ciderfs_mounter::{Client, Info, Spec};
use csi_kit::{Claim, Node, children, mounts_at, own_mounts, pid, refused};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use rustix::process::{Signal, kill_process};
use support::client::{PATIENCE, program, sh, wait_for};
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
fn clients_with_supervisors_leave_nothing_unstored() {
    stores_what_was_written(&[]);
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
fn a_directory_that_is_gone_is_not_made_again() {
    own_mounts();
    let (volume, node) = (volume(), Node::start());
    let whole = volume.mount(&["--cache-dir=memory"]);
    let mut claim = Claim::new("pvc-1", &volume.meta).sub_path("pvc-1");
    claim.context.insert("ciderfs/made".into(), "true".into());
    let why = refused(node.stage(&claim), Code::Internal);
    assert!(why.contains("no directory pvc-1"), "{why}");
    assert!(!whole.join("pvc-1").exists());
    // The official driver leaves it to the first client to make one, and its volumes have no such mark.
    let first = Claim::new("pvc-2", &volume.meta).sub_path("pvc-2");
    node.stage(&first).unwrap();
    node.publish(&first, "b").unwrap();
    fs::create_dir(whole.join("pvc-1")).unwrap();
    fs::write(whole.join("pvc-1/f"), "x").unwrap();
    node.stage(&claim).unwrap();
    let target = node.publish(&claim, "a").unwrap();
    assert_eq!(fs::read(target.join("f")).unwrap(), b"x");
    assert!(whole.join("pvc-2").is_dir());
    for (id, pod) in [("pvc-1", "a"), ("pvc-2", "b")] {
        node.unpublish(id, pod).unwrap();
        node.unstage(id).unwrap();
    }
    whole.unmount();
}

#[test]
fn one_endpoint_tells_the_figures_of_all_clients() {
    own_mounts();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (volume, node) = (volume(), Node::with_mounter(&[&format!("--metrics={address}")]));
    for id in ["pvc-1", "pvc-2"] {
        let claim = Claim::new(id, &volume.meta).sub_path(id);
        node.stage(&claim).unwrap();
        fs::write(node.publish(&claim, id).unwrap().join("f"), id).unwrap();
    }
    let clients = node.client().list().unwrap();
    assert_eq!(clients.len(), 2);
    let figures = || sh(node.dir.path(), &format!("curl -sf http://{address}/metrics"));
    let uptime = |text: &str, info: &Info| {
        let (volume, mp) =
            (format!("volume_id=\"{}\"", info.volume), format!("mp=\"{}\"", info.mountpoint.display()));
        let is_of =
            |line: &&str| line.starts_with("juicefs_uptime{") && line.contains(&volume) && line.contains(&mp);
        text.lines().filter(is_of).count()
    };
    wait_for("both clients", || {
        let text = figures();
        clients.iter().all(|info| uptime(&text, info) == 1)
    });
    // As Prometheus wants it: what is of one name stands together, and is explained once.
    let text = figures();
    let mut names: Vec<&str> =
        text.lines().filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(names.len() > 50, "{text}");
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all, "{text}");
    // The next process of a client tells on.
    let killed = clients.iter().find(|info| info.volume == "pvc-1").unwrap();
    kill_process(pid(children(killed.pid.unwrap())[0]), Signal::KILL).unwrap();
    assert_eq!(fs::read(node.target("pvc-1").join("f")).unwrap(), b"pvc-1");
    wait_for("the next process", || uptime(&figures(), killed) == 1);
    for id in ["pvc-1", "pvc-2"] {
        node.unpublish(id, id).unwrap();
        node.unstage(id).unwrap();
    }
    assert_eq!(figures(), "");
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
