//! Decides how far ahead of a reader to fetch.

/// Reads this far apart still belong to one stream,
const SLACK: u64 = 1 << 20;
/// or this many reads: the kernel sends the requests of its own read-ahead at once, and they arrive in any order.
const SLACK_READS: u64 = 4;

/// The pattern of reads of one handle.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    /// Where the next sequential read begins.
    next: u64,
    /// Bytes read in sequence so far.
    streak: u64,
    /// The longest read of the sequence.
    longest: u64,
    /// Everything below has been asked for.
    fetched: u64,
}

impl ReadAhead {
    /// Notes a read; returns whether it is sequential and the range to fetch ahead, if any.
    pub(crate) fn note(&mut self, off: u64, len: u64, block: u64, max: u64) -> (bool, Option<(u64, u64)>) {
        let end = off + len;
        self.longest = self.longest.max(len);
        let slack = SLACK.max(SLACK_READS * self.longest);
        let follows = off <= self.next + slack && off + slack >= self.next && (self.next > 0 || off == 0);
        if !follows {
            *self = Self { next: end, streak: len, longest: len, fetched: end };
            return (false, None);
        }
        self.streak += len;
        self.next = self.next.max(end);
        if max == 0 || self.streak < block.min(256 << 10) {
            return (true, None);
        }
        // As much ahead as was read so far, in whole blocks.
        let window = self.streak.next_multiple_of(block).min(max);
        let target = self.next + window;
        let from = self.fetched.max(self.next);
        // Ask for whole blocks only, so that one request to the store serves many reads.
        if target < from + block && from > self.next {
            return (true, None);
        }
        self.fetched = target;
        (true, (target > from).then_some((from, target)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Reads of a MiB each at these MiB; which were taken for sequential, and how far was fetched ahead in the end.
    fn reads(at: &[u64]) -> (Vec<bool>, u64) {
        let mut ahead = ReadAhead::default();
        let mut fetched = 0;
        let sequential = at.iter().map(|&at| {
            let (sequential, range) = ahead.note(at * MIB, MIB, 4 * MIB, 32 * MIB);
            fetched = range.map_or(fetched, |(_, to)| to);
            sequential
        });
        (sequential.collect(), fetched / MIB)
    }

    #[test]
    fn a_stream_is_fetched_ahead_of_its_reader() {
        let (sequential, fetched) = reads(&(0..64).collect::<Vec<_>>());
        assert!(sequential.iter().all(|s| *s));
        assert!((64 + 28..=64 + 32).contains(&fetched), "{fetched}");
    }

    #[test]
    fn requests_that_overtake_one_another_are_still_a_stream() {
        let mut order: Vec<u64> = (0..64).collect();
        for four in order.chunks_mut(4) {
            four.reverse();
        }
        let (sequential, fetched) = reads(&order);
        // The very first one could be anything.
        assert!(sequential[1..].iter().all(|s| *s), "{sequential:?}");
        assert!((64 + 28..=64 + 32).contains(&fetched), "{fetched}");
    }

    #[test]
    fn reads_all_over_the_file_are_no_stream() {
        let (sequential, fetched) = reads(&[500, 3, 1000, 77, 900, 20]);
        assert!(sequential.iter().all(|s| !*s));
        assert_eq!(fetched, 0);
    }
}
