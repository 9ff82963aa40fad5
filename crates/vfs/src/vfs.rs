//! A mounted volume: names, handles, reads and writes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use ciderfs_block::BlockStore;
use ciderfs_format::{Attr, FileType, Ino, Time};
use ciderfs_meta::{Caller, Errno, Meta, NewNode, OpenFlags, Result, SetAttr, VolumeStat, set_unrecorded};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::atime::Atimes;
use crate::compact::Compactions;
use crate::dir::{DirItem, DirStream};
use crate::extents::Allocated;
use crate::file::moment;
use crate::files::Files;
use crate::handles::{FileHandle, Handle, Handles};
use crate::internal::start_time;
use crate::links::Trashed;
use crate::locks::HandleLocks;
use crate::metrics::Metrics;
use crate::readahead::ReadAhead;
use crate::remover::BlockRemover;
use crate::stale::{Stale, Staleness};

/// Blocks read ahead by default.
const READAHEAD_BLOCKS: u64 = 8;
/// The kernel's mark of an open for execution (`FMODE_EXEC`), which no program can set.
const EXEC: i32 = 0x20;

/// How a volume is presented.
pub struct VfsConfig {
    /// Bytes to read ahead of a sequential reader; `None` means 8 blocks, 0 turns it off.
    pub max_readahead: Option<u64>,
    /// Leave the virtual files out of listings.
    pub hide_internal: bool,
    /// Virtual files are called `.jfs.stats` and so on.
    pub prefix_internal: bool,
    /// List directories in order of names, held in memory whole.
    pub sort_dir: bool,
    /// What `.config` shows, without secrets.
    pub config_json: serde_json::Value,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

/// A name and what it leads to.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Inode.
    pub ino: Ino,
    /// Attributes.
    pub attr: Attr,
}

/// An open handle.
#[derive(Debug, Clone, Copy)]
pub struct Opened {
    /// Handle number.
    pub fh: u64,
    /// The kernel may keep the pages it has.
    pub keep_cache: bool,
    /// The kernel must not cache pages.
    pub direct_io: bool,
}

/// A mounted volume.
pub struct Vfs {
    pub(crate) meta: Arc<Meta>,
    pub(crate) blocks: Arc<BlockStore>,
    pub(crate) cfg: VfsConfig,
    pub(crate) files: Files,
    pub(crate) handles: Handles,
    pub(crate) dirty: Notify,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Time,
    pub(crate) max_readahead: u64,
    /// Counts local changes in directories that are being listed.
    listed: Mutex<HashMap<Ino, Weak<AtomicU64>>>,
    pub(crate) stale: Staleness,
    flusher: Mutex<Option<tokio::task::JoinHandle<()>>>,
    pub(crate) compactions: Compactions,
    pub(crate) atimes: Atimes,
    atime_task: Mutex<Option<tokio::task::JoinHandle<()>>>,
    /// Blocks of files with holes.
    pub(crate) allocated: Allocated,
    /// Names of files that are in the trash.
    pub(crate) trashed: Trashed,
}

