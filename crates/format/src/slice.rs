//! Slice records and how a chunk's list of them resolves to extents (`docs/format/chunks-and-slices.md#slice-record`,
//! `docs/format/chunks-and-slices.md#resolving-a-chunk`).
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use crate::FormatError;

/// Bytes of a chunk: 64 MiB.
pub const CHUNK_SIZE: u64 = 1 << 26;
/// Exclusive limit of file lengths: 2^57.
pub const MAX_FILE_SIZE: u64 = CHUNK_SIZE << 31;
/// Chunks of the longest file.
pub const CHUNKS_MAX: u32 = 1 << 31;

/// Chunks of a file of this length; of one longer than files can be, as many as a file can have. The one place where lengths, which
/// users and records control, become numbers of chunks. No loop may take so many steps: a sparse file has next to none of them.
pub const fn chunk_count(length: u64) -> u32 {
    let count = length.div_ceil(CHUNK_SIZE);
    if count > CHUNKS_MAX as u64 { CHUNKS_MAX } else { count as u32 }
}

/// The chunk in which an offset lies; beyond the longest file, the one behind its last.
pub const fn chunk_at(offset: u64) -> u32 {
    let indx = offset / CHUNK_SIZE;
    if indx > CHUNKS_MAX as u64 { CHUNKS_MAX } else { indx as u32 }
}

/// The offset at which a chunk begins.
pub const fn chunk_start(indx: u32) -> u64 {
    (indx as u64).saturating_mul(CHUNK_SIZE)
}

/// One record of a chunk's list.
///
/// Bytes `[pos, pos+len)` of the chunk come from bytes `[off, off+len)` of slice `id`, whose objects hold `size`
/// bytes in all. `id` 0 means zeros; their `size` means nothing but for [`Slice::RESERVED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Slice {
    /// Offset in the chunk.
    pub pos: u32,
    /// Slice id; 0 for zeros.
    pub id: u64,
    /// Length of the stored slice; with the id it names the objects.
    pub size: u32,
    /// First visible byte of the slice.
    pub off: u32,
    /// Visible bytes.
    pub len: u32,
}

impl Slice {
    /// Stored length of a record.
    pub const RECORD: usize = 24;

    /// The `size` of zeros for which space was reserved (`fallocate`). Other clients read any zeros alike, and write sizes of at
    /// most a chunk.
    pub const RESERVED: u32 = 1 << 31;

    /// Zeros for which space was reserved.
    pub fn reserved(pos: u32, len: u32) -> Self {
        Self { size: Self::RESERVED, ..Self::zeros(pos, len) }
    }

    /// Does `stat` count it: data, or space reserved for data?
    pub fn is_allocated(&self) -> bool {
        self.id > 0 || self.size == Self::RESERVED
    }

    /// A record of zeros.
    pub fn zeros(pos: u32, len: u32) -> Self {
        Self { pos, id: 0, size: 0, off: 0, len }
    }

    /// The 24 stored bytes.
    pub fn encode(&self) -> [u8; Self::RECORD] {
        let mut out = [0; Self::RECORD];
        out[..4].copy_from_slice(&self.pos.to_be_bytes());
        out[4..12].copy_from_slice(&self.id.to_be_bytes());
        out[12..16].copy_from_slice(&self.size.to_be_bytes());
        out[16..20].copy_from_slice(&self.off.to_be_bytes());
        out[20..].copy_from_slice(&self.len.to_be_bytes());
        out
    }

    /// Decodes one record.
    pub fn decode(raw: &[u8]) -> Result<Self, FormatError> {
        let raw: &[u8; Self::RECORD] = raw.try_into().map_err(|_| FormatError::Length {
            what: "slice record",
            got: raw.len(),
            expected: "24",
        })?;
        let words = raw.as_chunks::<4>().0;
        let word = |i: usize| u32::from_be_bytes(words[i]);
        let id = (u64::from(word(1)) << 32) | u64::from(word(2));
        Ok(Self { pos: word(0), id, size: word(3), off: word(4), len: word(5) })
    }

