//! Who may reach a node where the kernel has checked no path: by its number, or through the trash.
//!
//! The kernel checks each directory that it walks through. Whoever asks about an inode number has walked nowhere, and a name
//! in the trash stands beside names that lay in closed directories. What counts is the way that leads, or led, to the node.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ciderfs_format::edge::trash_entry_parent;
use ciderfs_format::{Attr, Ino};

use super::rules::{R, X, check_access, needs_rule};
use crate::error::{Errno, Result};
use crate::store::{DirEntry, Read, StoreError, Value};
use crate::types::Caller;
use crate::volume::{Meta, synthetic_dir};

/// Directories above a node; a deeper path is a cycle.
pub(super) const DEPTH_MAX: usize = 4096;

/// Directories fetched in one turn: no fewer than a page of a listing can name.
const READS_MAX: usize = 1000;

/// What a caller may do with directories, decided once for each.
pub(super) struct Ways<'a> {
    meta: &'a Meta,
    caller: Caller,
    /// Those that were looked at; `None` is gone.
    attrs: HashMap<Ino, Option<Attr>>,
    /// Does a way of searchable directories, this one included, lead there from the root of the mount?
    reached: HashMap<Ino, bool>,
}

impl Meta {
    /// Refuses a directory that the caller could not walk to from the root of this mount.
    ///
    /// # Errors
    /// `EACCES`; `ENOENT`; those of the engine.
    pub async fn check_way_to(&self, c: &Caller, dir: Ino) -> Result<()> {
        let dir = self.real(dir);
        // What lies in the trash is shown to its superuser, and to others by rules of its own.
        if dir.is_trash() && !self.is_subdir() {
            return Ok(());
        }
        let leads = !Ways::new(self, c).leading_in(vec![dir]).await?.is_empty();
        if leads { Ok(()) } else { Err(Errno::EACCES.into()) }
    }

    /// May the caller search a directory, as far as is known without asking? Of one with an ACL nothing is.
    pub fn seems_searchable(&self, c: &Caller, dir: Ino) -> bool {
        let known = self.beliefs.attr(self.real(dir));
        known.is_some_and(|a| !needs_rule(c, &a) && check_access(c, &a, None, X).is_ok())
    }
}

impl<'a> Ways<'a> {
    pub(super) fn new(meta: &'a Meta, c: &Caller) -> Self {
        let caller = Caller { check: true, ..c.clone() };
        Self { meta, caller, attrs: HashMap::new(), reached: HashMap::new() }
    }

    /// Fetches directories and all that lie above: a turn for each level, or for each [`READS_MAX`] of it.
    async fn fetch(&mut self, dirs: impl Iterator<Item = Ino>) -> Result<()> {
        let mut level: Vec<Ino> = dirs.collect();
        for _ in 0..DEPTH_MAX {
            level.sort_unstable();
            level.dedup();
            level.retain(|dir| !self.attrs.contains_key(dir));
            if level.is_empty() {
                return Ok(());
            }
            let mut above = Vec::new();
            for part in level.chunks(READS_MAX) {
                let reads: Vec<Read> = part.iter().map(|dir| Read::Attr(*dir)).collect();
                for (dir, value) in part.iter().zip(self.meta.read(&reads).await?) {
                    let Value::Attr(attr) = value else { return Err(StoreError::another_question().into()) };
                    let attr = attr.or_else(|| (*dir == Ino::ROOT).then(|| synthetic_dir(*dir)));
                    let is_end = *dir == self.meta.real(Ino::ROOT) || *dir == Ino::ROOT;
                    above.extend(attr.as_ref().filter(|a| !is_end && !a.parent.is_trash()).map(|a| a.parent));
                    self.attrs.insert(*dir, attr);
                }
            }
            level = above;
        }
        Err(Errno::ELOOP.into())
    }

    /// May the caller do this with the directory itself?
    async fn grants(&self, dir: Ino, mask: u8) -> Result<bool> {
        let Some(Some(attr)) = self.attrs.get(&dir) else { return Ok(false) };
        match self.meta.permit(&self.caller, attr, mask).await {
            Ok(()) => Ok(attr.is_dir()),
            Err(e) if e.errno() == Errno::EACCES => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Of directories that were fetched. One that lies in the trash is not reached.
    async fn reaches(&mut self, dir: Ino) -> Result<bool> {
        let (mut at, mut way) = (dir, Vec::new());
        let open = loop {
            if let Some(known) = self.reached.get(&at) {
                break *known;
            }
            if way.len() > DEPTH_MAX {
                break false;
            }
            way.push(at);
            if !self.grants(at, X).await? {
                break false;
            }
            if at == self.meta.real(Ino::ROOT) {
                break true;
            }
            match self.attrs.get(&at) {
                Some(Some(attr)) if at != Ino::ROOT && !attr.parent.is_trash() => at = attr.parent,
                _ => break false,
            }
        };
        // A closed directory closes all that lie below, and these are on the way to it.
        self.reached.extend(way.into_iter().map(|dir| (dir, open)));
        Ok(open)
    }

    /// Of directories that hold a name of a node, those by which the caller may come to it.
    pub(super) async fn leading(&mut self, dirs: Vec<Ino>) -> Result<Vec<Ino>> {
        if self.caller.uid == 0 {
            return Ok(dirs);
        }
        self.leading_in(dirs).await
    }

    /// The same, of what is below the root of this mount: the superuser of a mount of a part gets no further either.
    pub(super) async fn leading_in(&mut self, dirs: Vec<Ino>) -> Result<Vec<Ino>> {
        if self.caller.uid == 0 && !self.meta.is_subdir() {
            return Ok(dirs);
        }
        self.fetch(dirs.iter().copied()).await?;
        let mut out = Vec::new();
        for dir in dirs {
            if self.reaches(dir).await? {
                out.push(dir);
            }
        }
        Ok(out)
    }

    /// May names be told that one of the leading directories holds?
    pub(super) async fn tells_names(&self, dir: Ino) -> Result<bool> {
        Ok(self.caller.uid == 0 || self.grants(dir, R).await?)
    }

    /// Leaves those entries of an hour of the trash that the caller could have read where they were, or that are the caller's
    /// own. Where that directory is gone nobody can say who could.
    pub(super) async fn retain_shown(&mut self, entries: &mut Vec<DirEntry>) -> Result<()> {
        if self.caller.uid == 0 {
            return Ok(());
        }
        let uid = self.caller.uid;
        let is_own = |e: &DirEntry| e.attr.as_ref().is_some_and(|a| a.uid == uid);
        let was_in = |e: &DirEntry| trash_entry_parent(&e.name).filter(|_| !is_own(e));
        self.fetch(entries.iter().filter_map(was_in)).await?;
        let mut readable = HashMap::new();
        for dir in entries.iter().filter_map(was_in) {
            if let Entry::Vacant(unknown) = readable.entry(dir) {
                unknown.insert(self.reaches(dir).await? && self.grants(dir, R).await?);
            }
        }
        entries.retain(|e| is_own(e) || was_in(e).is_some_and(|dir| readable.get(&dir) == Some(&true)));
        Ok(())
    }
}
