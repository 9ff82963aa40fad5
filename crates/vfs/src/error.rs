//! Why a call has failed, and what a program is told of it: every error of the layers below becomes an errno here and nowhere else.

use std::fmt;

use ciderfs_block::BlockError;
use ciderfs_format::Ino;
use ciderfs_meta::store::StoreError;
use ciderfs_meta::{Errno, Error as MetaError};

/// Why a call has failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A rule of POSIX refuses it: the answer that a program expects, and nothing to be told to anybody else.
    #[error("{0}")]
    Posix(Errno),
    /// The metadata cannot be used: the engine failed, the volume is not for this client, or its locks are lost.
    #[error(transparent)]
    Meta(MetaError),
    /// A block of a file could not be read.
    #[error("inode {ino}: reading {size} bytes at {off}: {source}")]
    Unreadable {
        /// Of which file.
        ino: Ino,
        /// Where the request begins.
        off: u64,
        /// Bytes of the request.
        size: u32,
        /// The block layer's error.
        source: BlockError,
    },
    /// A block of a file could not be stored.
    #[error(transparent)]
    Unstored(#[from] BlockError),
    /// A record that only this layer looks into is damaged.
    #[error("{0}")]
    Damaged(#[from] ciderfs_format::FormatError),
    /// A task that did the work was ended before it was through.
    #[error("{what} failed: {why}")]
    Ended {
        /// The work.
        what: &'static str,
        /// What has become of the task.
        why: String,
    },
}

impl Error {
    /// The locks on a file were lost, under which somebody writes.
    pub(crate) const LOCK_LOST: Self = Self::Meta(MetaError::LockLost);

    /// What a program is told.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Posix(errno) => *errno,
            Self::Meta(e) => e.errno(),
            Self::Unreadable { .. } | Self::Unstored(_) | Self::Damaged(_) | Self::Ended { .. } => Errno::EIO,
        }
    }

    /// An error for somebody who has the file already, by a descriptor or by a name that he has followed: what is gone is stale to
    /// him.
    #[must_use]
    pub fn when_held(e: impl Into<Self>) -> Self {
        let e = e.into();
        if e.errno() == Errno::ENOENT { Errno::ESTALE.into() } else { e }
    }

    /// Is it only one file that cannot be used? Then the others go on without it.
    pub(crate) fn is_of_one_file(&self) -> bool {
        matches!(
            self,
            Self::Posix(_) | Self::Meta(MetaError::LockLost | MetaError::Store(StoreError::Corrupt { .. }))
        )
    }

    /// Is it certain that what was to be committed was not?
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Posix(_) | Self::Meta(MetaError::LockLost))
    }

    /// A task has ended before its work was done.
    pub(crate) fn ended(what: &'static str, why: impl fmt::Display) -> Self {
        Self::Ended { what, why: why.to_string() }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::Posix(errno)
    }
}

impl From<MetaError> for Error {
    fn from(e: MetaError) -> Self {
        match e {
            MetaError::Errno(errno) => Self::Posix(errno),
            e => Self::Meta(e),
        }
    }
}

/// Result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_is_told() {
        let gone = BlockError::NotFound { key: "chunks/0/0/1_0_4".into() };
        let unreadable = Error::Unreadable { ino: Ino(7), off: 5, size: 3, source: gone.clone() };
        assert_eq!(unreadable.to_string(), format!("inode 7: reading 3 bytes at 5: {gone}"));
        let full = MetaError::Store(StoreError::no_space("full"));
        let damaged = MetaError::Store(StoreError::corrupt("record"));
        for (e, errno, held, one_file, refused) in [
            (MetaError::Errno(Errno::ENOENT).into(), Errno::ENOENT, Errno::ESTALE, true, true),
            (Errno::EDQUOT.into(), Errno::EDQUOT, Errno::EDQUOT, true, true),
            (Error::LOCK_LOST, Errno::EIO, Errno::EIO, true, true),
            (damaged.into(), Errno::EIO, Errno::EIO, true, false),
            (full.into(), Errno::ENOSPC, Errno::ENOSPC, false, false),
            (unreadable, Errno::EIO, Errno::EIO, false, false),
            // An object that is gone is no file that is gone.
            (gone.into(), Errno::EIO, Errno::EIO, false, false),
            (Error::ended("flush", "cancelled"), Errno::EIO, Errno::EIO, false, false),
        ] as [(Error, Errno, Errno, bool, bool); 8]
        {
            assert_eq!((e.errno(), Error::when_held(e.clone()).errno()), (errno, held), "{e}");
            assert_eq!((e.is_of_one_file(), e.is_refusal()), (one_file, refused), "{e}");
        }
    }
}
