//! Nothing leaves: what does not fit does not come in.

use super::{Entries, Entry, Key, Policy, by_age};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Never;

impl Policy for Never {
    fn evicts(&self) -> bool {
        false
    }

    fn added(&mut self, _key: Key, _entry: &mut Entry) {}

    fn removed(&mut self, _key: Key, _entry: &Entry, _entries: &mut Entries) {}

    fn victim(&mut self, _entries: &mut Entries, _used: u64) -> Option<Key> {
        None
    }

    fn order(&self, entries: &Entries) -> Vec<Key> {
        by_age(entries)
    }
}
