//! Tells an observer how fast the cache disks are.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

/// What was done with a file of the disk cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheUse {
    /// All or part of it was read.
    Read,
    /// It was written.
    Write,
}

/// Told of what has succeeded, and how long it took.
pub type CacheObserver = Box<dyn Fn(CacheUse, Duration) + Send + Sync>;

/// The observer, once there is one.
#[derive(Default)]
pub(crate) struct Observed(OnceLock<CacheObserver>);

impl Observed {
    pub fn set(&self, observer: CacheObserver) {
        let _ = self.0.set(observer);
    }

    pub fn tell(&self, what: CacheUse, took: Duration) {
        if let Some(observer) = self.0.get() {
            observer(what, took);
        }
    }
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observed({})", self.0.get().is_some())
    }
}
