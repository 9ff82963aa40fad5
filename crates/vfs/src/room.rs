//! Room for writes: what is buffered is held against the limits of the volume and of quotas before it is accepted, so that a
//! full volume is the answer to the write and not to a close much later.

use std::sync::Arc;

use ciderfs_format::align4k;
use ciderfs_meta::{Meta, Result};

use crate::file::{File, State};
use crate::vfs::Vfs;

impl State {
    /// Bytes, in whole blocks, by which the file has grown since its last commit if it ends at `length`.
    fn growth(&self, length: u64) -> u64 {
        align4k(length).saturating_sub(align4k(self.version.length))
    }

    /// Holds room for a file that ends at `length`.
    fn claim(&mut self, meta: &Meta, length: u64) -> Result<()> {
        let bytes = self.growth(length.max(self.attr.length));
        let claim = self.claim.get_or_insert_with(|| meta.claim_room());
        if bytes <= claim.bytes() {
            return Ok(());
        }
        meta.raise_claim(claim, &self.attr, bytes)
    }

    /// Gives back what has been committed or lost.
    pub(crate) fn settle_claim(&mut self) {
        let bytes = self.growth(self.attr.length);
        if let Some(claim) = &mut self.claim {
            claim.lower(bytes);
        }
    }
}

impl Vfs {
    /// Holds room for a write that ends at `end`. Costs a turn only where there seems to be none: others may have made some.
    ///
    /// # Errors
    /// `ENOSPC`, `EDQUOT`; nothing is held more than before.
    pub(crate) async fn make_room(&self, file: &Arc<File>, end: u64) -> Result<()> {
        let attr = {
            let mut s = file.state.lock();
            if s.claim(&self.meta, end).is_ok() {
                return Ok(());
            }
            s.attr.clone()
        };
        self.meta.refresh_room(&attr).await?;
        file.state.lock().claim(&self.meta, end)
    }
}
