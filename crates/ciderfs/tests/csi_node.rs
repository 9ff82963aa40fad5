//! The node service of CSI and the mounter, as processes, on real mounts: what kubelet asks for, and what happens when one of them, or
//! a client, dies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod csi_kit;
mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ciderfs_csi::proto::volume_capability::access_mode::Mode;
use ciderfs_csi::proto::volume_capability::{AccessType, MountVolume};
use ciderfs_csi::proto::*;
use csi_kit::{Claim, Node, children, kill, mounts_at, own_mounts, pid, refused};
use rustix::process::{Signal, kill_process};
use support::client::{PATIENCE, run_within, sh, succeed, wait_for};
use support::{Engine, Volume};
use tonic::Code;

fn volume() -> Volume {
    Volume::new(Engine::Redis, &["--trash-days=0"])
}

fn is_usable(path: &Path) -> bool {
    fs::write(path.join("probe"), "x").is_ok() && fs::read(path.join("probe")).is_ok_and(|t| t == b"x")
}

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|e| e.raw_os_error())
}

#[test]
fn a_volume_is_staged_published_and_taken_away() {
    own_mounts();
    let (volume, node) = (volume(), Node::start());
    let claim = Claim::new("pvc-1", &volume.meta);
    for _ in 0..2 {
        node.stage(&claim).unwrap();
    }
    // kubelet must not find users of the volume there.
    assert!(mounts_at(&node.staging()).is_empty());
    let target = node.publish(&claim, "a").unwrap();
    assert_eq!(node.publish(&claim, "a").unwrap(), target);
    assert_eq!(mounts_at(&target).len(), 1);
    fs::write(target.join("f"), "hello").unwrap();

    let mut reader = node.request(&claim, "b");
    reader.readonly = true;
    node.call(async |mut node| node.node_publish_volume(reader.clone()).await).unwrap();
    let other = node.target("b");
    assert_eq!(fs::read(other.join("f")).unwrap(), b"hello");
    assert_eq!(errno(fs::write(other.join("g"), "x")), Some(libc::EROFS));
    // Another way of using it at the same place.
    reader.readonly = false;
    refused(node.call(async |mut node| node.node_publish_volume(reader).await), Code::AlreadyExists);
    // One client for both.
    let client = node.info();

    let stats = node.stats("pvc-1", &target).unwrap();
    assert!(!stats.volume_condition.unwrap().abnormal);
    let units: Vec<i32> = stats.usage.iter().map(|u| u.unit).collect();
    assert_eq!(units, [1, 2]);
    assert!(stats.usage.iter().all(|u| u.total > 0 && u.available + u.used == u.total));

    refused(node.unstage("pvc-1"), Code::FailedPrecondition);
    let open = fs::File::open(target.join("f")).unwrap();
    assert!(refused(node.unpublish("pvc-1", "a"), Code::FailedPrecondition).contains("in use"));
    assert_eq!(mounts_at(&target).len(), 1, "a live target is not taken from its users");
    drop(open);
    for _ in 0..2 {
        node.unpublish("pvc-1", "a").unwrap();
    }
    node.unpublish("pvc-1", "never-there").unwrap();
    assert!(!target.exists());
    node.unpublish("pvc-1", "b").unwrap();
    for _ in 0..2 {
        node.unstage("pvc-1").unwrap();
    }
    wait_for("the end of the client", || node.client().list().unwrap().is_empty());
    assert!(!Path::new(&format!("/proc/{}", client.pid.unwrap())).exists(), "the client has ended");
    assert!(!client.mountpoint.exists());
    // What was written is there.
    node.stage(&claim).unwrap();
    let target = node.publish(&claim, "c").unwrap();
    assert_eq!(fs::read(target.join("f")).unwrap(), b"hello");
}

