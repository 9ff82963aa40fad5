//! The one door to a metadata engine.
//!
//! A [`Store`] holds typed records. It can answer a batch of [`Read`]s in one turn, and it can apply a [`Commit`]:
//! a list of [`Guard`]s that must all hold and a list of [`Write`]s that then happen, atomically and in one turn. If a
//! guard does not hold nothing is written and the answer carries the true value of every guarded record, so that the
//! operation can run again on the truth. No POSIX rule lives below this trait; no engine layout lives above it.

use std::ops::{BitOr, Range};

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::{Attr, Edge, Ino, Slice, Time};

/// A name of an entry or an extended attribute, as raw bytes.
pub type Name = Vec<u8>;

/// Counters of a volume (`spec/meta-redis.md` 2.1, `spec/meta-sql-kv.md` 3.4).
///
/// `NextInode` and `NextChunk` are only handed out through [`Store::allocate`], which hides that engines disagree on
/// whether the stored number is the last used or the next free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Inode numbers.
    NextInode,
    /// Slice ids.
    NextChunk,
    /// The last session id handed out.
    NextSession,
    /// The last hourly trash directory created; its inode is `Ino::TRASH + n`.
    NextTrash,
    /// Bytes used by the volume.
    UsedSpace,
    /// Inodes used by the volume, without the root and the trash root.
    TotalInodes,
    /// Last ACL id (engines with automatic ids may ignore it).
    AclMaxId,
}

/// Background jobs that one client of the fleet claims at a time (`spec/meta-redis.md` 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Job {
    /// `lastCleanupSessions`.
    CleanupSessions,
    /// `lastCleanupFiles`.
    CleanupFiles,
    /// `lastCleanupTrash`.
    CleanupTrash,
    /// `nextCleanupSlices`.
    CleanupSlices,
}

/// Usage of a directory's direct children (`spec/meta-redis.md` 4.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DirStat {
    /// Sum of the lengths of regular files, in bytes.
    pub length: i64,
    /// Sum of `align4k` of regular files, 4096 for everything else.
    pub space: i64,
    /// Number of entries.
    pub inodes: i64,
}

/// What to read. Each variant names the [`Value`] variant of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Read {
    /// [`Value::Attr`].
    Attr(Ino),
    /// [`Value::Edge`].
    Edge(Ino, Name),
    /// The entry and the attributes of its target, [`Value::Lookup`].
    Lookup(Ino, Name),
    /// Has the directory no entry? [`Value::Bool`].
    DirEmpty(Ino),
    /// The list of a chunk in commit order, [`Value::Slices`]; missing is empty.
    Slices(Ino, u32),
    /// Target of a symbolic link, [`Value::Bytes`].
    Symlink(Ino),
    /// Value of an extended attribute, [`Value::Bytes`].
    Xattr(Ino, Name),
    /// Names of the extended attributes, [`Value::Names`].
    XattrNames(Ino),
    /// Directories that hold links to a hard-linked inode with counts (> 0), [`Value::Parents`].
    Parents(Ino),
    /// [`Value::Int`]; missing is 0. Not for `NextInode` and `NextChunk`.
    Counter(Counter),
    /// The settings document, [`Value::Bytes`].
    Setting,
    /// Number of references to a slice, 1 for a slice nobody shares, [`Value::Int`].
    SliceRefs(u64, u32),
    /// [`Value::DirStat`].
    DirStat(Ino),
    /// Encoded ACL rule by id (`ciderfs_format::acl` record), [`Value::Bytes`].
    Acl(u32),
    /// Is the session registered? [`Value::Bool`].
    Session(u64),
    /// All flocks of an inode, [`Value::Flocks`].
    Flocks(Ino),
    /// All record locks of an inode, [`Value::Plocks`].
    Plocks(Ino),
}

/// Who holds a lock: session id and the kernel's lock owner.
pub type LockOwner = (u64, u64);

