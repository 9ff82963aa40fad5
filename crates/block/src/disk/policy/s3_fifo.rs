//! S3-FIFO. New blocks wait in a small queue; those used again move to the main queue, the others leave early, so that
//! one long scan does not wash out what is used often. Keys that left the small queue are remembered for a while
//! (ghosts) and enter the main queue at once when they come back.

use ciderfs_format::SliceId;
use std::collections::{HashSet, VecDeque};

use super::{Entries, Entry, Key, Policy, cost};

/// The small queue holds a tenth of all.
const SMALL_SHARE: u64 = 10;
/// Upper bound of remembered keys.
const MAX_GHOSTS: usize = 1 << 18;
/// Stale queue places that are tolerated before the queues are cleaned.
const STALE_SLACK: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Place {
    id: SliceId,
    indx: u32,
    stamp: u32,
}

impl Place {
    fn key(&self) -> Key {
        (self.id, self.indx)
    }

    /// Its entry, unless the block is gone, or came again later.
    fn live<'a>(&self, entries: &'a Entries) -> Option<&'a Entry> {
        entries.get(&self.key()).filter(|e| e.stamp == self.stamp)
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct S3Fifo {
    small: VecDeque<Place>,
    main: VecDeque<Place>,
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64>,
    stamp: u32,
    small_used: u64,
}

impl S3Fifo {
    fn remember(&mut self, ghost: u64, blocks: usize) {
        if self.ghost_set.insert(ghost) {
            self.ghosts.push_back(ghost);
        }
        while self.ghosts.len() > MAX_GHOSTS.min(blocks) {
            if let Some(old) = self.ghosts.pop_front() {
                self.ghost_set.remove(&old);
            }
        }
    }
}

impl Policy for S3Fifo {
    fn added(&mut self, key: Key, entry: &mut Entry) {
        entry.main |= self.ghost_set.remove(&entry.block(key).mix());
        self.stamp = self.stamp.wrapping_add(1);
        entry.stamp = self.stamp;
        let place = Place { id: key.0, indx: key.1, stamp: self.stamp };
        if entry.main {
            self.main.push_back(place);
        } else {
            self.small_used += cost(entry.len);
            self.small.push_back(place);
        }
    }

    fn removed(&mut self, _key: Key, entry: &Entry, entries: &mut Entries) {
        if !entry.main {
            self.small_used -= cost(entry.len);
        }
        // Places whose blocks are gone stay in the queues until there are too many of them.
        if self.small.len() + self.main.len() > 2 * entries.len() + STALE_SLACK {
            self.small.retain(|p| p.live(entries).is_some());
            self.main.retain(|p| p.live(entries).is_some());
        }
    }

    fn victim(&mut self, entries: &mut Entries, used: u64) -> Option<Key> {
        loop {
            let from_small = self.small_used * SMALL_SHARE > used || self.main.is_empty();
            // Both are empty only if there is no block.
            let place = if from_small { self.small.pop_front() } else { self.main.pop_front() }?;
            let blocks = entries.len();
            let Some(entry) = entries.get_mut(&place.key()).filter(|e| e.stamp == place.stamp) else {
                continue;
            };
            if entry.uses > 0 {
                // From the small queue it moves on; in the main queue it gets another round.
                entry.uses = if entry.main { entry.uses - 1 } else { 0 };
                if !entry.main {
                    entry.main = true;
                    self.small_used -= cost(entry.len);
                }
                self.main.push_back(place);
                continue;
            }
            if !entry.main {
                let ghost = entry.block(place.key()).mix();
                self.remember(ghost, blocks);
            }
            return Some(place.key());
        }
    }

    fn order(&self, entries: &Entries) -> Vec<Key> {
        self.small.iter().chain(&self.main).filter(|p| p.live(entries).is_some()).map(Place::key).collect()
    }
}
