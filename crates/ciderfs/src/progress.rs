//! What a mount still has to store, told to whoever unmounts it: the mount itself cannot tell any more then.
//!
//! It stands in memory of the serving process that has a name among its descriptors. Who may look at those, root and the user
//! of the mount, finds it there, and keeps it when the process has ended.

use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciderfs_format::shown;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};

/// Name of the memory.
const NAME: &str = "ciderfs-mount";
/// Its length; what is told is padded with spaces.
const LEN: usize = 8192;
/// Longest reason that is told.
const WHY_MAX: usize = 500;

/// What a mount tells.
#[derive(Debug)]
pub struct Progress {
    file: Option<File>,
    at: String,
}

impl Progress {
    /// Of the mount at a place.
    pub fn new(at: &Path) -> Self {
        let file = memfd_create(NAME, MemfdFlags::CLOEXEC).map(File::from);
        if let Err(e) = &file {
            tracing::debug!("nobody will be told what is still to be stored: {e}");
        }
        let this = Self { file: file.ok(), at: shown(at).into_owned() };
        this.left(0);
        this
    }

    /// Bytes that are still to be stored.
    pub fn left(&self, bytes: u64) {
        self.say(json!({ "At": self.at, "Left": bytes }));
    }

    /// The process ends: with everything stored, or not, for a reason.
    pub fn end(&self, failure: Option<&str>) {
        let why = failure.map(|why| why.chars().take(WHY_MAX).collect::<String>());
        self.say(json!({ "At": self.at, "Ended": why.is_none(), "Why": why }));
    }

    fn say(&self, what: Value) {
        let Some(file) = &self.file else { return };
        let mut text = what.to_string().into_bytes();
        text.resize(LEN.max(text.len()), b' ');
        // Memory: there is no reason why it should fail, and nothing to do if it does.
        let _ = file.write_all_at(&text, 0);
    }
}

/// A mount, seen from another process.
pub struct Watched {
    process: OwnedFd,
    memory: File,
}

impl Watched {
    /// All processes that serve a mount at this place, or still store what was written there.
    pub fn at(place: &Path) -> Vec<Self> {
        let at = shown(place).into_owned();
        // Who has mounted it, as the kernel tells.
        let mount = ciderfs_fuse::mount::find_mount(place).ok().flatten();
        let server =
            mount.and_then(|m| m.options.split(',').find_map(|o| o.strip_prefix("user_id=")?.parse().ok()));
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|e| e.file_name().to_str()?.parse().ok());
        pids.filter_map(Pid::from_raw).filter_map(|pid| Self::of(pid, &at, server)).collect()
    }

    fn of(pid: Pid, at: &str, server: Option<u32>) -> Option<Self> {
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Elsewhere the same name is another place; and nobody says for others that they serve it.
        let namespace = |pid: &dyn std::fmt::Display| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        if namespace(&pid.as_raw_nonzero()) != namespace(&"self") {
            return None;
        }
        let owner = std::fs::metadata(format!("/proc/{}", pid.as_raw_nonzero())).ok()?.uid();
        if owner != rustix::process::geteuid().as_raw() && Some(owner) != server {
            return None;
        }
        let is_named = |link: PathBuf| link.to_string_lossy().starts_with(&format!("/memfd:{NAME} "));
        // Who watches a mount, as this process does, only reads it.
        let is_own = |meta: Metadata| meta.mode() & 0o200 != 0;
        let is_it = |path: &PathBuf| {
            std::fs::read_link(path).is_ok_and(is_named) && path.symlink_metadata().is_ok_and(is_own)
        };
        let fds = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).ok()?;
        let found = fds.flatten().map(|e| e.path()).find(is_it)?;
        let watched = Self { process, memory: File::open(found).ok()? };
        (watched.told()["At"] == at).then_some(watched)
    }

    fn told(&self) -> Value {
        let mut text = vec![0; LEN];
        let read = self.memory.read_at(&mut text, 0).unwrap_or(0);
        serde_json::from_slice(&text[..read]).unwrap_or_default()
    }

    /// Waits for its end, no longer than `limit`; true if it has ended.
    pub fn has_ended(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
        poll(&mut fds, limit.as_ref()).is_ok_and(|ready| ready > 0)
    }

    /// Bytes that are still to be stored, as told last.
    pub fn left(&self) -> Option<u64> {
        self.told()["Left"].as_u64()
    }

    /// After its end: why not everything is stored, if it is not.
    pub fn failure(&self) -> Option<String> {
        let told = self.told();
        match (told["Ended"].as_bool(), told["Why"].as_str()) {
            (Some(true), _) => None,
            (_, Some(why)) => Some(why.to_owned()),
            _ => Some("it was killed before everything was stored".into()),
        }
    }
}
