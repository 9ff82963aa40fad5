//! Encrypts every object of a volume (`docs/format/objects.md#encryption`).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::envelope::Envelope;

use crate::error::{ObjectError, Result};
use crate::store::{Entry, MAX_OBJECT, Meta, ObjectStore};

/// Seals and opens whole objects.
pub trait Cipher: Send + Sync + 'static {
    /// Encrypts.
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, String>;
    /// Decrypts and authenticates.
    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, String>;
    /// Bytes that sealing adds.
    fn overhead(&self) -> u64;
}

/// The volume format's envelope with fresh random keys and nonces.
pub struct EnvelopeCipher(pub Envelope);

impl Cipher for EnvelopeCipher {
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, String> {
        self.0.seal(plain, rand::random(), rand::random()).map_err(|e| e.to_string())
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, String> {
        self.0.open(sealed).map_err(|e| e.to_string())
    }

    fn overhead(&self) -> u64 {
        self.0.overhead() as u64
    }
}

/// A store that keeps only ciphertext.
pub struct Encrypted {
    inner: Arc<dyn ObjectStore>,
    cipher: Arc<dyn Cipher>,
}

impl Encrypted {
    /// Encrypts what goes to `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, cipher: Arc<dyn Cipher>) -> Self {
        Self { inner, cipher }
    }

    async fn seal(&self, key: &str, body: Bytes) -> Result<Bytes> {
        let cipher = Arc::clone(&self.cipher);
        let sealed = tokio::task::spawn_blocking(move || cipher.seal(&body))
            .await
            .map_err(|e| ObjectError::Other(e.to_string()))?
            .map_err(|e| ObjectError::Config(format!("encrypting {key}: {e}")))?;
        Ok(Bytes::from(sealed))
    }
}

impl fmt::Debug for Encrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encrypted({:?})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Encrypted {
    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        self.inner.put_in_tier(key, self.seal(key, body).await?, tier).await
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        self.inner.put_new(key, self.seal(key, body).await?).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let plain = self.get_whole(key, MAX_OBJECT).await?;
        let size = plain.len() as u64;
        let range = range.unwrap_or(0..size);
        Ok(plain.slice(range.start.min(size) as usize..range.end.min(size) as usize))
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        let sealed = self.inner.get_whole(key, most.saturating_add(self.cipher.overhead())).await?;
        let cipher = Arc::clone(&self.cipher);
        let plain = tokio::task::spawn_blocking(move || cipher.open(&sealed))
            .await
            .map_err(|e| ObjectError::Other(e.to_string()))?
            .map_err(|e| {
                ObjectError::Corrupt(key.to_owned(), format!("{e}; is it the right private key?"))
            })?;
        Ok(Bytes::from(plain))
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        self.inner.head(key).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        self.inner.list(prefix, start_after, limit).await
    }

    async fn create_bucket(&self, key: &str) -> Result<()> {
        self.inner.create_bucket(key).await
    }

    fn describe(&self) -> String {
        format!("{}, encrypted", self.inner.describe())
    }

    fn supports_range(&self) -> bool {
        false
    }
}
