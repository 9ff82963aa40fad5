//! A node of a cluster for tests: a mounter, a node service, and what kubelet does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Child;

use ciderfs_csi::proto::node_client::NodeClient;
use ciderfs_csi::proto::volume_capability::access_mode::Mode;
use ciderfs_csi::proto::volume_capability::{AccessMode, AccessType, MountVolume};
use ciderfs_csi::proto::*;
use ciderfs_mounter::{Client, Info};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::support::client::{program, wait_for};

/// A mount name space for the calling thread and all that it starts: nothing is left behind on the machine.
pub fn own_mounts() {
    // SAFETY: no code here relies on threads sharing mounts or a working directory.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }.unwrap();
    let flags = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", flags).unwrap();
}

/// Ends a process at once.
pub fn kill(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

pub fn pid(number: i32) -> Pid {
    Pid::from_raw(number).unwrap()
}

/// The processes that a process has started, in the order of their numbers.
pub fn children(of: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Mounts at a place, in this thread's name space.
pub fn mounts_at(path: &Path) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.lines().filter(|l| l.split(' ').nth(4) == path.to_str()).map(str::to_owned).collect()
}

/// A node.
pub struct Node {
    pub dir: TempDir,
    pub mounter: Option<Child>,
    pub csi: Option<Child>,
    pub flags: Vec<String>,
    /// What the mounter is started with: a container, or nothing.
    pub container: Vec<String>,
    /// Flags of the mounter.
    mounter_flags: Vec<String>,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    /// With everything that it needs running.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With flags of the node service.
    pub fn with(flags: &[&str]) -> Self {
        Self::within(flags, &[], &[])
    }

    /// With clients that nobody supervises.
    pub fn without_supervisors() -> Self {
        Self::with_mounter(&["--no-supervisor"])
    }

    /// With flags of the mounter.
    pub fn with_mounter(flags: &[&str]) -> Self {
        Self::within(&[], &[], flags)
    }

    /// With the mounter as the first process of a container, in which numbers of processes are its own.
    pub fn with_container() -> Self {
        let line = "unshare --pid --fork --kill-child --mount-proc --propagation unchanged";
        Self::within(&[], &line.split(' ').collect::<Vec<_>>(), &[])
    }

    fn within(flags: &[&str], container: &[&str], mounter_flags: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("ciderfs-node").tempdir_in("/dev/shm").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let flags = flags.iter().map(|f| f.replace("DIR", dir.path().to_str().unwrap())).collect();
        let container = container.iter().map(|w| (*w).to_owned()).collect();
        let mounter_flags = mounter_flags.iter().map(|f| (*f).to_owned()).collect();
        let mut node = Self { dir, mounter: None, csi: None, flags, container, mounter_flags, runtime };
        if !node.container.is_empty() {
            // What is mounted in a container is seen here, and the other way round.
            let shared = rustix::mount::MountPropagationFlags::SHARED;
            rustix::mount::mount_bind(node.dir.path(), node.dir.path()).unwrap();
            rustix::mount::mount_change(node.dir.path(), shared).unwrap();
        }
        std::fs::create_dir_all(node.kubelet()).unwrap();
        node.start_mounter();
        node.start_csi();
        node
    }

    /// kubelet's directory: not that of a real one.
    pub fn kubelet(&self) -> PathBuf {
        self.dir.path().join("kubelet")
    }

    pub fn target(&self, pod: &str) -> PathBuf {
        self.kubelet().join(format!("pods/{pod}/volumes/kubernetes.io~csi/v/mount"))
    }

    pub fn staging(&self) -> PathBuf {
        self.kubelet().join("plugins/kubernetes.io/csi/csi.ciderfs.io/hash/globalmount")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("csi.sock")
    }

    fn mounter_socket(&self) -> PathBuf {
        self.dir.path().join("mounter.sock")
    }

    pub fn start_mounter(&mut self) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let mut command = program();
        if let [first, rest @ ..] = &self.container[..] {
            let program = command.get_program().to_owned();
            command = std::process::Command::new(first);
            command.args(rest).arg(program);
        }
        command.arg("mounter").arg(format!("--mounter-socket={}", self.mounter_socket().display()));
        command.args([format!("--run-dir={}", at("run")), format!("--mount-dir={}", at("mounts"))]);
        self.mounter = Some(command.args(&self.mounter_flags).spawn().unwrap());
        wait_for("the mounter", || self.client().list().is_ok());
    }

    pub fn start_csi(&mut self) {
        let mut command = program();
        command.args(["csi", "--mode=node", "--nodeid=node-1", "--reconcile=1"]).args(&self.flags);
        command.arg(format!("--endpoint=unix://{}", self.socket().display()));
        command.arg(format!("--mounter-socket={}", self.mounter_socket().display()));
        command.arg(format!("--node-dir={}", self.dir.path().join("node").display()));
        self.csi = Some(command.spawn().unwrap());
        wait_for("the node service", || std::os::unix::net::UnixStream::connect(self.socket()).is_ok());
    }

    pub fn client(&self) -> Client {
        Client::new(&self.mounter_socket())
    }

    /// The only client there is.
    pub fn info(&self) -> Info {
        let all = self.client().list().unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        all.into_iter().next().unwrap()
    }

    /// The process that serves the only mount there is.
    pub fn server(&self) -> Pid {
        let client = self.info().pid.unwrap();
        pid(children(client).first().copied().unwrap_or(client))
    }

    /// Kills a client with all that belongs to it.
    pub fn kill_client(&self, info: &Info) {
        let client = info.pid.unwrap();
        let server = children(client);
        for number in [client].into_iter().chain(server) {
            let _ = kill_process(pid(number), Signal::KILL);
        }
    }

    pub fn call<T>(
        &self,
        call: impl AsyncFnOnce(NodeClient<Channel>) -> Result<T, Status>,
    ) -> Result<T, Status> {
        self.runtime.block_on(async {
            let channel = Endpoint::try_from(format!("unix://{}", self.socket().display())).unwrap();
            call(NodeClient::new(channel.connect().await.unwrap())).await
        })
    }

    /// As kubelet does, which comes again when another call is under way.
    fn again<T>(&self, call: impl AsyncFn(NodeClient<Channel>) -> Result<T, Status>) -> Result<T, Status> {
        let mut done = self.call(&call);
        wait_for("the earlier call", || {
            let is_early = done.as_ref().is_err_and(|e| e.code() == Code::Aborted);
            if is_early {
                done = self.call(&call);
            }
            !is_early
        });
        done
    }

    pub fn stage(&self, volume: &Claim) -> Result<(), Status> {
        let request = NodeStageVolumeRequest {
            volume_id: volume.id.clone(),
            staging_target_path: self.staging().display().to_string(),
            volume_capability: Some(volume.capability.clone()),
            secrets: volume.secrets.clone(),
            volume_context: volume.context.clone(),
            ..Default::default()
        };
        self.again(async |mut node| node.node_stage_volume(request.clone()).await).map(drop)
    }

    pub fn unstage(&self, volume: &str) -> Result<(), Status> {
        let staging_target_path = self.staging().display().to_string();
        let request = NodeUnstageVolumeRequest { volume_id: volume.into(), staging_target_path };
        self.again(async |mut node| node.node_unstage_volume(request.clone()).await).map(drop)
    }

    pub fn request(&self, volume: &Claim, pod: &str) -> NodePublishVolumeRequest {
        NodePublishVolumeRequest {
            volume_id: volume.id.clone(),
            staging_target_path: self.staging().display().to_string(),
            target_path: self.target(pod).display().to_string(),
            volume_capability: Some(volume.capability.clone()),
            volume_context: volume.context.clone(),
            ..Default::default()
        }
    }

    pub fn publish(&self, volume: &Claim, pod: &str) -> Result<PathBuf, Status> {
        let request = self.request(volume, pod);
        self.again(async |mut node| node.node_publish_volume(request.clone()).await).map(|_| self.target(pod))
    }

    pub fn unpublish(&self, volume: &str, pod: &str) -> Result<(), Status> {
        let target_path = self.target(pod).display().to_string();
        let request = NodeUnpublishVolumeRequest { volume_id: volume.into(), target_path };
        self.again(async |mut node| node.node_unpublish_volume(request.clone()).await).map(drop)
    }

    pub fn stats(&self, volume: &str, path: &Path) -> Result<NodeGetVolumeStatsResponse, Status> {
        let volume_path = path.display().to_string();
        let request =
            NodeGetVolumeStatsRequest { volume_id: volume.into(), volume_path, ..Default::default() };
        Ok(self.call(async |mut node| node.node_get_volume_stats(request).await)?.into_inner())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut clients = self.client().list().unwrap_or_default();
        if !self.container.is_empty() {
            // They end with it.
            clients.clear();
        }
        kill(&mut self.csi);
        kill(&mut self.mounter);
        clients.iter().filter(|client| client.pid.is_some()).for_each(|client| self.kill_client(client));
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        for path in table.lines().filter_map(|l| l.split(' ').nth(4)) {
            if Path::new(path).starts_with(self.dir.path()) {
                let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
            }
        }
    }
}

/// A volume as a cluster asks for it.
#[derive(Clone)]
pub struct Claim {
    pub id: String,
    pub secrets: BTreeMap<String, String>,
    pub context: BTreeMap<String, String>,
    pub capability: VolumeCapability,
}

impl Claim {
    pub fn new(id: &str, meta: &str) -> Self {
        let capability = VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
        };
        let options = "cache-dir=memory,metrics=".to_owned();
        Self {
            id: id.into(),
            secrets: [("name".into(), "vol".into()), ("metaurl".into(), meta.into())].into(),
            context: [("mountOptions".into(), options)].into(),
            capability,
        }
    }

    pub fn mode(mut self, mode: Mode) -> Self {
        self.capability.access_mode = Some(AccessMode { mode: mode.into() });
        self
    }

    pub fn sub_path(mut self, path: &str) -> Self {
        self.context.insert("subPath".into(), path.into());
        self
    }
}

#[track_caller]
pub fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> String {
    let e = result.unwrap_err();
    assert_eq!(e.code(), code, "{e}");
    e.message().to_owned()
}
