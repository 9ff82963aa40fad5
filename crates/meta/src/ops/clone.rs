//! Clones of files and trees in the metadata: no data moves, the copies share it (`docs/format/inodes-and-attributes.md#clones`).
//!
//! A tree is built where nobody looks: its top has no name and no parent, only a mark by which whoever cleans up finds it
//! (`super::detached`). It gets its name when it is complete, in one commit. A node is copied in one commit, guarded by all that was
//! read of it: what the copy shares is still in use then, and its references are counted in the same commit.
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ciderfs_format::slice::chunk_count;
use ciderfs_format::{Attr, Edge, FileType, Ino, Time};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::detached::Unfinished;
use super::node::{Copying, Item, Lists, Made};
use super::rights::Ways;
use super::rules::{R, W, X, check_new_name};
use crate::error::{Errno, Result};
use crate::proof::Proof;
use crate::seen::SeenNames;
use crate::store::{AttrMask, AttrPatch, DirCursor, DirEntry, Read, StoreError, Value, Write};
use crate::types::Caller;
use crate::volume::Meta;

/// Entries listed at a time.
const PAGE: usize = 1000;
/// Nodes, and lists of slices, of a commit.
const NODES_PER_COMMIT: usize = 100;
const LISTS_PER_COMMIT: usize = 1000;
/// A file of more chunks has its existing lists looked up, so that holes cost nothing.
const PROBED_CHUNKS_MAX: u32 = 4096;
/// Looks at the lists of such a file that somebody keeps changing.
const LOOKS_MAX: usize = 50;
/// How often a tree that is being built is marked again. Marks of a day ago are of clients that died.
const MARKED_EVERY: Duration = Duration::from_secs(300);
/// What is counted of a node that holds no data.
const BLOCK: i64 = 4096;

/// How something is cloned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloneOptions {
    /// Owners, modes and times are those of the source, and names of one file are names of one file again. Otherwise the copy is as if
    /// the caller had made it now.
    pub preserve: bool,
    /// Taken from the modes of what is not preserved.
    pub umask: u16,
    /// Commits under way at a time.
    pub at_once: usize,
    /// Extended attributes whose names begin with this are left out.
    pub without_xattrs: Option<&'static [u8]>,
}

/// How far a clone is.
#[derive(Debug, Default)]
pub struct CloneProgress {
    /// Nodes that were copied.
    pub done: AtomicU64,
    /// Nodes that there were at the beginning.
    pub total: AtomicU64,
}

/// A clone under way; tasks share it.
struct Cloning {
    meta: Arc<Meta>,
    copying: Arc<Copying>,
    progress: Arc<CloneProgress>,
    /// A place for each commit under way.
    turns: Semaphore,
    /// Copies of files with several names. Held while one is made.
    linked: tokio::sync::Mutex<HashMap<Ino, Ino>>,
    /// What the nodes take that were made.
    space: AtomicI64,
    inodes: AtomicI64,
    /// The top, if it has no name yet, and when it was marked, by the steady clock.
    detached: Option<(Ino, Mutex<Duration>)>,
}

