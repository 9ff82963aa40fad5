//! Allocating, punching and zeroing ranges of a file (`spec/meta-redis.md` 5.6).
//!
//! Space is never set apart in advance: object stores have none to give, and the format no place to note it. What
//! `fallocate` promises is that the volume's limits allowed so much when it returned.

use std::ops::Range;
use std::sync::Arc;

use ciderfs_format::attr::flags;
use ciderfs_format::slice::MAX_FILE_SIZE;
use ciderfs_format::{Attr, CHUNK_SIZE, Ino, Slice, align4k};

use super::data::{Beyond, EMPTIED_CHUNKS_MAX, SCANS_MAX};
use crate::error::{Errno, Result};
use crate::store::{AttrMask, Read, Write};
use crate::txn::{Step, Txn};
use crate::types::{Allocate, Caller};
use crate::volume::Meta;

impl Meta {
    /// Allocates or erases bytes `[off, off + len)` of a file that the caller has open for writing. The caller has
    /// flushed what was written before. Returns the attributes afterwards.
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
    ) -> Result<Attr> {
        if len == 0 {
            return Err(Errno::EINVAL.into());
        }
        let end = off.checked_add(len).filter(|end| *end < MAX_FILE_SIZE).ok_or(Errno::EFBIG)?;
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let seen = self.lock_loss(ino);
        let mut known = Beyond::default();
        for last in (0..SCANS_MAX).rev() {
            let mut taken: Vec<usize> = Vec::new();
            let ran = self
                .run_fenced(ino, seen, |t| {
                    t.want([Read::Attr(ino)])?;
                    let a = t.attr(ino, AttrMask::IDENTITY | AttrMask::LENGTH)?;
                    check_allocation(&a, how)?;
                    if how.erases() && many_whole_chunks(&(off..end), a.length) {
                        // Then the lists to give back are looked up; they are those of exactly these attributes.
                        t.attr(ino, AttrMask::ALL)?;
                        if known.of.as_ref() != Some(&a) && last > 0 {
                            return Ok(None);
                        }
                    }
                    taken.clear();
                    self.allocate_step(t, c, (ino, &a), how, off..end, &known.lists, &mut taken).map(Some)
                })
                .await?;
            let Some(attr) = ran.value else {
                known = self.lists_beyond(ino, off).await?;
                continue;
            };
            let dead = ran.outputs.iter().enumerate().filter(|(i, _)| taken.contains(i));
            self.deletions.push_dead(dead.map(|(_, o)| o));
            return Ok(attr);
        }
        Err(Errno::EIO.into())
    }

    #[allow(clippy::too_many_arguments)]
    fn allocate_step(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        (ino, a): (Ino, &Attr),
        how: Allocate,
        range: Range<u64>,
        lists: &[u32],
        taken: &mut Vec<usize>,
    ) -> Step<Attr> {
        let reach = range.end.max(a.length);
        let room = align4k(reach) as i64 - align4k(a.length) as i64;
        let length = if how.keeps_size() { a.length } else { reach };
        if how.erases() {
            erase(t, ino, range, a.length, lists, taken);
        }
        if length == a.length && !matches!(how, Allocate::Punch) {
            // Nothing is taken yet; there must be room for it all the same.
            t.charges.probe = true;
            t.charge(Some((a.uid, a.gid)), room, 0);
            t.charges.dir(a.parent, room, 0);
        }
        self.mark_changed(t, c, (ino, a), length)
    }
}

fn check_allocation(a: &Attr, how: Allocate) -> Result<(), Errno> {
    let forbidden = match how {
        Allocate::Grow | Allocate::Reserve => flags::IMMUTABLE,
        _ => flags::IMMUTABLE | flags::APPEND,
    };
    if !a.is_file() || a.flags & forbidden != 0 { Err(Errno::EPERM) } else { Ok(()) }
}

/// Chunks of a file of this length that lie wholly in a range. A range that reaches the end covers the last one too.
fn whole_chunks(range: &Range<u64>, length: u64) -> Range<u64> {
    let last = if range.end >= length { length.div_ceil(CHUNK_SIZE) } else { range.end / CHUNK_SIZE };
    range.start.div_ceil(CHUNK_SIZE)..last
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
        let chunk = at / CHUNK_SIZE;
        if whole.contains(&chunk) {
            at = whole.end * CHUNK_SIZE;
            continue;
        }
        let end = range.end.min((chunk + 1) * CHUNK_SIZE);
        let zeros = Slice::zeros((at % CHUNK_SIZE) as u32, (end - at) as u32);
        t.write(Write::AppendSliceIfExists(ino, chunk as u32..chunk as u32 + 1, zeros));
        at = end;
    }
    if whole.is_empty() {
        return;
    }
    let many = whole.end - whole.start > EMPTIED_CHUNKS_MAX;
    let take = |indx: u32| t.write(Write::TakeSlices(ino, indx));
    if many {
        taken.extend(lists.iter().copied().filter(|i| whole.contains(&u64::from(*i))).map(take));
        let zeros = Slice::zeros(0, CHUNK_SIZE as u32);
        t.write(Write::AppendSliceIfExists(ino, whole.start as u32..whole.end as u32, zeros));
    } else {
        taken.extend((whole.start as u32..whole.end as u32).map(take));
    }
}
