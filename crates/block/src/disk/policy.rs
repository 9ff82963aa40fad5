//! Who leaves a full cache: one rule per file. A policy only keeps an order; the blocks themselves are in
//! [`super::blocks`].

use ciderfs_format::SliceId;
use std::collections::HashMap;

use crate::Eviction;
use crate::key::BlockId;

mod lru;
mod none;
mod s3_fifo;
#[cfg(test)]
mod tests;
mod two_random;

/// What a block costs beside its bytes: the file and its entry.
pub(crate) const ENTRY_OVERHEAD: u64 = 4096;

/// What a block of `len` bytes counts for.
pub(crate) fn cost(len: u32) -> u64 {
    u64::from(len) + ENTRY_OVERHEAD
}

/// Slice id and index: the place of a block, which has one length at a time.
pub(crate) type Key = (SliceId, u32);

/// What is known of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Bytes of the block.
    pub len: u32,
    /// Second of the cache's clock of the last use.
    pub second: u32,
    /// Uses in different seconds, up to a few.
    pub uses: u8,
    /// Is it in the main queue of S3-FIFO?
    pub main: bool,
    /// The policy's own note.
    pub stamp: u32,
}

impl Entry {
    /// The block of this entry.
    pub fn block(&self, (id, indx): Key) -> BlockId {
        BlockId { id, indx, len: self.len }
    }
}

/// The blocks of a cache.
pub(crate) type Entries = HashMap<Key, Entry>;

/// An order in which blocks leave.
pub(crate) trait Policy: std::fmt::Debug + Send {
    /// Does anything leave to make room for something new?
    fn evicts(&self) -> bool {
        true
    }

    /// A block comes, new or from an earlier life.
    fn added(&mut self, key: Key, entry: &mut Entry);

    /// A block is used in this second; `entry` says when it was used before.
    fn used(&mut self, _key: Key, _entry: &mut Entry, _second: u32) {}

    /// A block has been taken out of `entries`.
    fn removed(&mut self, key: Key, entry: &Entry, entries: &mut Entries);

    /// The block that is to leave now, which the caller takes out. `used`: the cost of all.
    fn victim(&mut self, entries: &mut Entries, used: u64) -> Option<Key>;

    /// All blocks, roughly in the order in which they would leave.
    fn order(&self, entries: &Entries) -> Vec<Key>;
}

/// An empty policy of this kind.
pub(crate) fn policy(eviction: Eviction) -> Box<dyn Policy> {
    match eviction {
        Eviction::None => Box::new(none::Never),
        Eviction::TwoRandom => Box::new(two_random::TwoRandom::new()),
        Eviction::Lru => Box::new(lru::Lru::default()),
        Eviction::S3Fifo => Box::new(s3_fifo::S3Fifo::default()),
    }
}

/// Those not used for longest first.
fn by_age(entries: &Entries) -> Vec<Key> {
    let mut keys: Vec<Key> = entries.keys().copied().collect();
    keys.sort_by_key(|key| entries.get(key).map(|e| e.second));
    keys
}
