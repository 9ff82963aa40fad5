//! Optimistic operations.
//!
//! An operation is a function from a [`Txn`] to a result. It asks for records; what is known (from this run's fetches,
//! or believed) it gets at once and as a guard of the commit; for what is unknown it stops with [`Stop::Need`], the
//! runner fetches everything that was missing in one turn, and the function runs again. When the function
//! succeeds, its guards and writes are committed together; when a guard fails, the truth that came back replaces the
//! belief and the function runs again. An answer that is not committed, an error above all, is final only if all it rests on
//! was fetched in one turn.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use ciderfs_format::quota::Quota;
use ciderfs_format::{Attr, Edge, Ino, Slice, Time};

use crate::beliefs::{Beliefs, Flocks, Plocks};
use crate::charges::Charges;
use crate::error::{Errno, Error};
use crate::ops::moving::Trees;
use crate::store::{
    AttrMask, Commit, Counter, DirStat, Guard, LockKind, LockOwner, Name, Output, QuotaKey, Read, StoreError,
    Value, Write,
};

/// Why an operation's function stopped.
pub(crate) enum Stop {
    /// Records, sums of trees or the number for a new inode are missing; the runner fetches them and runs the function again.
    Need,
    /// It cannot be done.
    Fail(Error),
}

impl<E: Into<Error>> From<E> for Stop {
    fn from(e: E) -> Self {
        Self::Fail(e.into())
    }
}

/// Result of an operation's function.
pub(crate) type Step<T> = Result<T, Stop>;

/// How to find out whether a commit whose reply was lost has been applied.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// The entry points there only if it was.
    Edge(Ino, Name, Edge),
    /// The entry points there, and the one that it had before does not any more, only if it was; but if what it replaces is
    /// there now, another client exchanged the two: (directory, name) before and after, entry, entry that it replaces, time.
    /// That another client has made the same move is taken for it.
    Moved((Ino, Name), (Ino, Name), Edge, Option<Edge>, Time),
    /// One of two nodes that change places carries this ctime only if they did: place, inode there, and the other ones.
    Exchanged((Ino, Name, Ino), (Ino, Name, Ino), Time),
    /// The entry is gone, and its inode too or changed at that time, only if it was; or the entry is another inode's, and this one
    /// changed at that time. The entry alone proves nothing: another client may have moved it.
    Removed(Ino, Name, Ino, Time),
    /// The attributes carry this ctime only if it was.
    Ctime(Ino, Time),
    /// The inode, whose number nobody else was given, exists only if it was. Its entry proves less: another client may have
    /// moved it.
    Made(Ino),
    /// The inode's record is gone only if it was.
    Gone(Ino),
    /// The chunk's list holds this slice id only if it was.
    SliceId(Ino, u32, u64),
    /// The same of a slice for the end of the file, which was at this position of the chunk: (inode, chunk, id, position and bytes
    /// there, length and mtime of the file before). Written once more it would be there twice.
    Appended(Ino, u32, u64, (u32, u32), (u64, Time)),
    /// These holders, whose locks nobody else changes, have these locks on the file (`None`: none) only if it was.
    Locks(Ino, Vec<(LockOwner, Option<bool>)>, Vec<(LockOwner, Option<Bytes>)>),
}

impl Proof {
    pub(crate) fn reads(&self) -> Vec<Read> {
        match self {
            Self::Edge(dir, name, _) => vec![Read::Edge(*dir, name.clone())],
            Self::Moved(from, to, edge, ..) => {
                let places = [from, to].map(|(dir, name)| Read::Edge(*dir, name.clone()));
                places.into_iter().chain([Read::Attr(edge.ino)]).collect()
            }
            Self::Exchanged(a, b, _) => {
                let places = [a, b].map(|(dir, name, _)| Read::Edge(*dir, name.clone()));
                places.into_iter().chain([a, b].map(|(_, _, ino)| Read::Attr(*ino))).collect()
            }
            Self::Removed(dir, name, ino, _) => vec![Read::Edge(*dir, name.clone()), Read::Attr(*ino)],
            Self::Made(ino) | Self::Ctime(ino, _) | Self::Gone(ino) => vec![Read::Attr(*ino)],
            Self::SliceId(ino, indx, _) => vec![Read::Slices(*ino, *indx)],
            Self::Appended(ino, indx, ..) => vec![Read::Slices(*ino, *indx), Read::Attr(*ino)],
            Self::Locks(ino, ..) => vec![Read::Flocks(*ino), Read::Plocks(*ino)],
        }
    }

