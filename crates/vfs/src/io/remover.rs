//! Lets the metadata layer delete the objects of dead slices.

use std::sync::Arc;

use async_trait::async_trait;
use ciderfs_block::BlockStore;
use ciderfs_meta::SliceRemover;

/// Deletes slices through the block store, caches included.
pub struct BlockRemover(pub Arc<BlockStore>);

#[async_trait]
impl SliceRemover for BlockRemover {
    async fn remove_slice(&self, id: u64, size: u32) -> Result<(), String> {
        self.0.delete_slice(id, size).await.map_err(|e| e.to_string())
    }
}
