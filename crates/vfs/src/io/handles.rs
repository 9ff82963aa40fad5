//! Handles given to the front door.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ciderfs_format::Ino;
use ciderfs_meta::Errno;
use parking_lot::{Mutex, RwLock};

use crate::content::file::File;
use crate::io::locks::{HandleLocks, Losses};
use crate::io::readahead::ReadAhead;
use crate::kernel::Drops;
use crate::names::dir::DirStream;
use crate::tools::access_log::Reader;
use crate::tools::control::{Control, Shared};

/// An open file.
pub(crate) struct FileHandle {
    pub(crate) file: Arc<File>,
    pub(crate) writable: bool,
    /// Failures of the file that `fsync` has reported through this handle already.
    pub(crate) reported: Mutex<u64>,
    pub(crate) ahead: Mutex<ReadAhead>,
    /// Opened to append only.
    pub(crate) append: bool,
    /// Reading leaves the access time alone (`O_NOATIME`).
    pub(crate) noatime: bool,
    pub(crate) locks: HandleLocks,
    /// What the answer to its open has the kernel drop.
    pub(crate) drops: Drops,
}

impl FileHandle {
    /// A handle that was opened with `flags`, when so many failures were `reported` and so many `losses` of locks had been.
    pub(crate) fn new(file: Arc<File>, flags: i32, reported: u64, losses: Losses, drops: Drops) -> Self {
        Self {
            file,
            writable: flags & libc::O_ACCMODE != libc::O_RDONLY,
            reported: Mutex::new(reported),
            ahead: Mutex::new(ReadAhead::default()),
            append: flags & libc::O_APPEND != 0,
            noatime: flags & libc::O_NOATIME != 0,
            locks: HandleLocks::new(losses),
            drops,
        }
    }

    /// The error that this handle still has to report; it counts as reported from now on.
    pub(crate) fn take_error(&self) -> Result<(), Errno> {
        let s = self.file.state.lock();
        let mut reported = self.reported.lock();
        let error = s.failed_since(*reported);
        *reported = s.failures().max(*reported);
        error
    }

    /// The error that this handle still has to report.
    pub(crate) fn error(&self) -> Result<(), Errno> {
        self.file.state.lock().failed_since(*self.reported.lock())
    }
}

/// What a handle refers to.
#[derive(Clone)]
pub(crate) enum Handle {
    File(Arc<FileHandle>),
    Dir(Arc<tokio::sync::Mutex<DirStream>>),
    /// The content of a virtual file, made when it was opened.
    Virtual(Bytes),
    /// `.accesslog`.
    Log(Arc<Reader>),
    /// `.control`.
    Control(Arc<Control>),
    /// A file or directory that was removed, and is gone since the process before this one ended.
    Lost,
}

/// All handles of a mount. Numbers are odd for what only reads, even for what may write.
#[derive(Default)]
pub(crate) struct Handles {
    next: Mutex<u64>,
    map: RwLock<HashMap<u64, (Ino, Handle)>>,
    /// What all `.control` are bounded by.
    pub(crate) control: Arc<Shared>,
}

impl Handles {
    /// New handles get greater numbers than this.
    pub(crate) fn after(last: u64) -> Self {
        Self { next: Mutex::new(last), ..Self::default() }
    }

    /// A handle that the process before this one has given to the kernel.
    pub(crate) fn restore(&self, fh: u64, ino: Ino, handle: Handle) {
        self.map.write().insert(fh, (ino, handle));
    }

    pub(crate) fn add(&self, ino: Ino, handle: Handle) -> u64 {
        let even = matches!(&handle, Handle::File(f) if f.writable);
        let fh = {
            let mut next = self.next.lock();
            *next += 1;
            if next.is_multiple_of(2) != even {
                *next += 1;
            }
            *next
        };
        self.map.write().insert(fh, (ino, handle));
        fh
    }

    pub(crate) fn get(&self, fh: u64) -> Result<Handle, Errno> {
        Ok(self.get_with_inode(fh)?.1)
    }

    pub(crate) fn get_with_inode(&self, fh: u64) -> Result<(Ino, Handle), Errno> {
        self.map.read().get(&fh).cloned().ok_or(Errno::EBADF)
    }

    pub(crate) fn remove(&self, fh: u64) -> Option<(Ino, Handle)> {
        self.map.write().remove(&fh)
    }

    pub(crate) fn all(&self) -> Vec<u64> {
        self.map.read().keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.map.read().len()
    }
}
