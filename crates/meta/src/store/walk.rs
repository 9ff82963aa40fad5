//! Listings of directories and walks of maintenance.

use bytes::Bytes;
use ciderfs_format::quota::Quota;
use ciderfs_format::{Attr, Edge, FileType, Ino};

use super::{Name, QuotaKey};

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
    /// Target; [`DirEntry::UNREADABLE`] if the record makes no sense.
    pub edge: Edge,
    /// Attributes, if asked for, present and readable.
    pub attr: Option<Attr>,
}

impl DirEntry {
    /// What stands for the target of an entry whose record is damaged: one must not hide all others. No inode has this number.
    pub const UNREADABLE: Edge = Edge { kind: FileType::File, ino: Ino(0) };
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
    /// Quotas of directories, [`Scanned::Quota`].
    DirQuotas,
    /// Quotas of users and groups, [`Scanned::Quota`].
    OwnerQuotas,
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
    /// Whose, limits and usage.
    Quota(QuotaKey, Quota),
}
