//! A private SFTP server: the real `sshd` on a free port, for the user who runs the tests.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::redis;

/// Where Debian has it, outside the path of users.
const PROGRAM: &str = "/usr/sbin/sshd";
/// Where it wants to lock itself in when root runs it.
const EMPTY_DIR: &str = "/run/sshd";
/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(10);

/// A running server that takes one key. Killed when dropped, with all of its sessions.
#[derive(Debug)]
pub struct Sshd {
    child: Child,
    port: u16,
    dir: TempDir,
}

fn run(program: &str, args: &[&str], dir: &Path) -> Result<String> {
    let output = match Command::new(program).args(args).current_dir(dir).stdin(Stdio::null()).output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            bail!("{program} is not installed: apt-get install openssh-server openssh-client")
        }
        other => other.with_context(|| program.to_owned())?,
    };
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Does root have no password, not even one that never fits? Without PAM, `sshd` lets nobody in then, with any key.
fn is_root_locked() -> bool {
    // Only root can read it, and only root cares.
    let shadow = fs::read_to_string("/etc/shadow").unwrap_or_default();
    shadow.lines().any(|line| line.starts_with("root:!"))
}

/// The processes below another one. Each session is a group of its own, so they are found by their parents.
fn below(top: u32) -> Vec<u32> {
    let mut pairs = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // The name before it may hold anything.
        let parent =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        pairs.extend(parent.map(|parent| (parent, pid)));
    }
    let mut found = vec![top];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(pairs.iter().filter(|(of, _)| *of == parent).map(|(_, pid)| *pid));
        at += 1;
    }
    found.split_off(1)
}

/// Sends a signal to processes that may have ended.
fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let _ = Command::new("kill").arg(name).args(pids).stderr(Stdio::null()).status();
}

impl Sshd {
    /// Starts a server; it answers when this returns.
    pub fn start() -> Result<Self> {
        Self::start_without("")
    }

    /// Starts a server that refuses some requests of SFTP, named with commas between them as for `-P` of `sftp-server`.
    pub fn start_without(refused: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sshd").tempdir()?;
        for name in ["host", "user"] {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", name], dir.path())?;
        }
        fs::create_dir(dir.path().join("data"))?;
        if !Path::new(EMPTY_DIR).exists() {
            // Whoever is not root needs none.
            let _ = fs::create_dir(EMPTY_DIR)
                .and_then(|()| fs::set_permissions(EMPTY_DIR, Permissions::from_mode(0o755)));
        }
        let port = redis::free_port()?;
        let place = dir.path().display();
        let pam = if is_root_locked() { "yes" } else { "no" };
        let refused = if refused.is_empty() { String::new() } else { format!(" -P {refused}") };
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/user.pub\nPidFile none\n\
             StrictModes no\nUsePAM {pam}\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 200\n\
             Subsystem sftp internal-sftp{refused}\n"
        );
        let file = dir.path().join("sshd_config");
        fs::write(&file, config)?;
        let child = Command::new(PROGRAM)
            .args(["-D", "-e", "-f"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(File::create(dir.path().join("log"))?)
            .spawn()
            .with_context(|| format!("{PROGRAM}: apt-get install openssh-server openssh-client"))?;
        let mut server = Self { child, port, dir };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if server.child.try_wait()?.is_some() || begun.elapsed() > START_PATIENCE {
                bail!("sshd did not start: {:?}", fs::read_to_string(server.dir.path().join("log")));
            }
            std::thread::sleep(START_POLL);
        }
        Ok(server)
    }

    /// The address of its directory, as `--bucket` has it.
    pub fn bucket(&self) -> String {
        format!("127.0.0.1:{}:{}/", self.port, self.files().display())
    }

    /// Who may come.
    pub fn user(&self) -> Result<String> {
        run("id", &["-un"], self.dir.path())
    }

    /// With which key.
    pub fn key_file(&self) -> PathBuf {
        self.dir.path().join("user")
    }

    /// Where its files are.
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // It takes nobody any more; sessions do not end with it.
        signal("-STOP", &[self.child.id()]);
        let sessions = below(self.child.id());
        if !sessions.is_empty() {
            signal("-KILL", &sessions);
        }
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
