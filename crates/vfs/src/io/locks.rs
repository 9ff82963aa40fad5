//! Locks of open files: who took them through which handle, when they end, and what a new lock lets a process see.
//!
//! A lock is a moment of agreement between clients: what was written under one is stored before it is given back, and
//! whoever gets one sees the file as it is then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::lock::{F_WRLCK, LockRecord};
use ciderfs_format::{Attr, Ino};
use ciderfs_meta::store::LockKind;
use ciderfs_meta::{Errno, Lock, LockCaller};
use ciderfs_rt::Instant;
use parking_lot::Mutex;

use crate::closing::Change;
use crate::content::file::File;
use crate::content::moment::Moment;
use crate::error::{Error, Result};
use crate::io::handles::{FileHandle, Handle};
use crate::kernel::Stale;
use crate::vfs::Vfs;

/// The kernel tells of a handle's end after `close` has returned. Whoever asks for its flock without waiting gets this much
/// time before the lock is said to be taken.
const CLOSE_GRACE: Duration = Duration::from_millis(20);
/// Losses of locks on a file so far. What was opened or written before the last one is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Losses(pub(crate) u64);

/// Locks taken through a handle.
#[derive(Default)]
pub(crate) struct HandleLocks {
    /// Who took record locks.
    pub(crate) owners: Mutex<BTreeSet<u64>>,
    /// The holder of its flock.
    pub(crate) flock: Mutex<Option<u64>>,
    /// What had been lost when it was opened.
    pub(crate) losses: Losses,
}

impl HandleLocks {
    pub(crate) fn new(losses: Losses) -> Self {
        Self { losses, ..Self::default() }
    }
}

/// A request for a lock through a handle.
#[derive(Debug, Clone, Copy)]
pub struct LockRequest {
    /// Handle.
    pub fh: u64,
    /// The kernel's lock owner: a process for `fcntl`, an open file for `flock` and for locks of open file descriptions.
    pub owner: u64,
    /// Process.
    pub pid: u32,
    /// What it wants.
    pub lock: Lock,
}

impl LockRequest {
    pub(crate) fn kind(&self) -> LockKind {
        match self.lock {
            Lock::Flock(_) => LockKind::Flock,
            Lock::Range(_) => LockKind::Record,
        }
    }

    /// The owner as other clients see it: a flock belongs to the handle (`docs/format/sessions-and-locks.md#lock-owners`).
    fn shared_owner(&self) -> u64 {
        match self.lock {
            Lock::Flock(_) => self.owner ^ self.fh,
            Lock::Range(_) => self.owner,
        }
    }

    /// Is it for a lock, and not for the end of one?
    pub(crate) fn asks(&self) -> bool {
        match self.lock {
            Lock::Flock(want) => want.is_some(),
            Lock::Range(r) => r.kind != ciderfs_format::lock::F_UNLCK,
        }
    }

    fn is_exclusive(&self) -> bool {
        match self.lock {
            Lock::Flock(want) => want == Some(true),
            Lock::Range(r) => r.kind == F_WRLCK,
        }
    }
}

impl Vfs {
    /// Takes a lock or gives it back. With `wait`, not before it is free, or `interrupted` ends.
    ///
    /// # Errors
    /// `EAGAIN`, `EINTR`, `EDEADLK`, `EROFS`, `EPERM` (a virtual file); see [`ciderfs_meta::Meta::lock`].
    pub async fn lock(
        self: &Arc<Self>,
        request: LockRequest,
        wait: bool,
        interrupted: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        let h = self.lockable(request.fh)?;
        let ino = h.file.ino;
        tokio::pin!(interrupted);
        if !request.is_exclusive() && h.file.is_dirty() {
            // Others may look soon. A failure is reported by the handle.
            tokio::select! {
                biased;
                flushed = self.flush(&h.file) => flushed?,
                () = &mut interrupted => return Err(Errno::EINTR.into()),
            }
        }
        let owner = request.shared_owner();
        let first = match request.kind() {
            LockKind::Flock => h.locks.flock.lock().replace(owner).is_none(),
            LockKind::Record => h.locks.owners.lock().insert(owner),
        };
        self.carry.locking(&request, ino, owner, self.meta.has_lock(ino, request.kind(), owner));
        let as_of = h.file.as_of();
        let by = LockCaller { owner, pid: request.pid };
        let mut got = self.meta.lock(ino, by, request.lock, wait, &mut interrupted).await;
        if !wait && is_again(&got) && h.file.flock_closing() && request.kind() == LockKind::Flock {
            let soon = async {
                tokio::select! {
                    biased;
                    () = ciderfs_rt::sleep(CLOSE_GRACE) => {}
                    () = interrupted => {}
                }
            };
            got = self.meta.lock(ino, by, request.lock, true, soon).await;
            if matches!(&got, Err(e) if e.errno() == Errno::EINTR) {
                got = Err(Errno::EAGAIN.into());
            }
        }
        let got = got?;
        // Before the kernel is answered: then the lock counts.
        self.carry.locking(&request, ino, owner, self.meta.has_lock(ino, request.kind(), owner));
        match (got, request.lock) {
            (_, Lock::Flock(None)) => Ok(()),
            (_, Lock::Range(r)) if r.kind == ciderfs_format::lock::F_UNLCK => Ok(()),
            (attr, _) => self.see_locked(&h.file, attr, as_of, first).await,
        }
    }

