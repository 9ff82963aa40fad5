//! Background jobs of the fleet (`docs/format/sessions-and-locks.md#background-jobs`): each run is claimed, so that one client does it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::trash::parse_hour;
use ciderfs_format::{Attr, Ino, align4k};
use ciderfs_rt::Instant;

use crate::error::Result;
use crate::seen::SeenNames;
use crate::session::jittered;
use crate::store::{Commit, DirCursor, DirStat, Guard, Job, Outcome, Scan, Scanned, Write};
use crate::types::Caller;
use crate::volume::Meta;

/// How often a client looks whether a job is due.
const JOB_INTERVAL: Duration = Duration::from_secs(3600);
/// Age of the last run that makes a job due, in seconds.
const JOB_AGE: i64 = 3240;
/// A run ends after this long, to stay clear of the next winner.
const JOB_LIMIT: Duration = Duration::from_secs(50 * 60);
/// Items per scan.
const BATCH: usize = 1000;
/// Entries listed at a time.
const PAGE: usize = 1000;
/// Directories whose missing usage records are gathered before they are computed.
const DIR_STAT_INTERVAL: Duration = Duration::from_secs(1);

/// A directory that is being emptied, in passes: the last one finds nothing, or nothing that can be removed.
struct Emptied {
    dir: Ino,
    cursor: DirCursor,
    /// In this pass: entries were found, some were removed or looked into.
    found: bool,
    removed: bool,
}

impl Emptied {
    fn new(dir: Ino) -> Self {
        Self { dir, cursor: DirCursor::Start, found: false, removed: false }
    }
}

