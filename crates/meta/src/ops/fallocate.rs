//! Allocating, punching and zeroing ranges of a file (`docs/format/chunks-and-slices.md#allocating`).
//!
//! Space is never set apart in advance: object stores have none to give. What `fallocate` promises is that the volume's limits
//! allowed so much when it returned. That it was asked for is noted in the lists, for `st_blocks`.
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use std::ops::Range;
use std::sync::Arc;

use ciderfs_format::attr::flags;
use ciderfs_format::slice::{MAX_FILE_SIZE, chunk_at, chunk_count, chunk_start, resolve};
use ciderfs_format::{Attr, CHUNK_SIZE, Ino, Slice};

use super::data::{Beyond, EMPTIED_CHUNKS_MAX, SCANS_MAX, growth};
use crate::error::{Errno, Result};
use crate::store::{AttrMask, Read, Write};
use crate::txn::{Step, Txn};
use crate::types::{Allocate, Caller, Changed};
use crate::volume::{Meta, UNLIMITED_SPACE};

/// Space reserved in more chunks than this is not noted.
const NOTED_CHUNKS_MAX: usize = 1024;
/// After so many tries against others who write to the same chunks nothing is noted either.
const NOTING_TRIES: u32 = 8;

impl Meta {
    /// Allocates or erases bytes `[off, off + len)` of a file that the caller has open for writing. The caller has
    /// flushed what was written before. Tells what became of the file, and how long those lists are now that a note of
    /// reserved space was added to.
    ///
    /// # Errors
    /// `EINVAL` (nothing to do), `EFBIG`, `EPERM` (not a regular file, immutable, append-only and more than growth is
    /// asked for), `ENOSPC`, `ENOENT`, `EROFS`.
    pub async fn fallocate(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        how: Allocate,
        off: u64,
        len: u64,
    ) -> Result<(Changed, Vec<(u32, usize)>)> {
        let _timed = self.timed("Fallocate");
        if len == 0 {
            return Err(Errno::EINVAL.into());
        }
        let end = off.checked_add(len).filter(|end| *end < MAX_FILE_SIZE).ok_or(Errno::EFBIG)?;
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        // Where nothing else sets a limit, more than `statfs` tells to be free cannot be promised.
        let free = match how.reserves() && len > UNLIMITED_SPACE / 8 && self.settings().capacity == 0 {
            true => self.statfs().await?.avail_space,
            false => u64::MAX,
        };
        let mut tries: u32 = 0;
        let seen = self.lock_loss(ino);
        let mut known = Beyond::default();
        for last in (0..SCANS_MAX).rev() {
            let mut taken: Vec<usize> = Vec::new();
            let mut noted: Vec<(u32, usize)> = Vec::new();
            let ran = self
                .run_fenced("Fallocate", ino, seen, |t| {
                    t.want([Read::Attr(ino)])?;
                    let a = t.attr(ino, AttrMask::IDENTITY | AttrMask::LENGTH | AttrMask::TIMES)?;
                    check_allocation(&a, how)?;
                    if end.saturating_sub(a.length.max(off)) > free {
                        return Err(Errno::ENOSPC.into());
                    }
                    if how.erases() && many_whole_chunks(&(off..end), a.length) {
                        // Then the lists to give back are looked up; they are those of exactly these attributes.
                        t.attr(ino, AttrMask::ALL)?;
                        if known.of.as_ref() != Some(&a) && last > 0 {
                            return Ok(None);
                        }
                    }
                    taken.clear();
                    tries = tries.saturating_add(1);
                    let work =
                        Work { how, range: off..end, lists: &known.lists, note: tries <= NOTING_TRIES };
                    let (changed, lists) = self.allocate_step(t, c, (ino, &a), work, &mut taken)?;
                    noted = lists;
                    Ok(Some(changed))
                })
                .await?;
            let lists = ran.lists(&noted);
            let Some(changed) = ran.value else {
                known = self.lists_beyond(ino, off).await?;
                continue;
            };
            let dead = ran.outputs.iter().enumerate().filter(|(i, _)| taken.contains(i));
            self.deletions.push_dead(dead.map(|(_, o)| o));
            return Ok((changed, lists));
        }
        Err(Errno::EIO.into())
    }

    /// Tells what becomes of the file, and the chunks with the writes that note reserved space in them.
    fn allocate_step(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        (ino, a): (Ino, &Attr),
        Work { how, range, lists, note }: Work<'_>,
        taken: &mut Vec<usize>,
    ) -> Step<(Changed, Vec<(u32, usize)>)> {
        let reach = range.end.max(a.length);
        let (room, _) = growth(a.length, reach);
        let length = if how.keeps_size() { a.length } else { reach };
        let inside = range.start..range.end.min(length);
        let note = note && how.reserves() && chunks(&inside).len() <= NOTED_CHUNKS_MAX;
        if how.erases() {
            // What is noted hides what is in a part of a chunk.
            let erased = if note { in_whole_chunks(&range, a.length) } else { range };
            erase(t, ino, erased, a.length, lists, taken);
        }
        let mut noted = Vec::new();
        if note {
            let free_from = if how.erases() { inside.start } else { a.length };
            noted = note_reserved(t, ino, inside, free_from)?;
        }
        if length == a.length && !matches!(how, Allocate::Punch) {
            // Nothing is taken yet; there must be room for it all the same.
            t.charges.probe = true;
            t.charge(Some((a.uid, a.gid)), room, 0);
            t.charges.dir(a.parent, room, 0);
        }
        Ok((self.mark_changed(t, c, (ino, a), length)?, noted))
    }
}