#[test]
fn requests_that_lack_something_are_refused() {
    own_mounts();
    let (volume, node) = (volume(), Node::start());
    let claim = Claim::new("pvc-1", &volume.meta);
    let publish = |change: &dyn Fn(&mut NodePublishVolumeRequest)| {
        let mut request = node.request(&claim, "a");
        change(&mut request);
        refused(node.call(async |mut node| node.node_publish_volume(request).await), Code::InvalidArgument);
    };
    publish(&|r| r.volume_id.clear());
    publish(&|r| r.target_path.clear());
    publish(&|r| r.target_path = "/a/../b".into());
    publish(&|r| r.target_path = "relative".into());
    publish(&|r| r.volume_capability = None);
    publish(&|r| {
        r.volume_capability.as_mut().unwrap().access_type = Some(AccessType::Block(Default::default()));
    });
    // Neither staged nor with a Secret.
    publish(&|_| {});
    assert!(!node.target("a").exists());
    let stage = |change: &dyn Fn(&mut Claim)| {
        let mut claim = claim.clone();
        change(&mut claim);
        node.stage(&claim)
    };
    refused(stage(&|c| c.id.clear()), Code::InvalidArgument);
    refused(stage(&|c| c.capability.access_mode = None), Code::InvalidArgument);
    let e = refused(
        stage(&|c| _ = c.context.insert("mountOptions".into(), "secret-key=hush".into())),
        Code::InvalidArgument,
    );
    assert!(!e.contains("hush"));
    // The client says why, and nothing of it stays.
    let missing = volume.redis.as_ref().unwrap().url_db(2);
    let e = refused(stage(&|c| _ = c.secrets.insert("metaurl".into(), missing.clone())), Code::Internal);
    assert!(e.contains("format"), "{e}");
    // The SELinux context of a pod, as kubelet writes it, reaches the kernel in one piece.
    let context = "context=\"system_u:object_r:container_file_t:s0:c15,c100\"";
    let labelled = stage(&|c| {
        let flags = vec!["noatime".into(), context.into()];
        let mount = MountVolume { mount_flags: flags, ..Default::default() };
        c.capability.access_type = Some(AccessType::Mount(mount));
    });
    let has_selinux = fs::read_to_string("/proc/filesystems").unwrap().contains("selinuxfs");
    match has_selinux {
        true => node.unstage("pvc-1").unwrap(),
        false => {
            let e = refused(labelled, Code::Internal);
            assert!(e.contains("does not run SELinux") && e.contains("c15,c100"), "{e}");
        }
    }
    wait_for("the end of those that failed", || node.client().list().unwrap().is_empty());
    // Nor does a pod of another context get what was staged for none: that is another mount, for which the Secret is needed.
    node.stage(&claim).unwrap();
    let mut other = node.request(&claim, "a");
    let mount = MountVolume { mount_flags: vec![context.into()], ..Default::default() };
    other.volume_capability.as_mut().unwrap().access_type = Some(AccessType::Mount(mount));
    let publish_other =
        |r: NodePublishVolumeRequest| node.call(async |mut node| node.node_publish_volume(r).await);
    let e = refused(publish_other(other.clone()), Code::FailedPrecondition);
    assert!(e.contains("SELinux context") && mounts_at(&node.target("a")).is_empty(), "{e}");
    other.secrets = claim.secrets.clone();
    let own = publish_other(other);
    if !has_selinux {
        assert!(refused(own, Code::Internal).contains("does not run SELinux"));
    }
    node.unstage("pvc-1").unwrap();
    refused(node.unstage(""), Code::InvalidArgument);
    refused(node.unpublish("", "a"), Code::InvalidArgument);
    refused(node.stats("", &node.target("a")), Code::InvalidArgument);
    refused(node.stats("pvc-1", Path::new("")), Code::InvalidArgument);
    refused(node.stats("pvc-1", &node.target("a")), Code::NotFound);
    let expand =
        NodeExpandVolumeRequest { volume_id: "x".into(), volume_path: "/x".into(), ..Default::default() };
    refused(node.call(async |mut node| node.node_expand_volume(expand).await), Code::Unimplemented);
    // Not even a path.
    refused(node.stats("pvc-1", Path::new("some/path")), Code::NotFound);
    let unstaged =
        NodePublishVolumeRequest { staging_target_path: String::new(), ..node.request(&claim, "a") };
    refused(node.call(async |mut node| node.node_publish_volume(unstaged).await), Code::FailedPrecondition);
    let info =
        node.call(async |mut node| node.node_get_info(NodeGetInfoRequest {}).await).unwrap().into_inner();
    assert_eq!(info.node_id, "node-1");
}