impl Vfs {
    /// Presents `meta`'s volume with the data in `blocks`. Must be called within the runtime.
    pub fn new(meta: Arc<Meta>, blocks: Arc<BlockStore>, cfg: VfsConfig) -> Arc<Self> {
        meta.set_slice_remover(Arc::new(BlockRemover(Arc::clone(&blocks))));
        let default_ahead = READAHEAD_BLOCKS * u64::from(blocks.block_size());
        let atimes = Atimes::new(meta.atime_mode());
        let vfs = Arc::new(Self {
            max_readahead: cfg.max_readahead.unwrap_or(default_ahead).min(blocks.budget().limit() / 4),
            meta,
            blocks,
            files: Files::default(),
            handles: Handles::default(),
            dirty: Notify::new(),
            metrics: Arc::clone(&cfg.metrics),
            cfg,
            started: start_time(),
            listed: Mutex::default(),
            stale: Staleness::default(),
            flusher: Mutex::default(),
            compactions: Compactions::default(),
            atimes,
            atime_task: Mutex::default(),
            allocated: Allocated::default(),
            trashed: Trashed::default(),
        });
        *vfs.flusher.lock() = Some(tokio::spawn(Arc::clone(&vfs).flush_loop()));
        if vfs.atimes.on() {
            *vfs.atime_task.lock() = Some(tokio::spawn(Arc::clone(&vfs).atime_loop()));
        }
        vfs
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Copies figures of other layers into the metrics.
    pub fn update_metrics(&self) {
        let m = &self.metrics;
        m.process();
        let (space, inodes) = self.meta.used();
        m.used_space.set(space as f64);
        m.used_inodes.set(inodes as f64);
        m.open_handles.set(self.handles.len() as f64);
        let b = self.blocks.stats();
        m.buffer_used.set(b.buffer_used as f64);
        m.cache_blocks.set(b.cache_blocks as f64);
        m.cache_bytes.set(b.cache_bytes as f64);
        m.cache_hits.set(b.hits as f64);
        m.cache_hit_bytes.set(b.hit_bytes as f64);
        m.cache_misses.set(b.misses as f64);
        m.cache_miss_bytes.set(b.miss_bytes as f64);
        let c = self.meta.counters();
        m.meta_turns.set(c.turns as f64);
        m.meta_conflicts.set(c.conflicts as f64);
    }

    // ---- names ----

    /// Finds a name.
    pub async fn lookup(&self, c: &Caller, dir: Ino, name: &[u8]) -> Result<Entry> {
        if let Some(e) = self.virtual_entry(dir, name) {
            return Ok(e);
        }
        let since = moment();
        let (ino, attr) = self.meta.lookup(c, dir, name).await?;
        let attr = match self.merged_since(ino, &attr, since) {
            Some(attr) => attr,
            None => self.getattr(ino).await?,
        };
        Ok(Entry { ino, attr })
    }

    /// Makes a node.
    pub async fn create(&self, c: &Caller, dir: Ino, name: &[u8], node: &NewNode<'_>) -> Result<Entry> {
        self.refuse_virtual(dir, name, Errno::EEXIST)?;
        let (ino, attr) = self.meta.create(c, dir, name, node).await?;
        self.changed_dir(dir);
        Ok(Entry { ino, attr })
    }

    /// Makes a regular file and opens it; an existing one is opened unless `exclusive`.
    pub async fn create_open(
        self: &Arc<Self>,
        c: &Caller,
        dir: Ino,
        name: &[u8],
        mode: u16,
        umask: u16,
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        let node = NewNode { kind: FileType::File, mode, umask, rdev: 0, target: b"" };
        match self.create(c, dir, name, &node).await {
            Ok(entry) => {
                self.meta.opened(entry.ino);
                let opened = self.open_handle(entry.ino, &entry.attr, flags, false, None);
                Ok((entry, opened))
            }
            Err(e) if e.errno() == Errno::EEXIST && flags & libc::O_EXCL == 0 => {
                let entry = self.lookup(c, dir, name).await?;
                if !entry.attr.is_file() {
                    return Err(Errno::EEXIST.into());
                }
                let opened = self.open(c, entry.ino, flags).await?;
                Ok((Entry { attr: self.getattr(entry.ino).await?, ..entry }, opened))
            }
            Err(e) => Err(e),
        }
    }

    /// Makes a file without a name in the file system of a directory and opens it (`O_TMPFILE`).
    pub async fn create_nameless(
        self: &Arc<Self>,
        c: &Caller,
        dir: Ino,
        mode: u16,
        umask: u16,
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        let (ino, attr) = self.meta.create_nameless(c, dir, mode, umask).await?;
        let opened = self.open_handle(ino, &attr, flags, false, None);
        Ok((Entry { ino, attr }, opened))
    }

    /// Gives a node another name.
    pub async fn link(&self, c: &Caller, ino: Ino, dir: Ino, name: &[u8]) -> Result<Entry> {
        if ino.is_virtual() {
            return Err(Errno::EPERM.into());
        }
        self.refuse_virtual(dir, name, Errno::EEXIST)?;
        let since = moment();
        let attr = self.meta.link(c, ino, dir, name).await?;
        self.changed_dir(dir);
        let attr = match self.merged_since(ino, &attr, since) {
            Some(attr) => attr,
            None => self.getattr(ino).await?,
        };
        Ok(Entry { ino, attr })
    }

    /// Removes a name.
    pub async fn unlink(&self, c: &Caller, dir: Ino, name: &[u8]) -> Result<()> {
        self.refuse_virtual(dir, name, Errno::EPERM)?;
        self.meta.unlink(c, dir, name).await?;
        self.changed_dir(dir);
        Ok(())
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, c: &Caller, dir: Ino, name: &[u8]) -> Result<()> {
        self.refuse_virtual(dir, name, Errno::EPERM)?;
        self.meta.rmdir(c, dir, name).await?;
        self.changed_dir(dir);
        Ok(())
    }

    /// Renames.
    pub async fn rename(
        &self,
        c: &Caller,
        (sdir, sname): (Ino, &[u8]),
        (ddir, dname): (Ino, &[u8]),
        flags: u32,
    ) -> Result<()> {
        self.refuse_virtual(sdir, sname, Errno::EPERM)?;
        self.refuse_virtual(ddir, dname, Errno::EPERM)?;
        self.meta.rename(c, sdir, sname, ddir, dname, flags).await?;
        self.changed_dir(sdir);
        self.changed_dir(ddir);
        Ok(())
    }

    /// Target of a symbolic link.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let target = self.meta.readlink(ino).await?;
        self.accessed(ino, None);
        Ok(target)
    }

