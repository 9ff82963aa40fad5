//! An object store in memory, for tests.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::error::{ObjectError, Result};
use crate::store::{Entry, Meta, ObjectStore};

/// Objects in a map.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// Bodies, and the tiers that they were stored in.
    objects: Mutex<BTreeMap<String, (Bytes, u8)>>,
}

impl MemoryStore {
    /// Number of objects.
    pub fn len(&self) -> usize {
        self.objects.lock().len()
    }

    /// The storage tier that an object was stored in.
    pub fn tier_of(&self, key: &str) -> Option<u8> {
        self.objects.lock().get(key).map(|(_, tier)| *tier)
    }

    /// No objects?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        self.objects.lock().insert(key.to_owned(), (body, tier));
        Ok(())
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let found = self.objects.lock().get(key).cloned();
        let (body, _) = found.ok_or_else(|| ObjectError::NotFound(key.to_owned()))?;
        let size = body.len() as u64;
        let range = range.unwrap_or(0..size);
        Ok(body.slice(range.start.min(size) as usize..range.end.min(size) as usize))
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        Ok(Meta { size: self.get(key, None).await?.len() as u64, mtime: None })
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.objects.lock().remove(key);
        Ok(())
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        let objects = self.objects.lock();
        let from = Bound::Excluded(start_after.to_owned());
        Ok(objects
            .range((from, Bound::Unbounded))
            .filter(|(k, _)| k.starts_with(prefix))
            .take(limit)
            .map(|(k, (body, _))| Entry { key: k.clone(), size: body.len() as u64, mtime: None })
            .collect())
    }

    async fn create_bucket(&self, _key: &str) -> Result<()> {
        Ok(())
    }

    fn describe(&self) -> String {
        "mem://".into()
    }

    fn supports_range(&self) -> bool {
        true
    }

    fn device(&self) -> Option<u64> {
        None
    }
}
