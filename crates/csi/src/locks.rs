//! One operation at a time for each volume: whoever comes second is told to come again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tonic::Status;

/// Who holds an id: somebody alone, or so many together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holders {
    One,
    Shared(usize),
}

/// Ids that something is being done with.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    held: Arc<Mutex<HashMap<String, Holders>>>,
    /// Something has ended.
    ended: Arc<Notify>,
}

/// Something is being done with an id until this is dropped, also by a call that is cancelled.
#[derive(Debug)]
pub struct Held {
    locks: Locks,
    id: String,
}

impl Locks {
    /// Begins an operation.
    ///
    /// # Errors
    /// `ABORTED`: another one is under way.
    pub fn hold(&self, id: &str) -> Result<Held, Status> {
        self.take(id, |now| now.is_none().then_some(Holders::One))
    }

    /// Begins an operation as soon as others have ended theirs.
    ///
    /// # Errors
    /// `ABORTED`: another one has not ended in that time.
    pub async fn hold_within(&self, patience: Duration, id: &str) -> Result<Held, Status> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // What ends from now on is noticed.
            ended.as_mut().enable();
            let answer = self.hold(id);
            if answer.is_ok() || tokio::time::timeout_at(until, ended).await.is_err() {
                return answer;
            }
        }
    }

    /// Begins an operation that reads only, as others may at the same time.
    ///
    /// # Errors
    /// `ABORTED`: one that changes something is under way.
    pub fn share(&self, id: &str) -> Result<Held, Status> {
        self.take(id, |now| match now {
            None => Some(Holders::Shared(1)),
            Some(Holders::Shared(n)) => Some(Holders::Shared(n + 1)),
            Some(Holders::One) => None,
        })
    }

    fn take(&self, id: &str, next: impl FnOnce(Option<Holders>) -> Option<Holders>) -> Result<Held, Status> {
        let mut held = self.held.lock();
        let next = next(held.get(id).copied())
            .ok_or_else(|| Status::aborted(format!("{id}: an earlier call for it is still under way")))?;
        held.insert(id.to_owned(), next);
        Ok(Held { locks: self.clone(), id: id.to_owned() })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.locks.held.lock();
        match held.get(&self.id) {
            Some(Holders::Shared(n)) if *n > 1 => {
                let rest = Holders::Shared(n - 1);
                held.insert(std::mem::take(&mut self.id), rest);
            }
            _ => {
                held.remove(&self.id);
            }
        }
        drop(held);
        self.locks.ended.notify_waiters();
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

    #[tokio::test]
    async fn who_waits_is_next() {
        let locks = Locks::default();
        let first = locks.hold("a").unwrap();
        let short = locks.hold_within(Duration::from_millis(5), "a").await;
        assert_eq!(short.unwrap_err().code(), tonic::Code::Aborted);
        let waiting = locks.hold_within(Duration::from_secs(60), "a");
        let ending = async { drop(first) };
        let (second, ()) = tokio::join!(waiting, ending);
        assert!(second.is_ok() && locks.hold("a").is_err());
    }

    #[test]
    fn readers_share() {
        let locks = Locks::default();
        let (one, two) = (locks.share("a").unwrap(), locks.share("a").unwrap());
        drop(one);
        assert!(locks.hold("a").is_err());
        drop(two);
        let _alone = locks.hold("a").unwrap();
        assert!(locks.share("a").is_err());
    }
}
