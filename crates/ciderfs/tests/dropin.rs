//! The program as the mount image of the official CSI driver: its command lines, what it reads of a mount, and its way to keep mounts
//! while the pods that serve them come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "supervised/app.rs"]
mod app;
#[path = "dropin/driver.rs"]
mod driver;
mod support;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use app::App;
use driver::{CLOSE, Driver};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use support::client::{PATIENCE, program, run_within, wait_for};
use support::volume::NAME;
use support::{Engine, Volume};

/// The driver waits so long for a pod to be ready.
const READY: Duration = Duration::from_secs(60);
/// How long a pod may take to end that is deleted.
const GRACE: Duration = Duration::from_secs(10);

fn signal(pid: u64, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// What the driver has on a node: its directory of sockets, where mounts are, and the program as the image has it.
struct Node {
    volume: Volume,
    driver: Driver,
    mountpoint: PathBuf,
}

impl Node {
    fn new(engine: Engine) -> Self {
        let node = Self::without_driver(engine);
        node.driver.listen();
        node
    }

    /// The node plugin does not run.
    fn without_driver(engine: Engine) -> Self {
        let volume = Volume::unformatted(engine);
        let dir = volume.dir.path();
        fs::create_dir(dir.join("tmp")).unwrap();
        // Where the driver replaces it.
        let program = env!("CARGO_BIN_EXE_ciderfs");
        fs::hard_link(program, dir.join("juicefs"))
            .or_else(|_| fs::copy(program, dir.join("juicefs")).map(drop))
            .unwrap();
        std::os::unix::fs::symlink("juicefs", dir.join("mount.juicefs")).unwrap();
        let driver = Driver::at(dir.join("tmp/fuse_fd_csi_comm.sock"));
        let mountpoint = dir.join("pvc-1-abcdef");
        Self { volume, driver, mountpoint }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.volume.dir.path().join(name)
    }

    /// A shell with the environment of a mount pod.
    fn sh(&self, line: &str) -> Command {
        let mut command = program();
        let env: Vec<_> = command.get_envs().map(|(k, _)| k.to_owned()).collect();
        command = Command::new("sh");
        for name in env {
            command.env_remove(name);
        }
        command.args(["-c", line]).current_dir(self.volume.dir.path());
        command.envs([("JFS_INSIDE_CONTAINER", "1"), ("JFS_FOREGROUND", "1"), ("secretkey", "s;e $cret")]);
        command.env("JFS_SUPER_COMM", self.driver.path()).env("metaurl", &self.volume.meta);
        command.stdin(Stdio::null());
        command
    }

    /// A mount pod: the driver's script, until the driver would take it for ready.
    #[track_caller]
    fn pod(&self, env: &[(&str, &str)]) -> Pod<'_> {
        let dir = self.volume.dir.path().display();
        let script = format!(
            "{dir}/juicefs format --no-update --storage=file --bucket={dir}/objects/ --access-key=ak \
             --secret-key=\"${{secretkey}}\" ${{metaurl}} {NAME} --trash-days=0\nexec {dir}/mount.juicefs ${{metaurl}} {} \
             -o metrics=127.0.0.1:0,cache-dir={dir}/cache,cache-size=100,buffer-size=100",
            self.mountpoint.display()
        );
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = self.sh(&script);
        command.stdout(log.try_clone().unwrap()).stderr(log).envs(env.iter().copied());
        let pod = Pod { child: command.spawn().unwrap(), node: self };
        pod.await_serving();
        pod
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// As a directory of volume files is seen by programs, without an answer of the mount.
    fn is_in_table(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.contains(&format!(" {} ", self.mountpoint.display()))
    }

    /// What successive pods leave to each other.
    fn left(&self) -> usize {
        let names = fs::read_dir(self.path("tmp")).unwrap().map(|e| e.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().starts_with("ciderfs-")).count()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.mountpoint, UnmountFlags::DETACH);
    }
}

struct Pod<'a> {
    child: Child,
    node: &'a Node,
}

