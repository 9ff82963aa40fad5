//! What this client last saw of hot records.
//!
//! Beliefs are never an answer by themselves: an operation that relies on one sends it along as a guard, so a stale
//! belief costs a turn and nothing else. The exception is a directory that this client has just changed itself: the kernel
//! forgets its attributes at each change and asks for them before the next one, and may be told what the engine said a
//! moment ago, as long as kernel and client together believe it no longer than the mount's `--attr-cache`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ciderfs_format::{Attr, Edge, FileType, Ino};
use ciderfs_rt::Instant;
use quick_cache::sync::Cache;

use crate::store::{AttrMask, Commit, Guard, LockOwner, Name, Output, Write};

/// Attribute records kept; about 200 bytes each.
const ATTRS_MAX: usize = 16_384;
/// Entries kept, known-absent ones included; about 100 bytes each.
const EDGES_MAX: usize = 32_768;
/// Files whose locks are kept, for each kind of lock.
const LOCKS_MAX: usize = 4096;
/// Directories whose attributes may be told for a moment.
const SEEN_MAX: usize = 4096;
/// Nodes whose record is gone, with what was believed of them before.
const GONE_MAX: usize = 1024;

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
    /// Directories as the engine has told them after a change of ours, and when.
    seen: Cache<Ino, (Attr, Instant)>,
    /// What was believed last of nodes that are found to be gone, for those who hold them.
    gone: Cache<Ino, Attr>,
}

impl Beliefs {
    pub(crate) fn new() -> Self {
        Self {
            attrs: Cache::new(ATTRS_MAX),
            edges: Cache::new(EDGES_MAX),
            flocks: Cache::new(LOCKS_MAX),
            plocks: Cache::new(LOCKS_MAX),
            seen: Cache::new(SEEN_MAX),
            gone: Cache::new(GONE_MAX),
        }
    }

    pub(crate) fn attr(&self, ino: Ino) -> Option<Attr> {
        self.attrs.get(&ino)
    }

    pub(crate) fn edge(&self, dir: Ino, name: &[u8]) -> Option<Option<Edge>> {
        self.edges.get(&(dir, name.to_vec()))
    }

    pub(crate) fn set_attr(&self, ino: Ino, attr: Option<Attr>) {
        // Somebody else has changed a directory since this client did.
        if let Some((seen, _)) = self.seen.get(&ino)
            && attr.as_ref().is_none_or(|a| a.ctime > seen.ctime)
        {
            self.seen.remove(&ino);
        }
        match attr {
            Some(attr) => self.attrs.insert(ino, attr),
            None => {
                if let Some((_, last)) = self.attrs.remove(&ino) {
                    self.gone.insert(ino, last);
                }
            }
        }
    }

    /// What was believed of a node before its record was found to be gone.
    pub(crate) fn last_of_gone(&self, ino: Ino) -> Option<Attr> {
        self.gone.get(&ino)
    }

    /// Remembers a directory's record as it was after a commit; without one the directory is gone.
    pub(crate) fn see_directory(&self, ino: Ino, attr: Option<&Attr>) {
        let Some(attr) = attr.filter(|a| a.kind == FileType::Directory) else {
            self.seen.remove(&ino);
            return;
        };
        // Replies of commits may overtake one another; the later one has the later time.
        let is_older = self.seen.get(&ino).is_some_and(|(known, _)| known.ctime > attr.ctime);
        if !is_older {
            self.seen.insert(ino, (attr.clone(), Instant::now()));
        }
    }

    /// A directory as it was after a change of ours that is not older than `age`, and how old that is.
    pub(crate) fn seen_directory(&self, ino: Ino, age: Duration) -> Option<(Attr, Duration)> {
        let (attr, at) = self.seen.get(&ino)?;
        let elapsed = at.elapsed();
        (elapsed < age).then_some((attr, elapsed))
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
        self.seen.clear();
    }
}

/// Updates beliefs with what a successful commit wrote.
pub(crate) fn believe(commit: &Commit, outputs: &[Output], beliefs: &Beliefs) {
    // Values guarded in the commit are the truth at its moment, at least in the guarded fields.
    let mut attrs: HashMap<Ino, Option<Attr>> = HashMap::new();
    let mut flocks: HashMap<Ino, Flocks> = HashMap::new();
    let mut plocks: HashMap<Ino, Plocks> = HashMap::new();
    // Whose record the engine has told whole: more than the guarded fields is known of it.
    let mut told: HashSet<Ino> = HashSet::new();
    for g in &commit.guards {
        match g {
            // Of a tree that moved: old in everything else, and too many.
            Guard::Attr { mask, .. } if *mask == AttrMask::PARENT | AttrMask::NLINK => {}
            Guard::Attr { ino, expect, .. } => _ = attrs.insert(*ino, expect.clone()),
            Guard::Flocks { ino, expect } => _ = flocks.insert(*ino, expect.clone()),
            Guard::Plocks { ino, expect } => _ = plocks.insert(*ino, expect.clone()),
            _ => {}
        }
    }
    for w in &commit.writes {
        match w {
            Write::PutAttr(ino, attr) => {
                attrs.insert(*ino, Some(attr.clone()));
            }
            Write::PatchAttr(ino, patch) => {
                if let Some(Some(a)) = attrs.get_mut(ino) {
                    patch.apply(a);
                }
            }
            Write::DelAttr(ino) => {
                attrs.insert(*ino, None);
            }
            Write::PutEdge(dir, name, edge) => beliefs.set_edge(*dir, name, Some(*edge)),
            Write::DelEdge(dir, name) => beliefs.set_edge(*dir, name, None),
            Write::PutFlock(ino, owner, lock) => {
                let list = flocks.entry(*ino).or_insert_with(|| beliefs.flocks(*ino));
                list.retain(|(o, _)| o != owner);
                list.extend(lock.map(|l| (*owner, l)));
            }
            Write::PutPlock(ino, owner, lock) => {
                let list = plocks.entry(*ino).or_insert_with(|| beliefs.plocks(*ino));
                list.retain(|(o, _)| o != owner);
                list.extend(lock.clone().filter(|l| !l.is_empty()).map(|l| (*owner, l)));
            }
            _ => {}
        }
    }
    for (w, output) in commit.writes.iter().zip(outputs) {
        if let (Write::TellAttr(ino) | Write::PatchAttr(ino, _), Output::Attr(attr)) = (w, output) {
            attrs.insert(*ino, attr.clone());
            told.insert(*ino);
        }
    }
    for (ino, list) in flocks {
        beliefs.set_flocks(ino, list);
    }
    for (ino, list) in plocks {
        beliefs.set_plocks(ino, list);
    }
    for (ino, attr) in attrs {
        if told.contains(&ino) || attr.is_none() {
            beliefs.see_directory(ino, attr.as_ref());
        }
        beliefs.set_attr(ino, attr);
    }
}