/// The answer to a [`Read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Attributes, if the inode exists.
    Attr(Option<Attr>),
    /// An entry, if there is one.
    Edge(Option<Edge>),
    /// An entry and the attributes of its target; attributes are missing only on a damaged volume.
    Lookup(Option<(Edge, Option<Attr>)>),
    /// Yes or no.
    Bool(bool),
    /// A chunk's list.
    Slices(Vec<Slice>),
    /// Raw bytes, if present.
    Bytes(Option<Bytes>),
    /// Names, in no order.
    Names(Vec<Name>),
    /// Parents with link counts.
    Parents(Vec<(Ino, i64)>),
    /// A number.
    Int(i64),
    /// Directory usage, if the record exists.
    DirStat(Option<DirStat>),
    /// flock holders: owner and `true` for a write lock.
    Flocks(Vec<(LockOwner, bool)>),
    /// Record-lock holders with their encoded record lists (24 bytes each).
    Plocks(Vec<(LockOwner, Bytes)>),
}

/// Which fields of an attribute record a guard compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttrMask(pub u8);

impl AttrMask {
    /// Only that the inode exists (or not).
    pub const EXISTS: Self = Self(0);
    /// flags, type, mode, uid, gid, rdev, parent, ACL ids, tier: what decides permissions and placement.
    pub const IDENTITY: Self = Self(1);
    /// nlink.
    pub const NLINK: Self = Self(2);
    /// length.
    pub const LENGTH: Self = Self(4);
    /// atime, mtime and ctime.
    pub const TIMES: Self = Self(8);
    /// Every field.
    pub const ALL: Self = Self(15);

    /// Are all fields of `other` compared?
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Do the compared fields of `a` and `b` agree?
    pub fn agree(self, a: &Attr, b: &Attr) -> bool {
        (!self.contains(Self::IDENTITY)
            || (a.flags == b.flags
                && a.kind == b.kind
                && a.mode == b.mode
                && a.uid == b.uid
                && a.gid == b.gid
                && a.rdev == b.rdev
                && a.parent == b.parent
                && a.access_acl == b.access_acl
                && a.default_acl == b.default_acl
                && a.tier == b.tier))
            && (!self.contains(Self::NLINK) || a.nlink == b.nlink)
            && (!self.contains(Self::LENGTH) || a.length == b.length)
            && (!self.contains(Self::TIMES)
                || (a.atime == b.atime && a.mtime == b.mtime && a.ctime == b.ctime))
    }
}

impl BitOr for AttrMask {
    type Output = Self;
    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

/// A condition of a commit. Each guard is about the record of one [`Read`]; see [`Guard::read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The inode exists with these values in the masked fields, or does not exist.
    Attr {
        /// Which inode.
        ino: Ino,
        /// `None`: it must not exist.
        expect: Option<Attr>,
        /// Fields compared.
        mask: AttrMask,
    },
    /// The entry points there, or does not exist.
    Edge {
        /// Directory.
        dir: Ino,
        /// Entry.
        name: Name,
        /// `None`: it must not exist.
        expect: Option<Edge>,
    },
    /// The directory has no entry.
    DirEmpty(Ino),
    /// The chunk's list starts with exactly these records.
    SlicesPrefix {
        /// File.
        ino: Ino,
        /// Chunk index.
        indx: u32,
        /// Expected first records.
        prefix: Vec<Slice>,
    },
    /// The chunk's list is exactly this.
    Slices {
        /// File.
        ino: Ino,
        /// Chunk index.
        indx: u32,
        /// Expected list, empty for a missing one.
        list: Vec<Slice>,
    },
    /// The extended attribute has this value, or does not exist.
    Xattr {
        /// Inode.
        ino: Ino,
        /// Attribute name.
        name: Name,
        /// `None`: it must not exist.
        expect: Option<Bytes>,
    },
    /// The counter has this value (missing counts as 0).
    Counter(Counter, i64),
    /// The settings document is exactly this, or missing.
    Setting(Option<Bytes>),
    /// The session is registered.
    Session(u64),
    /// The hard-link parents are exactly these (only counts > 0 compared).
    Parents {
        /// Inode.
        ino: Ino,
        /// Expected parents, sorted by inode.
        expect: Vec<(Ino, i64)>,
    },
    /// The flocks of the inode are exactly these (any order).
    Flocks {
        /// Inode.
        ino: Ino,
        /// Expected holders.
        expect: Vec<(LockOwner, bool)>,
    },
    /// The record locks of the inode are exactly these (any order).
    Plocks {
        /// Inode.
        ino: Ino,
        /// Expected holders.
        expect: Vec<(LockOwner, Bytes)>,
    },
}