    /// The lock that is in the way of a range, with the process that holds it if that is one of this mount.
    ///
    /// # Errors
    /// `EPERM` (a virtual file), `EBADF`; `EIO` if the engine stays away.
    pub async fn find_lock(&self, fh: u64, owner: u64, want: LockRecord) -> Result<Option<LockRecord>> {
        let h = self.lockable(fh)?;
        Ok(self.meta.find_lock(h.file.ino, owner, want).await?)
    }

    fn lockable(&self, fh: u64) -> Result<Arc<FileHandle>> {
        match self.handles.get(fh)? {
            Handle::File(h) => Ok(h),
            _ => Err(Errno::EPERM.into()),
        }
    }

    /// A descriptor of a handle is closed: what was written is stored, and the process loses its record locks on the file.
    ///
    /// # Errors
    /// What `fsync` has not reported yet about writing.
    pub async fn close_descriptor(self: &Arc<Self>, fh: u64, owner: u64) -> Result<()> {
        if let Ok(Handle::File(h)) = self.handles.get(fh) {
            let ino = h.file.ino;
            if h.locks.flock.lock().is_some() {
                h.file.note_flock_closing();
            }
            h.locks.owners.lock().remove(&owner);
            self.carry.unlocked(fh, owner);
            if self.meta.has_lock(ino, LockKind::Record, owner) {
                let vfs = Arc::clone(self);
                // To its end, also if the caller stops waiting.
                let closing = ciderfs_rt::spawn(async move {
                    let flushed = vfs.flush_descriptor(fh).await;
                    vfs.drop_locks(ino, LockKind::Record, owner).await;
                    flushed
                });
                return closing.await.map_err(|e| Error::ended("close", e))?;
            }
        }
        self.flush_descriptor(fh).await
    }

    /// A handle is gone, and what was locked through it alone.
    pub(crate) async fn release_locks(self: &Arc<Self>, ino: Ino, h: &FileHandle) {
        let owners = std::mem::take(&mut *h.locks.owners.lock());
        let flock = h.locks.flock.lock().take();
        for owner in owners {
            self.drop_locks(ino, LockKind::Record, owner).await;
        }
        if let Some(owner) = flock {
            self.drop_locks(ino, LockKind::Flock, owner).await;
        }
    }

    async fn drop_locks(&self, ino: Ino, kind: LockKind, owner: u64) {
        if let Err(e) = self.meta.drop_locks(ino, kind, owner).await {
            tracing::warn!("inode {ino}: a lock is given back later: {e}");
        }
    }

    /// Losses of locks on a file so far.
    pub(crate) fn losses(&self, ino: Ino) -> Losses {
        Losses(self.meta.lock_loss(ino))
    }

    /// Refuses a write through a handle that was open when locks on its file were lost.
    pub(crate) async fn check_locks(&self, h: &FileHandle) -> Result<()> {
        self.meta.check_locks(h.file.ino).await?;
        if self.losses(h.file.ino) > h.locks.losses { Err(Error::LOCK_LOST) } else { Ok(()) }
    }

    /// The same for a handle by its number.
    pub(crate) async fn check_locks_of(&self, fh: u64) -> Result<()> {
        match self.handles.get(fh)? {
            Handle::File(h) => self.check_locks(&h).await,
            _ => Ok(()),
        }
    }

    /// Makes process and kernel see what the file holds at the moment of a lock.
    async fn see_locked(
        self: &Arc<Self>,
        file: &Arc<File>,
        attr: Option<Attr>,
        as_of: Moment,
        first: bool,
    ) -> Result<()> {
        if !attr.is_some_and(|attr| file.learn(&attr, as_of)) {
            self.catch_up(file, None).await?;
        }
        let (is_untold, as_of, version) = {
            let s = file.state.lock();
            (s.is_untold(), s.as_of(), s.version())
        };
        if is_untold {
            // Whoever else gets a lock meanwhile has to wait for that as well.
            if self.locks(file, version).await {
                let mut s = file.state.lock();
                let untold = s.is_untold() && s.as_of() != as_of;
                s.set_untold(untold);
            }
        } else if first {
            self.done(file.ino, Change::Unanswered(Stale::Attributes)).await;
        }
        Ok(())
    }
}

fn is_again(result: &Result<Option<Attr>, ciderfs_meta::Error>) -> bool {
    matches!(result, Err(e) if e.errno() == Errno::EAGAIN)
}

impl File {
    /// A descriptor with a flock was closed: perhaps it was the last one.
    fn note_flock_closing(&self) {
        *self.flock_closed.lock() = Some(Instant::now());
    }

    fn flock_closing(&self) -> bool {
        self.flock_closed.lock().is_some_and(|at| at.elapsed() < CLOSE_GRACE)
    }
}
