//! What the kernel believes although another mount has changed it.
//!
//! The kernel answers lookups from its own cache for a while. Opening a file is where a program may insist on the truth
//! (close-to-open), and an open is all that we see.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::{Caller, Errno, Error, OpenFlags, Result, Version};
use ciderfs_rt::Instant;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::file::File;
use crate::handles::Handle;
use crate::vfs::Vfs;

/// Threads remembered that were told to look again; beyond that one may be told so twice.
const REMEMBERED_MAX: usize = 4096;
/// How long a direct write waits for the kernel to forget the pages under it. What looks direct may have begun as a buffered
/// write whose descriptor has changed since: then the kernel holds those pages until it is answered.
const FORGET_PATIENCE: Duration = Duration::from_millis(100);
/// How long an open waits until the kernel knows that the file has grown. If it takes longer the kernel asks for the length when
/// somebody reads beyond the one it knows.
const GROW_PATIENCE: Duration = Duration::from_secs(1);
/// The kernel comes back at once after it has looked; whoever comes later comes for something else.
const AGAIN: Duration = Duration::from_secs(5);
/// Nodes remembered that a thread has found on its way. Threads of other pid namespaces all have the number 0.
const FOUND_MAX: usize = 16;

/// `O_LARGEFILE` as the kernel knows it; the C library hides it where it is always set.
pub(crate) const LARGEFILE: i32 =
    if cfg!(any(target_arch = "aarch64", target_arch = "arm")) { 0o400_000 } else { 0o100_000 };

/// What the kernel must not believe any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Attributes and cached pages. May be told later: the kernel may wait for pages that requests under way hold.
    Content,
    /// Attributes only. Told before the call that finds out returns.
    Attributes,
}

type Told = Box<dyn Fn(Ino, Stale) + Send + Sync>;
type Forgetter = Box<dyn Fn(Ino, u64, u64) -> BoxFuture<'static, ()> + Send + Sync>;
type Grower = Box<dyn Fn(Growth) -> BoxFuture<'static, bool> + Send + Sync>;

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
        self.waited_for.load(Ordering::Acquire) && self.file.knows(self.version) && !self.file.is_dirty()
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

/// A thread that was told to look again.
#[derive(Debug, Clone)]
struct Look {
    told: Instant,
    /// Of which inode.
    of: Ino,
    /// By which kind of request.
    by: By,
    /// What the names on its way led to when it looked, the latest last.
    found: VecDeque<(Ino, Attr)>,
}

/// Kinds of requests that make a thread look again. What it finds counts for the same kind only: an open must not go by what a
/// `stat` has found some time ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Open,
    Other,
}

/// What a thread is to be told that meets an inode which may not be what its name leads to.
pub(crate) enum Second {
    /// It comes for the first time: `ESTALE`, and the kernel looks the name up again.
    LookAgain,
    /// It has looked, and the name led here: that counts, whatever has happened to the name since. With the attributes that
    /// it found; none if it did not come by a name.
    Meant(Option<Attr>),
}

/// Tells the kernel.
#[derive(Default)]
pub(crate) struct Staleness {
    tell: Mutex<Option<Told>>,
    forget: Mutex<Option<Forgetter>>,
    grow: Mutex<Option<Grower>>,
    /// Threads that were told to look again.
    told: Mutex<HashMap<u32, Look>>,
}

impl Staleness {
    /// A thread meets an inode that is gone, or has no name any more. The kernel has found it under a name that may be
    /// another file's by now, and looks that name up again, once, when it is told so. What the same thread then comes back with is
    /// what it wants: `/proc/self/fd` and the trash lead to such inodes, and so does a name that has changed hands once
    /// more meanwhile.
    pub(crate) fn second(&self, pid: u32, ino: Ino, by: By) -> Second {
        let mut told = self.told.lock();
        let look = told.remove(&pid).filter(|look| look.by == by && look.told.elapsed() < AGAIN);
        if let Some(look) = look {
            let found = look.found.into_iter().rfind(|(found, _)| *found == ino);
            // A damaged entry tells of a node that was never there.
            if let Some((_, attr)) = found.filter(|(_, attr)| attr.nlink > 0) {
                return Second::Meant(Some(attr));
            }
            if look.of == ino {
                return Second::Meant(None);
            }
        }
        if told.len() >= REMEMBERED_MAX {
            told.clear();
        }
        told.insert(pid, Look { told: Instant::now(), of: ino, by, found: VecDeque::new() });
        Second::LookAgain
    }

