//! Which blocks a cache directory holds, and which leave: pure bookkeeping.

use std::collections::HashMap;

use super::expiry::Expiry;
use super::policy::{Entries, Entry, Key, Policy, cost, policy};
use crate::Eviction;
use crate::key::BlockId;

/// Uses that count; more make no difference.
const MAX_USES: u8 = 3;
/// Upper bound of blocks in one directory, about 80 bytes of memory each.
pub(crate) const MAX_ENTRIES: usize = 8 << 20;

/// What a directory may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The most bytes, overhead included.
    pub bytes: u64,
    /// The most blocks.
    pub items: usize,
    /// Who leaves for something new.
    pub eviction: Eviction,
    /// Seconds without a use after which a block leaves; 0 means never.
    pub expire: u32,
}

/// A block as the index on disk has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The block.
    pub block: BlockId,
    /// Second of the cache's clock of the last use.
    pub second: u32,
    /// See [`Entry::uses`].
    pub uses: u8,
    /// See [`Entry::main`].
    pub main: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Blocks {
    entries: Entries,
    policy: Box<dyn Policy>,
    expiry: Option<Expiry>,
    rules: Rules,
    used: u64,
    /// No block is older than this.
    floor: u32,
}

impl Blocks {
    /// None yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            entries: HashMap::new(),
            policy: policy(rules.eviction),
            expiry: (rules.expire > 0).then(|| Expiry::new(rules.expire)),
            rules: Rules { items: rules.items.min(MAX_ENTRIES), ..rules },
            used: 0,
            floor: 0,
        }
    }

    /// Bytes now, overhead included.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Blocks now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Is the block there?
    pub fn contains(&self, block: &BlockId) -> bool {
        self.entries.get(&block.key()).is_some_and(|e| e.len == block.len)
    }

    /// Is the block there? Counts as a use, but only once per `second`: a sequential reader that takes a block in
    /// several bites uses it once.
    pub fn touch(&mut self, block: &BlockId, second: u32) -> bool {
        match self.entries.get_mut(&block.key()) {
            Some(entry) if entry.len == block.len => {
                self.policy.used(block.key(), entry, second);
                if entry.second != second {
                    entry.second = second;
                    entry.uses = (entry.uses + 1).min(MAX_USES);
                }
                true
            }
            _ => false,
        }
    }

    /// Adds a block. Call [`Blocks::make_room`] first. An entry of the same place but another length is replaced.
    pub fn insert(&mut self, block: BlockId, second: u32) {
        if !self.contains(&block) {
            self.restore(Kept { block, second, uses: 0, main: false });
        }
    }

    /// Adds a block as it was in an earlier life.
    pub fn restore(&mut self, kept: Kept) {
        let (block, key) = (kept.block, kept.block.key());
        self.take(key);
        let uses = kept.uses.min(MAX_USES);
        let mut entry = Entry { len: block.len, second: kept.second, uses, main: kept.main, stamp: 0 };
        self.policy.added(key, &mut entry);
        if let Some(expiry) = &mut self.expiry {
            expiry.added(key, entry.second);
        }
        self.entries.insert(key, entry);
        self.used += cost(block.len);
    }

    /// Nobody knows when the blocks there are were last used: let it be now.
    pub fn renew(&mut self, second: u32) {
        self.floor = second;
        if let Some(expiry) = &mut self.expiry {
            expiry.rebuild(&self.entries, second);
        }
    }

    /// The last use of all.
    pub fn newest(&self) -> u32 {
        self.entries.values().map(|e| e.second).max().unwrap_or(0)
    }

    /// Removes a block; false if it was not there.
    pub fn remove(&mut self, block: &BlockId) -> bool {
        self.contains(block) && self.take(block.key()).is_some()
    }

    fn take(&mut self, key: Key) -> Option<BlockId> {
        let entry = self.entries.remove(&key)?;
        self.used -= cost(entry.len);
        self.policy.removed(key, &entry, &mut self.entries);
        Some(entry.block(key))
    }

    fn evict(&mut self) -> Option<BlockId> {
        let key = self.policy.victim(&mut self.entries, self.used)?;
        self.take(key)
    }

    /// Could a block of this length come in, if what may leave leaves?
    pub fn admits(&self, len: u32) -> bool {
        cost(len) <= self.rules.bytes && (self.policy.evicts() || self.fits(len))
    }

    /// Is there room for a block of this length?
    pub fn fits(&self, len: u32) -> bool {
        self.used + cost(len) <= self.rules.bytes && self.entries.len() < self.rules.items
    }

    /// Takes out blocks until one of `len` bytes fits, as far as the policy lets any go; returns them so that their
    /// files can be removed.
    pub fn make_room(&mut self, len: u32) -> Vec<BlockId> {
        let mut out = Vec::new();
        while !self.fits(len) {
            match self.evict() {
                Some(block) => out.push(block),
                None => break,
            }
        }
        out
    }

    /// Takes out what is more than the rules allow, whatever the policy: the cache was larger in an earlier life.
    pub fn trim(&mut self) -> Vec<BlockId> {
        let mut out = Vec::new();
        let over = |this: &Self| this.used > this.rules.bytes || this.entries.len() > this.rules.items;
        while over(self) {
            match self.evict() {
                Some(block) => out.push(block),
                None => break,
            }
        }
        if over(self) {
            for key in self.policy.order(&self.entries) {
                out.extend(self.take(key));
                if !over(self) {
                    break;
                }
            }
        }
        out
    }

    /// Takes out blocks worth at least `bytes` bytes and `count` entries, or all that the policy lets go.
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

    /// Takes out blocks that were not used for too long, a bounded number at a time.
    pub fn expire(&mut self, second: u32) -> Vec<BlockId> {
        let Some(expiry) = &mut self.expiry else { return Vec::new() };
        let due = expiry.due(&self.entries, self.floor, second);
        due.into_iter().filter_map(|key| self.take(key)).collect()
    }

    /// All blocks, roughly in the order in which they would leave.
    pub fn export(&self) -> Vec<Kept> {
        let kept = |key: Key| {
            let e = self.entries.get(&key)?;
            let second = e.second.max(self.floor);
            Some(Kept { block: e.block(key), second, uses: e.uses, main: e.main })
        };
        self.policy.order(&self.entries).into_iter().filter_map(kept).collect()
    }
}
