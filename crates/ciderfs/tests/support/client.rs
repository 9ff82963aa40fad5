//! The program under test: single commands, and mounts in the foreground.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that is not itself the subject of a test.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(10);

/// Waits for a condition.
///
/// # Panics
///
/// When it does not come true in [`PATIENCE`].
#[track_caller]
pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(POLL);
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    /// Exit code, -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

/// The program with a clean environment.
pub fn program() -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_ciderfs"));
    for name in
        ["ACCESS_KEY", "SECRET_KEY", "SESSION_TOKEN", "JFS_RSA_PASSPHRASE", "RUST_LOG", "META_PASSWORD"]
    {
        c.env_remove(name);
    }
    c.stdin(Stdio::null());
    c
}

/// Runs a prepared command to its end, but not longer than `limit`.
///
/// # Panics
///
/// When it takes longer.
#[track_caller]
pub fn run_within(command: &mut Command, limit: Duration) -> Ran {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    let drain = |mut from: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let out = drain(Box::new(child.stdout.take().expect("stdout")));
    let err = drain(Box::new(child.stderr.take().expect("stderr")));
    let status = wait_child(&mut child, limit);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let ran = Ran {
        code: status.and_then(|s| s.code()).unwrap_or(-1),
        stdout: out.join().expect("stdout"),
        stderr: err.join().expect("stderr"),
        took: start.elapsed(),
    };
    assert!(status.is_some(), "{command:?} hangs; it said:\n{}{}", ran.stdout, ran.stderr);
    ran
}

/// Runs the program with these arguments.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(args: &[S]) -> Ran {
    run_within(program().args(args), PATIENCE)
}

/// Runs the program, which must succeed.
#[track_caller]
pub fn succeed<S: AsRef<OsStr>>(args: &[S]) -> Ran {
    let ran = run(args);
    let shown: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect();
    assert_eq!(ran.code, 0, "ciderfs {}\n{}{}", shown.join(" "), ran.stdout, ran.stderr);
    ran
}

/// Runs a shell script in a directory; it must succeed.
#[track_caller]
pub fn sh(dir: &Path, script: &str) -> String {
    let ran = run_within(Command::new("sh").args(["-euc", script]).current_dir(dir), PATIENCE);
    assert_eq!(ran.code, 0, "{script}\n{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// Waits for the end of a child.
fn wait_child(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            return Some(status);
        }
        if start.elapsed() > limit {
            return None;
        }
        std::thread::sleep(POLL);
    }
}

/// A mounted volume, served by a child in the foreground. Unmounted when dropped.
pub struct Mount {
    child: Child,
    path: PathBuf,
    log: PathBuf,
    ended: bool,
}

/// Is a file system mounted right here?
pub fn is_mounted(path: &Path) -> bool {
    let device = |p: &Path| fs::metadata(p).map(|m| m.dev());
    match (device(path), path.parent().map(device)) {
        (Ok(here), Some(Ok(above))) => here != above,
        _ => false,
    }
}

impl Mount {
    /// Mounts with a command line that stays in the foreground; ready when this returns.
    #[track_caller]
    pub fn start(mut command: Command, path: &Path, log: &Path) -> Self {
        let file = File::create(log).expect("log file");
        command.stdout(file.try_clone().expect("log file")).stderr(file);
        let child = command.spawn().expect("spawn");
        let mut mount = Self { child, path: path.to_owned(), log: log.to_owned(), ended: false };
        wait_for("the mount to appear", || {
            if let Some(status) = mount.child.try_wait().expect("wait") {
                mount.ended = true;
                panic!("the mount ended at once ({status}):\n{}", mount.log());
            }
            is_mounted(path)
        });
        mount
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // It may just have ended.
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends it as Ctrl-C does; it must flush, unmount and exit with 0, without having logged an error.
    #[track_caller]
    pub fn unmount(mut self) {
        self.end_cleanly();
        let log = self.log();
        assert!(!log.contains("<ERROR>"), "errors were logged:\n{log}");
    }

    /// [`Mount::unmount`] where errors are expected in the log.
    #[track_caller]
    pub fn unmount_after_errors(mut self) {
        self.end_cleanly();
    }

    #[track_caller]
    fn end_cleanly(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait(PATIENCE);
        assert_eq!(status.and_then(|s| s.code()), Some(0), "the mount's exit code; its log:\n{}", self.log());
        assert!(!is_mounted(&self.path), "still mounted");
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let status = wait_child(&mut self.child, limit);
        self.ended |= status.is_some();
        status
    }

    /// SIGKILL, then the dead mount is detached.
    pub fn kill(mut self) {
        self.end_hard();
    }

    fn end_hard(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.ended = true;
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the mount at {}:\n{}---", self.path.display(), self.log());
        }
        if !self.ended {
            self.signal(Signal::TERM);
            if self.wait(Duration::from_secs(20)).is_none() {
                self.end_hard();
            }
        }
        if is_mounted(&self.path) || fs::metadata(&self.path).is_err() {
            let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        }
    }
}
