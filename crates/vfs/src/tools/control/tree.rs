//! Commands that make and remove whole trees: `clone` and `rmr` (`docs/format/control.md`).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ciderfs_format::{FileType, Ino};
use ciderfs_meta::store::{DirCursor, DirEntry};
use ciderfs_meta::{Caller, CloneOptions, CloneProgress, Errno, SeenNames};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::Semaphore;

use super::Progress;
use crate::closing::Change;
use crate::error::Result;
use crate::vfs::Vfs;

/// What is asked for where a request does not say it.
const CLONES_AT_ONCE: u8 = 4;
const REMOVALS_AT_ONCE: u8 = 50;
/// The bit of a clone's mode that keeps owners, modes and times.
const PRESERVE: u64 = 2;
/// Entries of a page.
const PAGE: usize = 1000;
/// Directories that are listed at a time, of all that are removed by a request.
const DIRS_AT_ONCE: usize = 4;
/// Passes over a directory to which others keep adding.
const PASSES_MAX: usize = 20;
/// Between looks how far a clone or a removal is.
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

/// Waits for work, and tells now and then, and at the end, how far it is.
async fn watched<T>(work: impl Future<Output = T>, tell: impl Fn()) -> T {
    let mut work = Box::pin(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => {
                tell();
                return result;
            }
            () = ciderfs_rt::sleep(LOOK) => tell(),
        }
    }
}

/// What a command does to a name. The kernel hears of it when the command has ended, also where it was given up in the middle:
/// part of it, or all, may be committed.
struct Ending {
    vfs: Arc<Vfs>,
    dir: Ino,
    name: Option<Vec<u8>>,
}

impl Ending {
    fn of(vfs: &Arc<Vfs>, dir: Ino, name: &[u8]) -> Self {
        Self { vfs: Arc::clone(vfs), dir, name: Some(name.to_vec()) }
    }

