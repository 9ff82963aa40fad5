//! Writing: buffering, uploading, committing.

use std::sync::Arc;
use std::time::Duration;

use ciderfs_block::{BlockError, BudgetKind, Permit};
use ciderfs_format::slice::MAX_FILE_SIZE;
use ciderfs_format::{CHUNK_SIZE, SliceId, Time};
use ciderfs_meta::{Clock as _, Errno, NewSlice, SystemClock};

use crate::closing::{Change, Commit};
use crate::content::file::{File, UnderWay};
use crate::content::moment::Moment;
use crate::content::pending::Pending;
use crate::error::{Error, Result};
use crate::io::carry::{LogPlace, Source};
use crate::io::locks::Losses;
use crate::vfs::Vfs;

/// A slice is committed at this age,
const AGE_MAX: Duration = Duration::from_secs(5);
/// or when nothing was written into it for this long.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// How often open files are looked at.
const SCAN_INTERVAL: Duration = Duration::from_millis(200);
/// Unflushed slices of one file above which it is flushed.
const PENDING_MAX: usize = 512;

impl Vfs {
    /// Buffers a write at an offset, or at the end of the file (`None`), and returns where it begins. Waits only while uploads lag
    /// behind or the memory budget is exhausted.
    ///
    /// The end may be elsewhere by the time of the commit, if another client appends as well: then the data goes there.
    pub(crate) async fn write_file(
        self: &Arc<Self>,
        file: &Arc<File>,
        losses: Losses,
        offset: Option<u64>,
        data: &[u8],
        mut source: Source,
    ) -> Result<u64> {
        let mut at = offset.unwrap_or_else(|| file.state.lock().attr().length);
        let Some(end) = at.checked_add(data.len() as u64).filter(|end| *end < MAX_FILE_SIZE) else {
            return Err(Errno::EFBIG.into());
        };
        let _room = self.make_room(file, offset, data.len() as u64).await?;
        if offset.is_some() && !data.is_empty() {
            let (moving, beyond) = {
                let s = file.state.lock();
                (s.slices().iter().any(|p| p.append && p.overlaps(at, end)), at > s.attr().length)
            };
            if moving {
                // Only a commit tells where those bytes are, which are to be overwritten.
                self.flush(file).await?;
            }
            if beyond {
                self.allocated.suspect(file.ino);
            }
        }
        let mut begins = None;
        let mut rest = data;
        while !rest.is_empty() {
            // What is appended stays in one piece, wherever chunks end: nothing may come between.
            let most = if offset.is_some() { CHUNK_SIZE - at % CHUNK_SIZE } else { CHUNK_SIZE };
            let n = rest.len().min(most as usize);
            let put = self.write_piece(file, losses, offset.map(|_| at), &rest[..n], &mut source).await?;
            begins = begins.or(Some(put));
            at = put + n as u64;
            rest = &rest[n..];
        }
        if source.is_unlogged {
            // Longer than the log: it is safe once it is stored.
            self.flush(file).await?;
        }
        Ok(begins.unwrap_or(at))
    }

    /// Writes what goes into one slice. Returns where.
    async fn write_piece(
        self: &Arc<Self>,
        file: &Arc<File>,
        losses: Losses,
        offset: Option<u64>,
        data: &[u8],
        source: &mut Source,
    ) -> Result<u64> {
        if source.again.is_none() {
            // What was buffered before is buffered again, also while the store is away.
            self.blocks.upload_room().await;
        }
        let mut permit = Some(self.reserve(file, data.len() as u64).await);
        let mut log = self.log_place(file, data.len(), source).await;
        let mut id = None;
        loop {
            if let Some((at, flush)) = self.buffer(file, losses, offset, data, (&mut permit, &mut log), id)? {
                self.dirty.notify_one();
                if flush {
                    self.flush_in_background(file);
                }
                return Ok(at);
            }
            id = Some(self.meta.new_slice_id().await?);
        }
    }

