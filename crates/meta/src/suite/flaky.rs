//! A store in front of a store: calls of several clients interleave at random, and some go wrong.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use ciderfs_format::Ino;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::rng::Rng;
use crate::store::{
    Commit, Counter, DirCursor, DirEntry, EngineMemory, Job, Outcome, Read, Scan, Scanned, Store, StoreError,
    Value,
};

/// Most times that a call lets others go first.
const YIELDS_MAX: u64 = 5;

/// See the module.
pub(super) struct Flaky {
    inner: Arc<dyn Store>,
    rng: Mutex<Rng>,
    /// Calls in a thousand that go wrong.
    faults: AtomicU64,
    /// A commit that was said to be lost and reaches the engine before the call that comes after so many others.
    late: tokio::sync::Mutex<Option<(usize, Commit)>>,
    /// What becomes of the next commit, whatever `faults` says.
    fate: Mutex<Option<Fate>>,
    /// Runs once, when the call that it waits for is made.
    before: Mutex<Option<(When, BoxFuture<'static, ()>)>>,
    /// Held while the other client acts.
    acting: Arc<tokio::sync::Mutex<()>>,
    /// The task of the operation for which something was planned. Calls of all others, which are the client's background, neither
    /// count nor meet what was planned: they come when they like.
    planned_by: Mutex<Option<Task>>,
}

/// A task, or what the runtime runs in the foreground.
type Task = Option<tokio::task::Id>;

/// What becomes of a commit whose caller hears nothing.
pub(super) enum Fate {
    /// It is never made.
    Dropped,
    /// It reaches the engine before the call that comes after so many others.
    Late(usize),
    /// It is made.
    Made,
}

/// What another client's action waits for.
pub(super) enum When {
    /// The next commit, before its reply arrives.
    Committed,
    /// The call that comes after so many others.
    Call(usize),
}

impl When {
    fn is_this_call(&mut self) -> bool {
        let Self::Call(others) = self else { return false };
        let left = others.checked_sub(1);
        *others = left.unwrap_or_default();
        left.is_none()
    }
}

impl Flaky {
    pub(super) fn new(inner: Arc<dyn Store>, seed: u64) -> Arc<Self> {
        let faults = AtomicU64::new(0);
        let rng = Mutex::new(Rng::new(seed));
        Arc::new(Self {
            inner,
            rng,
            faults,
            late: tokio::sync::Mutex::default(),
            fate: Mutex::default(),
            before: Mutex::default(),
            acting: Arc::default(),
            planned_by: Mutex::default(),
        })
    }

    fn plan(&self) {
        *self.planned_by.lock() = Some(tokio::task::try_id());
    }

    /// Is this a call of the operation for which something was planned? Where nothing ever was, all calls count.
    fn counts(&self) -> bool {
        self.planned_by.lock().is_none_or(|task| task == tokio::task::try_id())
    }

    /// The next commit of this task is answered with "lost".
    pub(super) fn lose_next(&self, fate: Fate) {
        self.plan();
        *self.fate.lock() = Some(fate);
    }

    /// Another client does something just then, in the course of what this task does.
    pub(super) fn at(&self, when: When, other: impl Future<Output = ()> + Send + 'static) {
        self.plan();
        *self.before.lock() = Some((when, Box::pin(other)));
    }

    /// Takes back what has not been done; false if it was. What a call of the background has begun is waited for.
    pub(super) async fn give_up(&self) -> bool {
        let taken = self.before.lock().take().is_some();
        let _done = self.acting.lock().await;
        taken
    }

    /// Lets the other client act, if it waits for this.
    async fn let_other(&self, waits_for: impl FnOnce(&mut When) -> bool) {
        if !self.counts() {
            return;
        }
        let (other, _acting) = {
            let mut before = self.before.lock();
            let other = before.take_if(|(when, _)| waits_for(when));
            // Nothing waits for it but who gives up, who does not keep it.
            let acting = other.as_ref().and_then(|_| Arc::clone(&self.acting).try_lock_owned().ok());
            (other, acting)
        };
        if let Some((_, other)) = other {
            other.await;
        }
    }

    /// From now on so many calls in a thousand go wrong; commits are lost three times as often.
    pub(super) fn set_faults(&self, faults: u64) {
        self.faults.store(faults, Ordering::Relaxed);
    }

    fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    async fn pause(&self) {
        let times = self.rng.lock().below(YIELDS_MAX);
        for _ in 0..times {
            tokio::task::yield_now().await;
        }
    }

    async fn enter(&self) -> Result<(), StoreError> {
        self.pause().await;
        let due = {
            let mut late = self.late.lock().await;
            match &mut *late {
                _ if !self.counts() => None,
                Some((0, _)) => late.take(),
                Some((others, _)) => {
                    *others -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some((_, commit)) = due {
            self.inner.commit(&commit).await?;
        }
        if self.rng.lock().per_mille(self.faults()) {
            return Err(StoreError::unavailable("injected: away"));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Flaky {
    crate::forward_store! { |self| self.inner => engine, lists_in_order, describe, create_schema, turns }

    async fn read(&self, reads: &[Read]) -> Result<Vec<Value>, StoreError> {
        self.enter().await?;
        self.let_other(When::is_this_call).await;
        let out = self.inner.read(reads).await;
        self.pause().await;
        out
    }

    async fn commit(&self, commit: &Commit) -> Result<Outcome, StoreError> {
        self.enter().await?;
        self.let_other(When::is_this_call).await;
        let chosen = self.fate.lock().take_if(|_| self.counts());
        let fate = chosen.or_else(|| {
            let mut rng = self.rng.lock();
            rng.per_mille(self.faults() * 3).then(|| match rng.below(3) {
                0 => Fate::Dropped,
                1 => Fate::Late(0),
                _ => Fate::Made,
            })
        });
        let lost = Err(StoreError::ambiguous("injected: lost"));
        match fate {
            Some(Fate::Dropped) => return lost,
            Some(Fate::Late(others)) => {
                *self.late.lock().await = Some((others, commit.clone()));
                return lost;
            }
            _ => {}
        }
        let out = self.inner.commit(commit).await;
        self.let_other(|when| matches!(when, When::Committed)).await;
        self.pause().await;
        if fate.is_some() && out.is_ok() { lost } else { out }
    }

    async fn list_dir(
        &self,
        dir: Ino,
        cursor: &DirCursor,
        limit: usize,
        attrs: bool,
    ) -> Result<(Vec<DirEntry>, DirCursor), StoreError> {
        self.enter().await?;
        self.let_other(When::is_this_call).await;
        self.inner.list_dir(dir, cursor, limit, attrs).await
    }

    async fn allocate(&self, counter: Counter, count: u64) -> Result<Range<u64>, StoreError> {
        self.enter().await?;
        self.let_other(When::is_this_call).await;
        self.inner.allocate(counter, count).await
    }

    async fn claim(&self, job: Job, now: i64, min_interval: i64) -> Result<bool, StoreError> {
        self.enter().await?;
        self.let_other(When::is_this_call).await;
        self.inner.claim(job, now, min_interval).await
    }

    async fn scan(&self, scan: &Scan, limit: usize) -> Result<Vec<Scanned>, StoreError> {
        self.enter().await?;
        self.let_other(When::is_this_call).await;
        self.inner.scan(scan, limit).await
    }

    // As an engine that has no clock and tells of no limit: every call here is one of an operation.
    async fn now(&self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    async fn memory(&self) -> Result<Option<EngineMemory>, StoreError> {
        Ok(None)
    }
}
