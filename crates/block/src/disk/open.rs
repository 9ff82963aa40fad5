//! Taking a cache directory, and the cache files that are kept open.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use ciderfs_format::shown;
use rustix::fs::{FlockOperation, Mode};

use super::dir::CacheDir;
use super::file::{self, BlockFile, FileError};
use super::way::HeldDir;
use crate::key::BlockId;
use crate::stats::count;

/// Processes that may use one cache directory at a time, each with a sibling of its own.
const MAX_SIBLINGS: u32 = 16;
/// Cache files kept open.
const MAX_OPEN: usize = 64;

/// Finds a directory that no other process uses; it gets this mode. The lock goes when the file is closed, also after a crash.
pub(super) fn claim(parent: &Path, mode: Mode) -> std::io::Result<(HeldDir, File)> {
    let parent = HeldDir::open(parent)?;
    parent.let_pass(mode)?;
    for n in 0..MAX_SIBLINGS {
        let name = if n == 0 { "ciderfs".to_owned() } else { format!("ciderfs.{n}") };
        let root = parent.own(&name, mode)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(file::PRIVATE_FILE)
            .open(root.path().join("lock"))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok((root, lock)),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(std::io::Error::other(format!("{MAX_SIBLINGS} processes use this cache directory already")))
}

/// The most recently opened cache files.
#[derive(Default)]
pub(super) struct OpenFiles {
    files: HashMap<BlockId, Arc<BlockFile>>,
    order: VecDeque<BlockId>,
}

impl OpenFiles {
    /// Closes a file, once the reads under way are done.
    pub fn forget(&mut self, block: &BlockId) {
        self.files.remove(block);
    }
}

impl CacheDir {
    /// An open file of the block, from the few that are kept open.
    pub fn opened(&self, block: &BlockId) -> Option<Arc<BlockFile>> {
        self.open.lock().files.get(block).cloned()
    }

    /// Opens the file of a block.
    pub fn open_file(&self, block: &BlockId) -> Result<Arc<BlockFile>, FileError> {
        let file = Arc::new(BlockFile::open(&self.path(block), block)?);
        let mut open = self.open.lock();
        if open.files.insert(*block, file.clone()).is_none() {
            open.order.push_back(*block);
            while open.order.len() > MAX_OPEN {
                if let Some(old) = open.order.pop_front() {
                    open.files.remove(&old);
                }
            }
        }
        drop(open);
        // It may have been evicted meanwhile; then an open file would keep its space.
        if !self.contains(block) {
            self.open.lock().files.remove(block);
        }
        Ok(file)
    }

    /// What to do about a file that could not be used: it goes, the block is downloaded again.
    pub fn read_failed(&self, block: &BlockId, error: &FileError) {
        match error {
            FileError::Io(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            FileError::Io(e) => self.disk_error("read", e),
            FileError::Damaged(what) => {
                tracing::warn!(file = %shown(&self.named(block)), "cache file is damaged ({what}), removed");
                count(&self.counters.corrupt, 1);
            }
        }
        self.remove(block);
    }
}
