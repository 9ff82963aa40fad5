//! The writer thread: one SQL transaction for all that waits.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_meta::store::{Counter, Outcome, StoreError};
use rusqlite::{Connection, ErrorCode, params};

use crate::error::{Failure, Result as Inner};
use crate::queue::{Popped, Queue};
use crate::read::first;
use crate::store::Shared;
use crate::task::{Answer, WriteTask};
use crate::{names, schema, write};

/// Calls that share a transaction.
const GROUP_MAX: usize = 128;
/// First numbers ever handed out.
const FIRST_INODE: i64 = 2;
const FIRST_SLICE: i64 = 1;
/// Stretches of numbers in use that are passed over where a counter was set back.
const SKIPS_MAX: u32 = 10_000;

/// A call that was carried out in the open transaction, waiting for its COMMIT.
enum Done {
    Commit(Answer<Outcome>, Result<Outcome, StoreError>),
    Allocate(Answer<Range<u64>>, Result<Range<u64>, StoreError>),
    Claim(Answer<bool>, Result<bool, StoreError>),
    Schema(Answer<()>, Result<(), StoreError>),
}

impl Done {
    /// Tells the caller; `failed` is what happened to the whole transaction.
    fn answer(self, failed: Option<&StoreError>) {
        fn send<T>(to: Answer<T>, result: Result<T, StoreError>, failed: Option<&StoreError>) {
            let _ = to.send(failed.map_or(result, |e| Err(e.clone())));
        }
        match self {
            Self::Commit(to, r) => send(to, r, failed),
            Self::Allocate(to, r) => send(to, r, failed),
            Self::Claim(to, r) => send(to, r, failed),
            Self::Schema(to, r) => send(to, r, failed),
        }
    }

    fn error(&self) -> Option<StoreError> {
        match self {
            Self::Commit(_, r) => r.as_ref().err().cloned(),
            Self::Allocate(_, r) => r.as_ref().err().cloned(),
            Self::Claim(_, r) => r.as_ref().err().cloned(),
            Self::Schema(_, r) => r.as_ref().err().cloned(),
        }
    }
}

/// Serves writes until the queue is closed and empty.
pub(crate) fn run(conn: &Connection, shared: &Arc<Shared>, queue: &Arc<Queue<WriteTask>>) {
    loop {
        let first = match queue.pop(None) {
            Popped::Job(task) => task,
            Popped::Idle => continue,
            Popped::Closed => return,
        };
        let begun = retry_busy(shared.address.timeout, || Ok(conn.execute_batch("BEGIN IMMEDIATE")?));
        if let Err(e) = begun {
            refuse(first, shared.error(e));
            continue;
        }
        let mut done = vec![carry_out(conn, shared, first)];
        // A full disk or an input/output error ends the whole transaction, not only the call that met it.
        while !conn.is_autocommit() && done.len() < GROUP_MAX {
            match queue.try_pop() {
                Some(task) => done.push(carry_out(conn, shared, task)),
                None => break,
            }
        }
        let failed = if conn.is_autocommit() {
            let lost = || StoreError::unavailable("SQLite gave up the transaction");
            Some(done.last().and_then(Done::error).unwrap_or_else(lost))
        } else {
            finish(conn, shared)
        };
        for d in done {
            d.answer(failed.as_ref());
        }
    }
}

/// Makes the transaction durable, or tells what became of it.
fn finish(conn: &Connection, shared: &Shared) -> Option<StoreError> {
    let e = retry_busy(shared.address.timeout, || Ok(conn.execute_batch("COMMIT")?)).err()?;
    let unsure = e.code() == Some(ErrorCode::SystemIoFailure);
    if !conn.is_autocommit() {
        let _ = conn.execute_batch("ROLLBACK");
    }
    let e = shared.error(e);
    // The records may have reached the file before the disk failed; a recovery would find them.
    Some(if unsure { StoreError::ambiguous(e.to_string()).because(e) } else { e })
}

