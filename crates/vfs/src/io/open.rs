//! Files by handle: opening, reading, writing, closing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ciderfs_format::{Attr, Ino};
use ciderfs_handover::Kind;
use ciderfs_meta::{Caller, Errno, OpenFlags, Version};
use ciderfs_rt::Instant;

use crate::closing::Change;
use crate::content::file::File;
use crate::content::moment::Moment;
use crate::error::Result;
use crate::io::carry::Source;
use crate::io::handles::{FileHandle, Handle};
use crate::kernel::looks::comes_by_path;
use crate::kernel::{Drops, Opening, Stale};
use crate::vfs::{Opened, Vfs};

/// The kernel's mark of an open for execution (`FMODE_EXEC`), which no program can set.
const EXEC: i32 = 0x20;

/// How long a direct write waits for the kernel to forget the pages under it. What looks direct may have begun as a buffered
/// write whose descriptor has changed since: then the kernel holds those pages until it is answered.
const FORGET_PATIENCE: Duration = Duration::from_millis(100);

/// A file as an open has found it.
pub(crate) struct Met {
    pub(crate) file: Arc<File>,
    pub(crate) attr: Attr,
    /// What is opened.
    pub(crate) version: Version,
    /// Its record is gone.
    pub(crate) gone: bool,
}

impl Vfs {
    /// Opens a file.
    pub async fn open(self: &Arc<Self>, c: &Caller, ino: Ino, flags: i32) -> Result<Opened> {
        if ino.is_virtual() {
            return self.open_virtual(c, ino, flags).await;
        }
        let access = flags & libc::O_ACCMODE;
        let how = OpenFlags {
            read: access != libc::O_WRONLY && flags & EXEC == 0,
            write: access != libc::O_RDONLY,
            exec: flags & EXEC != 0,
            append: flags & libc::O_APPEND != 0,
            truncate: flags & libc::O_TRUNC != 0,
        };
        let Met { file, attr, version, gone } = match self.open_from_memory(c, ino, how).await? {
            Some(met) => {
                if comes_by_path(flags) {
                    self.kernel.opened(c.pid);
                }
                met
            }
            None => self.open_asking(c, ino, flags, how).await?,
        };
        let opening = self.opens(&file, version, how.read || !how.write).await;
        if opening.drops.is_none()
            && how.read
            && flags & libc::O_NOATIME == 0
            && self.accessed(ino, Some(&attr))
        {
            // The kernel has the content: reads of it will not be seen here, and it does not look for another access time.
            self.done(ino, Change::Unanswered(Stale::Attributes)).await;
        }
        let opened = self.add_handle(file, flags, opening);
        if how.truncate
            && !gone
            && let Err(e) = self.truncate_file(c, ino, 0, true).await
        {
            self.kernel.not_opened(ino);
            self.release(opened.fh).await;
            return Err(e);
        }
        Ok(opened)
    }

    /// Opens a file as the engine knows it now.
    async fn open_asking(self: &Arc<Self>, c: &Caller, ino: Ino, flags: i32, how: OpenFlags) -> Result<Met> {
        // Attributes fetched before a commit of this mount must not undo what the commit told.
        let as_of = self.files.get(ino).map(|f| f.as_of());
        let (asked, began) = (Instant::now(), Moment::now());
        let (attr, first, gone) = match self.meta.open_looking_in(c, ino, how).await {
            Ok((attr, first)) => {
                if comes_by_path(flags) && !self.is_meant(c, ino, &attr) {
                    self.meta.close(ino).await?;
                    return Err(Errno::ESTALE.into());
                }
                (attr, first, false)
            }
            Err(e) if comes_by_path(flags) => {
                self.disbelieve(ino, &e);
                let gone = e.errno() == Errno::ENOENT;
                (self.open_refused(c, ino, how, e.into()).await?, None, gone)
            }
            Err(e) => return Err(e.into()),
        };
        let version = Version::of(&attr);
        let (file, first_handle) = self.files.open(ino, &attr);
        let as_fetched = if first_handle {
            !self.is_overtaken(ino, began)
        } else {
            // What is known of one that is gone may be older than what others have it open with.
            !gone && as_of.is_some_and(|as_of| file.learn(&attr, as_of))
        };
        let enough = Some(version).filter(|_| !first_handle);
        if !as_fetched
            && !gone
            && let Err(e) = self.catch_up(&file, enough).await
        {
            self.files.close(ino);
            self.meta.close(ino).await?;
            return Err(e);
        }
        // Another open may have seen more already.
        let version = if as_fetched { version } else { file.version() };
        if let Some(first) = first.filter(|_| as_fetched) {
            if first_handle {
                self.count_first(ino, &attr, &first);
            }
            file.state.lock().keep_first_view(version, first);
        }
        if as_fetched && !gone {
            self.remember(ino, &attr, asked, began);
        }
        Ok(Met { file, attr, version, gone })
    }

