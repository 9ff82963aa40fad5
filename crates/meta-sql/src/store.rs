//! The store: threads, queues and the trait.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use async_trait::async_trait;
use ciderfs_format::Ino;
use ciderfs_meta::store::{
    Commit, Counter, DirCursor, DirEntry, Job, LeftOut, Outcome, Read, Scan, Scanned, Store, StoreError,
    Value,
};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::oneshot;

use crate::address::{Address, Journal};
use crate::codec::ATTR_COLUMNS;
use crate::error::{Failure, Result as Inner};
use crate::queue::Queue;
use crate::statements::Statements;
use crate::task::{Answer, ReadTask, WriteTask};
use crate::{reader, schema, writer};

/// Reader threads.
const READERS: usize = 2;
/// Calls that wait for a thread; more wait without a place in memory.
const QUEUE_MAX: usize = 1024;
/// Prepared statements kept per connection.
const STATEMENTS_MAX: usize = 128;

/// Mode of a new file.
const FILE_MODE: u32 = 0o600;

/// How a store is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Never write, and do not create the file.
    pub read_only: bool,
    /// Do not create the file.
    pub must_exist: bool,
}

/// What the threads share.
pub(crate) struct Shared {
    pub(crate) address: Address,
    pub(crate) statements: Statements,
    pub(crate) left_out: LeftOut,
}

impl Shared {
    pub(crate) fn error(&self, e: Failure) -> StoreError {
        e.into_store(&self.address.path)
    }
}

/// A volume in a SQLite file.
pub struct SqliteStore {
    shared: Arc<Shared>,
    reads: Arc<Queue<ReadTask>>,
    writes: Arc<Queue<WriteTask>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    read_only: bool,
    turns: AtomicU64,
}

impl SqliteStore {
    /// Opens `sqlite3://PATH[?options]` or a plain path; see [`Address`]. The file is created if it may be written.
    ///
    /// # Errors
    /// `Fatal` with a remedy if the file cannot be opened or is no database.
    pub fn open(url: &(impl AsRef<OsStr> + ?Sized), options: Options) -> Result<Self, StoreError> {
        let address = Address::parse(url)?;
        let read_only = options.read_only || address.read_only;
        let statements = Statements::new(&address.prefix, ATTR_COLUMNS);
        let shared = Arc::new(Shared { statements, address, left_out: LeftOut::default() });
        let explain = |e: Failure| shared.error(e);
        let (reads, writes) = (Arc::new(Queue::new(QUEUE_MAX)), Arc::new(Queue::new(QUEUE_MAX)));
        let mut threads = Vec::new();
        if !read_only {
            if options.must_exist && !shared.address.path.exists() {
                return Err(StoreError::Fatal(format!(
                    "no volume at {a}: the database is not formatted; create it first with `ciderfs format {a} NAME`",
                    a = shared.address
                )));
            }
            // Another process may be creating or completing the same file at this moment.
            let patience = shared.address.timeout;
            let conn = writer::retry_busy(patience, || connect(&shared.address, false)).map_err(explain)?;
            writer::retry_busy(patience, || schema::complete(&conn, &shared.address.prefix))
                .map_err(explain)?;
            let (shared, writes) = (Arc::clone(&shared), Arc::clone(&writes));
            threads.push(spawn("sqlite-writer", move || {
                writer::run(&conn, &shared, &writes);
                empty_wal(&conn, &shared.address);
            })?);
        }
        for _ in 0..READERS {
            let conn = connect(&shared.address, true).map_err(explain)?;
            let (shared, reads) = (Arc::clone(&shared), Arc::clone(&reads));
            threads.push(spawn("sqlite-reader", move || reader::run(&conn, &shared, &reads))?);
        }
        Ok(Self { shared, reads, writes, threads: Mutex::new(threads), read_only, turns: AtomicU64::new(0) })
    }

    /// Ends the connections, the writing one last: only it can move what is in the `-wal` file into the database. Calls that wait
    /// are carried out, later ones fail. Dropping the store does the same, for a process that lives on.
    pub fn close(&self) {
        self.reads.close();
        let mut threads = std::mem::take(&mut *self.threads.lock());
        let readers = threads.split_off(usize::from(!self.read_only).min(threads.len()));
        for thread in readers {
            let _ = thread.join();
        }
        self.writes.close();
        for thread in threads {
            let _ = thread.join();
        }
    }

