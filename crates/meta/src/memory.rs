//! The in-memory [`Store`]: the reference for every engine, and the one that tests can make misbehave.
//!
//! It keeps plain ordered maps under one mutex. [`Guard::holds`] decides guards. A [`FaultPlan`] loses calls or
//! replies, and a hook slips a foreign commit in just before the next one, which provokes conflicts on demand.

mod apply;
mod tables;

use std::ops::Range;

use async_trait::async_trait;
use ciderfs_format::Ino;
use parking_lot::Mutex;

use crate::store::{
    Commit, Counter, DirCursor, DirEntry, EngineMemory, Job, Outcome, Read, Scan, Scanned, Store, StoreError,
    Value,
};
use tables::Tables;

/// Faults of the next calls. Each number counts down to 0, in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultPlan {
    /// So many calls of any kind are let through first.
    pub pass: u32,
    /// So many calls answer `Unavailable` and do nothing.
    pub unavailable: u32,
    /// So many commits are applied, but the reply is lost (`Ambiguous`).
    pub lost_reply: u32,
    /// So many commits are not applied and answer `Ambiguous` (the request was lost).
    pub lost_request: u32,
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Calls of any kind, failed ones too.
    pub turns: u64,
    /// Commits applied, also those whose reply was lost. Commits of the hook do not count.
    pub commits: u64,
    /// Commits refused by a guard.
    pub conflicts: u64,
}

/// Runs once, before the next commit; what it returns is committed first.
pub type BeforeCommit = Box<dyn FnOnce() -> Commit + Send>;

#[derive(Default)]
struct Inner {
    tables: Tables,
    faults: FaultPlan,
    /// Is the current call past the `pass` of the plan?
    faults_due: bool,
    counts: Counts,
    before: Option<BeforeCommit>,
}

/// A volume's metadata in memory.
#[derive(Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

/// What the fault plan says about a commit.
enum Fate {
    Normal,
    LoseReply,
    LoseRequest,
}

impl MemoryStore {
    /// An empty, unformatted volume.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces the plan of faults.
    pub fn set_fault(&self, plan: FaultPlan) {
        self.inner.lock().faults = plan;
    }

    /// Runs `hook` just before the next commit and applies the commit that it returns, as another client would.
    pub fn before_next_commit(&self, hook: impl FnOnce() -> Commit + Send + 'static) {
        self.inner.lock().before = Some(Box::new(hook));
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        self.inner.lock().counts
    }

    /// Counts a call and lets it fail if the plan says so.
    fn enter<T>(&self, f: impl FnOnce(&mut Inner) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut inner = self.inner.lock();
        inner.counts.turns += 1;
        inner.faults_due = inner.faults.pass == 0;
        if !inner.faults_due {
            inner.faults.pass -= 1;
        } else if inner.faults.unavailable > 0 {
            inner.faults.unavailable -= 1;
            return Err(StoreError::unavailable("injected: engine unavailable"));
        }
        f(&mut inner)
    }
}

impl Inner {
    fn fate(&mut self) -> Fate {
        let f = &mut self.faults;
        if !self.faults_due {
            Fate::Normal
        } else if f.lost_reply > 0 {
            f.lost_reply -= 1;
            Fate::LoseReply
        } else if f.lost_request > 0 {
            f.lost_request -= 1;
            Fate::LoseRequest
        } else {
            Fate::Normal
        }
    }

    fn commit(&mut self, commit: &Commit) -> Result<Outcome, StoreError> {
        let found: Vec<Value> = commit.guards.iter().map(|g| self.tables.read(&g.read())).collect();
        if !commit.guards.iter().zip(&found).all(|(g, v)| g.holds(v)) {
            self.counts.conflicts += 1;
            return Ok(Outcome::Conflict(found));
        }
        // A failing write must leave nothing behind: work on a copy only when there is something that can fail.
        let backup = commit.writes.iter().any(apply::can_fail).then(|| self.tables.clone());
        let mut out = Vec::with_capacity(commit.writes.len());
        for w in &commit.writes {
            match self.tables.apply(w) {
                Ok(o) => out.push(o),
                Err(e) => {
                    if let Some(b) = backup {
                        self.tables = b;
                    }
                    return Err(e);
                }
            }
        }
        self.counts.commits += 1;
        Ok(Outcome::Done(out))
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn engine(&self) -> &'static str {
        "memory"
    }

    fn lists_in_order(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "memory".into()
    }

    async fn read(&self, reads: &[Read]) -> Result<Vec<Value>, StoreError> {
        self.enter(|i| Ok(reads.iter().map(|r| i.tables.read(r)).collect()))
    }

    async fn commit(&self, commit: &Commit) -> Result<Outcome, StoreError> {
        let before = self.inner.lock().before.take();
        let foreign = before.map(|hook| hook());
        let outcome = self.enter(|i| {
            if let Some(foreign) = foreign {
                let counts = i.counts;
                i.commit(&foreign)?;
                i.counts = counts;
            }
            match i.fate() {
                Fate::Normal => i.commit(commit),
                Fate::LoseRequest => Err(StoreError::ambiguous("injected: request lost")),
                Fate::LoseReply => {
                    i.commit(commit)?;
                    Err(StoreError::ambiguous("injected: reply lost"))
                }
            }
        });
        if let Ok(Outcome::Done(_)) = outcome {
            // As a wire would: who has had a turn waits while others have theirs.
            tokio::task::yield_now().await;
        }
        outcome
    }

    async fn list_dir(
        &self,
        dir: Ino,
        cursor: &DirCursor,
        limit: usize,
        attrs: bool,
    ) -> Result<(Vec<DirEntry>, DirCursor), StoreError> {
        self.enter(|i| i.tables.list_dir(dir, cursor, limit, attrs))
    }

    async fn allocate(&self, counter: Counter, count: u64) -> Result<Range<u64>, StoreError> {
        self.enter(|i| i.tables.allocate(counter, count))
    }

    async fn claim(&self, job: Job, now: i64, min_interval: i64) -> Result<bool, StoreError> {
        self.enter(|i| Ok(i.tables.claim(job, now, min_interval)))
    }

    async fn scan(&self, scan: &Scan, limit: usize) -> Result<Vec<Scanned>, StoreError> {
        self.enter(|i| Ok(i.tables.scan(scan, limit)))
    }

    async fn create_schema(&self) -> Result<(), StoreError> {
        self.enter(|_| Ok(()))
    }

    async fn now(&self) -> Result<Option<i64>, StoreError> {
        Ok(None)
    }

    async fn memory(&self) -> Result<Option<EngineMemory>, StoreError> {
        Ok(None)
    }

    fn turns(&self) -> u64 {
        self.inner.lock().counts.turns
    }
}
