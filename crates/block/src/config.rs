//! Settings of the block layer.

use std::path::PathBuf;
use std::time::Duration;

use ciderfs_format::Compression;

use crate::{BlockError, CacheMode, Eviction};

/// Smallest block size of the volume format.
pub const MIN_BLOCK_SIZE: u32 = 64 << 10;
/// Largest block size of the volume format.
pub const MAX_BLOCK_SIZE: u32 = 16 << 20;
/// Smallest `buffer_size` that is accepted, like the official client's.
pub const MIN_BUFFER_SIZE: u64 = 32 << 20;

/// Shortest `cache_expire` but 0.
const MIN_CACHE_EXPIRE: Duration = Duration::from_secs(1);

/// How blocks are stored, cached and bounded.
#[derive(Debug, Clone)]
pub struct BlockConfig {
    /// Bytes of a full block: a power of two from 64 KiB to 16 MiB, from the volume settings.
    pub block_size: u32,
    /// Compression of block objects, from the volume settings.
    pub compression: Compression,
    /// Whether object names start with a hash directory, from the volume settings.
    pub hash_prefix: bool,
    /// Cache directories, the volume's UUID already appended; none means memory only.
    pub cache_dirs: Vec<PathBuf>,
    /// Bytes of the disk cache over all directories; 0 means no disk cache.
    pub cache_size: u64,
    /// Blocks in the disk cache over all directories; 0 means as many as `cache_size` and the file system take, up to
    /// eight million in each.
    pub cache_items: u64,
    /// Who may read the files of the disk cache.
    pub cache_mode: CacheMode,
    /// Which block leaves the disk cache for another one.
    pub cache_eviction: Eviction,
    /// Blocks in the disk cache that were not used for this long leave it; 0 means never. Raised to a second if shorter.
    pub cache_expire: Duration,
    /// Share of the cache's file system (blocks and inodes) that stays free, 0 to 1.
    pub free_space_ratio: f32,
    /// Keep full blocks in the disk cache after their upload.
    pub cache_large_write: bool,
    /// Keep only blocks smaller than `block_size` in the disk cache.
    pub cache_partial_only: bool,
    /// Bytes of all block-sized buffers, see [`crate::Budget`]; raised to 32 MiB if smaller.
    pub buffer_size: u64,
    /// Concurrent prefetches; 0 turns [`crate::BlockStore::prefetch`] off.
    pub prefetch: usize,
    /// Concurrent uploads.
    pub max_uploads: usize,
    /// Concurrent downloads.
    pub max_downloads: usize,
    /// Threads that compress and decompress at a time.
    pub cpu_threads: usize,
    /// Refuse uploads and deletes.
    pub read_only: bool,
    /// Fetch whole blocks only, because a part of an object cannot be verified.
    pub verify_reads: bool,
}

impl Default for BlockConfig {
    /// The official client's defaults, without a disk cache.
    fn default() -> Self {
        Self {
            block_size: 4 << 20,
            compression: Compression::None,
            hash_prefix: false,
            cache_dirs: Vec::new(),
            cache_size: 100 << 30,
            cache_items: 0,
            cache_mode: CacheMode::default(),
            cache_eviction: Eviction::default(),
            cache_expire: Duration::ZERO,
            free_space_ratio: 0.1,
            cache_large_write: false,
            cache_partial_only: false,
            buffer_size: 300 << 20,
            prefetch: 1,
            max_uploads: 20,
            max_downloads: 200,
            cpu_threads: std::thread::available_parallelism().map_or(2, usize::from),
            read_only: false,
            verify_reads: false,
        }
    }
}

impl BlockConfig {
    /// Refuses what cannot work and raises what is merely too small.
    pub(crate) fn checked(mut self) -> Result<Self, BlockError> {
        if !self.block_size.is_power_of_two() || !(MIN_BLOCK_SIZE..=MAX_BLOCK_SIZE).contains(&self.block_size)
        {
            return Err(BlockError::Config(format!(
                "block size {} is not a power of two from 64 KiB to 16 MiB",
                self.block_size
            )));
        }
        if !(0.0..=1.0).contains(&self.free_space_ratio) {
            return Err(BlockError::Config(format!(
                "free space ratio {} is not between 0 and 1",
                self.free_space_ratio
            )));
        }
        if !self.cache_expire.is_zero() {
            self.cache_expire = self.cache_expire.max(MIN_CACHE_EXPIRE);
        }
        self.buffer_size = self.buffer_size.max(MIN_BUFFER_SIZE);
        self.max_uploads = self.max_uploads.max(1);
        self.max_downloads = self.max_downloads.max(1);
        self.cpu_threads = self.cpu_threads.max(1);
        Ok(self)
    }

    /// `cache_expire` in whole seconds, a begun one included.
    pub(crate) fn expire_seconds(&self) -> u32 {
        let expire = self.cache_expire;
        u32::try_from(expire.as_secs())
            .map_or(u32::MAX, |s| s.saturating_add((expire.subsec_nanos() > 0).into()))
    }
}

/// What a reader is likely to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReadHint {
    /// Anything: small pieces are fetched by range.
    #[default]
    Random,
    /// It goes on behind this piece: whole blocks are fetched.
    Sequential,
}
