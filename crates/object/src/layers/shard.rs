//! Spreads objects over several buckets by a hash of their full key (`docs/format/objects.md#shards`).

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::objname::shard_of;
use futures_util::future::try_join_all;

use crate::error::Result;
use crate::store::{Entry, Meta, ObjectStore};

/// Several buckets as one.
#[derive(Debug)]
pub struct Sharded {
    shards: Vec<Arc<dyn ObjectStore>>,
}

impl Sharded {
    /// Buckets a volume may have.
    pub const MAX: u32 = 256;

    /// `shards` in order; there must be at least one.
    pub fn new(shards: Vec<Arc<dyn ObjectStore>>) -> Self {
        Self { shards }
    }

    fn shard(&self, key: &str) -> &dyn ObjectStore {
        self.shards[shard_of(key, self.shards.len() as u32) as usize].as_ref()
    }
}

#[async_trait]
impl ObjectStore for Sharded {
    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        self.shard(key).put_in_tier(key, body, tier).await
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        self.shard(key).put_new(key, body).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        self.shard(key).get(key, range).await
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        self.shard(key).get_whole(key, most).await
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        self.shard(key).head(key).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.shard(key).delete(key).await
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        let pages = try_join_all(self.shards.iter().map(|s| s.list(prefix, start_after, limit))).await?;
        let mut all: Vec<Entry> = pages.into_iter().flatten().collect();
        all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        all.truncate(limit);
        Ok(all)
    }

    async fn create_bucket(&self, key: &str) -> Result<()> {
        self.shard(key).create_bucket(key).await
    }

    fn describe(&self) -> String {
        format!("{} shards, the first: {}", self.shards.len(), self.shards[0].describe())
    }

    fn supports_range(&self) -> bool {
        self.shards.iter().all(|s| s.supports_range())
    }

    fn device(&self) -> Option<u64> {
        let first = self.shards.first()?.device()?;
        self.shards.iter().all(|s| s.device() == Some(first)).then_some(first)
    }
}
