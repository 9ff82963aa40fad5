//! Lists of slices: reading, appending, truncating, compacting.
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use ciderfs_format::slice::{MAX_FILE_SIZE, chunk_at, chunk_count, chunk_start, resolve};
use ciderfs_format::{Attr, CHUNK_SIZE, Ino, Slice, Time, align4k};

use super::placing::place;
use super::rules::{W, check_flags};
use crate::error::{Errno, Result};
use crate::proof::Proof;
use crate::store::{AttrMask, AttrPatch, Guard, Outcome, Read, StoreError, Value, Write};
use crate::txn::{Step, Txn};
use crate::types::{Caller, Changed, ChunkView, NewSlice, Place, Written};
use crate::volume::Meta;

/// Chunks that are emptied without asking which of them exist.
pub(super) const EMPTIED_CHUNKS_MAX: u32 = 256;
/// Scans of a file that others keep changing while it is truncated; after that lists may stay behind.
pub(super) const SCANS_MAX: u32 = 10;
/// Attempts of a compaction whose replies get lost.
const COMPACTION_ATTEMPTS_MAX: u32 = 5;
/// Existing lists that a shrinking truncate gives back in its commit; any more get a record of zeros and stay.
const TAKEN_CHUNKS_MAX: usize = 4096;

impl Meta {
    /// The next slice id, unique in the volume for ever.
    pub async fn new_slice_id(&self) -> Result<u64> {
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        self.retry(|| self.slices.next()).await
    }

    /// What a chunk holds now.
    pub async fn read_chunk(&self, ino: Ino, indx: u32) -> Result<ChunkView> {
        let list = self.read_raw_chunk(ino, indx).await?;
        Ok(view(&list))
    }

    /// A chunk's records in commit order.
    pub async fn read_raw_chunk(&self, ino: Ino, indx: u32) -> Result<Vec<Slice>> {
        match self.read(&[Read::Slices(ino, indx)]).await?.into_iter().next() {
            Some(Value::Slices(list)) => Ok(list),
            _ => Err(StoreError::another_question().into()),
        }
    }

    /// What some chunks hold now, read together.
    pub async fn read_chunks(&self, chunks: &[(Ino, u32)]) -> Result<Vec<ChunkView>> {
        let _timed = self.timed("Read");
        let reads: Vec<Read> = chunks.iter().map(|(ino, indx)| Read::Slices(*ino, *indx)).collect();
        let lists = self.read(&reads).await?.into_iter();
        lists
            .map(|v| {
                if let Value::Slices(l) = v {
                    Ok(view(&l))
                } else {
                    Err(StoreError::another_question().into())
                }
            })
            .collect()
    }

    /// Attributes and some chunks, read together so that length and content agree.
    pub async fn read_chunks_and_attr(&self, ino: Ino, indx: Range<u32>) -> Result<(Attr, Vec<ChunkView>)> {
        let _timed = self.timed("Read");
        let began = self.known_xattrs.begin();
        let mut reads = vec![Read::Attr(ino)];
        reads.extend(indx.map(|i| Read::Slices(ino, i)));
        let mut values = self.read(&reads).await?.into_iter();
        let Some(Value::Attr(attr)) = values.next() else {
            return Err(StoreError::another_question().into());
        };
        self.beliefs.set_attr(ino, attr.clone());
        let attr = attr.ok_or(Errno::ENOENT)?;
        if self.has_acls() {
            self.known_xattrs.learn_acls(ino, &attr, began);
        }
        let views = values
            .filter_map(|v| if let Value::Slices(list) = v { Some(view(&list)) } else { None })
            .collect();
        Ok((attr, views))
    }

    /// Commits slices whose objects are stored, all at once and in order; the file grows as needed. `mtime` is the time of the
    /// last write among them.
    ///
    /// # Errors
    /// `ENOENT` (the file is gone), `EPERM` (not a regular file), `EFBIG`, `ENOSPC`; `EIO` if the outcome is unknown or the
    /// engine stays away.
    pub async fn write(self: &Arc<Self>, ino: Ino, slices: &[NewSlice], mtime: Time) -> Result<Written> {
        self.write_since(self.lock_loss(ino), ino, slices, mtime).await
    }

