//! An opened volume and what all operations share.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::settings::Settings;
use ciderfs_format::{Attr, Ino, SessionId, SliceId, Time, shown};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::acl::Rules;
use crate::beliefs::Beliefs;
use crate::error::{Errno, Error, Result};
use crate::ids::IdPool;
use crate::ledger::Ledger;
use crate::locks::LockTable;
use crate::open::OpenFiles;
use crate::run::RunCounters;
use crate::session::Lease;
use crate::store::{Counter, Read, Store, StoreError, Value};
use crate::types::{Caller, VolumeStat};
use crate::xattrs::KnownXattrs;

/// Inode numbers reserved at a time; as many as the official client takes.
const INODE_BATCH: u64 = 1024;
/// Slice ids reserved at a time.
const SLICE_BATCH: u64 = 4096;

/// When access times are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AtimeMode {
    /// Never after creation.
    #[default]
    NoAtime,
    /// When older than a change or than a day.
    Relatime,
    /// When older than a second.
    Strict,
}

/// How a client uses a volume.
#[derive(Debug, Clone)]
pub struct MetaConfig {
    /// Every change fails with `EROFS`; no session, no background work.
    pub read_only: bool,
    /// Directory presented as the root; created if missing.
    pub subdir: Option<Vec<u8>>,
    /// It is an error if that directory is missing.
    pub existing_subdir: bool,
    /// Interval of session refresh and settings reload; 0 refreshes never.
    pub heartbeat: Duration,
    /// No background jobs.
    pub no_bgjob: bool,
    /// Slices deleted at a time; 0: this client deletes no data.
    pub max_deletes: usize,
    /// A directory's times are left alone if changed less than this long ago.
    pub skip_dir_mtime: Duration,
    /// When access times are written.
    pub atime_mode: AtimeMode,
    /// Directories have access times too, where files have.
    pub dir_atime: bool,
    /// The trash is called `.jfs.trash` instead of `.trash`.
    pub prefix_internal: bool,
    /// How long an operation waits for an unavailable engine before it fails with `EIO`.
    pub retry_patience: Duration,
    /// How long names of extended attributes and ACL ids are believed; as long as the front door's caller believes
    /// attributes. 0 asks every time.
    pub xattr_valid: Duration,
    /// Version shown in the session.
    pub version: String,
    /// Mount point shown in the session.
    pub mount_point: String,
    /// Network interfaces whose addresses are shown in the session; none stands for all. One that this machine does not have is
    /// refused when the session starts.
    pub network_interfaces: Vec<String>,
}

impl Default for MetaConfig {
    fn default() -> Self {
        Self {
            read_only: false,
            subdir: None,
            existing_subdir: false,
            heartbeat: Duration::from_secs(12),
            no_bgjob: false,
            max_deletes: 10,
            skip_dir_mtime: Duration::ZERO,
            atime_mode: AtimeMode::NoAtime,
            dir_atime: true,
            prefix_internal: false,
            retry_patience: Duration::from_secs(60),
            xattr_valid: Duration::ZERO,
            version: ciderfs_format::version::presented_version(env!("CARGO_PKG_VERSION")),
            mount_point: String::new(),
            network_interfaces: Vec::new(),
        }
    }
}

/// Deletes the objects of a slice.
#[async_trait]
pub trait SliceRemover: Send + Sync {
    /// Deletes every object of slice `id` of `size` bytes; objects that are missing are no error.
    async fn remove_slice(&self, id: SliceId, size: u32) -> std::result::Result<(), String>;
}

/// Where the time comes from.
pub trait Clock: Send + Sync {
    /// Wall-clock time.
    fn now(&self) -> Time;

    /// Time since some moment. It is never set, and goes on while the machine sleeps or the program is frozen.
    fn steady(&self) -> Duration {
        ciderfs_rt::boot_time()
    }

    /// Is it the engine's clock as well, as in tests that move both?
    fn is_the_engines(&self) -> bool {
        false
    }
}

/// The machine's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        match ciderfs_rt::wall_clock().duration_since(UNIX_EPOCH) {
            Ok(d) => Time { sec: d.as_secs() as i64, nsec: d.subsec_nanos() },
            Err(_) => Time::default(),
        }
    }
}

/// Counts of metadata work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetaCounters {
    /// Turns to the engine.
    pub turns: u64,
    /// Commits applied.
    pub commits: u64,
    /// Commits refused because a guard failed.
    pub conflicts: u64,
    /// Calls repeated because the engine was unavailable.
    pub retries: u64,
    /// Times that others have declared this client's session dead.
    pub losses: u64,
}

