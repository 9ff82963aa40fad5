//! Listing a directory, page by page.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ciderfs_format::{Attr, FileType, Ino};
use ciderfs_handover::Place;
use ciderfs_meta::store::{DirCursor, DirEntry};
use ciderfs_meta::{Caller, Errno, HeldDir, SeenNames};
use ciderfs_rt::Instant;

use crate::content::moment::Moment;
use crate::error::Result;
use crate::vfs::Vfs;

/// Entries asked for at first, and by readers that take their time: attributes are given along only while they are fresh.
const PAGE: usize = 1000;
/// Entries asked for by a reader that has taken the page before while its attributes were fresh.
const PAGE_MAX: usize = 4000;
/// Entries kept behind the reader, so that it can go back to any of them (`seekdir`). Who goes back further reads again from the
/// start.
const KEPT_MAX: u64 = 8_000;
/// Attributes are given along with the name only while they are as fresh as this.
const FRESH: Duration = Duration::from_secs(1);

/// Between opening a directory and listing it, for a program that does just that.
const AT_ONCE: Duration = Duration::from_millis(500);

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
    /// Blocks and names, as in [`Stat`](crate::Stat), if there are attributes.
    pub blocks: u64,
    /// See above.
    pub links: u32,
    /// How old they may be.
    pub age: Duration,
    /// Where to go on after this entry.
    pub next_offset: u64,
}

/// The walk of one directory handle. Offsets count entries since the walk began.
pub(crate) struct DirStream {
    caller: Caller,
    ino: Ino,
    /// `.`, `..` and virtual names, which come first.
    fixed: Option<Vec<(&'static [u8], Ino, FileType)>>,
    cursor: DirCursor,
    /// Where the page fetched last began.
    page_cursor: DirCursor,
    /// Entries at hand; the first has the number `first`.
    ready: VecDeque<DirEntry>,
    first: u64,
    /// Number of the first entry of the page fetched last, and when that was.
    page: (u64, Instant),
    /// That moment, in changes of files.
    moment: Moment,
    /// Changes made here in the directory when that page was fetched.
    fetched_at: u64,
    /// Names given out, where the engine may repeat them.
    seen: SeenNames,
    pub(crate) changes: Arc<AtomicU64>,
    _held: Option<HeldDir>,
    /// When it was opened, and whether anything was fetched since.
    opened: Instant,
    was_listed: bool,
    /// Known to be removed, and held by somebody, when it was opened.
    known_gone: bool,
    /// Where the last answer ended.
    reached: u64,
    /// Where answers of the process before this one began and ended.
    before: Vec<Place>,
}

impl DirStream {
    pub(crate) fn new(
        caller: Caller,
        ino: Ino,
        changes: Arc<AtomicU64>,
        held: Option<HeldDir>,
        known_gone: bool,
    ) -> Self {
        Self {
            caller,
            ino,
            fixed: None,
            cursor: DirCursor::Start,
            page_cursor: DirCursor::Start,
            ready: VecDeque::new(),
            first: 0,
            page: (0, Instant::now()),
            moment: Moment::now(),
            fetched_at: 0,
            seen: SeenNames::default(),
            changes,
            _held: held,
            opened: Instant::now(),
            known_gone,
            was_listed: false,
            reached: 0,
            before: Vec::new(),
        }
    }

    /// Was the directory there when it was opened, as far as that is known? Nobody asks for that then; who lists at once what
    /// is gone has opened it by a name that the kernel remembered.
    pub(crate) fn was_there(&self) -> bool {
        self.was_listed || self.known_gone || self.opened.elapsed() > AT_ONCE
    }

    /// Another process has listed so far.
    pub(crate) fn listed_before(&mut self, places: Vec<Place>) {
        self.before = places;
    }

    /// Where the next process would go on.
    pub(crate) fn place(&self) -> Option<Place> {
        let number = self.reached.checked_sub(self.fixed.as_ref()?.len() as u64)?;
        let last = self.ready.get(number.checked_sub(1)?.checked_sub(self.first)? as usize)?;
        let cursor = if let DirCursor::Scan(at) = self.page_cursor { at } else { 0 };
        Some(Place { offset: self.reached, cursor, name: last.name.clone() })
    }

