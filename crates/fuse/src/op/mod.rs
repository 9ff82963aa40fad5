//! Operations as the kernel asks for them, borrowing names and data from the request.

mod args;
mod parse;
#[cfg(test)]
mod tests;

pub use args::{CopyRange, Forget, LockArgs, SetAttr, SetTime};
pub(crate) use parse::parse;

/// One operation. The node it concerns is `header().nodeid` of its [`crate::Request`].
///
/// Names are raw bytes without the final zero, never empty, and free of zero bytes. Flags are those of the
/// system call unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op<'a> {
    /// Find `name` in the directory. Answer: `Reply::entry`.
    Lookup {
        /// Name.
        name: &'a [u8],
    },
    /// Drop lookups of the node. No answer.
    Forget {
        /// How many.
        nlookup: u64,
    },
    /// Drop lookups of many nodes. No answer.
    BatchForget(Forget<'a>),
    /// Attributes. Answer: `attr`.
    Getattr {
        /// Handle, when the caller used one.
        fh: Option<u64>,
    },
    /// Change attributes. Answer: `attr`.
    Setattr(SetAttr),
    /// Target of a symbolic link. Answer: `readlink`.
    Readlink,
    /// Make a symbolic link. Answer: `entry`.
    Symlink {
        /// Name.
        name: &'a [u8],
        /// What it points to.
        target: &'a [u8],
    },
    /// Make a node. Answer: `entry`.
    Mknod {
        /// Name.
        name: &'a [u8],
        /// Type and permission bits.
        mode: u32,
        /// Device number, kernel's 32-bit encoding.
        rdev: u32,
        /// Caller's umask; not yet applied if DONT_MASK was negotiated.
        umask: u32,
    },
    /// Make a directory. Answer: `entry`.
    Mkdir {
        /// Name.
        name: &'a [u8],
        /// Permission bits.
        mode: u32,
        /// Caller's umask; see `Mknod`.
        umask: u32,
    },
    /// Remove a name. Answer: `empty`.
    Unlink {
        /// Name.
        name: &'a [u8],
    },
    /// Remove an empty directory. Answer: `empty`.
    Rmdir {
        /// Name.
        name: &'a [u8],
    },
    /// RENAME. Answer: `empty`.
    Rename {
        /// Name in the request's node.
        name: &'a [u8],
        /// Target directory.
        newdir: u64,
        /// Name there.
        newname: &'a [u8],
    },
    /// RENAME with flags. Answer: `empty`.
    Rename2 {
        /// Name in the request's node.
        name: &'a [u8],
        /// Target directory.
        newdir: u64,
        /// Name there.
        newname: &'a [u8],
        /// `RENAME_NOREPLACE`, `RENAME_EXCHANGE`, `RENAME_WHITEOUT`.
        flags: u32,
    },
    /// Give node `oldnode` another name in the request's directory. Answer: `entry`.
    Link {
        /// The node.
        oldnode: u64,
        /// The new name.
        newname: &'a [u8],
    },
    /// Open a file. Answer: `open`; ENOSYS means "no handles needed" if NO_OPEN_SUPPORT was offered.
    Open {
        /// `O_*`.
        flags: u32,
        /// Clear set-user-id and set-group-id (truncating open, HANDLE_KILLPRIV_V2).
        kill_suidgid: bool,
    },
    /// Read. Answer: `data` or `data_vectored`, shorter only at the end of the file.
    Read {
        /// Handle.
        fh: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes wanted.
        size: u32,
        /// Lock owner if sent.
        lock_owner: Option<u64>,
        /// `O_*` flags of the open file.
        flags: u32,
    },
    /// Write. Answer: `written`.
    Write {
        /// Handle.
        fh: u64,
        /// Byte offset.
        offset: u64,
        /// The data; `Request::into_data` takes it without a copy.
        data: &'a [u8],
        /// Lock owner if sent.
        lock_owner: Option<u64>,
        /// `O_*` flags of the open file.
        flags: u32,
        /// From the page cache: `fh` is a guess and the uid of the header is not the writer's.
        cached: bool,
        /// Clear set-user-id and set-group-id.
        kill_suidgid: bool,
    },
    /// File system statistics. Answer: `statfs`.
    Statfs,
    /// Last reference to a handle is gone. Answer: `empty` (errors are ignored).
    Release {
        /// Handle.
        fh: u64,
        /// `O_*`.
        flags: u32,
        /// Drop the handle's flock.
        flock_unlock: bool,
        /// Owner of that flock.
        lock_owner: u64,
    },
    /// Make durable. Answer: `empty`.
    Fsync {
        /// Handle.
        fh: u64,
        /// Data only.
        datasync: bool,
    },
    /// Set an extended attribute. Answer: `empty`.
    Setxattr {
        /// Name.
        name: &'a [u8],
        /// Value.
        value: &'a [u8],
        /// `XATTR_CREATE`, `XATTR_REPLACE`.
        flags: u32,
        /// Clear set-group-id (SETXATTR_EXT, access ACL).
        acl_kill_sgid: bool,
    },
    /// Read an extended attribute. Answer: `xattr_size` if `size` is 0, else `xattr`.
    Getxattr {
        /// Name.
        name: &'a [u8],
        /// Room in bytes.
        size: u32,
    },
    /// Names of extended attributes, each ended by a zero byte. Answer like `Getxattr`.
    Listxattr {
        /// Room in bytes.
        size: u32,
    },
    /// Remove an extended attribute. Answer: `empty`.
    Removexattr {
        /// Name.
        name: &'a [u8],
    },
    /// A descriptor was closed. Answer: `empty`.
    Flush {
        /// Handle.
        fh: u64,
        /// Whose POSIX locks to drop.
        lock_owner: u64,
    },
    /// Open a directory. Answer: `open`.
    Opendir {
        /// `O_*`.
        flags: u32,
    },
    /// List a directory. Answer: `directory`.
    Readdir {
        /// Handle.
        fh: u64,
        /// Cookie of the last record seen, 0 at the start.
        offset: u64,
        /// Room in bytes.
        size: u32,
    },
    /// List a directory with attributes. Answer: `directory_plus`.
    Readdirplus {
        /// Handle.
        fh: u64,
        /// Cookie of the last record seen, 0 at the start.
        offset: u64,
        /// Room in bytes.
        size: u32,
    },
    /// Close a directory. Answer: `empty`.
    Releasedir {
        /// Handle.
        fh: u64,
        /// `O_*`.
        flags: u32,
    },
    /// Make a directory durable. Answer: `empty`.
    Fsyncdir {
        /// Handle.
        fh: u64,
        /// Data only.
        datasync: bool,
    },
    /// Find a conflicting lock. Answer: `lock`.
    Getlk(LockArgs),
    /// Set or drop a lock without waiting. Answer: `empty`.
    Setlk(LockArgs),
    /// Set a lock, waiting for it (interruptible). Answer: `empty`.
    Setlkw(LockArgs),
    /// Check permissions. Answer: `empty`.
    Access {
        /// `R_OK`, `W_OK`, `X_OK`.
        mask: u32,
    },
    /// Make and open a file. Answer: `create`.
    Create {
        /// Name.
        name: &'a [u8],
        /// Type and permission bits.
        mode: u32,
        /// Caller's umask; see `Mknod`.
        umask: u32,
        /// `O_*`.
        flags: u32,
        /// See `Open`.
        kill_suidgid: bool,
    },
    /// Cancel a request. Handled inside this crate.
    Interrupt {
        /// `unique` of the request to cancel.
        unique: u64,
    },
    /// Block number for a swap file or the like. Answer: `bmap`.
    Bmap {
        /// Block of the file.
        block: u64,
        /// Block size in bytes.
        blocksize: u32,
    },
    /// Device control. Answer: `ioctl`.
    Ioctl {
        /// Handle.
        fh: u64,
        /// [`crate::abi::flags`] `IOCTL_*`.
        flags: u32,
        /// Command.
        cmd: u32,
        /// Argument (a pointer of the caller).
        arg: u64,
        /// Bytes that the caller gave.
        data: &'a [u8],
        /// Room for the result in bytes.
        out_size: u32,
    },
    /// Readiness. Answer: `poll`.
    Poll {
        /// Handle.
        fh: u64,
        /// Name of the waiter for `Notifier::poll_wakeup`.
        kh: u64,
        /// The caller waits and wants that notification.
        schedule_notify: bool,
        /// `POLL*` of interest.
        events: u32,
    },
    /// Allocate or punch. Answer: `empty`.
    Fallocate {
        /// Handle.
        fh: u64,
        /// Byte offset.
        offset: u64,
        /// Bytes.
        length: u64,
        /// `FALLOC_FL_*`.
        mode: u32,
    },
    /// SEEK_DATA or SEEK_HOLE. Answer: `lseek`.
    Lseek {
        /// Handle.
        fh: u64,
        /// Byte offset.
        offset: u64,
        /// `SEEK_*`.
        whence: u32,
    },
    /// Copy between files. Answer: `copied` (at most `u32::MAX`).
    CopyFileRange(CopyRange),
    /// Copy between files, 64-bit count (7.45). Answer: `copied`.
    CopyFileRange64(CopyRange),
    /// Make the whole file system durable. Answer: `empty`.
    Syncfs,
    /// Make and open a nameless file. Answer: `create`.
    Tmpfile {
        /// Name that the kernel made up; of no meaning.
        name: &'a [u8],
        /// Type and permission bits.
        mode: u32,
        /// Caller's umask; see `Mknod`.
        umask: u32,
        /// `O_*`.
        flags: u32,
    },
    /// Extended attributes of stat. Answer: `statx`.
    Statx {
        /// Handle, when the caller used one.
        fh: Option<u64>,
        /// `AT_STATX_*`.
        flags: u32,
        /// `STATX_*` wanted.
        mask: u32,
    },
    /// The connection ends. Handled inside this crate.
    Destroy,
    /// Something else; answer ENOSYS.
    Unknown {
        /// Operation code.
        opcode: u32,
    },
}