/// Called with changed settings.
pub type SettingsHook = Box<dyn Fn(&Arc<Settings>) + Send + Sync>;

/// An opened volume: the namespace operations and the client's session.
pub struct Meta {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cfg: MetaConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: RwLock<Arc<Settings>>,
    pub(crate) settings_hooks: Mutex<Vec<SettingsHook>>,
    pub(crate) beliefs: Beliefs,
    pub(crate) acls: bool,
    pub(crate) rules: Rules,
    pub(crate) known_xattrs: KnownXattrs,
    pub(crate) inodes: Arc<IdPool>,
    pub(crate) slices: Arc<IdPool>,
    pub(crate) open: Arc<OpenFiles>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) counters: RunCounters,
    pub(crate) observed: crate::observe::Observed,
    pub(crate) sid: AtomicU64,
    pub(crate) locks: LockTable,
    pub(crate) lease: Mutex<Option<Lease>>,
    pub(crate) liveness: crate::liveness::Liveness,
    pub(crate) session_info: Mutex<Bytes>,
    pub(crate) root: Ino,
    pub(crate) trash_hour: Mutex<Option<(String, Ino)>>,
    pub(crate) remover: Mutex<Option<Arc<dyn SliceRemover>>>,
    pub(crate) deletions: crate::deletion::Queue,
    pub(crate) departed: crate::departed::Departed,
    pub(crate) holds: Arc<crate::holds::Holds>,
    /// Directories whose quota was new so many heartbeats ago.
    pub(crate) young_quotas: parking_lot::Mutex<std::collections::HashMap<Ino, u32>>,
    pub(crate) fatal: watch::Sender<Option<String>>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) tasks: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    /// One of these.
    pub(crate) heartbeat: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Meta {
    /// Opens a formatted volume. Checks that this client may use it and finds the sub-directory to present.
    pub async fn load(store: Arc<dyn Store>, cfg: MetaConfig) -> Result<Arc<Self>> {
        Self::load_with_clock(store, cfg, Arc::new(SystemClock)).await
    }

    /// [`Meta::load`] with a clock of the caller's.
    pub async fn load_with_clock(
        store: Arc<dyn Store>,
        cfg: MetaConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>> {
        let Some(settings) = Self::read_settings(store.as_ref()).await? else {
            return Err(Error::Volume(format!(
                "no volume at {}: the database is not formatted; create it first with `ciderfs format {} NAME`",
                store.describe(),
                store.describe()
            )));
        };
        settings.check_mountable().map_err(|e| Error::Volume(e.to_string()))?;
        refuse_unsupported(&settings, cfg.read_only)?;
        let mut meta = Self {
            inodes: IdPool::new(Arc::clone(&store), Counter::NextInode, INODE_BATCH),
            slices: IdPool::new(Arc::clone(&store), Counter::NextChunk, SLICE_BATCH),
            store,
            acls: settings.enable_acl,
            rules: Rules::default(),
            known_xattrs: KnownXattrs::new(cfg.xattr_valid),
            cfg,
            clock,
            settings: RwLock::new(Arc::new(settings)),
            settings_hooks: Mutex::default(),
            beliefs: Beliefs::new(),
            open: Arc::default(),
            ledger: Arc::default(),
            counters: RunCounters::default(),
            observed: crate::observe::Observed::default(),
            sid: AtomicU64::new(0),
            locks: LockTable::default(),
            lease: Mutex::default(),
            liveness: crate::liveness::Liveness::default(),
            session_info: Mutex::default(),
            root: Ino::ROOT,
            trash_hour: Mutex::default(),
            remover: Mutex::default(),
            deletions: crate::deletion::Queue::default(),
            departed: crate::departed::Departed::default(),
            holds: Arc::default(),
            young_quotas: parking_lot::Mutex::default(),
            fatal: watch::Sender::new(None),
            stop: watch::Sender::new(false),
            tasks: Mutex::default(),
            heartbeat: Mutex::default(),
        };
        meta.refresh_usage().await?;
        meta.reload_quotas().await?;
        if meta.acls {
            meta.load_rules().await?;
        }
        if let Some(subdir) = meta.cfg.subdir.clone() {
            meta.root = meta.find_subdir(&subdir).await?;
        }
        Ok(Arc::new(meta))
    }

    /// The settings as last read.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// Calls `hook` whenever a heartbeat finds changed settings.
    pub fn on_settings(&self, hook: SettingsHook) {
        self.settings_hooks.lock().push(hook);
    }

    /// Says who deletes objects. Without one, dead slices are left to other clients.
    pub fn set_slice_remover(&self, remover: Arc<dyn SliceRemover>) {
        *self.remover.lock() = Some(remover);
    }

    /// Turns to `Some(reason)` when the mount must stop.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.subscribe()
    }

    /// This client's session id, 0 without a session.
    pub fn sid(&self) -> SessionId {
        SessionId(self.sid.load(Ordering::Relaxed))
    }

    /// Short name of the metadata engine.
    pub fn engine(&self) -> &'static str {
        self.store.engine()
    }

    /// Is every change refused?
    pub fn is_read_only(&self) -> bool {
        self.cfg.read_only
    }

    /// Counts so far.
    pub fn counters(&self) -> MetaCounters {
        MetaCounters {
            turns: self.store.turns(),
            commits: self.counters.commits.load(Ordering::Relaxed),
            conflicts: self.counters.conflicts.load(Ordering::Relaxed),
            retries: self.counters.retries.load(Ordering::Relaxed),
            losses: self.counters.losses.load(Ordering::Relaxed),
        }
    }

    /// Grows while the engine answers and objects are removed.
    pub fn progress(&self) -> u64 {
        self.counters.progress.load(Ordering::Relaxed)
    }

    /// Does the presented root show the trash? Not below a sub-directory.
    pub fn shows_trash(&self) -> bool {
        !self.is_subdir() && self.settings().trash_enabled()
    }

    /// Used bytes and inodes as last seen, without asking the engine.
    pub fn used(&self) -> (u64, u64) {
        (self.ledger.space().max(0) as u64, self.ledger.inodes().max(0) as u64)
    }

    /// Size and use of the volume as last seen, without asking the engine, and without the quotas of directories.
    pub fn known_stat(&self) -> VolumeStat {
        let s = self.settings();
        volume_stat(s.capacity, s.inodes, self.used())
    }

    /// The directory of the volume that is presented as the root, as it was asked for; empty for the volume's own root.
    pub fn subdir(&self) -> &[u8] {
        self.cfg.subdir.as_deref().unwrap_or_default()
    }

    /// Size and use of the volume as presented (`docs/format/quotas.md#usage-of-the-volume`).
    pub async fn statfs(&self) -> Result<VolumeStat> {
        self.statfs_at(Ino::ROOT).await
    }

    /// The same as a file or directory sees it: under the quotas of the directories above it.
    pub async fn statfs_at(&self, ino: Ino) -> Result<VolumeStat> {
        let _timed = self.timed("StatFS");
        let (space, inodes) = self.refresh_usage().await?;
        let s = self.settings();
        let used = (space.max(0) as u64, inodes.max(0) as u64);
        self.clamp_by_quotas(self.real(ino), volume_stat(s.capacity, s.inodes, used)).await
    }

    /// Fetches the bytes and inodes that the volume uses.
    pub(crate) async fn refresh_usage(&self) -> Result<(i64, i64)> {
        let asked = self.ledger.ask();
        let values =
            self.read(&[Read::Counter(Counter::UsedSpace), Read::Counter(Counter::TotalInodes)]).await?;
        let [Value::Int(space), Value::Int(inodes)] = values[..] else {
            return Err(StoreError::another_question().into());
        };
        asked.space(space);
        asked.inodes(inodes);
        Ok((space, inodes))
    }

    /// The inode behind a number given by a front door: 1 is the presented root.
    pub(crate) fn real(&self, ino: Ino) -> Ino {
        if ino == Ino::ROOT { self.root } else { ino }
    }

    /// Is a directory of the volume presented as the root, and nothing outside it?
    pub fn is_subdir(&self) -> bool {
        self.root != Ino::ROOT
    }

    /// Is this the presented root?
    pub(crate) fn is_root(&self, ino: Ino) -> bool {
        ino == Ino::ROOT || ino == self.root
    }

    async fn find_subdir(&self, subdir: &[u8]) -> Result<Ino> {
        let root = Caller::root();
        let mut at = Ino::ROOT;
        let shown = |name: &[u8]| shown(OsStr::from_bytes(name)).into_owned();
        for name in path_names(subdir) {
            let (ino, attr) = match self.lookup(&root, at, name).await {
                Err(e) if e.errno() == Errno::ENOENT && self.cfg.read_only => {
                    return Err(Error::Volume(format!(
                        "--subdir {}: the volume has no directory {} there, and a read-only mount makes none; \
                         name one that exists, or mount once without --read-only",
                        shown(subdir),
                        shown(name)
                    )));
                }
                Err(e) if e.errno() == Errno::ENOENT && self.cfg.existing_subdir => {
                    return Err(Error::Volume(format!(
                        "--subdir {}: the volume has no directory {} there, and with --existing-subdir none is made: \
                         restore it, or mount without --existing-subdir",
                        shown(subdir),
                        shown(name)
                    )));
                }
                Err(e) if e.errno() == Errno::ENOENT => {
                    let node = crate::types::NewNode {
                        kind: ciderfs_format::FileType::Directory,
                        mode: 0o777,
                        umask: 0,
                        rdev: 0,
                        target: b"",
                    };
                    match self.create(&root, at, name, &node).await {
                        Err(e) if e.errno() == Errno::EEXIST => self.lookup(&root, at, name).await?,
                        other => other?,
                    }
                }
                other => other?,
            };
            if !attr.is_dir() {
                let (subdir, name) = (shown(subdir), shown(name));
                return Err(Error::Volume(format!("--subdir {subdir}: {name} is not a directory")));
            }
            at = ino;
        }
        Ok(at)
    }
}