#[test]
fn existing_volumes_of_the_official_driver_need_no_stage() {
    own_mounts();
    let (volume, node) = (volume(), Node::start());
    let claim = Claim::new("handle", &volume.meta).mode(Mode::SingleNodeSingleWriter);
    // kubelet stages it without a Secret: nodePublishSecretRef is all it has.
    node.stage(&Claim { secrets: Default::default(), ..claim.clone() }).unwrap();
    assert!(node.client().list().unwrap().is_empty());
    let with_secret = |pod: &str| {
        let request =
            NodePublishVolumeRequest { secrets: claim.secrets.clone(), ..node.request(&claim, pod) };
        node.call(async |mut node| node.node_publish_volume(request).await)
    };
    with_secret("a").unwrap();
    assert!(is_usable(&node.target("a")));
    // ReadWriteOncePod.
    refused(with_secret("b"), Code::FailedPrecondition);
    node.unpublish("handle", "a").unwrap();
    node.unstage("handle").unwrap();
    wait_for("the end of the client", || node.client().list().unwrap().is_empty());
    // An orchestrator that does not stage at all.
    with_secret("a").unwrap();
    node.unpublish("handle", "a").unwrap();
    wait_for("the end of the client", || node.client().list().unwrap().is_empty());
}

#[test]
fn a_quota_is_felt_and_seen_through_the_target() {
    own_mounts();
    let (volume, node) = (volume(), Node::start());
    let claim = Claim::new("pvc-1", &volume.meta).sub_path("pvc-1");
    node.stage(&claim).unwrap();
    let target = node.publish(&claim, "a").unwrap();
    succeed(&["quota", "set", &volume.meta, "--path=/pvc-1", "--capacity=1", "--inodes=3"]);
    let room = |path: &Path| rustix::fs::statvfs(path).map(|s| s.f_blocks * s.f_frsize).unwrap();
    wait_for("the quota as the size of the file system", || room(&target) == 1 << 30);
    let stats = node.stats("pvc-1", &target).unwrap();
    assert_eq!(stats.usage[0].total, 1 << 30);
    let full = (0..5).find_map(|n| errno(fs::write(target.join(n.to_string()), "x")));
    assert_eq!(full, Some(libc::EDQUOT));
    // The directory of the volume, and nothing else of it.
    let whole = volume.mount(&["--cache-dir=memory"]);
    assert!(whole.path().join("pvc-1/0").exists());
    assert!(!target.join("pvc-1").exists());
}

#[test]
fn a_client_that_is_killed_comes_back_at_its_targets() {
    own_mounts();
    comes_back_at_its_targets(Node::start());
    comes_back_at_its_targets(Node::without_supervisors());
}

fn comes_back_at_its_targets(mut node: Node) {
    let volume = volume();
    let claim = Claim::new("pvc-1", &volume.meta);
    node.stage(&claim).unwrap();
    let target = node.publish(&claim, "a").unwrap();
    fs::write(target.join("f"), "kept").unwrap();
    sh(&target, "sync f");
    let killed = node.info().pid.unwrap();
    // A pod that sees the change, and writes all the time.
    let (place, is_over) = (target.join("all-the-time"), Arc::new(AtomicBool::new(false)));
    let over = Arc::clone(&is_over);
    let pod = std::thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            let _ = fs::write(&place, "x");
        }
    });
    kill_process(pid(killed), Signal::KILL).unwrap();
    wait_for("the next client", || node.info().restarts == 1 && node.info().device.is_some());
    wait_for("the target", || fs::read(target.join("f")).is_ok_and(|t| t == b"kept"));
    is_over.store(true, Ordering::Relaxed);
    pod.join().unwrap();
    assert_eq!(mounts_at(&target).len(), 1, "nothing is stacked");
    assert!(is_usable(&target));
    assert_ne!(node.info().pid, Some(killed));
    assert_eq!(node.info().restarts, 1);
    assert!(!node.stats("pvc-1", &target).unwrap().volume_condition.unwrap().abnormal);

    // While the node service is away, with a read-only target.
    let mut reader = node.request(&claim, "b");
    reader.readonly = true;
    node.call(async |mut node| node.node_publish_volume(reader).await).unwrap();
    kill(&mut node.csi);
    kill_process(pid(node.info().pid.unwrap()), Signal::KILL).unwrap();
    wait_for("the next client", || node.info().restarts == 2 && node.info().device.is_some());
    node.start_csi();
    wait_for("both targets", || is_usable(&target) && node.target("b").join("f").exists());
    assert_eq!(errno(fs::write(node.target("b").join("g"), "x")), Some(libc::EROFS));
    node.unpublish("pvc-1", "a").unwrap();
    node.unpublish("pvc-1", "b").unwrap();
    // Nothing was written below the mounts: the directory could be removed.
    assert!(!target.exists());
    node.unstage("pvc-1").unwrap();
}