    /// [`Meta::write`] of data that was accepted when the number of the last loss of locks ([`Meta::lock_loss`]) was `seen`.
    ///
    /// # Errors
    /// Also [`crate::Error::LockLost`]: nothing was written.
    pub async fn write_since(
        self: &Arc<Self>,
        seen: u64,
        ino: Ino,
        slices: &[NewSlice],
        mtime: Time,
    ) -> Result<Written> {
        let _timed = self.timed("Write");
        let stats = self.counted_dirs();
        let mut lists_at = Vec::new();
        let ran = self
            .run_fenced("Write", ino, seen, |t| {
                t.want([Read::Attr(ino)])?;
                let a = t.attr(ino, AttrMask::IDENTITY | AttrMask::LENGTH | AttrMask::TIMES)?;
                if !a.is_file() {
                    return Err(Errno::EPERM.into());
                }
                let placed = place(slices, a.length);
                if placed.length >= MAX_FILE_SIZE {
                    return Err(Errno::EFBIG.into());
                }
                let records = || placed.lists.iter().flat_map(|(indx, list)| list.iter().map(|s| (*indx, s)));
                let stored = records().find(|(_, s)| s.id > 0).map(|(indx, s)| (indx, s.id));
                // When it was written, not when it is committed: programs have seen that time, and would take
                // a ctime that moves later for another change.
                let ctime = if stored.is_some() { mtime.max(a.ctime) } else { t.now };
                let (grown, longer) = growth(a.length, placed.length);
                // A slice may be shared by several records; the first reference is its creation.
                let mut uses: BTreeMap<(u64, u32), i64> = BTreeMap::new();
                for (_, s) in records().filter(|(_, s)| s.id > 0) {
                    let n = uses.entry((s.id, s.size)).or_default();
                    *n = i64::saturating_add(*n, 1);
                }
                for ((id, size), n) in uses {
                    t.write(Write::NewSliceRef(id, size));
                    if n > 1 {
                        t.write(Write::AddSliceRef(id, size, n.saturating_sub(1)));
                    }
                }
                lists_at.clear();
                for (indx, list) in placed.lists {
                    lists_at.push((indx, t.write(Write::AppendSlices(ino, indx, list))));
                }
                let patch = AttrPatch {
                    length: Some(placed.length).filter(|l| *l != a.length),
                    mtime: Some(mtime),
                    ctime: Some(ctime),
                    ..AttrPatch::default()
                };
                let mut after = a.clone();
                patch.apply(&mut after);
                t.write(Write::PatchAttr(ino, patch));
                // Whoever buffered the data has claimed the room for it.
                t.charges.claimed = true;
                t.charge(Some((a.uid, a.gid)), grown, 0);
                t.grow_in_dirs(stats, (ino, &a), longer, grown)?;
                let appends =
                    slices.iter().zip(&placed.offsets).find(|(s, _)| s.place == Place::End && s.slice.id > 0);
                match stored {
                    Some(_) if let Some((new, at)) = appends => {
                        let (indx, pos) = (chunk_at(*at), (at % CHUNK_SIZE) as u32);
                        let part = new.slice.len.min((CHUNK_SIZE as u32).saturating_sub(pos));
                        t.proof(Proof::Appended(ino, indx, new.slice.id, (pos, part), (a.length, a.mtime)));
                    }
                    Some((indx, id)) => t.proof(Proof::SliceId(ino, indx, id, (a.length, a.mtime))),
                    None => t.proof(Proof::Ctime(ino, t.now)),
                }
                // With the attempt that counts: another one may have placed them elsewhere.
                Ok((Changed::new(&a, after), placed.offsets))
            })
            .await?;
        let lists = ran.lists(&lists_at);
        let (changed, offsets) = ran.value;
        Ok(Written { changed, offsets, lists })
    }

    /// Sets the length of a file. The caller has flushed what was written before.
    ///
    /// # Errors
    /// `EPERM` (not a regular file, a flag, in the trash by path), `EACCES`, `EFBIG`, `ENOSPC`, `ENOENT`, `EROFS`.
    pub async fn truncate(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        length: u64,
        by_handle: bool,
    ) -> Result<Changed> {
        self.truncate_since(self.lock_loss(ino), c, ino, length, by_handle).await
    }

