//! Copying ranges between files by reference (`docs/format/chunks-and-slices.md#copying`): no data moves.
//!
//! The slices that a copy names must not be dropped between the moment when the source's lists were read and the commit.
//! Each list that was read is therefore guarded: it still is what was copied, so each of its records still holds its
//! reference, and the new references are counted in the same commit. Compaction, truncation and deletion by any client
//! change the list, or drop its references only by taking it whole.
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ciderfs_format::slice::{MAX_FILE_SIZE, chunk_at, chunk_count, chunk_start, resolve};
use ciderfs_format::{Attr, CHUNK_SIZE, Ino, Slice};

use super::data::EMPTIED_CHUNKS_MAX;
use super::fallocate::erase;
use super::rules::check_flags;
use crate::error::{Errno, Result};
use crate::store::{AttrMask, Read, Scan, Scanned, Write};
use crate::txn::{Step, Txn};
use crate::types::{Caller, Copied};
use crate::volume::Meta;

/// Lists of the source read for one commit.
const CHUNKS_PER_COMMIT: u32 = 64;
/// Records appended in one commit.
const RECORDS_PER_COMMIT: usize = 4096;
/// A range over more chunks of the source has its existing lists looked up, so that long holes cost one commit.
const PROBED_CHUNKS_MAX: u32 = 4096;

impl Meta {
    /// Copies the beginning of `len` bytes, as much as one commit holds, from `(inode, offset)` to `(inode, offset)`. 0 bytes
    /// means that the source ends there. Both files are open here, the target for writing, and have been flushed.
    ///
    /// # Errors
    /// `EINVAL` (not regular files, overlapping ranges of one file), `EFBIG`, `EPERM` (a flag), `ENOSPC`, `ENOENT`, `EROFS`.
    pub async fn copy_range(
        self: &Arc<Self>,
        c: &Caller,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
    ) -> Result<Copied> {
        let _timed = self.timed("CopyFileRange");
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let seen = self.lock_loss(to.0);
        let hole = self.hole_ahead(from, len).await?;
        let (mut lists_at, mut taken) = (Vec::new(), Vec::new());
        let ran = self
            .run_fenced("CopyFileRange", to.0, seen, |t| {
                t.want([Read::Attr(from.0), Read::Attr(to.0)])?;
                let s = t.attr(from.0, AttrMask::IDENTITY | AttrMask::LENGTH)?;
                let d = t.attr(to.0, AttrMask::IDENTITY | AttrMask::LENGTH | AttrMask::TIMES)?;
                let len = check_copy((from, &s), (to, &d), len)?;
                if len == 0 {
                    return Ok((0, 0, None));
                }
                (lists_at, taken) = (Vec::new(), Vec::new());
                let copied = if hole > 0 {
                    // Zeroing more of the target in one commit would need a look at its lists.
                    let most = if to.1 < d.length { chunk_start(EMPTIED_CHUNKS_MAX) } else { u64::MAX };
                    let copied = hole.min(len).min(most);
                    erase(t, to.0, to.1..to.1.saturating_add(copied), d.length, &[], &mut taken);
                    copied
                } else {
                    copy_records(t, from, (to.0, to.1, d.length), len, &mut lists_at)?
                };
                // Applied twice it is the same copy with as many more references.
                let changed =
                    self.mark_changed(t, c, (to.0, &d), d.length.max(to.1.saturating_add(copied)))?;
                Ok((copied, len.saturating_sub(copied), Some(changed)))
            })
            .await?;
        let dead = ran.outputs.iter().enumerate().filter(|(i, _)| taken.contains(i));
        self.deletions.push_dead(dead.map(|(_, o)| o));
        let lists = ran.lists(&lists_at);
        let (bytes, rest, changed) = ran.value;
        Ok(Copied { bytes, rest, changed, lists })
    }

    /// How many bytes of a very long range are a hole at its beginning, if that is more than a commit of records holds;
    /// else 0.
    async fn hole_ahead(&self, (ino, off): (Ino, u64), len: u64) -> Result<u64> {
        let first = chunk_at(off);
        if chunk_at(len) < PROBED_CHUNKS_MAX {
            return Ok(0);
        }
        let end = off.saturating_add(len).min(self.getattr(ino).await?.length);
        if chunk_count(end).saturating_sub(first) < PROBED_CHUNKS_MAX {
            return Ok(0);
        }
        let next = self.next_chunk(ino, first).await?.map_or(end, chunk_start).min(end);
        let hole = next.saturating_sub(off);
        Ok(if hole > chunk_start(CHUNKS_PER_COMMIT) { hole } else { 0 })
    }

    /// The first existing list of a file at or behind a chunk.
    async fn next_chunk(&self, ino: Ino, from: u32) -> Result<Option<u32>> {
        Ok(self.chunk_indexes(ino).await?.into_iter().find(|indx| *indx >= from))
    }

