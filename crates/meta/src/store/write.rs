//! Changes of a commit.

use std::ops::Range;

use bytes::Bytes;
use ciderfs_format::quota::QuotaLimits;
use ciderfs_format::{Attr, Edge, Ino, Slice, Time};

use super::{AttrMask, Counter, DirStat, Guard, LockOwner, Name, QuotaKey, Value};

/// Changes to some fields of an existing inode; `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AttrPatch {
    /// Replaces the flags.
    pub flags: Option<u8>,
    /// Replaces the 12 mode bits.
    pub mode: Option<u16>,
    /// Replaces the owner.
    pub uid: Option<u32>,
    /// Replaces the group.
    pub gid: Option<u32>,
    /// Replaces atime.
    pub atime: Option<Time>,
    /// Replaces mtime.
    pub mtime: Option<Time>,
    /// Replaces ctime.
    pub ctime: Option<Time>,
    /// Added to nlink; commutes with other clients' additions.
    pub nlink: i32,
    /// Replaces the length.
    pub length: Option<u64>,
    /// Replaces the parent.
    pub parent: Option<Ino>,
    /// Replaces access ACL id, default ACL id and tier; needs a guard on `AttrMask::IDENTITY`.
    pub tail: Option<(u32, u32, u8)>,
}

impl AttrPatch {
    /// Applies the patch to a decoded record.
    pub fn apply(&self, a: &mut Attr) {
        a.flags = self.flags.unwrap_or(a.flags);
        a.mode = self.mode.unwrap_or(a.mode);
        a.uid = self.uid.unwrap_or(a.uid);
        a.gid = self.gid.unwrap_or(a.gid);
        a.atime = self.atime.unwrap_or(a.atime);
        a.mtime = self.mtime.unwrap_or(a.mtime);
        a.ctime = self.ctime.unwrap_or(a.ctime);
        a.nlink = a.nlink.saturating_add_signed(self.nlink);
        a.length = self.length.unwrap_or(a.length);
        a.parent = self.parent.unwrap_or(a.parent);
        if let Some((access, default, tier)) = self.tail {
            (a.access_acl, a.default_acl, a.tier) = (access, default, tier);
        }
    }

