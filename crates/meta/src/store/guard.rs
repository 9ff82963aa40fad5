//! Conditions of a commit.

use std::ops::BitOr;

use bytes::Bytes;
use ciderfs_format::{Attr, Edge, Ino, SessionId, Slice};

use super::{Counter, LockKind, LockOwner, Name, QuotaKey, Read, Value};

/// Which fields of an attribute record a guard compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttrMask(pub u8);

impl AttrMask {
    /// Only that the inode exists (or not).
    pub const EXISTS: Self = Self(0);
    /// flags, type, mode, uid, gid, rdev, parent, ACL ids, tier: what decides permissions and placement.
    pub const IDENTITY: Self = Self(1);
    /// nlink.
    pub const NLINK: Self = Self(2);
    /// length.
    pub const LENGTH: Self = Self(4);
    /// atime, mtime and ctime.
    pub const TIMES: Self = Self(8);
    /// The parent alone.
    pub const PARENT: Self = Self(16);
    /// The ctime alone.
    pub const CTIME: Self = Self(32);
    /// Every field.
    pub const ALL: Self = Self(15);

    /// Are all fields of `other` compared?
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Do the compared fields of `a` and `b` agree?
    pub fn agree(self, a: &Attr, b: &Attr) -> bool {
        (!self.contains(Self::IDENTITY)
            || (a.flags == b.flags
                && a.kind == b.kind
                && a.mode == b.mode
                && a.uid == b.uid
                && a.gid == b.gid
                && a.rdev == b.rdev
                && a.parent == b.parent
                && a.access_acl == b.access_acl
                && a.default_acl == b.default_acl
                && a.tier == b.tier))
            && (!self.contains(Self::PARENT) || a.parent == b.parent)
            && (!self.contains(Self::CTIME) || a.ctime == b.ctime)
            && (!self.contains(Self::NLINK) || a.nlink == b.nlink)
            && (!self.contains(Self::LENGTH) || a.length == b.length)
            && (!self.contains(Self::TIMES)
                || (a.atime == b.atime && a.mtime == b.mtime && a.ctime == b.ctime))
    }
}

impl BitOr for AttrMask {
    type Output = Self;
    fn bitor(self, rhs: Self) -> Self {
        Self(self.0 | rhs.0)
    }
}

/// A condition of a commit. Each guard is about the record of one [`Read`]; see [`Guard::read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The inode exists with these values in the masked fields, or does not exist.
    Attr {
        /// Which inode.
        ino: Ino,
        /// `None`: it must not exist.
        expect: Option<Attr>,
        /// Fields compared.
        mask: AttrMask,
    },
    /// The entry points there, or does not exist.
    Edge {
        /// Directory.
        dir: Ino,
        /// Entry.
        name: Name,
        /// `None`: it must not exist.
        expect: Option<Edge>,
    },
    /// The directory has no entry.
    DirEmpty(Ino),
    /// The chunk's list starts with exactly these records.
    SlicesPrefix {
        /// File.
        ino: Ino,
        /// Chunk index.
        indx: u32,
        /// Expected first records.
        prefix: Vec<Slice>,
    },
    /// The chunk's list is exactly this.
    Slices {
        /// File.
        ino: Ino,
        /// Chunk index.
        indx: u32,
        /// Expected list, empty for a missing one.
        list: Vec<Slice>,
    },
    /// The extended attribute has this value, or does not exist.
    Xattr {
        /// Inode.
        ino: Ino,
        /// Attribute name.
        name: Name,
        /// `None`: it must not exist.
        expect: Option<Bytes>,
    },
    /// The extended attribute exists, whatever its value.
    XattrExists {
        /// Inode.
        ino: Ino,
        /// Attribute name.
        name: Name,
    },
    /// The value of the extended attribute becomes no larger than it is, or the inode's attributes, names included, stay
    /// within a limit with it.
    XattrRoom {
        /// Inode.
        ino: Ino,
        /// Attribute name.
        name: Name,
        /// Bytes of the new value.
        len: u64,
        /// Most bytes of all.
        most: u64,
    },
    /// The counter has this value (missing counts as 0).
    Counter(Counter, i64),
    /// The counter is not above this (missing counts as 0).
    CounterRoom(Counter, i64),
    /// The usage under a quota is not above this; `i64::MAX` for what is not limited. A missing quota counts as unused.
    QuotaRoom {
        /// Whose.
        key: QuotaKey,
        /// Most bytes that may be in use.
        space: i64,
        /// Most inodes that may be in use.
        inodes: i64,
    },
    /// The usage record of the directory is exactly this, or missing.
    DirStat(Ino, Option<super::DirStat>),
    /// The settings document is exactly this, or missing.
    Setting(Option<Bytes>),
    /// The session is registered.
    Session(SessionId),
    /// The hard-link parents are exactly these (only counts > 0 compared).
    Parents {
        /// Inode.
        ino: Ino,
        /// Expected parents, sorted by inode.
        expect: Vec<(Ino, i64)>,
    },
    /// One of the hard-link parents is outside the trash, or none is known.
    NamedOutside(Ino),
    /// The flocks of the inode are exactly these (any order).
    Flocks {
        /// Inode.
        ino: Ino,
        /// Expected holders.
        expect: Vec<(LockOwner, bool)>,
    },
    /// The record locks of the inode are exactly these (any order).
    Plocks {
        /// Inode.
        ino: Ino,
        /// Expected holders.
        expect: Vec<(LockOwner, Bytes)>,
    },
    /// The holder has a lock of this kind on the inode, whichever it is.
    Holds(Ino, LockKind, LockOwner),
}

