//! A slice that is being written: block by block on its way to the object store.

use std::sync::Arc;

use bytes::Bytes;
use ciderfs_block::{BlockError, BlockStore, Buffer, Buffers, Permit};
use ciderfs_format::{CHUNK_SIZE, Slice, SliceId, Time};
use ciderfs_handover::Ticket;
use ciderfs_meta::NewSlice;
use ciderfs_rt::Instant;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::io::locks::Losses;

/// Room for a slice's first block at first, so that small files stay small in memory;
const FIRST_STEP: usize = 4 << 10;
/// and how much larger it is when that is full.
const GROWTH: usize = 4;

/// One block of a pending slice.
enum Block {
    /// Still changeable.
    Open(Buffer),
    /// Given to the uploader.
    Sent(Arc<Mutex<Option<Body>>>),
}

/// The bytes of a block and the permit that pays for them; both go when the block is stored. Readers find it in the
/// object store from then on.
struct Body {
    data: Bytes,
    _permit: Option<Permit>,
}

/// Where a reader finds some bytes of a slice that is not committed.
pub(crate) enum Part {
    /// Here.
    Ready(Bytes),
    /// In the object store: offset in the slice, bytes, and a length of the slice under which the block has its name.
    Stored { off: u32, len: u32, size: u32 },
}

/// A slice not yet committed.
pub(crate) struct Pending {
    /// What locks on the file had been lost when it was begun: after another loss it is refused.
    pub(crate) losses: Losses,
    /// Offset of the slice in the file, in bytes.
    pub(crate) at: u64,
    /// It goes to the end of the file: `at` is where that is believed to be, until the commit tells. Otherwise it lies in one
    /// chunk.
    pub(crate) append: bool,
    /// Bytes so far.
    pub(crate) len: u32,
    /// Slice id.
    pub(crate) id: SliceId,
    /// No more writes: a flush has taken it.
    pub(crate) frozen: bool,
    pub(crate) created: Instant,
    pub(crate) touched: Instant,
    /// Wall-clock time of the last write into it.
    pub(crate) mtime: Time,
    blocks: Vec<Block>,
    block_size: usize,
    /// Pays for the buffers that are not sent.
    permit: Option<Permit>,
    uploads: Vec<JoinHandle<Result<(), BlockError>>>,
    /// Where the next process would find it.
    pub(crate) logged: Vec<Ticket>,
}

impl Pending {
    pub(crate) fn new(
        losses: Losses,
        at: u64,
        append: bool,
        id: SliceId,
        block_size: u32,
        now: Time,
    ) -> Self {
        let created = Instant::now();
        Self {
            losses,
            at,
            append,
            len: 0,
            id,
            frozen: false,
            created,
            touched: created,
            mtime: now,
            blocks: Vec::new(),
            block_size: block_size as usize,
            permit: None,
            uploads: Vec::new(),
            logged: Vec::new(),
        }
    }

    /// One past the last byte, in the file.
    pub(crate) fn end(&self) -> u64 {
        self.at + u64::from(self.len)
    }

    /// Does it fill its chunk, or is it as long as a slice can be?
    pub(crate) fn is_full(&self) -> bool {
        u64::from(self.len) >= CHUNK_SIZE || (!self.append && self.end().is_multiple_of(CHUNK_SIZE))
    }

    /// The first byte in the file that can still change.
    fn changeable_from(&self) -> u64 {
        let sent = self.blocks.iter().take_while(|b| matches!(b, Block::Sent(_))).count();
        self.at + (sent * self.block_size) as u64
    }

    /// Can a write of so many bytes at an offset in the file go into this slice?
    pub(crate) fn accepts(&self, at: u64, bytes: u64, append: bool) -> bool {
        let begins = if append { self.end() } else { self.changeable_from() };
        !self.frozen
            && self.append == append
            && (begins..=self.end()).contains(&at)
            && (append || at / CHUNK_SIZE == self.at / CHUNK_SIZE)
            && at + bytes - self.at <= CHUNK_SIZE
    }

    /// Does it hold any byte of `[from, to)`?
    pub(crate) fn overlaps(&self, from: u64, to: u64) -> bool {
        self.at < to && from < self.end()
    }

