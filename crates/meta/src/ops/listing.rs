//! Listing directories.

use std::collections::HashSet;

use ciderfs_format::Ino;
use ciderfs_format::edge::{NAME_MAX, is_name};

use super::rights::Ways;
use super::rules::{R, X};
use crate::error::{Errno, Result};
use crate::store::{DirCursor, DirEntry};
use crate::types::{Caller, DirPage};
use crate::volume::Meta;

/// Entries of a page without attributes that are looked at one by one; any more are listed whether they lead anywhere or not.
const LOOKED_AT_MAX: usize = 64;

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
        let _timed = self.timed("Readdir");
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
        let with_attrs = attrs || filtered;
        let (entries, next) = self.retry(|| self.store.list_dir(real, cursor, limit, with_attrs)).await?;
        let mut entries = self.without_bad(real, entries, with_attrs).await?;
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
        if attrs {
            self.holds.found(real, entries.iter().map(|e| e.edge.ino));
            self.known_xattrs.listed(entries.iter().map(|e| e.edge.ino));
        }
        Ok(DirPage { entries, next })
    }

    /// Are directories listed in order of names, so that a listing can go on after any name?
    pub fn lists_in_order(&self) -> bool {
        self.store.lists_in_order()
    }

    /// Leaves out what nobody could use: entries with impossible names, unreadable ones, and those that lead nowhere, as far as
    /// attributes were fetched. One of them must not cost all others.
    async fn without_bad(&self, dir: Ino, entries: Vec<DirEntry>, attrs: bool) -> Result<Vec<DirEntry>> {
        let is_bad = |e: &DirEntry| !is_name(&e.name) || e.edge.ino == DirEntry::UNREADABLE.ino;
        let lost = |e: &&DirEntry| attrs && e.attr.is_none() && !is_bad(e);
        // Attributes that are there and cannot be read are an error of that file.
        let mut missing = HashSet::new();
        for e in entries.iter().filter(lost).take(LOOKED_AT_MAX) {
            if let Err(Errno::ENOENT) = self.getattr_of(e.edge.ino).await.map_err(|e| e.errno()) {
                missing.insert(e.edge.ino);
            }
        }
        let (bad, good): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|e| is_bad(e) || (e.attr.is_none() && missing.contains(&e.edge.ino)));
        if let Some(first) = bad.first() {
            tracing::warn!(
                "directory {dir}: {} damaged entries are left out, among them {:?}, which leads to inode {}",
                bad.len(),
                String::from_utf8_lossy(first.name.get(..NAME_MAX).unwrap_or(&first.name)),
                first.edge.ino
            );
        }
        Ok(good)
    }
}
