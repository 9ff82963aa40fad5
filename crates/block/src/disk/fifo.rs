//! Which blocks the disk cache keeps: S3-FIFO. New blocks wait in a small queue; those used again move to the main
//! queue, the others leave early, so that one long scan does not wash out what is used often. Keys that left the small
//! queue are remembered for a while (ghosts) and enter the main queue at once when they come back.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::key::BlockId;

/// What a block costs beside its bytes: the file and its entry.
pub(crate) const ENTRY_OVERHEAD: u64 = 4096;
/// Uses that count; more make no difference.
const MAX_USES: u8 = 3;
/// The small queue holds a tenth of the capacity.
const SMALL_SHARE: u64 = 10;
/// Upper bound of remembered keys.
const MAX_GHOSTS: usize = 1 << 18;
/// Upper bound of blocks in one directory, about 80 bytes of memory each.
pub(crate) const MAX_ENTRIES: usize = 8 << 20;
/// Stale queue places that are tolerated before the queues are cleaned.
const STALE_SLACK: usize = 1024;

#[derive(Debug, Clone, Copy)]
struct Entry {
    len: u32,
    stamp: u32,
    second: u32,
    uses: u8,
    main: bool,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    id: u64,
    indx: u32,
    stamp: u32,
}

/// The blocks on disk, with the order in which they leave. Pure bookkeeping.
#[derive(Debug, Default)]
pub(crate) struct Fifo {
    entries: HashMap<(u64, u32), Entry>,
    small: VecDeque<Place>,
    main: VecDeque<Place>,
    ghosts: VecDeque<u64>,
    ghost_set: HashSet<u64>,
    stamp: u32,
    small_used: u64,
    used: u64,
    capacity: u64,
}

/// What a block of `len` bytes counts for.
pub(crate) fn cost(len: u32) -> u64 {
    u64::from(len) + ENTRY_OVERHEAD
}

impl Fifo {
    /// An empty index of at most `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Bytes now, overhead included.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// The most bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Blocks now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is the block there?
    pub fn contains(&self, block: &BlockId) -> bool {
        self.entries.get(&(block.id, block.indx)).is_some_and(|e| e.len == block.len)
    }

    /// Is the block there? Counts as a use, but only once per `second`: a sequential reader that takes a block in
    /// several bites uses it once.
    pub fn touch(&mut self, block: &BlockId, second: u32) -> bool {
        match self.entries.get_mut(&(block.id, block.indx)) {
            Some(entry) if entry.len == block.len => {
                if entry.second != second {
                    entry.second = second;
                    entry.uses = (entry.uses + 1).min(MAX_USES);
                }
                true
            }
            _ => false,
        }
    }

    /// Adds a block. Call [`Fifo::make_room`] first. An entry of the same place but another length is replaced.
    pub fn insert(&mut self, block: BlockId, second: u32) {
        if self.contains(&block) {
            return;
        }
        self.remove_place(block.id, block.indx);
        let main = self.ghost_set.remove(&block.mix());
        self.push(block, second, 0, main);
    }

    /// Adds a block as it was in an earlier life.
    pub fn restore(&mut self, block: BlockId, uses: u8, main: bool) {
        self.remove_place(block.id, block.indx);
        self.push(block, 0, uses.min(MAX_USES), main);
    }

    fn push(&mut self, block: BlockId, second: u32, uses: u8, main: bool) {
        self.stamp = self.stamp.wrapping_add(1);
        let place = Place { id: block.id, indx: block.indx, stamp: self.stamp };
        let entry = Entry { len: block.len, stamp: self.stamp, second, uses, main };
        self.entries.insert((block.id, block.indx), entry);
        self.used += cost(block.len);
        if main {
            self.main.push_back(place);
        } else {
            self.small_used += cost(block.len);
            self.small.push_back(place);
        }
    }

    /// Removes a block; false if it was not there.
    pub fn remove(&mut self, block: &BlockId) -> bool {
        self.contains(block) && self.remove_place(block.id, block.indx).is_some()
    }

    fn remove_place(&mut self, id: u64, indx: u32) -> Option<BlockId> {
        let entry = self.entries.remove(&(id, indx))?;
        self.used -= cost(entry.len);
        if !entry.main {
            self.small_used -= cost(entry.len);
        }
        self.clean();
        Some(BlockId { id, indx, len: entry.len })
    }

    /// Drops queue places whose blocks are gone, when there are too many of them.
    fn clean(&mut self) {
        if self.small.len() + self.main.len() > 2 * self.entries.len() + STALE_SLACK {
            let entries = &self.entries;
            let live = |p: &Place| entries.get(&(p.id, p.indx)).is_some_and(|e| e.stamp == p.stamp);
            self.small.retain(live);
            self.main.retain(live);
        }
    }

    /// Takes out blocks until `bytes` more fit; returns them so that their files can be removed.
    pub fn make_room(&mut self, bytes: u64) -> Vec<BlockId> {
        let mut out = Vec::new();
        while self.used + bytes > self.capacity || self.entries.len() >= MAX_ENTRIES {
            match self.evict() {
                Some(block) => out.push(block),
                None => break,
            }
        }
        out
    }

    /// Takes out blocks worth at least `bytes` bytes and `count` entries, or all there are.
    pub fn shed(&mut self, bytes: u64, count: u64) -> Vec<BlockId> {
        let mut out = Vec::new();
        let mut freed = 0;
        while freed < bytes || (out.len() as u64) < count {
            let Some(block) = self.evict() else { break };
            freed += cost(block.len);
            out.push(block);
        }
        out
    }

    fn evict(&mut self) -> Option<BlockId> {
        loop {
            let from_small = self.small_used * SMALL_SHARE > self.capacity || self.main.is_empty();
            let place = if from_small { self.small.pop_front() } else { self.main.pop_front() };
            let Some(place) = place else {
                // Only stale accounting could bring us here with entries left; there are none.
                return None;
            };
            let Some(entry) = self.entries.get_mut(&(place.id, place.indx)) else { continue };
            if entry.stamp != place.stamp {
                continue;
            }
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
            let small = !entry.main;
            let block = self.remove_place(place.id, place.indx)?;
            if small {
                self.remember(block.mix());
            }
            return Some(block);
        }
    }

    fn remember(&mut self, ghost: u64) {
        if self.ghost_set.insert(ghost) {
            self.ghosts.push_back(ghost);
        }
        while self.ghosts.len() > MAX_GHOSTS.min(self.entries.len() + 1) {
            if let Some(old) = self.ghosts.pop_front() {
                self.ghost_set.remove(&old);
            }
        }
    }

    /// All blocks with their uses and queue, in the order in which they would leave.
    pub fn export(&self) -> Vec<(BlockId, u8, bool)> {
        self.small
            .iter()
            .chain(&self.main)
            .filter_map(|p| {
                let e = self.entries.get(&(p.id, p.indx)).filter(|e| e.stamp == p.stamp)?;
                Some((BlockId { id: p.id, indx: p.indx, len: e.len }, e.uses, e.main))
            })
            .collect()
    }
}
