//! Inode numbers and slice ids, taken from the volume's counters in batches.

use std::ops::Range;
use std::sync::Arc;

use ciderfs_format::Ino;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::store::{Counter, Store, StoreError};

/// Batches that are passed over where a counter was set back, at a time.
const PASSED_MAX: u32 = 16;

/// A local stock of numbers. Refilled in the background when a tenth is left, so that a refill is rarely waited for.
pub(crate) struct IdPool {
    store: Arc<dyn Store>,
    counter: Counter,
    batch: u64,
    state: Mutex<State>,
    refilled: Notify,
}

#[derive(Default)]
struct State {
    ready: Range<u64>,
    spare: Option<Range<u64>>,
    /// All numbers that this client was given so far are below.
    end: u64,
    refilling: bool,
    failed: Option<StoreError>,
}

impl IdPool {
    pub(crate) fn new(store: Arc<dyn Store>, counter: Counter, batch: u64) -> Arc<Self> {
        Arc::new(Self { store, counter, batch, state: Mutex::default(), refilled: Notify::new() })
    }

    /// The next number. Waits for the engine only when the stock is empty.
    pub(crate) async fn next(self: &Arc<Self>) -> Result<u64, StoreError> {
        loop {
            let waiting = self.refilled.notified();
            tokio::pin!(waiting);
            waiting.as_mut().enable();
            {
                let mut s = self.state.lock();
                if s.ready.is_empty()
                    && let Some(spare) = s.spare.take()
                {
                    s.ready = spare;
                }
                let next = s.ready.next();
                let left = s.ready.end - s.ready.start;
                if left < self.batch / 10 && s.spare.is_none() && !s.refilling {
                    s.refilling = true;
                    let pool = Arc::clone(self);
                    ciderfs_rt::spawn(async move { pool.refill().await });
                }
                if let Some(id) = next {
                    return Ok(id);
                }
                if let Some(e) = s.failed.take() {
                    return Err(e);
                }
            }
            waiting.await;
        }
    }

    /// Inode numbers end where those begin that mean something else; a counter that is so high is damaged.
    fn sound(&self, range: Range<u64>) -> Result<Range<u64>, StoreError> {
        if self.counter == Counter::NextInode && range.end > Ino::VIRTUAL.0 {
            let text =
                format!("the counter of inode numbers is damaged: no file can have number {}", range.end);
            return Err(StoreError::corrupt(text));
        }
        Ok(range)
    }

    /// Numbers that this client has not been given before. Where somebody sets a counter back, or a server comes up without its
    /// last changes, those that it was given are in use.
    async fn allocate(&self, given: u64) -> Result<Range<u64>, StoreError> {
        for _ in 0..PASSED_MAX {
            // A lost reply burns a batch: numbers are plenty and need not be dense.
            let range = self.sound(self.store.allocate(self.counter, self.batch).await?)?;
            let fresh = range.start.max(given)..range.end;
            if !fresh.is_empty() {
                return Ok(fresh);
            }
            tracing::warn!("the counter {:?} was set back: numbers below {given} are in use", self.counter);
        }
        let text = format!("the counter {:?} was set back: numbers below {given} are in use", self.counter);
        Err(StoreError::corrupt(text))
    }

    async fn refill(&self) {
        let given = self.state.lock().end;
        let got = self.allocate(given).await;
        let mut s = self.state.lock();
        s.refilling = false;
        match got {
            Ok(range) => {
                s.failed = None;
                s.end = range.end;
                s.spare = Some(range);
            }
            Err(e) => s.failed = Some(e),
        }
        drop(s);
        self.refilled.notify_waiters();
    }
}
