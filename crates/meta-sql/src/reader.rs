//! Reader threads.

use std::sync::Arc;

use rusqlite::Connection;

use crate::error::{Failure, Result};
use crate::queue::{Popped, Queue};
use crate::store::Shared;
use crate::task::ReadTask;
use crate::{read, scan};

/// Serves reads until the queue is closed.
pub(crate) fn run(conn: &Connection, shared: &Arc<Shared>, queue: &Arc<Queue<ReadTask>>) {
    loop {
        let task = match queue.pop(None) {
            Popped::Job(task) => task,
            Popped::Idle => continue,
            Popped::Closed => return,
        };
        let s = &shared.statements;
        // A caller that has gone away does not want its answer.
        match task {
            ReadTask::Read(reads, answer) => {
                let values = snapshot(conn, || reads.iter().map(|r| read::read(conn, s, r)).collect());
                let _ = answer.send(values.map_err(|e| shared.error(e)));
            }
            ReadTask::List { dir, cursor, limit, attrs, answer } => {
                let page = read::list(conn, s, dir, &cursor, limit, attrs);
                let _ = answer.send(page.map_err(|e| shared.error(e)));
            }
            ReadTask::Scan(what, limit, answer) => {
                let items = scan::scan(conn, s, &shared.left_out, &what, limit);
                let _ = answer.send(items.map_err(|e| shared.error(e)));
            }
        }
    }
}

/// Runs several statements on one snapshot.
fn snapshot<T>(conn: &Connection, work: impl FnOnce() -> Result<T>) -> Result<T> {
    conn.execute_batch("BEGIN")?;
    let result = work();
    // An error may have ended the transaction already.
    if !conn.is_autocommit() {
        let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        conn.execute_batch(end).map_err(Failure::from)?;
    }
    result
}
