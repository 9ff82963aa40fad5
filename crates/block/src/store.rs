//! The block store: what the file system above calls.

use ciderfs_format::SliceId;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use ciderfs_object::{Buffers, ObjectStore};
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::Semaphore;

use crate::BlockError;
use crate::backend;
use crate::budget::{Budget, Reclaim};
use crate::config::{BlockConfig, ReadHint};
use crate::cpu::Cpu;
use crate::disk::DiskCache;
use crate::download::{self, Asker};
use crate::inner::Inner;
use crate::key::BlockId;
use crate::memory::MemoryCache;
use crate::observe::CacheObserver;
use crate::ranges::RangeCounts;
use crate::read::{self, SlicePart};
use crate::stats::{BlockStats, Counters, count};
use crate::upload::UploadRoom;

/// Deletes of one slice that run at a time.
const DELETES: usize = 8;
/// How often the caches are looked after.
const TICK: Duration = Duration::from_secs(1);
/// How long a hanging cache disk may hold up the end.
const SHUTDOWN: Duration = Duration::from_secs(30);
/// Prefetches that may wait at least, whatever their number of workers.
const MIN_PREFETCH_QUEUE: usize = 10;
/// Blocks that read-ahead may have under way at a time.
const MAX_READ_AHEAD: usize = 64;

/// Blocks by key: upload, download, caches. Cheap to share; see the methods.
pub struct BlockStore {
    pub(crate) inner: Arc<Inner>,
}