    async fn end(mut self) {
        if let Some(name) = self.name.take() {
            self.vfs.done(self.dir, Change::ByTool(&name)).await;
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let (Some(name), Ok(runtime)) = (self.name.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let ending = Self { vfs: Arc::clone(&self.vfs), dir: self.dir, name: Some(name) };
        runtime.spawn(ending.end());
    }
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
    // Nobody makes this mount work for what is refused.
    let kind = vfs.meta.may_clone(c, from, dir).await?;
    progress.turn_of_tree().await;
    // What was written through this mount belongs to what is cloned, whether it is stored already or not.
    match kind {
        FileType::File => {
            if let Some(file) = vfs.files.get(from) {
                vfs.flush_stored(&file).await?;
            }
        }
        FileType::Directory => vfs.flush_all_stored().await?,
        _ => {}
    }
    let counted = Arc::<CloneProgress>::default();
    let tell = || {
        let [done, total] = [&counted.done, &counted.total].map(|n| n.load(Ordering::Relaxed));
        progress.set(done, total.max(done).max(1));
    };
    let ending = Ending::of(vfs, dir, name);
    let made = watched(vfs.meta.clone_tree(c, from, dir, name, &options, &counted), tell).await;
    if let Ok(made) = made {
        vfs.done(made, Change::Names).await;
    }
    ending.end().await;
    made?;
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
    progress.turn_of_tree().await;
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
    let work = match attr.is_dir() {
        true => removal.tree(dir, name.to_vec()).boxed(),
        false => removal.leaf(dir, name.to_vec()).boxed(),
    };
    let ending = Ending::of(vfs, dir, name);
    let result = watched(work, || progress.set(removed.load(Ordering::Relaxed), 0)).await;
    // Also of what could not be removed whole: the kernel would show what is gone.
    ending.end().await;
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

/// A directory that is to go: it is tried, emptied if that does not do, and tried again. Those in it go before its next page is
/// listed.
struct Doomed {
    dir: Ino,
    name: Vec<u8>,
    /// The one that it is in, if that is to go as well.
    parent: Option<u64>,
    /// What is in it, and how far that was listed.
    ino: Ino,
    cursor: DirCursor,
    seen: SeenNames,
    passes: usize,
    /// Directories in it that are not gone yet.
    below: usize,
}

impl Doomed {
    fn new(dir: Ino, name: Vec<u8>, parent: Option<u64>) -> Self {
        let (ino, cursor, seen) = (Ino(0), DirCursor::End, SeenNames::default());
        Self { dir, name, parent, ino, cursor, seen, passes: 0, below: 0 }
    }
}

/// What became of a directory.
enum Step {
    Gone,
    /// It holds something: this is its inode.
    Full(Ino),
    /// A page of it was listed, and what it held is gone but for these directories.
    Listed {
        cursor: DirCursor,
        seen: SeenNames,
        dirs: Vec<Vec<u8>>,
    },
}

impl Removal {
    /// Removes a directory with all that is below it. Nothing here calls itself: users choose how deep a tree is.
    async fn tree(self: Arc<Self>, dir: Ino, name: Vec<u8>) -> Result<()> {
        let mut doomed = HashMap::from([(0, Doomed::new(dir, name, None))]);
        let mut ids = 1_u64..;
        // The last comes first, so that not much is begun and not finished.
        let (mut to_try, mut to_list) = (vec![0_u64], Vec::<u64>::new());
        let (mut trying, mut listing) = (0, 0);
        let mut running = stream::FuturesUnordered::new();
        loop {
            while trying < self.at_once
                && let Some(id) = to_try.pop()
            {
                let Some(d) = doomed.get(&id) else { continue };
                trying += 1;
                let work = Arc::clone(&self).try_dir(d.dir, d.name.clone());
                running.push(work.map(move |step| (id, step)).boxed());
            }
            while listing < DIRS_AT_ONCE
                && let Some(id) = to_list.pop()
            {
                let Some(d) = doomed.get_mut(&id) else { continue };
                listing += 1;
                let cursor = std::mem::replace(&mut d.cursor, DirCursor::End);
                let work = Arc::clone(&self).empty_page(d.ino, cursor, std::mem::take(&mut d.seen));
                running.push(work.map(move |step| (id, step)).boxed());
            }
            let Some((id, step)) = running.next().await else { return Ok(()) };
            let step = step?;
            match step {
                Step::Listed { .. } => listing -= 1,
                Step::Gone | Step::Full(_) => trying -= 1,
            }
            let Some(d) = doomed.get_mut(&id) else { continue };
            let mut settled = Some(id);
            match step {
                Step::Gone => {
                    settled = d.parent;
                    doomed.remove(&id);
                    if let Some(parent) = settled.and_then(|id| doomed.get_mut(&id)) {
                        parent.below -= 1;
                    }
                }
                Step::Full(ino) => {
                    if d.passes == PASSES_MAX {
                        return Err(Errno::ENOTEMPTY.into());
                    }
                    d.passes += 1;
                    (d.ino, d.cursor) = (ino, DirCursor::Start);
                }
                Step::Listed { cursor, seen, dirs } => {
                    (d.cursor, d.seen, d.below) = (cursor, seen, dirs.len());
                    let inside = d.ino;
                    for (name, new) in dirs.into_iter().zip(&mut ids) {
                        doomed.insert(new, Doomed::new(inside, name, Some(id)));
                        to_try.push(new);
                    }
                }
            }
            // Of which nothing runs and nothing below it is left.
            if let Some((id, d)) = settled.and_then(|id| doomed.get_mut(&id).map(|d| (id, d)))
                && d.below == 0
            {
                if d.cursor == DirCursor::End {
                    d.seen = SeenNames::default();
                    to_try.push(id);
                } else {
                    to_list.push(id);
                }
            }
        }
    }

    async fn try_dir(self: Arc<Self>, dir: Ino, name: Vec<u8>) -> Result<Step> {
        match self.dir(dir, &name).await {
            Err(e) if e.errno() == Errno::ENOTEMPTY => {}
            other => return other.map(|()| Step::Gone),
        }
        match self.vfs.meta.lookup(&self.caller, dir, &name).await {
            Err(e) if e.errno() == Errno::ENOENT => Ok(Step::Gone),
            other => Ok(Step::Full(other?.0)),
        }
    }

    /// Removes the entries of a page of a directory, but for directories. The listing goes on where it was, since an engine that is
    /// asked again may have to pass over what is gone.
    async fn empty_page(self: Arc<Self>, dir: Ino, cursor: DirCursor, mut seen: SeenNames) -> Result<Step> {
        let page = match self.vfs.meta.list_dir(&self.caller, dir, &cursor, PAGE, true).await {
            Err(e) if e.errno() == Errno::ENOENT => {
                return Ok(Step::Listed { cursor: DirCursor::End, seen, dirs: Vec::new() });
            }
            other => other?,
        };
        let mut fresh = page.entries;
        fresh.retain(|entry| seen.insert(&entry.name));
        let is_dir = |e: &DirEntry| e.edge.kind == FileType::Directory;
        let (dirs, leaves): (Vec<_>, Vec<_>) = fresh.into_iter().partition(is_dir);
        let leaves: Vec<_> =
            leaves.into_iter().map(|e| Arc::clone(&self).leaf(dir, e.name).boxed()).collect();
        stream::iter(leaves).buffer_unordered(self.at_once).try_collect::<Vec<()>>().await?;
        Ok(Step::Listed { cursor: page.next, seen, dirs: dirs.into_iter().map(|e| e.name).collect() })
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
