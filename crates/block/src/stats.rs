//! Counters of the block layer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A snapshot of the counters; all count from the start of the process unless they say "now".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockStats {
    /// Pieces read from memory or disk.
    pub hits: u64,
    /// Bytes of these pieces.
    pub hit_bytes: u64,
    /// Of the hits, those from memory.
    pub memory_hits: u64,
    /// Pieces that came from the object store.
    pub misses: u64,
    /// Bytes of these pieces.
    pub miss_bytes: u64,
    /// Full downloads begun.
    pub gets: u64,
    /// Range downloads begun.
    pub range_gets: u64,
    /// Bytes downloaded, as stored.
    pub get_bytes: u64,
    /// Uploads begun.
    pub puts: u64,
    /// Bytes uploaded, as stored.
    pub put_bytes: u64,
    /// Object deletes begun.
    pub deletes: u64,
    /// Uploads, downloads and deletes that failed after all retries; missing objects are none.
    pub errors: u64,
    /// Blocks whose object or cache file was damaged.
    pub corrupt: u64,
    /// Prefetches that were dropped for lack of memory or places.
    pub prefetch_dropped: u64,
    /// Blocks in the disk cache now.
    pub cache_blocks: u64,
    /// Bytes in the disk cache now, 4096 per block included.
    pub cache_bytes: u64,
    /// Blocks in the memory cache now.
    pub memory_blocks: u64,
    /// Bytes in the memory cache now.
    pub memory_bytes: u64,
    /// Blocks written to the disk cache.
    pub cache_writes: u64,
    /// Bytes of these blocks.
    pub cache_write_bytes: u64,
    /// Blocks not cached because the write queue or the disk was full.
    pub cache_drops: u64,
    /// Blocks evicted from the disk cache.
    pub evictions: u64,
    /// Failed or overlong operations on cache disks.
    pub disk_errors: u64,
    /// Times that a cache disk was left alone for a minute.
    pub disk_trips: u64,
    /// Cache directories.
    pub disks: u64,
    /// Of these, those on a disk that is left alone now.
    pub disks_sick: u64,
    /// Uploads under way now.
    pub uploading: u64,
    /// Bytes of block buffers in use now.
    pub buffer_used: u64,
    /// The most bytes of block buffers that were in use.
    pub buffer_peak: u64,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// The counters themselves.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub $name: AtomicU64,)*
            /// Who is told how long the cache disks take.
            pub cache_uses: crate::observe::Observed,
        }

        impl Counters {
            /// Copies the counters; what only others know stays zero.
            pub fn snapshot(&self) -> BlockStats {
                BlockStats { $($name: self.$name.load(Relaxed),)* ..BlockStats::default() }
            }
        }
    };
}

counters!(
    hits,
    hit_bytes,
    memory_hits,
    misses,
    miss_bytes,
    gets,
    range_gets,
    get_bytes,
    puts,
    put_bytes,
    deletes,
    errors,
    corrupt,
    prefetch_dropped,
    cache_writes,
    cache_write_bytes,
    cache_drops,
    evictions,
    disk_errors,
    disk_trips,
);

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}