    /// Decodes a chunk value that is the concatenation of records, as the SQL and KV engines store it.
    pub fn decode_list(raw: &[u8]) -> Result<Vec<Self>, FormatError> {
        if !raw.len().is_multiple_of(Self::RECORD) {
            return Err(FormatError::Length {
                what: "slice list",
                got: raw.len(),
                expected: "a multiple of 24",
            });
        }
        raw.chunks_exact(Self::RECORD).map(Self::decode).collect()
    }

    /// Concatenates records.
    pub fn encode_list(list: &[Self]) -> Vec<u8> {
        list.iter().flat_map(Self::encode).collect()
    }

    /// The record at an offset of a file, cut at the borders of chunks: chunk indexes and records. Its own position means nothing.
    pub fn at_offset(mut self, mut at: u64) -> impl Iterator<Item = (u32, Self)> {
        std::iter::from_fn(move || {
            let pos = at % CHUNK_SIZE;
            let len = u64::from(self.len).min(CHUNK_SIZE.saturating_sub(pos)) as u32;
            let part = ((at / CHUNK_SIZE) as u32, Self { pos: pos as u32, len, ..self });
            at = at.saturating_add(u64::from(len));
            self.len = self.len.saturating_sub(len);
            if self.id > 0 {
                self.off = self.off.saturating_add(len);
            }
            (len > 0).then_some(part)
        })
    }

    /// One past the last chunk byte that the record covers.
    pub fn end(&self) -> u64 {
        u64::from(self.pos).saturating_add(u64::from(self.len))
    }
}

/// A resolved piece of a chunk: what a reader sees. Same fields and meaning as [`Slice`].
pub type Extent = Slice;

/// Resolves a chunk's list: later records hide earlier ones; gaps before the last record become holes (id 0).
///
/// The result is sorted by position, without overlaps or gaps, and starts at 0 unless it is empty. Records of
/// length 0 and bytes beyond the chunk are ignored.
pub fn resolve(list: &[Slice]) -> Vec<Extent> {
    use std::collections::BTreeMap;
    // Disjoint pieces by position. Painting newest last keeps each step at O(pieces cut).
    let mut map: BTreeMap<u32, Extent> = BTreeMap::new();
    for s in list {
        let end = s.end().min(CHUNK_SIZE);
        if s.len == 0 || u64::from(s.pos) >= end {
            continue;
        }
        let end = end as u32;
        let s = Slice { len: end.saturating_sub(s.pos), ..*s };
        if let Some((&pos, prev)) = map.range(..s.pos).next_back() {
            let prev_end = pos.saturating_add(prev.len);
            if prev_end > s.pos {
                let left = Slice { len: s.pos.saturating_sub(pos), ..*prev };
                let right = (prev_end > end).then(|| cut_front(*prev, end));
                map.insert(pos, left);
                if let Some(right) = right {
                    map.insert(right.pos, right);
                }
            }
        }
        let covered: Vec<u32> = map.range(s.pos..end).map(|(&p, _)| p).collect();
        for pos in covered {
            if let Some(old) = map.remove(&pos)
                && pos.saturating_add(old.len) > end
            {
                map.insert(end, cut_front(old, end));
            }
        }
        map.insert(s.pos, s);
    }
    let mut out = Vec::with_capacity(map.len());
    let mut at = 0;
    for e in map.into_values() {
        if e.pos > at {
            out.push(Slice::zeros(at, e.pos.saturating_sub(at)));
        }
        at = e.pos.saturating_add(e.len);
        out.push(e);
    }
    out
}

/// The part of `e` from chunk position `pos` on.
fn cut_front(e: Extent, pos: u32) -> Extent {
    let cut = pos.saturating_sub(e.pos);
    // The offset of a record of zeros means nothing and may be anything; never let it overflow.
    let off = if e.id == 0 { e.off } else { e.off.saturating_add(cut) };
    Slice { pos, off, len: e.len.saturating_sub(cut), ..e }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "tests")]
mod tests;