    /// A thread has opened a file that has a name: it is done.
    pub(crate) fn opened(&self, pid: u32) {
        if pid != 0 {
            self.told.lock().remove(&pid);
        }
    }

    /// A thread has looked a name up.
    pub(crate) fn found(&self, pid: u32, ino: Ino, attr: &Attr) {
        if let Some(look) = self.told.lock().get_mut(&pid) {
            look.told = Instant::now();
            if look.found.len() >= FOUND_MAX {
                look.found.pop_front();
            }
            look.found.push_back((ino, attr.clone()));
        }
    }
}

/// Does an open of the kernel come by a path? It opens a node itself, without this flag, to ask for its attribute flags through an
/// open descriptor.
pub(crate) fn comes_by_path(flags: i32) -> bool {
    flags & LARGEFILE != 0
}

impl Vfs {
    /// A request by path has met an inode that is gone. True if it is to be made again: the thread has looked the name up
    /// before, and the inode is remembered now as it found it then. Otherwise the answer is `ESTALE`.
    pub fn met_gone(&self, c: &Caller, ino: Ino) -> bool {
        let Second::Meant(Some(attr)) = self.stale.second(c.pid, ino, By::Other) else { return false };
        self.meta.depart(ino, &attr);
        true
    }

    /// May a file be opened that the engine lets be opened? One without a name may be found under a name that is another file's
    /// by now.
    pub(crate) fn is_meant(&self, c: &Caller, ino: Ino, attr: &Attr) -> bool {
        if !has_no_name(attr) {
            self.stale.opened(c.pid);
            return true;
        }
        match self.stale.second(c.pid, ino, By::Open) {
            Second::LookAgain => false,
            Second::Meant(found) => {
                if found.is_some_and(|found| !has_no_name(&found)) {
                    self.meta.met_outside(ino);
                }
                true
            }
        }
    }

    /// Answers an open that the engine refuses although the name may lead to another file, or to what another mount has taken
    /// away since this thread looked. Returns the attributes of a file that is gone, to be opened as it was.
    pub(crate) async fn open_refused(
        &self,
        c: &Caller,
        ino: Ino,
        how: OpenFlags,
        refused: Error,
    ) -> Result<Attr> {
        let gone = match refused.errno() {
            Errno::ENOENT => true,
            Errno::EPERM | Errno::EACCES => false,
            _ => return Err(refused),
        };
        // The refused open has just asked for them.
        if !gone {
            let nameless = match self.meta.getattr_within(ino, AGAIN).await {
                Ok((a, _)) => has_no_name(&a) || self.meta.is_in_trash_only(ino, &a).await?,
                Err(_) => false,
            };
            if !nameless {
                return Err(refused);
            }
        }
        match self.stale.second(c.pid, ino, By::Open) {
            Second::LookAgain => Err(Errno::ESTALE.into()),
            Second::Meant(found) if gone => {
                let held = || self.files.get(ino).map(|f| f.state.lock().orphaned());
                let last = found.or_else(held).or_else(|| self.meta.departed(ino)).ok_or(refused)?;
                let last = Attr { nlink: 0, ..last };
                self.meta.open_gone(c, ino, &last, how).await?;
                self.meta.depart(ino, &last);
                Ok(last)
            }
            // Found outside the trash, it is opened as it was there.
            Second::Meant(Some(found)) if !has_no_name(&found) => {
                self.meta.met_outside(ino);
                Ok(self.meta.open(c, ino, how).await?)
            }
            Second::Meant(_) => Err(refused),
        }
    }
}

