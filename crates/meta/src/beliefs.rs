//! What this client last saw of hot records.
//!
//! Beliefs are never an answer by themselves: an operation that relies on one sends it along as a guard, so a stale
//! belief costs a turn and nothing else.

use ciderfs_format::{Attr, Edge, Ino};
use quick_cache::sync::Cache;

use crate::store::Name;

/// Attribute records kept; about 200 bytes each.
const ATTRS_MAX: usize = 16_384;
/// Entries kept, known-absent ones included; about 100 bytes each.
const EDGES_MAX: usize = 32_768;

/// A bounded memory of attributes and entries.
pub(crate) struct Beliefs {
    attrs: Cache<Ino, Attr>,
    edges: Cache<(Ino, Name), Option<Edge>>,
}

impl Beliefs {
    pub(crate) fn new() -> Self {
        Self { attrs: Cache::new(ATTRS_MAX), edges: Cache::new(EDGES_MAX) }
    }

    pub(crate) fn attr(&self, ino: Ino) -> Option<Attr> {
        self.attrs.get(&ino)
    }

    pub(crate) fn edge(&self, dir: Ino, name: &[u8]) -> Option<Option<Edge>> {
        self.edges.get(&(dir, name.to_vec()))
    }

    pub(crate) fn set_attr(&self, ino: Ino, attr: Option<Attr>) {
        match attr {
            Some(attr) => self.attrs.insert(ino, attr),
            None => {
                self.attrs.remove(&ino);
            }
        }
    }

    pub(crate) fn set_edge(&self, dir: Ino, name: &[u8], edge: Option<Edge>) {
        self.edges.insert((dir, name.to_vec()), edge);
    }

    pub(crate) fn clear(&self) {
        self.attrs.clear();
        self.edges.clear();
    }
}
