//! Compaction: a chunk whose list has grown long gets one new slice in the place of many (`docs/format/chunks-and-slices.md#compaction`).
//!
//! Clients do not coordinate. Whoever commits first wins; the other one deletes what it has stored.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use ciderfs_block::{BlockError, BudgetKind, ReadHint, SlicePart};
use ciderfs_format::compaction::{self, Plan};
use ciderfs_format::{Ino, Slice, SliceId};
use ciderfs_meta::ChunkView;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::content::file::File;
use crate::error::Result;
use crate::vfs::Vfs;

/// Compactions that run at a time; more are not begun, somebody will see the list again.
const AT_ONCE: usize = 10;
/// Blocks of one compaction that are copied at a time.
const BLOCKS_AT_ONCE: usize = 2;
/// A list read with so many records or pieces is compacted.
const READ_RECORDS: usize = 5;
/// After an append that leaves this many records, modulo the period, the list is compacted,
const WRITTEN_RECORDS: (usize, usize) = (99, 100);
/// or after each append that leaves more than this.
const LONG_LIST: usize = 350;
/// The writer waits for the compaction of a list of this length.
const FULL_LIST: usize = 2500;

/// The chunks being compacted.
#[derive(Default)]
pub(crate) struct Compactions {
    running: Mutex<HashSet<(Ino, u32)>>,
    /// The mount ends: nothing new begins, and what runs gives up what it has not stored yet.
    closing: AtomicBool,
    ended: Notify,
}

impl Compactions {
    fn begin(&self, ino: Ino, indx: u32) -> bool {
        let mut running = self.running.lock();
        !self.closing() && running.len() < AT_ONCE && running.insert((ino, indx))
    }

    fn closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns when none runs any more, so that none is cut off between storing its slice and committing it.
    pub(crate) async fn close(&self) {
        {
            let _none_begins = self.running.lock();
            self.closing.store(true, Ordering::Release);
        }
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.running.lock().is_empty() {
                return;
            }
            ended.await;
        }
    }
}

/// Ends the entry of a chunk, also if the task is dropped.
struct Running(Arc<Vfs>, Ino, u32);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.compactions.running.lock().remove(&(self.1, self.2));
        self.0.compactions.ended.notify_waiters();
    }
}

impl Vfs {
    /// Looks at the lengths of lists after a commit. Waits only where a list is about to overflow.
    pub(crate) async fn after_write(self: &Arc<Self>, file: &File, lists: &[(u32, usize)]) {
        for &(indx, records) in lists {
            if records >= FULL_LIST {
                self.compact_chunk(file.ino, indx).await;
            } else if records > LONG_LIST || records % WRITTEN_RECORDS.1 == WRITTEN_RECORDS.0 {
                self.compact_in_background(file.ino, indx);
            }
        }
    }

    /// Looks at a list that a reader has fetched.
    pub(crate) fn note_view(self: &Arc<Self>, ino: Ino, indx: u32, view: &ChunkView) {
        if view.records >= 2 && (view.records >= READ_RECORDS || view.extents.len() >= READ_RECORDS) {
            self.compact_in_background(ino, indx);
        }
    }

    fn compact_in_background(self: &Arc<Self>, ino: Ino, indx: u32) {
        let vfs = Arc::clone(self);
        ciderfs_rt::spawn(async move { vfs.compact_chunk(ino, indx).await });
    }

