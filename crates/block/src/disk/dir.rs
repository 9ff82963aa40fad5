//! One cache directory: its lock, its index, its files.

use ciderfs_format::SliceId;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use ciderfs_format::shown;
use ciderfs_object::NewFiles;
use ciderfs_rt::Instant;
use parking_lot::{Condvar, Mutex};
use rustix::fs::Mode;

use super::blocks::{Blocks, Rules};
use super::breaker::Breaker;
use super::clock::Clock;
use super::index::{Change, Index, Loaded};
use super::open::{OpenFiles, claim};
use super::way::{HeldDir, PRIVATE};
use crate::CacheMode;
use crate::budget::Permit;
use crate::key::{BlockId, mix};
use crate::stats::{Counters, count};

/// Sub-directories of blocks.
pub(crate) const FAN_OUT: u64 = 256;

/// A block on its way to the disk; readable meanwhile.
pub(super) struct Pending {
    pub data: Bytes,
    _permit: Option<Permit>,
}

/// What the lock protects.
pub(super) struct State {
    pub blocks: Blocks,
    pub pending: HashMap<BlockId, Pending>,
    pub queue: VecDeque<BlockId>,
    pub queued_bytes: u64,
    pub changes: Vec<Change>,
    pub closed: bool,
    /// No room on the file system: nothing is written until the next look.
    pub full: bool,
    /// Not even an empty cache has room. Told in the log when it changes.
    pub useless: bool,
}

/// How a directory is used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// What it holds.
    pub rules: Rules,
    /// Who may read the blocks.
    pub mode: CacheMode,
    /// Share of the file system that stays free.
    pub free_ratio: f64,
    /// Bytes that may wait for the writers.
    pub queue_limit: u64,
}

/// How far the sweep is.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(super) next: u64,
    pub(super) lost: bool,
}

impl Sweep {
    /// A sweep after a start that found this.
    pub fn new(loaded: Loaded) -> Self {
        Self { next: if loaded == Loaded::Clean { FAN_OUT } else { 0 }, lost: loaded == Loaded::Lost }
    }

    /// Has it seen everything?
    pub fn is_done(&self) -> bool {
        self.next >= FAN_OUT
    }
}

/// See the module's text.
pub(crate) struct CacheDir {
    pub(super) held: HeldDir,
    /// Leads to `held`.
    pub(super) root: PathBuf,
    _lock: File,
    pub(super) setup: Setup,
    pub(super) state: Mutex<State>,
    pub(super) wake: Condvar,
    /// When free space was last looked at. Taken before `state`.
    pub(super) space_checked: Mutex<Option<Instant>>,
    index: Mutex<Index>,
    pub(super) open: Mutex<OpenFiles>,
    pub(super) breaker: Mutex<Breaker>,
    pub(super) counters: Arc<Counters>,
    pub(super) temp: AtomicU64,
    pub(super) new_files: NewFiles,
    pub(crate) clock: Clock,
    pub(super) sweep: Mutex<Sweep>,
    #[cfg(test)]
    pub(crate) fail_writes: std::sync::atomic::AtomicI32,
}

/// What a lookup found.
#[derive(Clone)]
pub(crate) enum Found {
    /// Still in memory, waiting to be written.
    Memory(Bytes),
    /// In a file.
    File,
}

