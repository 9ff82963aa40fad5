//! Translations between the vfs's types and the kernel's.

use ciderfs_format::{Attr, Ino, Time};
use ciderfs_fuse as fuse;
use ciderfs_meta::{SetAttr, SetTime};

/// Preferred I/O size shown to programs, in bytes; the same as the official client's.
const BLKSIZE: u32 = 65_536;

pub(crate) fn timestamp(t: Time) -> fuse::Timestamp {
    fuse::Timestamp { secs: t.sec, nanos: t.nsec }
}

fn time(t: fuse::Timestamp) -> Time {
    Time { sec: t.secs, nsec: t.nanos }
}

/// Attributes for the kernel; `blocks` of 512 bytes hold a file's data, `nlink` names lead to it.
pub(crate) fn attr(ino: Ino, a: &Attr, blocks: u64, nlink: u32) -> fuse::Attr {
    let size = match a.kind {
        ciderfs_format::FileType::File
        | ciderfs_format::FileType::Directory
        | ciderfs_format::FileType::Symlink => a.length,
        _ => 0,
    };
    fuse::Attr {
        ino: ino.0,
        size,
        blocks: if a.is_file() { blocks } else { size.div_ceil(512) },
        atime: timestamp(a.atime),
        mtime: timestamp(a.mtime),
        ctime: timestamp(a.ctime),
        mode: a.st_mode(),
        nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        blksize: BLKSIZE,
        flags: 0,
    }
}

/// What a SETATTR asks for, without the size.
pub(crate) fn set_attr(s: &fuse::SetAttr) -> SetAttr {
    let set_time = |t: fuse::SetTime| match t {
        fuse::SetTime::Now => SetTime::Now,
        fuse::SetTime::At(t) => SetTime::At(time(t)),
    };
    SetAttr {
        mode: s.mode.map(|m| (m & 0o7777) as u16),
        uid: s.uid,
        gid: s.gid,
        atime: s.atime.map(set_time),
        mtime: s.mtime.map(set_time),
        ctime: s.ctime.map(time),
        flags: None,
    }
}
