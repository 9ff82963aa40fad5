//! Cache files of a directory that are read.

use std::sync::Arc;

use ciderfs_format::shown;

use super::dir::CacheDir;
use super::file::{BlockFile, FileError};
use crate::key::BlockId;
use crate::stats::count;

impl CacheDir {
    /// An open file of the block, from the few that are kept open.
    pub fn opened(&self, block: &BlockId) -> Option<Arc<BlockFile>> {
        self.open.lock().get(block)
    }

    /// Opens the file of a block.
    pub fn open_file(&self, block: &BlockId) -> Result<Arc<BlockFile>, FileError> {
        let file = Arc::new(BlockFile::open(&self.path(block), block)?);
        self.open.lock().keep(*block, file.clone());
        // It may have been evicted meanwhile; then an open file would keep its space.
        if !self.contains(block) {
            self.open.lock().forget(block);
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
