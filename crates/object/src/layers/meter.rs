//! Tells an observer about every request.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{ObjectError, Result};
use crate::forward::forward;
use crate::store::{Entry, Meta, ObjectStore};

/// A finished request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `PUT`, `GET`, `HEAD`, `DELETE` or `LIST`.
    pub method: &'static str,
    /// How long it took.
    pub took: Duration,
    /// Bytes of the body sent or received.
    pub bytes: u64,
    /// Why it failed, if it did. A missing object counts as an answer here, too.
    pub error: Option<&'a ObjectError>,
}

type Observer = Arc<dyn Fn(Request<'_>) + Send + Sync>;

/// A store whose requests are observed.
pub struct Metered {
    inner: Arc<dyn ObjectStore>,
    observer: Observer,
}

impl Metered {
    /// Calls `observer` after each request to `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, observer: Observer) -> Self {
        Self { inner, observer }
    }

    async fn observe<T>(
        &self,
        method: &'static str,
        bytes: impl Fn(&T) -> u64,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        let result = call.await;
        let (bytes, error) = match &result {
            Ok(v) => (bytes(v), None),
            Err(e) => (0, Some(e)),
        };
        (self.observer)(Request { method, took: start.elapsed(), bytes, error });
        result
    }
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metered({:?})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Metered {
    forward! { |self| self.inner => create_bucket, describe, supports_range, device }

    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        let size = body.len() as u64;
        self.observe("PUT", |()| size, self.inner.put_in_tier(key, body, tier)).await
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        let size = body.len() as u64;
        self.observe("PUT", |new| if *new { size } else { 0 }, self.inner.put_new(key, body)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        self.observe("GET", |b: &Bytes| b.len() as u64, self.inner.get(key, range)).await
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        self.observe("GET", |b: &Bytes| b.len() as u64, self.inner.get_whole(key, most)).await
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        self.observe("HEAD", |_| 0, self.inner.head(key)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.observe("DELETE", |()| 0, self.inner.delete(key)).await
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        self.observe("LIST", |_| 0, self.inner.list(prefix, start_after, limit)).await
    }
}
