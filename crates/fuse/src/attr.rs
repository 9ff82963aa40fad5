//! Values that answers carry.

use std::time::Duration;

use crate::abi::wire;

/// A point in time: seconds since the epoch (negative before 1970) and nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 UTC.
    pub secs: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nanos: u32,
}

/// Attributes of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attr {
    /// Inode number shown to users.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of the data.
    pub mtime: Timestamp,
    /// Last change of the attributes.
    pub ctime: Timestamp,
    /// File type and permission bits (`S_IF*`).
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number as the kernel's 32-bit encoding.
    pub rdev: u32,
    /// Preferred I/O size in bytes.
    pub blksize: u32,
    /// `FUSE_ATTR_*`.
    pub flags: u32,
}

impl Attr {
    pub(crate) fn to_wire(self) -> wire::Attr {
        wire::Attr {
            ino: self.ino,
            size: self.size,
            blocks: self.blocks,
            atime: self.atime.secs as u64,
            mtime: self.mtime.secs as u64,
            ctime: self.ctime.secs as u64,
            atimensec: self.atime.nanos,
            mtimensec: self.mtime.nanos,
            ctimensec: self.ctime.nanos,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            blksize: self.blksize,
            flags: self.flags,
        }
    }
}

/// A name that leads to a node, with the times for which the kernel may believe it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// Node id; 0 means "no such name" and may be cached for `entry_valid`.
    pub nodeid: u64,
    /// Tells apart different nodes that had the same id.
    pub generation: u64,
    /// How long the name may be cached.
    pub entry_valid: Duration,
    /// How long the attributes may be cached.
    pub attr_valid: Duration,
    /// Attributes.
    pub attr: Attr,
}

impl Entry {
    /// "No such name", cached by the kernel for `valid`.
    pub fn negative(valid: Duration) -> Self {
        Self { entry_valid: valid, ..Self::default() }
    }

    pub(crate) fn to_wire(self) -> wire::EntryOut {
        wire::EntryOut {
            nodeid: self.nodeid,
            generation: self.generation,
            entry_valid: self.entry_valid.as_secs(),
            attr_valid: self.attr_valid.as_secs(),
            entry_valid_nsec: self.entry_valid.subsec_nanos(),
            attr_valid_nsec: self.attr_valid.subsec_nanos(),
            attr: self.attr.to_wire(),
        }
    }
}

/// Answer to OPEN, OPENDIR and half of the answer to CREATE.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Opened {
    /// Handle that later requests name.
    pub fh: u64,
    /// [`crate::abi::fopen`] bits.
    pub flags: u32,
    /// Backing file for `fopen::PASSTHROUGH`, else 0.
    pub backing_id: i32,
}

impl Opened {
    /// A handle with flags and no backing file.
    pub fn new(fh: u64, flags: u32) -> Self {
        Self { fh, flags, backing_id: 0 }
    }

    pub(crate) fn to_wire(self) -> wire::OpenOut {
        wire::OpenOut { fh: self.fh, open_flags: self.flags, backing_id: self.backing_id }
    }
}

/// Answer to STATFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statfs {
    /// Total size in units of `frsize`.
    pub blocks: u64,
    /// Free units.
    pub bfree: u64,
    /// Units free for ordinary users.
    pub bavail: u64,
    /// Total inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Preferred I/O size in bytes.
    pub bsize: u32,
    /// Longest name in bytes.
    pub namelen: u32,
    /// Unit of the counts above, in bytes.
    pub frsize: u32,
}

impl Default for Statfs {
    fn default() -> Self {
        Self { blocks: 0, bfree: 0, bavail: 0, files: 0, ffree: 0, bsize: 4096, namelen: 255, frsize: 4096 }
    }
}

impl Statfs {
    pub(crate) fn to_wire(self) -> wire::StatfsOut {
        wire::StatfsOut {
            blocks: self.blocks,
            bfree: self.bfree,
            bavail: self.bavail,
            files: self.files,
            ffree: self.ffree,
            bsize: self.bsize,
            namelen: self.namelen,
            frsize: self.frsize,
            ..Default::default()
        }
    }
}

/// A lock of a byte range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileLock {
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive; `i64::MAX` (the kernel's OFFSET_MAX) means to the end.
    pub end: u64,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub typ: u32,
    /// Process that holds or wants it.
    pub pid: u32,
}

/// Answer to STATX.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statx {
    /// The common part.
    pub attr: Attr,
    /// Which fields are valid (`STATX_*`); [`Statx::BASIC_STATS`] for all of `attr`.
    pub mask: u32,
    /// Birth time; set `STATX_BTIME` in `mask` when known.
    pub btime: Timestamp,
    /// `STATX_ATTR_*`.
    pub attributes: u64,
    /// Which bits of `attributes` are supported.
    pub attributes_mask: u64,
}

impl Statx {
    /// `STATX_BASIC_STATS`.
    pub const BASIC_STATS: u32 = 0x7ff;

    pub(crate) fn to_wire(self) -> wire::StatxBody {
        let time = |t: Timestamp| wire::SxTime { sec: t.secs, nsec: t.nanos, reserved: 0 };
        let a = self.attr;
        wire::StatxBody {
            mask: self.mask,
            blksize: a.blksize,
            attributes: self.attributes,
            nlink: a.nlink,
            uid: a.uid,
            gid: a.gid,
            mode: a.mode as u16,
            ino: a.ino,
            size: a.size,
            blocks: a.blocks,
            attributes_mask: self.attributes_mask,
            atime: time(a.atime),
            btime: time(self.btime),
            ctime: time(a.ctime),
            mtime: time(a.mtime),
            // The kernel's 32-bit encoding: minor in bits 0-7 and 20-31, major in bits 8-19.
            rdev_major: (a.rdev >> 8) & 0xfff,
            rdev_minor: (a.rdev & 0xff) | ((a.rdev >> 12) & 0xfff00),
            ..Default::default()
        }
    }
}
