//! The kernel interface, versions 7.31 to 7.45: numbers here, message layouts in the private module `wire`.

pub(crate) mod wire;

/// Major version of the protocol.
pub const MAJOR: u32 = 7;
/// Oldest minor version accepted (Linux 5.4).
pub const MINOR_MIN: u32 = 31;
/// Newest minor version known.
pub const MINOR_MAX: u32 = 45;
/// Node id of the root directory.
pub const ROOT_ID: u64 = 1;
/// Set in a request's `unique` when the kernel sends it again after a hand-over (7.40).
pub const UNIQUE_RESEND: u64 = 1 << 63;
/// Smallest read buffer that the kernel accepts, in bytes.
pub const MIN_READ_BUFFER: usize = 8192;
/// Room for headers in front of the data of a WRITE, in bytes.
pub const HEADER_ROOM: usize = 4096;
/// Unit of `max_pages` assumed for limits, in bytes.
pub const PAGE: u32 = 4096;

/// Operation codes.
#[allow(missing_docs)]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BMAP: u32 = 37;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const POLL: u32 = 40;
    pub const NOTIFY_REPLY: u32 = 41;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SETUPMAPPING: u32 = 48;
    pub const REMOVEMAPPING: u32 = 49;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
    pub const COPY_FILE_RANGE_64: u32 = 53;

    /// Lower-case name of an operation, for logs and metrics; `"unknown"` for codes outside the protocol.
    pub fn name(code: u32) -> &'static str {
        const NAMES: [&str; 54] = [
            "",
            "lookup",
            "forget",
            "getattr",
            "setattr",
            "readlink",
            "symlink",
            "",
            "mknod",
            "mkdir",
            "unlink",
            "rmdir",
            "rename",
            "link",
            "open",
            "read",
            "write",
            "statfs",
            "release",
            "",
            "fsync",
            "setxattr",
            "getxattr",
            "listxattr",
            "removexattr",
            "flush",
            "init",
            "opendir",
            "readdir",
            "releasedir",
            "fsyncdir",
            "getlk",
            "setlk",
            "setlkw",
            "access",
            "create",
            "interrupt",
            "bmap",
            "destroy",
            "ioctl",
            "poll",
            "notify_reply",
            "batch_forget",
            "fallocate",
            "readdirplus",
            "rename2",
            "lseek",
            "copy_file_range",
            "setupmapping",
            "removemapping",
            "syncfs",
            "tmpfile",
            "statx",
            "copy_file_range_64",
        ];
        match NAMES.get(code as usize) {
            Some(&"") | None => "unknown",
            Some(name) => name,
        }
    }
}

/// Capability bits of INIT; bits 32 and up travel in the second word (`flags2`).
#[allow(missing_docs)]
pub mod init {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const FILE_OPS: u64 = 1 << 2;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const SPLICE_WRITE: u64 = 1 << 7;
    pub const SPLICE_MOVE: u64 = 1 << 8;
    pub const SPLICE_READ: u64 = 1 << 9;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const HAS_IOCTL_DIR: u64 = 1 << 11;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const WRITEBACK_CACHE: u64 = 1 << 16;
    pub const NO_OPEN_SUPPORT: u64 = 1 << 17;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const HANDLE_KILLPRIV: u64 = 1 << 19;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const ABORT_ERROR: u64 = 1 << 21;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const NO_OPENDIR_SUPPORT: u64 = 1 << 24;
    pub const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    pub const MAP_ALIGNMENT: u64 = 1 << 26;
    pub const SUBMOUNTS: u64 = 1 << 27;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const SECURITY_CTX: u64 = 1 << 32;
    pub const HAS_INODE_DAX: u64 = 1 << 33;
    pub const CREATE_SUPP_GROUP: u64 = 1 << 34;
    pub const HAS_EXPIRE_ONLY: u64 = 1 << 35;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
    pub const PASSTHROUGH: u64 = 1 << 37;
    pub const NO_EXPORT_SUPPORT: u64 = 1 << 38;
    pub const HAS_RESEND: u64 = 1 << 39;
    pub const ALLOW_IDMAP: u64 = 1 << 40;
    pub const OVER_IO_URING: u64 = 1 << 41;
    pub const REQUEST_TIMEOUT: u64 = 1 << 42;
}