    /// [`Meta::truncate`] asked for when the number of the last loss of locks ([`Meta::lock_loss`]) was `seen`.
    ///
    /// # Errors
    /// Also [`crate::Error::LockLost`]: nothing was changed.
    pub async fn truncate_since(
        self: &Arc<Self>,
        seen: u64,
        c: &Caller,
        ino: Ino,
        length: u64,
        by_handle: bool,
    ) -> Result<Changed> {
        let _timed = self.timed("Truncate");
        if length >= MAX_FILE_SIZE {
            return Err(Errno::EFBIG.into());
        }
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let mut beyond = Beyond::default();
        for last in (0..SCANS_MAX).rev() {
            let mut taken: Vec<usize> = Vec::new();
            let ran = self
                .run_fenced("Truncate", ino, seen, |t| {
                    t.want([Read::Attr(ino)])?;
                    let a = t.attr(ino, AttrMask::ALL)?;
                    check_truncation(&a)?;
                    if !by_handle && self.keeps(t, ino, &a) {
                        return Err(Errno::EPERM.into());
                    }
                    if !by_handle {
                        self.check_access(t, c, &a, W)?;
                    }
                    if needs_scan(a.length, length) && beyond.of.as_ref() != Some(&a) && last > 0 {
                        return Ok(None);
                    }
                    taken.clear();
                    self.truncate_step(t, c, (ino, &a), length, &beyond.lists, &mut taken).map(Some)
                })
                .await?;
            let Some(changed) = ran.value else {
                beyond = self.lists_beyond(ino, length).await?;
                continue;
            };
            let dead = ran.outputs.iter().enumerate().filter(|(i, _)| taken.contains(i));
            self.deletions.push_dead(dead.map(|(_, o)| o));
            return Ok(changed);
        }
        Err(Errno::EIO.into())
    }

    fn truncate_step(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        (ino, a): (Ino, &Attr),
        length: u64,
        beyond: &[u32],
        taken: &mut Vec<usize>,
    ) -> Step<Changed> {
        if length != a.length {
            write_truncation(t, ino, (a.length, length), beyond, taken);
        }
        // POSIX: a truncate that succeeds marks the times, even if the length stays.
        self.mark_changed(t, c, (ino, a), length)
    }

    /// Buffers what every change of content does to a file: times, special bits, perhaps another length, which is charged.
    /// Its caller guards times and length.
    pub(super) fn mark_changed(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        (ino, a): (Ino, &Attr),
        length: u64,
    ) -> Step<Changed> {
        if length != a.length {
            let (grown, longer) = growth(a.length, length);
            t.charge(Some((a.uid, a.gid)), grown, 0);
            t.grow_in_dirs(self.counted_dirs(), (ino, a), longer, grown)?;
        }
        let patch = AttrPatch {
            length: Some(length).filter(|l| *l != a.length),
            mtime: Some(t.now),
            ctime: Some(t.now),
            mode: Some(without_special_bits(c, a)).filter(|m| *m != a.mode),
            ..AttrPatch::default()
        };
        let mut after = a.clone();
        patch.apply(&mut after);
        t.write(Write::PatchAttr(ino, patch));
        t.proof(Proof::Ctime(ino, t.now));
        Ok(Changed::new(a, after))
    }

    /// The chunk lists of a file beyond a new length. Read after the attributes: a list that comes later changes them.
    pub(super) async fn lists_beyond(&self, ino: Ino, length: u64) -> Result<Beyond> {
        let of = self.getattr(ino).await?;
        let indexes = self.chunk_indexes(ino).await?.into_iter();
        let first = chunk_count(length);
        let lists = indexes.filter(|i| *i >= first).take(TAKEN_CHUNKS_MAX).collect();
        Ok(Beyond { of: Some(of), lists })
    }

    /// Puts a compacted slice, or one record of reserved space, in the place of the records it was made from. `raw` is the list as
    /// it was read, `skipped` how many records at its head stay. Returns false if somebody else changed those records: then the new slice is garbage and the
    /// caller deletes its objects.
    pub async fn commit_compaction(
        &self,
        ino: Ino,
        indx: u32,
        raw: &[Slice],
        skipped: usize,
        new: Slice,
    ) -> Result<bool> {
        let replaced: Vec<(u64, u32)> =
            raw[skipped..].iter().filter(|s| s.id > 0).map(|s| (s.id, s.size)).collect();
        let keep = self.settings().trash_enabled();
        let now = self.fleet_now();
        let mut commit = crate::store::Commit {
            guards: vec![Guard::SlicesPrefix { ino, indx, prefix: raw.to_vec() }],
            writes: vec![Write::ReplaceSlices {
                ino,
                indx,
                drop: raw.len(),
                insert: raw[..skipped].iter().copied().chain([new]).collect(),
            }],
        };
        if new.id > 0 {
            commit.writes.push(Write::NewSliceRef(new.id, new.size));
        }
        let first_ref = commit.writes.len();
        if keep {
            if !replaced.is_empty() {
                commit.writes.push(Write::PutDelayedSlices(new.id, now, replaced.clone()));
            }
        } else {
            commit.writes.extend(replaced.iter().map(|&(id, size)| Write::AddSliceRef(id, size, -1)));
        }
        let mut lost = None;
        for _ in 0..COMPACTION_ATTEMPTS_MAX {
            match self.store.commit(&commit).await {
                Ok(Outcome::Done(outputs)) => {
                    if !keep {
                        self.deletions.push_counted(replaced.iter().copied().zip(&outputs[first_ref..]));
                    }
                    return Ok(true);
                }
                Ok(Outcome::Conflict(truth)) => {
                    let Some(why) = lost else { return Ok(false) };
                    // Was it the attempt whose reply was lost that changed the list?
                    return match truth.first() {
                        Some(Value::Slices(list)) if list.contains(&new) => Ok(true),
                        _ => Err(StoreError::Ambiguous(why).into()),
                    };
                }
                Err(StoreError::Ambiguous(why)) => {
                    let list = self.read_raw_chunk(ino, indx).await?;
                    if list.contains(&new) {
                        // Applied; slices that died with it are found by the hourly job.
                        return Ok(true);
                    }
                    if !list.starts_with(raw) {
                        // Not there and cannot come any more, or replaced already: leave the objects to garbage collection.
                        return Err(StoreError::Ambiguous(why).into());
                    }
                    lost = Some(why);
                }
                Err(e) => return Err(e.into()),
            }
        }
        Err(StoreError::Ambiguous(lost.unwrap_or_default()).into())
    }
}

