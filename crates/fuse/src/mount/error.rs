//! Why mounting or unmounting failed.

use std::io;
use std::path::{Path, PathBuf};

/// Why mounting or unmounting failed. The messages are fit for users.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The mount point does not exist.
    #[error("mount point {:?} does not exist", .mountpoint)]
    Missing {
        /// Where.
        mountpoint: PathBuf,
    },
    /// The mount point is not a directory.
    #[error("mount point {:?} is not a directory", .mountpoint)]
    NotADirectory {
        /// Where.
        mountpoint: PathBuf,
    },
    /// Something is mounted there already, or files there are open.
    #[error("mount point {:?} is busy: {by}", .mountpoint)]
    Busy {
        /// Where.
        mountpoint: PathBuf,
        /// What is in the way.
        by: String,
    },
    /// A former mount whose server died.
    #[error(
        "mount point {0:?} holds a broken mount (\"Transport endpoint is not connected\"); \
         unmount it first, for example with: umount -l {0:?}",
        .mountpoint
    )]
    Broken {
        /// Where.
        mountpoint: PathBuf,
    },
    /// Nothing is mounted there.
    #[error("nothing is mounted on {:?}", .mountpoint)]
    NotMounted {
        /// Where.
        mountpoint: PathBuf,
    },
    /// `/dev/fuse` cannot be used.
    #[error(
        "cannot open /dev/fuse: {source}; is the kernel module loaded (modprobe fuse) and the device passed in?"
    )]
    NoDevice {
        /// Why.
        source: io::Error,
    },
    /// Not allowed to mount or unmount.
    #[error("not permitted to mount or unmount {:?}; root needs the capability SYS_ADMIN", .mountpoint)]
    Denied {
        /// Where.
        mountpoint: PathBuf,
    },
    /// The helper is not installed.
    #[error("mounting without root needs the program fusermount3; install the package fuse3")]
    NoFusermount,
    /// The helper failed.
    #[error("fusermount3 failed: {message}")]
    Fusermount {
        /// What it said.
        message: String,
    },
    /// An option that cannot be passed on.
    #[error("mount option {option:?}: {reason}")]
    Option {
        /// The option.
        option: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Anything else.
    #[error("{:?}: {source}", .path)]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl MountError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
