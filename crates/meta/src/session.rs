//! The client's session: registration, heartbeat, settings reload, end (`docs/format/sessions-and-locks.md#sessions`).

use ciderfs_format::SessionId;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ciderfs_format::session::SessionInfo;
use ciderfs_format::settings::Settings;

use crate::error::{Error, Result};
use crate::interfaces;
use crate::store::{Commit, Counter, Outcome, Output, Read, Scan, Scanned, Store, StoreError, Value, Write};
use crate::types::SessionRow;
use crate::volume::{Meta, refuse_unsupported};

/// A session lives this many heartbeats without a refresh.
const LIFE_HEARTBEATS: i64 = 5;
/// Life of a session that is never refreshed: one year.
const LIFE_WITHOUT_HEARTBEAT: i64 = 365 * 86_400;
/// When the session was refreshed last, by the steady clock of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    at: Duration,
}

/// Numbers of living sessions that are passed over where their counter was set back.
const SESSIONS_PASSED: u32 = 1000;

/// Sustained inodes and locks cleaned per scan.
const CLEAN_BATCH: usize = 1000;

impl Meta {
    /// The settings of the volume in `store`, if there is one.
    pub async fn read_settings(store: &dyn Store) -> Result<Option<Settings>> {
        match store.read(&[Read::Setting]).await?.into_iter().next() {
            Some(Value::Bytes(Some(raw))) => Ok(Some(
                Settings::parse(&raw).map_err(|e| Error::Volume(format!("settings of the volume: {e}")))?,
            )),
            _ => Ok(None),
        }
    }

    /// Registers this client and starts its heartbeat and background jobs. A read-only client only reloads settings.
    pub async fn start_session(self: &Arc<Self>) -> Result<()> {
        self.begin_session(None).await.map(drop)
    }

    /// [`Meta::start_session`], going on with the session of a process that has ended without closing it. False if others have
    /// declared it dead meanwhile: it is registered again, but its locks are given away and the removed files that it had open are
    /// gone, as for a client that was frozen.
    ///
    /// Before anything else: no file is open yet. What was open and locked is told next ([`Meta::reopen`], [`Meta::adopt_locks`]).
    pub async fn take_over_session(self: &Arc<Self>, sid: SessionId) -> Result<bool> {
        self.begin_session(Some(sid).filter(|sid| *sid != SessionId::NONE)).await
    }

    /// Stops background work, and leaves the session with all that it holds to the process that takes it over.
    pub async fn leave_session(&self) {
        self.stop.send_replace(true);
        self.end_tasks().await;
        // Who waits for a lock goes on waiting: the next process is asked again.
        self.settle_locking().await;
    }

    async fn begin_session(self: &Arc<Self>, taken: Option<SessionId>) -> Result<bool> {
        self.compare_clocks().await?;
        let addresses = interfaces::addresses(&self.cfg.network_interfaces)?;
        let mut lives = true;
        if !self.cfg.read_only {
            let sid = match taken {
                Some(sid) => sid,
                None => self.new_sid().await?,
            };
            let info = SessionInfo {
                version: self.cfg.version.clone(),
                host_name: host_name(),
                ip_addrs: addresses,
                mount_point: self.cfg.mount_point.clone(),
                mount_time: jiff::Timestamp::try_from(ciderfs_rt::wall_clock())
                    .unwrap_or_default()
                    .to_string(),
                process_id: i64::from(std::process::id()),
                life: Some(self.session_life()),
                engine_clock: Some(self.engine_now().await?.is_some()),
            };
            *self.session_info.lock() = Bytes::from(info.encode()?);
            self.sid.store(sid.0, Ordering::Relaxed);
            let (lease, registered) = self.refresh_session().await?;
            *self.lease.lock() = Some(lease);
            if taken.is_some() {
                self.forget_waits().await?;
                lives = registered;
                if !registered {
                    self.counters.losses.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(
                        "session {sid} was declared dead before this process could take it over; it is registered again, \
                         without its locks and without the removed files that were open"
                    );
                }
            }
        }
        let mut tasks = self.tasks.lock();
        tasks.push(ciderfs_rt::spawn(Arc::clone(self).watch_memory()));
        if !self.cfg.heartbeat.is_zero() {
            let heartbeat = ciderfs_rt::spawn(Arc::clone(self).heartbeat_loop());
            *self.heartbeat.lock() = Some(heartbeat.abort_handle());
            tasks.push(heartbeat);
        }
        if !self.cfg.read_only {
            tasks.push(ciderfs_rt::spawn(Arc::clone(self).deletion_worker()));
            if taken.is_some() {
                tasks.push(ciderfs_rt::spawn(Arc::clone(self).take_up_deletions()));
            }
            tasks.push(ciderfs_rt::spawn(Arc::clone(self).dir_stat_worker()));
            if !self.cfg.no_bgjob {
                tasks.push(ciderfs_rt::spawn(Arc::clone(self).hourly_jobs()));
            }
        }
        Ok(lives)
    }

