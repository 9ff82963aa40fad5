//! The writer thread: one SQL transaction for all that waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_meta::store::{Counter, Outcome, StoreError};
use rusqlite::{Connection, ErrorCode, params};

use crate::error::{Failure, Result};
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

/// A call that was carried out in the open transaction, waiting for its COMMIT.
enum Done {
    Commit(Answer<Outcome>, Result<Outcome>),
    Allocate(Answer<std::ops::Range<u64>>, Result<std::ops::Range<u64>>),
    Claim(Answer<bool>, Result<bool>),
    Schema(Answer<()>, Result<()>),
}

impl Done {
    fn answer(self, shared: &Shared, failed: Option<&StoreError>) {
        fn send<T>(to: Answer<T>, result: Result<T>, shared: &Shared, failed: Option<&StoreError>) {
            let result = match failed {
                Some(e) => Err(e.clone()),
                None => result.map_err(|e| shared.error(e)),
            };
            let _ = to.send(result);
        }
        match self {
            Self::Commit(to, r) => send(to, r, shared, failed),
            Self::Allocate(to, r) => send(to, r, shared, failed),
            Self::Claim(to, r) => send(to, r, shared, failed),
            Self::Schema(to, r) => send(to, r, shared, failed),
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
            let e = shared.error(e);
            refuse(first, shared, &e);
            continue;
        }
        let mut done = vec![carry_out(conn, shared, first)];
        while done.len() < GROUP_MAX {
            match queue.try_pop() {
                Some(task) => done.push(carry_out(conn, shared, task)),
                None => break,
            }
        }
        let committed = retry_busy(shared.address.timeout, || Ok(conn.execute_batch("COMMIT")?));
        let failed = committed.err().map(|e| {
            let _ = conn.execute_batch("ROLLBACK");
            shared.error(e)
        });
        for d in done {
            d.answer(shared, failed.as_ref());
        }
    }
}

fn refuse(task: WriteTask, shared: &Shared, e: &StoreError) {
    let never = || Err(Failure::Store(e.clone()));
    match task {
        WriteTask::Commit(_, to) => Done::Commit(to, never()).answer(shared, None),
        WriteTask::Allocate(_, _, to) => {
            Done::Allocate(to, Err(Failure::Store(e.clone()))).answer(shared, None)
        }
        WriteTask::Claim(_, _, _, to) => Done::Claim(to, Err(Failure::Store(e.clone()))).answer(shared, None),
        WriteTask::Schema(to) => Done::Schema(to, Err(Failure::Store(e.clone()))).answer(shared, None),
    }
}

/// Carries out one call; what it did before an error is undone, its neighbours' work stays.
fn carry_out(conn: &Connection, shared: &Shared, task: WriteTask) -> Done {
    match task {
        WriteTask::Commit(commit, to) => {
            Done::Commit(to, in_savepoint(conn, || write::commit(conn, &shared.statements, &commit)))
        }
        WriteTask::Allocate(c, n, to) => {
            Done::Allocate(to, in_savepoint(conn, || allocate(conn, shared, c, n)))
        }
        WriteTask::Claim(job, now, age, to) => Done::Claim(
            to,
            in_savepoint(conn, || {
                let n = conn.prepare_cached(&shared.statements.claim)?.execute(params![
                    names::job(job),
                    now,
                    now - age
                ])?;
                Ok(n > 0)
            }),
        ),
        WriteTask::Schema(to) => {
            Done::Schema(to, in_savepoint(conn, || schema::create(conn, &shared.address.prefix)))
        }
    }
}

fn in_savepoint<T>(conn: &Connection, work: impl FnOnce() -> Result<T>) -> Result<T> {
    conn.execute_batch("SAVEPOINT call")?;
    match work() {
        Ok(v) => {
            conn.execute_batch("RELEASE call")?;
            Ok(v)
        }
        Err(e) => {
            conn.execute_batch("ROLLBACK TO call; RELEASE call")?;
            Err(e)
        }
    }
}

fn allocate(conn: &Connection, shared: &Shared, c: Counter, count: u64) -> Result<std::ops::Range<u64>> {
    let start = match c {
        Counter::NextInode => FIRST_INODE,
        Counter::NextChunk => FIRST_SLICE,
        _ => return Err(Failure::Store(StoreError::Fatal(format!("{c:?} is not handed out in ranges")))),
    };
    let name = names::counter(c);
    let sql = &shared.statements.allocate;
    let end =
        first(conn, sql, params![name, count as i64, start], |r| Ok(r.get::<_, i64>(0)?))?.unwrap_or(start);
    Ok(end as u64 - count..end as u64)
}

/// Official clients hold the file's lock for short moments; the busy handler covers most of it.
fn retry_busy<T>(patience: Duration, mut work: impl FnMut() -> Result<T>) -> Result<T> {
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
