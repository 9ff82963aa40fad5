//! Puts every key below a volume's prefix.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::Result;
use crate::forward::forward;
use crate::store::{Entry, Meta, ObjectStore};

/// A store whose keys all begin with `{name}/`.
#[derive(Debug)]
pub struct Prefixed {
    inner: Arc<dyn ObjectStore>,
    prefix: String,
}

impl Prefixed {
    /// Keys below `name/`.
    pub fn new(inner: Arc<dyn ObjectStore>, name: &str) -> Self {
        Self { inner, prefix: format!("{name}/") }
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }
}

#[async_trait]
impl ObjectStore for Prefixed {
    forward! { |self| self.inner => supports_range, device }

    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        self.inner.put_in_tier(&self.full(key), body, tier).await
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        self.inner.put_new(&self.full(key), body).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        self.inner.get(&self.full(key), range).await
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        self.inner.get_whole(&self.full(key), most).await
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        self.inner.head(&self.full(key)).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(&self.full(key)).await
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        let after = if start_after.is_empty() { String::new() } else { self.full(start_after) };
        let mut page = self.inner.list(&self.full(prefix), &after, limit).await?;
        for e in &mut page {
            if let Some(rest) = e.key.strip_prefix(&self.prefix) {
                e.key = rest.to_owned();
            }
        }
        Ok(page)
    }

    async fn create_bucket(&self, key: &str) -> Result<()> {
        self.inner.create_bucket(&self.full(key)).await
    }

    fn describe(&self) -> String {
        format!("{}, prefix {}", self.inner.describe(), self.prefix)
    }
}