/// The names in a path of the volume.
pub(crate) fn path_names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

/// Settings that this version cannot honour are refused rather than broken.
pub(crate) fn refuse_unsupported(s: &Settings, read_only: bool) -> Result<()> {
    let refuse = |what: &str, remedy: &str| {
        Err(Error::Volume(format!("this volume uses {what}, which this version does not support; {remedy}")))
    };
    if s.change_log && !read_only {
        return refuse("the change log", "mount it read-only, or turn the change log off");
    }
    Ok(())
}

/// Least size that a volume without a limit tells.
pub(crate) const UNLIMITED_SPACE: u64 = 1 << 50;

/// Totals and free figures from limits and use.
fn volume_stat(capacity: u64, inodes: u64, (used_space, used_inodes): (u64, u64)) -> VolumeStat {
    const UNLIMITED_INODES: u64 = 10 << 20;
    let total_space =
        if capacity > 0 { capacity } else { doubled(UNLIMITED_SPACE, |total| used_space > total / 10 * 8) };
    let avail_inodes = if inodes > 0 {
        inodes.saturating_sub(used_inodes)
    } else {
        doubled(UNLIMITED_INODES, |avail| used_inodes > avail.saturating_mul(4))
    };
    VolumeStat {
        total_space,
        avail_space: total_space.saturating_sub(used_space),
        used_space,
        used_inodes,
        avail_inodes,
    }
}

