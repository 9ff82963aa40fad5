//! What can go wrong with a block.

use std::sync::Arc;

/// An error of the block layer. Clones share their cause, because one download may fail many readers.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BlockError {
    /// The object does not exist: another client compacted or deleted the slice. Fetch the slice list again.
    #[error("block {key} does not exist in the object store")]
    NotFound {
        /// Key relative to the volume.
        key: String,
    },
    /// The object is there, but its content cannot be this block.
    #[error("block {key} is damaged: {detail}")]
    Corrupt {
        /// Key relative to the volume.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The object store failed after its own retries.
    #[error("object store failed at block {key}: {source}")]
    Store {
        /// Key relative to the volume.
        key: String,
        /// The store's error.
        source: Arc<ciderfs_object::ObjectError>,
    },
    /// A write or delete on a block store opened read-only.
    #[error("volume is mounted read-only")]
    ReadOnly,
    /// The caller asked for something that no block can satisfy.
    #[error("invalid block request: {0}")]
    Invalid(String),
    /// The configuration cannot work.
    #[error("invalid block configuration: {0}")]
    Config(String),
    /// The store was shut down, or its runtime is going away.
    #[error("block store is shut down")]
    Closed,
}

impl BlockError {
    /// Is the object gone? The caller should fetch the slice list again before it gives up.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}