    /// Puts data into a slice; `None` if a new slice is needed and there is no id for it. Returns where it is in the file, and
    /// whether to flush now. Refused if locks on the file were lost since there were so many `losses`.
    fn buffer(
        &self,
        file: &File,
        losses: Losses,
        offset: Option<u64>,
        data: &[u8],
        (permit, log): (&mut Option<Permit>, &mut LogPlace<'_>),
        id: Option<SliceId>,
    ) -> Result<Option<(u64, bool)>> {
        let now = SystemClock.now();
        let mut s = file.state.lock();
        if self.losses(file.ino) > losses {
            return Err(Error::LOCK_LOST);
        }
        let (at, append) = (offset.unwrap_or(s.attr().length), offset.is_none());
        let index = match s.find_slice(losses, at, data.len() as u64, append) {
            Some(index) => index,
            None => {
                let Some(id) = id else { return Ok(None) };
                s.push_slice(Pending::new(losses, at, append, id, self.blocks.block_size(), now))
            }
        };
        let tier = s.attr().tier;
        let slice = s.slice_mut(index);
        let Some(permit) = permit.take() else { return Ok(None) };
        slice.write(at, data, permit, now, self.blocks.buffers());
        slice.logged.extend(log.note(file.ino, at, append, slice.id, data));
        slice.send(&self.blocks, tier);
        let full = slice.is_full();
        s.written(at + data.len() as u64, now);
        Ok(Some((at, full || s.slices().len() > PENDING_MAX)))
    }

    /// Memory for a write. While there is none, dirty files are flushed to make some.
    async fn reserve(self: &Arc<Self>, file: &Arc<File>, bytes: u64) -> Permit {
        if let Some(permit) = self.blocks.budget().try_acquire(bytes, BudgetKind::Write) {
            return permit;
        }
        self.flush_all_in_background(file);
        self.blocks.budget().acquire(bytes, BudgetKind::Write).await
    }

    /// Flushes this file, and all others that are dirty.
    pub(crate) fn flush_all_in_background(self: &Arc<Self>, file: &Arc<File>) {
        self.flush_in_background(file);
        for other in self.files.all() {
            if !Arc::ptr_eq(&other, file) && other.is_dirty() {
                self.flush_in_background(&other);
            }
        }
    }

    pub(crate) fn flush_in_background(self: &Arc<Self>, file: &Arc<File>) {
        let (vfs, file) = (Arc::clone(self), Arc::clone(file));
        ciderfs_rt::spawn(async move { vfs.flush_file(&file).await });
    }

    /// Stores and commits everything written so far. Failures are kept for the handles to report. The work goes on if the
    /// caller stops waiting.
    pub(crate) async fn flush(self: &Arc<Self>, file: &Arc<File>) -> Result<()> {
        let (vfs, file) = (Arc::clone(self), Arc::clone(file));
        ciderfs_rt::spawn(async move { vfs.flush_file(&file).await })
            .await
            .map_err(|e| Error::ended("flush", e))
    }

    /// [`Vfs::flush`] for who must know whether all of it is stored.
    ///
    /// # Errors
    /// The first failure of this flush. The handles report it as well.
    pub(crate) async fn flush_stored(self: &Arc<Self>, file: &Arc<File>) -> Result<()> {
        let failures = file.state.lock().failures();
        self.flush(file).await?;
        Ok(file.state.lock().failed_since(failures)?)
    }

    pub(crate) async fn flush_file(self: &Arc<Self>, file: &Arc<File>) {
        let lists = {
            let _one = file.flushing.lock().await;
            self.flush_locked(file).await
        };
        // May wait for memory that only another flush sets free.
        self.after_write(file, &lists).await;
    }

    /// [`Vfs::flush`] for a caller that holds [`File::flushing`]. Returns what [`Vfs::after_write`] is to look at when the
    /// caller holds it no more.
    pub(crate) async fn flush_locked(self: &Arc<Self>, file: &Arc<File>) -> Vec<(u32, usize)> {
        let (count, uploads) = {
            let mut s = file.state.lock();
            let tier = s.attr().tier;
            let mut uploads = Vec::new();
            for p in s.slices_mut() {
                p.frozen = true;
                p.send(&self.blocks, tier);
                uploads.push(p.take_uploads());
            }
            (s.slices().len(), uploads)
        };
        if count == 0 {
            return Vec::new();
        }
        let mut stored: Vec<Result<(), BlockError>> = Vec::with_capacity(count);
        for tasks in uploads {
            let mut result = Ok(());
            for task in tasks {
                match task.await {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => result = Err(e),
                    // The runtime ends, and this with it. Nothing has failed: the next process stores it.
                    Err(e) if e.is_cancelled() && self.carry.state.is_some() => std::future::pending().await,
                    Err(e) => result = Err(BlockError::Invalid(format!("upload task: {e}"))),
                }
            }
            stored.push(result);
        }
        self.commit(file, &stored).await
    }

    /// Commits the first slices of the file, one for each upload result, in one turn. Returns lengths of lists.
    async fn commit(
        self: &Arc<Self>,
        file: &Arc<File>,
        stored: &[Result<(), BlockError>],
    ) -> Vec<(u32, usize)> {
        let mut slices: Vec<NewSlice> = Vec::new();
        let mut believed: Vec<u64> = Vec::new();
        let mut failed: Vec<(SliceId, u32)> = Vec::new();
        let mut mtime = Time::default();
        let mut error = None;
        let under_way = UnderWay::begin(file, stored.len());
        let losses;
        {
            let s = file.state.lock();
            losses = self.losses(file.ino);
            for (p, result) in s.slices().iter().zip(stored) {
                if let Err(e) = result {
                    tracing::error!("inode {}: {} bytes are lost: {e}", file.ino, p.len);
                    failed.push((p.id, p.len));
                    error = Some(Error::from(e.clone()));
                    continue;
                }
                if p.losses < losses {
                    tracing::error!("inode {}: {} bytes are refused: {}", file.ino, p.len, Error::LOCK_LOST);
                    failed.push((p.id, p.len));
                    error = Some(Error::LOCK_LOST);
                    continue;
                }
                mtime = mtime.max(p.mtime);
                slices.push(p.slice());
                believed.push(p.at);
            }
        }
        let written = if slices.is_empty() {
            None
        } else {
            Some(self.meta.write_since(losses.0, file.ino, &slices, mtime).await.map_err(Error::from))
        };
        if let Some(Err(e)) = &written {
            tracing::error!("inode {}: committing {} slices: {e}", file.ino, slices.len());
            // With an unknown outcome the objects may be in use; garbage collection decides about them.
            if e.is_refusal() {
                failed.extend(slices.iter().map(|s| (s.slice.id, s.slice.size)));
            }
            // A deleted file takes its data along.
            error = Some(Error::when_held(e.clone()));
        }
        let committed = written.as_ref().and_then(|written| written.as_ref().ok());
        let commit = Commit {
            under_way,
            slices: stored.len(),
            changed: committed.map(|w| &w.changed),
            moved: committed.is_some_and(|w| w.offsets != believed),
            error: error.map(|e| e.errno()),
        };
        self.done(file.ino, Change::Written(commit)).await;
        for (id, size) in failed {
            let blocks = Arc::clone(&self.blocks);
            ciderfs_rt::spawn(async move {
                if let Err(e) = blocks.delete_slice(id, size).await {
                    tracing::warn!("objects of the lost slice {id} are left to garbage collection: {e}");
                }
            });
        }
        written.and_then(Result::ok).map(|w| w.lists).unwrap_or_default()
    }

    /// Sets a file's length; what was written before is committed first. Returns the attributes, and of which moment they are.
    pub(crate) async fn truncate_file(
        self: &Arc<Self>,
        c: &ciderfs_meta::Caller,
        ino: ciderfs_format::Ino,
        length: u64,
        by_handle: bool,
    ) -> Result<(ciderfs_format::Attr, Moment)> {
        let (vfs, c) = (Arc::clone(self), c.clone());
        Self::detached(async move {
            let file = vfs.files.get(ino);
            let before = file.as_ref().map(|f| f.attr().length);
            let cut = match file {
                None => {
                    let changed = vfs.meta.truncate(&c, ino, length, by_handle).await?;
                    let done = vfs.done(ino, Change::Closed(&changed)).await;
                    (changed.attr, done.as_of)
                }
                Some(file) => {
                    let one = file.flushing.lock().await;
                    let lists = vfs.flush_locked(&file).await;
                    let under_way = UnderWay::begin(&file, 0).shrinking(length);
                    let changed = vfs.meta.truncate(&c, ino, length, by_handle).await?;
                    let done = vfs.done(ino, Change::Content { changed: &changed, under_way }).await;
                    drop(one);
                    vfs.after_write(&file, &lists).await;
                    (file.attr(), done.as_of)
                }
            };
            match before {
                _ if length == 0 => vfs.allocated.forget(ino),
                Some(before) if length <= before => {}
                _ => vfs.allocated.suspect(ino),
            }
            Ok(cut)
        })
        .await
    }

    /// Flushes what is old or idle, as long as the mount lives.
    pub(crate) async fn flush_loop(self: Arc<Self>) {
        loop {
            self.dirty.notified().await;
            loop {
                ciderfs_rt::sleep(SCAN_INTERVAL).await;
                let mut dirty = false;
                for file in self.files.all() {
                    let due = {
                        let s = file.state.lock();
                        dirty |= !s.slices().is_empty();
                        s.slices().iter().any(|p| {
                            !p.frozen && (p.created.elapsed() > AGE_MAX || p.touched.elapsed() > IDLE_MAX)
                        })
                    };
                    if due {
                        self.flush_in_background(&file);
                    }
                }
                if !dirty {
                    break;
                }
            }
        }
    }
}