impl std::fmt::Debug for BlockStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockStore").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl BlockStore {
    /// Opens the caches and starts their threads. Call the other methods within a tokio runtime.
    ///
    /// Fails with [`BlockError::Config`] only; a cache directory that cannot be used is left out with a warning.
    pub fn new(store: Arc<dyn ObjectStore>, cfg: BlockConfig) -> Result<Arc<Self>, BlockError> {
        let cfg = cfg.checked()?;
        let budget = Budget::new(cfg.buffer_size);
        let buffers = Buffers::new(cfg.buffer_size);
        let counters = Arc::new(Counters::default());
        // A quarter of the budget, all of it given up when somebody needs memory.
        let memory = MemoryCache::new(cfg.buffer_size / 4);
        let reclaim: Arc<dyn Reclaim> = memory.clone();
        budget.set_reclaim(Arc::downgrade(&reclaim));
        let device = store.device();
        let inner = Arc::new(Inner {
            ranges_supported: store.supports_range() && !cfg.verify_reads,
            upload_room: UploadRoom::new(&cfg, device.is_some()),
            streams_cached: !(cfg.compression.is_none() && is_beside_objects(&cfg, device)),
            store,
            memory,
            disk: DiskCache::open(&cfg, buffers.clone(), &counters),
            flights: Arc::default(),
            ranges: RangeCounts::new(),
            cpu: Cpu::new(cfg.cpu_threads, buffers.clone(), cfg.compression),
            buffers,
            counters,
            downloads: Semaphore::new(cfg.max_downloads),
            uploads: Semaphore::new(cfg.max_uploads),
            prefetches: Semaphore::new(cfg.prefetch),
            prefetch_waiting: AtomicUsize::new(0),
            read_ahead: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            budget,
            cfg,
        });
        let weak = Arc::downgrade(&inner);
        let keeper = std::thread::Builder::new().name("block-keeper".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(TICK);
                match weak.upgrade() {
                    Some(inner) if !inner.closed.load(Relaxed) => inner.maintain(),
                    _ => return,
                }
            }
        });
        if let Err(e) = keeper {
            return Err(BlockError::Config(format!("cannot start a thread: {e}")));
        }
        Ok(Arc::new(Self { inner }))
    }

    /// Bytes of a full block.
    pub fn block_size(&self) -> u32 {
        self.inner.cfg.block_size
    }

    /// The memory budget, to be shared with writers and readers above.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.inner.budget
    }

    /// Memory for blocks that are being written.
    pub fn buffers(&self) -> &Arc<Buffers> {
        &self.inner.buffers
    }

    /// Uploads one block and returns when the object is stored. `data` must have the block's exact length, which
    /// becomes part of its name. `tier` is the storage tier of its file, which decides about class and tag of the object. The
    /// caller's permit should cover `data` until this returns.
    pub async fn put_block(&self, id: SliceId, indx: u32, data: Bytes, tier: u8) -> Result<(), BlockError> {
        self.inner.put_block(id, indx, data, tier).await
    }

    /// Waits while more bytes are being uploaded than what keeps the uploads busy: buffering more would gain nothing. Writers
    /// call it before they hand over more.
    pub async fn upload_room(&self) {
        self.inner.upload_room.wait().await;
    }

    /// Reads bytes `[off, off+len)` of slice `id`, whose stored length is `size`: pieces in order, together exactly
    /// `len` bytes, not copied unless memory is short. Their memory counts against the budget until they are
    /// dropped, so drop them before reading on.
    ///
    /// [`BlockError::NotFound`] means that the slice was compacted or deleted: fetch the slice list again.
    pub async fn read(
        &self,
        id: SliceId,
        size: u32,
        off: u32,
        len: u32,
        hint: ReadHint,
    ) -> Result<Vec<Bytes>, BlockError> {
        read::read(&self.inner, SlicePart { id, size, off, len }, hint).await
    }

    /// Reads parts of several slices at once, as a front door's request over a fragmented file needs them; one list of
    /// pieces per part. Use this instead of several [`BlockStore::read`]s at a time: requests that hold some of their
    /// parts while they wait for memory for the others could block each other for ever.
    pub async fn read_parts(
        &self,
        parts: &[SlicePart],
        hint: ReadHint,
    ) -> Result<Vec<Vec<Bytes>>, BlockError> {
        read::read_parts(&self.inner, parts, hint).await
    }

    /// Fetches a block into the caches in the background; `BlockConfig::prefetch` at a time. Dropped when too many
    /// wait or memory is short.
    pub fn prefetch(&self, id: SliceId, size: u32, indx: u32) {
        let inner = &self.inner;
        let workers = inner.cfg.prefetch;
        let Some(block) = BlockId::of(id, size, indx, inner.cfg.block_size).filter(|_| workers > 0) else {
            return;
        };
        if inner.has(&block) {
            return;
        }
        let queue = (4 * workers).max(MIN_PREFETCH_QUEUE) + workers;
        let Some(place) = Place::take(inner.clone(), |i| &i.prefetch_waiting, queue) else {
            return count(&inner.counters.prefetch_dropped, 1);
        };
        inner.spawn(async move {
            if let Ok(_slot) = place.inner.prefetches.acquire().await {
                download::fetch_ahead(&place.inner, block, Asker::Prefetch).await;
            }
        });
    }

    /// Starts fetching a block that a sequential reader will want soon. Unlike [`BlockStore::prefetch`] it waits for
    /// no worker. False: not started, because memory is short or enough is under way; try again later.
    pub fn read_ahead(&self, id: SliceId, size: u32, indx: u32) -> bool {
        let inner = &self.inner;
        let Some(block) = BlockId::of(id, size, indx, inner.cfg.block_size) else { return true };
        if inner.has(&block) {
            return true;
        }
        let Some(place) = Place::take(inner.clone(), |i| &i.read_ahead, MAX_READ_AHEAD) else {
            return false;
        };
        if !download::memory_for_more(inner) {
            return false;
        }
        inner.spawn(async move { download::fetch_ahead(&place.inner, block, Asker::Stream).await });
        true
    }

    /// Is the block in a cache or on its way there?
    pub fn is_cached(&self, id: SliceId, size: u32, indx: u32) -> bool {
        BlockId::of(id, size, indx, self.inner.cfg.block_size).is_some_and(|block| self.inner.has(&block))
    }

    /// Deletes all blocks of a slice, from the caches first. Missing objects are fine. All blocks are tried; the first
    /// error is returned, and calling again is safe.
    pub async fn delete_slice(&self, id: SliceId, size: u32) -> Result<(), BlockError> {
        let inner = &self.inner;
        if inner.cfg.read_only {
            return Err(BlockError::ReadOnly);
        }
        let this = inner.clone();
        // Removing files may block. A failure here only leaves garbage to the eviction.
        let _ = ciderfs_rt::blocking(move || this.evict_slice(id, size)).await;
        let deletes = stream::iter(BlockId::all(id, size, inner.cfg.block_size)).map(|block| async move {
            let key = block.object(inner.cfg.hash_prefix);
            count(&inner.counters.deletes, 1);
            backend::delete(&*inner.store, &key).await.inspect_err(|_| count(&inner.counters.errors, 1))
        });
        deletes.buffer_unordered(DELETES).fold(Ok(()), |first, result| async move { first.and(result) }).await
    }

    /// Forgets all blocks of a slice in the caches. May block on the cache disk.
    pub fn evict_slice(&self, id: SliceId, size: u32) {
        self.inner.evict_slice(id, size);
    }

    /// Says who is told how long the cache disks take. Only the first call counts.
    pub fn observe_cache(&self, observer: CacheObserver) {
        self.inner.counters.cache_uses.set(observer);
    }

    /// The counters now.
    pub fn stats(&self) -> BlockStats {
        let inner = &self.inner;
        let (cache_blocks, cache_bytes) = inner.disk.usage();
        let (memory_blocks, memory_bytes) = inner.memory.usage();
        let (disks, disks_sick) = inner.disk.health();
        let uploading = inner.cfg.max_uploads.saturating_sub(inner.uploads.available_permits()) as u64;
        BlockStats {
            cache_blocks,
            cache_bytes,
            memory_blocks,
            memory_bytes,
            disks,
            disks_sick,
            uploading,
            buffer_used: inner.budget.used(),
            buffer_peak: inner.budget.peak(),
            ..inner.counters.snapshot()
        }
    }

    /// Ends the caches in good order, so that the next start finds them. Uploads under way are the caller's to wait
    /// for; reads still work afterwards, new uploads and deletes too, but nothing is cached on disk.
    pub async fn shutdown(&self) {
        self.inner.closed.store(true, Relaxed);
        let inner = self.inner.clone();
        let end = ciderfs_rt::blocking(move || inner.disk.shutdown());
        if ciderfs_rt::timeout(SHUTDOWN, end).await.is_err() {
            tracing::warn!("the cache disk hangs; the next start will have to look at its files");
        }
    }
}

/// Is every cache directory on the file system that holds the objects?
fn is_beside_objects(cfg: &BlockConfig, device: Option<u64>) -> bool {
    let Some(device) = device else { return false };
    // The directory may not be there yet; the nearest that is tells.
    let of = |dir: &PathBuf| dir.ancestors().find_map(|d| std::fs::metadata(d).ok()).map(|m| m.dev());
    cfg.cache_dirs.iter().all(|dir| of(dir) == Some(device))
}

/// A place among a bounded number, given back on drop.
struct Place {
    inner: Arc<Inner>,
    counter: fn(&Inner) -> &AtomicUsize,
}

impl Place {
    fn take(inner: Arc<Inner>, counter: fn(&Inner) -> &AtomicUsize, limit: usize) -> Option<Self> {
        if counter(&inner).fetch_add(1, Relaxed) >= limit {
            counter(&inner).fetch_sub(1, Relaxed);
            return None;
        }
        Some(Self { inner, counter })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.counter)(&self.inner).fetch_sub(1, Relaxed);
    }
}
