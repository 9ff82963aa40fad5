//! The read path: memory, a download under way, disk, a range, the whole block.
//!
//! Memory is taken before anything is started, in one request for all pieces of a read, while holding nothing. A
//! download has its memory before it is registered, so whoever joins one waits only for the network. That is why
//! readers cannot block each other however small the budget is.
//!
//! A read that wants little but whose blocks together need more than an eighth of the budget (many small extents of
//! large blocks, or a small budget) is copied out piece by piece instead: scratch memory for the copy first, then one
//! block at a time. Scratch may wait for read memory, read memory never waits for scratch.

use ciderfs_format::SliceId;
use std::sync::Arc;

use bytes::Bytes;
use ciderfs_rt::Instant;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::BlockError;
use crate::budget::{BudgetKind, Permit};
use crate::config::ReadHint;
use crate::covered::covered;
use crate::disk::{DiskCache, Found};
use crate::download::{Asker, launch, range, whole_cost};
use crate::flight::{Flight, Start};
use crate::inner::Inner;
use crate::key::Piece;
use crate::observe::CacheUse;
use crate::stats::count;

/// Pieces smaller than this part of their block may be fetched by range.
const RANGE_PART: u32 = 4;
/// Blocks up to this size come whole: the bytes saved are not worth a second request.
const MIN_RANGE_BLOCK: u32 = 128 << 10;
/// Pieces of one read that are fetched at a time.
const PARALLEL: usize = 64;
/// Reads of several pieces that need more than this part of the budget, and want less than it, are copied out.
const COPY_ABOVE: u64 = 8;
/// Pieces that are copied out at a time.
const PARALLEL_COPIES: usize = 4;

/// Where a piece comes from.
enum Source {
    Memory(Bytes),
    Flight(Flight),
    Disk,
    Range,
    Whole,
}

/// Why a piece did not come.
enum Failure {
    /// The pieces together need too much memory: copy them out one by one.
    TooMuch,
    /// A cache or a range failed. It is not there any more, or not to be used again: look anew.
    Again,
    Error(BlockError),
}

impl From<BlockError> for Failure {
    fn from(error: BlockError) -> Self {
        Self::Error(error)
    }
}

/// What may still be tried for this read.
#[derive(Clone, Copy)]
struct Allowed {
    disk: bool,
    range: bool,
}

/// A part of a slice, for [`crate::BlockStore::read_parts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlicePart {
    /// Slice id.
    pub id: SliceId,
    /// Stored length of the slice in bytes.
    pub size: u32,
    /// First byte of the part in the slice.
    pub off: u32,
    /// Bytes of the part.
    pub len: u32,
}

/// See [`crate::BlockStore::read_parts`].
pub(crate) async fn read_parts(
    inner: &Arc<Inner>,
    parts: &[SlicePart],
    hint: ReadHint,
) -> Result<Vec<Vec<Bytes>>, BlockError> {
    let mut pieces = Vec::new();
    let mut counts = Vec::with_capacity(parts.len());
    for part in parts {
        let cut = Piece::cut(part.id, part.size, part.off, part.len, inner.cfg.block_size)?;
        counts.push(cut.len());
        pieces.extend(cut);
    }
    let mut bytes = read_pieces(inner, &pieces, hint).await?.into_iter();
    Ok(counts.into_iter().map(|n| bytes.by_ref().take(n).collect()).collect())
}

/// See [`crate::BlockStore::read`].
pub(crate) async fn read(
    inner: &Arc<Inner>,
    part: SlicePart,
    hint: ReadHint,
) -> Result<Vec<Bytes>, BlockError> {
    let pieces = Piece::cut(part.id, part.size, part.off, part.len, inner.cfg.block_size)?;
    read_pieces(inner, &pieces, hint).await
}

