//! Runs operations: fetches what they miss, commits what they decide, retries what may be retried.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ciderfs_format::Ino;
use ciderfs_rt::Instant;

use crate::beliefs::believe;
use crate::error::{Errno, Error, Result};
use crate::known::Known;
use crate::ledger::Asked;
use crate::lost::{Lost, pin};
use crate::observe::Happened;
use crate::store::{
    Commit, Counter, Guard, Outcome, Output, QuotaKey, Read, Scan, Scanned, StoreError, Value, Write,
};
use crate::txn::{Step, Stop, Txn};
use crate::volume::Meta;

/// Attempts to commit one operation before it is given up, which also takes [`crate::MetaConfig::retry_patience`].
const ATTEMPTS_MIN: u32 = 100;
/// Fetches of one operation. Only the move of a directory, which looks at every ancestor, needs more than a few.
const FETCHES_MAX: u32 = 20_000;
/// Conflicts after which attempts are spread out in time.
const EAGER_CONFLICTS: u32 = 4;
/// Longest pause after a conflict; shorter ones are measured in turns of the engine.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Longest pause between attempts to reach an engine.
const PAUSE_MAX: Duration = Duration::from_millis(1000);

/// Counts for metrics.
#[derive(Debug, Default)]
pub(crate) struct RunCounters {
    pub(crate) commits: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) retries: AtomicU64,
    /// Times that the session was declared dead.
    pub(crate) losses: AtomicU64,
    /// Calls of the store that were answered, objects that were removed.
    pub(crate) progress: AtomicU64,
}

impl RunCounters {
    pub(crate) fn progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

/// Result of a committed operation.
pub(crate) struct Ran<T> {
    pub(crate) value: T,
    /// One per write; empty if the commit was found applied after a lost reply.
    pub(crate) outputs: Vec<Output>,
}

impl<T> Ran<T> {
    /// The number that a write reported.
    pub(crate) fn int(&self, index: usize) -> Option<i64> {
        match self.outputs.get(index) {
            Some(Output::Int(n)) => Some(*n),
            _ => None,
        }
    }