    /// Indexes of the lists that a file has, ascending. Everything in other chunks is a hole.
    pub async fn chunk_indexes(&self, ino: Ino) -> Result<Vec<u32>> {
        let lists = self.scan(Scan::Chunks(ino), usize::MAX).await?.into_iter();
        let mut out: Vec<u32> =
            lists.filter_map(|i| if let Scanned::Chunk(indx) = i { Some(indx) } else { None }).collect();
        out.sort_unstable();
        Ok(out)
    }
}

/// The number of bytes that there are to copy.
fn check_copy(
    ((source, from), s): ((Ino, u64), &Attr),
    ((target, to), d): ((Ino, u64), &Attr),
    len: u64,
) -> Result<u64, Errno> {
    if !s.is_file() || !d.is_file() {
        return Err(Errno::EINVAL);
    }
    check_flags(d, true)?;
    let len = len.min(s.length.saturating_sub(from));
    let end = to.checked_add(len).filter(|end| *end < MAX_FILE_SIZE).ok_or(Errno::EFBIG)?;
    if source == target && len > 0 && from < end && to < from.saturating_add(len) {
        return Err(Errno::EINVAL);
    }
    Ok(len)
}

/// Buffers the records of up to `len` bytes; returns how many bytes they stand for.
fn copy_records(
    t: &mut Txn<'_>,
    (source, off): (Ino, u64),
    (target, to, length): (Ino, u64, u64),
    len: u64,
    lists_at: &mut Vec<(u32, usize)>,
) -> Step<u64> {
    let first = chunk_at(off);
    let end = off.saturating_add(len);
    let chunks = first..chunk_count(end).min(first.saturating_add(CHUNKS_PER_COMMIT));
    t.want(chunks.clone().map(|indx| Read::Slices(source, indx)))?;
    let mut out = Records { length, ..Records::default() };
    let mut copied = 0;
    for indx in chunks {
        let list = t.slices(source, indx)?;
        let base = chunk_start(indx);
        let range = off.max(base)..end.min(base.saturating_add(CHUNK_SIZE));
        for piece in pieces(&list, base, &range) {
            if out.count >= RECORDS_PER_COMMIT {
                break;
            }
            out.put(to.saturating_add(copied), piece);
            copied = copied.saturating_add(u64::from(piece.len));
        }
        if out.count >= RECORDS_PER_COMMIT {
            break;
        }
    }
    for (&(id, size), &n) in &out.uses {
        t.write(Write::AddSliceRef(id, size, n));
    }
    for (indx, records) in out.lists {
        lists_at.push((indx, t.write(Write::AppendSlices(target, indx, records))));
    }
    Ok(copied)
}

/// What a range of a file consists of in the chunk that begins at `base`, without gaps; positions mean nothing.
fn pieces(list: &[Slice], base: u64, range: &Range<u64>) -> Vec<Slice> {
    let mut out: Vec<Slice> = Vec::new();
    let mut push = |piece: Slice| match out.last_mut() {
        Some(last) if last.id == 0 && piece.id == 0 => last.len = last.len.saturating_add(piece.len),
        _ => out.push(piece),
    };
    let mut at = range.start;
    for e in resolve(list) {
        let from = base.saturating_add(u64::from(e.pos)).max(range.start);
        let to = base.saturating_add(e.end()).min(range.end);
        if from < to {
            let cut = (from.saturating_sub(base) as u32).saturating_sub(e.pos);
            let len = to.saturating_sub(from) as u32;
            let off = e.off.saturating_add(cut);
            push(if e.id == 0 { Slice::zeros(0, len) } else { Slice { off, len, ..e } });
            at = to;
        }
    }
    if at < range.end {
        push(Slice::zeros(0, range.end.saturating_sub(at) as u32));
    }
    out
}

/// Records for the target.
#[derive(Default)]
struct Records {
    /// Length of the target before; zeros beyond it need no record.
    length: u64,
    lists: BTreeMap<u32, Vec<Slice>>,
    uses: BTreeMap<(u64, u32), i64>,
    count: usize,
}

impl Records {
    /// Puts a piece at an offset of the target, cut at the border of its chunks.
    fn put(&mut self, at: u64, piece: Slice) {
        for (indx, record) in piece.at_offset(at) {
            let begins = chunk_start(indx).saturating_add(u64::from(record.pos));
            if record.id > 0 || begins < self.length {
                self.lists.entry(indx).or_default().push(record);
                self.count = self.count.saturating_add(1);
                if record.id > 0 {
                    let n = self.uses.entry((record.id, record.size)).or_default();
                    *n = i64::saturating_add(*n, 1);
                }
            }
        }
    }
}
