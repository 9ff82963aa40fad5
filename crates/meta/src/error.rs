//! Errors of metadata operations and their errno.

use std::fmt;

use crate::store::StoreError;

/// A Linux error number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident = $n:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Errno = Errno($n);)*

            /// The symbolic name, `E?` for a number that this crate does not use.
            pub const fn name(self) -> &'static str {
                match self.0 { $($n => stringify!($name),)* _ => "E?" }
            }

            /// A short description.
            pub const fn text(self) -> &'static str {
                match self.0 { $($n => $text,)* _ => "unknown error" }
            }
        }
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or directory";
    EINTR = 4, "interrupted";
    EIO = 5, "input/output error";
    E2BIG = 7, "argument list too long";
    EBADF = 9, "bad file descriptor";
    EAGAIN = 11, "try again";
    ENOMEM = 12, "out of memory";
    EACCES = 13, "permission denied";
    EBUSY = 16, "busy";
    EEXIST = 17, "file exists";
    EXDEV = 18, "cross-device link";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files";
    ENOTTY = 25, "inappropriate ioctl";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left";
    EROFS = 30, "read-only file system";
    EMLINK = 31, "too many links";
    EPIPE = 32, "broken pipe";
    ERANGE = 34, "out of range";
    EDEADLK = 35, "deadlock";
    ENAMETOOLONG = 36, "name too long";
    ENOLCK = 37, "no record locks available";
    ENOSYS = 38, "not implemented";
    ENOTEMPTY = 39, "directory not empty";
    ELOOP = 40, "too many symbolic links";
    ENODATA = 61, "no such attribute";
    ENOBUFS = 105, "no buffer space available";
    ETIMEDOUT = 110, "timed out";
    ESTALE = 116, "stale handle";
    EDQUOT = 122, "quota exceeded";
    EOPNOTSUPP = 95, "not supported";
    ENXIO = 6, "no such device or address";
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name(), self.0)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Errno {}

/// Why an operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The answer a program expects: the operation is not possible.
    #[error("{0}")]
    Errno(Errno),
    /// The metadata engine failed.
    #[error("metadata engine: {0}")]
    Store(#[from] StoreError),
    /// The volume cannot be used by this client; the text names cause and remedy.
    #[error("{0}")]
    Volume(String),
    /// The session was declared dead and its locks on the file went to others: nothing more is written through what was
    /// open then.
    #[error(
        "the locks held on this file were revoked while this client did not answer: what was written under them is \
         refused until the file is closed and opened again"
    )]
    LockLost,
}

impl Error {
    /// The one mapping from errors to errno.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Errno(e) => *e,
            Self::Store(StoreError::NoSpace(_)) => Errno::ENOSPC,
            Self::Store(_) | Self::Volume(_) | Self::LockLost => Errno::EIO,
        }
    }
}

impl From<Errno> for Error {
    fn from(e: Errno) -> Self {
        Self::Errno(e)
    }
}

impl From<ciderfs_format::FormatError> for Error {
    fn from(e: ciderfs_format::FormatError) -> Self {
        Self::Store(e.into())
    }
}

/// Result of a metadata operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;
