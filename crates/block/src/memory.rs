//! The memory cache: a few blocks that were just downloaded, so that the reads that follow need neither disk nor net.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use ciderfs_rt::Instant;
use parking_lot::Mutex;

use crate::budget::{Budget, Reclaim};
use crate::key::BlockId;

/// Blocks that nobody touched for this long are dropped.
const IDLE: Duration = Duration::from_secs(10);

/// Whole blocks in memory, least recently used first out. Their bytes are covered by the permits tied to them, so
/// dropping one here frees budget as soon as the last reader lets go.
pub(crate) struct MemoryCache {
    inner: Mutex<Inner>,
    capacity: u64,
    used: AtomicU64,
}

#[derive(Default)]
struct Inner {
    blocks: HashMap<BlockId, Entry>,
    /// Keys by time of use; the lowest goes first.
    order: BTreeMap<u64, BlockId>,
    tick: u64,
}

struct Entry {
    data: Bytes,
    tick: u64,
    /// Bytes that sequential readers have had of it.
    read: u32,
    touched: Instant,
}

/// Blocks kept that sequential readers have read: the kernel asks a little out of order, and some pieces twice.
const FINISHED_KEPT: usize = 2;
/// Ticks of entries in use start here and those of entries that were read are below, so the latter go first.
const IN_USE: u64 = 1 << 63;

impl MemoryCache {
    /// A cache of at most `capacity` bytes.
    pub fn new(capacity: u64) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::default(), capacity, used: AtomicU64::new(0) })
    }

    /// The block, if present. A sequential reader takes `read` bytes of it: it goes soon when all of it was taken, in whatever
    /// order.
    pub fn get(&self, block: &BlockId, read: u32) -> Option<Bytes> {
        let mut dropped = None;
        let found = {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            let entry = inner.blocks.get_mut(block)?;
            inner.order.remove(&entry.tick);
            inner.tick += 1;
            entry.read = entry.read.saturating_add(read);
            let finished = entry.read >= block.len;
            entry.tick = if finished { inner.tick } else { inner.tick | IN_USE };
            entry.touched = Instant::now();
            inner.order.insert(entry.tick, *block);
            let found = entry.data.clone();
            if finished && inner.order.range(..IN_USE).count() > FINISHED_KEPT {
                dropped = self.pop(inner);
            }
            found
        };
        drop(dropped);
        Some(found)
    }

    /// Is it there? Does not count as use.
    pub fn contains(&self, block: &BlockId) -> bool {
        self.inner.lock().blocks.contains_key(block)
    }

    /// Keeps a whole block, unless somebody waits for its memory.
    pub fn insert(&self, block: BlockId, data: Bytes, budget: &Arc<Budget>) {
        if u64::from(block.len) > self.capacity || budget.has_waiters() {
            return;
        }
        let mut dropped = Vec::new();
        {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            inner.tick += 1;
            let tick = inner.tick | IN_USE;
            if let Some(old) =
                inner.blocks.insert(block, Entry { data, tick, read: 0, touched: Instant::now() })
            {
                inner.order.remove(&old.tick);
                self.used.fetch_sub(u64::from(block.len), Relaxed);
                dropped.push(old.data);
            }
            inner.order.insert(tick, block);
            self.used.fetch_add(u64::from(block.len), Relaxed);
            while self.used.load(Relaxed) > self.capacity {
                match self.pop(inner) {
                    Some(data) => dropped.push(data),
                    None => break,
                }
            }
        }
        drop(dropped);
        // A request that began to wait after the check above has not seen this block.
        budget.serve_by_reclaim();
    }

    /// Forgets a block.
    pub fn remove(&self, block: &BlockId) {
        let mut inner = self.inner.lock();
        if let Some(entry) = inner.blocks.remove(block) {
            inner.order.remove(&entry.tick);
            self.used.fetch_sub(u64::from(block.len), Relaxed);
            drop(inner);
            drop(entry);
        }
    }

    /// Drops blocks that nobody touched for a while.
    pub fn expire(&self, now: Instant) {
        let mut dropped = Vec::new();
        {
            let mut inner = self.inner.lock();
            let old: Vec<BlockId> = inner
                .blocks
                .iter()
                .filter(|(_, e)| now.saturating_duration_since(e.touched) > IDLE)
                .map(|(block, _)| *block)
                .collect();
            for block in old {
                if let Some(entry) = inner.blocks.remove(&block) {
                    inner.order.remove(&entry.tick);
                    self.used.fetch_sub(u64::from(block.len), Relaxed);
                    dropped.push(entry);
                }
            }
        }
        drop(dropped);
    }

    /// Blocks and bytes now.
    pub fn usage(&self) -> (u64, u64) {
        (self.inner.lock().blocks.len() as u64, self.used.load(Relaxed))
    }

    fn pop(&self, inner: &mut Inner) -> Option<Bytes> {
        let (_, block) = inner.order.pop_first()?;
        let entry = inner.blocks.remove(&block)?;
        self.used.fetch_sub(u64::from(block.len), Relaxed);
        Some(entry.data)
    }
}

impl Reclaim for MemoryCache {
    fn reclaim(&self) -> bool {
        let data = {
            let mut inner = self.inner.lock();
            self.pop(&mut inner)
        };
        data.is_some()
    }
}
