//! What this client last saw of hot records.
//!
//! Beliefs are never an answer by themselves: an operation that relies on one sends it along as a guard, so a stale
//! belief costs a turn and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use ciderfs_format::{Attr, Edge, Ino};
use quick_cache::sync::Cache;

use crate::store::{LockOwner, Name};

/// Attribute records kept; about 200 bytes each.
const ATTRS_MAX: usize = 16_384;
/// Entries kept, known-absent ones included; about 100 bytes each.
const EDGES_MAX: usize = 32_768;
/// Files whose locks are kept, for each kind of lock.
const LOCKS_MAX: usize = 4096;

/// The flocks of a file.
pub(crate) type Flocks = Vec<(LockOwner, bool)>;
/// The record locks of a file.
pub(crate) type Plocks = Vec<(LockOwner, Bytes)>;

/// A bounded memory of attributes and entries.
pub(crate) struct Beliefs {
    attrs: Cache<Ino, Attr>,
    edges: Cache<(Ino, Name), Option<Edge>>,
    flocks: Cache<Ino, Arc<Flocks>>,
    plocks: Cache<Ino, Arc<Plocks>>,
}

impl Beliefs {
    pub(crate) fn new() -> Self {
        Self {
            attrs: Cache::new(ATTRS_MAX),
            edges: Cache::new(EDGES_MAX),
            flocks: Cache::new(LOCKS_MAX),
            plocks: Cache::new(LOCKS_MAX),
        }
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

    /// The flocks of a file; nothing is known of most files, and most have none.
    pub(crate) fn flocks(&self, ino: Ino) -> Flocks {
        self.flocks.get(&ino).map(|l| l.to_vec()).unwrap_or_default()
    }

    /// The record locks of a file.
    pub(crate) fn plocks(&self, ino: Ino) -> Plocks {
        self.plocks.get(&ino).map(|l| l.to_vec()).unwrap_or_default()
    }

    pub(crate) fn set_flocks(&self, ino: Ino, list: Flocks) {
        if list.is_empty() {
            self.flocks.remove(&ino);
        } else {
            self.flocks.insert(ino, Arc::new(list));
        }
    }

    pub(crate) fn set_plocks(&self, ino: Ino, list: Plocks) {
        if list.is_empty() {
            self.plocks.remove(&ino);
        } else {
            self.plocks.insert(ino, Arc::new(list));
        }
    }

    pub(crate) fn clear(&self) {
        self.attrs.clear();
        self.edges.clear();
        self.flocks.clear();
        self.plocks.clear();
    }
}
