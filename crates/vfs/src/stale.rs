//! What the kernel believes although another mount has changed it.
//!
//! The kernel answers lookups from its own cache for a while. Opening a file is where a program may insist on the truth
//! (close-to-open), and an open is all that we see.

use std::collections::HashSet;

use ciderfs_format::{Attr, Ino};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::vfs::Vfs;

/// Removed inodes remembered; beyond that a program may have to look a name up once more than needed.
const REMEMBERED_MAX: usize = 4096;

/// What the kernel must not believe any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Attributes and cached pages. May be told later: the kernel may wait for pages that requests under way hold.
    Content,
    /// Attributes only. Told before the call that finds out returns.
    Attributes,
}

type Told = Box<dyn Fn(Ino, Stale) + Send + Sync>;
type Forgetter = Box<dyn Fn(Ino) -> BoxFuture<'static, ()> + Send + Sync>;

/// Tells the kernel.
#[derive(Default)]
pub(crate) struct Staleness {
    tell: Mutex<Option<Told>>,
    forget: Mutex<Option<Forgetter>>,
    removed: Mutex<HashSet<Ino>>,
}

impl Staleness {
    /// Is this an open of a file without a name, for the first time? Then the kernel has found it under a name that is another
    /// file's by now, and looks again when it is told so. If it comes back, that was meant: `/proc/self/fd` leads to
    /// such files, and so does the trash.
    pub(crate) fn is_first_open_of_removed(&self, ino: Ino, attr: &Attr) -> bool {
        if attr.nlink > 0 && !attr.parent.is_trash() {
            return false;
        }
        let mut removed = self.removed.lock();
        if removed.len() >= REMEMBERED_MAX {
            removed.clear();
        }
        removed.insert(ino)
    }
}

impl Vfs {
    /// Calls `f` with inodes of which the kernel has cached what is no longer right.
    pub fn set_invalidator(&self, f: Box<dyn Fn(Ino, Stale) + Send + Sync>) {
        *self.stale.tell.lock() = Some(f);
    }

    /// Calls `f` with inodes of which the kernel must forget attributes and pages before the future ends. Not for callers
    /// whose request holds pages.
    pub fn set_forgetter(&self, f: Box<dyn Fn(Ino) -> BoxFuture<'static, ()> + Send + Sync>) {
        *self.stale.forget.lock() = Some(f);
    }

    pub(crate) async fn forget_cached(&self, ino: Ino) {
        let done = self.stale.forget.lock().as_ref().map(|f| f(ino));
        if let Some(done) = done {
            done.await;
        }
    }

    pub(crate) fn invalidate(&self, ino: Ino, what: Stale) {
        if let Some(f) = &*self.stale.tell.lock() {
            f(ino, what);
        }
    }
}