impl Meta {
    /// Clones a node, with all that is below it, under a new name. Returns the clone's inode. Dropping the future removes what was
    /// made.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT`, `ENOTDIR`, `EPERM` (the trash, a flag, a device), `EACCES` (what the caller may not read cannot be
    /// cloned), `ENOSPC`, `EDQUOT`, `EROFS`.
    pub async fn clone_tree(
        self: &Arc<Self>,
        c: &Caller,
        from: Ino,
        parent: Ino,
        name: &[u8],
        options: &CloneOptions,
        progress: &Arc<CloneProgress>,
    ) -> Result<Ino> {
        let _timed = self.timed("Clone");
        let (from, dir) = (self.real(from), self.real(parent));
        check_new_name(name)?;
        if from.is_trash() || dir.is_trash() || self.is_reserved(dir, name) {
            return Err(Errno::EPERM.into());
        }
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let source = self.cloned_attr(c, from, dir).await?;
        let copying = Arc::new(Copying::new(c, options, self.settings().dir_stats));
        if !source.is_dir() {
            progress.total.store(1, Ordering::Relaxed);
            let cloning = Cloning::new(self, copying, progress, None);
            let item =
                Item { name: name.to_vec(), from, copy: Ino(self.retry(|| self.inodes.next()).await?) };
            let lists = chunk_count(if source.is_file() { source.length } else { 0 });
            let made = cloning.make(dir, vec![item], lists, true).await?;
            return made.first().map(|made| made.copy).ok_or_else(|| Errno::ENOENT.into());
        }
        self.check_room(&copying, from, dir, progress).await?;
        let (unfinished, top, ctime) = self.begin(&copying, from, (dir, name)).await?;
        let cloning = Cloning::new(self, copying, progress, Some(top));
        let done = async {
            progress.done.fetch_add(1, Ordering::Relaxed);
            fill(&cloning, from, top).await?;
            self.attach(&cloning, (top, ctime), (dir, name)).await
        };
        match done.await {
            Ok(()) => {
                unfinished.done();
                Ok(top)
            }
            Err(e) => {
                unfinished.remove().await;
                Err(e)
            }
        }
    }

    /// Refuses what the caller may not clone, or not there, before any work is done for it. Tells what it is. It is required again
    /// where it is done.
    ///
    /// # Errors
    /// Of [`Meta::clone_tree`] all but those about the name, room and what is below.
    pub async fn may_clone(&self, c: &Caller, from: Ino, parent: Ino) -> Result<FileType> {
        Ok(self.cloned_attr(c, self.real(from), self.real(parent)).await?.kind)
    }

    async fn cloned_attr(&self, c: &Caller, from: Ino, dir: Ino) -> Result<Attr> {
        let source = self.getattr_of(from).await?;
        if source.in_trash() {
            return Err(Errno::EPERM.into());
        }
        self.check_ways(c, from, &source, dir).await?;
        let mask = match source.kind {
            FileType::Directory => R | X,
            FileType::File => R,
            _ => 0,
        };
        self.permit(c, &source, mask).await?;
        let receiving = self.getattr_of(dir).await?;
        if !receiving.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        self.permit(c, &receiving, W | X).await?;
        Ok(source)
    }

    /// Clones what is below a directory into another one, which nobody else uses.
    ///
    /// # Errors
    /// As [`Meta::clone_tree`].
    pub async fn clone_below(
        self: &Arc<Self>,
        c: &Caller,
        from: Ino,
        to: Ino,
        options: &CloneOptions,
        progress: &Arc<CloneProgress>,
    ) -> Result<()> {
        let _timed = self.timed("Clone");
        let copying = Arc::new(Copying::new(c, options, self.settings().dir_stats));
        fill(&Cloning::new(self, copying, progress, None), self.real(from), self.real(to)).await
    }

    /// Nobody has walked to the nodes that a request names by number.
    async fn check_ways(&self, c: &Caller, from: Ino, source: &Attr, dir: Ino) -> Result<()> {
        let mut above = match source.parent {
            _ if self.is_root(from) => Vec::new(),
            Ino(0) => self.dirs_of_names(from).await?,
            parent => vec![parent],
        };
        let below_root = above.is_empty();
        let mut ways = Ways::new(self, c);
        above = ways.leading_in(above).await?;
        if (above.is_empty() && !below_root) || ways.leading_in(vec![dir]).await?.is_empty() {
            return Err(Errno::EACCES.into());
        }
        Ok(())
    }

    async fn dirs_of_names(&self, ino: Ino) -> Result<Vec<Ino>> {
        match self.read(&[Read::Parents(ino)]).await?.pop() {
            Some(Value::Parents(dirs)) => Ok(dirs.into_iter().map(|(dir, _)| dir).collect()),
            _ => Err(StoreError::another_question().into()),
        }
    }

