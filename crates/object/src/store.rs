//! The trait of every back end and layer.

use std::fmt::Debug;
use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use crate::error::{ObjectError, Result};

/// What is known of an object without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Length of the stored body, in bytes.
    pub size: u64,
    /// Last change, where the store tells.
    pub mtime: Option<SystemTime>,
}

/// A listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Key.
    pub key: String,
    /// Length of the stored body, in bytes.
    pub size: u64,
    /// Last change, where the store tells.
    pub mtime: Option<SystemTime>,
}

/// Largest object of a volume, in bytes: a block of 16 MiB, compressed or not, and what encryption adds. Nobody reads more.
pub const MAX_OBJECT: u64 = 17 << 20;

/// The error of an object that has more bytes than it can have.
pub(crate) fn too_long(key: &str, most: u64) -> ObjectError {
    ObjectError::Other(format!("object {key}: the store has more than the {most} bytes that were asked for"))
}

/// An object store or a layer over one. Keys have no leading `/`.
///
/// Only methods that are built of others have a default body: a layer has to decide about each, see `forward!`.
#[async_trait]
pub trait ObjectStore: Send + Sync + Debug {
    /// Stores a whole object with class and tag of a storage tier, see [`crate::StoreConfig::tiers`]. Readers see the old or the
    /// new one, never a part.
    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()>;

    /// [`ObjectStore::put_in_tier`] with tier 0, that of everything but the content of files.
    async fn put(&self, key: &str, body: Bytes) -> Result<()> {
        self.put_in_tier(key, body, 0).await
    }

    /// Stores a whole object unless there is one: false, and nothing is changed, then. In one step where the store offers that;
    /// else it is asked first, and of two writers at the same moment the last one wins.
    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        match self.head(key).await {
            Ok(_) => Ok(false),
            Err(ObjectError::NotFound(_)) => self.put(key, body).await.map(|()| true),
            Err(e) => Err(e),
        }
    }

    /// Reads an object, or bytes `range` of it. A range past the end is cut. A whole object has at most [`MAX_OBJECT`] bytes.
    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes>;

    /// Reads a whole object of at most `most` bytes. Of a longer one no more than that is received, and the answer is an
    /// error.
    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        let body = self.get(key, None).await?;
        if body.len() as u64 > most { Err(too_long(key, most)) } else { Ok(body) }
    }

    /// Size and time of an object.
    async fn head(&self, key: &str) -> Result<Meta>;

    /// Deletes an object. A missing one is no error.
    async fn delete(&self, key: &str) -> Result<()>;

    /// At most `limit` objects whose key begins with `prefix` and is greater than `start_after`, in ascending byte order.
    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>>;

    /// Creates the bucket or directory that an object `key` would be in, if it is missing and can be created.
    async fn create_bucket(&self, key: &str) -> Result<()>;

    /// The address, without secrets.
    fn describe(&self) -> String;

    /// Can parts of objects be read without reading the whole?
    fn supports_range(&self) -> bool;

    /// The number of the local file system that holds the bodies as they are, if one does. Then more requests at a time
    /// bring no more bytes, and a copy of a large one on the same file system is no faster to read.
    fn device(&self) -> Option<u64>;
}