impl Guard {
    /// The read that answers with the guarded record.
    pub fn read(&self) -> Read {
        match self {
            Self::Attr { ino, .. } => Read::Attr(*ino),
            Self::Edge { dir, name, .. } => Read::Edge(*dir, name.clone()),
            Self::DirEmpty(ino) => Read::DirEmpty(*ino),
            Self::SlicesPrefix { ino, indx, .. } | Self::Slices { ino, indx, .. } => {
                Read::Slices(*ino, *indx)
            }
            Self::Xattr { ino, name, .. } | Self::XattrExists { ino, name } => {
                Read::Xattr(*ino, name.clone())
            }
            Self::XattrRoom { ino, name, .. } => Read::XattrSizes(*ino, name.clone()),
            Self::Counter(c, _) | Self::CounterRoom(c, _) => Read::Counter(*c),
            Self::QuotaRoom { key, .. } => Read::Quota(*key),
            Self::DirStat(dir, _) => Read::DirStat(*dir),
            Self::Setting(_) => Read::Setting,
            Self::Session(sid) => Read::Session(*sid),
            Self::Parents { ino, .. } | Self::NamedOutside(ino) => Read::Parents(*ino),
            Self::Flocks { ino, .. } => Read::Flocks(*ino),
            Self::Plocks { ino, .. } => Read::Plocks(*ino),
            Self::Holds(ino, kind, owner) => Read::Holds(*ino, *kind, *owner),
        }
    }

    /// Does the guard hold for this value of its record? A value of the wrong variant never does.
    pub fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Attr { expect, mask, .. }, Value::Attr(found)) => match (expect, found) {
                (None, None) => true,
                (Some(a), Some(b)) => mask.agree(a, b),
                _ => false,
            },
            (Self::Edge { expect, .. }, Value::Edge(found)) => expect == found,
            (Self::DirEmpty(_), Value::Bool(empty)) => *empty,
            (Self::SlicesPrefix { prefix, .. }, Value::Slices(list)) => list.starts_with(prefix),
            (Self::Slices { list, .. }, Value::Slices(found)) => list == found,
            (Self::Xattr { expect, .. }, Value::Bytes(found)) => expect == found,
            (Self::XattrExists { .. }, Value::Bytes(found)) => found.is_some(),
            (Self::XattrRoom { name, len, most, .. }, Value::XattrSizes(others, own)) => {
                own.is_some_and(|own| *len <= own)
                    || others.saturating_add(name.len() as u64).saturating_add(*len) <= *most
            }
            (Self::Counter(_, n), Value::Int(found)) => n == found,
            (Self::CounterRoom(_, most), Value::Int(found)) => found <= most,
            (Self::QuotaRoom { space, inodes, .. }, Value::Quota(found)) => {
                let (used_space, used_inodes) = found.map_or((0, 0), |q| (q.used_space, q.used_inodes));
                used_space <= *space && used_inodes <= *inodes
            }
            (Self::DirStat(_, expect), Value::DirStat(found)) => expect == found,
            (Self::Setting(expect), Value::Bytes(found)) => expect == found,
            (Self::Session(_) | Self::Holds(..), Value::Bool(there)) => *there,
            (Self::Parents { expect, .. }, Value::Parents(found)) => {
                let mut found: Vec<_> = found.iter().copied().filter(|(_, n)| *n > 0).collect();
                found.sort_unstable();
                *expect == found
            }
            (Self::NamedOutside(_), Value::Parents(found)) => !are_all_in_trash(found),
            (Self::Flocks { expect, .. }, Value::Flocks(found)) => same_set(expect, found),
            (Self::Plocks { expect, .. }, Value::Plocks(found)) => same_set(expect, found),
            _ => false,
        }
    }
}

/// Are there parents, and all of them in the trash?
fn are_all_in_trash(parents: &[(Ino, i64)]) -> bool {
    let mut named = parents.iter().filter(|(_, names)| *names > 0).peekable();
    named.peek().is_some() && named.all(|(dir, _)| dir.is_trash())
}

fn same_set<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    a.len() == b.len() && a.iter().all(|x| b.contains(x))
}
