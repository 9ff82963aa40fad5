//! Checks that `format` makes before it creates a volume.

use bytes::Bytes;

use crate::error::{ObjectError, Result};
use crate::store::ObjectStore;

/// Objects below this prefix come from such checks.
const TESTING: &str = "testing/";
/// Characters of a test object's name.
const NAME_LEN: usize = 10;
/// Length of a test object, in bytes.
const BODY_LEN: usize = 100;

/// Writes, reads, compares and deletes a small object below `testing/`.
pub async fn probe(store: &dyn ObjectStore) -> Result<()> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let name: String =
        (0..NAME_LEN).map(|_| ALPHABET[rand::random::<u32>() as usize % ALPHABET.len()] as char).collect();
    let key = format!("{TESTING}{name}");
    let body = Bytes::from((0..BODY_LEN).map(|_| rand::random()).collect::<Vec<u8>>());
    store.put(&key, body.clone()).await?;
    let read = store.get(&key, None).await;
    let deleted = store.delete(&key).await;
    if read? != body {
        return Err(ObjectError::Corrupt(key, "it does not read back as it was written".into()));
    }
    deleted
}

/// Does the volume's prefix hold anything but remains of checks?
pub async fn has_other_objects(store: &dyn ObjectStore) -> Result<bool> {
    let mut after = String::new();
    loop {
        let page = store.list("", &after, 100).await?;
        let Some(last) = page.last() else { return Ok(false) };
        after = last.key.clone();
        if page.iter().any(|e| e.size > 0 && !e.key.starts_with(TESTING)) {
            return Ok(true);
        }
    }
}