/// Has a file no name outside the trash?
fn has_no_name(attr: &Attr) -> bool {
    attr.nlink == 0 || attr.parent.is_trash()
}

impl Vfs {
    /// Calls `f` with inodes of which the kernel has cached what is no longer right.
    pub fn set_invalidator(&self, f: Box<dyn Fn(Ino, Stale) + Send + Sync>) {
        *self.stale.tell.lock() = Some(f);
    }

    /// Calls `f` with inodes of which the kernel must forget the attributes and some pages (offset and length in bytes; no
    /// length: all that follow) before the future ends. Not for callers whose request holds pages.
    pub fn set_forgetter(&self, f: Box<dyn Fn(Ino, u64, u64) -> BoxFuture<'static, ()> + Send + Sync>) {
        *self.stale.forget.lock() = Some(f);
    }

    /// Calls `f` with files that have grown elsewhere. If the future ends with true, the kernel knows the length. Not for callers
    /// whose request holds pages.
    pub fn set_grower(&self, f: Box<dyn Fn(Growth) -> BoxFuture<'static, bool> + Send + Sync>) {
        *self.stale.grow.lock() = Some(f);
    }

    /// Tells the kernel that a file which is being opened has changed elsewhere, and has this length.
    ///
    /// It has no way to take a length but along with data or as an answer to its own question. Whoever does not ask, because it
    /// maps the file or sends it somewhere, would miss what has been added; and an answer that is overtaken by the next such
    /// message is thrown away.
    pub(crate) async fn tell_version(self: &Arc<Self>, file: &Arc<File>, version: Version) {
        if let Some(before) = self.told.length(file.ino).filter(|before| *before < version.length)
            && ciderfs_rt::timeout(GROW_PATIENCE, self.grow_cached(file, before, version)).await == Ok(true)
        {
            return;
        }
        self.invalidate(file.ino, Stale::Attributes);
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
        let done = self.stale.grow.lock().as_ref().map(|f| f(growth));
        let told = match done {
            Some(done) => done.await,
            None => false,
        };
        if told {
            self.told.taken(file.ino, version.length);
        }
        told
    }

    pub(crate) async fn forget_cached(&self, ino: Ino) {
        self.forget_pages(ino, 0, 0).await;
    }

    async fn forget_pages(&self, ino: Ino, off: u64, len: u64) {
        let done = self.stale.forget.lock().as_ref().map(|f| f(ino, off, len));
        if let Some(done) = done {
            done.await;
        }
    }

    /// To be called before a direct write is answered: the kernel drops the pages under it before it sends it, but after it
    /// only if the program waits; somebody who reads through the page cache meanwhile would leave old ones there.
    pub async fn written_past_the_cache(&self, fh: u64, off: u64, len: u64) {
        if let Ok(Handle::File(h)) = self.handles.get(fh)
            && h.file.paged.load(Ordering::Relaxed)
        {
            // If it takes longer they are forgotten after the answer.
            _ = ciderfs_rt::timeout(FORGET_PATIENCE, self.forget_pages(h.file.ino, off, len)).await;
        }
    }

    /// A change of content has ended whose caller was told that it failed: the kernel has left its pages as they were.
    pub fn changed_untold(&self, ino: Ino) {
        self.pages.forget(ino);
        self.note_change(ino);
        self.invalidate(ino, Stale::Content);
    }

    /// Has the kernel ask for attributes again that a request has changed without telling so in its answer.
    pub fn attributes_changed(&self, ino: Ino) {
        self.invalidate(ino, Stale::Attributes);
    }

    pub(crate) fn invalidate(&self, ino: Ino, what: Stale) {
        if let Some(f) = &*self.stale.tell.lock() {
            f(ino, what);
        }
    }
}