    /// Stops background work and ends the session. Its locks and sustained inodes are released.
    pub async fn close_session(&self) -> Result<()> {
        self.stop.send_replace(true);
        self.end_tasks().await;
        if self.cfg.read_only {
            return Ok(());
        }
        self.recompute_dir_stats().await;
        self.end_locking().await;
        let sid = SessionId(self.sid.swap(0, Ordering::Relaxed));
        if sid != SessionId::NONE {
            self.clean_session(sid).await?;
        }
        self.drain_deletions().await;
        Ok(())
    }

    async fn end_tasks(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(e) = task.await {
                tracing::warn!("a background task ended badly: {e}");
            }
        }
    }

    /// All registered sessions.
    pub async fn sessions(&self) -> Result<Vec<SessionRow>> {
        let rows = self.scan(Scan::Sessions, usize::MAX).await?;
        Ok(rows
            .into_iter()
            .filter_map(|r| match r {
                Scanned::Session(sid, expire, info) => Some(SessionRow { sid, expire, info }),
                _ => None,
            })
            .collect())
    }

    /// A number for a session that no other one has, also where the counter was set back.
    async fn new_sid(&self) -> Result<SessionId> {
        let add = |n| Commit { guards: Vec::new(), writes: vec![Write::AddCounter(Counter::NextSession, n)] };
        for _ in 0..SESSIONS_PASSED {
            // A lost reply burns a number, nothing more.
            let Outcome::Done(out) = self.commit_repeatable(&add(1)).await? else {
                return Err(StoreError::another_question().into());
            };
            let Some(&Output::Int(n)) = out.first() else {
                return Err(StoreError::another_question().into());
            };
            let Some(sid) = u64::try_from(n).ok().filter(|sid| *sid > 0).map(SessionId) else {
                // Else the next to ask would find it sound.
                drop(self.store.commit(&add(-1)).await);
                let text = format!("the counter NextSession is damaged: no session can have the number {n}");
                return Err(StoreError::corrupt(text).into());
            };
            match self.read(&[Read::Session(sid)]).await?.first() {
                Some(Value::Bool(false)) => return Ok(sid),
                Some(Value::Bool(true)) => {
                    tracing::warn!("session {sid} is in use: the counter of sessions was set back");
                }
                _ => return Err(StoreError::another_question().into()),
            }
        }
        let text = "the counter NextSession was set back: the numbers of many living sessions lie above it";
        Err(StoreError::corrupt(text).into())
    }

    /// Seconds that this client's session lives without a refresh.
    fn session_life(&self) -> i64 {
        let beat = self.cfg.heartbeat.as_secs_f64().ceil() as i64;
        if beat == 0 { LIFE_WITHOUT_HEARTBEAT } else { beat * LIFE_HEARTBEATS }
    }

    /// Moves the expiry of the session; false if it was not registered.
    async fn refresh_session(&self) -> Result<(Lease, bool)> {
        let sid = self.sid();
        let lease = Lease { at: self.clock.steady() };
        if sid == SessionId::NONE {
            return Ok((lease, true));
        }
        let now = self.engine_now().await?.unwrap_or_else(|| self.clock.now().sec);
        let expire = now + self.session_life();
        let info = self.session_info.lock().clone();
        let commit = Commit { guards: Vec::new(), writes: vec![Write::PutSession(sid, expire, info)] };
        let outcome = self.commit_repeatable(&commit).await?;
        Ok((lease, matches!(outcome, Outcome::Done(out) if out.first() != Some(&Output::Int(0)))))
    }

    /// Refreshes the session. If others may have declared it dead, whoever held a lock through it learns whether it is lost.
    pub(crate) async fn register_again(self: &Arc<Self>) -> Result<()> {
        let (lease, registered) = self.refresh_session().await?;
        if !registered {
            self.counters.losses.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                "session {} was declared dead because this client did not answer in time; it is registered again, without \
                 its locks",
                self.sid()
            );
        }
        // Late, the row proves nothing: whoever ends a session gives its locks away first. And what an earlier refresh has begun
        // to look at may not be known yet. The lease counts again when it is known which locks are lost.
        if !registered || self.lease_is_over() {
            self.verify_all_locks(lease);
        } else {
            *self.lease.lock() = Some(lease);
        }
        Ok(())
    }

    /// May others have declared the session dead? By a clock that nobody sets and that goes on while the machine sleeps.
    pub fn lease_is_over(&self) -> bool {
        let Some(lease) = *self.lease.lock() else { return false };
        // Expiry and engine's clock are whole seconds: by them a life may end almost a second early.
        let least = Duration::from_secs(self.session_life().unsigned_abs().saturating_sub(1));
        self.clock.steady().saturating_sub(lease.at) >= least
    }

    async fn heartbeat_loop(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        // On its own: however long it takes, the session must go on.
        let mut counting: Option<tokio::task::JoinHandle<()>> = None;
        loop {
            let jitter = ciderfs_rt::random_range(0.95..1.05);
            tokio::select! {
                biased;
                () = ciderfs_rt::sleep(self.cfg.heartbeat.mul_f64(jitter)) => {}
                _ = stop.wait_for(|s| *s) => {
                    if let Some(task) = counting {
                        task.abort();
                    }
                    return;
                }
            }
            if let Err(e) = self.register_again().await {
                tracing::warn!("heartbeat: {e}");
            }
            if let Err(e) = self.reload_settings().await {
                tracing::warn!("reloading settings: {e}");
            }
            if let Err(e) = self.refresh_usage().await {
                tracing::debug!("reloading usage: {e}");
            }
            if let Err(e) = self.follow_quotas().await {
                tracing::warn!("reloading quotas: {e}");
            }
            if counting.as_ref().is_none_or(|task| task.is_finished()) {
                let meta = Arc::clone(&self);
                counting = Some(ciderfs_rt::spawn(async move {
                    if let Err(e) = meta.count_young_quotas().await {
                        tracing::warn!("counting below directories with new quotas: {e}");
                    }
                }));
            }
            if !self.cfg.read_only
                && !self.cfg.no_bgjob
                && let Err(e) = self.clean_stale_sessions().await
            {
                tracing::warn!("cleaning stale sessions: {e}");
            }
        }
    }

    /// Does the heartbeat still run, whether or not the engine answers it? True where there is none, and once it was told to end.
    pub fn is_beating(&self) -> bool {
        *self.stop.borrow() || self.heartbeat.lock().as_ref().is_none_or(|task| !task.is_finished())
    }

    /// Applies changed settings; a volume that is no longer ours stops the mount.
    pub async fn reload_settings(&self) -> Result<()> {
        let old = self.settings();
        let reason = match Self::read_settings(self.store.as_ref()).await {
            Ok(Some(new)) if new.uuid != old.uuid => {
                Some(format!("the volume was replaced: its UUID changed from {} to {}", old.uuid, new.uuid))
            }
            Ok(Some(new)) => match self.can_go_on(&new) {
                Err(e) => Some(e.to_string()),
                Ok(()) => {
                    if new != *old {
                        let new = Arc::new(new);
                        *self.settings.write() = Arc::clone(&new);
                        for hook in self.settings_hooks.lock().iter() {
                            hook(&new);
                        }
                    }
                    None
                }
            },
            Ok(None) => Some("the volume is no longer formatted: its settings are gone".to_string()),
            Err(e) => return Err(e),
        };
        if let Some(reason) = reason {
            tracing::error!("{reason}; this mount stops");
            self.fatal.send_replace(Some(reason));
        }
        Ok(())
    }

    /// May a mount go on under these settings? What was refused at the start is so when it is switched on later.
    fn can_go_on(&self, new: &Settings) -> Result<()> {
        new.check_meta_version().map_err(|e| Error::Volume(e.to_string()))?;
        refuse_unsupported(new, self.cfg.read_only)
    }

    /// Releases what a session holds and removes it. An error keeps it listed, so that somebody tries again.
    pub(crate) async fn clean_session(&self, sid: SessionId) -> Result<()> {
        let mut before = Vec::new();
        loop {
            let items = self.scan(Scan::Locked(sid), CLEAN_BATCH).await?;
            // What is listed without a lock stays listed until the session is gone.
            if items.is_empty() || items == before {
                break;
            }
            self.release_locks(sid, &items).await?;
            if items.len() < CLEAN_BATCH {
                break;
            }
            before = items;
        }
        loop {
            let items = self.scan(Scan::Sustained(sid), CLEAN_BATCH).await?;
            let full = items.len() >= CLEAN_BATCH;
            for item in items {
                if let Scanned::Ino(ino) = item {
                    self.remove_sustained(sid, ino).await?;
                }
            }
            if !full {
                break;
            }
        }
        let commit = Commit { guards: Vec::new(), writes: vec![Write::DelSession(sid)] };
        self.commit_repeatable(&commit).await?;
        Ok(())
    }

    async fn release_locks(&self, sid: SessionId, items: &[Scanned]) -> Result<()> {
        let inodes = items.iter().filter_map(|i| if let Scanned::Ino(ino) = i { Some(*ino) } else { None });
        for ino in inodes {
            let values = self.read(&[Read::Flocks(ino), Read::Plocks(ino)]).await?;
            let mut writes = Vec::new();
            if let Some(Value::Flocks(held)) = values.first() {
                writes.extend(
                    held.iter().filter(|(o, _)| o.0 == sid).map(|(o, _)| Write::PutFlock(ino, *o, None)),
                );
            }
            if let Some(Value::Plocks(held)) = values.get(1) {
                writes.extend(
                    held.iter().filter(|(o, _)| o.0 == sid).map(|(o, _)| Write::PutPlock(ino, *o, None)),
                );
            }
            if !writes.is_empty() {
                self.commit_repeatable(&Commit { guards: Vec::new(), writes }).await?;
            }
        }
        Ok(())
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| String::new(), |s| s.trim().to_string())
}

/// Interval between two runs of a job that every client checks, with ±5 % jitter.
pub(crate) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(ciderfs_rt::random_range(0.95..1.05))
}
