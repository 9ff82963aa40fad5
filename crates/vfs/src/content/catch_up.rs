//! What is known of an open file is brought up to what the engine knows.

use ciderfs_format::Ino;
use ciderfs_meta::{Errno, Result, Version};

use crate::content::file::File;
use crate::io::read::OVERTAKEN_MAX;
use crate::vfs::Vfs;

impl Vfs {
    /// Has what is known of an open file be at least what the engine knows now, or this version.
    pub(crate) async fn catch_up(&self, file: &File, enough: Option<Version>) -> Result<()> {
        let mut overtaken = 0;
        loop {
            let _alone = if overtaken >= OVERTAKEN_MAX { Some(file.flushing.lock().await) } else { None };
            file.settled().await;
            if enough.is_some_and(|version| file.version() == version) || self.catch_up_once(file).await? {
                return Ok(());
            }
            overtaken += 1;
        }
    }

    /// Asks the engine for the attributes of an open file; false if something came between.
    async fn catch_up_once(&self, file: &File) -> Result<bool> {
        let as_of = file.as_of();
        match self.meta.getattr(file.ino).await {
            Ok(attr) => Ok(file.learn(&attr, as_of) || file.knows(Version::of(&attr))),
            // Removed meanwhile. Whoever holds it learns so when it reads.
            Err(e) if e.errno() == Errno::ENOENT => {
                file.forget_content();
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }

    /// Finds out what became of a file of which this mount does not know. For the holder of [`File::flushing`].
    pub(crate) async fn catch_up_alone(&self, file: &File) {
        loop {
            match self.catch_up_once(file).await {
                Ok(false) => {}
                Ok(true) => return file.state.lock().settle_claim(),
                // Nothing of what was known is believed any more.
                Err(e) => return tracing::warn!("attributes of inode {}: {e}", file.ino),
            }
        }
    }

    /// [`Vfs::catch_up`] with a file that somebody may have opened while it was changed.
    pub(crate) async fn catch_up_if_open(&self, ino: Ino) {
        if let Some(file) = self.files.get(ino)
            && let Err(e) = self.catch_up(&file, None).await
        {
            tracing::warn!("attributes of inode {ino}: {e}");
            file.forget_content();
        }
    }
}
