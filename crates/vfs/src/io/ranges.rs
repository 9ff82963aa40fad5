//! Operations on ranges of open files: allocating, punching, copying.
//!
//! What was written before is committed first; then the metadata layer changes the records, and what is remembered of the
//! content is forgotten. The work goes on if the caller stops waiting, so that memory and metadata never disagree.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ciderfs_meta::{Allocate, Caller, Errno};

use crate::closing::Change;
use crate::content::file::{File, UnderWay};
use crate::error::{Error, Result};
use crate::io::handles::Handle;
use crate::vfs::Vfs;

/// Commits of one copy; the caller asks again for the rest.
const COPY_COMMITS_MAX: u32 = 64;

/// Turns true when the caller stops waiting.
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// What the flags of `fallocate` ask for.
///
/// Collapsing and inserting move everything behind: the lists of all later chunks would have to be replaced at once, while
/// other clients append to them and compact them. Like other network file systems this one does not; the kernel asks no
/// FUSE file system to.
fn allocation(mode: u32) -> Result<Allocate, Errno> {
    const KEEP_SIZE: u32 = libc::FALLOC_FL_KEEP_SIZE as u32;
    const PUNCH: u32 = libc::FALLOC_FL_PUNCH_HOLE as u32 | KEEP_SIZE;
    const ZERO: u32 = libc::FALLOC_FL_ZERO_RANGE as u32;
    const ZERO_INSIDE: u32 = ZERO | KEEP_SIZE;
    Ok(match mode {
        0 => Allocate::Grow,
        KEEP_SIZE => Allocate::Reserve,
        PUNCH => Allocate::Punch,
        ZERO => Allocate::Zero,
        ZERO_INSIDE => Allocate::ZeroInside,
        _ => return Err(Errno::EOPNOTSUPP),
    })
}

impl Vfs {
    fn file_of(&self, fh: u64, write: bool) -> Result<Arc<File>, Errno> {
        match self.handles.get(fh)? {
            Handle::File(h) if h.writable || !write => Ok(Arc::clone(&h.file)),
            Handle::File(_) => Err(Errno::EBADF),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Runs work on a file's content to its end, even if nobody waits for it any more.
    pub(crate) async fn detached<T: Send + 'static>(
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match ciderfs_rt::spawn(work).await {
            Ok(result) => result,
            Err(e) => Err(Error::ended("an operation", e)),
        }
    }

    /// `fallocate` with the flags `mode` (`FALLOC_FL_*`) on an open file.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EBADF`, and those of [`ciderfs_meta::Meta::fallocate`].
    pub async fn fallocate(
        self: &Arc<Self>,
        c: &Caller,
        fh: u64,
        mode: u32,
        off: u64,
        len: u64,
    ) -> Result<()> {
        let file = self.file_of(fh, true)?;
        let how = allocation(mode)?;
        self.check_locks_of(fh).await?;
        let (vfs, c) = (Arc::clone(self), c.clone());
        Self::detached(async move {
            let one = file.flushing.lock().await;
            let mut lists = vfs.flush_locked(&file).await;
            let under_way = UnderWay::begin(&file, 0);
            let done = vfs.meta.fallocate(&c, file.ino, how, off, len).await;
            let (changed, noted) = done.map_err(Error::when_held)?;
            vfs.done(file.ino, Change::Content { changed: &changed, under_way }).await;
            vfs.allocated.suspect(file.ino);
            lists.extend(noted);
            drop(one);
            vfs.after_write(&file, &lists).await;
            Ok(())
        })
        .await
    }

    /// `copy_file_range` between open files, without copying data; less than `len` bytes if that takes too long.
    ///
    /// # Errors
    /// `EBADF`, `EINVAL` (flags, overlapping ranges), the error of a flush, and those of [`ciderfs_meta::Meta::copy_range`].
    pub async fn copy_file_range(
        self: &Arc<Self>,
        c: &Caller,
        (fh_in, off_in): (u64, u64),
        (fh_out, off_out): (u64, u64),
        len: u64,
        flags: u64,
    ) -> Result<u64> {
        let (source, target) = (self.file_of(fh_in, false)?, self.file_of(fh_out, true)?);
        if flags != 0 {
            return Err(Errno::EINVAL.into());
        }
        self.check_locks_of(fh_out).await?;
        let gone = Gone(Arc::default());
        let stop = Arc::clone(&gone.0);
        let (vfs, c) = (Arc::clone(self), c.clone());
        Self::detached(async move {
            if !Arc::ptr_eq(&source, &target) {
                vfs.flush_stored(&source).await?;
            }
            let failures = target.state.lock().failures();
            let one = target.flushing.lock().await;
            let mut lists = vfs.flush_locked(&target).await;
            target.state.lock().failed_since(failures)?;
            let (mut done, mut rest) = (0, len);
            for _ in 0..COPY_COMMITS_MAX {
                let under_way = UnderWay::begin(&target, 0);
                let (from, to) = ((source.ino, off_in + done), (target.ino, off_out + done));
                let step = vfs.meta.copy_range(&c, from, to, rest).await;
                match step {
                    // What was copied before the error counts.
                    Err(_) if done > 0 => break,
                    Err(e) => return Err(Error::when_held(e)),
                    Ok(step) => {
                        if let Some(changed) = &step.changed {
                            vfs.done(target.ino, Change::Content { changed, under_way }).await;
                        }
                        done += step.bytes;
                        // A file that grows by being copied into itself is copied as it was.
                        rest = step.rest;
                        lists.extend(step.lists);
                        if rest == 0 || stop.load(Ordering::Acquire) {
                            break;
                        }
                    }
                }
            }
            drop(one);
            if done > 0 {
                vfs.allocated.suspect(target.ino);
                vfs.after_write(&target, &lists).await;
            }
            Ok(done)
        })
        .await
    }
}
