//! What this mount knows of files with holes: how much data is in them, and where space was reserved.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use ciderfs_format::{Attr, CHUNK_SIZE, Ino, Time};
use parking_lot::Mutex;

/// Files that are remembered.
const FILES_MAX: usize = 16_384;
/// Reserved ranges that are remembered of one file.
const RANGES_MAX: usize = 1024;
/// A file of this length that nobody has looked at yet is counted: a wrong answer would be too far off.
const COUNTED_ALWAYS: u64 = 1 << 30;
/// A file of so many chunks is counted whenever it has changed.
const COUNTED_EXACTLY: u64 = 64;
/// Of the time, counting the blocks of a longer file that keeps changing takes at most one part in so many.
const COUNTING_SHARE: u32 = 20;
/// Space is reserved in whole blocks of so many bytes, and punched likewise.
const BLOCK: u64 = 4096;

/// Bytes of a file as they were counted last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) length: u64,
    pub(crate) mtime: Time,
    /// Of data, or reserved for data.
    pub(crate) bytes: u64,
    /// When it was counted, and how long that took.
    pub(crate) at: Instant,
    pub(crate) took: Duration,
}

/// Ranges of a file, ascending, apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reserved(Vec<Range<u64>>);

impl Reserved {
    /// Bytes of a range that are reserved.
    pub(crate) fn within(&self, range: &Range<u64>) -> u64 {
        let common = |r: &Range<u64>| r.end.min(range.end).saturating_sub(r.start.max(range.start));
        self.0.iter().map(common).sum()
    }

    fn add(&mut self, range: &Range<u64>) {
        let mut all = range.start / BLOCK * BLOCK..range.end.next_multiple_of(BLOCK);
        self.0.retain(|r| {
            let apart = r.end < all.start || all.end < r.start;
            if !apart {
                all = all.start.min(r.start)..all.end.max(r.end);
            }
            apart
        });
        let at = self.0.partition_point(|r| r.start < all.start);
        self.0.insert(at, all);
        if self.0.len() > RANGES_MAX {
            // Then only data count.
            self.0.clear();
        }
    }

    fn remove(&mut self, range: &Range<u64>) {
        let hole = range.start.next_multiple_of(BLOCK)..range.end / BLOCK * BLOCK;
        if hole.start >= hole.end {
            return;
        }
        let parts = |r: &Range<u64>| {
            let (before, behind) = (r.start..r.end.min(hole.start), r.start.max(hole.end)..r.end);
            [before, behind].into_iter().filter(|part| part.start < part.end)
        };
        self.0 = self.0.iter().flat_map(parts).collect();
    }
}

/// A file with holes, or thought to have some.
#[derive(Default)]
struct Sparse {
    counted: Option<Counted>,
    reserved: Reserved,
}

/// All files of which this mount knows that they have, or may have, holes.
#[derive(Default)]
pub(crate) struct Allocated {
    files: Mutex<HashMap<Ino, Sparse>>,
}

impl Allocated {
    /// A file got a hole, or may have got one: it is counted when somebody asks.
    pub(crate) fn suspect(&self, ino: Ino) {
        self.change(ino, |_| {});
    }

    /// Space was reserved for a range.
    pub(crate) fn reserve(&self, ino: Ino, range: &Range<u64>) {
        self.change(ino, |s| {
            s.reserved.add(range);
            s.counted = None;
        });
    }

    /// A range became a hole.
    pub(crate) fn punch(&self, ino: Ino, range: &Range<u64>) {
        self.change(ino, |s| {
            s.reserved.remove(range);
            s.counted = None;
        });
    }

    /// A file was cut at this length, which gives back what was reserved behind it.
    pub(crate) fn cut(&self, ino: Ino, length: u64) {
        if let Some(s) = self.files.lock().get_mut(&ino) {
            s.reserved.remove(&(length..u64::MAX));
        }
    }

    fn change(&self, ino: Ino, change: impl FnOnce(&mut Sparse)) {
        let mut files = self.files.lock();
        if files.len() >= FILES_MAX {
            files.clear();
        }
        change(files.entry(ino).or_default());
    }

    /// A file has no data and no holes any more.
    pub(crate) fn forget(&self, ino: Ino) {
        self.files.lock().remove(&ino);
    }

    /// Where space is reserved.
    pub(crate) fn reserved(&self, ino: Ino) -> Reserved {
        self.files.lock().get(&ino).map_or_else(Reserved::default, |s| s.reserved.clone())
    }

    /// Enters what was counted.
    pub(crate) fn set(&self, ino: Ino, counted: Counted) {
        self.change(ino, |s| s.counted = Some(counted));
    }

    /// Should the file be counted, for [`Allocated::bytes`] to be right?
    pub(crate) fn is_due(&self, ino: Ino, attr: &Attr) -> bool {
        match self.files.lock().get(&ino).map(|s| s.counted) {
            None => attr.length >= COUNTED_ALWAYS,
            Some(None) => true,
            Some(Some(c)) => {
                (c.length, c.mtime) != (attr.length, attr.mtime)
                    && (attr.length <= COUNTED_EXACTLY * CHUNK_SIZE
                        || c.at.elapsed() >= c.took * COUNTING_SHARE)
            }
        }
    }

    /// Bytes of data, or reserved for data.
    pub(crate) fn bytes(&self, ino: Ino, attr: &Attr) -> u64 {
        match self.files.lock().get(&ino).and_then(|s| s.counted) {
            // What came behind the end since it was counted is data until it is counted again.
            Some(c) => c.bytes.saturating_add(attr.length.saturating_sub(c.length)),
            None => attr.length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ranges() {
        let mut r = Reserved::default();
        r.add(&(4095..4097));
        assert_eq!((r.0.len(), r.0[0].clone()), (1, 0..8192));
        r.add(&(20_480..20_481));
        r.add(&(40_960..45_056));
        assert_eq!(r.0, [0..8192, 20_480..24_576, 40_960..45_056]);
        assert_eq!(r.within(&(8000..41_000)), 192 + 4096 + 40);
        r.add(&(8192..20_480));
        assert_eq!(r.0, [0..24_576, 40_960..45_056], "neighbours are joined");
        r.remove(&(1..12_288));
        assert_eq!(r.0, [0..4096, 12_288..24_576, 40_960..45_056], "only whole blocks are given back");
        r.remove(&(24_575..u64::MAX));
        assert_eq!(r.0, [0..4096, 12_288..24_576]);
        r.remove(&(12_289..16_383));
        assert_eq!(r.0.len(), 2);
        r.remove(&(0..1 << 40));
        assert_eq!(r.within(&(0..1 << 40)), 0);
    }
}