fn refuse(task: WriteTask, e: StoreError) {
    match task {
        WriteTask::Commit(_, to) => Done::Commit(to, Err(e)),
        WriteTask::Allocate(_, _, to) => Done::Allocate(to, Err(e)),
        WriteTask::Claim(_, _, _, to) => Done::Claim(to, Err(e)),
        WriteTask::Schema(to) => Done::Schema(to, Err(e)),
    }
    .answer(None);
}

/// Carries out one call; what it did before an error is undone, its neighbours' work stays.
fn carry_out(conn: &Connection, shared: &Shared, task: WriteTask) -> Done {
    match task {
        WriteTask::Commit(commit, to) => {
            Done::Commit(to, in_savepoint(conn, shared, || write::commit(conn, &shared.statements, &commit)))
        }
        WriteTask::Allocate(c, n, to) => {
            Done::Allocate(to, in_savepoint(conn, shared, || allocate(conn, shared, c, n)))
        }
        WriteTask::Claim(job, now, age, to) => Done::Claim(
            to,
            in_savepoint(conn, shared, || {
                let (before, after) = (now.saturating_sub(age), now.saturating_add(age));
                let params = params![names::job(job), now, before, after];
                let n = conn.prepare_cached(&shared.statements.claim)?.execute(params)?;
                Ok(n > 0)
            }),
        ),
        WriteTask::Schema(to) => {
            Done::Schema(to, in_savepoint(conn, shared, || schema::create(conn, &shared.address.prefix)))
        }
    }
}

fn in_savepoint<T>(
    conn: &Connection,
    shared: &Shared,
    work: impl FnOnce() -> Inner<T>,
) -> Result<T, StoreError> {
    let step = |sql: &str| conn.execute_batch(sql).map_err(|e| shared.error(e.into()));
    step("SAVEPOINT call")?;
    match work() {
        Ok(v) => {
            step("RELEASE call")?;
            Ok(v)
        }
        Err(e) => {
            if !conn.is_autocommit()
                && let Err(undo) = step("ROLLBACK TO call; RELEASE call")
            {
                // Half a call must not be committed.
                tracing::error!("a failed call cannot be undone alone: {undo}");
                let _ = conn.execute_batch("ROLLBACK");
            }
            Err(shared.error(e))
        }
    }
}

fn allocate(conn: &Connection, shared: &Shared, c: Counter, count: u64) -> Inner<Range<u64>> {
    let start = match c {
        Counter::NextInode => FIRST_INODE,
        Counter::NextChunk => FIRST_SLICE,
        _ => return Err(Failure::Store(StoreError::fatal(format!("{c:?} is not handed out in ranges")))),
    };
    let name = names::counter(c);
    let s = &shared.statements;
    let mut last = 0;
    for skipped in 0..SKIPS_MAX {
        let params = params![name, count as i64, start];
        let end = first(conn, &s.allocate, params, |r| Ok(r.get::<_, i64>(0)?))?;
        let end = end.and_then(|end| u64::try_from(end).ok()).ok_or_else(|| write::damaged_counter(c))?;
        let range = end.saturating_sub(count)..end;
        let used = params![range.start as i64, end as i64];
        let used = match c {
            Counter::NextChunk => {
                first(conn, &s.used_slice, used, |r| Ok(r.get::<_, Option<i64>>(0)?))?.flatten()
            }
            // Whoever makes a node looks whether its number is free.
            _ => None,
        };
        let Some(used) = used else {
            if skipped > 0 {
                tracing::warn!(
                    "{}: the counter {c:?} was set back; numbers up to {last} are in use",
                    shared.address
                );
            }
            return Ok(range);
        };
        last = used;
        conn.prepare_cached(&s.pass_numbers)?.execute(params![name, used + 1])?;
    }
    let text = format!(
        "the counter {c:?} was set back: numbers up to {last} and beyond are in use; set it above them"
    );
    Err(Failure::Store(StoreError::corrupt(text)))
}

/// Official clients hold the file's lock for short moments; the busy handler covers most of it.
pub(crate) fn retry_busy<T>(patience: Duration, mut work: impl FnMut() -> Inner<T>) -> Inner<T> {
    let until = Instant::now() + patience;
    loop {
        match work() {
            Err(e)
                if matches!(e.code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
                    && Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}