    /// Tells early that there is no room. It is required again where it is taken.
    async fn check_room(
        &self,
        copying: &Copying,
        from: Ino,
        dir: Ino,
        progress: &CloneProgress,
    ) -> Result<()> {
        let (space, inodes) = self.sum_tree(from).await?.amount;
        let (space, inodes) = (space.saturating_add(BLOCK), inodes.saturating_add(1));
        progress.total.store(inodes.max(0) as u64, Ordering::Relaxed);
        let owner = copying.one_owner();
        self.run("Clone", |t| {
            t.charge(owner, space, inodes);
            t.charges.dir(dir, space, inodes);
            t.charges.probe = true;
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Makes the top of a tree, which is removed again if nobody waits for it any more when it is there.
    async fn begin(
        self: &Arc<Self>,
        copying: &Arc<Copying>,
        from: Ino,
        (dir, name): (Ino, &[u8]),
    ) -> Result<(Unfinished, Ino, Time)> {
        let (meta, copying, name) = (Arc::clone(self), Arc::clone(copying), name.to_vec());
        let making = ciderfs_rt::spawn(async move {
            let (top, ctime) = meta.make_top(&copying, from, (dir, &name)).await?;
            Ok((Unfinished::new(&meta, top), top, ctime))
        });
        making.await.map_err(|_| Errno::EIO)?
    }

    /// Makes the top of a tree, without a name. Tells the ctime that it is to have.
    async fn make_top(
        self: &Arc<Self>,
        copying: &Copying,
        from: Ino,
        (dir, name): (Ino, &[u8]),
    ) -> Result<(Ino, Time)> {
        let marked = self.fleet_now();
        let ran = self
            .run("Clone", |t| {
                t.want([
                    Read::Attr(dir),
                    Read::Attr(from),
                    Read::Edge(dir, name.to_vec()),
                    Read::XattrNames(from),
                ])?;
                let p = t.attr(dir, AttrMask::IDENTITY)?;
                self.check_receiving_dir(t, &copying.caller, &p)?;
                if t.edge(dir, name)?.is_some() {
                    return Err(Errno::EEXIST.into());
                }
                let a = t.attr(from, AttrMask::IDENTITY | AttrMask::TIMES)?;
                if !a.is_dir() {
                    return Err(Errno::ENOTDIR.into());
                }
                self.check_access(t, &copying.caller, &a, R | X)?;
                let ino = t.new_inode()?;
                // Without a parent no directory with a quota is above what is built.
                let attr = copying.put(self, t, (from, &a), (ino, Ino(0)), &Lists::default())?;
                // The official client's `gc` takes for lost what nothing leads to and nobody has changed for an hour.
                t.write(Write::PatchAttr(ino, AttrPatch { ctime: Some(t.now), ..AttrPatch::default() }));
                t.write(Write::PutDetached(ino, marked));
                t.proof(Proof::Made(ino));
                Ok((ino, attr.ctime))
            })
            .await?;
        Ok(ran.value)
    }

    /// Gives a tree that is complete its name.
    async fn attach(
        &self,
        cloning: &Cloning,
        (top, ctime): (Ino, Time),
        (dir, name): (Ino, &[u8]),
    ) -> Result<()> {
        let c = &cloning.copying.caller;
        let stats = cloning.copying.stats;
        self.run("Clone", |t| {
            t.want([Read::Attr(dir), Read::Attr(top), Read::Edge(dir, name.to_vec())])?;
            let p = t.attr(dir, AttrMask::IDENTITY)?;
            self.check_receiving_dir(t, c, &p)?;
            // Without its parent: nobody has given it a name, or begun to remove it.
            let a = t.attr(top, AttrMask::PARENT)?;
            if a.parent.0 != 0 {
                return Err(Errno::ENOENT.into());
            }
            if t.edge(dir, name)?.is_some() {
                return Err(Errno::EEXIST.into());
            }
            let edge = Edge { kind: FileType::Directory, ino: top };
            t.write(Write::PutEdge(dir, name.to_vec(), edge));
            let patch = AttrPatch { parent: Some(dir), ctime: Some(ctime), ..AttrPatch::default() };
            t.write(Write::PatchAttr(top, patch));
            t.write(Write::DelDetached(top));
            self.touch_dir(t, dir, &p, 1);
            t.dir_stat(stats, dir, 0, BLOCK, 1);
            t.charges.dir(dir, cloning.space.load(Ordering::Relaxed), cloning.inodes.load(Ordering::Relaxed));
            t.proof(Proof::Attached(top));
            Ok(())
        })
        .await?;
        Ok(())
    }
}

/// Fills a directory, and those in it.
async fn fill(cloning: &Arc<Cloning>, from: Ino, to: Ino) -> Result<()> {
    let mut waiting = vec![(from, to)];
    let mut running = stream::FuturesUnordered::new();
    loop {
        while running.len() < cloning.copying.at_once {
            let Some((from, to)) = waiting.pop() else { break };
            running.push(Box::pin(Arc::clone(cloning).fill_one(from, to)));
        }
        match running.next().await {
            Some(subdirs) => waiting.extend(subdirs?),
            None => return Ok(()),
        }
    }
}

impl Cloning {
    fn new(
        meta: &Arc<Meta>,
        copying: Arc<Copying>,
        progress: &Arc<CloneProgress>,
        detached: Option<Ino>,
    ) -> Arc<Self> {
        Arc::new(Self {
            meta: Arc::clone(meta),
            turns: Semaphore::new(copying.at_once),
            copying,
            progress: Arc::clone(progress),
            linked: tokio::sync::Mutex::default(),
            space: AtomicI64::new(0),
            inodes: AtomicI64::new(0),
            detached: detached.map(|top| (top, Mutex::new(meta.clock.steady()))),
        })
    }

    /// Copies the entries of a directory; of the directories among them no more than themselves, which are told.
    async fn fill_one(self: Arc<Self>, from: Ino, to: Ino) -> Result<Vec<(Ino, Ino)>> {
        let (mut cursor, mut seen, mut dirs) = (DirCursor::Start, SeenNames::default(), Vec::new());
        while cursor != DirCursor::End {
            self.mark_again().await?;
            let page = match self.meta.list_dir(&self.copying.caller, from, &cursor, PAGE, true).await {
                Err(e) if e.errno() == Errno::ENOENT => break,
                other => other?,
            };
            cursor = page.next;
            let mut fresh = page.entries;
            fresh.retain(|entry| seen.insert(&entry.name));
            let (several, single): (Vec<_>, Vec<_>) =
                fresh.into_iter().partition(|e| self.has_several_names(e));
            let batches: Vec<_> =
                batches(single).into_iter().map(|b| Arc::clone(&self).batch(to, b)).collect();
            let mut running = stream::iter(batches).buffer_unordered(self.copying.at_once);
            while let Some(made) = running.try_next().await? {
                dirs.extend(made.into_iter().filter(|made| made.is_dir).map(|made| (made.from, made.copy)));
            }
            for entry in several {
                self.name_of_several(to, entry).await?;
            }
        }
        Ok(dirs)
    }

    fn has_several_names(&self, entry: &DirEntry) -> bool {
        let several = entry.attr.as_ref().is_some_and(|a| a.nlink > 1);
        self.copying.preserve && several && entry.edge.kind != FileType::Directory
    }

    /// Copies entries that share a commit.
    async fn batch(self: Arc<Self>, to: Ino, batch: Batch) -> Result<Vec<Made>> {
        let mut items = Vec::with_capacity(batch.entries.len());
        for entry in batch.entries {
            let copy = Ino(self.meta.retry(|| self.meta.inodes.next()).await?);
            items.push(Item { name: entry.name, from: entry.edge.ino, copy });
        }
        self.make(to, items, batch.most_chunks, false).await
    }

    /// A further name of a file that has its copy already, or the copy.
    async fn name_of_several(&self, to: Ino, entry: DirEntry) -> Result<()> {
        let mut linked = self.linked.lock().await;
        let from = entry.edge.ino;
        if let Some(copy) = linked.get(&from) {
            let edge = Edge { kind: entry.edge.kind, ino: *copy };
            self.meta.link_copy(&self.copying, to, &entry.name, edge).await?;
            let space = entry.attr.as_ref().map_or(BLOCK, |a| a.charged_space() as i64);
            self.space.fetch_add(space, Ordering::Relaxed);
            self.inodes.fetch_add(1, Ordering::Relaxed);
            self.progress.done.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let copy = Ino(self.meta.retry(|| self.meta.inodes.next()).await?);
        let lists = entry.attr.as_ref().filter(|a| a.is_file()).map_or(0, |a| chunk_count(a.length));
        let item = Item { name: entry.name, from, copy };
        for made in self.make(to, vec![item], lists, false).await? {
            linked.insert(made.from, made.copy);
        }
        Ok(())
    }

    /// Makes copies, in one commit. What is gone is left out. `most_chunks`: of the longest file, as it was listed.
    async fn make(&self, to: Ino, items: Vec<Item>, most_chunks: u32, named_now: bool) -> Result<Vec<Made>> {
        let _turn = self.turns.acquire().await.map_err(|_| Errno::EIO)?;
        if most_chunks <= PROBED_CHUNKS_MAX
            && let Some(made) = self.try_make(to, &items, &Lists::default(), named_now).await?
        {
            return Ok(made);
        }
        let mut out = Vec::with_capacity(items.len());
        for item in &items {
            out.extend(self.make_alone(to, item, named_now).await?);
        }
        Ok(out)
    }

    /// Makes a copy for which something is to be looked up first.
    async fn make_alone(&self, to: Ino, item: &Item, named_now: bool) -> Result<Vec<Made>> {
        let item = std::slice::from_ref(item);
        for _ in 0..LOOKS_MAX {
            // Somebody may change the file, or make it that long, after its lists were looked up.
            let lists = self.lists_of(item).await?;
            if let Some(made) = self.try_make(to, item, &lists, named_now).await? {
                return Ok(made);
            }
        }
        Err(Errno::EBUSY.into())
    }

    async fn try_make(
        &self,
        to: Ino,
        items: &[Item],
        lists: &Lists,
        named_now: bool,
    ) -> Result<Option<Vec<Made>>> {
        let made = self.meta.make_copies(&self.copying, to, items, lists, named_now).await?;
        if let Some(made) = &made {
            let nodes = made.len() as u64;
            self.progress.done.fetch_add(nodes, Ordering::Relaxed);
            for node in made {
                self.space.fetch_add(node.space, Ordering::Relaxed);
            }
            self.inodes.fetch_add(nodes as i64, Ordering::Relaxed);
        }
        Ok(made)
    }

    /// The lists that a very long file has, and the file as it was before they were looked up.
    async fn lists_of(&self, items: &[Item]) -> Result<Lists> {
        let mut out = Lists::default();
        for item in items {
            match self.meta.getattr_of(item.from).await {
                Ok(a) if a.is_file() && chunk_count(a.length) > PROBED_CHUNKS_MAX => {
                    let found = self.meta.chunk_indexes(item.from).await?;
                    out.insert(item.from, (a, found));
                }
                Err(e) if e.errno() != Errno::ENOENT => return Err(e),
                _ => {}
            }
        }
        Ok(out)
    }

    /// Says from time to time that somebody is at it.
    async fn mark_again(&self) -> Result<()> {
        let Some((top, marked)) = &self.detached else { return Ok(()) };
        {
            let (mut marked, now) = (marked.lock(), self.meta.clock.steady());
            if now.saturating_sub(*marked) < MARKED_EVERY {
                return Ok(());
            }
            *marked = now;
        }
        self.meta.mark_detached(*top).await
    }
}

/// Entries that share a commit, and the chunks of the longest file among them.
struct Batch {
    entries: Vec<DirEntry>,
    most_chunks: u32,
}

fn batches(entries: Vec<DirEntry>) -> Vec<Batch> {
    let mut out: Vec<Batch> = Vec::new();
    let mut lists = 0_usize;
    for entry in entries {
        let chunks = entry.attr.as_ref().filter(|a| a.is_file()).map_or(0, |a| chunk_count(a.length));
        lists = lists.saturating_add(chunks as usize);
        match out.last_mut() {
            Some(last) if last.entries.len() < NODES_PER_COMMIT && lists <= LISTS_PER_COMMIT => {
                last.entries.push(entry);
                last.most_chunks = last.most_chunks.max(chunks);
            }
            _ => {
                lists = chunks as usize;
                out.push(Batch { entries: vec![entry], most_chunks: chunks });
            }
        }
    }
    out
}
