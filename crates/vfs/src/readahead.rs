//! Decides how far ahead of a reader to fetch.

/// Two reads this far apart still belong to one stream: the kernel reorders a little.
const SLACK: u64 = 1 << 20;

/// The pattern of reads of one handle.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    /// Where the next sequential read begins.
    next: u64,
    /// Bytes read in sequence so far.
    streak: u64,
    /// Everything below has been asked for.
    fetched: u64,
}

impl ReadAhead {
    /// Notes a read; returns whether it is sequential and the range to fetch ahead, if any.
    pub(crate) fn note(&mut self, off: u64, len: u64, block: u64, max: u64) -> (bool, Option<(u64, u64)>) {
        let end = off + len;
        let follows = off <= self.next + SLACK && off + SLACK >= self.next && (self.next > 0 || off == 0);
        if !follows {
            *self = Self { next: end, streak: len, fetched: end };
            return (false, None);
        }
        self.streak += len;
        self.next = self.next.max(end);
        if max == 0 || self.streak < block.min(256 << 10) {
            return (true, None);
        }
        // As much ahead as was read so far, in whole blocks.
        let window = self.streak.next_multiple_of(block).min(max);
        let target = end + window;
        let from = self.fetched.max(end);
        // Ask for whole blocks only, so that one request to the store serves many reads.
        if target < from + block && from > end {
            return (true, None);
        }
        self.fetched = target;
        (true, (target > from).then_some((from, target)))
    }
}
