//! Keeps the bandwidth of a store that does not see its bodies pass.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::bandwidth::{Bandwidth, Waits};
use crate::error::Result;
use crate::forward::forward;
use crate::store::{MAX_OBJECT, ObjectStore};

/// A store whose bodies wait until they may pass as a whole.
#[derive(Debug)]
pub struct Paced {
    inner: Arc<dyn ObjectStore>,
    bandwidth: Arc<Bandwidth>,
}

impl Paced {
    /// Bounds what goes to and comes from `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, bandwidth: Arc<Bandwidth>) -> Self {
        Self { inner, bandwidth }
    }

    /// Waits until the bytes of an object may pass that `part` makes of its size.
    async fn wait_for(&self, key: &str, part: impl FnOnce(u64) -> u64) -> Result<()> {
        let pace = &self.bandwidth.download;
        if pace.is_limited() {
            let size = self.inner.head(key).await?.size;
            Waits::current().during(pace.take(part(size))).await;
        }
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for Paced {
    forward! { |self| self.inner => head, delete, list, create_bucket, describe, supports_range, device }

    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        Waits::current().during(self.bandwidth.upload.take(body.len() as u64)).await;
        self.inner.put_in_tier(key, body, tier).await
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        Waits::current().during(self.bandwidth.upload.take(body.len() as u64)).await;
        self.inner.put_new(key, body).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let Some(range) = range else { return self.get_whole(key, MAX_OBJECT).await };
        self.wait_for(key, |size| range.end.min(size).saturating_sub(range.start)).await?;
        self.inner.get(key, Some(range)).await
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        self.wait_for(key, |size| size.min(most)).await?;
        self.inner.get_whole(key, most).await
    }
}