    /// Do the answers to the reads show it?
    pub(crate) fn shows(&self, values: &[Value]) -> bool {
        match (self, values) {
            (Self::Edge(_, _, want), [Value::Edge(found)]) => Some(*want) == *found,
            (Self::Moved(_, _, edge, old, at), [Value::Edge(from), Value::Edge(to), Value::Attr(found)]) => {
                let changed = found.as_ref().is_some_and(|a| a.ctime == *at);
                let exchanged = old.is_some() && *from == *old;
                *to == Some(*edge) && *from != Some(*edge) && (!exchanged || changed)
            }
            (Self::Exchanged(_, _, at), [_, _, Value::Attr(a), Value::Attr(b)]) => {
                [a, b].into_iter().flatten().any(|a| a.ctime == *at)
            }
            (Self::Removed(_, _, ino, at), [Value::Edge(now), Value::Attr(found)]) => match found {
                Some(a) => a.ctime == *at && now.is_none_or(|e| e.ino != *ino),
                None => now.is_none(),
            },
            (Self::Ctime(_, want), [Value::Attr(Some(found))]) => found.ctime == *want,
            (Self::Made(_), [Value::Attr(found)]) => found.is_some(),
            (Self::Gone(_), [Value::Attr(found)]) => found.is_none(),
            (Self::SliceId(_, _, id), [Value::Slices(list)])
            | (Self::Appended(_, _, id, ..), [Value::Slices(list), _]) => list.iter().any(|s| s.id == *id),
            // Locks that were held before show nothing.
            (Self::Locks(_, flocks, plocks), _) if flocks.is_empty() && plocks.is_empty() => false,
            (Self::Locks(_, flocks, plocks), [Value::Flocks(f), Value::Plocks(p)]) => {
                flocks.iter().all(|(o, want)| f.iter().find(|(h, _)| h == o).map(|(_, l)| *l) == *want)
                    && plocks
                        .iter()
                        .all(|(o, want)| p.iter().find(|(h, _)| h == o).map(|(_, l)| l) == want.as_ref())
            }
            _ => false,
        }
    }

    /// What the next attempt must find unchanged, so that nothing is applied twice: something that this one would have changed.
    ///
    /// # Errors
    /// [`StoreError::Ambiguous`] if the attempt may have been applied, and what shows it be gone again.
    pub(crate) fn pin(&self, values: Vec<Value>) -> Result<Option<Guard>, StoreError> {
        let unchanged = |ino, found: Option<&Value>| match found {
            Some(Value::Attr(expect)) => {
                Some(Guard::Attr { ino, expect: expect.clone(), mask: AttrMask::CTIME })
            }
            _ => None,
        };
        match self {
            Self::Made(ino) => {
                return Ok(Some(Guard::Attr { ino: *ino, expect: None, mask: AttrMask::EXISTS }));
            }
            Self::Removed(_, _, ino, _) | Self::Moved(_, _, Edge { ino, .. }, ..) => {
                if let Some(Value::Edge(Some(now))) = values.first()
                    && now.ino != *ino
                {
                    let why = "a reply was lost, and the name is that of another node by now";
                    return Err(StoreError::Ambiguous(why.into()));
                }
                let at = if matches!(self, Self::Removed(..)) { 1 } else { 2 };
                return Ok(unchanged(*ino, values.get(at)));
            }
            Self::Exchanged(a, b, _) => {
                if let [Value::Edge(Some(at_a)), Value::Edge(Some(at_b)), ..] = &values[..]
                    && (at_a.ino, at_b.ino) == (b.2, a.2)
                {
                    let why = "the reply to an exchange was lost, and the two have changed places and then been changed";
                    return Err(StoreError::Ambiguous(why.into()));
                }
                return Ok(unchanged(a.2, values.get(2)));
            }
            _ => {}
        }
        let (Self::SliceId(ino, indx, _) | Self::Appended(ino, indx, ..)) = self else { return Ok(None) };
        let mut values = values.into_iter();
        let Some(Value::Slices(list)) = values.next() else { return Ok(None) };
        if let (Self::Appended(_, _, id, (pos, len), before), Some(Value::Attr(Some(a)))) =
            (self, values.next())
            && (a.length, a.mtime) != *before
            && list.iter().filter(|s| ![0, *id].contains(&s.id) && s.end() > u64::from(*pos)).any(|s| {
                // A compaction puts a slice there that is no shorter, or begins earlier.
                s.pos < *pos || (s.pos == *pos && s.len >= *len)
            })
        {
            let why = "the reply to an append was lost, and somebody rewrote what lies there";
            return Err(StoreError::Ambiguous(why.into()));
        }
        Ok(Some(Guard::Slices { ino: *ino, indx: *indx, list }))
    }
}

