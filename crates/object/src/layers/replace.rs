//! A store that can be exchanged while it is in use: settings change, mounts stay.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;

use crate::error::Result;
use crate::store::{Entry, Meta, ObjectStore};

/// Passes requests to the store of the moment. Requests that are under way end with the one that they began with.
#[derive(Debug)]
pub struct Replaceable(RwLock<Arc<dyn ObjectStore>>);

impl Replaceable {
    /// Around a first store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(RwLock::new(store))
    }

    /// Takes another store for the requests to come. It must hold the same objects.
    pub fn replace(&self, store: Arc<dyn ObjectStore>) {
        *self.0.write() = store;
    }

    fn now(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.0.read())
    }
}

#[async_trait]
impl ObjectStore for Replaceable {
    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        self.now().put_in_tier(key, body, tier).await
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        self.now().put_new(key, body).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        self.now().get(key, range).await
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        self.now().get_whole(key, most).await
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        self.now().head(key).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.now().delete(key).await
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        self.now().list(prefix, start_after, limit).await
    }

    async fn create_bucket(&self, key: &str) -> Result<()> {
        self.now().create_bucket(key).await
    }

    fn describe(&self) -> String {
        self.now().describe()
    }

    fn supports_range(&self) -> bool {
        self.now().supports_range()
    }

    fn device(&self) -> Option<u64> {
        self.now().device()
    }
}
