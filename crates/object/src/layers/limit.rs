//! Bounds how many requests run at a time and how long each may take.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::gate::Gate;
use crate::bandwidth::within;
use crate::error::{ObjectError, Result};
use crate::forward::forward;
use crate::store::{Entry, Meta, ObjectStore};

/// Bounds of a client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// PUTs at a time.
    pub max_uploads: usize,
    /// GETs at a time.
    pub max_downloads: usize,
    /// DELETEs, HEADs and LISTs at a time.
    pub max_others: usize,
    /// Deadline of a GET, HEAD or LIST, connecting included.
    pub get_timeout: Duration,
    /// Deadline of a PUT or DELETE, connecting included.
    pub put_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_uploads: 20,
            max_downloads: 200,
            max_others: 50,
            get_timeout: Duration::from_secs(60),
            put_timeout: Duration::from_secs(60),
        }
    }
}

/// A store with bounded concurrency and a deadline for every request. Waiting for a place, or for a share of the bandwidth, is not
/// part of the deadline. There are fewer places while the store asks to slow down.
#[derive(Debug)]
pub struct Limited {
    inner: Arc<dyn ObjectStore>,
    limits: Limits,
    uploads: Gate,
    downloads: Gate,
    others: Gate,
}

impl Limited {
    /// Bounds requests to `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, limits: Limits) -> Self {
        Self {
            inner,
            limits,
            uploads: Gate::new(limits.max_uploads),
            downloads: Gate::new(limits.max_downloads),
            others: Gate::new(limits.max_others),
        }
    }
}

async fn bounded<T>(gate: &Gate, deadline: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    let place = gate.enter().await?;
    let result = within(deadline, call).await.unwrap_or(Err(ObjectError::Timeout(deadline)));
    place.learn(&result);
    result
}

#[async_trait]
impl ObjectStore for Limited {
    forward! { |self| self.inner => describe, supports_range, device }

    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        bounded(&self.uploads, self.limits.put_timeout, self.inner.put_in_tier(key, body, tier)).await
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        bounded(&self.uploads, self.limits.put_timeout, self.inner.put_new(key, body)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        bounded(&self.downloads, self.limits.get_timeout, self.inner.get(key, range)).await
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        bounded(&self.downloads, self.limits.get_timeout, self.inner.get_whole(key, most)).await
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        bounded(&self.others, self.limits.get_timeout, self.inner.head(key)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        bounded(&self.others, self.limits.put_timeout, self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        bounded(&self.others, self.limits.get_timeout, self.inner.list(prefix, start_after, limit)).await
    }

    async fn create_bucket(&self, key: &str) -> Result<()> {
        bounded(&self.others, self.limits.put_timeout, self.inner.create_bucket(key)).await
    }
}