/// What is to be done with a range.
struct Work<'a> {
    how: Allocate,
    range: Range<u64>,
    /// Lists to give back, if there are too many chunks to try each of them.
    lists: &'a [u32],
    /// Is reserved space to be noted?
    note: bool,
}

fn check_allocation(a: &Attr, how: Allocate) -> Result<(), Errno> {
    let forbidden = match how {
        Allocate::Grow | Allocate::Reserve => flags::IMMUTABLE,
        _ => flags::IMMUTABLE | flags::APPEND,
    };
    if !a.is_file() || a.flags & forbidden != 0 { Err(Errno::EPERM) } else { Ok(()) }
}

/// Indexes of the chunks that a range touches.
fn chunks(range: &Range<u64>) -> Range<u32> {
    if range.is_empty() {
        return 0..0;
    }
    chunk_at(range.start)..chunk_count(range.end)
}

/// The part of a range of a file of this length that consists of whole chunks.
fn in_whole_chunks(range: &Range<u64>, length: u64) -> Range<u64> {
    let whole = whole_chunks(range, length);
    chunk_start(whole.start)..chunk_start(whole.end).min(range.end)
}

/// Buffers the records that note a range of a file as reserved, where it holds no data: it holds none from `free_from` on.
/// Returns chunks and writes.
fn note_reserved(t: &mut Txn<'_>, ino: Ino, range: Range<u64>, free_from: u64) -> Step<Vec<(u32, usize)>> {
    let mut noted = Vec::new();
    let looked_at = chunks(&(range.start..range.end.min(free_from)));
    t.want(looked_at.clone().map(|indx| Read::Slices(ino, indx)))?;
    for indx in chunks(&range) {
        let base = chunk_start(indx);
        let part = range.start.saturating_sub(base)..range.end.saturating_sub(base).min(CHUNK_SIZE);
        let list = if looked_at.contains(&indx) { t.slices(ino, indx)? } else { Vec::new() };
        let holes = holes(&list, part);
        if !holes.is_empty() {
            noted.push((indx, t.write(Write::AppendSlices(ino, indx, holes))));
        }
    }
    Ok(noted)
}

/// Records that reserve what a chunk's list leaves free in a range of the chunk.
fn holes(list: &[Slice], range: Range<u64>) -> Vec<Slice> {
    let mut out = Vec::new();
    let mut at = range.start;
    let mut fill = |to: u64, next: u64| {
        if at < to {
            out.push(Slice::reserved(at as u32, to.saturating_sub(at) as u32));
        }
        at = at.max(next);
    };
    for e in resolve(list).iter().filter(|e| e.is_allocated() && e.end() > range.start) {
        fill(u64::from(e.pos).min(range.end), e.end());
    }
    fill(range.end, range.end);
    out
}

/// Chunks of a file of this length that lie wholly in a range. A range that reaches the end covers the last one too.
fn whole_chunks(range: &Range<u64>, length: u64) -> Range<u32> {
    let last = if range.end >= length { chunk_count(length) } else { chunk_at(range.end) };
    chunk_count(range.start)..last
}

fn many_whole_chunks(range: &Range<u64>, length: u64) -> bool {
    let whole = whole_chunks(range, length);
    whole.end.saturating_sub(whole.start) > EMPTIED_CHUNKS_MAX
}

/// Buffers what makes a range of a file of this length read as zeros. Whole chunks give back their slices at once; of very
/// many only those that `lists` names, the others (which came into being meanwhile, or were too many) get a record of zeros.
/// Lists that do not exist are not made.
pub(super) fn erase(
    t: &mut Txn<'_>,
    ino: Ino,
    range: Range<u64>,
    length: u64,
    lists: &[u32],
    taken: &mut Vec<usize>,
) {
    let range = range.start..range.end.min(length);
    if range.is_empty() {
        return;
    }
    let whole = whole_chunks(&range, length);
    let mut at = range.start;
    while at < range.end {
        let chunk = chunk_at(at);
        if whole.contains(&chunk) {
            at = chunk_start(whole.end);
            continue;
        }
        let next = chunk.saturating_add(1);
        let end = range.end.min(chunk_start(next));
        let zeros = Slice::zeros((at % CHUNK_SIZE) as u32, end.saturating_sub(at) as u32);
        t.write(Write::AppendSliceIfExists(ino, chunk..next, zeros));
        at = end;
    }
    if whole.is_empty() {
        return;
    }
    let many = whole.end.saturating_sub(whole.start) > EMPTIED_CHUNKS_MAX;
    let take = |indx: u32| t.write(Write::TakeSlices(ino, indx));
    if many {
        taken.extend(lists.iter().copied().filter(|i| whole.contains(i)).map(take));
        let zeros = Slice::zeros(0, CHUNK_SIZE as u32);
        t.write(Write::AppendSliceIfExists(ino, whole, zeros));
    } else {
        taken.extend(whole.map(take));
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_free_is_reserved_once() {
        let data = |pos, len| Slice { pos, id: 7, size: len, off: 0, len };
        assert_eq!(holes(&[], 5..20), [Slice::reserved(5, 15)]);
        assert_eq!(holes(&[data(0, 100)], 5..20), []);
        assert_eq!(
            holes(&[data(0, 10), data(30, 10)], 5..60),
            [Slice::reserved(10, 20), Slice::reserved(40, 20)]
        );
        assert_eq!(holes(&[data(0, 10), data(30, 10)], 15..20), [Slice::reserved(15, 5)]);
        assert_eq!(
            holes(&[Slice::reserved(0, 50), Slice::zeros(20, 10)], 10..60),
            [Slice::reserved(20, 10), Slice::reserved(50, 10)]
        );
        assert_eq!(holes(&[data(0, 10)], 0..0), []);
    }
}
