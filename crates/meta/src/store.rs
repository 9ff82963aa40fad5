//! The one door to a metadata engine.
//!
//! A [`Store`] holds typed records. It can answer a batch of [`Read`]s in one turn, and it can apply a [`Commit`]:
//! a list of [`Guard`]s that must all hold and a list of [`Write`]s that then happen, atomically and in one turn. If a
//! guard does not hold nothing is written and the answer carries the true value of every guarded record, so that the
//! operation can run again on the truth. No POSIX rule lives below this trait; no engine layout lives above it.

mod error;
mod forward;
mod guard;
mod record;
mod walk;
mod write;

use std::ops::Range;

use async_trait::async_trait;
use ciderfs_format::Ino;

pub use error::{Reason, StoreError};
pub use guard::{AttrMask, Guard};
pub use record::{Counter, DirStat, Job, LockKind, LockOwner, Name, QuotaKey, Read, Value};
pub use walk::{DirCursor, DirEntry, LeftOut, Passed, Scan, Scanned};
pub use write::{AttrPatch, Commit, Outcome, Output, Write};

/// Memory of an engine that keeps everything there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineMemory {
    /// Bytes that it uses.
    pub used: u64,
    /// Bytes that it may use, by its settings, else by the machine's memory; 0 if it does not tell.
    pub limit: u64,
}

/// A metadata engine.
///
/// Methods may be called concurrently. Retrying is the caller's business: a store reports `Unavailable` promptly (within
/// its own time-outs) and reconnects by itself on the next call.
///
/// No method has a default body: a store in front of another has to decide about each, see [`forward_store`](crate::forward_store).
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Short engine name for messages and metrics: `redis`, `sqlite3`, `memory`.
    fn engine(&self) -> &'static str;

    /// Are directories listed in order of names, so that a listing can go on after any name?
    fn lists_in_order(&self) -> bool;

    /// The address without secrets, for messages.
    fn describe(&self) -> String;

    /// Answers all reads in one turn, in order, as they were at one moment.
    async fn read(&self, reads: &[Read]) -> Result<Vec<Value>, StoreError>;

    /// Checks all guards, then applies all writes, atomically, in one turn.
    async fn commit(&self, commit: &Commit) -> Result<Outcome, StoreError>;

    /// One page of a directory, about `limit` entries, with attributes if asked for. Entries that exist during the whole
    /// walk appear at least once; a page may repeat names of earlier pages.
    async fn list_dir(
        &self,
        dir: Ino,
        cursor: &DirCursor,
        limit: usize,
        attrs: bool,
    ) -> Result<(Vec<DirEntry>, DirCursor), StoreError>;

    /// Reserves `count` consecutive numbers of `NextInode` or `NextChunk` for the caller alone.
    async fn allocate(&self, counter: Counter, count: u64) -> Result<Range<u64>, StoreError>;

    /// Claims a job: if its stamp is at most `now - min_interval` it becomes `now` (unix seconds) and the caller runs it. So does
    /// a stamp beyond `now + min_interval`: it is of a clock that was ahead, and would keep everybody from the job until then.
    async fn claim(&self, job: Job, now: i64, min_interval: i64) -> Result<bool, StoreError>;

    /// At most `limit` items of a scan. Walks that remove what they find simply scan again. Rows that make no sense are left out
    /// (see [`LeftOut`]).
    async fn scan(&self, scan: &Scan, limit: usize) -> Result<Vec<Scanned>, StoreError>;

    /// Creates the engine's tables for a new volume, where it has tables. Idempotent.
    async fn create_schema(&self) -> Result<(), StoreError>;

    /// Unix seconds by the engine's own clock, if it has one that all clients share.
    async fn now(&self) -> Result<Option<i64>, StoreError>;

    /// How full the engine's memory is, where that limits it and it tells. Cheap, but not for every second.
    async fn memory(&self) -> Result<Option<EngineMemory>, StoreError>;

    /// Number of turns made so far, for tests and metrics.
    fn turns(&self) -> u64;
}
