//! What the parts of the store share.

use ciderfs_format::SliceId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use ciderfs_format::objname::block_count;
use ciderfs_object::{Buffers, ObjectStore};
use ciderfs_rt::Instant;
use tokio::sync::Semaphore;

use crate::BlockError;
use crate::backend;
use crate::budget::{Budget, BudgetKind};
use crate::config::BlockConfig;
use crate::cpu::Cpu;
use crate::disk::DiskCache;
use crate::flight::Flights;
use crate::key::BlockId;
use crate::memory::MemoryCache;
use crate::ranges::RangeCounts;
use crate::stats::{Counters, count};
use crate::upload::UploadRoom;

/// What the store's tasks share.
pub(crate) struct Inner {
    pub store: Arc<dyn ObjectStore>,
    pub cfg: BlockConfig,
    pub budget: Arc<Budget>,
    pub memory: Arc<MemoryCache>,
    pub disk: DiskCache,
    pub flights: Arc<Flights>,
    pub ranges: RangeCounts,
    pub cpu: Cpu,
    pub buffers: Arc<Buffers>,
    pub counters: Arc<Counters>,
    pub downloads: Semaphore,
    pub ranges_supported: bool,
    pub uploads: Semaphore,
    pub upload_room: UploadRoom,
    /// Do blocks that a stream fetches go to the disk cache?
    pub streams_cached: bool,
    pub prefetches: Semaphore,
    pub prefetch_waiting: AtomicUsize,
    pub read_ahead: AtomicUsize,
    pub closed: AtomicBool,
}

impl Inner {
    /// Runs a background task on the caller's runtime; without one it is dropped, nobody waits for it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        match tokio::runtime::Handle::try_current() {
            Ok(handle) => drop(handle.spawn(task)),
            Err(_) => count(&self.counters.prefetch_dropped, 1),
        }
    }

    /// Is the block in a cache or on its way there?
    pub fn has(&self, block: &BlockId) -> bool {
        self.memory.contains(block) || self.flights.find(block).is_some() || self.disk.contains(block)
    }

    pub fn evict_slice(&self, id: SliceId, size: u32) {
        for block in BlockId::all(id, size, self.cfg.block_size) {
            self.memory.remove(&block);
            self.disk.remove(&block);
        }
    }

    pub fn maintain(&self) {
        self.memory.expire(Instant::now());
        self.buffers.trim();
        self.disk.maintain(|| self.closed.load(Relaxed));
    }

    pub async fn put_block(&self, id: SliceId, indx: u32, data: Bytes, tier: u8) -> Result<(), BlockError> {
        if self.cfg.read_only {
            return Err(BlockError::ReadOnly);
        }
        let len = u32::try_from(data.len()).ok().filter(|n| (1..=self.cfg.block_size).contains(n));
        let Some(len) = len.filter(|_| indx < block_count(u32::MAX, self.cfg.block_size)) else {
            return Err(BlockError::Invalid(format!("block {indx} of slice {id} with {} bytes", data.len())));
        };
        let block = BlockId { id, indx, len };
        let key = block.object(self.cfg.hash_prefix);
        {
            let _room = self.upload_room.take(len.into());
            let _slot = self.uploads.acquire().await.map_err(|_| BlockError::Closed)?;
            let body = if self.cfg.compression.is_none() {
                data.clone()
            } else {
                // Scratch memory is a kind of its own: dirty data can only shrink when its uploads get on.
                let need = self.cpu.compress_footprint(data.len());
                let permit = self.budget.acquire(need, BudgetKind::Scratch).await;
                self.cpu
                    .compress(data.clone(), permit)
                    .await?
                    .map_err(|e| BlockError::Corrupt { key: key.clone(), detail: e.to_string() })?
            };
            count(&self.counters.puts, 1);
            count(&self.counters.put_bytes, body.len() as u64);
            backend::put(&*self.store, &key, body, tier)
                .await
                .inspect_err(|_| count(&self.counters.errors, 1))?;
        }
        if !self.disk.is_empty() && (len < self.cfg.block_size || self.cfg.cache_large_write) {
            // The caller's permit ends with this call, so the queue needs one of its own.
            match self.budget.try_acquire(len.into(), BudgetKind::Cache) {
                Some(permit) => self.disk.insert(block, data, Some(permit)),
                None => count(&self.counters.cache_drops, 1),
            }
        }
        Ok(())
    }
}
