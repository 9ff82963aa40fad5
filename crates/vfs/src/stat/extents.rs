//! Where a file holds data: `SEEK_DATA`, `SEEK_HOLE`, and the blocks that `stat` tells.
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use ciderfs_format::slice::{Extent, chunk_at, chunk_count, chunk_start};
use ciderfs_format::{Attr, CHUNK_SIZE, Ino, Time};
use ciderfs_meta::{ChunkView, Errno};
use ciderfs_rt::Instant;

use crate::content::file::File;
use crate::content::moment::Moment;
use crate::content::state::State;
use crate::error::{Error, Result};
use crate::io::handles::Handle;
use crate::io::read::OVERTAKEN_MAX;
use crate::stat::allocated::Counted;
use crate::vfs::Vfs;

/// Lists read in one turn at most.
const BATCH_MAX: u32 = 512;
/// Of the lists read, so many stay known for the next call.
const KEPT: usize = 8;
/// From so many chunks on without data, the existing lists are looked up instead of being tried one by one.
const LONG_HOLE: u32 = 256;

/// Data is data in whole blocks of so many bytes, for `SEEK_DATA`, `SEEK_HOLE` and `st_blocks`, as in a local file system:
/// programs find out the unit by trying, and expect a power of two.
const BLOCK: u64 = 4096;

/// Ranges of data widened to whole blocks, cut at the length.
fn in_blocks(ranges: Vec<Range<u64>>, length: u64) -> Vec<Range<u64>> {
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for r in ranges {
        let from = (r.start / BLOCK).saturating_mul(BLOCK);
        let to = r.end.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX).min(length);
        match out.last_mut() {
            Some(last) if from <= last.end => last.end = last.end.max(to),
            _ => out.push(from..to),
        }
    }
    out
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Data,
    /// Data, and space that was reserved for some.
    Allocated,
}

impl What {
    fn is(self, e: &Extent) -> bool {
        match self {
            Self::Data => e.id.is_data(),
            Self::Allocated => e.is_allocated(),
        }
    }
}

/// Ranges of the file that hold it in a chunk, ascending, apart from each other, cut at the length.
fn ranges(what: What, chunk: u32, view: &ChunkView, pending: Option<&State>, length: u64) -> Vec<Range<u64>> {
    let base = chunk_start(chunk);
    let at = |n: u64| base.saturating_add(n);
    let committed = view.extents.iter().filter(|e| what.is(e)).map(|e| (u64::from(e.pos), e.end()));
    let committed = committed.map(|(from, to)| (at(from), at(to).min(length)));
    let unflushed = pending.into_iter().flat_map(State::slices);
    let unflushed = unflushed.map(|p| (p.at.max(base), p.end().min(at(CHUNK_SIZE))));
    let mut all: Vec<(u64, u64)> = committed.chain(unflushed).filter(|(from, to)| from < to).collect();
    all.sort_unstable();
    let mut out: Vec<Range<u64>> = Vec::new();
    for (from, to) in all {
        match out.last_mut() {
            Some(last) if from <= last.end => last.end = last.end.max(to),
            _ => out.push(from..to),
        }
    }
    out
}

/// What is allocated in a chunk of a file of which nothing is buffered.
fn committed(chunk: u32, view: &ChunkView, attr: &Attr) -> Vec<Range<u64>> {
    ranges(What::Allocated, chunk, view, None, attr.length)
}

/// Bytes that some ranges take, in whole blocks, of a file of this length.
fn taken(ranges: Vec<Range<u64>>, length: u64) -> u64 {
    in_blocks(ranges, length).iter().fold(0, |sum, r| sum.saturating_add(r.end.saturating_sub(r.start)))
}

/// Lists of one file, fetched as they are needed.
struct Walk<'a> {
    vfs: &'a Vfs,
    file: &'a File,
    what: What,
    views: HashMap<u32, ChunkView>,
    as_of: Moment,
    batch: u32,
    /// Fetches that commits have overtaken.
    overtaken: u32,
}

impl<'a> Walk<'a> {
    fn new(vfs: &'a Vfs, file: &'a File, what: What) -> Self {
        // A count needs all of them.
        let batch = if what == What::Allocated { BATCH_MAX } else { 1 };
        Self { vfs, file, what, views: HashMap::new(), as_of: file.as_of(), batch, overtaken: 0 }
    }

