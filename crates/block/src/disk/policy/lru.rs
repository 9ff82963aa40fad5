//! The block that was not used for the longest time leaves first.

use std::collections::BTreeMap;

use super::{Entries, Entry, Key, Policy};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Lru {
    /// By second of the last use, and by the order of uses within a second, which is the entry's stamp.
    order: BTreeMap<(u32, u32), Key>,
    uses: u32,
}

impl Lru {
    fn put(&mut self, key: Key, entry: &mut Entry, second: u32) {
        // It may wrap: no second has so many uses.
        self.uses = self.uses.wrapping_add(1);
        entry.stamp = self.uses;
        self.order.insert((second, self.uses), key);
    }
}

impl Policy for Lru {
    fn added(&mut self, key: Key, entry: &mut Entry) {
        self.put(key, entry, entry.second);
    }

    fn used(&mut self, key: Key, entry: &mut Entry, second: u32) {
        self.order.remove(&(entry.second, entry.stamp));
        self.put(key, entry, second);
    }

    fn removed(&mut self, _key: Key, entry: &Entry, _entries: &mut Entries) {
        self.order.remove(&(entry.second, entry.stamp));
    }

    fn victim(&mut self, _entries: &mut Entries, _used: u64) -> Option<Key> {
        self.order.first_key_value().map(|(_, key)| *key)
    }

    fn order(&self, _entries: &Entries) -> Vec<Key> {
        self.order.values().copied().collect()
    }
}