#[test]
fn mounts_outlive_the_node_service_and_the_mounter() {
    own_mounts();
    let (volume, mut node) = (volume(), Node::start());
    let claim = Claim::new("pvc-1", &volume.meta);
    node.stage(&claim).unwrap();
    let target = node.publish(&claim, "a").unwrap();
    let open = fs::File::create(target.join("open")).unwrap();
    let (client, mount) = (node.info().pid, mounts_at(&target));
    let unharmed = |node: &Node| {
        std::io::Write::write_all(&mut &open, b"more").unwrap();
        open.sync_all().unwrap();
        assert_eq!((node.info().pid, mounts_at(&target)), (client, mount.clone()));
    };
    kill(&mut node.csi);
    node.start_csi();
    unharmed(&node);
    // What it has bound it still knows.
    node.unpublish("pvc-1", "other").unwrap();
    refused(node.unstage("pvc-1"), Code::FailedPrecondition);
    kill(&mut node.mounter);
    node.start_mounter();
    wait_for("the client to be found", || node.info().device.is_some());
    unharmed(&node);
    node.stage(&claim).unwrap();
    unharmed(&node);
    kill(&mut node.csi);
    kill(&mut node.mounter);
    node.start_csi();
    node.start_mounter();
    wait_for("the client to be found", || node.info().device.is_some());
    unharmed(&node);
    drop(open);

    // A client that was found, not started, is started again, too.
    kill_process(pid(client.unwrap()), Signal::KILL).unwrap();
    wait_for("the next client", || node.info().restarts == 1 && node.info().device.is_some());
    wait_for("the target", || is_usable(&target));
    assert_ne!(node.info().pid, client);

    // All at once.
    let last = node.info();
    kill(&mut node.csi);
    kill(&mut node.mounter);
    node.kill_client(&last);
    wait_for("its end", || errno(fs::metadata(&target)) == Some(libc::ENOTCONN));
    node.start_csi();
    assert!(node.stats("pvc-1", &target).unwrap().volume_condition.unwrap().abnormal);
    node.start_mounter();
    wait_for("the target", || is_usable(&target));
    assert_eq!(mounts_at(&target).len(), 1);
    assert_eq!(fs::read(target.join("open")).unwrap(), b"more".repeat(4));
    node.unpublish("pvc-1", "a").unwrap();
    node.unstage("pvc-1").unwrap();
    wait_for("the end of the client", || node.client().list().unwrap().is_empty());
}

#[test]
fn the_disk_of_the_node_is_never_shown_to_a_pod() {
    own_mounts();
    let (volume, mut node) = (volume(), Node::start());
    let claim = Claim::new("pvc-1", &volume.meta);
    node.stage(&claim).unwrap();
    node.publish(&claim, "a").unwrap();
    // The mounter stands still while its client dies and what is left of it disappears.
    let (info, server) = (node.info(), node.server());
    kill(&mut node.csi);
    kill_process(server, Signal::STOP).unwrap();
    node.start_csi();
    let since = Instant::now();
    let slow = node.stats("pvc-1", &node.target("a")).unwrap();
    assert!(slow.volume_condition.unwrap().abnormal);
    assert!(since.elapsed() < Duration::from_secs(30), "bounded");
    refused(node.publish(&claim, "b"), Code::DeadlineExceeded);
    assert!(mounts_at(&node.target("b")).is_empty());
    rustix::mount::unmount(&info.mountpoint, rustix::mount::UnmountFlags::DETACH).unwrap();
    refused(node.publish(&claim, "b"), Code::Unavailable);
    assert!(mounts_at(&node.target("b")).is_empty());
    kill_process(server, Signal::CONT).unwrap();
}

