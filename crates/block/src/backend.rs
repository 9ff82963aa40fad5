//! What the block layer needs from an object store, in one place.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::BlockError;

/// Stand-in until `ciderfs-object` has its trait.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// No such object.
    #[error("not found")]
    NotFound,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Stand-in until `ciderfs-object` has its trait.
#[async_trait]
pub trait ObjectStore: Send + Sync {
    /// Can it serve ranges without reading the whole object?
    fn supports_range(&self) -> bool;
    /// Stores an object.
    async fn put(&self, key: &str, data: Bytes, tier: u8) -> Result<(), ObjectError>;
    /// Reads an object or a part of it.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectError>;
    /// Removes an object; a missing one is no error.
    async fn delete(&self, key: &str) -> Result<(), ObjectError>;
}

fn error(key: &str, e: ObjectError) -> BlockError {
    match e {
        ObjectError::NotFound => BlockError::NotFound { key: key.to_owned() },
        e => BlockError::Store { key: key.to_owned(), source: Arc::new(e) },
    }
}

/// Stores an object.
pub(crate) async fn put(store: &dyn ObjectStore, key: &str, data: Bytes, tier: u8) -> Result<(), BlockError> {
    store.put(key, data, tier).await.map_err(|e| error(key, e))
}

/// Reads an object, or bytes of it.
pub(crate) async fn get(
    store: &dyn ObjectStore,
    key: &str,
    range: Option<Range<u64>>,
) -> Result<Bytes, BlockError> {
    store.get(key, range).await.map_err(|e| error(key, e))
}

/// Removes an object; a missing one is fine.
pub(crate) async fn delete(store: &dyn ObjectStore, key: &str) -> Result<(), BlockError> {
    match store.delete(key).await {
        Ok(()) | Err(ObjectError::NotFound) => Ok(()),
        Err(e) => Err(error(key, e)),
    }
}

/// Can the store read a part of an object for less than the whole?
pub(crate) fn supports_range(store: &dyn ObjectStore) -> bool {
    store.supports_range()
}