/// The turn of the engine that told a value, counted within one run of an operation.
type Turn = u32;

/// Values fetched during one run of an operation.
#[derive(Default)]
pub(crate) struct Known {
    turn: Turn,
    attrs: HashMap<Ino, (Turn, Option<Attr>)>,
    edges: HashMap<(Ino, Name), (Turn, Option<Edge>)>,
    other: HashMap<Read, (Turn, Value)>,
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
    fn turn_of(&self, read: &Read) -> Option<Turn> {
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

/// One attempt of an operation.
pub(crate) struct Txn<'a> {
    known: &'a Known,
    beliefs: &'a Beliefs,
    /// The time of this attempt; every record of the operation carries the same.
    pub(crate) now: Time,
    pub(crate) missing: Vec<Read>,
    /// Tops of trees whose usage is missing.
    pub(crate) missing_trees: Vec<Ino>,
    /// Is the number for a new inode missing?
    pub(crate) missing_inode: bool,
    /// Reads answered from a belief; an error that follows from one is checked against the truth.
    pub(crate) believed: Vec<Read>,
    /// Reads answered from what was fetched.
    fetched: Vec<(Read, Turn)>,
    guarded: HashSet<Read>,
    /// What the operation takes or gives back; see [`crate::Meta::account`].
    pub(crate) charges: Charges,
    pub(crate) commit: Commit,
    pub(crate) proof: Option<Proof>,
}

impl<'a> Txn<'a> {
    pub(crate) fn new(known: &'a Known, beliefs: &'a Beliefs, now: Time) -> Self {
        Self {
            known,
            beliefs,
            now,
            missing: Vec::new(),
            missing_trees: Vec::new(),
            missing_inode: false,
            believed: Vec::new(),
            fetched: Vec::new(),
            guarded: HashSet::new(),
            charges: Charges::default(),
            commit: Commit::default(),
            proof: None,
        }
    }

    /// What was fetched in this run.
    pub(crate) fn known(&self) -> &'a Known {
        self.known
    }

    /// The number of the inode that the operation makes. After a lost reply it is another one: with the first the inode may have
    /// been made, and removed, and its data be about to be deleted.
    pub(crate) fn new_inode(&mut self) -> Step<Ino> {
        self.missing_inode = self.known.inode.is_none();
        self.known.inode.ok_or(Stop::Need)
    }

    /// Announces reads, so that all that is unknown among them is fetched in one turn.
    pub(crate) fn want(&mut self, reads: impl IntoIterator<Item = Read>) -> Step<()> {
        for read in reads {
            let there = match &read {
                Read::Attr(ino) => self.known.attrs.contains_key(ino) || self.beliefs.attr(*ino).is_some(),
                Read::Edge(dir, name) => {
                    self.known.edges.contains_key(&(*dir, name.clone()))
                        || self.beliefs.edge(*dir, name).is_some()
                }
                Read::Lookup(dir, name) => match self.known_edge(*dir, name) {
                    Some((None, _)) => true,
                    Some((Some(e), _)) => {
                        self.known.attrs.contains_key(&e.ino) || self.beliefs.attr(e.ino).is_some()
                    }
                    None => false,
                },
                other => self.known.other.contains_key(other),
            };
            if !there && !self.missing.contains(&read) {
                self.missing.push(read);
            }
        }
        if self.missing.is_empty() { Ok(()) } else { Err(Stop::Need) }
    }