impl Pod<'_> {
    /// The first process.
    fn pid(&self) -> u64 {
        self.child.id().into()
    }

    /// The processes of this pod's mount, by `.config`.
    fn config(&self) -> Value {
        let text = fs::read_to_string(self.node.mountpoint.join(".config"));
        serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default()
    }

    /// Where the driver asks it.
    fn comm(&self) -> PathBuf {
        PathBuf::from(format!("/tmp/fuse_fd_comm.{}", self.pid()))
    }

    /// As the driver looks whether it is ready, and whether this one serves.
    #[track_caller]
    fn await_serving(&self) {
        let since = Instant::now();
        loop {
            // A mount that nobody serves waits for an answer.
            let worker = children(self.pid()).first().copied().unwrap_or(0);
            let serves = worker != 0 && self.node.log().contains(&format!("ciderfs[{worker}] <INFO>: OK, "));
            if serves && fs::metadata(&self.node.mountpoint).is_ok_and(|m| m.ino() == 1) {
                return;
            }
            assert!(since.elapsed() < READY, "not ready:\n{}", self.node.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn ends_within(&mut self, limit: Duration) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(since.elapsed() < limit, "the pod does not end:\n{}", self.node.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As a container is killed that has taken too much memory.
    fn kill(mut self) {
        let worker = children(self.pid());
        self.child.kill().unwrap();
        for pid in worker {
            signal(pid, Signal::KILL);
        }
        self.child.wait().unwrap();
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // Those that have ended are not there.
        for pid in children(self.pid()) {
            let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn children(pid: u64) -> Vec<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[test]
fn a_mount_goes_on_from_pod_to_pod() {
    let node = Node::new(Engine::Redis);
    let first = node.pod(&[]);
    node.driver.await_copy();
    // What it keeps: the connection, and an INIT request, no longer than it takes.
    let (settings, of) = node.driver.kept().unwrap();
    assert_eq!((of.as_str(), settings.len()), ("/dev/fuse", 104));
    assert_eq!(settings[..8], [104, 0, 0, 0, 26, 0, 0, 0]);
    let sid = first.config()["Meta"]["Sid"].as_u64().unwrap();
    let mut app = App::start(&node.mountpoint);

    // Killed as a whole. Programs wait.
    first.kill();
    app.go();
    assert!(node.is_in_table());
    let mut second = node.pod(&[]);
    app.hears("round 0");
    node.driver.await_copy();

    // Deleted while it is in use: kubelet sends SIGTERM to the first process.
    signal(second.pid(), Signal::TERM);
    assert_eq!(second.ends_within(GRACE).code(), Some(0), "{}", node.log());
    app.go();
    assert!(node.is_in_table());
    let mut third = node.pod(&[]);
    app.hears("round 1");
    node.driver.await_copy();

    // A smooth upgrade: the pod's own copy is dropped, then the process in `.config` is signalled. The pod is completed.
    let config = third.config();
    let comm = PathBuf::from(config["CommPath"].as_str().unwrap());
    assert_eq!(config["PPid"].as_u64(), Some(third.pid()));
    let (theirs, fds) = driver::ask(&comm, CLOSE);
    assert_eq!((theirs, fds), (settings, 2));
    signal(config["Pid"].as_u64().unwrap(), Signal::HUP);
    assert_eq!(third.ends_within(GRACE).code(), Some(0), "{}", node.log());
    app.go();
    let state = config["StatePath"].as_str().unwrap();
    let fourth = node.pod(&[("_JFS_META_SID", &sid.to_string()), ("_FUSE_STATE_PATH", state)]);
    app.hears("round 2");
    assert_eq!(fourth.config()["Meta"]["Sid"].as_u64(), Some(sid));
    node.driver.await_copy();

    // The node plugin was restarted: it asks the pod for a copy, and leaves it its own.
    node.driver.forget();
    let comm = PathBuf::from(fourth.config()["CommPath"].as_str().unwrap());
    node.driver.fetch(&comm);
    fourth.kill();
    app.go();
    let mut fifth = node.pod(&[]);
    app.hears("round 3");
    app.end();
    node.driver.await_copy();

    // Nobody uses it any more: the driver unmounts, and the pod has nothing left to do.
    assert_eq!(node.left(), 2);
    rustix::mount::unmount(&node.mountpoint, UnmountFlags::empty()).unwrap();
    assert_eq!(fifth.ends_within(GRACE).code(), Some(0), "{}", node.log());
    assert!(node.driver.kept().is_none());
    assert_eq!(node.left(), 0);
    node.volume.check_after_crash();
}

#[test]
fn a_driver_that_comes_later_fetches_the_mount() {
    let node = Node::without_driver(Engine::Sqlite);
    let mut first = node.pod(&[]);
    let mut app = App::start(&node.mountpoint);
    node.driver.fetch(&first.comm());
    signal(first.pid(), Signal::TERM);
    assert_eq!(first.ends_within(GRACE).code(), Some(0), "{}", node.log());
    assert!(node.is_in_table(), "{}", node.log());
    app.go();
    node.driver.listen();
    let _second = node.pod(&[]);
    app.hears("round 0");
    for round in ["round 1", "round 2"] {
        app.go();
        app.hears(round);
    }
    app.end();
}

#[test]
fn two_pods_at_once() {
    let node = Node::new(Engine::Redis);
    let mut first = node.pod(&[]);
    node.driver.await_copy();
    let mut app = App::start(&node.mountpoint);
    // Its worker is killed, and it sees that when the next pod serves already.
    signal(first.pid(), Signal::STOP);
    signal(children(first.pid())[0], Signal::KILL);
    app.go();
    let second = node.pod(&[]);
    app.hears("round 0");
    signal(first.pid(), Signal::CONT);
    assert_eq!(first.ends_within(GRACE).code(), Some(0), "{}", node.log());
    app.go();
    app.hears("round 1");
    node.driver.await_copy();

    // An upgrade has begun, and the worker dies before it is told to leave.
    driver::ask(&second.comm(), CLOSE);
    let mut second = second;
    signal(children(second.pid())[0], Signal::KILL);
    assert_eq!(second.ends_within(GRACE).code(), Some(0), "{}", node.log());
    app.go();
    let mut third = node.pod(&[]);
    app.hears("round 2");
    app.end();
    node.driver.await_copy();

    // It has nothing to do with what the driver has when it ends.
    node.driver.keep(vec![7; 104], File::open("/dev/null").unwrap().into());
    rustix::mount::unmount(&node.mountpoint, UnmountFlags::empty()).unwrap();
    assert_eq!(third.ends_within(GRACE).code(), Some(0), "{}", node.log());
    assert_eq!(node.driver.kept(), Some((vec![7; 104], "/dev/null".to_owned())));
    node.volume.check_after_crash();
}

#[test]
fn another_program_in_the_same_pod() {
    let node = Node::new(Engine::Sqlite);
    let mut pod = node.pod(&[]);
    let mut file = File::create(node.mountpoint.join("file")).unwrap();
    file.write_all(b"before ").unwrap();
    let worker = pod.config()["Pid"].as_u64().unwrap();
    // The driver's canary has copied it into the shared directory.
    fs::copy(env!("CARGO_BIN_EXE_ciderfs"), node.path("tmp/juicefs")).unwrap();
    fs::rename(node.path("tmp/juicefs"), node.path("juicefs")).unwrap();
    signal(worker, Signal::HUP);
    wait_for("another worker", || children(pod.pid()).first().is_some_and(|pid| *pid != worker));
    pod.await_serving();
    let now = children(pod.pid())[0];
    let runs = fs::read_link(format!("/proc/{now}/exe")).unwrap();
    assert_eq!(runs, node.path("juicefs"), "{}", node.log());
    file.write_all(b"after").unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(node.mountpoint.join("file")).unwrap(), "before after");
    // The driver may signal the worker: that unmounts.
    signal(now, Signal::TERM);
    assert_eq!(pod.ends_within(GRACE).code(), Some(0), "{}", node.log());
    assert!(!node.is_in_table());
}

#[test]
fn what_another_client_has_left_is_made_anew() {
    let node = Node::new(Engine::Sqlite);
    node.driver.keep(vec![7; 104], File::open("/dev/null").unwrap().into());
    // That one is lost only once there is another one.
    let line = format!("exec ./mount.juicefs ${{metaurl}} {}", node.mountpoint.display());
    let unformatted = run_within(&mut node.sh(&line), PATIENCE);
    assert_ne!(unformatted.code, 0);
    assert!(unformatted.stderr.contains("another client has made it"), "{}", unformatted.stderr);
    assert_eq!(node.driver.kept(), Some((vec![7; 104], "/dev/null".to_owned())));
    let pod = node.pod(&[]);
    node.driver.await_copy();
    assert_eq!(node.driver.kept().unwrap().1, "/dev/fuse");
    assert!(node.log().contains("another client has made it"), "{}", node.log());
    fs::write(node.mountpoint.join("file"), "x").unwrap();
    drop(pod);
}

#[test]
fn the_driver_finds_what_it_reads() {
    let node = Node::new(Engine::Redis);
    let juicefs = |words: &str| {
        let line = format!("umask 000; {}/juicefs {words} 2>&1", node.volume.dir.path().display());
        run_within(&mut node.sh(&line), PATIENCE)
    };
    for command in ["status", "config"] {
        let none = juicefs(&format!("{command} ${{metaurl}}"));
        assert!(none.code != 0 && none.stdout.contains("database is not formatted"), "{}", none.stdout);
    }
    let version = juicefs("version").stdout;
    let number = version.trim().strip_prefix("ciderfs version 1.4.").expect(&version);
    assert!(number.starts_with(|c: char| c.is_ascii_digit()), "{version}");
    let pod = node.pod(&[]);
    let line =
        |text: &str| text.lines().find_map(|l| l.trim().strip_prefix("\"UUID\": \"").map(str::to_owned));
    let of_status = line(&juicefs("status ${metaurl}").stdout).expect("a line with the UUID");
    assert_eq!(line(&juicefs("config ${metaurl}").stdout), Some(of_status.clone()));
    let uuid = of_status.trim_end_matches([',', '"']);
    let quota = juicefs("quota set \"${metaurl}\" --path /new --capacity 2 --create");
    assert_eq!(quota.code, 0, "{}", quota.stdout);

    let config = pod.config();
    let text = fs::read_to_string(node.mountpoint.join(".config")).unwrap();
    let own = node.volume.dir.path();
    for (at, want) in [
        ("/Meta/MountPoint", node.mountpoint.to_str().unwrap().into()),
        ("/Format/Name", NAME.into()),
        ("/Format/UUID", uuid.into()),
        // As scripts that wait for the end of uploads read it: the line, cut at quotes.
        ("/Chunk/CacheDir", own.join("cache").join(uuid).to_str().unwrap().into()),
        ("/Chunk/Writeback", false.into()),
        ("/Chunk/BufferSize", (100_u64 << 20).into()),
        ("/AttrTimeout", 1_000_000_000.into()),
        ("/Pid", children(pod.pid())[0].into()),
        ("/PPid", pod.pid().into()),
        ("/CommPath", format!("/tmp/fuse_fd_comm.{}", pod.pid()).into()),
        ("/StatePath", format!("/tmp/state{}.json", pod.pid()).into()),
    ] {
        let want: Value = want;
        assert_eq!(config.pointer(at), Some(&want), "{at} in {text}");
        let line = format!("\"{}\": {want}", at.rsplit('/').next().unwrap());
        assert!(text.lines().any(|l| l.trim().trim_end_matches(',') == line), "{line} in {text}");
    }
    assert!(config["Meta"]["Sid"].as_u64().is_some_and(|sid| sid > 0));
    let port = config["Port"]["PrometheusAgent"].as_str().unwrap();
    assert!(std::net::TcpStream::connect(port).is_ok(), "{port}");
    let socket = fs::metadata(config["CommPath"].as_str().unwrap()).unwrap();
    assert_eq!(socket.mode() & 0o777, 0o777);

    // There are too many open files for a while.
    let pid = Pid::from_raw(i32::try_from(pod.pid()).unwrap());
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let usual = prlimit(pid, Resource::Nofile, Rlimit { current: Some(3), maximum }).unwrap();
    let mut unanswered = std::os::unix::net::UnixStream::connect(pod.comm()).unwrap();
    assert_eq!(unanswered.read_to_end(&mut Vec::new()).unwrap(), 0);
    prlimit(pid, Resource::Nofile, usual).unwrap();
    assert_eq!(driver::ask(&pod.comm(), b"settings").1, 2);
}