/// Doubles a figure as long as it is too small, and as it can be: sparse files of a few users take usage to any number.
fn doubled(start: u64, is_small: impl Fn(u64) -> bool) -> u64 {
    let mut n = start;
    while is_small(n) {
        let Some(more) = n.checked_mul(2) else { return u64::MAX };
        n = more;
    }
    n
}

/// Attributes of the root or trash root where the record is missing: better than an unusable mount.
pub(crate) fn synthetic_dir(ino: Ino) -> Attr {
    Attr {
        flags: 0,
        kind: ciderfs_format::FileType::Directory,
        mode: if ino.is_trash() { 0o555 } else { 0o777 },
        uid: 0,
        gid: 0,
        atime: Time::default(),
        mtime: Time::default(),
        ctime: Time::default(),
        nlink: 2,
        length: Attr::DIR_LENGTH,
        rdev: 0,
        parent: Ino::ROOT,
        access_acl: 0,
        default_acl: 0,
        tier: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_volume_without_limit_is_found_for_any_usage() {
        for used in [0, UNLIMITED_SPACE, 1 << 60, i64::MAX as u64, u64::MAX] {
            let stat = volume_stat(0, 0, (used, used));
            assert!(stat.total_space >= UNLIMITED_SPACE && stat.total_space >= used / 2, "{used}");
            assert_eq!(stat.avail_space, stat.total_space.saturating_sub(used));
            assert!(stat.avail_inodes > 0);
        }
        assert_eq!(volume_stat(0, 0, (UNLIMITED_SPACE, 0)).total_space, 2 * UNLIMITED_SPACE);
    }
}
