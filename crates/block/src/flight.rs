//! Downloads of whole blocks, each by one task however many readers wait for it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::BlockError;
use crate::key::BlockId;

type Outcome = Option<Result<Bytes, BlockError>>;

/// The downloads under way.
#[derive(Default)]
pub(crate) struct Flights {
    running: Mutex<HashMap<BlockId, watch::Receiver<Outcome>>>,
}

/// A download that somebody waits for.
#[derive(Clone)]
pub(crate) struct Flight(watch::Receiver<Outcome>);

impl Flight {
    /// The whole block.
    pub async fn wait(mut self) -> Result<Bytes, BlockError> {
        match self.0.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(BlockError::Closed)),
            // The task was dropped with its runtime.
            Err(_) => Err(BlockError::Closed),
        }
    }
}

/// The task's side: forgets the download when it is done, whatever happens.
pub(crate) struct Pilot {
    flights: Arc<Flights>,
    block: BlockId,
    sender: watch::Sender<Outcome>,
    landed: bool,
}

impl Pilot {
    /// Tells everybody. Forgotten first: who comes now and finds nothing cached must not meet an old error.
    pub fn land(mut self, outcome: Result<Bytes, BlockError>) {
        self.flights.running.lock().remove(&self.block);
        self.landed = true;
        self.sender.send_replace(Some(outcome));
    }
}

impl Drop for Pilot {
    fn drop(&mut self) {
        // By now the place may belong to the next download of the block.
        if !self.landed {
            self.flights.running.lock().remove(&self.block);
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
        if let Some(receiver) = running.get(&block) {
            return Start::Joined(Flight(receiver.clone()));
        }
        if let Some(data) = cached() {
            return Start::Done(data);
        }
        let (sender, receiver) = watch::channel(None);
        running.insert(block, receiver.clone());
        Start::Mine(Flight(receiver), Pilot { flights: self.clone(), block, sender, landed: false })
    }
}
