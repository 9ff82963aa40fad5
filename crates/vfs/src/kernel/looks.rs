//! Names that the kernel believes although another mount has given them to other files: whoever comes by one is told to look again.
//!
//! The kernel answers lookups from its own cache for a while. Opening a file is where a program may insist on the truth
//! (close-to-open), and an open is all that we see.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::{Caller, Errno, OpenFlags};
use ciderfs_rt::Instant;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::vfs::Vfs;

/// Threads remembered that were told to look again; beyond that one may be told so twice.
const REMEMBERED_MAX: usize = 4096;
/// The kernel comes back at once after it has looked; whoever comes later comes for something else.
const AGAIN: Duration = Duration::from_secs(5);
/// Nodes remembered that a thread has found on its way. Threads of other pid namespaces all have the number 0.
const FOUND_MAX: usize = 16;

/// `O_LARGEFILE` as the kernel knows it; the C library hides it where it is always set.
pub(crate) const LARGEFILE: i32 =
    if cfg!(any(target_arch = "aarch64", target_arch = "arm")) { 0o400_000 } else { 0o100_000 };

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
pub(super) enum By {
    Open,
    Other,
}

/// What a thread is to be told that meets an inode which may not be what its name leads to.
pub(super) enum Second {
    /// It comes for the first time: `ESTALE`, and the kernel looks the name up again.
    LookAgain,
    /// It has looked, and the name led here: that counts, whatever has happened to the name since. With the attributes that
    /// it found; none if it did not come by a name.
    Meant(Option<Attr>),
}

/// Threads that were told to look again.
#[derive(Default)]
pub(super) struct Looks(Mutex<HashMap<u32, Look>>);

impl Looks {
    /// A thread meets an inode that is gone, or has no name any more. The kernel has found it under a name that may be
    /// another file's by now, and looks that name up again, once, when it is told so. What the same thread then comes back with is
    /// what it wants: `/proc/self/fd` and the trash lead to such inodes, and so does a name that has changed hands once
    /// more meanwhile.
    pub(super) fn second(&self, pid: u32, ino: Ino, by: By) -> Second {
        let mut looks = self.0.lock();
        let look = looks.remove(&pid).filter(|look| look.by == by && look.told.elapsed() < AGAIN);
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
        if looks.len() >= REMEMBERED_MAX {
            looks.clear();
        }
        looks.insert(pid, Look { told: Instant::now(), of: ino, by, found: VecDeque::new() });
        Second::LookAgain
    }

    /// A thread has opened a file that has a name, or the name that it has looked up leads nowhere: it is done.
    pub(super) fn done(&self, pid: u32) {
        if pid != 0 {
            self.0.lock().remove(&pid);
        }
    }

    /// A thread has looked a name up.
    pub(super) fn found(&self, pid: u32, ino: Ino, attr: &Attr) {
        if let Some(look) = self.0.lock().get_mut(&pid) {
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
        let Second::Meant(Some(attr)) = self.kernel.looks.second(c.pid, ino, By::Other) else { return false };
        self.meta.depart(ino, &attr);
        true
    }

    /// May a file be opened that the engine lets be opened? One without a name may be found under a name that is another file's
    /// by now.
    pub(crate) fn is_meant(&self, c: &Caller, ino: Ino, attr: &Attr) -> bool {
        if !has_no_name(attr) {
            self.kernel.looks.done(c.pid);
            return true;
        }
        match self.kernel.looks.second(c.pid, ino, By::Open) {
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
                return match refused.errno() {
                    // It may have been refused as one of the trash, and have got a name since.
                    Errno::EPERM => Ok(self.meta.open(c, ino, how).await?),
                    _ => Err(refused),
                };
            }
        }
        match self.kernel.looks.second(c.pid, ino, By::Open) {
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
