//! Commands that make and remove whole trees: `clone` and `rmr` (`docs/format/control.md`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ciderfs_format::{FileType, Ino};
use ciderfs_meta::store::{DirCursor, DirEntry};
use ciderfs_meta::{Caller, CloneOptions, CloneProgress, Errno, Result, SeenNames};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Semaphore;

use super::Progress;
use crate::closing::Change;
use crate::vfs::Vfs;

/// What is asked for where a request does not say it.
const CLONES_AT_ONCE: u8 = 4;
const REMOVALS_AT_ONCE: u8 = 50;
/// The bit of a clone's mode that keeps owners, modes and times.
const PRESERVE: u64 = 2;
/// Entries of a page.
const PAGE: usize = 1000;
/// Directories below one that are emptied at a time.
const DIRS_AT_ONCE: usize = 4;
/// Passes over a directory to which others keep adding.
const PASSES_MAX: usize = 20;
/// Between looks how far a clone is.
const LOOK: Duration = Duration::from_millis(100);

/// The fields of a request, from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, n: usize) -> Result<&'a [u8], Errno> {
        let (field, rest) = self.0.split_at_checked(n).ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(field)
    }

    fn number(&mut self, bytes: usize) -> Result<u64, Errno> {
        Ok(self.bytes(bytes)?.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    fn ino(&mut self) -> Result<Ino, Errno> {
        self.number(8).map(Ino)
    }

    fn name(&mut self) -> Result<&'a [u8], Errno> {
        let length = self.number(1)? as usize;
        self.bytes(length)
    }

    /// A byte that older tools leave out.
    fn byte_or(&mut self, default: u8) -> u8 {
        self.number(1).map_or(default, |n| n as u8)
    }
}

/// Answers a request to clone.
pub(super) async fn clone(vfs: &Arc<Vfs>, c: &Caller, body: &[u8], progress: &Progress) -> Vec<u8> {
    status(try_clone(vfs, c, body, progress).await)
}

/// Answers a request to remove a tree.
pub(super) async fn remove(vfs: &Arc<Vfs>, c: &Caller, body: &[u8], progress: &Progress) -> Vec<u8> {
    status(try_remove(vfs, c, body, progress).await)
}

fn status(result: Result<()>) -> Vec<u8> {
    vec![result.map_or_else(|e| e.errno().0 as u8, |()| 0)]
}

async fn try_clone(vfs: &Arc<Vfs>, c: &Caller, body: &[u8], progress: &Progress) -> Result<()> {
    let mut fields = Fields(body);
    let (from, _, dir) = (fields.ino()?, fields.ino()?, fields.ino()?);
    let (name, umask) = (fields.name()?, fields.number(2)? as u16);
    let preserve = fields.number(1)? & PRESERVE != 0;
    let at_once = usize::from(fields.byte_or(CLONES_AT_ONCE).max(1));
    if from.is_virtual() || dir.is_virtual() || vfs.is_virtual_name(dir, name) {
        return Err(Errno::EPERM.into());
    }
    let options = CloneOptions { preserve, umask, at_once, without_xattrs: None };
    // There is one node at least; until it is known how many there are, this says that somebody is at it.
    progress.set(0, 1);
    // What was written through this mount belongs to what is cloned, whether it is stored already or not.
    match vfs.meta.getattr(from).await?.kind {
        FileType::File => {
            if let Some(file) = vfs.files.get(from) {
                vfs.flush(&file).await?;
            }
        }
        FileType::Directory => vfs.flush_all().await,
        _ => {}
    }
    let counted = Arc::<CloneProgress>::default();
    let tell = || {
        let [done, total] = [&counted.done, &counted.total].map(|n| n.load(Ordering::Relaxed));
        progress.set(done, total.max(done).max(1));
    };
    let mut work = vfs.meta.clone_tree(c, from, dir, name, &options, &counted).boxed();
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            () = ciderfs_rt::sleep(LOOK) => tell(),
        }
    };
    tell();
    let made = result?;
    vfs.done(made, Change::Names).await;
    vfs.done(dir, Change::ByTool(name)).await;
    Ok(())
}

async fn try_remove(vfs: &Arc<Vfs>, c: &Caller, body: &[u8], progress: &Progress) -> Result<()> {
    let mut fields = Fields(body);
    let (dir, name) = (fields.ino()?, fields.name()?);
    let skip_trash = fields.byte_or(0) & 1 != 0;
    let at_once = usize::from(fields.byte_or(REMOVALS_AT_ONCE).max(1));
    if skip_trash && c.uid != 0 {
        return Err(Errno::EPERM.into());
    }
    if matches!(name, b"." | b"..") {
        return Err(Errno::EINVAL.into());
    }
    // Nobody has walked there.
    vfs.meta.check_way_to(c, dir).await?;
    let removal = Arc::new(Removal {
        vfs: Arc::clone(vfs),
        caller: c.clone(),
        skip_trash,
        at_once,
        turns: Semaphore::new(at_once),
        removed: Arc::default(),
    });
    let removed = Arc::clone(&removal.removed);
    let (_, attr) = vfs.meta.lookup(c, dir, name).await?;
    let mut work = match attr.is_dir() {
        true => removal.tree(dir, name.to_vec()),
        false => removal.leaf(dir, name.to_vec()).boxed(),
    };
    let result = loop {
        tokio::select! {
            biased;
            result = &mut work => break result,
            () = ciderfs_rt::sleep(LOOK) => progress.set(removed.load(Ordering::Relaxed), 0),
        }
    };
    progress.set(removed.load(Ordering::Relaxed), 0);
    // Also of what could not be removed whole: the kernel would show what is gone.
    vfs.done(dir, Change::ByTool(name)).await;
    result
}