impl CacheDir {
    /// Takes `<parent>/ciderfs`, or the first of its numbered siblings that no other process uses.
    pub fn open(parent: &Path, setup: Setup, counters: Arc<Counters>) -> std::io::Result<Arc<Self>> {
        let mode = Mode::from_bits_truncate(setup.mode.dir());
        let (held, lock) = claim(parent, mode)?;
        let root = held.path();
        let temp = root.join("tmp");
        match std::fs::remove_dir_all(&temp) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        held.own("tmp", PRIVATE)?;
        let fresh = !root.join("blocks").exists();
        let fans = held.own("blocks", mode)?;
        for fan in 0..FAN_OUT {
            fans.own(&format!("{fan:02x}"), mode)?;
        }
        let mut blocks = Blocks::new(setup.rules);
        let (mut index, mut loaded, clock) = Index::open(&root, &mut blocks)?;
        if fresh {
            // No index, but no files either.
            loaded = Loaded::Clean;
        }
        // The cache may have been larger in an earlier life.
        let surplus = blocks.trim();
        let changes: Vec<_> = surplus.iter().map(|&block| Change::removed(block)).collect();
        index.append(&changes)?;
        tracing::debug!(root = %shown(held.named()), ?loaded, blocks = blocks.len(), "disk cache opened");
        let dir = Arc::new(Self {
            held,
            root,
            _lock: lock,
            setup,
            state: Mutex::new(State {
                blocks,
                pending: HashMap::new(),
                queue: VecDeque::new(),
                queued_bytes: 0,
                changes: Vec::new(),
                closed: false,
                full: false,
                useless: false,
            }),
            wake: Condvar::new(),
            space_checked: Mutex::default(),
            index: Mutex::new(index),
            open: Mutex::default(),
            breaker: Mutex::default(),
            counters,
            temp: AtomicU64::new(0),
            new_files: NewFiles::default(),
            clock,
            sweep: Mutex::new(Sweep::new(loaded)),
            #[cfg(test)]
            fail_writes: std::sync::atomic::AtomicI32::new(0),
        });
        for block in surplus {
            dir.unlink(&block);
        }
        Ok(dir)
    }

    /// Name of a block's file below [`CacheDir::fan`].
    pub fn file_name(block: &BlockId) -> String {
        format!("{}_{}_{}", block.id, block.indx, block.len)
    }

    /// Reads a file name back.
    pub fn parse_name(name: &str) -> Option<BlockId> {
        let mut parts = name.split('_');
        let block = BlockId {
            id: SliceId(parts.next()?.parse().ok()?),
            indx: parts.next()?.parse().ok()?,
            len: parts.next()?.parse().ok()?,
        };
        (parts.next().is_none() && block.len > 0 && Self::file_name(&block) == name).then_some(block)
    }

    /// Sub-directory number `fan`.
    pub fn fan(&self, fan: u64) -> PathBuf {
        self.root.join("blocks").join(format!("{fan:02x}"))
    }

    /// The sub-directory that holds a block.
    pub fn fan_of(block: &BlockId) -> u64 {
        mix(block.mix()) % FAN_OUT
    }

    pub(super) fn path(&self, block: &BlockId) -> PathBuf {
        self.fan(Self::fan_of(block)).join(Self::file_name(block))
    }

    /// Where a block's file is, for messages.
    pub(super) fn named(&self, block: &BlockId) -> PathBuf {
        let fan = format!("{:02x}", Self::fan_of(block));
        self.held.named().join("blocks").join(fan).join(Self::file_name(block))
    }

    /// Looks a block up; counts as a use.
    pub fn find(&self, block: &BlockId) -> Option<Found> {
        let second = self.clock.second();
        let mut state = self.state.lock();
        if let Some(pending) = state.pending.get(block) {
            return Some(Found::Memory(pending.data.clone()));
        }
        let there = state.blocks.touch(block, second);
        drop(state);
        (there && self.breaker.lock().allows(Instant::now())).then_some(Found::File)
    }

    /// Is it there? Does not count as a use.
    pub fn contains(&self, block: &BlockId) -> bool {
        let state = self.state.lock();
        state.pending.contains_key(block) || state.blocks.contains(block)
    }

    /// Hands a block to the writers, unless they are behind or the disk is unwell.
    pub fn insert(&self, block: BlockId, data: Bytes, permit: Option<Permit>) {
        let len = u64::from(block.len);
        let allowed = self.breaker.lock().allows(Instant::now());
        let mut state = self.state.lock();
        if state.pending.contains_key(&block) || state.blocks.contains(&block) {
            return;
        }
        // A single block always passes, so that blocks larger than the limit are cached too.
        let behind = state.queued_bytes > 0 && state.queued_bytes + len > self.setup.queue_limit;
        if state.closed || !allowed || behind || !state.blocks.admits(block.len) {
            drop(state);
            count(&self.counters.cache_drops, 1);
            return;
        }
        state.queued_bytes += len;
        state.pending.insert(block, Pending { data, _permit: permit });
        state.queue.push_back(block);
        drop(state);
        self.wake.notify_one();
    }

