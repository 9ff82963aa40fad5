//! Access times, written after the fact.
//!
//! Reading only notes the access in memory; a task writes what was noted, a second later and many at a time. Whoever asks for
//! attributes here meanwhile is told the noted time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::{Attr, Ino, Time};
use ciderfs_meta::AtimeMode;
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::vfs::Vfs;

/// Accesses noted at a time; beyond that they are not, an access time is not worth the memory.
const NOTED_MAX: usize = 10_000;
/// How long accesses are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// Inodes written at a time.
const AT_ONCE: usize = 16;

/// Accesses to be written.
pub(crate) struct Atimes {
    mode: AtimeMode,
    noted: Mutex<BTreeMap<Ino, Time>>,
    some: Notify,
    /// Held while noted times are being written.
    writing: tokio::sync::Mutex<()>,
}

impl Atimes {
    pub(crate) fn new(mode: AtimeMode) -> Self {
        Self { mode, noted: Mutex::default(), some: Notify::new(), writing: tokio::sync::Mutex::new(()) }
    }

    /// Is anything noted at all?
    pub(crate) fn on(&self) -> bool {
        self.mode != AtimeMode::NoAtime
    }
}

impl Vfs {
    /// Notes that an inode was read; false if its access time stays. `attr`: its attributes as last seen, if they are at hand.
    pub(crate) fn accessed(&self, ino: Ino, attr: Option<&Attr>) -> bool {
        let a = &self.atimes;
        if !a.on() || ino.is_virtual() {
            return false;
        }
        let now = self.meta.now();
        if attr.is_some_and(|attr| !a.mode.wants(attr, now)) {
            return false;
        }
        let mut noted = a.noted.lock();
        // A noted access counts as one that is stored, unless a change came after it.
        let unchanged = |at: &Time| attr.is_none_or(|attr| attr.mtime < *at && attr.ctime < *at);
        if a.mode == AtimeMode::Relatime && noted.get(&ino).is_some_and(unchanged) {
            return false;
        }
        if noted.len() >= NOTED_MAX && !noted.contains_key(&ino) {
            return false;
        }
        noted.insert(ino, now);
        a.some.notify_one();
        true
    }

    /// Attributes with an access that is noted only.
    pub(crate) fn with_atime(&self, ino: Ino, mut attr: Attr) -> Attr {
        if self.atimes.on()
            && let Some(at) = self.atimes.noted.lock().get(&ino)
            && self.atimes.mode.wants(&attr, *at)
        {
            attr.atime = *at;
        }
        attr
    }

    /// Forgets a noted access, because the access time is about to be set by somebody who knows better.
    pub(crate) async fn forget_access(&self, ino: Ino) {
        if self.atimes.on() {
            self.atimes.noted.lock().remove(&ino);
            let _written = self.atimes.writing.lock().await;
        }
    }

    /// Writes noted accesses for ever.
    pub(crate) async fn atime_loop(self: Arc<Self>) {
        loop {
            self.atimes.some.notified().await;
            ciderfs_rt::sleep(GATHER).await;
            self.write_atimes().await;
        }
    }

    /// Writes what is noted now.
    pub(crate) async fn write_atimes(&self) {
        let a = &self.atimes;
        let _writing = a.writing.lock().await;
        let batch: Vec<(Ino, Time)> = a.noted.lock().iter().map(|(ino, at)| (*ino, *at)).collect();
        stream::iter(batch)
            .for_each_concurrent(AT_ONCE, |(ino, at)| async move {
                if !a.noted.lock().contains_key(&ino) {
                    return;
                }
                if let Err(e) = self.meta.touch_atime(ino, at).await {
                    tracing::debug!("access time of inode {ino}: {e}");
                }
                let mut noted = a.noted.lock();
                if noted.get(&ino) == Some(&at) {
                    noted.remove(&ino);
                }
            })
            .await;
    }
}
