//! Jobs of the threads.

use ciderfs_format::Ino;
use ciderfs_meta::store::{
    Commit, Counter, DirCursor, DirEntry, Job, Outcome, Read, Scan, Scanned, StoreError, Value,
};
use tokio::sync::oneshot::Sender;

/// Where an answer goes.
pub(crate) type Answer<T> = Sender<Result<T, StoreError>>;

/// Work for a reader thread.
pub(crate) enum ReadTask {
    Read(Vec<Read>, Answer<Vec<Value>>),
    List {
        dir: Ino,
        cursor: DirCursor,
        limit: usize,
        attrs: bool,
        answer: Answer<(Vec<DirEntry>, DirCursor)>,
    },
    Scan(Scan, usize, Answer<Vec<Scanned>>),
}

/// Work for the writer thread.
pub(crate) enum WriteTask {
    Commit(Commit, Answer<Outcome>),
    Allocate(Counter, u64, Answer<std::ops::Range<u64>>),
    Claim(Job, i64, i64, Answer<bool>),
    Schema(Answer<()>),
}