    /// The file's length, and what is looked for in a chunk.
    async fn chunk(&mut self, indx: u32) -> Result<(u64, Vec<Range<u64>>)> {
        loop {
            let last = {
                let s = self.file.state.lock();
                if s.as_of() != self.as_of {
                    self.views.clear();
                    self.as_of = s.as_of();
                }
                let length = s.attr().length;
                if let Some(view) = self.views.get(&indx).or_else(|| s.view(indx)) {
                    return Ok((length, ranges(self.what, indx, view, Some(&s), length)));
                }
                chunk_count(length).max(1)
            };
            let end = indx.saturating_add(self.batch).min(last).max(indx.saturating_add(1));
            self.batch = self.batch.saturating_mul(4).min(BATCH_MAX);
            let alone = self.overtaken >= OVERTAKEN_MAX;
            let _alone = if alone { Some(self.file.flushing.lock().await) } else { None };
            self.file.placed().await;
            let as_of = self.file.as_of();
            let (attr, views) = self.vfs.meta.read_chunks_and_attr(self.file.ino, indx..end).await?;
            let mut s = self.file.state.lock();
            let kept = (indx..end).zip(views.iter().cloned()).take(KEPT);
            if !s.learn_chunks(&attr, as_of, kept) {
                self.overtaken = self.overtaken.saturating_add(1);
                continue;
            }
            self.as_of = s.as_of();
            self.views.clear();
            self.views.extend((indx..end).zip(views));
        }
    }

    /// The first chunk at or behind one that may hold any.
    async fn next_chunk(&mut self, from: u32) -> Result<Option<u32>> {
        loop {
            {
                let s = self.file.state.lock();
                if let Some(known) = s.chunks() {
                    let listed = known.get(known.partition_point(|n| *n < from)).copied();
                    let begins = chunk_start(from);
                    let pending = s.slices().iter().filter(|p| p.end() > begins);
                    let pending = pending.map(|p| chunk_at(p.at.max(begins)));
                    return Ok(listed.into_iter().chain(pending).min());
                }
                self.as_of = s.as_of();
            }
            let known = Arc::from(self.vfs.meta.chunk_indexes(self.file.ino).await?);
            self.file.state.lock().learn_chunk_indexes(known, self.as_of);
        }
    }
}

