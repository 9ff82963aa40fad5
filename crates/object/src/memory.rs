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
    objects: Mutex<BTreeMap<String, Bytes>>,
}

impl MemoryStore {
    /// Number of objects.
    pub fn len(&self) -> usize {
        self.objects.lock().len()
    }

    /// No objects?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[async_trait]
impl ObjectStore for MemoryStore {
    async fn put(&self, key: &str, body: Bytes) -> Result<()> {
        self.objects.lock().insert(key.to_owned(), body);
        Ok(())
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let body =
            self.objects.lock().get(key).cloned().ok_or_else(|| ObjectError::NotFound(key.to_owned()))?;
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
            .map(|(k, v)| Entry { key: k.clone(), size: v.len() as u64, mtime: None })
            .collect())
    }

    async fn create_bucket(&self, _key: &str) -> Result<()> {
        Ok(())
    }

    fn describe(&self) -> String {
        "mem://".into()
    }
}
