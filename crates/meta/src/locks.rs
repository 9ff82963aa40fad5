//! Locks as processes use them: waiting, fairness, deadlocks, interruption, loss.
//!
//! Each file that somebody asks about has a driver, a task that gathers requests and decides them together
//! ([`crate::ops::locks`]): within this client a lock passes from one holder to the next in a single commit, and those who
//! wait are served in their order. A driver ends its commits whoever stops waiting for them; a lock that nobody waits for
//! any more is given back. Locks of other clients are asked for again and again, with growing pauses.
//!
//! A client that did not answer for the life of its session is declared dead by others, which give its locks away. It
//! finds that out from the records themselves: every change of a file's data is tied to the locks that are held on the
//! file ([`Meta::fence`]). What was open then stays unusable for writing until it is closed.

mod adopt;
mod fleet;
mod state;
mod table;
mod waits;

use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::lock::LockRecord;
use ciderfs_format::{Attr, Ino, SessionId};
use ciderfs_rt::Instant;
use tokio::sync::oneshot;

pub use self::adopt::Holder;
#[cfg(feature = "suite")]
pub(crate) use self::fleet::WAITS;
use self::state::{After, Answer, Asking};
pub(crate) use self::table::LockTable;
use self::table::Next;
use crate::error::{Errno, Error, Result};
use crate::ops::locks::{self, Ask, Granted};
use crate::run::Ran;
use crate::session::Lease;
use crate::store::{LockKind, StoreError};
use crate::txn::{Step, Txn};
use crate::volume::Meta;

/// First pause before a lock of another client is asked for again.
const POLL_MIN: Duration = Duration::from_millis(1);
/// Longest such pause.
const POLL_MAX: Duration = Duration::from_millis(50);
/// The same while only this client's own locks are in the way, whose end is known without asking.
const POLL_OWN: Duration = Duration::from_secs(1);
/// How much each pause is longer than the one before.
const POLL_GROWTH: f64 = 1.25;
/// Pause after the engine has failed.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// When the session ends, commits under way have this long to end.
const LAST_COMMITS: Duration = Duration::from_secs(5);
/// Between two looks at them.
const LAST_COMMITS_POLL: Duration = Duration::from_millis(2);
/// A commit under way may end for this long before an interrupted caller gets `EINTR`.
const INTERRUPT_GRACE: Duration = Duration::from_millis(100);
/// A change of data is tried again this often when a lock it was tied to was given back meanwhile.
const FENCED_ATTEMPTS_MAX: u32 = 100;

/// A lock or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// `flock`: exclusive, shared, or given back.
    Flock(Option<bool>),
    /// `fcntl`: a range with its kind; `F_UNLCK` gives it back.
    Range(LockRecord),
}

/// Who asks for a lock: the kernel's lock owner, and the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockCaller {
    /// Lock owner.
    pub owner: u64,
    /// Process, by which circles of waiting holders are told from threads of one process.
    pub pid: u32,
}

/// A request whose answer is awaited. Dropped before, it leaves nothing behind.
struct Awaited {
    meta: Arc<Meta>,
    ino: Ino,
    by: LockCaller,
    id: u64,
    answer: oneshot::Receiver<Result<Granted>>,
    done: bool,
}

impl Awaited {
    async fn answer(&mut self) -> Result<Granted> {
        let answer = (&mut self.answer).await;
        self.done = true;
        answer.unwrap_or_else(|_| Err(Errno::EIO.into()))
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if self.done || self.meta.locks.forget(self.ino, self.id) {
            return;
        }
        // Answered, and nobody has seen it.
        self.answer.close();
        if let Ok(Ok(Granted { undo: Some(undo), .. })) = self.answer.try_recv() {
            self.meta.submit_lock(self.ino, self.by, undo, false, None);
        }
    }
}

impl Meta {
    /// The session ends: no more locks are taken, so that the end finds all of them.
    pub(crate) async fn end_locking(&self) {
        self.locks.close();
        self.settle_locking().await;
    }

    /// Waits for commits under way.
    pub(crate) async fn settle_locking(&self) {
        let begun = Instant::now();
        while self.locks.is_deciding() && begun.elapsed() < LAST_COMMITS {
            ciderfs_rt::sleep(LAST_COMMITS_POLL).await;
        }
    }

