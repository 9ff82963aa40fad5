//! A store that fails on demand, for tests of what stands above.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::error::{ObjectError, Result};
use crate::forward::forward;
use crate::store::{Entry, Meta, ObjectStore};

/// What goes wrong. All rates are probabilities from 0 to 1.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Kinds of requests that are affected, by the names of [`crate::layers::Request::method`]; empty means all.
    pub only: Vec<&'static str>,
    /// Fails before anything is done.
    pub fail_rate: f64,
    /// Is done, then reported as failed.
    pub lose_reply_rate: f64,
    /// Never answers.
    pub hang_rate: f64,
    /// This many requests fail for certain, counted down.
    pub fail_next: u32,
    /// Added to every request.
    pub latency: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Succeed,
    Fail,
    LoseReply,
    Hang,
}

/// A store with faults that can be changed while it is in use. Seeded: one sequence of requests meets one sequence of
/// faults.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    state: Mutex<(Faults, SmallRng)>,
}

impl Faulty {
    /// Around a store, without faults at first.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Self {
        Self { inner, state: Mutex::new((Faults::default(), SmallRng::seed_from_u64(seed))) }
    }

    /// Sets what goes wrong from now on.
    pub fn set(&self, faults: Faults) {
        self.state.lock().0 = faults;
    }

    fn fate(&self, method: &str) -> (Fate, Duration) {
        let mut state = self.state.lock();
        let (faults, rng) = &mut *state;
        if !faults.only.is_empty() && !faults.only.contains(&method) {
            return (Fate::Succeed, Duration::ZERO);
        }
        let mut hit = |rate: f64| rate > 0.0 && rng.random_bool(rate.min(1.0));
        let fate = if faults.fail_next > 0 {
            faults.fail_next -= 1;
            Fate::Fail
        } else if hit(faults.fail_rate) {
            Fate::Fail
        } else if hit(faults.hang_rate) {
            Fate::Hang
        } else if hit(faults.lose_reply_rate) {
            Fate::LoseReply
        } else {
            Fate::Succeed
        };
        (fate, faults.latency)
    }

    async fn run<T>(&self, method: &str, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let (fate, latency) = self.fate(method);
        if latency > Duration::ZERO {
            tokio::time::sleep(latency).await;
        }
        let injected = |what: &str| ObjectError::Server(format!("{}: injected {what}", self.describe()));
        match fate {
            Fate::Succeed => request.await,
            Fate::Fail => Err(injected("failure")),
            Fate::LoseReply => request.await.and(Err(injected("loss of the reply"))),
            Fate::Hang => std::future::pending().await,
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    forward! { |self| self.inner => create_bucket, describe, supports_range, device }

    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        self.run("PUT", self.inner.put_in_tier(key, body, tier)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        self.run("GET", self.inner.get(key, range)).await
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        self.run("GET", self.inner.get_whole(key, most)).await
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        self.run("HEAD", self.inner.head(key)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.run("DELETE", self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        self.run("LIST", self.inner.list(prefix, start_after, limit)).await
    }
}
