//! Downloads of whole blocks, each by one task however many readers wait for it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::BlockError;
use crate::key::BlockId;

/// What comes of a download. Not a `watch` channel: that wakes who waits in a drawn order, and nobody could replay it.
#[derive(Default)]
struct Landing {
    outcome: Mutex<Option<Result<Bytes, BlockError>>>,
    landed: Notify,
}

impl Landing {
    fn tell(&self, outcome: Result<Bytes, BlockError>) {
        *self.outcome.lock() = Some(outcome);
        self.landed.notify_waiters();
    }
}

/// The downloads under way.
#[derive(Default)]
pub(crate) struct Flights {
    running: Mutex<HashMap<BlockId, Arc<Landing>>>,
}

/// A download that somebody waits for.
#[derive(Clone)]
pub(crate) struct Flight(Arc<Landing>);

impl Flight {
    /// The whole block.
    pub async fn wait(self) -> Result<Bytes, BlockError> {
        loop {
            let landed = self.0.landed.notified();
            tokio::pin!(landed);
            // Before the look, so that the landing is not missed.
            landed.as_mut().enable();
            if let Some(outcome) = &*self.0.outcome.lock() {
                return outcome.clone();
            }
            landed.await;
        }
    }
}

/// The task's side: forgets the download when it is done, whatever happens.
pub(crate) struct Pilot {
    flights: Arc<Flights>,
    block: BlockId,
    landing: Arc<Landing>,
    landed: bool,
}

impl Pilot {
    /// Tells everybody. Forgotten first: who comes now and finds nothing cached must not meet an old error.
    pub fn land(mut self, outcome: Result<Bytes, BlockError>) {
        self.flights.running.lock().remove(&self.block);
        self.landed = true;
        self.landing.tell(outcome);
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        // By now the place may belong to the next download of the block.
        if !self.landed {
            self.flights.running.lock().remove(&self.block);
            // The task was dropped with its runtime.
            self.landing.tell(Err(BlockError::Closed));
        }
    }
}

/// What came of an attempt to start a download.
pub(crate) enum Start {
    /// The caller must do it.
    Mine(Flight, Pilot),
    /// Somebody does it already.
    Joined(Flight),
    /// It ended a moment ago.
    Done(Bytes),
}

impl Flights {
    /// A download under way.
    pub fn find(&self, block: &BlockId) -> Option<Flight> {
        self.running.lock().get(block).cloned().map(Flight)
    }

    /// Registers a download, unless there is one or `cached` has the block by now. A finished download is cached
    /// before it is forgotten here, so that nothing is fetched twice.
    pub fn start(self: &Arc<Self>, block: BlockId, cached: impl FnOnce() -> Option<Bytes>) -> Start {
        let mut running = self.running.lock();
        if let Some(landing) = running.get(&block) {
            return Start::Joined(Flight(Arc::clone(landing)));
        }
        if let Some(data) = cached() {
            return Start::Done(data);
        }
        let landing = Arc::<Landing>::default();
        running.insert(block, Arc::clone(&landing));
        let flight = Flight(Arc::clone(&landing));
        Start::Mine(flight, Pilot { flights: self.clone(), block, landing, landed: false })
    }
}