impl Guard {
    /// The read that answers with the guarded record.
    pub fn read(&self) -> Read {
        match self {
            Self::Attr { ino, .. } => Read::Attr(*ino),
            Self::Edge { dir, name, .. } => Read::Edge(*dir, name.clone()),
            Self::DirEmpty(ino) => Read::DirEmpty(*ino),
            Self::SlicesPrefix { ino, indx, .. } | Self::Slices { ino, indx, .. } => {
                Read::Slices(*ino, *indx)
            }
            Self::Xattr { ino, name, .. } => Read::Xattr(*ino, name.clone()),
            Self::Counter(c, _) => Read::Counter(*c),
            Self::Setting(_) => Read::Setting,
            Self::Session(sid) => Read::Session(*sid),
            Self::Parents { ino, .. } => Read::Parents(*ino),
            Self::Flocks { ino, .. } => Read::Flocks(*ino),
            Self::Plocks { ino, .. } => Read::Plocks(*ino),
        }
    }

    /// Does the guard hold for this value of its record? A value of the wrong variant never does.
    pub fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Attr { expect, mask, .. }, Value::Attr(found)) => match (expect, found) {
                (None, None) => true,
                (Some(a), Some(b)) => mask.agree(a, b),
                _ => false,
            },
            (Self::Edge { expect, .. }, Value::Edge(found)) => expect == found,
            (Self::DirEmpty(_), Value::Bool(empty)) => *empty,
            (Self::SlicesPrefix { prefix, .. }, Value::Slices(list)) => list.starts_with(prefix),
            (Self::Slices { list, .. }, Value::Slices(found)) => list == found,
            (Self::Xattr { expect, .. }, Value::Bytes(found)) => expect == found,
            (Self::Counter(_, n), Value::Int(found)) => n == found,
            (Self::Setting(expect), Value::Bytes(found)) => expect == found,
            (Self::Session(_), Value::Bool(there)) => *there,
            (Self::Parents { expect, .. }, Value::Parents(found)) => {
                let mut found: Vec<_> = found.iter().copied().filter(|(_, n)| *n > 0).collect();
                found.sort_unstable();
                *expect == found
            }
            (Self::Flocks { expect, .. }, Value::Flocks(found)) => same_set(expect, found),
            (Self::Plocks { expect, .. }, Value::Plocks(found)) => same_set(expect, found),
            _ => false,
        }
    }
}

fn same_set<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    a.len() == b.len() && a.iter().all(|x| b.contains(x))
}

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
    /// Changes fields of an existing inode. A missing inode is left missing (guard it).
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
    /// Stores the settings document.
    PutSetting(Bytes),
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
}

/// Guards and writes that happen together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commit {
    /// Conditions, all of which must hold.
    pub guards: Vec<Guard>,
    /// Changes, applied in order.
    pub writes: Vec<Write>,
}

/// What became of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Applied; one output per write.
    Done(Vec<Output>),
    /// Nothing was written: the true value of each guarded record, one per guard, in order.
    Conflict(Vec<Value>),
}

/// Why a store could not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The engine could not be reached or refused for now; nothing was applied. Worth a retry.
    #[error("{0}")]
    Unavailable(String),
    /// The reply was lost; a commit may or may not have been applied.
    #[error("{0}")]
    Ambiguous(String),
    /// The engine is out of memory or disk.
    #[error("{0}")]
    NoSpace(String),
    /// A stored value makes no sense.
    #[error("damaged metadata: {0}")]
    Corrupt(String),
    /// Wrong password, wrong address, wrong version: no retry helps. The text names cause and remedy.
    #[error("{0}")]
    Fatal(String),
}

