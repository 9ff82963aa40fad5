//! Records of a volume and the reads that answer with them.

use bytes::Bytes;
use ciderfs_format::quota::Quota;
use ciderfs_format::{Attr, Edge, Ino, Slice};

/// A name of an entry or an extended attribute, as raw bytes.
pub type Name = Vec<u8>;

/// Counters of a volume (`docs/format/redis-keys.md#counters`, `docs/format/sql-tables.md#counters`).
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

/// Background jobs that one client of the fleet claims at a time (`docs/format/sessions-and-locks.md#background-jobs`).
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

/// Usage of a directory's direct children (`docs/format/quotas.md#directory-statistics`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DirStat {
    /// Sum of the lengths of regular files, in bytes.
    pub length: i64,
    /// Sum of `align4k` of regular files, 4096 for everything else.
    pub space: i64,
    /// Number of entries.
    pub inodes: i64,
}

/// Whom a quota binds (`docs/format/quotas.md#checks`). The order is that of the checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuotaKey {
    /// Everything that a user owns.
    User(u32),
    /// Everything that belongs to a group.
    Group(u32),
    /// Everything below a directory, the directory itself not counted.
    Dir(Ino),
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
    /// What the value of an extended attribute and all others of the inode take, [`Value::XattrSizes`].
    XattrSizes(Ino, Name),
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
    /// Limits and usage, [`Value::Quota`].
    Quota(QuotaKey),
    /// Encoded ACL rule by id (`ciderfs_format::acl` record), [`Value::Bytes`].
    Acl(u32),
    /// Is the session registered? [`Value::Bool`].
    Session(u64),
    /// All flocks of an inode, [`Value::Flocks`].
    Flocks(Ino),
    /// All record locks of an inode, [`Value::Plocks`].
    Plocks(Ino),
    /// Does the holder have a lock of this kind on the inode? [`Value::Bool`].
    Holds(Ino, LockKind, LockOwner),
}

/// The two kinds of locks, which ignore each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockKind {
    /// `flock`: the whole file.
    Flock,
    /// `fcntl`: ranges.
    Record,
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
    /// Bytes of the other extended attributes of an inode, names included, and of the value of this one, if it exists.
    XattrSizes(u64, Option<u64>),
    /// Parents with link counts.
    Parents(Vec<(Ino, i64)>),
    /// A number.
    Int(i64),
    /// Directory usage, if the record exists.
    DirStat(Option<DirStat>),
    /// A quota, if there is one.
    Quota(Option<Quota>),
    /// flock holders: owner and `true` for a write lock.
    Flocks(Vec<(LockOwner, bool)>),
    /// Record-lock holders with their encoded record lists (24 bytes each).
    Plocks(Vec<(LockOwner, Bytes)>),
}
