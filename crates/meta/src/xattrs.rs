//! What is known of extended attributes for a short time.
//!
//! The kernel keeps no extended attributes, but asks for `security.capability` before it lets a file be written and for the
//! ACLs after each refresh of attributes. Answers are believed as long as the kernel believes attributes.
//!
//! Programs that list a directory (`ls -l`, `cp -a`) ask about one entry after the other. What lies ahead in a listing is
//! fetched along, more of it the more they ask.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ciderfs_format::{Attr, Ino};
use ciderfs_rt::Instant;
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use crate::store::Name;

/// Inodes whose names of attributes are kept.
const NAMES_MAX: usize = 16_384;
/// Inodes whose ACL ids are kept.
const ACLS_MAX: usize = 16_384;
/// Pages of listings remembered.
const PAGES_MAX: usize = 8;
/// Inodes whose names are fetched along.
const AHEAD_MAX: usize = 128;

/// A bounded memory of names of extended attributes and of ACL ids.
pub(crate) struct KnownXattrs {
    valid: Duration,
    names: Cache<Ino, (Instant, Arc<[Name]>)>,
    acls: Cache<Ino, (Instant, u32, u32)>,
    pages: Mutex<VecDeque<Page>>,
    /// Changes made by this client; what was fetched before one may be out of date after it.
    changes: AtomicU64,
}

/// Inodes in the order in which they were listed, and how many to fetch at a time.
struct Page {
    inodes: Vec<Ino>,
    window: usize,
}

/// When a fetch began.
#[derive(Clone, Copy)]
pub(crate) struct Began {
    at: Instant,
    changes: u64,
}

impl KnownXattrs {
    /// `valid`: how long to believe; zero never.
    pub(crate) fn new(valid: Duration) -> Self {
        Self {
            valid,
            names: Cache::new(NAMES_MAX),
            acls: Cache::new(ACLS_MAX),
            pages: Mutex::default(),
            changes: AtomicU64::new(0),
        }
    }

    /// Is anything believed at all?
    pub(crate) fn is_on(&self) -> bool {
        !self.valid.is_zero()
    }

    /// To be called before a fetch.
    pub(crate) fn begin(&self) -> Began {
        Began { at: Instant::now(), changes: self.changes.load(Ordering::Acquire) }
    }

    fn is_current(&self, began: Began) -> bool {
        self.is_on() && self.changes.load(Ordering::Acquire) == began.changes
    }

    /// Names of an inode, without those of ACLs.
    pub(crate) fn names(&self, ino: Ino) -> Option<Arc<[Name]>> {
        self.names.get(&ino).filter(|(at, _)| at.elapsed() < self.valid).map(|(_, names)| names)
    }

    /// Remembers fetched names.
    pub(crate) fn learn_names(&self, ino: Ino, names: &[Name], began: Began) {
        if self.is_current(began) {
            self.names.insert(ino, (began.at, names.into()));
        }
    }

    /// Remembers what a listing showed, in its order.
    pub(crate) fn listed(&self, inodes: impl Iterator<Item = Ino>) {
        if !self.is_on() {
            return;
        }
        let page = Page { inodes: inodes.collect(), window: 1 };
        let mut pages = self.pages.lock();
        if pages.len() >= PAGES_MAX {
            pages.pop_front();
        }
        pages.push_back(page);
    }

    /// Inodes that are likely to be asked about after this one, which is the first of them.
    pub(crate) fn ahead(&self, ino: Ino) -> Vec<Ino> {
        let mut pages = self.pages.lock();
        for page in pages.iter_mut().rev() {
            if let Some(at) = page.inodes.iter().position(|i| *i == ino) {
                let rest = page.inodes[at + 1..].iter().copied();
                let unknown = rest.filter(|i| self.names(*i).is_none()).take(page.window - 1);
                let out = std::iter::once(ino).chain(unknown).collect();
                page.window = (page.window * 4).min(AHEAD_MAX);
                return out;
            }
        }
        vec![ino]
    }

    /// Access and default ACL id of an inode.
    pub(crate) fn acls(&self, ino: Ino) -> Option<(u32, u32)> {
        let (at, access, default) = self.acls.get(&ino)?;
        (at.elapsed() < self.valid).then_some((access, default))
    }

    /// Remembers the ACL ids of fetched attributes.
    pub(crate) fn learn_acls(&self, ino: Ino, attr: &Attr, began: Began) {
        if self.is_current(began) {
            self.acls.insert(ino, (began.at, attr.access_acl, attr.default_acl));
        }
    }

    /// To be called before and after a change of an inode's attributes by this client.
    pub(crate) fn forget(&self, ino: Ino) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.names.remove(&ino);
        self.acls.remove(&ino);
    }
}
