//! Listing a directory, page by page.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciderfs_format::{Attr, FileType, Ino};
use ciderfs_meta::store::{DirCursor, DirEntry, Name};
use ciderfs_meta::{Caller, Result};

use crate::vfs::Vfs;

/// Entries asked for at a time.
const PAGE: usize = 1000;

/// One listed entry.
#[derive(Debug)]
pub struct DirItem<'a> {
    /// Name.
    pub name: &'a [u8],
    /// Target.
    pub ino: Ino,
    /// Type of the target.
    pub kind: FileType,
    /// Attributes, if asked for, known and current.
    pub attr: Option<&'a Attr>,
    /// Where to go on after this entry.
    pub next_offset: u64,
}

/// The walk of one directory handle. Offsets count entries since the walk began.
pub(crate) struct DirStream {
    caller: Caller,
    ino: Ino,
    cursor: DirCursor,
    /// Entries not yet taken; the first has the number `first`.
    ready: VecDeque<DirEntry>,
    first: u64,
    /// Changes made here in the directory when `ready` was fetched.
    fetched_at: u64,
    /// Names given out, where the engine may repeat them.
    seen: HashSet<Name>,
    pub(crate) changes: Arc<AtomicU64>,
}

impl DirStream {
    pub(crate) fn new(caller: Caller, ino: Ino, changes: Arc<AtomicU64>) -> Self {
        Self {
            caller,
            ino,
            cursor: DirCursor::Start,
            ready: VecDeque::new(),
            first: 0,
            fetched_at: 0,
            seen: HashSet::new(),
            changes,
        }
    }

    fn restart(&mut self) {
        self.cursor = DirCursor::Start;
        self.ready.clear();
        self.first = 0;
        self.seen.clear();
    }

    async fn fetch(&mut self, vfs: &Vfs, attrs: bool) -> Result<()> {
        self.fetched_at = self.changes.load(Ordering::Acquire);
        let page = vfs.meta.list_dir(&self.caller, self.ino, &self.cursor, PAGE, attrs).await?;
        let scan = matches!(page.next, DirCursor::Scan(_)) || matches!(self.cursor, DirCursor::Scan(_));
        self.cursor = page.next;
        for e in page.entries {
            if !scan || self.seen.insert(e.name.clone()) {
                self.ready.push_back(e);
            }
        }
        Ok(())
    }

    /// Lists from `offset` until `sink` says that it is full.
    pub(crate) async fn list(
        &mut self,
        vfs: &Vfs,
        offset: u64,
        plus: bool,
        sink: &mut (dyn FnMut(DirItem<'_>) -> bool + Send),
    ) -> Result<()> {
        let fixed = vfs.fixed_entries(self.ino).await?;
        let mut at = offset;
        while let Some((name, ino, kind)) = fixed.get(at as usize) {
            let item = DirItem { name, ino: *ino, kind: *kind, attr: None, next_offset: at + 1 };
            if sink(item) {
                return Ok(());
            }
            at += 1;
        }
        let mut number = at - fixed.len() as u64;
        if (number == 0 && offset <= fixed.len() as u64 && self.first > 0)
            || number < self.first
            || offset == 0
        {
            self.restart();
        }
        loop {
            while self.first < number && self.ready.pop_front().is_some() {
                self.first += 1;
            }
            if self.ready.is_empty() {
                if self.cursor == DirCursor::End {
                    return Ok(());
                }
                self.fetch(vfs, plus).await?;
                continue;
            }
            // Attributes fetched before a change made here may describe what is no longer so.
            let current = self.changes.load(Ordering::Acquire) == self.fetched_at;
            for e in &self.ready {
                let attr = e.attr.as_ref().filter(|_| plus && current).map(|a| vfs.merged(e.edge.ino, a));
                let item = DirItem {
                    name: &e.name,
                    ino: e.edge.ino,
                    kind: e.edge.kind,
                    attr: attr.as_ref(),
                    next_offset: fixed.len() as u64 + number + 1,
                };
                if sink(item) {
                    return Ok(());
                }
                number += 1;
            }
        }
    }
}
