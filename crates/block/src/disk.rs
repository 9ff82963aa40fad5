//! The disk cache: blocks as plain files of a private layout below each cache directory.
//!
//! `<cache dir>/ciderfs/blocks/<2 hex>/<id>_<indx>_<len>` beside `index.*`, `lock` and `tmp/`. Another process that
//! uses the same cache directory gets `ciderfs.1`, and so on; each has the whole configured size. Nothing of it is
//! shared with the official client's `raw/`.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use ciderfs_format::shown;
use ciderfs_object::{Bounce, Buffers};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::budget::Permit;
use crate::config::BlockConfig;
use crate::covered::covered;
use crate::key::{BlockId, Piece, mix};
use crate::stats::Counters;

mod blocks;
mod breaker;
mod clock;
mod dir;
mod expiry;
mod file;
mod index;
mod open;
mod policy;
mod reading;
mod sweep;
#[cfg(test)]
mod tests;
pub mod way;
mod writer;

use blocks::Rules;
use dir::Setup;
pub(crate) use dir::{CacheDir, Found};
use file::{FileError, widened};

/// Threads that write blocks to one directory.
const WRITERS: usize = 2;
/// Reads of cache files that may block at a time.
const READERS: usize = 64;
/// A read that takes longer counts as an error of the disk; the block is downloaded instead.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Reads up to this size are tried on the spot, if the kernel has the data in memory.
const NOWAIT_MAX: u32 = 1 << 20;

/// All cache directories of a mount.
pub(crate) struct DiskCache {
    dirs: Vec<Arc<CacheDir>>,
    buffers: Arc<Buffers>,
    readers: Arc<Semaphore>,
    writers: Mutex<Vec<JoinHandle<()>>>,
}

impl DiskCache {
    /// Opens the configured directories. One that cannot be used is left out with a warning; the cache is never a
    /// reason not to mount.
    pub fn open(cfg: &BlockConfig, buffers: Arc<Buffers>, counters: &Arc<Counters>) -> Self {
        let mut cache = Self {
            dirs: Vec::new(),
            buffers,
            readers: Arc::new(Semaphore::new(READERS)),
            writers: Mutex::default(),
        };
        if cfg.cache_size == 0 || cfg.cache_dirs.is_empty() {
            return cache;
        }
        let n = cfg.cache_dirs.len() as u64;
        let setup = Setup {
            rules: Rules {
                bytes: cfg.cache_size / n,
                items: match cfg.cache_items {
                    0 => usize::MAX,
                    items => usize::try_from((items / n).max(1)).unwrap_or(usize::MAX),
                },
                eviction: cfg.cache_eviction,
                expire: cfg.expire_seconds(),
            },
            mode: cfg.cache_mode,
            free_ratio: f64::from(cfg.free_space_ratio),
            // The writers' queues hold at most a twelfth of the buffer memory.
            queue_limit: cfg.buffer_size / 12 / n,
        };
        if setup.mode.is_cut() {
            let (asked, file) = (setup.mode, setup.mode.file());
            tracing::warn!(
                "cache mode {asked} is taken as {file:04o}: only the owner may change cached blocks"
            );
        }
        for path in &cfg.cache_dirs {
            match CacheDir::open(path, setup, counters.clone()) {
                Ok(dir) => cache.dirs.push(dir),
                Err(e) => tracing::warn!(dir = %shown(path), "no disk cache here: {e}"),
            }
        }
        for dir in &cache.dirs {
            for _ in 0..WRITERS {
                let worker = dir.clone();
                let bounce = Bounce::new(&cache.buffers);
                match std::thread::Builder::new()
                    .name("block-cache".to_owned())
                    .spawn(move || worker.write_queued(bounce))
                {
                    Ok(thread) => cache.writers.lock().push(thread),
                    Err(e) => tracing::warn!("no writer thread for the disk cache: {e}"),
                }
            }
        }
        cache
    }

    /// The directory of a block: the one with the highest mixed number (rendezvous hashing).
    fn dir(&self, block: &BlockId) -> Option<&Arc<CacheDir>> {
        match self.dirs.as_slice() {
            [] => None,
            [only] => Some(only),
            many => many.iter().enumerate().max_by_key(|(i, _)| mix(block.mix() ^ *i as u64)).map(|(_, d)| d),
        }
    }