#[test]
fn two_calls_at_once_for_one_volume() {
    own_mounts();
    let (volume, node) = (volume(), Node::start());
    let claim = Claim::new("pvc-1", &volume.meta);
    node.stage(&claim).unwrap();
    let client = node.server();
    kill_process(client, Signal::STOP).unwrap();
    let (a, b) = (node.request(&claim, "a"), node.request(&claim, "b"));
    let both = node.call(async |mut node| {
        let mut again = node.clone();
        let first = node.node_publish_volume(a);
        let second = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            again.node_publish_volume(b).await
        };
        Ok(tokio::join!(first, second))
    });
    kill_process(client, Signal::CONT).unwrap();
    let (first, second) = both.unwrap();
    refused(first, Code::DeadlineExceeded);
    refused(second, Code::Aborted);
    wait_for("both", || node.publish(&claim, "a").is_ok() && node.publish(&claim, "b").is_ok());
}

#[test]
fn two_nodes_write_and_read_one_volume() {
    own_mounts();
    let (volume, one, two) = (volume(), Node::start(), Node::start());
    let claim = Claim::new("pvc-1", &volume.meta).sub_path("shared");
    let targets = [&one, &two].map(|node| {
        node.stage(&claim).unwrap();
        node.publish(&claim, "a").unwrap()
    });
    assert_ne!(one.info().pid, two.info().pid);
    for (n, (from, to)) in [(&targets[0], &targets[1]), (&targets[1], &targets[0])].into_iter().enumerate() {
        sh(
            from,
            &format!("head -c 9000000 /dev/urandom > f{n}; sha256sum f{n} > f{n}.sum; sync f{n} f{n}.sum"),
        );
        sh(to, &format!("sha256sum -c f{n}.sum"));
    }
}

