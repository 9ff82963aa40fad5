//! What the block layer asks of an object store, and how its errors look from above.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use ciderfs_object::{ObjectError, ObjectStore};

use crate::BlockError;

fn error(key: &str, e: ObjectError) -> BlockError {
    let key = key.to_owned();
    match e {
        ObjectError::NotFound { .. } => BlockError::NotFound { key },
        e @ ObjectError::Corrupt { .. } => BlockError::Corrupt { key, detail: e.to_string() },
        e => BlockError::Store { key, source: Arc::new(e) },
    }
}

/// Stores an object of a file of storage tier `tier`.
pub(crate) async fn put(store: &dyn ObjectStore, key: &str, data: Bytes, tier: u8) -> Result<(), BlockError> {
    store.put_in_tier(key, data, tier).await.map_err(|e| error(key, e))
}

/// Reads an object of at most `most` bytes.
pub(crate) async fn get_whole(store: &dyn ObjectStore, key: &str, most: usize) -> Result<Bytes, BlockError> {
    store.get_whole(key, most as u64).await.map_err(|e| error(key, e))
}

/// Reads bytes of an object.
pub(crate) async fn get_range(
    store: &dyn ObjectStore,
    key: &str,
    range: Range<u64>,
) -> Result<Bytes, BlockError> {
    store.get(key, Some(range)).await.map_err(|e| error(key, e))
}

/// Removes an object; a missing one is fine.
pub(crate) async fn delete(store: &dyn ObjectStore, key: &str) -> Result<(), BlockError> {
    match store.delete(key).await {
        Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
        Err(e) => Err(error(key, e)),
    }
}
