//! Figures of the layers of a mount.

use ciderfs_block::{BlockStats, BudgetKind};
use ciderfs_meta::store::EngineMemory;
use ciderfs_meta::{MetaCounters, VolumeStat};
use tokio::runtime::RuntimeMetrics;

use super::figures::Value::{Float, Int, Maybe};
use super::figures::{Figure, Value};
use crate::vfs::Vfs;

/// What was seen of a mount.
pub(crate) struct Mounted {
    blocks: BlockStats,
    buffer_limit: u64,
    buffer_reading: u64,
    meta: MetaCounters,
    memory: Option<EngineMemory>,
    volume: VolumeStat,
    lost: bool,
    backlog: Backlog,
    handles: usize,
    tasks: usize,
    workers: usize,
}

/// What was written here and is not part of the volume yet.
#[derive(Default)]
struct Backlog {
    bytes: u64,
    slices: u64,
    oldest: f64,
}

/// Nothing waits on the disk of this machine for its upload: a write is acknowledged by `fsync` when it is stored.
const NOTHING_STAGED: Value<Mounted> = Int(|_| 0);

pub(crate) const TABLE: &[Figure<Mounted>] = &[
    Figure::gauge("used_space", "Bytes used by the volume", Int(|m| m.volume.used_space)),
    Figure::gauge("used_inodes", "Inodes used by the volume", Int(|m| m.volume.used_inodes)),
    Figure::gauge("total_space", "Bytes that the volume can hold", Int(|m| m.volume.total_space)),
    Figure::gauge(
        "total_inodes",
        "Inodes that the volume can hold",
        Int(|m| m.volume.used_inodes.saturating_add(m.volume.avail_inodes)),
    ),
    Figure::gauge("fuse_open_handlers", "Open handles", Int(|m| m.handles as u64)),
    Figure::gauge("go_goroutines", "Tasks that are alive", Int(|m| m.tasks as u64)),
    Figure::gauge("go_sched_gomaxprocs_threads", "Threads that run tasks", Int(|m| m.workers as u64)),
    // Memory.
    Figure::gauge("used_buffer_size_bytes", "Bytes of buffers in use", Int(|m| m.blocks.buffer_used)),
    Figure::gauge("used_read_buffer_size_bytes", "Of these, for readers", Int(|m| m.buffer_reading)),
    Figure::gauge("buffer_limit_bytes", "Bytes of buffers that may be in use", Int(|m| m.buffer_limit)),
    Figure::gauge(
        "buffer_peak_bytes",
        "The most bytes of buffers that were in use",
        Int(|m| m.blocks.buffer_peak),
    ),
    Figure::gauge("store_cache_size_bytes", "Bytes of blocks kept in memory", Int(|m| m.blocks.memory_bytes)),
    // The cache.
    Figure::gauge("blockcache_blocks", "Blocks in the disk cache", Int(|m| m.blocks.cache_blocks)),
    Figure::gauge("blockcache_bytes", "Bytes in the disk cache", Int(|m| m.blocks.cache_bytes)),
    Figure::counter("blockcache_hits", "Reads served by the cache", Int(|m| m.blocks.hits)),
    Figure::counter("blockcache_hit_bytes", "Bytes served by the cache", Int(|m| m.blocks.hit_bytes)),
    Figure::counter("blockcache_miss", "Reads not served by the cache", Int(|m| m.blocks.misses)),
    Figure::counter("blockcache_miss_bytes", "Bytes not served by the cache", Int(|m| m.blocks.miss_bytes)),
    Figure::counter("blockcache_writes", "Blocks written to the disk cache", Int(|m| m.blocks.cache_writes)),
    Figure::counter("blockcache_write_bytes", "Bytes of these", Int(|m| m.blocks.cache_write_bytes)),
    Figure::counter("blockcache_drops", "Blocks that were not cached", Int(|m| m.blocks.cache_drops)),
    Figure::counter("blockcache_evicts", "Blocks evicted from the disk cache", Int(|m| m.blocks.evictions)),
    Figure::gauge("blockcache_disks", "Cache directories", Int(|m| m.blocks.disks)),
    Figure::gauge(
        "blockcache_disks_sick",
        "Cache directories that are left alone because their disk fails",
        Int(|m| m.blocks.disks_sick),
    ),
    Figure::counter("blockcache_disk_errors", "Failures of cache disks", Int(|m| m.blocks.disk_errors)),
    Figure::counter("blockcache_corrupt", "Blocks that were damaged", Int(|m| m.blocks.corrupt)),
    // Uploads.
    Figure::gauge("object_request_uploading", "Uploads under way", Int(|m| m.blocks.uploading)),
    Figure::gauge(
        "upload_backlog_bytes",
        "Bytes written here that are not part of the volume yet",
        Int(|m| m.backlog.bytes),
    ),
    Figure::gauge("upload_backlog_slices", "Slices of these bytes", Int(|m| m.backlog.slices)),
    Figure::gauge(
        "upload_backlog_oldest_seconds",
        "Age of the oldest of these bytes",
        Float(|m| m.backlog.oldest),
    ),
    Figure::gauge("staging_blocks", "Blocks staged on the local disk", NOTHING_STAGED),
    Figure::gauge("staging_block_bytes", "Bytes staged on the local disk", NOTHING_STAGED),
    Figure::gauge("staging_writing_blocks", "Blocks being staged", NOTHING_STAGED),
    Figure::counter("staging_write_bytes", "Bytes that were staged", NOTHING_STAGED),
    Figure::counter("staging_block_errors", "Failures to stage a block", NOTHING_STAGED),
    Figure::counter("staging_block_delay_seconds", "Seconds that staged blocks waited", NOTHING_STAGED),
    // The metadata engine and the session there.
    Figure::counter("meta_turns_total", "Round trips to the metadata engine", Int(|m| m.meta.turns)),
    Figure::counter(
        "meta_retries_total",
        "Calls repeated because it was unavailable",
        Int(|m| m.meta.retries),
    ),
    Figure::gauge(
        "meta_engine_used_bytes",
        "Memory that the metadata engine uses",
        Maybe(|m| Some(m.memory?.used)),
    ),
    Figure::gauge(
        "meta_engine_limit_bytes",
        "Memory that the metadata engine may use",
        Maybe(|m| Some(m.memory?.limit).filter(|n| *n > 0)),
    ),
    Figure::gauge(
        "session_lost",
        "1 while others may have declared the session dead, and given its locks away",
        Int(|m| m.lost.into()),
    ),
    Figure::counter(
        "session_losses_total",
        "Times that the session was declared dead",
        Int(|m| m.meta.losses),
    ),
];

/// Looks at a mount.
pub(crate) fn look(vfs: &Vfs, runtime: &RuntimeMetrics) -> Mounted {
    let budget = vfs.blocks.budget();
    Mounted {
        blocks: vfs.blocks.stats(),
        buffer_limit: budget.limit(),
        buffer_reading: budget.used_by(BudgetKind::Read),
        meta: vfs.meta.counters(),
        memory: vfs.meta.engine_memory(),
        volume: vfs.meta.known_stat(),
        lost: vfs.meta.lease_is_over(),
        backlog: backlog(vfs),
        handles: vfs.handles.len(),
        tasks: runtime.num_alive_tasks(),
        workers: runtime.num_workers(),
    }
}

fn backlog(vfs: &Vfs) -> Backlog {
    let mut backlog = Backlog::default();
    for file in vfs.files.all() {
        for p in file.state.lock().slices() {
            backlog.bytes += u64::from(p.len);
            backlog.slices += 1;
            backlog.oldest = backlog.oldest.max(p.created.elapsed().as_secs_f64());
        }
    }
    backlog
}