    fn refuse_virtual(&self, dir: Ino, name: &[u8], errno: Errno) -> Result<()> {
        if self.is_virtual_name(dir, name) { Err(errno.into()) } else { Ok(()) }
    }

    // ---- attributes ----

    /// Attributes, with what is not flushed yet.
    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        Ok(self.getattr_within(ino, Duration::ZERO).await?.0)
    }

    /// Attributes for somebody who may believe them for `age`, and how much of that is over; see [`Meta::getattr_within`].
    pub async fn getattr_within(&self, ino: Ino, age: Duration) -> Result<(Attr, Duration)> {
        if let Some(a) = self.virtual_attr_of(ino) {
            return Ok((a, Duration::ZERO));
        }
        let mut elapsed = Duration::ZERO;
        let file = self.files.get(ino);
        let generation = file.as_ref().map_or(0, |f| f.generation());
        let told = self.meta.getattr_within(ino, age).await.map(|(attr, of)| {
            elapsed = of;
            attr
        });
        let attr = match (told, file) {
            (Ok(attr), None) => attr,
            (Ok(attr), Some(file)) => file.refresh(&attr, generation),
            // Whoever still holds a removed node may ask for its attributes, whoever removed it.
            (Err(e), file) if e.errno() == Errno::ENOENT => match (file, self.meta.departed(ino)) {
                (Some(file), _) => file.state.lock().orphaned(),
                (None, Some(attr)) => attr,
                (None, None) => return Err(e),
            },
            (Err(e), _) => return Err(e),
        };
        Ok((self.with_atime(ino, attr), elapsed))
    }

    /// Permission bits and group of a file that is open here, as last seen.
    pub fn mode_of_open(&self, ino: Ino) -> Option<(u16, u32)> {
        self.files.get(ino).map(|file| {
            let s = file.state.lock();
            (s.attr.mode, s.attr.gid)
        })
    }

    /// Changes attributes and, if given, the length.
    pub async fn setattr(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        set: &SetAttr,
        size: Option<u64>,
        fh: Option<u64>,
    ) -> Result<Attr> {
        if let Some(a) = self.virtual_attr_of(ino) {
            return Ok(a);
        }
        let by_handle = match fh.filter(|_| size.is_some()) {
            Some(fh) => match self.handles.get(fh)? {
                // One that only reads has been opened with O_TRUNC.
                Handle::File(h) if !h.writable => false,
                Handle::File(h) => {
                    self.check_locks(&h).await?;
                    true
                }
                _ => false,
            },
            None => false,
        };
        let mut attr = None;
        if let Some(size) = size {
            attr = Some(self.truncate_file(c, ino, size, by_handle).await?);
        }
        let only_size = *set == SetAttr::default();
        if let (true, Some(attr)) = (only_size, &attr) {
            return Ok(attr.clone());
        }
        let file = self.files.get(ino);
        if let Some(file) = file.as_ref().filter(|f| set.mtime.is_some() && f.is_dirty()) {
            // What was written before gets its own time first, or its commit would undo this one.
            self.flush(file).await?;
        }
        if set.atime.is_some() {
            self.forget_access(ino).await;
        }
        let since = moment();
        let after = match self.meta.setattr(c, ino, set).await {
            Err(e) if e.errno() == Errno::ENOENT => {
                if let Some(file) = file {
                    let s = &mut *file.state.lock();
                    set_unrecorded(c, &mut s.attr, set, self.meta.now())?;
                    return Ok(s.orphaned());
                }
                return self.meta.set_departed(c, ino, set).unwrap_or(Err(e));
            }
            other => other?,
        };
        let Some(file) = file else { return Ok(after) };
        {
            let mut s = file.state.lock();
            if s.generation <= since {
                if s.version.1 == after.length {
                    // Only the time was set: the content is still what it was.
                    s.version.0 = after.mtime;
                }
                s.adopt(&after);
                return Ok(s.attr.clone());
            }
        }
        // What was committed meanwhile counts as well.
        self.getattr(ino).await
    }

    /// Checks a permission.
    pub async fn access(&self, c: &Caller, ino: Ino, mask: u8) -> Result<()> {
        if ino.is_virtual() { Ok(()) } else { self.meta.access(c, ino, mask).await }
    }

    /// Size and use of the volume.
    pub async fn statfs(&self) -> Result<VolumeStat> {
        self.meta.statfs().await
    }

    /// Attributes fetched since a moment, with the unflushed data of this mount; `None` if the file has changed since, so that
    /// they may be older than what the kernel knows already.
    pub(crate) fn merged_since(&self, ino: Ino, attr: &Attr, since: u64) -> Option<Attr> {
        let attr = match self.files.get(ino) {
            Some(file) => file.current(attr, since)?,
            None if self.files.left_since(ino, since) => return None,
            None => attr.clone(),
        };
        Some(self.with_atime(ino, attr))
    }

    // ---- files ----

    /// Opens a file.
    pub async fn open(self: &Arc<Self>, c: &Caller, ino: Ino, flags: i32) -> Result<Opened> {
        if Self::is_control(ino) {
            let fh = self.handles.add(ino, Handle::Control(Arc::default()));
            return Ok(Opened { fh, keep_cache: false, direct_io: true });
        }
        if ino.is_virtual() {
            if flags & libc::O_ACCMODE != libc::O_RDONLY {
                return Err(Errno::EACCES.into());
            }
            let content = self.virtual_content(ino);
            let fh = self.handles.add(ino, Handle::Virtual(content));
            return Ok(Opened { fh, keep_cache: false, direct_io: true });
        }
        let access = flags & libc::O_ACCMODE;
        let how = OpenFlags {
            read: access != libc::O_WRONLY && flags & EXEC == 0,
            write: access != libc::O_RDONLY,
            exec: flags & EXEC != 0,
            append: flags & libc::O_APPEND != 0,
            truncate: flags & libc::O_TRUNC != 0,
        };
        // Attributes fetched before a commit of this mount must not undo what the commit told.
        let known = self.files.get(ino).map(|f| f.generation());
        let began = moment();
        let (attr, first) = self.meta.open_looking_in(c, ino, how).await?;
        if self.stale.must_look_again(c.pid, &attr, flags) {
            self.meta.close(ino).await?;
            return Err(Errno::ESTALE.into());
        }
        let keep_cache = self.files.same_as_last_open(ino, &attr);
        if !keep_cache {
            // Close-to-open: the length that the kernel remembers from a lookup would cut the reads that follow.
            self.invalidate(ino, Stale::Attributes);
        } else if how.read && flags & libc::O_NOATIME == 0 && self.accessed(ino, Some(&attr)) {
            // The kernel has the content: reads of it will not be seen here, and it does not look for another access time.
            self.invalidate(ino, Stale::Attributes);
        }
        let opened = self.open_handle(ino, &attr, flags, keep_cache, known);
        if let (Some(view), Some(file)) = (first, self.files.get(ino)) {
            if !self.files.left_since(ino, began) {
                file.state.lock().keep_first_view(known, view);
            }
        }
        if how.truncate
            && let Err(e) = self.truncate_file(c, ino, 0, true).await
        {
            self.release(opened.fh).await;
            return Err(e);
        }
        Ok(opened)
    }

    fn open_handle(&self, ino: Ino, attr: &Attr, flags: i32, keep_cache: bool, known: Option<u64>) -> Opened {
        let file = self.files.open(ino, attr);
        if let Some(generation) = known {
            file.refresh(attr, generation);
        }
        let reported = file.state.lock().failures;
        let handle = FileHandle {
            file,
            writable: flags & libc::O_ACCMODE != libc::O_RDONLY,
            reported: Mutex::new(reported),
            ahead: Mutex::new(ReadAhead::default()),
            append: flags & libc::O_APPEND != 0,
            noatime: flags & libc::O_NOATIME != 0,
            locks: HandleLocks::new(self.meta.lock_loss(ino)),
        };
        let fh = self.handles.add(ino, Handle::File(Arc::new(handle)));
        // What is only appended is not worth the kernel's memory, and its pages would lie where it believes the end to be.
        let appends = flags & libc::O_APPEND != 0 && flags & libc::O_ACCMODE == libc::O_WRONLY;
        Opened { fh, keep_cache: keep_cache && !appends, direct_io: appends }
    }

    /// Reads; short only at the end of the file.
    pub async fn read(self: &Arc<Self>, fh: u64, off: u64, size: u32) -> Result<Vec<Bytes>> {
        match self.handles.get(fh)? {
            Handle::File(h) => {
                let data = self.read_file(&h, off, size).await?;
                if self.atimes.on() && !h.noatime {
                    let attr = h.file.state.lock().attr.clone();
                    self.accessed(h.file.ino, Some(&attr));
                }
                Ok(data)
            }
            Handle::Virtual(content) => {
                let from = (off as usize).min(content.len());
                let to = (from + size as usize).min(content.len());
                Ok(vec![content.slice(from..to)])
            }
            Handle::Control(control) => Ok(vec![control.read(off, size)]),
            Handle::Dir(_) => Err(Errno::EISDIR.into()),
        }
    }

    /// Writes into the buffers.
    pub async fn write(self: &Arc<Self>, fh: u64, off: u64, data: &[u8]) -> Result<u32> {
        let h = match self.handles.get(fh)? {
            Handle::File(h) => h,
            Handle::Control(control) => return control.write(self, data),
            _ => return Err(Errno::EBADF.into()),
        };
        if !h.writable {
            return Err(Errno::EBADF.into());
        }
        self.check_locks(&h).await?;
        self.write_file(&h.file, h.locks.seen, off, data).await?;
        Ok(data.len() as u32)
    }

    /// Writes with `O_APPEND`: to the end of the file, also where another client has moved it and the kernel, whose
    /// `offset` this is, does not know yet.
    pub async fn append(self: &Arc<Self>, fh: u64, offset: u64, data: &[u8]) -> Result<u32> {
        let end = match self.handles.get(fh)? {
            Handle::File(h) => h.file.state.lock().attr.length,
            _ => offset,
        };
        let written = self.write(fh, end, data).await?;
        if end != offset
            && let Ok(Handle::File(h)) = self.handles.get(fh)
        {
            self.invalidate(h.file.ino, Stale::Content);
        }
        Ok(written)
    }

    /// `close` or `fsync`: returns when everything written so far is stored and committed, or with the first error not yet
    /// reported through this handle.
    pub async fn flush_handle(self: &Arc<Self>, fh: u64) -> Result<()> {
        let h = match self.handles.get(fh)? {
            Handle::File(h) => h,
            _ => return Ok(()),
        };
        if h.file.is_dirty() {
            self.flush(&h.file).await?;
        } else if h.writable {
            // A flush that began earlier may still be on its way.
            let _done = h.file.flushing.lock().await;
        }
        Ok(h.take_error()?)
    }

    /// The last reference to a handle is gone.
    pub async fn release(self: &Arc<Self>, fh: u64) {
        let Some((ino, handle)) = self.handles.remove(fh) else { return };
        let h = match handle {
            Handle::File(h) => h,
            Handle::Control(control) => return control.cancel(),
            _ => return,
        };
        if h.file.is_dirty()
            && let Err(e) = self.flush(&h.file).await
        {
            tracing::error!("inode {ino}: {e}");
        }
        self.release_locks(ino, &h).await;
        {
            let s = h.file.state.lock();
            self.files.same_as_last_open(ino, &s.attr);
        }
        self.files.close(ino);
        if let Err(e) = self.meta.close(ino).await {
            tracing::warn!("closing inode {ino}: {e}");
        }
    }

    /// Flushes every file.
    pub async fn flush_all(self: &Arc<Self>) {
        for file in self.files.all() {
            if let Err(e) = self.flush(&file).await {
                tracing::error!("inode {}: {e}", file.ino);
            }
        }
    }

    /// Flushes everything and stops background work.
    pub async fn shutdown(self: &Arc<Self>) {
        if let Some(task) = self.flusher.lock().take() {
            task.abort();
        }
        if let Some(task) = self.atime_task.lock().take() {
            task.abort();
        }
        self.write_atimes().await;
        self.flush_all().await;
        let left: Vec<u64> = self.handles.all();
        for fh in left {
            self.release(fh).await;
        }
        self.compactions.close().await;
        self.blocks.shutdown().await;
    }

    // ---- directories ----

    /// Opens a directory.
    pub async fn opendir(&self, c: &Caller, ino: Ino) -> Result<u64> {
        if c.check {
            self.access(c, ino, 4).await?;
        }
        let changes = {
            let mut listed = self.listed.lock();
            listed.retain(|_, w| w.strong_count() > 0);
            match listed.get(&ino).and_then(Weak::upgrade) {
                Some(a) => a,
                None => {
                    let a = Arc::new(AtomicU64::new(0));
                    listed.insert(ino, Arc::downgrade(&a));
                    a
                }
            }
        };
        let stream = DirStream::new(c.clone(), ino, changes);
        Ok(self.handles.add(ino, Handle::Dir(Arc::new(tokio::sync::Mutex::new(stream)))))
    }

    /// Lists from an offset until `sink` returns true (full).
    pub async fn readdir(
        &self,
        fh: u64,
        offset: u64,
        plus: bool,
        sink: &mut (dyn FnMut(DirItem<'_>) -> bool + Send),
    ) -> Result<()> {
        match self.handles.get(fh)? {
            Handle::Dir(d) => d.lock().await.list(self, offset, plus, sink).await,
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: u64) {
        self.handles.remove(fh);
    }

    /// `.`, `..` and, in the root, the virtual names.
    pub(crate) async fn fixed_entries(&self, dir: Ino) -> Result<Vec<(&'static [u8], Ino, FileType)>> {
        let up = self.meta.parent_of(dir).await?;
        let mut out: Vec<(&'static [u8], Ino, FileType)> =
            vec![(b".", dir, FileType::Directory), (b"..", up, FileType::Directory)];
        if dir == Ino::ROOT && !self.cfg.hide_internal {
            out.extend(self.virtual_names().map(|(name, ino)| (name, ino, FileType::File)));
            if self.meta.shows_trash() {
                out.push((self.meta.trash_name(), Ino::TRASH, FileType::Directory));
            }
        }
        Ok(out)
    }

    fn changed_dir(&self, dir: Ino) {
        if let Some(a) = self.listed.lock().get(&dir).and_then(Weak::upgrade) {
            a.fetch_add(1, Ordering::AcqRel);
        }
    }
}