async fn read_pieces(inner: &Arc<Inner>, pieces: &[Piece], hint: ReadHint) -> Result<Vec<Bytes>, BlockError> {
    if let Some(out) = direct(inner, pieces, hint).await? {
        return Ok(out);
    }
    let total = pieces.iter().map(|piece| u64::from(piece.len)).sum();
    let mut permit = inner.budget.acquire(total, BudgetKind::Scratch).await;
    let copies: Vec<_> =
        pieces.iter().map(|&piece| copy(inner, piece, permit.split(piece.len.into()), hint)).collect();
    stream::iter(copies).buffered(PARALLEL_COPIES).try_collect().await
}

/// One piece in memory of its own; its block is let go when this returns, not when the others have come too.
async fn copy(inner: &Arc<Inner>, piece: Piece, permit: Permit, hint: ReadHint) -> Result<Bytes, BlockError> {
    let whole = direct(inner, &[piece], hint).await?.unwrap_or_default();
    Ok(covered(whole.concat().into(), permit))
}

/// Reads the pieces without copying; `None` if several together need too much memory.
async fn direct(
    inner: &Arc<Inner>,
    pieces: &[Piece],
    hint: ReadHint,
) -> Result<Option<Vec<Bytes>>, BlockError> {
    let ranges = hint == ReadHint::Random && inner.cfg.compression.is_none() && inner.ranges_supported;
    let mut allowed = Allowed { disk: true, range: ranges };
    let mut retries = pieces.len();
    loop {
        match attempt(inner, pieces, hint, allowed).await {
            Ok(out) => return Ok(Some(out)),
            Err(Failure::TooMuch) => return Ok(None),
            Err(Failure::Error(e)) => return Err(e),
            Err(Failure::Again) => {
                // Each round drops a cache entry, so a few suffice; then the caches have lost their credit.
                allowed = Allowed { disk: retries > 0, range: false };
                retries = retries.saturating_sub(1);
            }
        }
    }
}

async fn attempt(
    inner: &Arc<Inner>,
    pieces: &[Piece],
    hint: ReadHint,
    allowed: Allowed,
) -> Result<Vec<Bytes>, Failure> {
    let look = |promote: bool| -> Vec<Source> {
        pieces.iter().map(|piece| locate(inner, piece, hint, allowed, promote)).collect()
    };
    let need = |sources: &[Source]| -> u64 {
        pieces.iter().zip(sources).map(|(piece, source)| cost(inner, piece, source)).sum()
    };
    let mut sources = look(true);
    let bytes = need(&sources);
    let wanted: u64 = pieces.iter().map(|piece| u64::from(piece.len)).sum();
    let share = inner.budget.limit() / COPY_ABOVE;
    let too_much = |bytes: u64| pieces.len() > 1 && bytes > share && wanted <= share;
    if too_much(bytes) {
        return Err(Failure::TooMuch);
    }
    let mut permit = match inner.budget.try_acquire(bytes, BudgetKind::Read) {
        Some(permit) => permit,
        None => {
            // Hold nothing while waiting, and ask for the worst, because what was found may be gone by then.
            let worst = pieces
                .iter()
                .zip(&sources)
                .map(|(piece, source)| match source {
                    Source::Range => cost(inner, piece, source).max(DiskCache::read_footprint(piece)),
                    _ => cost(inner, piece, &Source::Whole).max(DiskCache::read_footprint(piece)),
                })
                .sum();
            if too_much(worst) {
                return Err(Failure::TooMuch);
            }
            sources.clear();
            let mut permit = inner.budget.acquire(worst, BudgetKind::Read).await;
            sources = look(false);
            let bytes = need(&sources);
            if bytes > permit.bytes() {
                // A piece that was to be fetched by range now has to come whole. Rare: begin again.
                return Err(Failure::Again);
            }
            permit.shrink_to(bytes);
            permit
        }
    };
    let jobs: Vec<_> = pieces
        .iter()
        .zip(sources)
        .map(|(piece, source)| {
            let share = permit.split(cost(inner, piece, &source));
            (*piece, source, share)
        })
        .collect();
    if let [_] = jobs.as_slice() {
        // The usual case needs no stream.
        let mut out = Vec::with_capacity(1);
        for (piece, source, share) in jobs {
            out.push(fetch(inner, piece, source, share, hint).await?);
        }
        return Ok(out);
    }
    stream::iter(jobs)
        .map(|(piece, source, share)| fetch(inner, piece, source, share, hint))
        .buffered(PARALLEL)
        .try_collect()
        .await
}

