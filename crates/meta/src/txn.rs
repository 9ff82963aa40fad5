//! Optimistic operations.
//!
//! An operation is a function from a [`Txn`] to a result. It asks for records; what is known (from this run's fetches,
//! or believed) it gets at once and as a guard of the commit; for what is unknown it stops with [`Stop::Need`], the
//! runner fetches everything that was missing in one turn, and the function runs again. When the function
//! succeeds, its guards and writes are committed together; when a guard fails, the truth that came back replaces the
//! belief and the function runs again. An answer that is not committed, an error above all, is final only if all it rests on
//! was fetched in one turn.

use std::collections::HashSet;

use bytes::Bytes;
use ciderfs_format::quota::Quota;
use ciderfs_format::{Attr, Edge, Ino, Slice, Time};

use crate::beliefs::{Beliefs, Flocks, Plocks};
use crate::charges::Charges;
use crate::error::{Errno, Error};
use crate::known::{Known, Turn};
use crate::ledger::Hold;
use crate::proof::Proof;
use crate::store::{
    AttrMask, Commit, Counter, DirStat, Guard, LockKind, LockOwner, QuotaKey, Read, StoreError, Value, Write,
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
    /// Room that the operation needs, until its commit has been answered.
    pub(crate) hold: Option<Hold>,
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
            hold: None,
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
        let ino = self.known.inode.ok_or(Stop::Need)?;
        self.require_free(ino)?;
        Ok(ino)
    }

    /// Requires that nobody has the number of an inode that the operation makes.
    pub(crate) fn require_free(&mut self, ino: Ino) -> Step<()> {
        // A counter that somebody has set back must not cost the node that has the number.
        if let Some((_, Some(_))) = self.known.attrs.get(&ino) {
            let text = format!(
                "inode {ino} is in use, and was to be given to a new file: the counter of inode numbers was set back"
            );
            return Err(StoreError::Corrupt(text).into());
        }
        self.guard(Guard::Attr { ino, expect: None, mask: AttrMask::EXISTS });
        Ok(())
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

    /// An entry with the turn that told it, or as believed.
    fn known_edge(&self, dir: Ino, name: &[u8]) -> Option<(Option<Edge>, Option<Turn>)> {
        match self.known.edges.get(&(dir, name.to_vec())) {
            Some((turn, e)) => Some((*e, Some(*turn))),
            None => self.beliefs.edge(dir, name).map(|e| (e, None)),
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
            Some((edge, turn)) => {
                let read = Read::Edge(dir, name.to_vec());
                match turn {
                    Some(turn) => self.fetched.push((read, turn)),
                    None => self.believed.push(read),
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

    /// Requires that a name is free (`EEXIST`). Believed without asking, like [`Txn::require_empty`].
    pub(crate) fn require_no_edge(&mut self, dir: Ino, name: &[u8]) -> Step<()> {
        if let Some((Some(_), _)) = self.known_edge(dir, name) {
            self.edge(dir, name)?;
            return Err(Errno::EEXIST.into());
        }
        self.guard(Guard::Edge { dir, name: name.to_vec(), expect: None });
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

    /// Requires that a value of an extended attribute becomes no larger, or that all of the inode's stay within `most` bytes
    /// with it (`ENOSPC`). Believed without asking, like [`Txn::require_empty`].
    pub(crate) fn require_xattr_room(&mut self, ino: Ino, name: &[u8], len: u64, most: u64) -> Step<()> {
        let guard = Guard::XattrRoom { ino, name: name.to_vec(), len, most };
        if self.fetched(&guard.read()).is_some_and(|sizes| !guard.holds(sizes)) {
            return Err(Errno::ENOSPC.into());
        }
        self.guard(guard);
        Ok(())
    }

    /// The value of an extended attribute, not guarded.
    pub(crate) fn xattr(&mut self, ino: Ino, name: &[u8]) -> Step<Option<Bytes>> {
        let Value::Bytes(value) = self.other(Read::Xattr(ino, name.to_vec()))? else {
            return Err(mismatch());
        };
        Ok(value)
    }

    /// The extended attributes of an inode, not guarded: one that comes or goes meanwhile is there or not.
    pub(crate) fn xattrs(&mut self, ino: Ino) -> Step<Vec<(Vec<u8>, Bytes)>> {
        let Value::Names(mut names) = self.other(Read::XattrNames(ino))? else { return Err(mismatch()) };
        names.sort_unstable();
        self.want(names.iter().map(|name| Read::Xattr(ino, name.clone())))?;
        let mut out = Vec::with_capacity(names.len());
        for name in names {
            if let Some(value) = self.xattr(ino, &name)? {
                out.push((name, value));
            }
        }
        Ok(out)
    }

    /// The target of a symbolic link, which never changes.
    pub(crate) fn symlink(&mut self, ino: Ino) -> Step<Bytes> {
        let Value::Bytes(target) = self.other(Read::Symlink(ino))? else { return Err(mismatch()) };
        target.ok_or_else(|| Errno::EIO.into())
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
        for (dir, names) in self.parents(ino)? {
            self.dir_stat(enabled, dir, length.saturating_mul(names), space.saturating_mul(names), 0);
        }
        Ok(())
    }

    /// The directories that hold names of a file with several, and how many each; guarded.
    pub(crate) fn parents(&mut self, ino: Ino) -> Step<Vec<(Ino, i64)>> {
        let Value::Parents(mut parents) = self.other(Read::Parents(ino))? else { return Err(mismatch()) };
        parents.retain(|(_, names)| *names > 0);
        parents.sort_unstable();
        self.guard(Guard::Parents { ino, expect: parents.clone() });
        Ok(parents)
    }

    /// Are all names of a file with several in the trash? Mostly they are not, and asking would cost a turn: what is not known is
    /// taken for that, and the commit finds it out.
    pub(crate) fn is_named_in_trash_only(&mut self, ino: Ino) -> bool {
        let guard = Guard::NamedOutside(ino);
        let only = self.fetched(&Read::Parents(ino)).is_some_and(|parents| !guard.holds(parents));
        if !only {
            self.guard(guard);
        }
        only
    }

    /// Says how a lost reply can be resolved.
    pub(crate) fn proof(&mut self, proof: Proof) {
        self.proof = Some(proof);
    }
}

fn mismatch() -> Stop {
    Stop::Fail(Error::Store(StoreError::another_question()))
}
