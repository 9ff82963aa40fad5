//! One cache directory: its lock, its index, its files.

use std::collections::{HashMap, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rustix::fs::FlockOperation;

use super::breaker::Breaker;
use super::fifo::{Fifo, cost};
use super::file::{self, BlockFile, FileError};
use super::journal::{Change, Journal, Loaded};
use crate::budget::Permit;
use crate::key::{BlockId, mix};
use crate::stats::{Counters, count};

/// Processes that may use one cache directory at a time, each with a sibling of its own.
const MAX_SIBLINGS: u32 = 16;
/// Sub-directories of blocks.
pub(crate) const FAN_OUT: u64 = 256;
/// Cache files kept open.
const MAX_OPEN: usize = 64;
/// How often free space is looked at.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);
const DIR_MODE: u32 = 0o700;

/// A block on its way to the disk; readable meanwhile.
struct Pending {
    data: Bytes,
    _permit: Option<Permit>,
}

struct State {
    index: Fifo,
    pending: HashMap<BlockId, Pending>,
    queue: VecDeque<BlockId>,
    queued_bytes: u64,
    changes: Vec<Change>,
    closed: bool,
    /// No room on the file system: nothing is written until the next look.
    full: bool,
    space_checked: Option<Instant>,
}

#[derive(Default)]
struct OpenFiles {
    files: HashMap<BlockId, Arc<BlockFile>>,
    order: VecDeque<BlockId>,
}

/// See the module's text.
pub(crate) struct CacheDir {
    root: PathBuf,
    _lock: File,
    free_ratio: f64,
    queue_limit: u64,
    state: Mutex<State>,
    wake: Condvar,
    journal: Mutex<Journal>,
    open: Mutex<OpenFiles>,
    breaker: Mutex<Breaker>,
    counters: Arc<Counters>,
    temp: AtomicU64,
    started: Instant,
    pub(super) sweep: Mutex<super::sweep::Sweep>,
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
    pub fn open(
        parent: &Path,
        capacity: u64,
        free_ratio: f64,
        queue_limit: u64,
        counters: Arc<Counters>,
    ) -> std::io::Result<Arc<Self>> {
        let (root, lock) = claim(parent)?;
        let temp = root.join("tmp");
        match std::fs::remove_dir_all(&temp) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        make_dir(&temp)?;
        let fresh = !root.join("blocks").exists();
        for fan in 0..FAN_OUT {
            make_dir(&root.join("blocks").join(format!("{fan:02x}")))?;
        }
        let mut index = Fifo::new(capacity);
        let (mut journal, mut loaded) = Journal::open(&root, &mut index)?;
        if fresh {
            // No index, but no files either.
            loaded = Loaded::Clean;
        }
        // The cache may have been larger in an earlier life.
        let surplus = index.make_room(0);
        let changes: Vec<_> = surplus.iter().map(|&block| Change::removed(block)).collect();
        journal.append(&changes)?;
        tracing::debug!(root = %root.display(), ?loaded, blocks = index.len(), "disk cache opened");
        let dir = Arc::new(Self {
            root,
            _lock: lock,
            free_ratio,
            queue_limit,
            state: Mutex::new(State {
                index,
                pending: HashMap::new(),
                queue: VecDeque::new(),
                queued_bytes: 0,
                changes: Vec::new(),
                closed: false,
                full: false,
                space_checked: None,
            }),
            wake: Condvar::new(),
            journal: Mutex::new(journal),
            open: Mutex::default(),
            breaker: Mutex::default(),
            counters,
            temp: AtomicU64::new(0),
            started: Instant::now(),
            sweep: Mutex::new(super::sweep::Sweep::new(loaded)),
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
            id: parts.next()?.parse().ok()?,
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

    fn path(&self, block: &BlockId) -> PathBuf {
        self.fan(Self::fan_of(block)).join(Self::file_name(block))
    }

    fn second(&self) -> u32 {
        // From 1, so that it differs from what a fresh index says.
        self.started.elapsed().as_secs().min(u64::from(u32::MAX - 1)) as u32 + 1
    }

    /// Looks a block up; counts as a use.
    pub fn find(&self, block: &BlockId) -> Option<Found> {
        let second = self.second();
        let mut state = self.state.lock();
        if let Some(pending) = state.pending.get(block) {
            return Some(Found::Memory(pending.data.clone()));
        }
        let there = state.index.touch(block, second);
        drop(state);
        (there && self.breaker.lock().allows(Instant::now())).then_some(Found::File)
    }

    /// Is it there? Does not count as a use.
    pub fn contains(&self, block: &BlockId) -> bool {
        let state = self.state.lock();
        state.pending.contains_key(block) || state.index.contains(block)
    }

    /// Hands a block to the writers, unless they are behind or the disk is unwell.
    pub fn insert(&self, block: BlockId, data: Bytes, permit: Option<Permit>) {
        let len = u64::from(block.len);
        let allowed = self.breaker.lock().allows(Instant::now());
        let mut state = self.state.lock();
        if state.pending.contains_key(&block) || state.index.contains(&block) {
            return;
        }
        // A single block always passes, so that blocks larger than the limit are cached too.
        let behind = state.queued_bytes > 0 && state.queued_bytes + len > self.queue_limit;
        if state.closed || !allowed || behind || cost(block.len) > state.index.capacity() {
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
            let indexed = state.index.remove(block);
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

    /// The body of a writer thread; returns after [`CacheDir::close`], when the queue is empty.
    pub fn write_queued(&self) {
        loop {
            let (block, data) = {
                let mut state = self.state.lock();
                loop {
                    match state.queue.pop_front() {
                        Some(block) => match state.pending.get(&block) {
                            Some(pending) => break (block, pending.data.clone()),
                            // Removed while it waited.
                            None => continue,
                        },
                        None if state.closed => return,
                        None => self.wake.wait(&mut state),
                    }
                }
            };
            let written = self.write(&block, &data);
            let mut surplus = Vec::new();
            let pending = {
                let second = self.second();
                let mut state = self.state.lock();
                let pending = state.pending.remove(&block);
                if pending.is_some() {
                    state.queued_bytes -= u64::from(block.len);
                }
                if written {
                    if pending.is_some() {
                        // Again, because the other writer may have taken the room.
                        surplus = self.evict(&mut state, |index| index.make_room(cost(block.len)));
                        state.index.insert(block, second);
                        state.changes.push(Change::added(block));
                    } else if !state.index.contains(&block) {
                        surplus.push(block);
                    }
                }
                pending
            };
            self.unlink_all(&surplus);
            drop((data, pending));
            self.flush_changes();
        }
    }

    fn write(&self, block: &BlockId, data: &[u8]) -> bool {
        self.check_space(false);
        let victims = {
            let mut state = self.state.lock();
            if state.full || !self.breaker.lock().allows(Instant::now()) {
                drop(state);
                count(&self.counters.cache_drops, 1);
                return false;
            }
            self.evict(&mut state, |index| index.make_room(cost(block.len)))
        };
        self.unlink_all(&victims);
        let temp = self.root.join("tmp").join(self.temp.fetch_add(1, Relaxed).to_string());
        match self.write_file(&temp, block, data) {
            Ok(()) => {
                count(&self.counters.cache_writes, 1);
                count(&self.counters.cache_write_bytes, data.len() as u64);
                true
            }
            Err(e) => {
                count(&self.counters.cache_drops, 1);
                if matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
                    // The disk is well, only full: leave some room to the others and wait for the next look.
                    let victims = {
                        let mut state = self.state.lock();
                        state.full = true;
                        state.space_checked = Some(Instant::now());
                        self.evict(&mut state, |index| index.shed(2 * cost(block.len), 1))
                    };
                    self.unlink_all(&victims);
                } else {
                    self.disk_error("write", &e);
                }
                false
            }
        }
    }

    fn write_file(&self, temp: &Path, block: &BlockId, data: &[u8]) -> std::io::Result<()> {
        #[cfg(test)]
        match self.fail_writes.load(Relaxed) {
            0 => {}
            errno => return Err(std::io::Error::from_raw_os_error(errno)),
        }
        file::write(temp, &self.path(block), block, data)
    }

    fn evict(&self, state: &mut State, choose: impl FnOnce(&mut Fifo) -> Vec<BlockId>) -> Vec<BlockId> {
        let victims = choose(&mut state.index);
        state.changes.extend(victims.iter().map(|&block| Change::removed(block)));
        count(&self.counters.evictions, victims.len() as u64);
        victims
    }

    fn unlink_all(&self, blocks: &[BlockId]) {
        for block in blocks {
            self.unlink(block);
        }
    }

    fn unlink(&self, block: &BlockId) {
        self.open.lock().files.remove(block);
        match std::fs::remove_file(self.path(block)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => self.disk_error("remove", &e),
            _ => {}
        }
    }

    /// Looks at free space, at most once a second unless forced, and makes room if there is too little.
    pub fn check_space(&self, force: bool) {
        {
            let mut state = self.state.lock();
            let now = Instant::now();
            let recent =
                state.space_checked.is_some_and(|t| now.saturating_duration_since(t) < SPACE_INTERVAL);
            if recent && !force {
                return;
            }
            state.space_checked = Some(now);
        }
        let Ok(fs) = rustix::fs::statvfs(&self.root) else { return };
        let lack = |total: u64, free: u64| ((total as f64 * self.free_ratio) as u64).saturating_sub(free);
        let bytes = lack(fs.f_blocks, fs.f_bavail).saturating_mul(fs.f_frsize);
        let inodes = lack(fs.f_files, fs.f_favail);
        let victims = {
            let mut state = self.state.lock();
            state.full = bytes > 0 || inodes > 0;
            self.evict(&mut state, |index| index.shed(bytes, inodes))
        };
        self.unlink_all(&victims);
        self.flush_changes();
    }

    fn flush_changes(&self) {
        // In this order, so that the log has the changes in the order of the index.
        let mut journal = self.journal.lock();
        let changes = std::mem::take(&mut self.state.lock().changes);
        if !changes.is_empty()
            && let Err(e) = journal.append(&changes)
        {
            self.disk_error("index log", &e);
        }
    }

    /// Writes a snapshot of the index if the log became long.
    pub fn maintain(&self) {
        self.check_space(false);
        let blocks = self.state.lock().index.len();
        if !self.journal.lock().wants_snapshot(blocks) || !self.breaker.lock().allows(Instant::now()) {
            return;
        }
        self.flush_changes();
        let mut journal = self.journal.lock();
        let result = journal.start_snapshot().and_then(|()| {
            let blocks = {
                let mut state = self.state.lock();
                // They are in what is exported now.
                state.changes.clear();
                state.index.export()
            };
            journal.write_snapshot(blocks)
        });
        if let Err(e) = result {
            self.disk_error("index snapshot", &e);
        }
    }

    /// An open file of the block, from the few that are kept open.
    pub fn opened(&self, block: &BlockId) -> Option<Arc<BlockFile>> {
        self.open.lock().files.get(block).cloned()
    }

    /// Opens the file of a block.
    pub fn open_file(&self, block: &BlockId) -> Result<Arc<BlockFile>, FileError> {
        let file = Arc::new(BlockFile::open(&self.path(block), block)?);
        let mut open = self.open.lock();
        if open.files.insert(*block, file.clone()).is_none() {
            open.order.push_back(*block);
            while open.order.len() > MAX_OPEN {
                if let Some(old) = open.order.pop_front() {
                    open.files.remove(&old);
                }
            }
        }
        drop(open);
        // It may have been evicted meanwhile; then an open file would keep its space.
        if !self.contains(block) {
            self.open.lock().files.remove(block);
        }
        Ok(file)
    }

    /// What to do about a file that could not be used: it goes, the block is downloaded again.
    pub fn read_failed(&self, block: &BlockId, error: &FileError) {
        match error {
            FileError::Io(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            FileError::Io(e) => self.disk_error("read", e),
            FileError::Damaged(what) => {
                tracing::warn!(file = %self.path(block).display(), "cache file is damaged ({what}), removed");
                count(&self.counters.corrupt, 1);
            }
        }
        self.remove(block);
    }

    /// Counts an error of the disk, and leaves it alone when there are too many.
    pub fn disk_error(&self, what: &str, error: &std::io::Error) {
        count(&self.counters.disk_errors, 1);
        if self.breaker.lock().error(Instant::now()) {
            count(&self.counters.disk_trips, 1);
            tracing::warn!(root = %self.root.display(), %error, "cache disk fails ({what}), left alone for a minute");
        } else {
            tracing::debug!(root = %self.root.display(), %error, "cache disk: {what} failed");
        }
    }

    /// Takes a file that the index does not know; false if it is of no use.
    pub(super) fn adopt(&self, block: BlockId) -> bool {
        let second = self.second();
        let victims = {
            let mut state = self.state.lock();
            if cost(block.len) > state.index.capacity() {
                return false;
            }
            if state.closed || state.index.contains(&block) {
                return true;
            }
            let victims = self.evict(&mut state, |index| index.make_room(cost(block.len)));
            state.index.insert(block, second);
            state.changes.push(Change::added(block));
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

    /// Blocks and bytes now.
    pub fn usage(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.index.len() as u64, state.index.used())
    }

    /// Takes nothing more; the writers finish what is queued and return.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }

    /// Writes the index down for the next start. Call it when the writers have returned.
    pub fn finish(&self) {
        self.flush_changes();
        let mut journal = self.journal.lock();
        let blocks = self.state.lock().index.export();
        let result = if self.sweep.lock().is_done() {
            journal.close(blocks)
        } else {
            // Files that the sweep has not reached stay unknown: leave the log, so that the next start sweeps.
            journal.write_snapshot(blocks)
        };
        if let Err(e) = result {
            self.disk_error("index snapshot", &e);
        }
    }
}

fn make_dir(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path)
}

/// Finds a directory that no other process uses. The lock goes when the file is closed, also after a crash.
fn claim(parent: &Path) -> std::io::Result<(PathBuf, File)> {
    for n in 0..MAX_SIBLINGS {
        let root = parent.join(if n == 0 { "ciderfs".to_owned() } else { format!("ciderfs.{n}") });
        make_dir(&root)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(file::FILE_MODE)
            .open(root.join("lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok((root, lock)),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(std::io::Error::other(format!("{MAX_SIBLINGS} processes use this cache directory already")))
}