    /// Forgets a block and removes its file.
    pub fn remove(&self, block: &BlockId) {
        let (pending, indexed) = {
            let mut state = self.state.lock();
            let pending = state.pending.remove(block);
            if pending.is_some() {
                state.queued_bytes -= u64::from(block.len);
            }
            let indexed = state.blocks.remove(block);
            if indexed {
                state.changes.push(Change::removed(*block));
            }
            (pending, indexed)
        };
        drop(pending);
        if indexed {
            self.unlink(block);
            self.flush_changes();
        }
    }

    pub(super) fn flush_changes(&self) {
        // In this order, so that the log has the changes in the order of the index.
        let mut index = self.index.lock();
        let changes = std::mem::take(&mut self.state.lock().changes);
        if !changes.is_empty()
            && let Err(e) = index.append(&changes)
        {
            self.disk_error("index log", &e);
        }
    }

    /// Writes a snapshot of the index if the log became long.
    pub fn maintain(&self) {
        self.check_space();
        self.expire();
        let blocks = self.state.lock().blocks.len();
        if !self.index.lock().wants_snapshot(blocks) || !self.breaker.lock().allows(Instant::now()) {
            return;
        }
        self.flush_changes();
        let mut index = self.index.lock();
        let result = index.start_snapshot().and_then(|()| {
            let blocks = {
                let mut state = self.state.lock();
                // They are in what is exported now.
                state.changes.clear();
                state.blocks.export()
            };
            index.write_snapshot(self.clock.reading(), blocks)
        });
        if let Err(e) = result {
            self.disk_error("index snapshot", &e);
        }
    }

    /// Removes blocks that were not used for too long.
    fn expire(&self) {
        if !self.breaker.lock().allows(Instant::now()) {
            return;
        }
        let second = self.clock.second();
        let due = self.evict(&mut self.state.lock(), |blocks| blocks.expire(second));
        if !due.is_empty() {
            self.unlink_all(&due);
            self.flush_changes();
        }
    }

    /// Counts an error of the disk, and leaves it alone when there are too many.
    pub fn disk_error(&self, what: &str, error: &std::io::Error) {
        count(&self.counters.disk_errors, 1);
        if self.breaker.lock().error(Instant::now()) {
            count(&self.counters.disk_trips, 1);
            tracing::warn!(root = %shown(self.held.named()), %error, "cache disk fails ({what}), left alone for a minute");
        } else {
            tracing::debug!(root = %shown(self.held.named()), %error, "cache disk: {what} failed");
        }
    }

    /// Takes a file that the index does not know; false if it is of no use.
    pub(super) fn adopt(&self, block: BlockId) -> bool {
        let second = self.clock.second();
        let victims = {
            let mut state = self.state.lock();
            if !state.blocks.admits(block.len) {
                return false;
            }
            if state.closed || state.blocks.contains(&block) {
                return true;
            }
            let victims = self.evict(&mut state, |blocks| blocks.make_room(block.len));
            state.blocks.insert(block, second);
            state.changes.push(Change::added(block, second));
            victims
        };
        self.unlink_all(&victims);
        self.flush_changes();
        true
    }

    /// Does the index, or the queue, know the block? For the sweep.
    pub(super) fn knows(&self, block: &BlockId) -> bool {
        self.contains(block)
    }

    /// Is the disk left alone now?
    pub fn is_sick(&self) -> bool {
        !self.breaker.lock().allows(Instant::now())
    }

    /// Blocks and bytes now.
    pub fn usage(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.blocks.len() as u64, state.blocks.used())
    }

    /// Has a writer something to do?
    #[cfg(test)]
    pub fn is_writing(&self) -> bool {
        !self.state.lock().pending.is_empty()
    }

    /// Takes nothing more; the writers finish what is queued and return.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }

    /// Writes the index down for the next start. Call it when the writers have returned.
    pub fn finish(&self) {
        self.flush_changes();
        let mut index = self.index.lock();
        let blocks = self.state.lock().blocks.export();
        let result = if self.sweep.lock().is_done() {
            index.close(self.clock.reading(), blocks)
        } else {
            // Files that the sweep has not reached stay unknown: leave the log, so that the next start sweeps.
            index.write_snapshot(self.clock.reading(), blocks)
        };
        if let Err(e) = result {
            self.disk_error("index snapshot", &e);
        }
    }
}
