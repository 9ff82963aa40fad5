//! One operation at a time for each volume: whoever comes second is told to come again.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tonic::Status;

/// Ids that something is being done with.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    held: Arc<Mutex<HashSet<String>>>,
}

/// Something is being done with an id until this is dropped, also by a call that is cancelled.
#[derive(Debug)]
pub struct Held {
    held: Arc<Mutex<HashSet<String>>>,
    id: String,
}

impl Locks {
    /// Begins an operation.
    ///
    /// # Errors
    /// `ABORTED`: another one is under way.
    pub fn hold(&self, id: &str) -> Result<Held, Status> {
        if !self.held.lock().insert(id.to_owned()) {
            return Err(Status::aborted(format!("{id}: an earlier call for it is still under way")));
        }
        Ok(Held { held: Arc::clone(&self.held), id: id.to_owned() })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.lock().remove(&self.id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_for_each_id() {
        let locks = Locks::default();
        let first = locks.hold("a").unwrap();
        assert_eq!(locks.hold("a").unwrap_err().code(), tonic::Code::Aborted);
        let _other = locks.hold("b").unwrap();
        drop(first);
        let _again = locks.hold("a").unwrap();
    }
}
