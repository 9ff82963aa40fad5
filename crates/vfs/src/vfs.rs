//! A mounted volume: what it consists of, its beginning and its end.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ciderfs_block::BlockStore;
use ciderfs_format::{Attr, Ino, Time};
use ciderfs_handover::State;
use ciderfs_meta::Meta;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::content::files::Files;
use crate::content::recent::Recent;
use crate::content::remembered::Remembered;
use crate::io::carry::Carry;
use crate::io::compact::Compactions;
use crate::io::handles::Handles;
use crate::io::remover::BlockRemover;
use crate::kernel::View;
use crate::stat::allocated::Allocated;
use crate::stat::atime::Atimes;
use crate::stat::links::Trashed;
use crate::stat::whole::Stat;
use crate::tools::access_log::AccessLog;
use crate::tools::internal::start_time;
use crate::tools::metrics::Metrics;

/// Blocks read ahead by default.
const READAHEAD_BLOCKS: u64 = 8;

/// How a volume is presented.
pub struct VfsConfig {
    /// Bytes to read ahead of a sequential reader; `None` means 8 blocks, 0 turns it off.
    pub max_readahead: Option<u64>,
    /// Leave the virtual files out of listings.
    pub hide_internal: bool,
    /// Virtual files are called `.jfs.stats` and so on.
    pub prefix_internal: bool,
    /// List directories in order of names, held in memory whole.
    pub sort_dir: bool,
    /// How long the kernel believes attributes.
    pub attr_valid: Duration,
    /// Opening files again without asking the engine.
    pub open_cache: OpenCache,
    /// What `.config` shows, without secrets.
    pub config_json: serde_json::Value,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// What the next process of the mount is to find, should this one end without a word; `None`: nothing.
    pub handover: Option<Arc<State>>,
}

/// For how long, and of how many files, what the engine told at an open counts without asking it again.
///
/// What other mounts change is seen within that time instead of at the next open. Opens that write ask all the same, and what
/// this mount changes is seen at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenCache {
    /// How long; zero asks at every open.
    pub valid: Duration,
    /// Files remembered, more or less; 0: as many as there are.
    pub limit: usize,
}

impl Default for OpenCache {
    fn default() -> Self {
        Self { valid: Duration::ZERO, limit: 10_000 }
    }
}

/// A name and what it leads to.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Inode.
    pub ino: Ino,
    /// Attributes.
    pub attr: Attr,
    /// Blocks of 512 bytes, as in [`Stat`](crate::Stat).
    pub blocks: u64,
    /// Names that lead to it, as in [`Stat`](crate::Stat).
    pub links: u32,
}

/// An open handle.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// Handle number.
    pub fh: u64,
    /// The kernel may keep the pages it has.
    pub keep_cache: bool,
    /// The kernel must not cache pages.
    pub direct_io: bool,
}

/// A mounted volume.
pub struct Vfs {
    pub(crate) meta: Arc<Meta>,
    pub(crate) blocks: Arc<BlockStore>,
    pub(crate) cfg: VfsConfig,
    pub(crate) files: Files,
    pub(crate) remembered: Remembered,
    /// Inodes that this mount has changed, or of which it has told the kernel that others have.
    pub(crate) recent: Recent,
    /// What the kernel may still hold.
    pub(crate) kernel: View,
    pub(crate) handles: Handles,
    pub(crate) dirty: Notify,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access_log: AccessLog,
    pub(crate) started: Time,
    pub(crate) max_readahead: u64,
    /// Counts local changes in directories that are being listed.
    pub(crate) listed: Mutex<HashMap<Ino, Weak<AtomicU64>>>,
    flusher: Mutex<Option<tokio::task::JoinHandle<()>>>,
    pub(crate) compactions: Compactions,
    pub(crate) atimes: Atimes,
    atime_task: Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// Blocks of files with holes.
    pub(crate) allocated: Allocated,
    /// Names of files that are in the trash.
    pub(crate) trashed: Trashed,
    /// What is left to the next process.
    pub(crate) carry: Carry,
    /// Requests that the process before this one has appended for.
    pub(crate) appended: OnceLock<HashSet<u64>>,
}

