//! Listing directories.

use ciderfs_format::Ino;

use super::rights::Ways;
use super::rules::{R, X};
use crate::error::{Errno, Result};
use crate::store::DirCursor;
use crate::types::{Caller, DirPage};
use crate::volume::Meta;

impl Meta {
    /// One page of a directory, about `limit` entries. An hour of the trash shows others than the superuser what they could
    /// see where it was.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES` (of a caller that is checked here).
    pub async fn list_dir(
        &self,
        c: &Caller,
        dir: Ino,
        cursor: &DirCursor,
        limit: usize,
        attrs: bool,
    ) -> Result<DirPage> {
        let real = self.real(dir);
        if c.check {
            let a = self.getattr(dir).await?;
            if !a.is_dir() {
                return Err(Errno::ENOTDIR.into());
            }
            self.permit(c, &a, R | if attrs { X } else { 0 }).await?;
        }
        let began = self.known_xattrs.begin();
        // Who owns what decides about who sees it there.
        let filtered = real.is_trash_hour() && c.uid != 0;
        let (mut entries, next) =
            self.retry(|| self.store.list_dir(real, cursor, limit, attrs || filtered)).await?;
        if filtered {
            Ways::new(self, c).retain_shown(&mut entries).await?;
            if !attrs {
                entries.iter_mut().for_each(|e| e.attr = None);
            }
        }
        for e in &entries {
            if let Some(attr) = &e.attr {
                self.beliefs.set_attr(e.edge.ino, Some(attr.clone()));
                if self.has_acls() {
                    self.known_xattrs.learn_acls(e.edge.ino, attr, began);
                }
            }
        }
        if attrs && real.is_trash() {
            self.holds.found(entries.iter().map(|e| e.edge.ino));
        }
        if attrs {
            self.known_xattrs.listed(entries.iter().map(|e| e.edge.ino));
        }
        Ok(DirPage { entries, next })
    }
}
