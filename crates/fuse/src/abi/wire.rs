//! Message layouts, all in the host's byte order. Names follow the kernel's without the `fuse_` prefix.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! wire {
    ($(#[$doc:meta] $name:ident { $($field:ident: $ty:ty),* $(,)? })*) => { $(
        #[$doc]
        #[derive(Debug, Clone, Copy, Default, PartialEq, FromBytes, IntoBytes, KnownLayout, Immutable)]
        #[repr(C)]
        pub(crate) struct $name { $(pub $field: $ty),* }
    )* };
}

wire! {
    /// In front of every request.
    InHeader { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16 }
    /// In front of every answer and notification.
    OutHeader { len: u32, error: i32, unique: u64 }
    /// Attributes.
    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// LOOKUP and everything that makes a node.
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: Attr,
    }
    /// GETATTR, SETATTR.
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    /// FORGET.
    ForgetIn { nlookup: u64 }
    /// One element of BATCH_FORGET.
    ForgetOne { nodeid: u64, nlookup: u64 }
    /// BATCH_FORGET.
    BatchForgetIn { count: u32, dummy: u32 }
    /// GETATTR.
    GetattrIn { getattr_flags: u32, dummy: u32, fh: u64 }
    /// SETATTR.
    SetattrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// MKNOD.
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// MKDIR.
    MkdirIn { mode: u32, umask: u32 }
    /// RENAME.
    RenameIn { newdir: u64 }
    /// RENAME2.
    Rename2In { newdir: u64, flags: u32, padding: u32 }
    /// LINK.
    LinkIn { oldnodeid: u64 }
    /// OPEN, OPENDIR.
    OpenIn { flags: u32, open_flags: u32 }
    /// CREATE, TMPFILE.
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// OPEN, OPENDIR, CREATE.
    OpenOut { fh: u64, open_flags: u32, backing_id: i32 }
    /// RELEASE, RELEASEDIR.
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// FLUSH.
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    /// READ, READDIR, READDIRPLUS.
    ReadIn { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// WRITE.
    WriteIn { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// WRITE, COPY_FILE_RANGE.
    WriteOut { size: u32, padding: u32 }
    /// STATFS.
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    }
    /// FSYNC, FSYNCDIR.
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32 }
    /// SETXATTR without SETXATTR_EXT.
    SetxattrIn { size: u32, flags: u32 }
    /// What SETXATTR_EXT adds.
    SetxattrInExt { setxattr_flags: u32, padding: u32 }
    /// GETXATTR, LISTXATTR.
    GetxattrIn { size: u32, padding: u32 }
    /// GETXATTR, LISTXATTR with size 0.
    GetxattrOut { size: u32, padding: u32 }
    /// A lock.
    FileLock { start: u64, end: u64, typ: u32, pid: u32 }
    /// GETLK, SETLK, SETLKW.
    LkIn { fh: u64, owner: u64, lk: FileLock, lk_flags: u32, padding: u32 }
    /// ACCESS.
    AccessIn { mask: u32, padding: u32 }
    /// INIT as all kernels since 7.6 send it.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    /// What INIT_EXT adds (7.36).
    InitInExt { flags2: u32, unused: [u32; 11] }
    /// INIT.
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32,
        request_timeout: u16, unused: [u16; 11],
    }
    /// INTERRUPT.
    InterruptIn { unique: u64 }
    /// BMAP.
    BmapIn { block: u64, blocksize: u32, padding: u32 }
    /// BMAP.
    BmapOut { block: u64 }
    /// IOCTL.
    IoctlIn { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    /// IOCTL.
    IoctlOut { result: i32, flags: u32, in_iovs: u32, out_iovs: u32 }
    /// POLL.
    PollIn { fh: u64, kh: u64, flags: u32, events: u32 }
    /// POLL.
    PollOut { revents: u32, padding: u32 }
    /// FALLOCATE.
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// LSEEK.
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32 }
    /// LSEEK.
    LseekOut { offset: u64 }
    /// COPY_FILE_RANGE, COPY_FILE_RANGE_64.
    CopyFileRangeIn { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64 }
    /// COPY_FILE_RANGE_64.
    CopyFileRangeOut { bytes_copied: u64 }
    /// STATX.
    StatxIn { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    /// A time of STATX.
    SxTime { sec: i64, nsec: u32, reserved: i32 }
    /// The body of STATX.
    StatxBody {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16, ino: u64,
        size: u64, blocks: u64, attributes_mask: u64, atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    /// STATX.
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: StatxBody }
    /// One directory entry; the name follows, padded to 8 bytes.
    Dirent { ino: u64, off: u64, namelen: u32, typ: u32 }
    /// Notification: drop an inode's cached attributes and pages.
    NotifyInvalInode { ino: u64, off: i64, len: i64 }
    /// Notification: drop or expire a name.
    NotifyInvalEntry { parent: u64, namelen: u32, flags: u32 }
    /// Notification: a name is gone.
    NotifyDelete { parent: u64, child: u64, namelen: u32, padding: u32 }
    /// Notification: put data into the page cache.
    NotifyStore { nodeid: u64, offset: u64, size: u32, padding: u32 }
    /// Notification: a polled handle became ready.
    NotifyPoll { kh: u64 }
    /// In front of each extension of a request (7.38).
    ExtHeader { size: u32, typ: u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of;

    #[test]
    fn sizes_match_the_kernel() {
        let sizes = [
            (size_of::<InHeader>(), 40),
            (size_of::<OutHeader>(), 16),
            (size_of::<Attr>(), 88),
            (size_of::<EntryOut>(), 128),
            (size_of::<AttrOut>(), 104),
            (size_of::<SetattrIn>(), 88),
            (size_of::<ReadIn>(), 40),
            (size_of::<WriteIn>(), 40),
            (size_of::<StatfsOut>(), 80),
            (size_of::<LkIn>(), 48),
            (size_of::<InitIn>() + size_of::<InitInExt>(), 64),
            (size_of::<InitOut>(), 64),
            (size_of::<IoctlIn>(), 32),
            (size_of::<CopyFileRangeIn>(), 56),
            (size_of::<StatxIn>(), 24),
            (size_of::<StatxBody>(), 256),
            (size_of::<StatxOut>(), 288),
            (size_of::<Dirent>(), 24),
        ];
        for (got, want) in sizes {
            assert_eq!(got, want);
        }
    }
}
