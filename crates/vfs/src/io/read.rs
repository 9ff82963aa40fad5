//! Reading: committed slices with unflushed ones painted over them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ciderfs_block::{BlockError, ReadHint, SlicePart};
use ciderfs_format::slice::MAX_FILE_SIZE;
use ciderfs_format::{CHUNK_SIZE, SliceId};
use ciderfs_meta::ChunkView;

use crate::content::file::File;
use crate::content::pending::Part;
use crate::error::{Error, Result};
use crate::io::handles::FileHandle;
use crate::vfs::Vfs;

/// Attempts to read content that other clients keep changing.
const ATTEMPTS_MAX: u32 = 10;
/// Fetches that commits have overtaken; the next one keeps commits waiting.
pub(crate) const OVERTAKEN_MAX: u32 = 3;
/// Zeros handed out for holes, without a copy.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Where a piece of a read comes from.
enum Source {
    Zeros,
    Slice { id: SliceId, size: u32, off: u32 },
    Ready(Bytes),
}

struct Piece {
    /// Offset in the file.
    from: u64,
    len: u64,
    source: Source,
}

impl Piece {
    /// The part `[from, to)` of the piece.
    fn part(&self, from: u64, to: u64) -> Self {
        let cut = from - self.from;
        let source = match &self.source {
            Source::Zeros => Source::Zeros,
            Source::Slice { id, size, off } => {
                Source::Slice { id: *id, size: *size, off: off.saturating_add(cut as u32) }
            }
            Source::Ready(b) => Source::Ready(b.slice(cut as usize..(cut + to - from) as usize)),
        };
        Self { from, len: to - from, source }
    }
}

/// Puts `new` over what it covers.
fn paint(pieces: &mut Vec<Piece>, new: Piece) {
    let (from, to) = (new.from, new.from + new.len);
    let mut out = Vec::with_capacity(pieces.len() + 2);
    for p in pieces.drain(..) {
        let end = p.from + p.len;
        if end <= from || p.from >= to {
            out.push(p);
            continue;
        }
        if p.from < from {
            out.push(p.part(p.from, from));
        }
        if end > to {
            out.push(p.part(to, end));
        }
    }
    out.push(new);
    out.sort_unstable_by_key(|p| p.from);
    *pieces = out;
}

impl Vfs {
    /// Bytes `[off, off+size)` of an open file, cut at its end.
    pub(crate) async fn read_file(
        self: &Arc<Self>,
        h: &FileHandle,
        off: u64,
        size: u32,
    ) -> Result<Vec<Bytes>> {
        let file = &h.file;
        let mut pause = Duration::from_millis(1);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (sequential, ahead) = {
                let max = self.max_readahead;
                let block = u64::from(self.blocks.block_size());
                h.ahead.lock().note(off, u64::from(size), block, max)
            };
            let hint = if sequential { ReadHint::Sequential } else { ReadHint::Random };
            let alone = attempt > OVERTAKEN_MAX;
            let Some(pieces) = self.plan(file, off, u64::from(size), alone).await? else { continue };
            if let Some((from, to)) = ahead.filter(|_| attempt == 1) {
                self.fetch_ahead(file, from, to);
            }
            match self.fetch(pieces, hint).await {
                Ok(data) => return Ok(data),
                Err(e) => {
                    let changed = e.is_not_found();
                    if attempt >= ATTEMPTS_MAX || !changed {
                        return Err(Error::Unreadable { ino: file.ino, off, size, source: e });
                    }
                    // Compacted or truncated elsewhere: the list that named those objects is out of date.
                    file.forget_content();
                    ciderfs_rt::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
            }
        }
    }

    /// One byte of an open file, if it can be read.
    pub(crate) async fn byte_of(self: &Arc<Self>, file: &Arc<File>, off: u64) -> Option<u8> {
        let pieces = self.plan(file, off, 1, false).await.ok().flatten()?;
        let data = self.fetch(pieces, ReadHint::Random).await.ok()?;
        data.iter().flatten().next().copied()
    }