/// Flags of an answer to OPEN, OPENDIR and CREATE.
pub mod fopen {
    /// Bypass the page cache for this open file.
    pub const DIRECT_IO: u32 = 1 << 0;
    /// Do not drop cached pages at this open.
    pub const KEEP_CACHE: u32 = 1 << 1;
    /// The file has no seekable position.
    pub const NONSEEKABLE: u32 = 1 << 2;
    /// The kernel may cache this directory's listing.
    pub const CACHE_DIR: u32 = 1 << 3;
    /// The file is a stream without a position.
    pub const STREAM: u32 = 1 << 4;
    /// Do not write back cached data at close (unless WRITEBACK_CACHE).
    pub const NOFLUSH: u32 = 1 << 5;
    /// Direct writes to this inode may run in parallel.
    pub const PARALLEL_DIRECT_WRITES: u32 = 1 << 6;
    /// I/O goes straight to the backing file named by `backing_id`.
    pub const PASSTHROUGH: u32 = 1 << 7;
}

/// `valid` bits of SETATTR.
#[allow(missing_docs)]
pub mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const LOCKOWNER: u32 = 1 << 9;
    pub const CTIME: u32 = 1 << 10;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// Small flag words of single operations.
pub mod flags {
    /// GETATTR, STATX: the handle is valid.
    pub const GETATTR_FH: u32 = 1;
    /// READ: the lock owner is valid.
    pub const READ_LOCKOWNER: u32 = 1 << 1;
    /// WRITE: delayed write from the page cache, the handle is a guess.
    pub const WRITE_CACHE: u32 = 1;
    /// WRITE: the lock owner is valid.
    pub const WRITE_LOCKOWNER: u32 = 1 << 1;
    /// WRITE: clear set-user-id and set-group-id.
    pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
    /// OPEN, CREATE: clear set-user-id and set-group-id (the open truncates).
    pub const OPEN_KILL_SUIDGID: u32 = 1;
    /// RELEASE: flush (not sent by current kernels).
    pub const RELEASE_FLUSH: u32 = 1;
    /// RELEASE: drop the flock of this handle.
    pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
    /// GETLK, SETLK, SETLKW: the lock is a BSD flock.
    pub const LK_FLOCK: u32 = 1;
    /// FSYNC: data only.
    pub const FSYNC_FDATASYNC: u32 = 1;
    /// SETXATTR: clear set-group-id when an access ACL is set.
    pub const SETXATTR_ACL_KILL_SGID: u32 = 1;
    /// IOCTL: 32-bit caller on a 64-bit kernel.
    pub const IOCTL_COMPAT: u32 = 1;
    /// IOCTL: the target is a directory.
    pub const IOCTL_DIR: u32 = 1 << 4;
    /// POLL: the caller waits; send a wake-up notification later.
    pub const POLL_SCHEDULE_NOTIFY: u32 = 1;
    /// `fuse_attr`: root of a sub-mount.
    pub const ATTR_SUBMOUNT: u32 = 1;
    /// Invalidate entry: expire it instead of dropping it.
    pub const EXPIRE_ONLY: u32 = 1;
}

/// Codes of unsolicited notifications.
pub(crate) mod notify {
    pub const POLL: i32 = 1;
    pub const INVAL_INODE: i32 = 2;
    pub const INVAL_ENTRY: i32 = 3;
    pub const STORE: i32 = 4;
    pub const DELETE: i32 = 6;
    pub const RESEND: i32 = 7;
    pub const INC_EPOCH: i32 = 8;
}

/// Extension type: supplementary groups (CREATE_SUPP_GROUP).
pub(crate) const EXT_GROUPS: u32 = 32;

/// `FUSE_DEV_IOC_CLONE` = `_IOR(229, 0, u32)`.
#[cfg(any(target_arch = "mips64", target_arch = "powerpc64", target_arch = "sparc64"))]
pub(crate) const DEV_IOC_CLONE: u32 = 0x4004_e500;
/// `FUSE_DEV_IOC_CLONE` = `_IOR(229, 0, u32)`.
#[cfg(not(any(target_arch = "mips64", target_arch = "powerpc64", target_arch = "sparc64")))]
pub(crate) const DEV_IOC_CLONE: u32 = 0x8004_e500;