    /// Writes `data` at an offset in the file, which [`Pending::accepts`] has allowed. `permit` covers `data`.
    pub(crate) fn write(&mut self, at: u64, data: &[u8], permit: Permit, now: Time, buffers: &Arc<Buffers>) {
        let mut offset = (at - self.at) as usize;
        let mut rest = data;
        while !rest.is_empty() {
            let (index, within) = (offset / self.block_size, offset % self.block_size);
            if index == self.blocks.len() {
                self.blocks.push(Block::Open(buffers.get(0)));
            }
            let n = rest.len().min(self.block_size - within);
            if let Block::Open(buf) = &mut self.blocks[index] {
                let old = buf.as_ref().len();
                grow(buf, within + n, index, self.block_size, buffers);
                // Reused memory may hold another file's bytes.
                buf.as_mut()[old.min(within)..within].fill(0);
                buf.as_mut()[within..within + n].copy_from_slice(&rest[..n]);
            }
            offset += n;
            rest = &rest[n..];
        }
        let grown = (offset as u32).saturating_sub(self.len);
        self.len = self.len.max(offset as u32);
        let mut permit = permit;
        // Overwritten bytes were paid for already.
        permit.shrink_to(u64::from(grown));
        self.permit = Some(match self.permit.take() {
            Some(p) => p.join(permit),
            None => permit,
        });
        self.touched = Instant::now();
        self.mtime = now;
    }

    /// Begins to upload blocks that are complete, or all of them when the slice is frozen.
    pub(crate) fn send(&mut self, blocks: &Arc<BlockStore>, tier: u8) {
        for index in 0..self.blocks.len() {
            let Block::Open(buf) = &mut self.blocks[index] else { continue };
            if buf.as_ref().len() < self.block_size && !self.frozen {
                continue;
            }
            let data = std::mem::replace(buf, blocks.buffers().get(0)).freeze();
            let permit = self.permit.as_mut().map(|p| p.split(data.len() as u64));
            let body = Arc::new(Mutex::new(Some(Body { data: data.clone(), _permit: permit })));
            self.blocks[index] = Block::Sent(Arc::clone(&body));
            let (store, id) = (Arc::clone(blocks), self.id);
            self.uploads.push(ciderfs_rt::spawn(async move {
                store.put_block(id, index as u32, data, tier).await?;
                *body.lock() = None;
                Ok(())
            }));
        }
    }

    /// The uploads to wait for.
    pub(crate) fn take_uploads(&mut self) -> Vec<JoinHandle<Result<(), BlockError>>> {
        std::mem::take(&mut self.uploads)
    }

    /// What to commit once everything is stored.
    pub(crate) fn slice(&self) -> NewSlice {
        let pos = (self.at % CHUNK_SIZE) as u32;
        let slice = Slice { pos, id: self.id, size: self.len, off: 0, len: self.len };
        if self.append { NewSlice::at_end(slice) } else { NewSlice::at((self.at / CHUNK_SIZE) as u32, slice) }
    }

    /// Bytes `[from, to)` of the file, all of which the slice holds, in order.
    pub(crate) fn parts(&self, from: u64, to: u64) -> Vec<Part> {
        let (mut offset, end) = ((from - self.at) as usize, (to - self.at) as usize);
        let mut out = Vec::new();
        while offset < end {
            let (index, within) = (offset / self.block_size, offset % self.block_size);
            let n = (end - offset).min(self.block_size - within);
            out.push(match &self.blocks[index] {
                Block::Open(buf) => Part::Ready(Bytes::copy_from_slice(&buf.as_ref()[within..within + n])),
                Block::Sent(body) => match &*body.lock() {
                    Some(body) => Part::Ready(Bytes::copy_from_slice(&body.data[within..within + n])),
                    None => {
                        let size = ((index + 1) * self.block_size).min(self.len as usize) as u32;
                        Part::Stored { off: offset as u32, len: n as u32, size }
                    }
                },
            });
            offset += n;
        }
        out
    }
}

/// Makes the buffer at least `len` bytes long: the first block in steps, the others have room for a whole block at once.
fn grow(buf: &mut Buffer, len: usize, index: usize, block_size: usize, buffers: &Arc<Buffers>) {
    let old = buf.as_ref().len();
    if len > buf.capacity() {
        let want = if index > 0 {
            block_size
        } else {
            len.max(buf.capacity() * GROWTH).max(FIRST_STEP).min(block_size)
        };
        let mut larger = buffers.get(want);
        larger.as_mut()[..old].copy_from_slice(buf.as_ref());
        *buf = larger;
    }
    buf.resize(len.max(old));
}
