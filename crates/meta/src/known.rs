//! What one run of an operation has fetched so far.

use std::collections::HashMap;

use ciderfs_format::{Attr, Edge, Ino};

use crate::beliefs::Beliefs;
use crate::ops::moving::Trees;
use crate::store::{DirStat, Name, Read, Value};

/// The turn of the engine that told a value, counted within one run of an operation.
pub(crate) type Turn = u32;

/// Values fetched during one run of an operation.
#[derive(Default)]
pub(crate) struct Known {
    turn: Turn,
    pub(crate) attrs: HashMap<Ino, (Turn, Option<Attr>)>,
    pub(crate) edges: HashMap<(Ino, Name), (Turn, Option<Edge>)>,
    pub(crate) other: HashMap<Read, (Turn, Value)>,
    pub(crate) trees: Trees,
    /// The number for a new inode.
    pub(crate) inode: Option<Ino>,
}

impl Known {
    /// The value that was fetched last.
    pub(crate) fn value(&self, read: &Read) -> Option<Value> {
        match read {
            Read::Attr(ino) => self.attrs.get(ino).map(|(_, a)| Value::Attr(a.clone())),
            Read::Edge(dir, name) => self.edges.get(&(*dir, name.clone())).map(|(_, e)| Value::Edge(*e)),
            other => self.other.get(other).map(|(_, v)| v.clone()),
        }
    }

    /// What is learned from now on was so at one moment, later than what was learned before.
    pub(crate) fn begin_turn(&mut self) {
        self.turn += 1;
    }

    /// Stores what a sum rests on: each directory as it was at a moment of its own. A whole tree would drive everything else
    /// out of the beliefs.
    pub(crate) fn learn_summed(&mut self, dir: Ino, attr: Option<Attr>, stat: Option<DirStat>) {
        self.begin_turn();
        self.attrs.insert(dir, (self.turn, attr));
        if stat.is_some() {
            self.other.insert(Read::DirStat(dir), (self.turn, Value::DirStat(stat)));
        }
    }

    /// The turn that told a value.
    pub(crate) fn turn_of(&self, read: &Read) -> Option<Turn> {
        match read {
            Read::Attr(ino) => self.attrs.get(ino).map(|(turn, _)| *turn),
            Read::Edge(dir, name) => self.edges.get(&(*dir, name.clone())).map(|(turn, _)| *turn),
            other => self.other.get(other).map(|(turn, _)| *turn),
        }
    }

    /// Stores an answer, and what it tells about other records.
    pub(crate) fn learn(&mut self, read: Read, value: Value, beliefs: &Beliefs) {
        match (read, value) {
            (Read::Attr(ino), Value::Attr(attr)) => {
                beliefs.set_attr(ino, attr.clone());
                self.attrs.insert(ino, (self.turn, attr));
            }
            (Read::Edge(dir, name), Value::Edge(edge)) => {
                beliefs.set_edge(dir, &name, edge);
                self.edges.insert((dir, name), (self.turn, edge));
            }
            (Read::Lookup(dir, name), Value::Lookup(found)) => {
                let edge = found.as_ref().map(|(e, _)| *e);
                if let Some((e, attr)) = found {
                    beliefs.set_attr(e.ino, attr.clone());
                    self.attrs.insert(e.ino, (self.turn, attr));
                }
                beliefs.set_edge(dir, &name, edge);
                self.edges.insert((dir, name), (self.turn, edge));
            }
            (read, value) => {
                match (&read, &value) {
                    (Read::Flocks(ino), Value::Flocks(list)) => beliefs.set_flocks(*ino, list.clone()),
                    (Read::Plocks(ino), Value::Plocks(list)) => beliefs.set_plocks(*ino, list.clone()),
                    _ => {}
                }
                self.other.insert(read, (self.turn, value));
            }
        }
    }
}
