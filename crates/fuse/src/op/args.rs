//! Arguments that are more than a few plain fields.

use crate::abi::wire;
use crate::attr::{FileLock, Timestamp};

/// A time that SETATTR sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The current time, chosen by the file system.
    Now,
    /// This time.
    At(Timestamp),
}

/// What SETATTR changes; `None` leaves a thing alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits (with the file type).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the data.
    pub mtime: Option<SetTime>,
    /// Last change of the attributes (writeback cache only).
    pub ctime: Option<Timestamp>,
    /// The open handle through which the change is made (ftruncate and the like).
    pub fh: Option<u64>,
    /// Lock owner of the caller, for truncation.
    pub lock_owner: Option<u64>,
    /// Clear set-user-id and set-group-id (HANDLE_KILLPRIV_V2).
    pub kill_suidgid: bool,
}

/// Nodes to forget: (node id, number of lookups to drop).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forget<'a> {
    pub(super) items: &'a [u8],
}

impl<'a> Forget<'a> {
    /// Size of one record in bytes.
    const RECORD: usize = size_of::<wire::ForgetOne>();

    /// The pairs of node id and lookup count.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + use<'a> {
        use zerocopy::FromBytes;
        self.items
            .chunks_exact(Self::RECORD)
            .filter_map(|record| wire::ForgetOne::read_from_bytes(record).ok())
            .map(|one| (one.nodeid, one.nlookup))
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.items.len() / Self::RECORD
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// Arguments of the lock operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockArgs {
    /// Handle.
    pub fh: u64,
    /// Lock owner.
    pub owner: u64,
    /// Range and type.
    pub lock: FileLock,
    /// Raw `lk_flags`.
    pub flags: u32,
}

impl LockArgs {
    /// A BSD flock of the whole file rather than a POSIX record lock.
    pub fn is_flock(&self) -> bool {
        self.flags & crate::abi::flags::LK_FLOCK != 0
    }
}

/// Arguments of COPY_FILE_RANGE; the source node is the request's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRange {
    /// Source handle.
    pub fh_in: u64,
    /// Source offset.
    pub off_in: u64,
    /// Target node.
    pub node_out: u64,
    /// Target handle.
    pub fh_out: u64,
    /// Target offset.
    pub off_out: u64,
    /// Bytes.
    pub len: u64,
    /// Flags, 0 today.
    pub flags: u64,
}
