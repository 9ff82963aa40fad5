//! Listings of directories and walks of maintenance.

use std::collections::HashMap;
use std::fmt::Display;

use bytes::Bytes;
use ciderfs_format::quota::Quota;
use ciderfs_format::{Attr, Edge, FileType, Ino};
use parking_lot::Mutex;

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
    /// Directories without a name that were noted at or before these unix seconds, [`Scanned::Ino`].
    Detached(i64),
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

/// Rows that scans of an engine left out because they make no sense: one must not hide all others. A scan may be made every few
/// seconds, so the log tells of a kind of rows when the first of them is another one than before.
#[derive(Debug, Default)]
pub struct LeftOut(Mutex<HashMap<&'static str, String>>);

impl LeftOut {
    /// Begins a scan over rows of a kind.
    pub fn scan(&self, kind: &'static str) -> Passed<'_> {
        Passed { all: self, kind, rows: 0, first: None }
    }
}

/// What one scan has left out; told when it is dropped.
#[derive(Debug)]
pub struct Passed<'a> {
    all: &'a LeftOut,
    kind: &'static str,
    rows: usize,
    first: Option<String>,
}

impl Passed<'_> {
    /// A row, unless it makes no sense.
    pub fn keep<T, E: Display>(&mut self, row: Result<T, E>) -> Option<T> {
        row.map_err(|why| {
            self.rows += 1;
            self.first.get_or_insert_with(|| why.to_string());
        })
        .ok()
    }
}

impl Drop for Passed<'_> {
    fn drop(&mut self) {
        let told = &mut *self.all.0.lock();
        let Some(first) = self.first.take() else {
            told.remove(self.kind);
            return;
        };
        if told.get(self.kind) != Some(&first) {
            tracing::warn!(
                "{}: {} that cannot be read are left out, the first one: {first}",
                self.kind,
                self.rows
            );
            told.insert(self.kind, first);
        }
    }
}
