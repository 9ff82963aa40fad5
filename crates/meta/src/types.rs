//! Arguments and results of operations.

use std::sync::Arc;

use bytes::Bytes;
use ciderfs_format::{Attr, Extent, Ino, SessionId, Slice, Time};

use crate::store::{DirCursor, DirEntry};

/// On whose behalf an operation runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups, as far as known.
    pub groups: Vec<u32>,
    /// Process id, for lock records and logs.
    pub pid: u32,
    /// Check read, write and search permission here; `false` where the kernel has done so (`default_permissions`).
    pub check: bool,
}

impl Caller {
    /// The superuser: passes every check.
    pub const fn root() -> Self {
        Self { uid: 0, gid: 0, groups: Vec::new(), pid: 0, check: false }
    }

    /// A user whose permissions the kernel has already checked.
    pub const fn kernel_checked(uid: u32, gid: u32, pid: u32) -> Self {
        Self { uid, gid, groups: Vec::new(), pid, check: false }
    }

    /// Is `gid` one of the caller's groups?
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// A time to set: a given one or the time of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// Now, by this client's clock.
    Now,
    /// This.
    At(Time),
}

/// Attributes to change; `None` leaves one alone. The length is changed by [`crate::Meta::truncate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetAttr {
    /// Permission bits (0o7777).
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// Change time; only a front door that keeps times itself sets it.
    pub ctime: Option<Time>,
    /// Flags of `ciderfs_format::attr::flags`.
    pub flags: Option<u8>,
}

/// How an extended attribute is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XattrSet {
    /// Fail with `EEXIST` if it exists.
    pub create: bool,
    /// Fail with `ENODATA` if it does not.
    pub replace: bool,
    /// An access ACL takes the set-group-ID bit away: the caller is not in the file's group.
    pub clear_setgid: bool,
}

/// A new node.
#[derive(Debug, Clone, Copy)]
pub struct NewNode<'a> {
    /// What it is.
    pub kind: ciderfs_format::FileType,
    /// Permission bits before the umask (0o7777).
    pub mode: u16,
    /// The creator's umask; ignored where a default ACL applies. 0 where the kernel has applied it.
    pub umask: u16,
    /// Device number (`new_encode_dev` form), for devices.
    pub rdev: u32,
    /// Target, for symbolic links; else empty.
    pub target: &'a [u8],
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenFlags {
    /// Read access.
    pub read: bool,
    /// Write access.
    pub write: bool,
    /// To be executed: then this permission counts, and not `read`.
    pub exec: bool,
    /// `O_APPEND`.
    pub append: bool,
    /// `O_TRUNC`.
    pub truncate: bool,
}

/// A page of a directory.
#[derive(Debug, Clone)]
pub struct DirPage {
    /// Entries, without `.` and `..`; may repeat names of earlier pages.
    pub entries: Vec<DirEntry>,
    /// Where to go on; `DirCursor::End` when done.
    pub next: DirCursor,
}

/// The resolved content of a chunk, valid as long as `version` is what a new read would give.
#[derive(Debug, Clone)]
pub struct ChunkView {
    /// Sorted, gapless extents from 0; id 0 is a hole. Bytes after the last are zeros up to the file length.
    pub extents: Arc<[Extent]>,
    /// Number of raw records in the list: a measure of how much compaction would help.
    pub records: usize,
}

/// Where a commit puts a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Into the chunk of this index, at the record's `pos`.
    Chunk(u32),
    /// To the end of the file, wherever that is when the slice is committed; the record's `pos` means nothing.
    End,
}

/// A slice to commit. A fresh one: its id must come from [`crate::Meta::new_slice_id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewSlice {
    /// Where it goes.
    pub place: Place,
    /// The record.
    pub slice: Slice,
}

impl NewSlice {
    /// A slice of a chunk.
    pub fn at(indx: u32, slice: Slice) -> Self {
        Self { place: Place::Chunk(indx), slice }
    }

    /// A slice for the end of the file.
    pub fn at_end(slice: Slice) -> Self {
        Self { place: Place::End, slice }
    }
}

/// What tells one content of a file from another: every change of the content changes it, unless somebody sets the time back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Modification time.
    pub mtime: Time,
    /// Length in bytes.
    pub length: u64,
}

impl Version {
    /// The version that has these attributes.
    pub const fn of(a: &Attr) -> Self {
        Self { mtime: a.mtime, length: a.length }
    }
}

/// A file before and after a change.
#[derive(Debug, Clone)]
pub struct Changed {
    /// What was changed: exactly that, no change of anybody else came between.
    pub before: Version,
    /// Attributes afterwards.
    pub attr: Attr,
}

impl Changed {
    pub(crate) fn new(before: &Attr, attr: Attr) -> Self {
        Self { before: Version::of(before), attr }
    }
}

/// What a write commit did.
#[derive(Debug, Clone)]
pub struct Written {
    /// The file before and after the commit.
    pub changed: Changed,
    /// The offset in the file of each slice, in bytes.
    pub offsets: Vec<u64>,
    /// Chunk index and number of records now in its list, for each chunk appended to.
    pub lists: Vec<(u32, usize)>,
}

/// What [`crate::Meta::fallocate`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// Makes the file long enough.
    Grow,
    /// Checks that the volume has room for a file so long; what lies inside it is reserved (`FALLOC_FL_KEEP_SIZE`).
    Reserve,
    /// Makes a hole; the length stays (`FALLOC_FL_PUNCH_HOLE`).
    Punch,
    /// Makes zeros and the file long enough (`FALLOC_FL_ZERO_RANGE`).
    Zero,
    /// Makes zeros up to the end of the file (`FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE`).
    ZeroInside,
}

impl Allocate {
    /// Does the range read as zeros afterwards?
    pub(crate) fn erases(self) -> bool {
        matches!(self, Self::Punch | Self::Zero | Self::ZeroInside)
    }

    /// Is space reserved, as far as such a thing exists?
    pub(crate) fn reserves(self) -> bool {
        self != Self::Punch
    }

    /// Does the length stay as it is?
    pub(crate) fn keeps_size(self) -> bool {
        matches!(self, Self::Reserve | Self::Punch | Self::ZeroInside)
    }
}

/// What a step of a copy did.
#[derive(Debug, Clone)]
pub struct Copied {
    /// Bytes copied; 0 at the end of the source.
    pub bytes: u64,
    /// Bytes of the range that the source had behind them.
    pub rest: u64,
    /// The target before and afterwards, if anything was copied.
    pub changed: Option<Changed>,
    /// Chunk index and number of records now in its list, for each chunk appended to.
    pub lists: Vec<(u32, usize)>,
}

/// Figures for `statfs` and `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VolumeStat {
    /// Bytes in all.
    pub total_space: u64,
    /// Bytes free.
    pub avail_space: u64,
    /// Bytes used.
    pub used_space: u64,
    /// Inodes used.
    pub used_inodes: u64,
    /// Inodes free.
    pub avail_inodes: u64,
}

/// A registered session, as `status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Session id.
    pub sid: SessionId,
    /// Unix seconds of expiry.
    pub expire: i64,
    /// Info document.
    pub info: Bytes,
}

/// Result of a rename.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renamed {
    /// The nodes that have got another name: one, two that were exchanged, or none where both names lead to the same.
    pub moved: Vec<Ino>,
    /// What was replaced.
    pub replaced: Option<Removed>,
}

/// Result of an unlink, rmdir or replacing rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// The inode whose name went.
    pub ino: Ino,
    /// The node itself is gone or sustained (no name and not in the trash).
    pub last: bool,
}
