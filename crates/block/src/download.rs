//! Downloads: whole blocks, each in a task of its own that any number of readers wait for, and ranges of blocks.

use std::sync::Arc;

use bytes::Bytes;
use ciderfs_object::Buffers;

use crate::BlockError;
use crate::backend;
use crate::budget::{BudgetKind, Permit};
use crate::covered::covered;
use crate::flight::{Pilot, Start};
use crate::inner::Inner;
use crate::key::{BlockId, Piece};
use crate::stats::count;

/// Attempts to get a block whose object is too short or does not decompress.
const CORRUPT_ATTEMPTS: u32 = 2;
/// Bytes that an object may be longer than its block. The official client takes the first ones of any; nobody writes such
/// objects, and what a reader has room for is its block.
const LONGER: usize = 64 << 10;
/// Fetching ahead stops when more than this part of the budget is used: 3/4 of what readers can have.
const AHEAD_LIMIT: (u64, u64) = (3, 4);

/// Bytes that a download of the whole block needs, the compressed body included.
pub(crate) fn whole_cost(inner: &Inner, block: &BlockId) -> u64 {
    let len = block.len as usize;
    let compression = inner.cfg.compression;
    if compression.is_none() { len as u64 } else { (Buffers::footprint(len) + compression.bound(len)) as u64 }
}

/// Who asks for a whole block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// Somebody waits for it who reads here and there.
    Reader,
    /// A stream of reads has come to it, or will soon.
    Stream,
    /// Nobody yet; it was read in part.
    Prefetch,
}

/// Does a block that was fetched go to the disk cache?
fn is_kept(inner: &Inner, block: &BlockId, asker: Asker) -> bool {
    let cfg = &inner.cfg;
    block.len < cfg.block_size
        || match asker {
            Asker::Prefetch => true,
            Asker::Reader => !cfg.cache_partial_only,
            // From the same disk, without being unpacked, it comes as fast the next time: a copy costs more than it brings.
            Asker::Stream => !cfg.cache_partial_only && inner.streams_cached,
        }
}

/// Downloads a block in a task of its own, so that a reader who gives up does not take it from the others.
pub(crate) fn launch(inner: &Arc<Inner>, block: BlockId, permit: Permit, pilot: Pilot, asker: Asker) {
    let inner = inner.clone();
    ciderfs_rt::spawn(async move {
        let outcome = whole(&inner, block, permit).await;
        if let Ok(data) = &outcome {
            inner.memory.insert(block, data.clone(), &inner.budget);
            if is_kept(&inner, &block, asker) {
                inner.disk.insert(block, data.clone(), None);
            }
        }
        pilot.land(outcome);
    });
}

async fn whole(inner: &Inner, block: BlockId, mut permit: Permit) -> Result<Bytes, BlockError> {
    let counters = &inner.counters;
    let key = block.object(inner.cfg.hash_prefix);
    let _slot = inner.downloads.acquire().await.map_err(|_| BlockError::Closed)?;
    let len = block.len as usize;
    let mut attempt = 1;
    loop {
        count(&counters.gets, 1);
        let body = backend::get_whole(&*inner.store, &key, inner.cfg.compression.bound(len) + LONGER)
            .await
            .inspect_err(|e| count(&counters.errors, (!e.is_not_found()).into()))?;
        count(&counters.get_bytes, body.len() as u64);
        let detail = if inner.cfg.compression.is_none() {
            if body.len() >= len {
                // Somewhat longer ones are tolerated, as by the official client.
                return Ok(covered(body.slice(..len), permit));
            }
            format!("{} bytes instead of {len}", body.len())
        } else {
            let own = permit.split(Buffers::footprint(len) as u64);
            match inner.cpu.decompress(body, len, own).await? {
                Ok(data) => return Ok(data),
                Err((e, own)) => {
                    // Back to one permit for the next attempt.
                    permit = permit.join(own);
                    e.to_string()
                }
            }
        };
        count(&counters.corrupt, 1);
        if attempt == CORRUPT_ATTEMPTS {
            count(&counters.errors, 1);
            return Err(BlockError::Corrupt { key, detail });
        }
        tracing::warn!(key, "object is damaged, fetched again: {detail}");
        attempt += 1;
    }
}

pub(crate) async fn range(inner: &Inner, piece: Piece, permit: Permit) -> Result<Bytes, BlockError> {
    let counters = &inner.counters;
    let key = piece.block.object(inner.cfg.hash_prefix);
    let _slot = inner.downloads.acquire().await.map_err(|_| BlockError::Closed)?;
    count(&counters.range_gets, 1);
    let from = u64::from(piece.off);
    let body = backend::get_range(&*inner.store, &key, from..from + u64::from(piece.len))
        .await
        .inspect_err(|e| count(&counters.errors, (!e.is_not_found()).into()))?;
    count(&counters.get_bytes, body.len() as u64);
    if body.len() != piece.len as usize {
        count(&counters.corrupt, 1);
        let detail = format!("a range of {} bytes has {}", piece.len, body.len());
        return Err(BlockError::Corrupt { key, detail });
    }
    Ok(covered(body, permit))
}

/// May more be fetched than what somebody waits for?
pub(crate) fn memory_for_more(inner: &Inner) -> bool {
    let budget = &inner.budget;
    let (part, of) = AHEAD_LIMIT;
    let readers = budget.limit() - budget.reserve(BudgetKind::Write) - budget.reserve(BudgetKind::Scratch);
    !budget.has_waiters() && budget.used_by(BudgetKind::Read) < readers / of * part
}

/// Fetches a block that nobody waits for yet, if there is memory for it.
pub(crate) async fn fetch_ahead(inner: &Arc<Inner>, block: BlockId, asker: Asker) {
    if inner.has(&block) {
        return;
    }
    let permit = memory_for_more(inner)
        .then(|| inner.budget.try_acquire(whole_cost(inner, &block), BudgetKind::Read))
        .flatten();
    let Some(permit) = permit else {
        return count(&inner.counters.prefetch_dropped, 1);
    };
    if let Start::Mine(flight, pilot) = inner.flights.start(block, || inner.memory.get(&block, 0)) {
        launch(inner, block, permit, pilot, asker);
        // Nobody is told: whoever needs the block will see the error.
        let _ = flight.wait().await;
    }
}