    /// A value that was fetched, other than of attributes and entries.
    fn fetched(&mut self, read: &Read) -> Option<&'a Value> {
        let (turn, value) = self.known.other.get(read)?;
        self.fetched.push((read.clone(), *turn));
        Some(value)
    }

    /// All that must be fetched again, in one turn, before an answer that is not committed may be given: nothing if what it
    /// rests on, and `proofs` that earlier attempts were applied, was so at one moment.
    pub(crate) fn unsettled(&mut self, proofs: Vec<Read>) -> Vec<Read> {
        let mut turns = self.fetched.iter().map(|(_, turn)| Some(*turn));
        let mut turns = turns.by_ref().chain(proofs.iter().map(|read| self.known.turn_of(read)));
        let one = turns.next().is_none_or(|first| first.is_some() && turns.all(|turn| turn == first));
        if self.believed.is_empty() && one {
            return Vec::new();
        }
        let fetched = std::mem::take(&mut self.fetched).into_iter().map(|(read, _)| read);
        std::mem::take(&mut self.believed).into_iter().chain(fetched).chain(proofs).collect()
    }

    fn known_edge(&self, dir: Ino, name: &[u8]) -> Option<(Option<Edge>, bool)> {
        match self.known.edges.get(&(dir, name.to_vec())) {
            Some((_, e)) => Some((*e, false)),
            None => self.beliefs.edge(dir, name).map(|e| (e, true)),
        }
    }

    fn need<T>(&mut self, read: Read) -> Step<T> {
        self.missing.push(read);
        Err(Stop::Need)
    }

    pub(crate) fn guard(&mut self, guard: Guard) {
        // The first guard on a record stands; attributes may be asked for again with a wider mask.
        let read = guard.read();
        if self.guarded.insert(read.clone()) {
            self.commit.guards.push(guard);
        } else if let Guard::Attr { mask: wider, .. } = guard {
            for g in &mut self.commit.guards {
                if g.read() == read
                    && let Guard::Attr { mask, .. } = g
                {
                    *mask = *mask | wider;
                }
            }
        }
    }

    /// A guard for what was fetched before.
    pub(crate) fn guard_fetched(&mut self, guard: Guard) {
        let read = guard.read();
        if let Some(turn) = self.known.turn_of(&read) {
            self.fetched.push((read, turn));
        }
        self.guard(guard);
    }

    /// Attributes, guarded in the masked fields; `None` is guarded as absence.
    pub(crate) fn attr_opt(&mut self, ino: Ino, mask: AttrMask) -> Step<Option<Attr>> {
        let attr = match self.known.attrs.get(&ino) {
            Some((turn, a)) => {
                self.fetched.push((Read::Attr(ino), *turn));
                a.clone()
            }
            None => match self.beliefs.attr(ino) {
                Some(a) => {
                    self.believed.push(Read::Attr(ino));
                    Some(a)
                }
                None => return self.need(Read::Attr(ino)),
            },
        };
        self.guard(Guard::Attr { ino, expect: attr.clone(), mask });
        Ok(attr)
    }

    /// Attributes of an inode that must exist (`ENOENT`).
    pub(crate) fn attr(&mut self, ino: Ino, mask: AttrMask) -> Step<Attr> {
        self.attr_opt(ino, mask)?.ok_or_else(|| Errno::ENOENT.into())
    }

    /// An entry, guarded.
    pub(crate) fn edge(&mut self, dir: Ino, name: &[u8]) -> Step<Option<Edge>> {
        let edge = match self.known_edge(dir, name) {
            Some((edge, believed)) => {
                let read = Read::Edge(dir, name.to_vec());
                match self.known.edges.get(&(dir, name.to_vec())) {
                    Some((turn, _)) if !believed => self.fetched.push((read, *turn)),
                    _ => self.believed.push(read),
                }
                edge
            }
            None => return self.need(Read::Lookup(dir, name.to_vec())),
        };
        self.guard(Guard::Edge { dir, name: name.to_vec(), expect: edge });
        Ok(edge)
    }

    fn other(&mut self, read: Read) -> Step<Value> {
        match self.fetched(&read) {
            Some(v) => Ok(v.clone()),
            None => self.need(read),
        }
    }

    /// A chunk's list, guarded as a whole.
    pub(crate) fn slices(&mut self, ino: Ino, indx: u32) -> Step<Vec<Slice>> {
        let Value::Slices(list) = self.other(Read::Slices(ino, indx))? else { return Err(mismatch()) };
        self.guard(Guard::Slices { ino, indx, list: list.clone() });
        Ok(list)
    }

    /// The flocks of a file, guarded, and whether they were fetched. Without any knowledge there are none.
    pub(crate) fn flocks(&mut self, ino: Ino) -> (Flocks, bool) {
        let (expect, fetched) = match self.fetched(&Read::Flocks(ino)) {
            Some(Value::Flocks(list)) => (list.clone(), true),
            _ => {
                self.believed.push(Read::Flocks(ino));
                (self.beliefs.flocks(ino), false)
            }
        };
        self.guard(Guard::Flocks { ino, expect: expect.clone() });
        (expect, fetched)
    }

    /// The record locks of a file, in the same way.
    pub(crate) fn plocks(&mut self, ino: Ino) -> (Plocks, bool) {
        let (expect, fetched) = match self.fetched(&Read::Plocks(ino)) {
            Some(Value::Plocks(list)) => (list.clone(), true),
            _ => {
                self.believed.push(Read::Plocks(ino));
                (self.beliefs.plocks(ino), false)
            }
        };
        self.guard(Guard::Plocks { ino, expect: expect.clone() });
        (expect, fetched)
    }

    /// Requires that the session is registered: guarded, and false if it is known not to be.
    pub(crate) fn session(&mut self, sid: u64) -> bool {
        self.guard(Guard::Session(sid));
        self.fetched(&Read::Session(sid)) != Some(&Value::Bool(false))
    }

    /// Requires that a holder has a lock: guarded, and false if it is known not to have one.
    pub(crate) fn holds(&mut self, ino: Ino, kind: LockKind, owner: LockOwner) -> bool {
        self.guard(Guard::Holds(ino, kind, owner));
        self.fetched(&Read::Holds(ino, kind, owner)) != Some(&Value::Bool(false))
    }

    /// Requires that a directory has no entry. Believed without asking; the guard tells if it is wrong.
    pub(crate) fn require_empty(&mut self, dir: Ino) -> Step<()> {
        if let Some(Value::Bool(false)) = self.fetched(&Read::DirEmpty(dir)) {
            return Err(Errno::ENOTEMPTY.into());
        }
        self.guard(Guard::DirEmpty(dir));
        Ok(())
    }

    /// Requires that an extended attribute exists, or that it does not. Believed without asking, like
    /// [`Txn::require_empty`].
    pub(crate) fn require_xattr(&mut self, ino: Ino, name: &[u8], there: bool, otherwise: Errno) -> Step<()> {
        if let Some(Value::Bytes(found)) = self.fetched(&Read::Xattr(ino, name.to_vec()))
            && found.is_some() != there
        {
            return Err(otherwise.into());
        }
        let name = name.to_vec();
        self.guard(match there {
            true => Guard::XattrExists { ino, name },
            false => Guard::Xattr { ino, name, expect: None },
        });
        Ok(())
    }

    /// The value of an extended attribute, not guarded.
    pub(crate) fn xattr(&mut self, ino: Ino, name: &[u8]) -> Step<Option<Bytes>> {
        let Value::Bytes(value) = self.other(Read::Xattr(ino, name.to_vec()))? else {
            return Err(mismatch());
        };
        Ok(value)
    }

    /// An ACL rule. Rules never change: there is nothing to guard, and it does not matter when it was fetched.
    pub(crate) fn acl(&mut self, id: u32) -> Step<Option<Bytes>> {
        match self.known.other.get(&Read::Acl(id)) {
            Some((_, Value::Bytes(rule))) => Ok(rule.clone()),
            Some(_) => Err(mismatch()),
            None => self.need(Read::Acl(id)),
        }
    }

    /// Requires that a counter has this value.
    pub(crate) fn require_counter(&mut self, counter: Counter, n: i64) {
        self.guard(Guard::Counter(counter, n));
    }

    /// A counter, guarded.
    pub(crate) fn counter(&mut self, counter: Counter) -> Step<i64> {
        let Value::Int(n) = self.other(Read::Counter(counter))? else { return Err(mismatch()) };
        self.guard(Guard::Counter(counter, n));
        Ok(n)
    }

    /// Buffers a write; returns its index among the outputs.
    pub(crate) fn write(&mut self, write: Write) -> usize {
        self.commit.writes.push(write);
        self.commit.writes.len() - 1
    }

    /// A counter as fetched, or as believed. The caller guards what it concludes.
    pub(crate) fn counter_or(&mut self, counter: Counter, believed: i64) -> i64 {
        match self.fetched(&Read::Counter(counter)) {
            Some(Value::Int(n)) => *n,
            _ => {
                self.believed.push(Read::Counter(counter));
                believed
            }
        }
    }

    /// A quota as fetched, or as believed. The caller guards what it concludes.
    pub(crate) fn quota_or(&mut self, key: QuotaKey, believed: Quota) -> Option<Quota> {
        match self.fetched(&Read::Quota(key)) {
            Some(Value::Quota(q)) => *q,
            _ => {
                self.believed.push(Read::Quota(key));
                Some(believed)
            }
        }
    }

    /// Charges (or releases) space and inodes of the volume and of an owner (user, group), if it is anybody's.
    pub(crate) fn charge(&mut self, owner: Option<(u32, u32)>, space: i64, inodes: i64) {
        self.charges.node(owner, space, inodes);
    }

    /// Adds to a directory's usage record, and to the quotas above it.
    pub(crate) fn dir_stat(&mut self, enabled: bool, dir: Ino, length: i64, space: i64, inodes: i64) {
        self.charges.dir(dir, space, inodes);
        if enabled && dir.0 != 0 && (length, space, inodes) != (0, 0, 0) {
            self.write(Write::AddDirStat(dir, DirStat { length, space, inodes }));
        }
    }

    /// Adds the growth of a file to the usage records of the directories that list it, once for each of its names. `quotas`:
    /// there are quotas of directories.
    pub(crate) fn grow_in_dirs(
        &mut self,
        (enabled, quotas): (bool, bool),
        (ino, a): (Ino, &Attr),
        length: i64,
        space: i64,
    ) -> Step<()> {
        if !(enabled || quotas) || (length, space) == (0, 0) {
            return Ok(());
        }
        // A file without names is in no directory any more, whatever its attributes say.
        let a = self.attr_opt(ino, AttrMask::NLINK)?.unwrap_or_else(|| a.clone());
        if a.nlink == 0 {
            return Ok(());
        }
        if a.parent.0 != 0 {
            self.dir_stat(enabled, a.parent, length, space, 0);
            return Ok(());
        }
        let Value::Parents(mut parents) = self.other(Read::Parents(ino))? else { return Err(mismatch()) };
        parents.retain(|(_, names)| *names > 0);
        parents.sort_unstable();
        self.guard(Guard::Parents { ino, expect: parents.clone() });
        for (dir, names) in parents {
            self.dir_stat(enabled, dir, length * names, space * names, 0);
        }
        Ok(())
    }

    /// Says how a lost reply can be resolved.
    pub(crate) fn proof(&mut self, proof: Proof) {
        self.proof = Some(proof);
    }
}

