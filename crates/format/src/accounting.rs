//! What a change of length means for the volume: bytes charged, and the zero records that hide old data
//! (`spec/meta-redis.md` 5.5, 5.6).

use std::ops::Range;

use crate::slice::{CHUNK_SIZE, Slice};

/// The change of used bytes when a file's length goes from `old` to `new`.
pub const fn usage_delta(old: u64, new: u64) -> i64 {
    crate::align4k(new).wrapping_sub(crate::align4k(old)) as i64
}

/// One zero record for one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ZeroRecord {
    /// Index of the chunk.
    pub chunk: u64,
    /// The record to append.
    pub slice: Slice,
    /// Append only to a list that exists (`RPUSHX`): a chunk without records reads as zeros already.
    pub only_if_exists: bool,
}

/// The zero records for one range of a file, in chunk order. Whole chunks in the middle are kept as a range, since
/// there can be 2^31 of them: look up which exist instead of iterating when there are many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZeroRecords {
    /// The record of the first chunk; append it even if the chunk has no list yet.
    pub first: ZeroRecord,
    /// Chunks in between, which get a record of 64 MiB if they have a list.
    pub middle: Range<u64>,
    /// The record of the last chunk when the range ends inside one; append it even if the chunk has no list yet.
    pub last: Option<ZeroRecord>,
}

impl ZeroRecords {
    /// Zeros over `[start, end)`; `None` if that is empty.
    pub fn over(start: u64, end: u64) -> Option<Self> {
        if start >= end {
            return None;
        }
        let record = |chunk: u64, pos: u64, len: u64| ZeroRecord {
            chunk,
            slice: Slice::zeros(pos as u32, len as u32),
            only_if_exists: false,
        };
        let (chunk, pos) = (start / CHUNK_SIZE, start % CHUNK_SIZE);
        let first = record(chunk, pos, (end - start).min(CHUNK_SIZE - pos));
        let (end_chunk, rest) = (end / CHUNK_SIZE, end % CHUNK_SIZE);
        let last = (end_chunk > chunk && rest > 0).then(|| record(end_chunk, 0, rest));
        Some(Self { first, middle: chunk + 1..end_chunk.max(chunk + 1), last })
    }

    /// All records in chunk order.
    pub fn iter(&self) -> impl Iterator<Item = ZeroRecord> {
        let whole =
            |chunk| ZeroRecord { chunk, slice: Slice::zeros(0, CHUNK_SIZE as u32), only_if_exists: true };
        std::iter::once(self.first).chain(self.middle.clone().map(whole)).chain(self.last)
    }
}

/// The records that a change of length writes, growing or shrinking; `None` if the length stays.
pub fn truncate_records(old: u64, new: u64) -> Option<ZeroRecords> {
    ZeroRecords::over(old.min(new), old.max(new))
}

/// The records that punching a hole or zeroing `[off, off+size)` writes into a file of `old` bytes; `None` when the
/// range lies beyond its end.
///
/// The official client creates the lists of missing middle chunks too; leaving them out reads the same.
pub fn fallocate_records(off: u64, size: u64, old: u64) -> Option<ZeroRecords> {
    ZeroRecords::over(off, off.saturating_add(size).min(old))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn appendix_a() {
        // Appendix A.2 and A.3 of meta-redis.md.
        assert_eq!(usage_delta(5, 100_010), 98304);
        assert_eq!(usage_delta(700, 200_000_000), 199_999_488);
        assert_eq!(usage_delta(200_000_000, 0), -199_999_488);
        let got: Vec<_> = truncate_records(700, 200_000_000)
            .unwrap()
            .iter()
            .map(|r| (r.chunk, r.slice.pos, r.slice.len, r.only_if_exists))
            .collect();
        assert_eq!(got, [(0, 0x2bc, 0x3ff_fd44, false), (1, 0, 0x400_0000, true), (2, 0, 0x3eb_c200, false)]);
        // The zero record of 2.2: 100010 -> 700.
        let r = truncate_records(100_010, 700).unwrap();
        assert_eq!(r.iter().count(), 1);
        assert_eq!(r.first.slice, Slice::zeros(0x2bc, 0x183ee));
        // Appendix A of meta-sql-kv.md: 150 -> 20, 20 -> 200 MiB.
        assert_eq!(truncate_records(150, 20).unwrap().first.slice, Slice::zeros(0x14, 0x82));
        let r = truncate_records(20, 200 << 20).unwrap();
        assert_eq!(r.first.slice, Slice::zeros(0x14, 0x3ff_ffec));
        assert_eq!(r.middle, 1..3);
        assert_eq!(r.last.unwrap().slice, Slice::zeros(0, 0x80_0000));
        assert_eq!(r.last.unwrap().chunk, 3);
    }

    #[test]
    fn edges() {
        assert_eq!(truncate_records(9, 9), None);
        assert_eq!(fallocate_records(10, 5, 10), None);
        assert_eq!(fallocate_records(10, 0, 100), None);
        assert_eq!(fallocate_records(10, u64::MAX, 100).unwrap().first.slice, Slice::zeros(10, 90));
        let r = truncate_records(0, crate::slice::MAX_FILE_SIZE).unwrap();
        assert_eq!((r.middle, r.last), (1..1 << 31, None));
        let r = truncate_records(CHUNK_SIZE, CHUNK_SIZE + 1).unwrap();
        assert_eq!((r.first.chunk, r.first.slice), (1, Slice::zeros(0, 1)));
    }

    proptest! {
        #[test]
        fn records_tile_the_range(a in 0u64..1 << 30, b in 0u64..1 << 30) {
            let (start, end) = (a.min(b), a.max(b));
            let mut at = start;
            if let Some(r) = ZeroRecords::over(start, end) {
                for r in r.iter() {
                    prop_assert_eq!(r.chunk * CHUNK_SIZE + u64::from(r.slice.pos), at);
                    prop_assert!(r.slice.len > 0 && r.slice.end() <= CHUNK_SIZE);
                    at += u64::from(r.slice.len);
                }
            }
            prop_assert_eq!(at, end);
        }

        #[test]
        fn deltas_add_up(a in 0..crate::slice::MAX_FILE_SIZE, b in 0..crate::slice::MAX_FILE_SIZE) {
            prop_assert_eq!(usage_delta(a, b), -usage_delta(b, a));
            prop_assert_eq!(crate::align4k(a).wrapping_add_signed(usage_delta(a, b)), crate::align4k(b));
        }
    }
}
