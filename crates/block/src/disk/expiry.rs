//! Blocks that were not used for a set time leave.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::policy::{Entries, Key};

/// Blocks that are looked at in one step.
pub(crate) const STEP: usize = 1000;
/// Stale places that are tolerated before the heap is built anew.
const STALE_SLACK: usize = 1024;

/// Blocks by a second at which they were used; they may have been used since, which is seen when their time comes. So
/// a use costs nothing and a step looks only at those that may be due.
#[derive(Debug)]
pub(crate) struct Expiry {
    after: u32,
    heap: BinaryHeap<Reverse<(u32, Key)>>,
}

impl Expiry {
    /// After this many seconds without a use.
    pub fn new(after: u32) -> Self {
        Self { after, heap: BinaryHeap::new() }
    }

    /// A block came, or came again.
    pub fn added(&mut self, key: Key, second: u32) {
        self.heap.push(Reverse((second, key)));
    }

    /// Begins anew with all blocks; none is older than `floor`.
    pub fn rebuild(&mut self, entries: &Entries, floor: u32) {
        self.heap = entries.iter().map(|(key, e)| Reverse((e.second.max(floor), *key))).collect();
    }

    /// Blocks that are due now. A second that has only begun is not over: none leaves before its time.
    pub fn due(&mut self, entries: &Entries, floor: u32, now: u32) -> Vec<Key> {
        if self.heap.len() > 2 * entries.len() + STALE_SLACK {
            self.rebuild(entries, floor);
        }
        let mut due = Vec::new();
        for _ in 0..STEP {
            let Some(Reverse((second, key))) = self.heap.peek().copied() else { break };
            if now.saturating_sub(second) <= self.after {
                break;
            }
            self.heap.pop();
            // Gone already, if there is no entry.
            let Some(used) = entries.get(&key).map(|e| e.second.max(floor)) else { continue };
            if now.saturating_sub(used) > self.after {
                due.push(key);
            } else {
                self.heap.push(Reverse((used, key)));
            }
        }
        // One that went and came again is in the heap twice.
        due.sort_unstable();
        due.dedup();
        due
    }
}