    async fn ask<T>(&self, task: impl FnOnce(Answer<T>) -> ReadTask) -> Result<T, StoreError> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        if !self.reads.push(task(tx)).await {
            return Err(closed());
        }
        rx.await.map_err(|_| closed())?
    }

    async fn tell<T>(&self, task: impl FnOnce(Answer<T>) -> WriteTask) -> Result<T, StoreError> {
        if self.read_only {
            return Err(StoreError::Fatal(format!("{} is open read-only", self.shared.address)));
        }
        self.turns.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        if !self.writes.push(task(tx)).await {
            return Err(closed());
        }
        rx.await.map_err(|_| StoreError::Ambiguous("the writer of the SQLite file ended".into()))?
    }
}

/// Moves what is in the `-wal` file into the database, so that the database may be copied alone. Other processes that have it
/// open may be in the way; then the last of them does it.
fn empty_wal(conn: &Connection, address: &Address) {
    if address.journal != Journal::Wal {
        return;
    }
    if let Err(e) = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::debug!("emptying the log of {}: {e}", address.path.display());
    }
}

fn closed() -> StoreError {
    StoreError::Fatal("the SQLite store is closed".into())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|e| StoreError::Fatal(format!("cannot start a thread: {e}")))
}

/// Creates the file if it is missing, so that only its owner may read it: it holds names, attributes and keys of everybody.
/// SQLite gives the files beside it (`-wal`, `-shm`) the same mode. What stands in the way it will find too, and tell.
fn create_file(path: &Path) {
    let made = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path);
    if let Err(e) = made.map(drop)
        && e.kind() != std::io::ErrorKind::AlreadyExists
    {
        tracing::debug!("creating {}: {e}", path.display());
    }
}

fn connect(address: &Address, read_only: bool) -> Inner<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
        | if read_only {
            OpenFlags::SQLITE_OPEN_READ_ONLY
        } else {
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE
        };
    if !read_only {
        create_file(&address.path);
    }
    let conn = Connection::open_with_flags(&address.path, flags)?;
    conn.busy_timeout(address.timeout)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    if !read_only {
        conn.pragma_update(None, "journal_mode", address.journal.as_str())?;
        conn.pragma_update(None, "synchronous", address.sync.as_str())?;
        if let Some(pages) = address.page_limit {
            conn.pragma_update(None, "max_page_count", pages)?;
        }
    }
    Ok(conn)
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn engine(&self) -> &'static str {
        "sqlite3"
    }

    fn describe(&self) -> String {
        self.shared.address.to_string()
    }

    async fn read(&self, reads: &[Read]) -> Result<Vec<Value>, StoreError> {
        self.ask(|to| ReadTask::Read(reads.to_vec(), to)).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Outcome, StoreError> {
        self.tell(|to| WriteTask::Commit(commit.clone(), to)).await
    }

    async fn list_dir(
        &self,
        dir: Ino,
        cursor: &DirCursor,
        limit: usize,
        attrs: bool,
    ) -> Result<(Vec<DirEntry>, DirCursor), StoreError> {
        let cursor = cursor.clone();
        self.ask(|answer| ReadTask::List { dir, cursor, limit, attrs, answer }).await
    }

    async fn allocate(&self, counter: Counter, count: u64) -> Result<Range<u64>, StoreError> {
        self.tell(|to| WriteTask::Allocate(counter, count, to)).await
    }

    async fn claim(&self, job: Job, now: i64, min_interval: i64) -> Result<bool, StoreError> {
        self.tell(|to| WriteTask::Claim(job, now, min_interval, to)).await
    }

    async fn scan(&self, scan: &Scan, limit: usize) -> Result<Vec<Scanned>, StoreError> {
        self.ask(|to| ReadTask::Scan(scan.clone(), limit, to)).await
    }

    async fn create_schema(&self) -> Result<(), StoreError> {
        self.tell(WriteTask::Schema).await
    }

    fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }
}