/// Bytes of the block that the memory cache need not keep for this reader: who reads on will not be back, and the disk cache,
/// or the disk that the objects are on, has the block for others.
fn taken(inner: &Inner, piece: &Piece, hint: ReadHint) -> u32 {
    if hint == ReadHint::Sequential && !inner.disk.is_empty() { piece.len } else { 0 }
}

fn locate(inner: &Inner, piece: &Piece, hint: ReadHint, allowed: Allowed, promote: bool) -> Source {
    let block = &piece.block;
    if let Some(data) = inner.memory.get(block, taken(inner, piece, hint)) {
        return Source::Memory(data);
    }
    if let Some(flight) = inner.flights.find(block) {
        return Source::Flight(flight);
    }
    if allowed.disk {
        match inner.disk.find(block) {
            Some(Found::Memory(data)) => return Source::Memory(data),
            Some(Found::File) => return Source::Disk,
            None => {}
        }
    }
    let small = block.len > MIN_RANGE_BLOCK && piece.len <= block.len / RANGE_PART;
    if allowed.range && small && (!promote || inner.ranges.may_range(block)) {
        return Source::Range;
    }
    Source::Whole
}

/// Bytes that a piece from this source adds to what is in memory.
fn cost(inner: &Inner, piece: &Piece, source: &Source) -> u64 {
    match source {
        Source::Memory(_) | Source::Flight(_) => 0,
        Source::Disk => DiskCache::read_footprint(piece),
        Source::Range => piece.len.into(),
        Source::Whole => whole_cost(inner, &piece.block),
    }
}

async fn fetch(
    inner: &Arc<Inner>,
    piece: Piece,
    source: Source,
    permit: Permit,
    hint: ReadHint,
) -> Result<Bytes, Failure> {
    let counters = &inner.counters;
    let cut = |block: Bytes| {
        let from = piece.off as usize;
        block.slice(from..from + piece.len as usize)
    };
    let hit = |memory: bool| {
        count(&counters.hits, 1);
        count(&counters.hit_bytes, piece.len.into());
        count(&counters.memory_hits, memory.into());
    };
    // The memory cache has the block by now.
    let note = || drop(inner.memory.get(&piece.block, taken(inner, &piece, hint)));
    let miss = || {
        count(&counters.misses, 1);
        count(&counters.miss_bytes, piece.len.into());
    };
    match source {
        Source::Memory(data) => {
            hit(true);
            Ok(cut(data))
        }
        Source::Disk => {
            let began = Instant::now();
            let data = inner.disk.read(piece, permit).await.ok_or(Failure::Again)?;
            inner.counters.cache_uses.tell(CacheUse::Read, began.elapsed());
            hit(false);
            Ok(data)
        }
        Source::Range => match range(inner, piece, permit).await {
            Ok(data) => {
                miss();
                Ok(data)
            }
            Err(e) if e.is_not_found() => Err(e.into()),
            // Like the official client: what a range cannot give, the whole block may.
            Err(_) => Err(Failure::Again),
        },
        Source::Flight(flight) => {
            miss();
            let block = flight.wait().await?;
            note();
            Ok(cut(block))
        }
        Source::Whole => match inner
            .flights
            .start(piece.block, || inner.memory.get(&piece.block, taken(inner, &piece, hint)))
        {
            Start::Done(data) => {
                hit(true);
                Ok(cut(data))
            }
            Start::Joined(flight) => {
                drop(permit);
                miss();
                let block = flight.wait().await?;
                note();
                Ok(cut(block))
            }
            Start::Mine(flight, pilot) => {
                miss();
                let asker = if hint == ReadHint::Sequential { Asker::Stream } else { Asker::Reader };
                launch(inner, piece.block, permit, pilot, asker);
                let block = flight.wait().await?;
                note();
                Ok(cut(block))
            }
        },
    }
}