/// A removal under way; tasks share it.
struct Removal {
    vfs: Arc<Vfs>,
    caller: Caller,
    skip_trash: bool,
    at_once: usize,
    turns: Semaphore,
    removed: Arc<AtomicU64>,
}

impl Removal {
    /// Removes a directory with all that is below it.
    fn tree(self: Arc<Self>, dir: Ino, name: Vec<u8>) -> BoxFuture<'static, Result<()>> {
        async move {
            for _ in 0..PASSES_MAX {
                match self.dir(dir, &name).await {
                    Err(e) if e.errno() == Errno::ENOTEMPTY => {}
                    other => return other,
                }
                let top = match self.vfs.meta.lookup(&self.caller, dir, &name).await {
                    Err(e) if e.errno() == Errno::ENOENT => return Ok(()),
                    other => other?.0,
                };
                Arc::clone(&self).empty(top).await?;
            }
            Err(Errno::ENOTEMPTY.into())
        }
        .boxed()
    }

    /// Removes all entries of a directory. The listing goes on where it was, since an engine that is asked again may have to pass over
    /// what is gone.
    async fn empty(self: Arc<Self>, dir: Ino) -> Result<()> {
        let (mut cursor, mut seen) = (DirCursor::Start, SeenNames::default());
        while cursor != DirCursor::End {
            let page = match self.vfs.meta.list_dir(&self.caller, dir, &cursor, PAGE, true).await {
                Err(e) if e.errno() == Errno::ENOENT => return Ok(()),
                other => other?,
            };
            cursor = page.next;
            let mut fresh = page.entries;
            fresh.retain(|entry| seen.insert(&entry.name));
            let is_dir = |e: &DirEntry| e.edge.kind == FileType::Directory;
            let (dirs, leaves): (Vec<_>, Vec<_>) = fresh.into_iter().partition(is_dir);
            let leaves: Vec<_> =
                leaves.into_iter().map(|e| Arc::clone(&self).leaf(dir, e.name).boxed()).collect();
            stream::iter(leaves).buffer_unordered(self.at_once).try_collect::<Vec<()>>().await?;
            let dirs: Vec<_> = dirs.into_iter().map(|e| Arc::clone(&self).tree(dir, e.name)).collect();
            stream::iter(dirs).buffer_unordered(DIRS_AT_ONCE).try_collect::<Vec<()>>().await?;
        }
        Ok(())
    }

    async fn leaf(self: Arc<Self>, dir: Ino, name: Vec<u8>) -> Result<()> {
        let _turn = self.turns.acquire().await;
        let removed = if self.skip_trash {
            self.vfs.unlink_past_trash(&self.caller, dir, &name).await
        } else {
            self.vfs.unlink(&self.caller, dir, &name).await
        };
        self.count(removed)
    }

    async fn dir(&self, dir: Ino, name: &[u8]) -> Result<()> {
        let _turn = self.turns.acquire().await;
        let removed = if self.skip_trash {
            self.vfs.rmdir_past_trash(&self.caller, dir, name).await
        } else {
            self.vfs.rmdir(&self.caller, dir, name).await
        };
        self.count(removed)
    }

    /// What somebody else has removed is gone as well.
    fn count(&self, removed: Result<()>) -> Result<()> {
        match removed {
            Err(e) if e.errno() == Errno::ENOENT => Ok(()),
            Err(e) => Err(e),
            Ok(()) => {
                self.removed.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

impl Vfs {
    /// [`Vfs::unlink`] for good.
    async fn unlink_past_trash(self: &Arc<Self>, c: &Caller, dir: Ino, name: &[u8]) -> Result<()> {
        let removed = self.meta.unlink_past_trash(c, dir, name).await?;
        self.done(removed.ino, Change::Names).await;
        self.done(dir, Change::Listing).await;
        Ok(())
    }

    /// [`Vfs::rmdir`] for good.
    async fn rmdir_past_trash(self: &Arc<Self>, c: &Caller, dir: Ino, name: &[u8]) -> Result<()> {
        self.meta.rmdir_past_trash(c, dir, name).await?;
        self.done(dir, Change::Listing).await;
        Ok(())
    }
}