    /// Makes the entry behind a place the one of that number. What was given out before it may be gone by now: it is not counted,
    /// or a program that removes what it lists would miss as many.
    async fn go_on(&mut self, vfs: &Vfs, number: u64, place: &Place, attrs: bool) -> Result<()> {
        self.restart();
        self.first = number;
        if vfs.cfg.sort_dir {
            self.fetch_sorted(vfs, attrs).await?;
            self.ready.retain(|e| e.name > place.name);
            self.page.0 = number;
        } else if vfs.meta.lists_in_order() {
            self.cursor = DirCursor::After(place.name.clone());
        } else {
            if place.cursor != 0 {
                self.cursor = DirCursor::Scan(place.cursor);
            }
            // It was in one page, which may have been longer.
            let mut looked_at = 0;
            while self.cursor != DirCursor::End && self.ready.len() < 2 * PAGE_MAX {
                self.fetch(vfs, attrs).await?;
                if let Some(at) = self.ready.iter().skip(looked_at).position(|e| e.name == place.name) {
                    self.ready.drain(..=looked_at + at);
                    self.page.0 = number;
                    return Ok(());
                }
                looked_at = self.ready.len();
            }
            // It is gone, and so is probably what was in front of it.
            self.page.0 = number;
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.cursor = DirCursor::Start;
        self.ready.clear();
        self.first = 0;
        self.seen = SeenNames::default();
    }

    #[cfg(test)]
    pub(crate) fn entries_at_hand(&self) -> usize {
        self.ready.len()
    }

    /// Number of the entry after those at hand.
    fn end(&self) -> u64 {
        self.first + self.ready.len() as u64
    }

    async fn fetch(&mut self, vfs: &Vfs, attrs: bool) -> Result<()> {
        self.fetched_at = self.changes.load(Ordering::Acquire);
        let is_quick = self.cursor != DirCursor::Start && self.page.1.elapsed() < FRESH;
        let size = if is_quick { PAGE_MAX } else { PAGE };
        self.page = (self.end(), Instant::now());
        self.page_cursor = self.cursor.clone();
        self.moment = Moment::now();
        let list = async |attrs| vfs.meta.list_dir(&self.caller, self.ino, &self.cursor, size, attrs).await;
        let page = match list(attrs).await {
            // The names may be read, but not what they lead to.
            Err(e) if attrs && e.errno() == Errno::EACCES => list(false).await?,
            other => other?,
        };
        let scan = matches!(page.next, DirCursor::Scan(_)) || matches!(self.cursor, DirCursor::Scan(_));
        self.cursor = page.next;
        self.was_listed = true;
        let files = || page.entries.iter().filter_map(|e| Some((e.edge.ino, e.attr.as_ref()?)));
        vfs.count_listed(files()).await;
        vfs.count_links(files()).await;
        for e in page.entries {
            if !scan || self.seen.insert(&e.name) {
                self.ready.push_back(e);
            }
        }
        Ok(())
    }

    /// The whole directory in order of names, whatever memory that takes.
    async fn fetch_sorted(&mut self, vfs: &Vfs, attrs: bool) -> Result<()> {
        while self.cursor != DirCursor::End {
            self.fetch(vfs, attrs).await?;
        }
        self.page.0 = 0;
        self.ready.make_contiguous().sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(())
    }

    /// Makes the entry of that number the next one at hand, if there is one.
    async fn reach(&mut self, vfs: &Vfs, number: u64, plus: bool) -> Result<()> {
        if number < self.first {
            self.restart();
        }
        while number >= self.end() && self.cursor != DirCursor::End {
            if vfs.cfg.sort_dir {
                self.fetch_sorted(vfs, plus).await?;
                break;
            }
            let behind = number.saturating_sub(KEPT_MAX).saturating_sub(self.first);
            let dropped = self.ready.drain(..(behind as usize).min(self.ready.len())).count();
            self.first += dropped as u64;
            self.fetch(vfs, plus).await?;
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
        if offset == 0 {
            self.restart();
            self.fixed = None;
            if vfs.meta.dir_atime() {
                vfs.accessed(self.ino, None);
            }
        }
        if self.fixed.is_none() {
            self.fixed = Some(vfs.fixed_entries(self.ino).await?);
        }
        let fixed = self.fixed.as_deref().unwrap_or_default();
        let fixed_len = fixed.len() as u64;
        let mut at = offset;
        self.reached = at;
        while let Some((name, ino, kind)) = fixed.get(at as usize) {
            let item = DirItem {
                name,
                ino: *ino,
                kind: *kind,
                attr: None,
                blocks: 0,
                links: 0,
                age: Duration::ZERO,
                next_offset: at + 1,
            };
            if sink(item) {
                return Ok(());
            }
            at += 1;
            self.reached = at;
        }
        let mut number = at - fixed_len;
        let before = std::mem::take(&mut self.before);
        if let Some(place) = before.iter().find(|place| place.offset == offset).filter(|_| number > 0) {
            self.go_on(vfs, number, place, plus).await?;
        }
        loop {
            self.reach(vfs, number, plus).await?;
            if number >= self.end() {
                return Ok(());
            }
            // Attributes fetched before a change made here may describe what is no longer so.
            let (page, when) = self.page;
            let current = self.changes.load(Ordering::Acquire) == self.fetched_at && when.elapsed() < FRESH;
            for e in self.ready.iter().skip((number - self.first) as usize) {
                let attr = e.attr.as_ref().filter(|_| plus && current && number >= page);
                let attr = attr.filter(|a| !vfs.kernel.was_told_newer(e.edge.ino, a));
                let attr = attr.and_then(|a| vfs.tell_since(e.edge.ino, a, self.moment, when));
                if let Some(a) = &attr {
                    vfs.kernel.answered(e.edge.ino, a);
                }
                let (blocks, links) =
                    attr.as_ref().map_or((0, 0), |a| (vfs.blocks(e.edge.ino, a), vfs.links(e.edge.ino, a)));
                let item = DirItem {
                    name: &e.name,
                    ino: e.edge.ino,
                    kind: e.edge.kind,
                    attr: attr.as_ref(),
                    blocks,
                    links,
                    age: when.elapsed(),
                    next_offset: fixed_len + number + 1,
                };
                if sink(item) {
                    return Ok(());
                }
                number += 1;
                self.reached = fixed_len + number;
            }
        }
    }
}
