//! Deleting file data and dead slices in the background.
//!
//! Order matters: references are dropped first (in the engine), objects are deleted next, the record of the dead slice goes
//! last. A crash in between leaves a dead reference that the hourly job of any client finds.
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::slice::chunk_count;
use ciderfs_format::{Ino, SliceId};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::Result;
use crate::store::{AttrMask, Commit, Guard, Outcome, Output, Scan, Scanned, Write};
use crate::volume::{Meta, SliceRemover};

/// Files waiting; more are left to the hourly job.
const FILES_MAX: usize = 10_000;
/// Dead slices waiting; more are left to the hourly job.
const SLICES_MAX: usize = 100_000;
/// Chunk lists taken in one commit.
const CHUNKS_PER_COMMIT: usize = 200;
/// A file with more chunks than this has its existing lists looked up instead of being probed chunk by chunk.
const PROBED_CHUNKS_MAX: u32 = 4096;
/// How long the worker lets deletions gather, so that many small files share a turn.
const GATHER: Duration = Duration::from_millis(20);

/// What waits to be deleted.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<Waiting>,
    added: Notify,
}

#[derive(Default)]
struct Waiting {
    files: VecDeque<(Ino, u64)>,
    slices: VecDeque<(SliceId, u32)>,
}

impl Queue {
    /// A file whose `delfile` record has been written.
    pub(crate) fn push(&self, ino: Ino, length: u64) {
        let mut w = self.state.lock();
        if w.files.len() < FILES_MAX {
            w.files.push_back((ino, length));
            self.added.notify_one();
        }
    }

    /// Slices whose last reference is gone.
    pub(crate) fn push_slices(&self, slices: impl IntoIterator<Item = (SliceId, u32)>) {
        let mut w = self.state.lock();
        for s in slices {
            if w.slices.len() < SLICES_MAX {
                w.slices.push_back(s);
            }
        }
        self.added.notify_one();
    }

    /// The dead ones among the outputs of `Write::TakeSlices`.
    pub(crate) fn push_dead<'a>(&self, outputs: impl Iterator<Item = &'a Output>) {
        self.push_slices(dead_of(outputs));
    }

    /// The dead ones among slices and the outputs of their `Write::AddSliceRef`.
    pub(crate) fn push_counted<'a>(&self, counted: impl Iterator<Item = ((SliceId, u32), &'a Output)>) {
        self.push_slices(counted.filter(|(_, o)| matches!(o, Output::Int(n) if *n <= 0)).map(|(s, _)| s));
    }

    fn take(&self) -> Waiting {
        let mut w = self.state.lock();
        let files = w.files.len().min(CHUNKS_PER_COMMIT);
        Waiting { files: w.files.drain(..files).collect(), slices: std::mem::take(&mut w.slices) }
    }

    fn is_empty(&self) -> bool {
        let w = self.state.lock();
        w.files.is_empty() && w.slices.is_empty()
    }
}

fn dead_of<'a>(outputs: impl Iterator<Item = &'a Output>) -> Vec<(SliceId, u32)> {
    let mut dead: Vec<(SliceId, u32)> = outputs
        .filter_map(|o| if let Output::Slices(list) = o { Some(list) } else { None })
        .flatten()
        .filter(|(s, refs)| s.id.is_data() && *refs <= 0)
        .map(|(s, _)| (s.id, s.size))
        .collect();
    dead.sort_unstable();
    dead.dedup();
    dead
}

impl Meta {
    /// Deletes what waits now. Errors leave the rest to the hourly job.
    pub async fn drain_deletions(&self) {
        while !self.deletions.is_empty() {
            let waiting = self.deletions.take();
            if let Err(e) = self.delete_files(waiting.files.into()).await {
                tracing::warn!("deleting file data is left to the hourly job: {e}");
            }
            let mut slices: Vec<_> = waiting.slices.into();
            slices.extend(self.deletions.take_slices());
            self.remove_slices(slices).await;
        }
    }

    /// The worker of a session.
    pub(crate) async fn deletion_worker(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        loop {
            tokio::select! {
                biased;
                () = self.deletions.added.notified() => {}
                _ = stop.wait_for(|s| *s) => break,
            }
            ciderfs_rt::sleep(GATHER).await;
            self.drain_deletions().await;
        }
        self.drain_deletions().await;
    }

