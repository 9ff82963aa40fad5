//! Repeats requests that may succeed a little later.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::RngExt as _;
use tokio::time::Instant;

use super::gate::{HOLD_MAX, PATIENCE, Patience};
use crate::error::{ObjectError, Result};
use crate::forward::forward;
use crate::store::{Entry, Meta, ObjectStore};

/// First pause; it doubles after each attempt.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// A store that tries each request up to `retries + 1` times. With the default of 10 the pauses add up to at most about 70
/// seconds, beside the time of the attempts. That is also how long a request waits among others for a store that takes nothing.
#[derive(Debug)]
pub struct Retried {
    inner: Arc<dyn ObjectStore>,
    retries: u32,
}

impl Retried {
    /// Repeats failed requests to `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, retries: u32) -> Self {
        Self { inner, retries }
    }

    /// As long as a request takes by itself when all its attempts are told to slow down.
    fn patience(&self) -> Duration {
        let pauses = std::iter::successors(Some(PAUSE_MIN), |pause| Some((*pause * 2).min(PAUSE_MAX)));
        let pauses = pauses.take(self.retries as usize);
        pauses.fold(HOLD_MAX, |sum, pause| sum + pause)
    }

    async fn run<T, Fut>(&self, what: &str, key: &str, call: impl FnMut() -> Fut) -> Result<T>
    where
        Fut: Future<Output = Result<T>>,
    {
        let patience = Patience { began: Instant::now(), most: self.patience() };
        PATIENCE.scope(patience, self.attempts(what, key, call)).await
    }

    async fn attempts<T, Fut>(&self, what: &str, key: &str, mut call: impl FnMut() -> Fut) -> Result<T>
    where
        Fut: Future<Output = Result<T>>,
    {
        let mut pause = PAUSE_MIN;
        let mut left = self.retries;
        loop {
            match call().await {
                Err(e) if e.is_retryable() && left > 0 && !matches!(e, ObjectError::Refusing(_)) => {
                    tracing::debug!("{what} {key}: {e}; {left} more attempts");
                    left -= 1;
                    let jitter = rand::rng().random_range(0.5..1.0);
                    tokio::time::sleep(pause.mul_f64(jitter)).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                Err(e) => {
                    if e.is_retryable() {
                        tracing::warn!(
                            "{what} {key}: given up after {} attempts: {e}",
                            self.retries + 1 - left
                        );
                    }
                    return Err(e);
                }
                done => return done,
            }
        }
    }
}

#[async_trait]
impl ObjectStore for Retried {
    forward! { |self| self.inner => describe, supports_range, device }

    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        self.run("PUT", key, || self.inner.put_in_tier(key, body.clone(), tier)).await
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        // After a lost reply what is there may be what was sent: whoever wants to know looks.
        self.run("PUT", key, || self.inner.put_new(key, body.clone())).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        self.run("GET", key, || self.inner.get(key, range.clone())).await
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        self.run("GET", key, || self.inner.get_whole(key, most)).await
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        self.run("HEAD", key, || self.inner.head(key)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.run("DELETE", key, || self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        self.run("LIST", prefix, || self.inner.list(prefix, start_after, limit)).await
    }

    async fn create_bucket(&self, key: &str) -> Result<()> {
        self.run("CREATE", "", || self.inner.create_bucket(key)).await
    }
}