fn mismatch() -> Stop {
    Stop::Fail(Error::Store(StoreError::another_question()))
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
            Guard::Attr { mask, .. } if (AttrMask::PARENT | AttrMask::NLINK).contains(*mask) => {}
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

#[cfg(test)]
mod tests {
    use ciderfs_format::Slice;

    use super::*;

    /// After a lost reply an append is repeated only where it cannot have been applied.
    #[test]
    fn an_append_is_not_repeated_blindly() {
        let attr = |length, sec| Attr {
            length,
            mtime: Time { sec, nsec: 0 },
            ..crate::volume::synthetic_dir(Ino(2))
        };
        let proof = Proof::Appended(Ino(2), 0, 7, (100, 10), (100, Time { sec: 1, nsec: 0 }));
        let record = |pos, id, len| Slice { pos, id, size: len, off: 0, len };
        let look = |list: &[Slice], a: Attr| {
            let values = vec![Value::Slices(list.to_vec()), Value::Attr(Some(a))];
            (proof.shows(&values), proof.pin(values).is_ok())
        };
        let old = record(0, 1, 100);
        assert_eq!(look(&[old, record(100, 7, 10)], attr(110, 2)), (true, true), "it is there");
        assert_eq!(look(&[old], attr(100, 1)), (false, true), "nothing has happened");
        assert_eq!(
            look(&[old, record(100, 8, 5)], attr(105, 2)),
            (false, true),
            "somebody else has appended"
        );
        assert_eq!(look(&[record(0, 9, 110)], attr(110, 2)), (false, false), "it may have been compacted");
        let shared = [Slice::reserved(0, 4096), record(90, 9, 30)];
        assert_eq!(look(&shared, attr(120, 2)), (false, false));
        assert_eq!(look(&[record(100, 9, 30)], attr(130, 2)), (false, false));
        assert_eq!(
            look(&[old, record(100, 9, 10)], attr(110, 2)),
            (false, false),
            "behind a record that stays"
        );
    }
}
