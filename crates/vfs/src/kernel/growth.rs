//! Having the kernel know that a file has grown elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ciderfs_format::Ino;
use ciderfs_meta::Version;

use crate::content::file::File;
use crate::kernel::Stale;
use crate::vfs::Vfs;

/// How long an open waits until the kernel knows that the file has grown. If it takes longer the kernel asks for the length when
/// somebody reads beyond the one it knows.
const GROW_PATIENCE: Duration = Duration::from_secs(1);
/// Attempts to tell the length of a file that goes on changing.
const ATTEMPTS_MAX: u32 = 3;

/// A file that has grown elsewhere, of which the kernel is to be told.
pub struct Growth {
    /// Inode.
    pub ino: Ino,
    /// The least length that the kernel may believe. Its pages from there on end too early.
    pub before: u64,
    /// Offset of the last byte.
    pub at: u64,
    /// The last byte.
    pub last: u8,
    file: Arc<File>,
    version: Version,
    waited_for: Arc<AtomicBool>,
}

impl Growth {
    /// Is the byte still what is there, and does somebody wait for it? Otherwise it must not be told.
    pub fn is_current(&self) -> bool {
        self.waited_for.load(Ordering::Acquire)
            && self.file.knows(self.version)
            && !self.file.has_written(self.at)
    }
}

/// Ends a wait, however it ends.
struct Waiting(Arc<AtomicBool>);

impl Default for Waiting {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Vfs {
    /// Tells the kernel that a file which is being opened has changed elsewhere, and has this length.
    ///
    /// It has no way to take a length but along with data or as an answer to its own question. Whoever does not ask, because it
    /// maps the file or sends it somewhere, would miss what has been added; and an answer that is overtaken by the next such
    /// message is thrown away.
    pub(super) async fn tell_version(self: &Arc<Self>, file: &Arc<File>, version: Version) {
        if ciderfs_rt::timeout(GROW_PATIENCE, self.tell_growth(file, version)).await != Ok(true) {
            self.kernel.invalidate(file.ino, Stale::Attributes);
        }
    }

    /// False if the file has not grown, as far as the kernel knows, or if it cannot be told.
    async fn tell_growth(self: &Arc<Self>, file: &Arc<File>, mut version: Version) -> bool {
        for _ in 0..ATTEMPTS_MAX {
            let before = self.kernel.told.length(file.ino).filter(|before| *before < version.length);
            let Some(before) = before else { return false };
            if self.grow_cached(file, before, version).await {
                return true;
            }
            // Changed once more meanwhile: then that length is told.
            file.settled().await;
            if file.knows(version) {
                return false;
            }
            version = file.version();
        }
        false
    }

    async fn grow_cached(self: &Arc<Self>, file: &Arc<File>, before: u64, version: Version) -> bool {
        let at = version.length - 1;
        let Some(last) = self.byte_of(file, at).await else { return false };
        let waiting = Waiting::default();
        let growth = Growth {
            ino: file.ino,
            before,
            at,
            last,
            file: Arc::clone(file),
            version,
            waited_for: Arc::clone(&waiting.0),
        };
        let Some(kernel) = self.kernel.kernel() else { return false };
        let is_told = kernel.grow(growth).await;
        if is_told {
            self.kernel.told.taken(file.ino, version.length);
        }
        is_told
    }
}
