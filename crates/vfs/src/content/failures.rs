//! What flushing a file has failed with, for its handles to report.

use ciderfs_meta::Errno;

/// Failed flushes so far, and the last one's error. Each handle reports each failure once.
pub(crate) struct Failures {
    count: u64,
    error: Errno,
}

impl Default for Failures {
    fn default() -> Self {
        Self { count: 0, error: Errno::EIO }
    }
}

impl Failures {
    pub(super) fn note(&mut self, error: Errno) {
        self.count += 1;
        self.error = error;
    }

    /// How many there were.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The last one's error, if there were more than so many.
    pub(super) fn since(&self, count: u64) -> Result<(), Errno> {
        if self.count > count { Err(self.error) } else { Ok(()) }
    }
}
