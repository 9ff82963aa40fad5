//! Tells an observer what operations cost.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ciderfs_rt::Instant;
use parking_lot::Mutex;

use crate::store::EngineMemory;
use crate::volume::Meta;

/// How often the engine is asked for its memory.
const MEMORY_LOOK: Duration = Duration::from_secs(60);

/// What has happened in the course of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// It has ended, well or not.
    Operation,
    /// It has changed the volume; the time is that of the change with all its attempts.
    Transaction,
    /// Somebody else changed what it rests on, so it begins again. It has no time.
    Restart,
}

/// Told what has happened in which operation, by the official client's name for it, and how long it took.
pub type Observer = Box<dyn Fn(Happened, &'static str, Duration) + Send + Sync>;

/// The observer, once there is one, and what was observed of the engine.
#[derive(Default)]
pub(crate) struct Observed {
    observer: OnceLock<Observer>,
    memory: Mutex<Option<EngineMemory>>,
}

impl Observed {
    pub(crate) fn tell(&self, what: Happened, method: &'static str, took: Duration) {
        if let Some(observer) = self.observer.get() {
            observer(what, method, took);
        }
    }
}

/// An operation that is under way; it ends when this is dropped.
pub(crate) struct Timed<'a> {
    observed: &'a Observed,
    method: &'static str,
    began: Instant,
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.observed.tell(Happened::Operation, self.method, self.began.elapsed());
    }
}

impl Meta {
    /// Says who is told what operations cost. Only the first call counts.
    pub fn observe(&self, observer: Observer) {
        let _ = self.observed.observer.set(observer);
    }

    /// Begins an operation.
    pub(crate) fn timed(&self, method: &'static str) -> Timed<'_> {
        Timed { observed: &self.observed, method, began: Instant::now() }
    }

    /// How full the engine's memory was when it was last asked, if it told.
    pub fn engine_memory(&self) -> Option<EngineMemory> {
        *self.observed.memory.lock()
    }

    /// Asks the engine now and then how full its memory is. On its own, since nothing but figures rests on it.
    pub(crate) async fn watch_memory(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        loop {
            let looked = tokio::select! {
                biased;
                looked = self.store.memory() => looked,
                _ = stop.wait_for(|s| *s) => return,
            };
            match looked {
                // It has no such figure, or does not tell it.
                Ok(None) => return,
                Ok(memory) => *self.observed.memory.lock() = memory,
                Err(e) => tracing::debug!("the engine does not tell how full its memory is: {e}"),
            }
            tokio::select! {
                biased;
                () = ciderfs_rt::sleep(MEMORY_LOOK) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    }
}
