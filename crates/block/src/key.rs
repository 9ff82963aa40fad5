//! How blocks are identified, and which blocks a piece of a slice touches.

use ciderfs_format::SliceId;
use ciderfs_format::objname::{block_count, block_key, block_len};

use crate::BlockError;

/// A block: slice id, index in the slice, and length, which together name its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BlockId {
    /// Slice id.
    pub id: SliceId,
    /// Index of the block in its slice.
    pub indx: u32,
    /// Bytes of the block before compression and encryption.
    pub len: u32,
}

impl BlockId {
    /// Block `indx` of a slice of `size` bytes; `None` beyond its end.
    pub fn of(id: SliceId, size: u32, indx: u32, block_size: u32) -> Option<Self> {
        let len = block_len(size, indx, block_size);
        (len > 0).then_some(Self { id, indx, len })
    }

    /// Its place, without the length.
    pub fn key(&self) -> (SliceId, u32) {
        (self.id, self.indx)
    }

    /// All blocks of a slice.
    pub fn all(id: SliceId, size: u32, block_size: u32) -> impl Iterator<Item = Self> {
        (0..block_count(size, block_size)).filter_map(move |indx| Self::of(id, size, indx, block_size))
    }

    /// Name of the object relative to the volume.
    pub fn object(&self, hash_prefix: bool) -> String {
        block_key(self.id, self.indx, self.len, hash_prefix)
    }

    /// A well-mixed number for choosing places.
    pub fn mix(&self) -> u64 {
        mix(self.id.0 ^ mix(u64::from(self.indx) << 32 | u64::from(self.len)))
    }
}

/// The finaliser of SplitMix64.
pub(crate) const fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// A part of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The block.
    pub block: BlockId,
    /// First byte in the block.
    pub off: u32,
    /// Bytes, at least 1.
    pub len: u32,
}

impl Piece {
    /// Cuts bytes `[off, off+len)` of a slice of `size` bytes into pieces of blocks.
    pub fn cut(id: SliceId, size: u32, off: u32, len: u32, block_size: u32) -> Result<Vec<Self>, BlockError> {
        let end = off.checked_add(len).filter(|&end| end <= size).ok_or_else(|| {
            BlockError::Invalid(format!("bytes {off}+{len} are beyond slice {id} of {size} bytes"))
        })?;
        let mut pieces = Vec::with_capacity(block_count(len, block_size) as usize + 1);
        let mut at = off;
        while at < end {
            let indx = at / block_size;
            let inside = at % block_size;
            let Some(block) = BlockId::of(id, size, indx, block_size) else { break };
            let n = (block.len - inside).min(end - at);
            pieces.push(Self { block, off: inside, len: n });
            at += n;
        }
        Ok(pieces)
    }
}