    /// Looks a block up; counts as a use.
    pub fn find(&self, block: &BlockId) -> Option<Found> {
        self.dir(block)?.find(block)
    }

    /// Is it there?
    pub fn contains(&self, block: &BlockId) -> bool {
        self.dir(block).is_some_and(|dir| dir.contains(block))
    }

    /// Bytes that a permit for [`DiskCache::read`] must cover.
    pub fn read_footprint(piece: &Piece) -> u64 {
        Buffers::footprint(widened(piece.block.len, piece.off, piece.len).1 as usize) as u64
    }

    /// Reads a piece into a buffer covered by `permit`. `None`: the cache could not give it, and forgot it.
    pub async fn read(&self, piece: Piece, permit: Permit) -> Option<Bytes> {
        let Piece { block, off, len } = piece;
        let dir = self.dir(&block)?;
        let (start, n) = widened(block.len, off, len);
        let mut buffer = self.buffers.get(n as usize);
        let cut = move |whole: Bytes| {
            let from = (off - start) as usize;
            whole.slice(from..from + len as usize)
        };
        if n <= NOWAIT_MAX + 2 * file::PIECE
            && let Some(file) = dir.opened(&block)
            && let Some(result) = file.read_nowait(start, buffer.as_mut())
        {
            return match result {
                Ok(()) => Some(cut(covered(buffer.freeze(), permit))),
                Err(e) => {
                    dir.read_failed(&block, &e);
                    None
                }
            };
        }
        let slot = self.readers.clone().acquire_owned().await.ok()?;
        let worker = dir.clone();
        let task = ciderfs_rt::blocking(move || {
            let _slot = slot;
            let mut read = || -> Result<(), FileError> {
                let file = match worker.opened(&block) {
                    Some(file) => file,
                    None => worker.open_file(&block)?,
                };
                file.read(start, buffer.as_mut())
            };
            match read() {
                Ok(()) => Some(covered(buffer.freeze(), permit)),
                Err(e) => {
                    worker.read_failed(&block, &e);
                    None
                }
            }
        });
        match ciderfs_rt::timeout(READ_TIMEOUT, task).await {
            Ok(done) => done.ok().flatten().map(cut),
            Err(_) => {
                dir.disk_error("read", &std::io::ErrorKind::TimedOut.into());
                None
            }
        }
    }

    /// Hands a block to the writers; `permit` covers `data` if nothing else does.
    pub fn insert(&self, block: BlockId, data: Bytes, permit: Option<Permit>) {
        if let Some(dir) = self.dir(&block) {
            dir.insert(block, data, permit);
        }
    }

    /// Is there a cache at all?
    pub fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    /// Forgets a block and removes its file. May block on the disk.
    pub fn remove(&self, block: &BlockId) {
        if let Some(dir) = self.dir(block) {
            dir.remove(block);
        }
    }

    /// Looks after the directories; called about once a second from a thread that may block.
    pub fn maintain(&self, stop: impl Fn() -> bool + Copy) {
        for dir in &self.dirs {
            dir.maintain();
            dir.sweep(stop);
        }
    }

    /// Directories, and those of them that are left alone now.
    pub fn health(&self) -> (u64, u64) {
        let sick = self.dirs.iter().filter(|dir| dir.is_sick()).count();
        (self.dirs.len() as u64, sick as u64)
    }

    /// Blocks and bytes now.
    pub fn usage(&self) -> (u64, u64) {
        self.dirs.iter().map(|d| d.usage()).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// Writes out what is queued and the index. Blocks.
    pub fn shutdown(&self) {
        for dir in &self.dirs {
            dir.close();
        }
        let writers = std::mem::take(&mut *self.writers.lock());
        let any = !writers.is_empty();
        for writer in writers {
            let _ = writer.join();
        }
        if any {
            for dir in &self.dirs {
                dir.finish();
            }
        }
    }

    /// The directories, for tests.
    #[cfg(test)]
    pub fn dirs(&self) -> &[Arc<CacheDir>] {
        &self.dirs
    }
}

impl Drop for DiskCache {
    fn drop(&mut self) {
        for dir in &self.dirs {
            dir.close();
        }
    }
}