/// The chunk lists of a file beyond a length, as long as the file has these attributes.
#[derive(Default)]
pub(super) struct Beyond {
    pub(super) of: Option<Attr>,
    pub(super) lists: Vec<u32>,
}

/// How many bytes more a change of length takes of the volume, and of the file.
pub(super) fn growth(old: u64, new: u64) -> (i64, i64) {
    let more = |new: u64, old: u64| (new as i64).saturating_sub(old as i64);
    (more(align4k(new), align4k(old)), more(new, old))
}

/// Are there too many chunks to try each of them?
fn needs_scan(old: u64, new: u64) -> bool {
    chunk_count(old).saturating_sub(chunk_count(new)) > EMPTIED_CHUNKS_MAX
}

fn check_truncation(a: &Attr) -> Result<(), Errno> {
    if !a.is_file() {
        return Err(if a.is_dir() { Errno::EISDIR } else { Errno::EPERM });
    }
    check_flags(a, true)
}

pub(super) fn view(list: &[Slice]) -> ChunkView {
    ChunkView { extents: Arc::from(resolve(list)), records: list.len() }
}

/// Mode after a change of content by somebody who is not the superuser: set-user-ID goes, set-group-ID too if the group may
/// execute.
pub(super) fn without_special_bits(c: &Caller, a: &Attr) -> u16 {
    if c.uid == 0 {
        return a.mode;
    }
    let group_exec = if a.mode & 0o010 != 0 { 0o2000 } else { 0 };
    a.mode & !(0o4000 | group_exec)
}

/// Buffers the records that make a truncated range read as zeros (`docs/format/chunks-and-slices.md#truncating`).
///
/// Chunks that lie wholly beyond a new, smaller length give back their slices at once; the official client would keep their
/// lists until a garbage collection.
fn write_truncation(
    t: &mut Txn<'_>,
    ino: Ino,
    (old, new): (u64, u64),
    beyond: &[u32],
    taken: &mut Vec<usize>,
) {
    let (left, right) = (old.min(new), old.max(new));
    let first = chunk_at(left);
    let last = chunk_count(right);
    let second = first.saturating_add(1);
    let first_end = chunk_start(second).min(right);
    if first_end > left {
        let zeros = Slice::zeros((left % CHUNK_SIZE) as u32, first_end.saturating_sub(left) as u32);
        if left % CHUNK_SIZE == 0 && new < old {
            taken.push(t.write(Write::TakeSlices(ino, first)));
        } else {
            t.write(Write::AppendSlices(ino, first, vec![zeros]));
        }
    }
    if last <= second {
        return;
    }
    if new < old && !needs_scan(old, new) {
        for indx in second..last {
            taken.push(t.write(Write::TakeSlices(ino, indx)));
        }
        return;
    }
    if new < old {
        for indx in beyond.iter().filter(|i| (second..last).contains(*i)) {
            taken.push(t.write(Write::TakeSlices(ino, *indx)));
        }
    }
    // Zeros for lists that came into being meanwhile, or were too many.
    let whole = chunk_at(right);
    if whole > second {
        let zeros = Slice::zeros(0, CHUNK_SIZE as u32);
        t.write(Write::AppendSliceIfExists(ino, second..whole, zeros));
    }
    if right % CHUNK_SIZE > 0 {
        let zeros = Slice::zeros(0, (right % CHUNK_SIZE) as u32);
        let at = whole;
        t.write(if new < old {
            Write::AppendSliceIfExists(ino, at..at.saturating_add(1), zeros)
        } else {
            Write::AppendSlices(ino, at, vec![zeros])
        });
    }
}