    /// Compacts a chunk, unless that is being done, or too many are.
    async fn compact_chunk(self: &Arc<Self>, ino: Ino, indx: u32) {
        if self.meta.is_read_only() || !self.compactions.begin(ino, indx) {
            return;
        }
        let _running = Running(Arc::clone(self), ino, indx);
        match self.try_compact(ino, indx).await {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                self.metrics.compacted(bytes);
                self.remembered.forget_views(ino);
                if let Some(file) = self.files.get(ino) {
                    file.forget_content();
                }
            }
            Err(e) => tracing::warn!("compaction of chunk {indx} of inode {ino} is left for later: {e}"),
        }
    }

    /// The size of the new slice, or `None` if there was nothing to gain or somebody else was faster.
    async fn try_compact(self: &Arc<Self>, ino: Ino, indx: u32) -> Result<Option<u32>> {
        let list = self.meta.read_raw_chunk(ino, indx).await?;
        let Some(plan) = compaction::plan(&list) else { return Ok(None) };
        if let Some(reserved) = plan.reservation() {
            let raw = &list[..plan.taken];
            return Ok(self.meta.commit_compaction(ino, indx, raw, 0, reserved).await?.then_some(0));
        }
        let tier = match self.files.get(ino) {
            Some(file) => file.attr().tier,
            None => self.meta.getattr(ino).await?.tier,
        };
        let id = self.meta.new_slice_id().await?;
        if let Err(e) = self.copy_plan(id, &plan, tier).await {
            self.discard(id, plan.size).await;
            // Somebody else has compacted the chunk and deleted what we were about to copy.
            return if e.is_not_found() || self.compactions.closing() { Ok(None) } else { Err(e.into()) };
        }
        let raw = &list[..plan.skipped + plan.taken];
        let new = Slice { pos: plan.pos, id, size: plan.size, off: 0, len: plan.size };
        // After an error the outcome is unknown: the objects may be in use and are left to garbage collection.
        if self.meta.commit_compaction(ino, indx, raw, plan.skipped, new).await? {
            return Ok(Some(plan.size));
        }
        self.discard(id, plan.size).await;
        Ok(None)
    }

    async fn discard(&self, id: SliceId, size: u32) {
        if let Err(e) = self.blocks.delete_slice(id, size).await {
            tracing::warn!("objects of the unused slice {id} are left to garbage collection: {e}");
        }
    }

    async fn copy_plan(&self, id: SliceId, plan: &Plan, tier: u8) -> std::result::Result<(), BlockError> {
        let block = self.blocks.block_size();
        let copies: Vec<_> = (0..plan.size.div_ceil(block))
            .map(|n| {
                let range = n * block..(n * block).saturating_add(block).min(plan.size);
                async move {
                    if self.compactions.closing() {
                        return Err(BlockError::Invalid("the mount ends".into()));
                    }
                    // Paid for like written data, one block at a time: nothing else is waited for while it is held
                    // but the memory to read one block's sources.
                    let _permit = self
                        .blocks
                        .budget()
                        .acquire(u64::from(range.end - range.start), BudgetKind::Write)
                        .await;
                    let body = self.gather(plan, range).await?;
                    self.blocks.put_block(id, n, body, tier).await
                }
            })
            .collect();
        // All of them end before this returns, also after an error: an upload that is given up may still arrive, behind
        // the deletion of what was stored.
        let ended: Vec<_> = stream::iter(copies).buffer_unordered(BLOCKS_AT_ONCE).collect().await;
        ended.into_iter().collect()
    }

    /// Bytes `range` of the new slice.
    async fn gather(&self, plan: &Plan, range: Range<u32>) -> std::result::Result<Bytes, BlockError> {
        let (mut parts, mut places) = (Vec::new(), Vec::new());
        for piece in plan.pieces.iter().filter(|p| p.id.is_data()) {
            let start = (piece.pos - plan.pos).max(range.start);
            let end = (piece.pos - plan.pos + piece.len).min(range.end);
            if start < end {
                let off = piece.off.saturating_add(start - (piece.pos - plan.pos));
                parts.push(SlicePart { id: piece.id, size: piece.size, off, len: end - start });
                places.push((start - range.start) as usize);
            }
        }
        let mut body = BytesMut::zeroed((range.end - range.start) as usize);
        for (mut at, bytes) in places.into_iter().zip(self.blocks.read_parts(&parts, ReadHint::Random).await?)
        {
            for b in bytes {
                body[at..at + b.len()].copy_from_slice(&b);
                at += b.len();
            }
        }
        Ok(body.freeze())
    }
}