    /// Nothing to change?
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A change of a commit. Unless said otherwise the [`Output`] is `Output::None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Stores the record of a new inode, or replaces it whole.
    PutAttr(Ino, Attr),
    /// Changes fields of an existing inode. A missing inode is left missing (guard it). `Output::Attr`: the record as it is
    /// then.
    PatchAttr(Ino, AttrPatch),
    /// Removes the record.
    DelAttr(Ino),
    /// Creates or replaces an entry.
    PutEdge(Ino, Name, Edge),
    /// Removes an entry.
    DelEdge(Ino, Name),
    /// Stores a symbolic link's target.
    PutSymlink(Ino, Bytes),
    /// Removes it.
    DelSymlink(Ino),
    /// Stores an extended attribute.
    PutXattr(Ino, Name, Bytes),
    /// Removes one.
    DelXattr(Ino, Name),
    /// Removes all extended attributes of an inode.
    DelXattrs(Ino),
    /// Adds to the number of links that a directory holds to a hard-linked inode. No-op where the engine derives it.
    AddParent(Ino, Ino, i64),
    /// Removes all link counts of an inode.
    DelParents(Ino),
    /// Appends records to a chunk's list, creating it. `Output::Int`: records in the list afterwards.
    AppendSlices(Ino, u32, Vec<Slice>),
    /// Appends one record to each existing list among the chunks in the range; missing ones stay missing.
    AppendSliceIfExists(Ino, Range<u32>, Slice),
    /// Replaces the first `drop` records of a list by `insert` (compaction; guard the prefix).
    ReplaceSlices {
        /// File.
        ino: Ino,
        /// Chunk index.
        indx: u32,
        /// Records to remove from the head.
        drop: usize,
        /// Records to put in their place.
        insert: Vec<Slice>,
    },
    /// Removes a chunk's list and drops one reference per record with id > 0. `Output::Slices`: those records (with
    /// pos, off and len zeroed) and the references left to each; 0 or less means that nobody uses the slice.
    TakeSlices(Ino, u32),
    /// Registers the first reference of a fresh slice. No-op where a missing count means one.
    NewSliceRef(u64, u32),
    /// Adds to the reference count of a slice (id, size). `Output::Int`: references left, 0 or less means dead.
    AddSliceRef(u64, u32, i64),
    /// Removes the count of a dead slice after its objects are gone.
    DropSliceRef(u64, u32),
    /// Records the slices that a compaction replaced while the trash is on: new slice id, unix seconds, (id, size) list.
    PutDelayedSlices(u64, i64, Vec<(u64, u32)>),
    /// Removes such a record.
    DelDelayedSlices(u64, i64),
    /// Adds to a counter. `Output::Int`: the new value.
    AddCounter(Counter, i64),
    /// Registers a file (inode, length) whose data must be removed; unix seconds.
    PutDelfile(Ino, u64, i64),
    /// Its data is gone.
    DelDelfile(Ino, u64),
    /// Notes, or notes again, a directory that is being filled and has no name yet (a clone); unix seconds.
    PutDetached(Ino, i64),
    /// It has a name, or is gone.
    DelDetached(Ino),
    /// Keeps an unlinked inode for a session that has it open.
    PutSustained(u64, Ino),
    /// No longer.
    DelSustained(u64, Ino),
    /// Creates the usage record of a directory with zeros.
    InitDirStat(Ino),
    /// Adds to an existing usage record. `Output::Int`: 1 if it existed, else 0 and nothing was written.
    AddDirStat(Ino, DirStat),
    /// Stores a computed usage record.
    PutDirStat(Ino, DirStat),
    /// Removes the usage record and the directory's quota.
    DelDirStat(Ino),
    /// Removes the usage records of all directories.
    DropDirStats,
    /// Stores the limits of a quota; a new one starts without usage.
    PutQuotaLimits(QuotaKey, QuotaLimits),
    /// Stores the usage (bytes, inodes) under an existing quota. A missing one is left missing.
    PutQuotaUsage(QuotaKey, i64, i64),
    /// Adds to the usage (bytes, inodes). A directory without a quota is left without; a user or group gets a row without
    /// limits. `Output::Int`: 1 if it was added, else 0.
    AddQuota(QuotaKey, i64, i64),
    /// Removes a quota with its usage.
    DelQuota(QuotaKey),
    /// Removes the quotas of all users and groups with their usage.
    DropOwnerQuotas,
    /// Stores the settings document.
    PutSetting(Bytes),
    /// Removes it.
    DelSetting,
    /// First values of the counters of a new volume, where the engine stores them.
    InitCounters,
    /// Registers or refreshes a session: id, unix seconds of expiry, info JSON. `Output::Int`: 1 if it was registered
    /// before, 0 if this created (or resurrected) it.
    PutSession(u64, i64, Bytes),
    /// Removes a session row.
    DelSession(u64),
    /// Stores an ACL rule under an id taken from `Counter::AclMaxId`.
    PutAcl(u32, Bytes),
    /// Sets or clears (None) one holder's flock on an inode; `true` is a write lock.
    PutFlock(Ino, LockOwner, Option<bool>),
    /// Sets or clears (None or empty) one holder's record locks on an inode.
    PutPlock(Ino, LockOwner, Option<Bytes>),
    /// Changes nothing. `Output::Attr`: the inode's record as the writes before have left it.
    TellAttr(Ino),
}

/// What a [`Write`] reports back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Nothing.
    None,
    /// A number.
    Int(i64),
    /// Slices with the references left to each.
    Slices(Vec<(Slice, i64)>),
    /// An inode's record, if there is one.
    Attr(Option<Attr>),
}

/// Guards and writes that happen together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commit {
    /// Conditions, all of which must hold.
    pub guards: Vec<Guard>,
    /// Changes, applied in order.
    pub writes: Vec<Write>,
}

impl Commit {
    /// Does it add what somebody wants to keep: nodes, names, data, attributes? An engine that has no room left refuses that and
    /// makes every other change: removals above all, with what they need (the trash of a new hour, a mark on a file that is still
    /// open, counters), truncation to less, the upkeep of sessions, locks, compaction and background jobs, changes of settings.
    pub fn adds(&self) -> bool {
        let mut names = 0;
        for write in &self.writes {
            match write {
                // An hourly directory.
                Write::PutAttr(ino, _) if ino.is_trash() => {}
                Write::PutAttr(..) | Write::PutSymlink(..) | Write::PutXattr(..) | Write::PutAcl(..) => {
                    return true;
                }
                Write::AppendSlices(ino, _, list)
                    if list.iter().any(|s| s.id > 0) || !self.shortens(*ino) =>
                {
                    return true;
                }
                Write::PutEdge(dir, name, _) if !dir.is_trash() && !self.replaces(*dir, name) => names += 1,
                Write::DelEdge(..) => names -= 1,
                _ => {}
            }
        }
        names > 0
    }

    /// Is there an entry already? Without a guard nobody knows.
    fn replaces(&self, at: Ino, called: &[u8]) -> bool {
        self.guards
            .iter()
            .any(|g| matches!(g, Guard::Edge { dir, name, expect: Some(_) } if *dir == at && name == called))
    }

    /// Does a file become shorter, or stay as long as it is?
    fn shortens(&self, ino: Ino) -> bool {
        let new = self.writes.iter().find_map(|w| match w {
            Write::PatchAttr(i, patch) if *i == ino => patch.length,
            _ => None,
        });
        let Some(new) = new else { return false };
        self.guards.iter().any(|g| {
            matches!(g, Guard::Attr { ino: i, expect: Some(a), mask }
                if *i == ino && mask.contains(AttrMask::LENGTH) && a.length >= new)
        })
    }
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Applied; one output per write.
    Done(Vec<Output>),
    /// Nothing was written: the true value of each guarded record, one per guard, in order.
    Conflict(Vec<Value>),
}