    /// Lengths of lists as their appends have told them: for chunks with the index of the write, chunks with the length.
    pub(crate) fn lists(&self, appends: &[(u32, usize)]) -> Vec<(u32, usize)> {
        appends.iter().map(|(indx, at)| (*indx, self.int(*at).unwrap_or(0) as usize)).collect()
    }
}

impl Meta {
    /// Runs an operation to its end. The function may be called many times. `method` is what observers are told.
    pub(crate) async fn run<T, F>(&self, method: &'static str, mut op: F) -> Result<Ran<T>>
    where
        F: FnMut(&mut Txn<'_>) -> Step<T> + Send,
        T: Send,
    {
        let began = Instant::now();
        let mut known = Known::default();
        let (mut attempts, mut fetches, mut conflicts) = (0, 0, 0);
        let mut lost: Vec<Lost<T>> = Vec::new();
        let mut stamp = None;
        let mut patience = Patience::new(self.cfg.retry_patience);
        let deadline = Instant::now() + self.cfg.retry_patience;
        while (attempts < ATTEMPTS_MIN || Instant::now() < deadline) && fetches < FETCHES_MAX {
            // The transaction borrows `known`; everything that outlives the attempt is taken out of it here.
            let (result, missing, believed, unsettled, mut commit, proof, _hold) = {
                let mut t = Txn::new(&known, &self.beliefs, stamp.unwrap_or_else(|| self.clock.now()));
                let result = op(&mut t).and_then(|value| self.account(&mut t).map(|()| value));
                let settles = match &result {
                    Ok(_) => t.commit.writes.is_empty(),
                    Err(stop) => matches!(stop, Stop::Fail(_)),
                };
                let proofs = lost.iter().flat_map(|l| l.proof.reads());
                let unsettled = if settles { t.unsettled(proofs.collect()) } else { Vec::new() };
                let proof = t.proof.map(|p| (p, t.now));
                let missing = (t.missing_inode, t.missing, t.missing_trees);
                (result, missing, t.believed, unsettled, t.commit, proof, t.hold)
            };
            let value = match result {
                Err(Stop::Need) if missing.0 => {
                    known.inode = Some(Ino(self.retry(|| self.inodes.next()).await?));
                    continue;
                }
                Err(Stop::Need) => {
                    let (_, missing, trees) = missing;
                    // Beliefs used so far cost nothing more in the same turn, and then cannot fail the commit.
                    fetches += 1;
                    self.fetch(&mut known, missing.into_iter().chain(believed)).await?;
                    self.sum_trees(&mut known, trees).await?;
                    continue;
                }
                Err(Stop::Fail(_)) | Ok(_) if !unsettled.is_empty() => {
                    fetches += 1;
                    self.fetch(&mut known, unsettled).await?;
                    continue;
                }
                Err(Stop::Fail(e)) => {
                    // It may fail just because a lost attempt was applied late.
                    let values = known.answers(&lost);
                    return self.applied(&mut lost, &values).ok_or(e);
                }
                Ok(value) if commit.writes.is_empty() => {
                    let values = known.answers(&lost);
                    let found = self.applied(&mut lost, &values);
                    return Ok(found.unwrap_or(Ran { value, outputs: Vec::new() }));
                }
                Ok(value) => value,
            };
            if self.cfg.read_only {
                return Err(Errno::EROFS.into());
            }
            attempts += 1;
            commit.guards.extend(lost.iter().flat_map(|l| l.pin.clone()));
            let (sent, asked) = (Instant::now(), self.ledger.ask());
            match self.store.commit(&commit).await {
                Ok(Outcome::Done(outputs)) => {
                    self.counters.commits.fetch_add(1, Ordering::Relaxed);
                    self.observed.tell(Happened::Transaction, method, began.elapsed());
                    self.counters.progress();
                    believe(&commit, &outputs, &self.beliefs);
                    self.note_usage(&asked, &commit, &outputs);
                    return Ok(Ran { value, outputs });
                }
                Ok(Outcome::Conflict(truths)) => {
                    self.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                    self.observed.tell(Happened::Restart, method, Duration::ZERO);
                    known.begin_turn();
                    for (guard, truth) in commit.guards.iter().zip(truths) {
                        self.note_figures(&asked, &guard.read(), &truth);
                        known.learn(guard.read(), truth, &self.beliefs);
                    }
                    let (found, values) = self.look_for(&mut lost).await?;
                    if let Some(found) = found {
                        return Ok(found);
                    }
                    pin(&mut lost, values)?;
                    conflicts += 1;
                    // After a lost reply the less comes between the look and the next attempt, the more often it succeeds.
                    if conflicts > EAGER_CONFLICTS && lost.is_empty() {
                        let turns = (conflicts - EAGER_CONFLICTS).saturating_pow(2);
                        let most = sent.elapsed().saturating_mul(turns).min(CONFLICT_PAUSE_MAX);
                        let pause = most.mul_f64(ciderfs_rt::random_range(0.0..1.0));
                        ciderfs_rt::sleep(pause).await;
                        // What the conflict told is old by now, and would lose against any steady stream of changes.
                        self.fetch(&mut known, commit.guards.iter().map(Guard::read)).await?;
                    }
                }
                Err(e @ StoreError::Unavailable(_)) => {
                    self.counters.retries.fetch_add(1, Ordering::Relaxed);
                    patience.pause(e).await?;
                }
                Err(StoreError::Ambiguous(why)) => {
                    self.counters.retries.fetch_add(1, Ordering::Relaxed);
                    // It may have been made: what it takes is counted until the engine is asked again.
                    self.note_usage(&asked, &commit, &[]);
                    let Some((proof, now)) = proof else { return Err(StoreError::Ambiguous(why).into()) };
                    tracing::warn!(
                        "a reply of the metadata engine was lost ({why}); checking whether the change was made"
                    );
                    // What an earlier attempt left in the same places, this one leaves too.
                    let same = lost.iter().position(|earlier| earlier.proof.reads() == proof.reads());
                    let before = same.map(|i| lost.remove(i).pin).unwrap_or_default();
                    lost.push(Lost { proof, value, pin: before });
                    let (found, values) = self.look_for(&mut lost).await?;
                    if let Some(found) = found {
                        return Ok(found);
                    }
                    // Not there (yet): the guards decide about the next attempt, on fresh values.
                    pin(&mut lost, values)?;
                    // All attempts from here on carry the same time, so that the proof recognises each of them.
                    stamp = Some(now);
                    known = Known::default();
                    self.beliefs.clear();
                }
                Err(e) => return Err(e.into()),
            }
        }
        tracing::warn!(
            "an operation was given up after {attempts} attempts and {fetches} fetches: too many clients change the same records"
        );
        Err(Errno::EIO.into())
    }

    async fn fetch(&self, known: &mut Known, reads: impl IntoIterator<Item = Read>) -> Result<()> {
        let mut seen = HashSet::new();
        let wanted: Vec<Read> = reads.into_iter().filter(|r| seen.insert(r.clone())).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let asked = self.ledger.ask();
        let values = self.read(&wanted).await?;
        known.begin_turn();
        for (read, value) in wanted.into_iter().zip(values) {
            self.note_figures(&asked, &read, &value);
            known.learn(read, value, &self.beliefs);
        }
        Ok(())
    }

    /// Reads with retries while the engine is unavailable.
    pub(crate) async fn read(&self, reads: &[Read]) -> Result<Vec<Value>> {
        let mut patience = Patience::new(self.cfg.retry_patience);
        loop {
            match self.store.read(reads).await {
                Ok(values) if values.len() == reads.len() => {
                    self.counters.progress();
                    return Ok(values);
                }
                Ok(_) => {
                    return Err(StoreError::another_question().into());
                }
                Err(e @ (StoreError::Unavailable(_) | StoreError::Ambiguous(_))) => {
                    self.counters.retries.fetch_add(1, Ordering::Relaxed);
                    patience.pause(e).await?;
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Commits unconditional, repeatable writes (maintenance), with retries. A lost reply is answered by sending again, so
    /// nothing that counts may be among the writes.
    pub(crate) async fn commit_repeatable(&self, commit: &Commit) -> Result<Outcome> {
        self.retry(|| self.store.commit(commit)).await
    }

    /// Retries a call of the store that may be repeated.
    pub(crate) async fn retry<T, F, Fut>(&self, mut call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, StoreError>>,
    {
        let mut patience = Patience::new(self.cfg.retry_patience);
        loop {
            match call().await {
                Ok(v) => {
                    self.counters.progress();
                    return Ok(v);
                }
                Err(e @ (StoreError::Unavailable(_) | StoreError::Ambiguous(_))) => patience.pause(e).await?,
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// A page of maintenance items, with retries.
    pub(crate) async fn scan(&self, scan: Scan, limit: usize) -> Result<Vec<Scanned>> {
        self.retry(|| self.store.scan(&scan, limit)).await
    }

    /// Enters what a commit has changed. Without outputs nobody knows whether it was made: only what it takes is entered.
    fn note_usage(&self, asked: &Asked, commit: &Commit, outputs: &[Output]) {
        let known = !outputs.is_empty();
        let counted = |n: i64| if known { n } else { n.max(0) };
        for (at, write) in commit.writes.iter().enumerate() {
            let told = match outputs.get(at) {
                Some(Output::Int(n)) => Some(*n),
                _ => None,
            };
            match write {
                Write::AddCounter(Counter::UsedSpace, n) => asked.took_space(counted(*n), told),
                Write::AddCounter(Counter::TotalInodes, n) => asked.took_inodes(counted(*n), told),
                Write::AddDirStat(dir, _) if told == Some(0) => self.ledger.note_missing_stat(*dir),
                Write::AddQuota(key @ QuotaKey::Dir(_), ..) if told == Some(0) => asked.quota(*key, None),
                Write::AddQuota(key, space, inodes) => {
                    asked.took_quota(*key, counted(*space), counted(*inodes));
                }
                Write::DelDirStat(dir) if known => self.ledger.forget(QuotaKey::Dir(*dir)),
                Write::PutAcl(id, rule) if known && self.rules.learn(*id, rule).is_ok() => {
                    self.rules.looked_at(*id);
                }
                _ => {}
            }
        }
    }
}

/// How long to keep trying, with growing jittered pauses.
struct Patience {
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    fn new(whole: Duration) -> Self {
        Self { deadline: Instant::now() + whole, pause: Duration::from_millis(5) }
    }

    async fn pause(&mut self, e: StoreError) -> Result<(), Error> {
        if Instant::now() >= self.deadline {
            tracing::error!("the metadata engine stayed unavailable: {e}");
            return Err(e.into());
        }
        let jitter = ciderfs_rt::random_range(0.5..1.0);
        ciderfs_rt::sleep(self.pause.mul_f64(jitter)).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}
