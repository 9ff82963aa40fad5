//! Taking a cache directory, and the cache files that are kept open.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode};

use super::file::{self, BlockFile};
use super::way::HeldDir;
use crate::key::BlockId;

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
    /// The open file of a block.
    pub fn get(&self, block: &BlockId) -> Option<Arc<BlockFile>> {
        self.files.get(block).cloned()
    }

    /// Keeps a file open; the one that was opened longest ago may be closed for it.
    pub fn keep(&mut self, block: BlockId, file: Arc<BlockFile>) {
        if self.files.insert(block, file).is_some() {
            return;
        }
        self.order.push_back(block);
        while self.order.len() > MAX_OPEN {
            if let Some(old) = self.order.pop_front() {
                self.files.remove(&old);
            }
        }
    }

    /// Closes a file, once the reads under way are done.
    pub fn forget(&mut self, block: &BlockId) {
        self.files.remove(block);
    }
}