    /// Takes a lock or gives it back. With `wait`, not before it is free, or `interrupted` ends. Returns the file's attributes
    /// as they are under a new lock; without them the caller has to look itself.
    ///
    /// # Errors
    /// `EAGAIN` (in the way of others), `EINTR`, `EDEADLK` (those in the way wait for the caller), `EROFS`, `ENOLCK` (without a
    /// session), `ENOENT`; [`Error::LockLost`] until the file is closed; `EIO` if the engine stays away.
    pub async fn lock(
        self: &Arc<Self>,
        ino: Ino,
        by: LockCaller,
        lock: Lock,
        wait: bool,
        interrupted: impl Future<Output = ()> + Send,
    ) -> Result<Option<Attr>> {
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        if self.sid() == SessionId::NONE {
            return Err(Errno::ENOLCK.into());
        }
        let ask = match lock {
            Lock::Flock(want) => Ask::Flock(want),
            Lock::Range(r) if r.start > r.end => return Err(Errno::EINVAL.into()),
            Lock::Range(r) => Ask::Range(r),
        };
        let gives_back = !ask.acquires();
        if gives_back && !self.locks.concerns(self.real(ino), ask.kind(), by.owner) {
            return Ok(None);
        }
        let mut request = self.request_lock(self.real(ino), by, ask, wait);
        let granted = tokio::select! {
            biased;
            answer = request.answer() => answer?,
            () = interrupted => {
                if self.locks.interrupt(request.ino, request.id) {
                    return Err(Errno::EINTR.into());
                }
                match ciderfs_rt::timeout(INTERRUPT_GRACE, request.answer()).await {
                    Ok(answer) => answer?,
                    Err(_) => return Err(Errno::EINTR.into()),
                }
            }
        };
        Ok(granted.attr)
    }

    /// Gives back every lock of a kind that a holder has on a file, lost ones too: the file is closed.
    ///
    /// # Errors
    /// `EIO` if the engine stays away; it is tried again until it succeeds.
    pub async fn drop_locks(self: &Arc<Self>, ino: Ino, kind: LockKind, owner: u64) -> Result<()> {
        let ino = self.real(ino);
        if !self.locks.concerns(ino, kind, owner) {
            return Ok(());
        }
        self.request_lock(ino, LockCaller { owner, pid: 0 }, Ask::Drop(kind), false).answer().await?;
        Ok(())
    }

    /// Does this holder have a lock of the kind, wait for one, or has it lost one?
    pub fn has_lock(&self, ino: Ino, kind: LockKind, owner: u64) -> bool {
        self.locks.concerns(self.real(ino), kind, owner)
    }

    /// The number of the last loss of locks on a file, 0 without any. What was open when it grew must not write any more.
    pub fn lock_loss(&self, ino: Ino) -> u64 {
        self.locks.loss(self.real(ino))
    }

    /// Looks whether the locks held on a file are still there, if this client has not refreshed its session in time: it may
    /// have been frozen.
    ///
    /// # Errors
    /// [`Error::LockLost`]; `EIO` if the engine stays away.
    pub async fn check_locks(self: &Arc<Self>, ino: Ino) -> Result<()> {
        let ino = self.real(ino);
        if self.locks.holds_any(ino)
            && self.lease_is_over()
            && self.verify_locks(ino, self.locks.loss(ino)).await?
        {
            return Err(Error::LockLost);
        }
        Ok(())
    }

    /// Looks whether the locks held on a file are still there. True if some were lost after the loss number `seen`.
    async fn verify_locks(self: &Arc<Self>, ino: Ino, seen: u64) -> Result<bool> {
        self.request_lock(ino, LockCaller { owner: 0, pid: 0 }, Ask::Verify, false).answer().await?;
        Ok(self.locks.loss(ino) > seen)
    }

    /// The session was refreshed too late, so that its locks may have been given away: all of them are looked at.
    /// The new lease counts from then on.
    pub(crate) fn verify_all_locks(self: &Arc<Self>, lease: Lease) {
        let nobody = LockCaller { owner: 0, pid: 0 };
        let files = self.locks.held_files();
        if files.is_empty() {
            *self.lease.lock() = Some(lease);
            return;
        }
        let mut requests: Vec<Awaited> =
            files.into_iter().map(|ino| self.request_lock(ino, nobody, Ask::Verify, false)).collect();
        let meta = Arc::clone(self);
        ciderfs_rt::spawn(async move {
            for request in &mut requests {
                if let Err(e) = request.answer().await {
                    tracing::warn!(
                        "inode {}: its locks are looked at when it is written to: {e}",
                        request.ino
                    );
                    return;
                }
            }
            *meta.lease.lock() = Some(lease);
        });
    }