impl Vfs {
    /// Presents `meta`'s volume with the data in `blocks`. Must be called within the runtime.
    pub fn new(meta: Arc<Meta>, blocks: Arc<BlockStore>, cfg: VfsConfig) -> Arc<Self> {
        meta.set_slice_remover(Arc::new(BlockRemover(Arc::clone(&blocks))));
        let default_ahead = READAHEAD_BLOCKS * u64::from(blocks.block_size());
        let atimes = Atimes::new(meta.atime_mode());
        let vfs = Arc::new(Self {
            max_readahead: cfg.max_readahead.unwrap_or(default_ahead).min(blocks.budget().limit() / 4),
            handles: Handles::after(cfg.handover.as_ref().map_or(0, |state| state.last_fh())),
            carry: Carry::new(cfg.handover.clone(), meta.sid()),
            meta,
            blocks,
            files: Files::default(),
            remembered: Remembered::new(cfg.open_cache),
            recent: Recent::default(),
            kernel: View::new(cfg.attr_valid),
            dirty: Notify::new(),
            metrics: Arc::clone(&cfg.metrics),
            access_log: AccessLog::default(),
            cfg,
            started: start_time(),
            listed: Mutex::default(),
            flusher: Mutex::default(),
            compactions: Compactions::default(),
            atimes,
            atime_task: Mutex::default(),
            allocated: Allocated::default(),
            trashed: Trashed::default(),
            appended: OnceLock::new(),
        });
        if let Err(e) = vfs.metrics.follow(&vfs) {
            tracing::warn!("not all figures are shown: {e}");
        }
        *vfs.flusher.lock() = Some(ciderfs_rt::spawn(Arc::clone(&vfs).flush_loop()));
        if vfs.atimes.on() {
            *vfs.atime_task.lock() = Some(ciderfs_rt::spawn(Arc::clone(&vfs).atime_loop()));
        }
        vfs
    }

    /// A name's node, with what is known of it without asking.
    pub(crate) fn entry(&self, ino: Ino, attr: Attr) -> Entry {
        let Stat { attr, blocks, links, .. } = self.stat_at_hand(ino, attr);
        Entry { ino, attr, blocks, links }
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Where requests are told to whoever reads `.accesslog`.
    pub fn access_log(&self) -> &AccessLog {
        &self.access_log
    }

    /// Flushes every file.
    pub async fn flush_all(self: &Arc<Self>) {
        for file in self.files.all() {
            if let Err(e) = self.flush(&file).await {
                tracing::error!("inode {}: {e}", file.ino);
            }
        }
    }

    /// [`Vfs::flush_all`] for who must know whether all of it is stored.
    ///
    /// # Errors
    /// The first failure; the files after it are flushed as well.
    pub async fn flush_all_stored(self: &Arc<Self>) -> crate::error::Result<()> {
        let mut result = Ok(());
        for file in self.files.all() {
            if let Err(e) = self.flush_stored(&file).await {
                tracing::warn!("inode {}: {e}", file.ino);
                result = result.and(Err(e));
            }
        }
        result
    }

    /// Flushes everything and stops background work, and leaves all that is open to the next process of the mount.
    pub async fn suspend(self: &Arc<Self>) {
        self.stop_tasks().await;
        self.compactions.close().await;
        self.blocks.shutdown().await;
    }

    /// Flushes everything and stops background work.
    pub async fn shutdown(self: &Arc<Self>) {
        self.stop_tasks().await;
        let left: Vec<u64> = self.handles.all();
        for fh in left {
            self.release(fh).await;
        }
        self.compactions.close().await;
        self.blocks.shutdown().await;
    }

    async fn stop_tasks(self: &Arc<Self>) {
        if let Some(task) = self.flusher.lock().take() {
            task.abort();
        }
        if let Some(task) = self.atime_task.lock().take() {
            task.abort();
        }
        self.write_atimes().await;
        self.flush_all().await;
    }
}