    /// What the range consists of; `None` if it changed while the plan was made. `alone` keeps commits waiting meanwhile.
    async fn plan(
        self: &Arc<Self>,
        file: &Arc<File>,
        off: u64,
        size: u64,
        alone: bool,
    ) -> Result<Option<Vec<Piece>>> {
        let _alone = if alone { Some(file.flushing.lock().await) } else { None };
        let (missing, as_of) = {
            let mut s = file.state.lock();
            let most = off.saturating_add(size).min(MAX_FILE_SIZE);
            let end = if s.is_behind() { most } else { most.min(s.attr().length) };
            if off >= end {
                return Ok(Some(Vec::new()));
            }
            if off < CHUNK_SIZE
                && let Some(first) = s.use_first_view()
            {
                self.note_view(file.ino, 0, first);
            }
            let chunks = (off / CHUNK_SIZE) as u32..=((end - 1) / CHUNK_SIZE) as u32;
            let missing: Vec<u32> = chunks.filter(|c| s.is_behind() || s.view(*c).is_none()).collect();
            (missing, s.as_of())
        };
        if let (Some(&first), Some(&last)) = (missing.first(), missing.last()) {
            file.placed().await;
            if file.as_of() != as_of {
                return Ok(None);
            }
            match self.meta.read_chunks_and_attr(file.ino, first..last + 1).await {
                Ok((attr, views)) => {
                    let mut s = file.state.lock();
                    let views = (first..=last)
                        .zip(views)
                        .inspect(|(indx, view)| self.note_view(file.ino, *indx, view));
                    if !s.learn_chunks(&attr, as_of, views) {
                        return Ok(None);
                    }
                }
                Err(e) => return Err(Error::when_held(e)),
            }
        }
        let s = file.state.lock();
        let end = (off + size).min(s.attr().length);
        if off >= end {
            return Ok(Some(Vec::new()));
        }
        let mut pieces = vec![Piece { from: off, len: end - off, source: Source::Zeros }];
        for chunk in (off / CHUNK_SIZE) as u32..=((end - 1) / CHUNK_SIZE) as u32 {
            let Some(view) = s.view(chunk) else { return Ok(None) };
            paint_view(&mut pieces, chunk, view, off, end);
        }
        for p in s.slices() {
            let (from, to) = (p.at.max(off), p.end().min(end));
            if from < to {
                let mut at = from;
                for part in p.parts(from, to) {
                    let (len, source) = match part {
                        Part::Ready(bytes) => (bytes.len() as u64, Source::Ready(bytes)),
                        Part::Stored { off, len, size } => {
                            (u64::from(len), Source::Slice { id: p.id, size, off })
                        }
                    };
                    paint(&mut pieces, Piece { from: at, len, source });
                    at += len;
                }
            }
        }
        Ok(Some(pieces))
    }

    /// The bytes of the pieces, in order. All of a request's parts are read by one call, which takes the memory for them
    /// at once: requests that each hold a part could wait for one another for ever.
    async fn fetch(&self, pieces: Vec<Piece>, hint: ReadHint) -> Result<Vec<Bytes>, BlockError> {
        let parts: Vec<SlicePart> = pieces
            .iter()
            .filter_map(|p| match p.source {
                Source::Slice { id, size, off } => Some(SlicePart { id, size, off, len: p.len as u32 }),
                _ => None,
            })
            .collect();
        let mut read = self.blocks.read_parts(&parts, hint).await?.into_iter();
        let mut out = Vec::with_capacity(pieces.len());
        for p in pieces {
            match p.source {
                Source::Ready(b) => out.push(b),
                Source::Slice { .. } => out.extend(read.next().unwrap_or_default()),
                Source::Zeros => {
                    let mut left = p.len as usize;
                    while left > 0 {
                        let n = left.min(ZEROS.len());
                        out.push(Bytes::from_static(&ZEROS[..n]));
                        left -= n;
                    }
                }
            }
        }
        Ok(out)
    }

    /// Starts to fetch the blocks of a range, as far as its chunks' lists are known; the list of a chunk that is next is fetched.
    fn fetch_ahead(self: &Arc<Self>, file: &Arc<File>, from: u64, to: u64) {
        let mut wanted = Vec::new();
        let next_list = {
            let s = file.state.lock();
            let to = to.min(s.attr().length);
            if from >= to {
                return;
            }
            let mut next_list = None;
            for chunk in (from / CHUNK_SIZE) as u32..=((to - 1) / CHUNK_SIZE) as u32 {
                let base = u64::from(chunk) * CHUNK_SIZE;
                let Some(view) = s.view(chunk) else {
                    next_list = next_list.or(Some(chunk));
                    continue;
                };
                for e in view.extents.iter().filter(|e| e.id.is_data()) {
                    let start = (base + u64::from(e.pos)).max(from);
                    let end = (base + e.end()).min(to);
                    if start < end {
                        let off = start - base - u64::from(e.pos) + u64::from(e.off);
                        wanted.push((e.id, e.size, off, off + (end - start)));
                    }
                }
            }
            next_list
        };
        let block = u64::from(self.blocks.block_size());
        for (id, size, start, end) in wanted {
            for indx in start / block..=(end.min(u64::from(size)).max(start + 1) - 1) / block {
                if !self.blocks.read_ahead(id, size, indx as u32) {
                    return;
                }
            }
        }
        if let Some(chunk) = next_list {
            let (vfs, file) = (Arc::clone(self), Arc::clone(file));
            ciderfs_rt::spawn(async move {
                let as_of = file.as_of();
                if let Ok(view) = vfs.meta.read_chunk(file.ino, chunk).await {
                    file.state.lock().learn_view(chunk, view, as_of);
                }
            });
        }
    }
}

fn paint_view(pieces: &mut Vec<Piece>, chunk: u32, view: &ChunkView, off: u64, end: u64) {
    let base = u64::from(chunk) * CHUNK_SIZE;
    for e in view.extents.iter().filter(|e| e.id.is_data()) {
        let from = (base + u64::from(e.pos)).max(off);
        let to = (base + e.end()).min(end);
        if from < to {
            let cut = (from - base) as u32 - e.pos;
            // Beyond the slice, where a damaged record may lead, is an error of the blocks.
            let source = Source::Slice { id: e.id, size: e.size, off: e.off.saturating_add(cut) };
            paint(pieces, Piece { from, len: to - from, source });
        }
    }
}