    /// [`Meta::run`] for a change of a file's data: it happens only while the locks held on the file are there, and none was
    /// lost after the loss number `seen`.
    pub(crate) async fn run_fenced<T, F>(
        self: &Arc<Self>,
        method: &'static str,
        ino: Ino,
        seen: u64,
        mut op: F,
    ) -> Result<Ran<T>>
    where
        F: FnMut(&mut Txn<'_>) -> Step<T> + Send,
        T: Send,
    {
        for _ in 0..FENCED_ATTEMPTS_MAX {
            let ran = self
                .run(method, |t| {
                    self.fence(t, ino, seen)?;
                    op(t)
                })
                .await;
            match ran {
                // Lost, or given back in the same moment?
                Err(Error::LockLost) if !self.verify_locks(ino, seen).await? => {}
                other => return other,
            }
        }
        Err(StoreError::unavailable("the locks of the file change all the time").into())
    }

    fn request_lock(self: &Arc<Self>, ino: Ino, by: LockCaller, ask: Ask, wait: bool) -> Awaited {
        let (tx, answer) = oneshot::channel();
        let id = self.submit_lock(ino, by, ask, wait, Some(tx));
        Awaited { meta: Arc::clone(self), ino, by, id, answer, done: false }
    }

    fn submit_lock(
        self: &Arc<Self>,
        ino: Ino,
        by: LockCaller,
        ask: Ask,
        wait: bool,
        answer: Option<Answer>,
    ) -> u64 {
        let asking = Asking { owner: by.owner, pid: by.pid, ask, wait };
        let (id, start) = self.locks.submit(ino, asking, answer);
        // Without a runtime the process ends, and the session with it.
        if start && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(Arc::clone(self).drive_locks(ino));
        }
        id
    }

    /// Decides a file's requests until there are none.
    async fn drive_locks(self: Arc<Self>, ino: Ino) {
        let mut stop = self.stop.subscribe();
        let mut pause = POLL_MIN;
        let mut retry = false;
        loop {
            let batch = match self.locks.next(ino, std::mem::take(&mut retry)) {
                Next::End => return,
                Next::Sleep { wake, foreign } => {
                    let pause = if foreign { pause } else { POLL_OWN };
                    let jitter = ciderfs_rt::random_range(0.5..1.0);
                    tokio::select! {
                        biased;
                        () = wake.notified() => {}
                        () = ciderfs_rt::sleep(pause.mul_f64(jitter)) => {}
                    }
                    retry = true;
                    continue;
                }
                Next::Decide(batch) => batch,
            };
            let sid = self.sid();
            let decide = |t: &mut Txn<'_>| {
                let decided = locks::decide(t, sid, ino, &batch.requests, &batch.held)?;
                if let Some(rest) = self.locks.told_without(&decided.acquired(&batch.requests)) {
                    fleet::tell(t, sid, 0, &rest);
                }
                Ok(decided)
            };
            let run = self.run("Lock", decide).await;
            let result = run.map(|ran| {
                let attr = match ran.value.attr_at.and_then(|at| ran.outputs.get(at)) {
                    Some(crate::store::Output::Attr(attr)) => attr.clone(),
                    _ => None,
                };
                (ran.value, attr)
            });
            let after = self.locks.settle(ino, sid, batch, result);
            if self.locks.begin_watching() {
                let mut tasks = self.tasks.lock();
                tasks.retain(|task| !task.is_finished());
                tasks.push(ciderfs_rt::spawn(Arc::clone(&self).watch_waits()));
            }
            match after {
                After::Nothing => pause = pause.mul_f64(POLL_GROWTH).min(POLL_MAX),
                After::Progress => pause = POLL_MIN,
                After::Register => {
                    if let Err(e) = self.register_again().await {
                        tracing::warn!("registering the session again: {e}");
                        ciderfs_rt::sleep(FAILED_PAUSE).await;
                    }
                }
                After::Failed => {
                    tokio::select! {
                        biased;
                        () = ciderfs_rt::sleep(FAILED_PAUSE) => {}
                        _ = stop.wait_for(|s| *s) => {}
                    }
                }
            }
        }
    }
}