impl Meta {
    /// Ends sessions that were not refreshed in time, if this client wins the claim.
    pub(crate) async fn clean_stale_sessions(&self) -> Result<()> {
        let engine = self.engine_now().await?;
        let dead = self.look_at(&self.sessions().await?, engine);
        if dead.is_empty() {
            return Ok(());
        }
        let now = engine.unwrap_or_else(|| self.clock.now().sec);
        let age = (self.cfg.heartbeat.as_secs() as i64) * 9 / 10;
        let ours = self.retry(|| self.store.claim(Job::CleanupSessions, now, age)).await?;
        for (sid, overdue) in dead {
            // Who claims the run may have seen less, or have died since; a session may be ended twice.
            if ours || overdue {
                tracing::info!("ending session {sid}, whose client went away");
                // One that cannot be ended must not keep the locks of others.
                if let Err(e) = self.clean_session(sid).await {
                    tracing::warn!("session {sid}: {e}");
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn hourly_jobs(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        loop {
            tokio::select! {
                biased;
                () = ciderfs_rt::sleep(jittered(JOB_INTERVAL)) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            let work = async {
                if let Err(e) = self.run_hourly_jobs().await {
                    tracing::warn!("background jobs: {e}");
                }
            };
            tokio::select! {
                biased;
                () = work => {}
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    }

    /// Runs the hourly jobs that are due and that this client wins.
    pub async fn run_hourly_jobs(&self) -> Result<()> {
        let now = self.engine_now().await?.unwrap_or_else(|| self.clock.now().sec);
        // What one of them cannot read must not keep the others from their work.
        let mut failed = Ok(());
        let mut done = |result: Result<()>| {
            if let Err(e) = result
                && let Err(earlier) = std::mem::replace(&mut failed, Err(e))
            {
                tracing::warn!("background jobs: {earlier}");
            }
        };
        if self.claim(Job::CleanupFiles, now).await? {
            done(self.clean_detached(now).await);
            done(self.clean_deleted_files(now).await);
        }
        if self.claim(Job::CleanupSlices, now).await? {
            done(self.clean_dead_slices().await);
        }
        if self.claim(Job::CleanupTrash, now).await? {
            done(self.expire_trash(now).await);
            done(self.expire_delayed_slices(now).await);
        }
        failed
    }

    async fn claim(&self, job: Job, now: i64) -> Result<bool> {
        self.retry(|| self.store.claim(job, now, JOB_AGE)).await
    }

    async fn clean_deleted_files(&self, now: i64) -> Result<()> {
        let until = Instant::now() + JOB_LIMIT;
        let mut last: Vec<Scanned> = Vec::new();
        while Instant::now() < until {
            let items = self.scan(Scan::Delfiles(now.saturating_sub(3600)), BATCH).await?;
            // Nothing left, or nothing that can be removed now.
            if items.is_empty() || items == last {
                break;
            }
            for item in &items {
                if let Scanned::Delfile(ino, length, _) = item {
                    self.deletions.push(*ino, *length);
                }
            }
            self.drain_deletions().await;
            last = items;
        }
        Ok(())
    }

    async fn clean_dead_slices(&self) -> Result<()> {
        let until = Instant::now() + JOB_LIMIT;
        let mut last: Vec<Scanned> = Vec::new();
        while Instant::now() < until {
            let items = self.scan(Scan::DeadSlices, BATCH).await?;
            if items.is_empty() || items == last {
                break;
            }
            let dead = items
                .iter()
                .filter_map(|i| if let Scanned::Slice(id, size) = i { Some((*id, *size)) } else { None });
            self.remove_slices(dead.collect()).await;
            last = items;
        }
        Ok(())
    }

    async fn expire_delayed_slices(&self, now: i64) -> Result<()> {
        let edge = now - i64::from(self.settings().trash_days) * 86_400;
        let until = Instant::now() + JOB_LIMIT;
        for item in self.scan(Scan::DelayedSlices, usize::MAX).await? {
            let Scanned::Delayed(id, at, slices) = item else { continue };
            if at >= edge {
                continue;
            }
            if Instant::now() > until {
                break;
            }
            let mut writes = vec![Write::DelDelayedSlices(id, at)];
            writes.extend(slices.iter().map(|&(id, size)| Write::AddSliceRef(id, size, -1)));
            // Not repeatable: a reference dropped twice would delete living data. A failure is left to the next run.
            if let Outcome::Done(outputs) = self.store.commit(&Commit { guards: Vec::new(), writes }).await? {
                self.deletions.push_counted(slices.into_iter().zip(&outputs[1..]));
            }
        }
        self.drain_deletions().await;
        Ok(())
    }

    /// Empties and removes hourly directories older than the trash days, oldest first.
    async fn expire_trash(&self, now: i64) -> Result<()> {
        let edge = now - (24 * i64::from(self.settings().trash_days) + 2) * 3600;
        let until = Instant::now() + JOB_LIMIT;
        let root = Caller::root();
        let mut hours: Vec<(i64, Vec<u8>, Ino)> = Vec::new();
        let mut cursor = DirCursor::Start;
        while cursor != DirCursor::End {
            let page = self.list_dir(&root, Ino::TRASH, &cursor, PAGE, false).await?;
            for e in page.entries {
                if let Some(hour) = std::str::from_utf8(&e.name).ok().and_then(parse_hour) {
                    hours.push((hour, e.name, e.edge.ino));
                }
            }
            cursor = page.next;
        }
        hours.sort_unstable();
        for (hour, name, ino) in hours {
            if hour >= edge || Instant::now() > until {
                break;
            }
            let emptied = self.empty_dir(ino, until, false).await;
            let removed = match emptied {
                Ok(true) => self.rmdir_into(&root, Ino::TRASH, &name, None).await.map(|_| ()),
                // The next run goes on.
                Ok(false) => break,
                Err(e) => Err(e),
            };
            if let Err(e) = removed {
                tracing::warn!("trash of {}: {e}", name.escape_ascii());
            }
        }
        self.drain_deletions().await;
        Ok(())
    }

    /// Removes everything below a directory, for good; false if time ended before. `unprotect`: flags keep nothing there.
    ///
    /// An engine that is asked from the beginning again may pass over a part of a large directory that is empty by now without
    /// getting further, so the listing goes on where it was.
    pub(crate) async fn empty_dir(&self, top: Ino, until: Instant, unprotect: bool) -> Result<bool> {
        let root = Caller::root();
        let mut stack = vec![Emptied::new(top)];
        // A directory that is met again holds what cannot be removed, or itself.
        let mut seen = HashSet::from([top]);
        while let Some(at) = stack.last_mut() {
            if Instant::now() > until {
                return Ok(false);
            }
            if at.cursor == DirCursor::End {
                // What was added, or pushed aside, while it was listed.
                let again = at.removed && at.found;
                *at = Emptied::new(at.dir);
                if !again {
                    stack.pop();
                }
                continue;
            }
            let dir = at.dir;
            let page = self.list_dir(&root, dir, &at.cursor, PAGE, false).await?;
            at.cursor = page.next;
            at.found |= !page.entries.is_empty();
            let (mut removed_any, mut below) = (false, Vec::new());
            for e in page.entries {
                let removed = if e.edge.kind == ciderfs_format::FileType::Directory {
                    self.rmdir_into(&root, dir, &e.name, None).await
                } else {
                    self.unlink_into(&root, dir, &e.name, None).await
                };
                match removed {
                    Ok(_) => removed_any = true,
                    Err(err) if err.errno() == crate::Errno::ENOTEMPTY && seen.insert(e.edge.ino) => {
                        below.push(e.edge.ino);
                    }
                    Err(err) if err.errno() == crate::Errno::EPERM && unprotect => {
                        self.unprotect([dir, e.edge.ino]).await?;
                        removed_any = true;
                    }
                    Err(err) if err.errno() != crate::Errno::ENOENT => return Err(err),
                    Err(_) => {}
                }
            }
            at.removed |= removed_any || !below.is_empty();
            stack.extend(below.into_iter().map(Emptied::new));
        }
        Ok(true)
    }

    /// Takes the flags from nodes.
    async fn unprotect(&self, inos: [Ino; 2]) -> Result<()> {
        let patch = crate::store::AttrPatch { flags: Some(0), ..Default::default() };
        let writes = inos.map(|ino| Write::PatchAttr(ino, patch.clone())).to_vec();
        self.commit_repeatable(&Commit { guards: Vec::new(), writes }).await?;
        Ok(())
    }

    pub(crate) async fn dir_stat_worker(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        loop {
            tokio::select! {
                biased;
                () = ciderfs_rt::sleep(DIR_STAT_INTERVAL) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            self.recompute_dir_stats().await;
        }
    }

    /// Computes usage records that were found missing.
    pub(crate) async fn recompute_dir_stats(&self) {
        for dir in self.ledger.take_missing_stats() {
            if let Err(e) = self.recompute_dir_stat(dir).await {
                tracing::debug!("usage record of directory {dir}: {e}");
            }
        }
    }

    async fn recompute_dir_stat(&self, dir: Ino) -> Result<()> {
        let root = Caller::root();
        let mut sum = DirStat::default();
        let mut cursor = DirCursor::Start;
        let mut seen = SeenNames::default();
        while cursor != DirCursor::End {
            let page = self.list_dir(&root, dir, &cursor, PAGE, true).await?;
            for e in page.entries {
                if !seen.insert(&e.name) {
                    continue;
                }
                let length = e.attr.as_ref().filter(|a| a.is_file()).map_or(0, |a| a.length);
                let space = if e.attr.as_ref().is_some_and(Attr::is_file) { align4k(length) } else { 4096 };
                sum.length = sum.length.saturating_add(length as i64);
                sum.space = sum.space.saturating_add(space as i64);
                sum.inodes += 1;
            }
            cursor = page.next;
        }
        let commit = Commit {
            guards: vec![Guard::Attr {
                ino: dir,
                expect: Some(self.getattr(dir).await?),
                mask: crate::store::AttrMask::EXISTS,
            }],
            writes: vec![Write::PutDirStat(dir, sum)],
        };
        self.commit_repeatable(&commit).await?;
        Ok(())
    }
}