    /// Deletes what a process that was killed has noted and not deleted any more. What others have noted just now may be among it: data
    /// are taken from a file once, whoever does it.
    pub(crate) async fn take_up_deletions(self: Arc<Self>) {
        let found = async {
            let files = self.scan(Scan::Delfiles(i64::MAX), FILES_MAX).await?;
            let slices = self.scan(Scan::DeadSlices, SLICES_MAX).await?;
            Ok::<_, crate::error::Error>((files, slices))
        };
        let (files, slices) = match found.await {
            Ok(found) => found,
            Err(e) => return tracing::warn!("what was to be deleted is left to the hourly job: {e}"),
        };
        for file in files {
            if let Scanned::Delfile(ino, length, _) = file {
                self.deletions.push(ino, length);
            }
        }
        let dead = slices.into_iter();
        self.deletions.push_slices(dead.filter_map(|s| match s {
            Scanned::Slice(id, size) => Some((id, size)),
            _ => None,
        }));
    }

    /// Drops the lists of deleted files; slices that nobody uses any more are queued.
    async fn delete_files(&self, files: Vec<(Ino, u64)>) -> Result<()> {
        if self.drop_lists(&files).await? {
            return Ok(());
        }
        for file in files {
            if !self.drop_lists(&[file]).await? {
                tracing::error!("inode {} is to be deleted and lives: its data is kept", file.0);
            }
        }
        Ok(())
    }

    /// Drops the lists of some files. False if one of them lives: then none of them is finished.
    async fn drop_lists(&self, files: &[(Ino, u64)]) -> Result<bool> {
        let mut commit = Commit::default();
        for &(ino, length) in files {
            // Whatever went wrong before, the data of a file that can be reached is never dropped.
            let dead = Guard::Attr { ino, expect: None, mask: AttrMask::EXISTS };
            commit.guards.push(dead.clone());
            let chunks = chunk_count(length).max(1);
            let lists: Vec<u32> = if chunks <= PROBED_CHUNKS_MAX {
                (0..chunks).collect()
            } else {
                let lists = self.scan(Scan::Chunks(ino), usize::MAX).await?.into_iter();
                lists.filter_map(|i| if let Scanned::Chunk(indx) = i { Some(indx) } else { None }).collect()
            };
            for indx in lists {
                commit.writes.push(Write::TakeSlices(ino, indx));
                if commit.writes.len() >= CHUNKS_PER_COMMIT {
                    if !self.take_lists(std::mem::take(&mut commit)).await? {
                        return Ok(false);
                    }
                    commit.guards.push(dead.clone());
                }
            }
            commit.writes.push(Write::DelDelfile(ino, length));
        }
        self.take_lists(commit).await
    }

    async fn take_lists(&self, commit: Commit) -> Result<bool> {
        if commit.writes.is_empty() {
            return Ok(true);
        }
        match self.commit_repeatable(&commit).await? {
            Outcome::Done(outputs) => {
                self.deletions.push_dead(outputs.iter());
                Ok(true)
            }
            Outcome::Conflict(_) => Ok(false),
        }
    }

    /// Deletes the objects of dead slices, then their records.
    pub(crate) async fn remove_slices(&self, slices: Vec<(SliceId, u32)>) {
        let remover = self.remover.lock().clone();
        let Some(remover) = remover.filter(|_| self.cfg.max_deletes > 0 && !self.cfg.read_only) else {
            return;
        };
        for batch in slices.chunks(CHUNKS_PER_COMMIT) {
            // Each future owns what it needs: borrowing from the batch across the stream defeats the Send check.
            let calls: Vec<_> = batch.iter().map(|&slice| remove_one(Arc::clone(&remover), slice)).collect();
            let gone = stream::iter(calls).buffer_unordered(self.cfg.max_deletes);
            let gone: Vec<Option<(SliceId, u32)>> =
                gone.inspect(|_| self.counters.progress()).collect().await;
            let writes: Vec<Write> =
                gone.into_iter().flatten().map(|(id, size)| Write::DropSliceRef(id, size)).collect();
            if !writes.is_empty()
                && let Err(e) = self.commit_repeatable(&Commit { guards: Vec::new(), writes }).await
            {
                tracing::warn!("records of deleted slices are left to the hourly job: {e}");
            }
        }
    }
}

async fn remove_one(remover: Arc<dyn SliceRemover>, (id, size): (SliceId, u32)) -> Option<(SliceId, u32)> {
    match remover.remove_slice(id, size).await {
        Ok(()) => Some((id, size)),
        Err(e) => {
            tracing::warn!("objects of slice {id} are left to the hourly job: {e}");
            None
        }
    }
}

impl Queue {
    fn take_slices(&self) -> Vec<(SliceId, u32)> {
        std::mem::take(&mut self.state.lock().slices).into()
    }
}