impl Vfs {
    /// `lseek` with `SEEK_DATA` or `SEEK_HOLE`, data that is not flushed included.
    ///
    /// # Errors
    /// `ENXIO` at and beyond the end, and if no data follows; `EINVAL` for anything else than the two.
    pub async fn lseek(&self, fh: u64, off: u64, whence: u32) -> Result<u64> {
        let data = match whence as i32 {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return Err(Errno::EINVAL.into()),
        };
        match self.handles.get(fh)? {
            Handle::File(h) => self.seek_file(&h.file, off, data).await,
            Handle::Virtual(content) if off < content.len() as u64 => {
                Ok(if data { off } else { content.len() as u64 })
            }
            Handle::Virtual(_) => Err(Errno::ENXIO.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    async fn seek_file(&self, file: &File, off: u64, data: bool) -> Result<u64> {
        let mut walk = Walk::new(self, file, What::Data);
        let mut at = off;
        loop {
            if off >= file.attr().length {
                return Err(Errno::ENXIO.into());
            }
            let chunk = chunk_at(at);
            let (length, ranges) = walk.chunk(chunk).await.map_err(Error::when_held)?;
            let ranges = in_blocks(ranges, length);
            let end = length.min(chunk_start(chunk.saturating_add(1)));
            if data {
                if let Some(r) = ranges.iter().find(|r| r.end > at) {
                    return Ok(r.start.max(at));
                }
            } else {
                let filled = ranges.iter().find(|r| r.contains(&at)).map_or(at, |r| r.end);
                if filled < end {
                    return Ok(filled);
                }
            }
            at = end;
            if at >= length {
                // The end is a hole; if the file was cut meanwhile, the check above answers.
                if !data && off < length {
                    return Ok(length);
                }
                return Err(Errno::ENXIO.into());
            }
            if data && ranges.is_empty() && chunk_at(length.saturating_sub(at)) > LONG_HOLE {
                match walk.next_chunk(chunk_at(at)).await? {
                    Some(next) => at = chunk_start(next),
                    None => return Err(Errno::ENXIO.into()),
                }
            }
        }
    }

    /// Blocks of 512 bytes that `stat` tells (`st_blocks`): data and what was reserved for some, of files that were counted; else
    /// the length, as the official client tells it.
    pub(crate) fn blocks(&self, ino: Ino, attr: &Attr) -> u64 {
        self.allocated.bytes(ino, attr).min(attr.length).div_ceil(512)
    }

    /// Is counting the data of a file due, for [`Vfs::blocks`]?
    fn is_count_due(&self, ino: Ino, a: &Attr) -> bool {
        a.is_file() && a.length > 0 && !ino.is_virtual() && self.allocated.is_due(ino, a)
    }

    /// Counts the data of a file if that is due.
    pub(crate) async fn count_blocks(&self, ino: Ino, attr: &Attr) {
        if !self.is_count_due(ino, attr) {
            return;
        }
        if attr.length > chunk_start(BATCH_MAX) || self.files.get(ino).is_some() {
            self.count_file(ino, attr).await;
        } else {
            self.count_closed(&[(ino, attr)]).await;
        }
    }

    /// Counts files of a listing, in one turn: not those that are open here or very long, and no more than a turn holds. Those
    /// are counted when somebody asks for one of them.
    pub(crate) async fn count_listed(&self, files: impl Iterator<Item = (Ino, &Attr)> + Send) {
        let mut left = BATCH_MAX;
        let due = files.filter(|(ino, a)| self.is_count_due(*ino, a) && self.files.get(*ino).is_none());
        let fit = |(_, a): &(Ino, &Attr)| {
            let rest = left.checked_sub(chunk_count(a.length));
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        let listed: Vec<(Ino, &Attr)> = due.filter(fit).collect();
        self.count_closed(&listed).await;
    }

    /// Counts files of which nothing is buffered, in one turn.
    async fn count_closed(&self, files: &[(Ino, &Attr)]) {
        let chunks_of = |a: &Attr| 0..chunk_count(a.length);
        let chunks: Vec<(Ino, u32)> =
            files.iter().flat_map(|(ino, a)| chunks_of(a).map(|indx| (*ino, indx))).collect();
        if chunks.is_empty() {
            return;
        }
        let began = Instant::now();
        let mut views = match self.meta.read_chunks(&chunks).await {
            Ok(views) => views.into_iter(),
            Err(e) => return tracing::debug!("counting the blocks of {} files: {e}", files.len()),
        };
        for (ino, attr) in files {
            let views = chunks_of(attr).zip(views.by_ref());
            let bytes =
                views.map(|(n, v)| taken(committed(n, &v, attr), attr.length)).fold(0, u64::saturating_add);
            self.allocated.set(*ino, Counted::new((attr.length, attr.mtime), bytes, began));
        }
    }

    async fn count_file(&self, ino: Ino, attr: &Attr) {
        let began = Instant::now();
        let open = self.files.get(ino);
        let file = open.unwrap_or_else(|| File::new(ino, attr.clone()));
        match self.data_of(&file).await {
            Ok((length, mtime, bytes)) => {
                self.allocated.set(ino, Counted::new((length, mtime), bytes, began));
            }
            Err(e) => tracing::debug!("counting the blocks of inode {ino}: {e}"),
        }
    }

    /// Counts a file of one chunk that has been fetched along with its attributes while nobody had it open here, if it has holes.
    pub(crate) fn count_first(&self, ino: Ino, attr: &Attr, first: &ChunkView) {
        if attr.length <= CHUNK_SIZE {
            let bytes = taken(committed(0, first, attr), attr.length);
            if bytes < attr.length {
                self.allocated.set(ino, Counted::new((attr.length, attr.mtime), bytes, Instant::now()));
            }
        }
    }

    /// Length, mtime, and bytes of data or reserved for data.
    async fn data_of(&self, file: &File) -> Result<(u64, Time, u64)> {
        let mut walk = Walk::new(self, file, What::Allocated);
        let (mut bytes, mut chunk) = (0u64, 0u32);
        loop {
            let (length, ranges) = walk.chunk(chunk).await?;
            let is_hole = ranges.is_empty();
            bytes = bytes.saturating_add(taken(ranges, length));
            chunk = chunk.saturating_add(1);
            if chunk_count(length).saturating_sub(chunk) > LONG_HOLE && is_hole {
                chunk = walk.next_chunk(chunk).await?.unwrap_or(u32::MAX);
            }
            if chunk_start(chunk) >= length {
                let s = file.state.lock();
                return Ok((s.attr().length, s.attr().mtime, bytes));
            }
        }
    }
}
