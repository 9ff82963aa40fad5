//! What all threads know of a mount, and how one waits for it.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_fuse::mount::{MountInfo, find_mount};
use parking_lot::{Condvar, Mutex};

use super::NOTIFY;
use crate::probe::{self, Seen};
use crate::protocol::{Info, Refusal, State};
use crate::record::Record;
use crate::server::Config;
use crate::spec::Spec;

/// Wakes a keeper.
const WAKE: &[u8] = b"WAKE=1";

/// A mount, as all threads see it.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub key: String,
    /// Where it is.
    pub mountpoint: PathBuf,
    /// Where its record is.
    pub dir: PathBuf,
    pub(super) inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub record: Record,
    pub state: State,
    pub status: String,
    pub restarts: u32,
    /// Where copies of what the supervisor holds are given.
    pub holder: Option<PathBuf>,
    /// Why there will be no mount, or why it cannot go.
    pub refused: Option<(Refusal, String)>,
    /// The thread has ended: there is no such mount any more.
    pub is_over: bool,
}

/// What became of something that was waited for.
pub type Outcome = Result<(), (Refusal, String)>;

impl Entry {
    /// One whose record is written already.
    pub fn new(key: String, config: &Config, record: Record) -> Arc<Self> {
        let (mountpoint, dir) = (config.mount_dir.join(&key), config.run_dir.join(&key));
        let state = if record.leaving { State::Unmounting } else { State::Starting };
        let inner = Inner {
            record,
            state,
            status: String::new(),
            restarts: 0,
            holder: None,
            refused: None,
            is_over: false,
        };
        Arc::new(Self { key, mountpoint, dir, inner: Mutex::new(inner), changed: Condvar::new() })
    }

    /// What is mounted.
    pub fn spec(&self) -> Spec {
        self.inner.lock().record.spec.clone()
    }

    /// Is this the mount that is asked for? One that lacks its secrets takes them.
    pub fn is(&self, spec: &Spec) -> bool {
        let mut inner = self.inner.lock();
        if inner.record.lacks_secrets() && inner.record.spec.is_like(spec) {
            inner.record.spec = spec.clone();
            drop(inner);
            self.wake();
            return true;
        }
        inner.record.spec == *spec
    }

    /// What is told of it.
    pub fn info(&self) -> Info {
        let inner = self.inner.lock();
        let device = (inner.state == State::Ready).then(|| self.mounted()).flatten();
        Info {
            key: self.key.clone(),
            volume: inner.record.spec.volume.clone(),
            options: inner.record.spec.options.clone(),
            mountpoint: self.mountpoint.clone(),
            state: inner.state,
            device: device.map(|m| (m.major, m.minor)),
            pid: inner.record.process.map(|p| p.pid),
            restarts: inner.restarts,
            status: inner.status.clone(),
            holder: inner.holder.clone(),
        }
    }

    /// Somebody else has copies of what its supervisor holds.
    pub fn is_held(&self, at: PathBuf) {
        self.change(|inner| {
            if inner.record.holder.as_ref() != Some(&at) {
                inner.record.holder = Some(at);
                self.save(&inner.record);
            }
        });
    }

    pub(super) fn mounted(&self) -> Option<MountInfo> {
        find_mount(&self.mountpoint).ok().flatten().filter(MountInfo::is_fuse)
    }

    /// Waits until it can be used.
    pub fn wait_ready(&self, deadline: Instant) -> Outcome {
        let mut inner = self.inner.lock();
        loop {
            if let Some(refused) = inner.refused.clone().filter(|_| inner.is_over) {
                return Err(refused);
            }
            let text = match inner.state {
                State::Ready => return Ok(()),
                State::Unmounting => return Err((Refusal::UnderWay, "it is being unmounted".into())),
                State::Starting => "the client has not started yet",
                State::Down => "the client has crashed and is started again",
                State::NeedsSecrets => "its secrets are not known",
            };
            if self.changed.wait_until(&mut inner, deadline).timed_out() {
                return Err((Refusal::UnderWay, text.into()));
            }
        }
    }

    /// Unmounts, and waits until everything is stored.
    pub fn leave(&self, deadline: Instant) -> Outcome {
        let mut inner = self.inner.lock();
        if !inner.record.leaving {
            inner.record.leaving = true;
            inner.refused = None;
            self.save(&inner.record);
        }
        drop(inner);
        self.wake();
        let mut inner = self.inner.lock();
        loop {
            if inner.is_over {
                return Ok(());
            }
            if let Some(refused) = inner.refused.clone().filter(|_| !inner.record.leaving) {
                return Err(refused);
            }
            if self.changed.wait_until(&mut inner, deadline).timed_out() {
                return Err((Refusal::UnderWay, format!("the client still stores data: {}", inner.status)));
            }
        }
    }

    pub(super) fn save(&self, record: &Record) {
        if let Err(e) = record.save(&self.dir) {
            tracing::error!("{}: its record cannot be written: {e}", self.key);
        }
    }

    fn wake(&self) {
        let sent = UnixDatagram::unbound().and_then(|s| {
            s.set_nonblocking(true)?;
            s.send_to(WAKE, self.dir.join(NOTIFY))
        });
        // It looks now and then anyway.
        let _ = sent;
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock());
        self.changed.notify_all();
    }
}

/// What is wrong with a mount, if something is.
pub fn health(entry: &Entry, patience: Duration) -> Option<String> {
    let info = entry.info();
    if info.state != State::Ready {
        return Some(format!("the client is not ready ({:?})", info.state));
    }
    match probe::look(&entry.mountpoint, patience) {
        Seen::Alive { inode: probe::ROOT_INODE, device } if Some(device) == info.device => None,
        Seen::Alive { .. } => Some("something else is mounted there".into()),
        Seen::Dead => Some("its server has died".into()),
        Seen::Missing => Some("it is not there".into()),
        Seen::Hung => Some("it does not answer".into()),
        Seen::Wrong(e) => Some(format!("it answers: {e}")),
    }
}