    /// Opens a file that has just been made.
    pub(crate) async fn open_new(&self, ino: Ino, attr: &Attr, flags: i32) -> Opened {
        self.done(ino, Change::Made(attr)).await;
        let (file, _) = self.files.open(ino, attr);
        self.add_handle(file, flags, Opening { drops: Some(Drops::default()), busy: false })
    }

    /// A handle of a file that counts it as open.
    fn add_handle(&self, file: Arc<File>, flags: i32, opening: Opening) -> Opened {
        let keep_cache = opening.drops.is_none();
        let past_pages = self.kernel.reads_past_pages(&opening);
        let ino = file.ino;
        let reported = file.state.lock().failures();
        let losses = self.losses(ino);
        let handle = FileHandle::new(file, flags, reported, losses, opening.drops.unwrap_or_default());
        // What is only appended is not worth the kernel's memory, and its pages would lie where it believes the end to be.
        let appends = flags & libc::O_APPEND != 0 && flags & libc::O_ACCMODE == libc::O_WRONLY;
        let reads = flags & libc::O_ACCMODE == libc::O_RDONLY && flags & EXEC == 0;
        let direct_io = appends || (reads && past_pages);
        if keep_cache || !(direct_io || flags & libc::O_DIRECT != 0) {
            handle.file.kernel.gets_pages();
        }
        let fh = self.handles.add(ino, Handle::File(Arc::new(handle)));
        self.carry.opened(Kind::File, fh, ino, flags, 0);
        Opened { fh, keep_cache: keep_cache && !direct_io, direct_io }
    }

    /// The kernel uses a handle.
    fn used(&self, h: &FileHandle) {
        self.kernel.used(h.file.ino, &h.drops);
    }

    /// Reads, short only at the end of the file; into the kernel's pages (`paged`) or past them.
    pub async fn read(self: &Arc<Self>, fh: u64, off: u64, size: u32, paged: bool) -> Result<Vec<Bytes>> {
        match self.handles.get(fh)? {
            Handle::File(h) => {
                self.used(&h);
                if paged {
                    h.file.kernel.gets_pages();
                }
                let data = self.read_file(&h, off, size).await?;
                let got: usize = data.iter().map(Bytes::len).sum();
                if paged && got < size as usize {
                    self.kernel.has_read_to(h.file.ino, off + got as u64);
                }
                if self.atimes.on() && !h.noatime {
                    let attr = h.file.attr();
                    self.accessed(h.file.ino, Some(&attr));
                }
                Ok(data)
            }
            Handle::Virtual(content) => {
                let from = (off as usize).min(content.len());
                let to = (from + size as usize).min(content.len());
                Ok(vec![content.slice(from..to)])
            }
            Handle::Log(reader) => Ok(vec![reader.read(size as usize).await]),
            Handle::Control(control) => Ok(vec![control.read(off, size)]),
            Handle::Dir(_) => Err(Errno::EISDIR.into()),
            Handle::Lost => Err(Errno::ESTALE.into()),
        }
    }

    /// Writes into the buffers.
    pub async fn write(self: &Arc<Self>, fh: u64, off: u64, data: &[u8]) -> Result<u32> {
        self.write_handle(fh, Some(off), data, 0).await?;
        Ok(data.len() as u32)
    }

    /// Writes with `O_APPEND`: to the end of the file, also where another client has moved it or does so before this is
    /// committed. `offset` is where the kernel believes the end to be.
    pub async fn append(self: &Arc<Self>, fh: u64, offset: u64, data: &[u8]) -> Result<u32> {
        self.append_once(fh, offset, data, 0).await
    }

