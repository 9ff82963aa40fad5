//! Of two blocks taken at random, the one that was not used for longer leaves: nearly as good as the exact order, and a
//! use costs nothing.

use std::hash::{BuildHasher as _, RandomState};

use super::{Entries, Entry, Key, Policy, by_age};
use crate::key::mix;

/// See the module's text.
#[derive(Debug)]
pub(super) struct TwoRandom {
    /// All blocks; an entry's stamp is its place here.
    keys: Vec<Key>,
    state: u64,
}

impl TwoRandom {
    /// With numbers of its own.
    pub fn new() -> Self {
        Self { keys: Vec::new(), state: RandomState::new().hash_one(0) }
    }

    /// A place of `n`.
    fn random(&mut self, n: usize) -> usize {
        self.state = self.state.wrapping_add(1);
        (mix(self.state) % (n as u64).max(1)) as usize
    }
}

impl Policy for TwoRandom {
    fn added(&mut self, key: Key, entry: &mut Entry) {
        entry.stamp = self.keys.len() as u32;
        self.keys.push(key);
    }

    fn removed(&mut self, _key: Key, entry: &Entry, entries: &mut Entries) {
        let place = entry.stamp as usize;
        self.keys.swap_remove(place);
        if let Some(moved) = self.keys.get(place).and_then(|key| entries.get_mut(key)) {
            moved.stamp = place as u32;
        }
    }

    fn victim(&mut self, entries: &mut Entries, _used: u64) -> Option<Key> {
        let n = self.keys.len();
        let one = self.random(n);
        // Another one, if there is any.
        let other = (one + 1 + self.random(n.saturating_sub(1))) % n.max(1);
        let second = |key: &Key| entries.get(key).map(|e| e.second);
        let (one, other) = (self.keys.get(one)?, self.keys.get(other)?);
        Some(if second(other) < second(one) { *other } else { *one })
    }

    fn order(&self, entries: &Entries) -> Vec<Key> {
        by_age(entries)
    }
}