impl From<ciderfs_format::FormatError> for StoreError {
    fn from(e: ciderfs_format::FormatError) -> Self {
        Self::Corrupt(e.to_string())
    }
}

/// Where a directory listing goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DirCursor {
    /// At the beginning.
    #[default]
    Start,
    /// Engine-defined scan position.
    Scan(u64),
    /// After this name, in byte order.
    After(Name),
    /// Nothing more.
    End,
}

/// One listed entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Name.
    pub name: Name,
    /// Target.
    pub edge: Edge,
    /// Attributes, if asked for and present.
    pub attr: Option<Attr>,
}

/// What maintenance walks over. Each variant names the [`Scanned`] variant of its items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scan {
    /// All sessions, [`Scanned::Session`].
    Sessions,
    /// Sessions whose expiry is at or before these unix seconds, [`Scanned::Session`].
    StaleSessions(i64),
    /// Inodes kept for a session, [`Scanned::Ino`].
    Sustained(u64),
    /// Files whose data must be removed and that were deleted at or before these unix seconds, [`Scanned::Delfile`].
    Delfiles(i64),
    /// Slice references that are dead (no user left), [`Scanned::Slice`]. The engine drops redundant counts on the way.
    DeadSlices,
    /// Delayed slices, [`Scanned::Delayed`].
    DelayedSlices,
    /// Inodes on which a session holds locks, [`Scanned::Ino`].
    Locked(u64),
    /// Indexes of the existing chunk lists of a file, ascending, [`Scanned::Chunk`].
    Chunks(Ino),
}

/// An item of a [`Scan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scanned {
    /// Session id, unix seconds of expiry, info JSON.
    Session(u64, i64, Bytes),
    /// An inode.
    Ino(Ino),
    /// Inode, length, unix seconds of deletion.
    Delfile(Ino, u64, i64),
    /// Slice id and size.
    Slice(u64, u32),
    /// New slice id, unix seconds, replaced (id, size) pairs.
    Delayed(u64, i64, Vec<(u64, u32)>),
    /// Chunk index.
    Chunk(u32),
}

/// A metadata engine.
///
/// Methods may be called concurrently. Retrying is the caller's business: a store reports `Unavailable` promptly (within
/// its own time-outs) and reconnects by itself on the next call.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Short engine name for messages and metrics: `redis`, `sqlite3`, `memory`.
    fn engine(&self) -> &'static str;

    /// The address without secrets, for messages.
    fn describe(&self) -> String;

    /// Answers all reads in one turn, in order.
    async fn read(&self, reads: &[Read]) -> Result<Vec<Value>, StoreError>;

    /// Checks all guards, then applies all writes, atomically, in one turn.
    async fn commit(&self, commit: &Commit) -> Result<Outcome, StoreError>;

    /// One page of a directory, about `limit` entries, with attributes if asked for. Entries that exist during the whole
    /// walk appear at least once; a page may repeat names of earlier pages.
    async fn list_dir(
        &self,
        dir: Ino,
        cursor: &DirCursor,
        limit: usize,
        attrs: bool,
    ) -> Result<(Vec<DirEntry>, DirCursor), StoreError>;

    /// Reserves `count` consecutive numbers of `NextInode` or `NextChunk` for the caller alone.
    async fn allocate(&self, counter: Counter, count: u64) -> Result<Range<u64>, StoreError>;

    /// Claims a job: if its stamp is at most `now - min_interval` it becomes `now` (unix seconds) and the caller runs it.
    async fn claim(&self, job: Job, now: i64, min_interval: i64) -> Result<bool, StoreError>;

    /// At most `limit` items of a scan. Walks that remove what they find simply scan again.
    async fn scan(&self, scan: &Scan, limit: usize) -> Result<Vec<Scanned>, StoreError>;

    /// Creates the engine's tables for a new volume, where it has tables. Idempotent.
    async fn create_schema(&self) -> Result<(), StoreError>;

    /// Number of turns made so far, for tests and metrics.
    fn turns(&self) -> u64;
}