    /// [`Vfs::append`] for a request with this number, by which [`Vfs::has_appended`] tells it from a new one should the kernel send
    /// it again to the next process.
    pub async fn append_once(
        self: &Arc<Self>,
        fh: u64,
        offset: u64,
        data: &[u8],
        unique: u64,
    ) -> Result<u32> {
        let at = self.write_handle(fh, None, data, unique).await?;
        if at.is_some_and(|at| at != offset)
            && let Ok(Handle::File(h)) = self.handles.get(fh)
        {
            let stale = if h.file.kernel.may_have_pages() { Stale::Content } else { Stale::Attributes };
            self.done(h.file.ino, Change::Unanswered(stale)).await;
        }
        Ok(data.len() as u32)
    }

    /// Where a write to a file begins.
    async fn write_handle(
        self: &Arc<Self>,
        fh: u64,
        off: Option<u64>,
        data: &[u8],
        unique: u64,
    ) -> Result<Option<u64>> {
        let h = match self.handles.get(fh)? {
            Handle::File(h) => h,
            Handle::Lost => return Err(Errno::ESTALE.into()),
            _ => return Err(Errno::EBADF.into()),
        };
        if !h.writable {
            return Err(Errno::EBADF.into());
        }
        self.used(&h);
        self.check_locks(&h).await?;
        self.write_file(&h.file, h.locks.losses, off, data, Source::new(unique)).await.map(Some)
    }

    /// To be called before a direct write is answered: the kernel drops the pages under it before it sends it, but after it
    /// only if the program waits; somebody who reads through the page cache meanwhile would leave old ones there.
    pub async fn written_past_the_cache(&self, fh: u64, off: u64, len: u64) {
        if let Ok(Handle::File(h)) = self.handles.get(fh)
            && h.file.kernel.may_have_pages()
        {
            // If it takes longer they are forgotten after the answer.
            _ = ciderfs_rt::timeout(FORGET_PATIENCE, self.kernel.forget(h.file.ino, off, len)).await;
        }
    }

    /// `fsync`: returns when everything written so far is stored and committed, or with the last error not yet reported by it
    /// through this handle.
    ///
    /// # Errors
    /// What writing has failed with, once.
    pub async fn fsync(self: &Arc<Self>, fh: u64) -> Result<()> {
        match self.handles.get(fh)? {
            Handle::File(h) => {
                self.flush_handle(&h).await?;
                let error = h.take_error();
                if error.is_err() {
                    self.carry.reported(fh);
                }
                Ok(error?)
            }
            Handle::Lost => Err(Errno::ESTALE.into()),
            _ => Ok(()),
        }
    }

    /// `close` of a descriptor, as [`Vfs::fsync`]; but several descriptors may share the handle (`dup`, `fork`), and who closes
    /// one, as every child does that runs another program, must not keep the error from who syncs another.
    pub(crate) async fn flush_descriptor(self: &Arc<Self>, fh: u64) -> Result<()> {
        match self.handles.get(fh)? {
            Handle::File(h) => {
                self.flush_handle(&h).await?;
                Ok(h.error()?)
            }
            _ => Ok(()),
        }
    }

    /// Waits until everything written so far is stored and committed, or has failed.
    async fn flush_handle(self: &Arc<Self>, h: &FileHandle) -> Result<()> {
        self.used(h);
        if h.file.is_dirty() {
            self.flush(&h.file).await?;
        } else if h.writable {
            // A flush that began earlier may still be on its way.
            let _done = h.file.flushing.lock().await;
        }
        Ok(())
    }

    /// The last reference to a handle is gone.
    pub async fn release(self: &Arc<Self>, fh: u64) {
        self.release_handle(fh).await;
        // Not before: should this process end here, the kernel asks the next one.
        self.carry.closed(fh);
    }

    async fn release_handle(self: &Arc<Self>, fh: u64) {
        let Some((ino, handle)) = self.handles.remove(fh) else { return };
        let h = match handle {
            Handle::File(h) => h,
            Handle::Control(control) => return control.cancel(),
            _ => return,
        };
        // Not used: the kernel may have given up the open.
        if h.file.is_dirty()
            && let Err(e) = self.flush(&h.file).await
        {
            tracing::error!("inode {ino}: {e}");
        }
        self.release_locks(ino, &h).await;
        self.remember_views(&h.file);
        self.files.close(ino);
        if let Err(e) = self.meta.close(ino).await {
            tracing::warn!("closing inode {ino}: {e}");
        }
    }
}
