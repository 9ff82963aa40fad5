//! A client under test: its volume, its mount, its process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use tempfile::TempDir;

use super::{Engine, Options};

/// Whose client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// CiderFS.
    Ours,
    /// The official client.
    Official,
}

impl Kind {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "CiderFS",
            Self::Official => "official",
        }
    }
}

/// CPU time and memory of a mount process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Seconds of user and system time.
    pub cpu: f64,
    /// Largest resident set so far, MiB.
    pub peak: f64,
}

/// For a mount process to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A volume and its mount.
pub struct Client {
    exe: PathBuf,
    meta: String,
    redis: Option<RedisServer>,
    dir: TempDir,
    pid: Option<u32>,
}

/// Flags of both mounts: the defaults of both clients but for what would disturb the counting.
pub const MOUNT_FLAGS: &[&str] = &[
    "--no-usage-report",
    "--backup-meta",
    "0",
    "--buffer-size",
    "300",
    "--cache-size",
    "1024",
    "--metrics",
    "127.0.0.1:0",
];

impl Client {
    /// Formats a fresh volume and mounts it.
    pub fn start(_kind: Kind, exe: &Path, options: &Options) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("ciderfs-bench").tempdir()?;
        let redis = match options.meta {
            Engine::Redis => Some(RedisServer::start(RedisOptions::default())?),
            Engine::Sqlite => None,
        };
        let meta = match &redis {
            Some(redis) => redis.url(),
            None => format!("sqlite3://{}", dir.path().join("meta.db").display()),
        };
        let mut client = Self { exe: exe.to_owned(), meta, redis, dir, pid: None };
        for name in ["objects", "mnt"] {
            fs::create_dir(client.dir.path().join(name))?;
        }
        let objects = format!("{}/", client.dir.path().join("objects").display());
        client.command(&[
            "format",
            &client.meta,
            "bench",
            "--storage",
            "file",
            "--bucket",
            &objects,
            "--trash-days",
            "0",
        ])?;
        client.mount()?;
        Ok(client)
    }

    /// The mount point.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn command(&self, args: &[&str]) -> Result<String> {
        // Files, not pipes: a mount that goes to the background keeps what it inherits.
        let log = self.dir.path().join("log");
        let out = fs::File::create(&log)?;
        let mut run = Command::new(&self.exe);
        run.args(args).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let status = run.status()?;
        let text = fs::read_to_string(&log)?;
        ensure!(status.success(), "{} {}: {text}", self.exe.display(), args.join(" "));
        Ok(text)
    }

    /// Mounts with an empty cache.
    pub fn mount(&mut self) -> Result<()> {
        let path = self.path().display().to_string();
        let cache = self.dir.path().join("cache");
        if cache.exists() {
            fs::remove_dir_all(&cache)?;
        }
        let (cache, log) =
            (cache.display().to_string(), self.dir.path().join("mount.log").display().to_string());
        let mut args = vec!["mount", "-d", &self.meta, &path, "--cache-dir", &cache, "--log", &log];
        args.extend(MOUNT_FLAGS);
        self.command(&args)?;
        let status = self.command(&["status", &self.meta])?;
        let json = status.find('{').map(|at| &status[at..]).context("status printed no JSON")?;
        let mut values = serde_json::Deserializer::from_str(json).into_iter::<serde_json::Value>();
        let status = values.next().context("status printed no JSON")??;
        let pid = status["Sessions"].as_array().and_then(|s| s.last()).and_then(|s| s["ProcessID"].as_u64());
        self.pid = Some(u32::try_from(pid.context("no session")?)?);
        Ok(())
    }

    /// Flushes and unmounts; the process has ended afterwards.
    pub fn unmount(&mut self) -> Result<()> {
        let pid = self.pid.take();
        self.command(&["umount", &self.path().display().to_string()])?;
        let process = pid.map(|pid| PathBuf::from(format!("/proc/{pid}")));
        let started = Instant::now();
        while process.as_ref().is_some_and(|p| p.exists()) {
            ensure!(started.elapsed() < PATIENCE, "the mount process does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Round trips to Redis so far.
    pub fn turns(&self) -> Result<Option<u64>> {
        self.redis.as_ref().map(|r| Ok(r.stats()?.total_reads_processed)).transpose()
    }

    /// What the mount process has used.
    pub fn usage(&self) -> Result<Usage> {
        let pid = self.pid.context("not mounted")?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold blanks; the times are the 14th and 15th field, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |n: usize| fields.get(n).and_then(|v| v.parse::<f64>().ok()).context("/proc stat");
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let peak: f64 = peak.trim().trim_end_matches("kB").trim().parse()?;
        Ok(Usage { cpu: (ticks(11)? + ticks(12)?) / 100.0, peak: peak / 1024.0 })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.pid.is_some()
            && let Err(e) = self.unmount()
        {
            eprintln!("{e:#}");
            let _ = Command::new("umount").arg("-l").arg(self.path()).status();
        }
    }
}