#[test]
fn passwords_are_in_no_command_line_and_on_no_disk() {
    own_mounts();
    let redis = ciderfs_testkit::redis::RedisServer::start(ciderfs_testkit::redis::RedisOptions {
        password: Some("hush-4711".into()),
        ..Default::default()
    })
    .unwrap();
    let (plain, node) = (volume(), Node::start());
    let address = redis.url_db(1);
    let with_password = match address.contains("hush-4711") {
        true => address,
        false => address.replace("://", "://:hush-4711@"),
    };
    let objects = format!("--bucket={}/", plain.dir.path().join("more").display());
    succeed(&["format", "--storage=file", &objects, &with_password, "vol"]);
    let claim = Claim::new("pvc-1", &with_password);
    node.stage(&claim).unwrap();
    assert!(is_usable(&node.publish(&claim, "a").unwrap()));
    let client = node.info().pid.unwrap();
    let line = fs::read(format!("/proc/{client}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&line).contains("hush"));
    let mut with_secret = Vec::new();
    let mut dirs = vec![node.dir.path().join("run"), node.dir.path().join("node")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => dirs.push(entry.path()),
                kind if kind.is_file()
                    && fs::read(entry.path()).unwrap().windows(9).any(|w| w == b"hush-4711") =>
                {
                    with_secret.push(entry.path());
                }
                _ => {}
            }
        }
    }
    // In memory (this directory is on tmpfs), for root alone.
    assert_eq!(with_secret.len(), 1, "{with_secret:?}");
    assert!(with_secret[0].ends_with("secrets.json"));
    assert_eq!(fs::metadata(&with_secret[0]).unwrap().permissions().mode() & 0o777, 0o600);
    let socket = fs::metadata(node.dir.path().join("mounter.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[test]
fn kubelet_gets_to_know_the_driver_without_a_side_car() {
    use ciderfs_csi::registration::registration_client::RegistrationClient;
    use ciderfs_csi::registration::{InfoRequest, RegistrationStatus, socket};
    own_mounts();
    let mut node = Node::with(&["--registration-dir=DIR/kubelet", "--driver-name=csi.juicefs.com"]);
    let at = socket(&node.kubelet(), "csi.juicefs.com");
    wait_for("the socket", || at.exists());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let info = runtime.block_on(async {
        let channel = tonic::transport::Endpoint::try_from(format!("unix://{}", at.display())).unwrap();
        let mut plugin = RegistrationClient::new(channel.connect().await.unwrap());
        let info = plugin.get_info(InfoRequest {}).await.unwrap().into_inner();
        let status = RegistrationStatus { plugin_registered: true, error: String::new() };
        plugin.notify_registration_status(status).await.unwrap();
        info
    });
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "csi.juicefs.com"));
    assert_eq!(info.supported_versions, ["1.0.0"]);
    assert!(Path::new(&info.endpoint).exists());
    // kubelet takes the disappearance of the socket for the end of the driver.
    let mut csi = node.csi.take().unwrap();
    kill_process(pid(csi.id() as i32), Signal::TERM).unwrap();
    assert!(csi.wait().unwrap().success());
    assert!(!at.exists());
}

#[test]
fn a_mounter_that_dies_in_its_container_takes_nothing_along() {
    own_mounts();
    let (volume, mut node) = (volume(), Node::with_container());
    let claim = Claim::new("pvc-1", &volume.meta);
    node.stage(&claim).unwrap();
    let target = node.publish(&claim, "a").unwrap();
    let open = fs::File::create(target.join("open")).unwrap();
    let (client, mount) = (node.info().pid, mounts_at(&target));
    let first = children(node.mounter.as_ref().unwrap().id() as i32)[0];
    let mounter = children(first)[0];
    kill_process(pid(mounter), Signal::KILL).unwrap();
    wait_for("the next mounter", || {
        children(first).iter().any(|c| *c > mounter) && node.client().list().is_ok_and(|l| l.len() == 1)
    });
    wait_for("the client to be found", || node.info().device.is_some());
    assert_eq!((node.info().pid, mounts_at(&target)), (client, mount));
    std::io::Write::write_all(&mut &open, b"written").unwrap();
    open.sync_all().unwrap();
    // The end of the container is that of its clients; the next one makes mounts anew.
    kill(&mut node.csi);
    kill_process(pid(first), Signal::TERM).unwrap();
    assert!(node.mounter.take().unwrap().wait().unwrap().success());
    wait_for("the end of the client", || errno(fs::metadata(&target)) == Some(libc::ENOTCONN));
    node.start_mounter();
    node.start_csi();
    wait_for("the target", || is_usable(&target));
    assert_eq!(fs::read(target.join("open")).unwrap(), b"written");
}

/// A program in a pod: it has a file open, holds locks, and appends line by line. A process of its own: whoever has files open there
/// must not start what serves them, since the kernel tells the server of each file that a new process closes.
struct Pod {
    child: Child,
    said: Receiver<String>,
    bytes: usize,
}

impl Pod {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", include_str!("csi_kit/pod.py")]).arg(dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (say, said) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        let pod = Self { child, said, bytes: 0 };
        assert_eq!(pod.hears(), "ready");
        pod
    }

    #[track_caller]
    fn hears(&self) -> String {
        self.said.recv_timeout(PATIENCE).expect("the program has failed, or waits")
    }

    fn says(&mut self, what: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{what}").unwrap();
    }

    /// Acknowledged and not synced.
    fn writes(&mut self) {
        self.says("write");
        assert_eq!(self.hears(), "written");
        self.bytes += 300_000;
    }

    /// It goes on as if nothing had happened, and another client feels its locks.
    #[track_caller]
    fn noticed_nothing(&mut self, other: &Path) {
        self.says("check");
        assert_eq!(self.hears(), "fine");
        let mut command = Command::new("python3");
        command.args(["-c", include_str!("supervised/locked.py")]).arg(other.join("locked"));
        let locked = run_within(&mut command, PATIENCE);
        assert_eq!(locked.stdout.trim(), "held held", "{}", locked.stderr);
    }

    /// All that was acknowledged is there, once.
    fn ends(mut self, other: &Path) {
        drop(self.child.stdin.take());
        let lines: usize = self.hears().parse().unwrap();
        assert!(self.child.wait().unwrap().success());
        let lines: String = (0..lines).map(|n| format!("{n}\n")).collect();
        wait_for("the lines elsewhere", || fs::read_to_string(other.join("log")).unwrap() == lines);
        let want: Vec<u8> = (0..self.bytes).map(|at| b'a' + (at / 300_000) as u8).collect();
        assert!(fs::read(other.join("open")).unwrap() == want);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pod_notices_no_death_of_its_client() {
    own_mounts();
    let (volume, mut node) = (volume(), Node::start());
    let claim = Claim::new("pvc-1", &volume.meta);
    node.stage(&claim).unwrap();
    let target = node.publish(&claim, "a").unwrap();
    let other = volume.mount(&["--cache-dir=memory"]);
    let mount = mounts_at(&target);
    let mut pod = Pod::start(&target);
    for _ in 0..3 {
        let killed = node.server();
        pod.writes();
        kill_process(killed, Signal::KILL).unwrap();
        pod.noticed_nothing(other.path());
        assert_ne!(node.server(), killed);
        assert_eq!((node.info().restarts, mounts_at(&target)), (0, mount.clone()));
    }
    // The supervisor alone; then with its worker.
    pod.writes();
    kill_process(pid(node.info().pid.unwrap()), Signal::KILL).unwrap();
    wait_for("the next supervisor", || node.info().restarts == 1 && node.info().device.is_some());
    pod.noticed_nothing(other.path());
    pod.writes();
    node.kill_client(&node.info());
    wait_for("the next client", || node.info().restarts == 2 && node.info().device.is_some());
    pod.noticed_nothing(other.path());
    // The mounter with all clients: the node service holds the mount.
    wait_for("the second holder", || is_held_twice(&node));
    let info = node.info();
    pod.writes();
    kill(&mut node.mounter);
    node.kill_client(&info);
    node.start_mounter();
    pod.noticed_nothing(other.path());
    // The other way round.
    kill(&mut node.csi);
    node.kill_client(&node.info());
    pod.noticed_nothing(other.path());
    node.start_csi();
    assert_eq!(mounts_at(&target), mount);
    pod.ends(other.path());
    node.unpublish("pvc-1", "a").unwrap();
    node.unstage("pvc-1").unwrap();
    wait_for("the end of the client", || node.client().list().unwrap().is_empty());
    wait_for("the end of what was held", || !node.dir.path().join("node").join(&info.key).exists());
    other.unmount();
    volume.check_after_crash();
}

/// Has the node service copies of what the supervisor of the only mount holds?
fn is_held_twice(node: &Node) -> bool {
    let at = node.dir.path().join("node").join(&node.info().key);
    ciderfs_handover::held::Held::from(&at).is_ok()
}

#[test]
fn a_pod_notices_no_end_of_the_mounters_container() {
    own_mounts();
    let (volume, mut node) = (volume(), Node::with_container());
    let claim = Claim::new("pvc-1", &volume.meta);
    node.stage(&claim).unwrap();
    let target = node.publish(&claim, "a").unwrap();
    let other = volume.mount(&["--cache-dir=memory"]);
    let mount = mounts_at(&target);
    let mut pod = Pod::start(&target);
    for signal in [Signal::KILL, Signal::TERM] {
        wait_for("the second holder", || is_held_twice(&node));
        let first = children(node.mounter.as_ref().unwrap().id() as i32)[0];
        pod.writes();
        kill_process(pid(first), signal).unwrap();
        let _ = node.mounter.take().unwrap().wait().unwrap();
        if signal == Signal::TERM {
            // What was not synced is stored while nobody serves the mount. This mount may have asked less than a second ago.
            let stored = || fs::metadata(other.join("open")).unwrap().len() == pod.bytes as u64;
            wait_for("what was written", stored);
        }
        node.start_mounter();
        pod.noticed_nothing(other.path());
        assert_eq!(mounts_at(&target), mount);
    }
    wait_for("the client", || node.info().device.is_some());
    pod.ends(other.path());
    node.unpublish("pvc-1", "a").unwrap();
    node.unstage("pvc-1").unwrap();
    // The container has its own copy of what was mounted when it began.
    drop(node);
    other.unmount();
    volume.check_after_crash();
}
