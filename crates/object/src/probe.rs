//! What is tried before a place for objects is believed in.

use std::time::Duration;

use bytes::Bytes;
use ciderfs_format::objname::shard_of;
use tokio::time::{Instant, sleep};

use crate::error::{ObjectError, Result};
use crate::store::ObjectStore;

/// Objects below this prefix come from such checks.
const TESTING: &str = "testing/";
/// Characters of a test object's name.
const NAME_LEN: usize = 10;
/// Length of a test object, in bytes.
const BODY_LEN: usize = 100;
/// A part of it that is read alone.
const PART: std::ops::Range<u64> = 10..20;
/// How long a bucket that was just made may stay unknown to its own store.
const NEW_BUCKET_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at it.
const NEW_BUCKET_PAUSE: Duration = Duration::from_millis(250);

fn random_name() -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..NAME_LEN).map(|_| ALPHABET[rand::random::<u32>() as usize % ALPHABET.len()] as char).collect()
}

/// One key of a test object for each bucket of the volume `name`.
fn test_keys(name: &str, shards: u32) -> Vec<String> {
    let random = || format!("{TESTING}{}", random_name());
    if shards <= 1 {
        return vec![random()];
    }
    (0..shards)
        .filter_map(|shard| {
            std::iter::repeat_with(random).find(|key| shard_of(&format!("{name}/{key}"), shards) == shard)
        })
        .collect()
}

/// Tries the store of the volume `name`: writes, reads, reads a part, and deletes a small object below `testing/` in each
/// of its buckets. All rights that turn out to be missing are told at once. A listing that is refused is only a warning,
/// because nothing that serves files lists.
pub async fn probe(store: &dyn ObjectStore, name: &str, shards: u32) -> Result<()> {
    for key in test_keys(name, shards) {
        let body = test_body();
        store.put(&key, body.clone()).await?;
        rest(store, &key, &body).await?;
    }
    Ok(())
}

/// Does the store take class and tag of a storage tier? Stores a small object below `testing/` in each bucket of the volume `name`, and
/// deletes it. It is not read: the classes of archives have nothing to read for hours.
pub async fn try_tier(store: &dyn ObjectStore, name: &str, shards: u32, tier: u8) -> Result<()> {
    for key in test_keys(name, shards) {
        if let Err(e) = store.put_in_tier(&key, test_body(), tier).await {
            // It may be there all the same.
            let _ = store.delete(&key).await;
            return Err(e);
        }
        if let Err(e) = store.delete(&key).await {
            tracing::warn!("{e}; the test object {key} stays behind");
        }
    }
    Ok(())
}

/// [`probe`] for a volume that is about to be made: a bucket that is missing is created. Whoever may not create buckets is
/// never asked to as long as there is one.
pub async fn prepare(store: &dyn ObjectStore, name: &str, shards: u32) -> Result<()> {
    for key in test_keys(name, shards) {
        let body = test_body();
        match store.put(&key, body.clone()).await {
            Err(ObjectError::NoBucket(missing)) => {
                tracing::info!("{missing} does not exist: creating it");
                put_in_new(store, &key, &body).await?;
            }
            other => other?,
        }
        rest(store, &key, &body).await?;
    }
    Ok(())
}

fn test_body() -> Bytes {
    Bytes::from((0..BODY_LEN).map(|_| rand::random()).collect::<Vec<u8>>())
}

/// Makes the bucket, and waits until it takes an object.
async fn put_in_new(store: &dyn ObjectStore, key: &str, body: &Bytes) -> Result<()> {
    let mut created = store.create_bucket(key).await;
    // Somebody else may have made it since; if so, the object tells.
    let started = Instant::now();
    loop {
        match store.put(key, body.clone()).await {
            Err(e) if matches!(e, ObjectError::NoBucket(_)) || e.is_retryable() => {
                if created
                    .as_ref()
                    .is_err_and(|e| e.is_retryable() && started.elapsed() < NEW_BUCKET_PATIENCE)
                {
                    sleep(NEW_BUCKET_PAUSE).await;
                    created = store.create_bucket(key).await;
                    continue;
                }
                created.clone()?;
                if started.elapsed() > NEW_BUCKET_PATIENCE {
                    return Err(e);
                }
                sleep(NEW_BUCKET_PAUSE).await;
            }
            // Nothing was made, and somebody else's bucket has the name.
            Err(e) => return created.and(Err(e)),
            Ok(()) => return Ok(()),
        }
    }
}

/// A right that a volume needs, and whether it is there.
#[derive(Debug)]
pub struct Trial {
    /// What was tried: `delete`, `put`, `get`, `range` or `list`.
    pub right: &'static str,
    /// How it went.
    pub outcome: Result<()>,
}

/// [`probe`] that tells of each right by itself, of all buckets of the volume together. It begins with a deletion of nothing: where
/// that is refused nothing is written, so that nothing stays behind. Ends where a try gets no answer.
pub async fn try_rights(store: &dyn ObjectStore, name: &str, shards: u32) -> Vec<Trial> {
    let mut trials: Vec<Trial> = Vec::new();
    for key in test_keys(name, shards) {
        if !try_key(store, &key, &mut trials).await {
            break;
        }
    }
    trials
}

/// The rights on one key. False: there is no use in going on.
async fn try_key(store: &dyn ObjectStore, key: &str, trials: &mut Vec<Trial>) -> bool {
    let mut note = |right, outcome: Result<()>| {
        let is_there = outcome.is_ok();
        match trials.iter_mut().find(|trial| trial.right == right) {
            Some(trial) if trial.outcome.is_ok() => trial.outcome = outcome,
            Some(_) => {}
            None => trials.push(Trial { right, outcome }),
        }
        is_there
    };
    if !note("delete", store.delete(key).await) {
        return false;
    }
    let body = test_body();
    let put = store.put(key, body.clone()).await;
    if put.is_err() {
        // A reply may be lost, and the object there.
        let _ = store.delete(key).await;
    }
    if !note("put", put) {
        return false;
    }
    let (whole, part) = read_back(store, key, &body).await;
    let listed = match lists(store).await {
        Ok(false) => Err(ObjectError::Other("the listing does not have what was just written".into())),
        other => other.map(|_| ()),
    };
    let deleted = store.delete(key).await;
    let mut is_useful = note("get", whole);
    // Not tried where the whole cannot be read.
    is_useful &= is_useful && note("range", part);
    is_useful &= note("list", listed);
    is_useful &= note("delete", deleted);
    is_useful
}

/// Reads all of a test object, and a part of it.
async fn read_back(store: &dyn ObjectStore, key: &str, body: &Bytes) -> (Result<()>, Result<()>) {
    let whole = store.get(key, None).await;
    let wanted = body.slice(PART.start as usize..PART.end as usize);
    let part = match (&whole, store.supports_range()) {
        (Ok(_), true) => store.get(key, Some(PART)).await,
        _ => Ok(wanted.clone()),
    };
    let same = |read: Bytes, wanted: &Bytes| {
        let differs = "it does not read back as it was written";
        if read == *wanted { Ok(()) } else { Err(ObjectError::Corrupt(key.to_owned(), differs.into())) }
    };
    (whole.and_then(|read| same(read, body)), part.and_then(|read| same(read, &wanted)))
}

/// Lists test objects: is there one?
async fn lists(store: &dyn ObjectStore) -> Result<bool> {
    Ok(!store.list(TESTING, "", 1).await?.is_empty())
}

/// Everything after the first write.
async fn rest(store: &dyn ObjectStore, key: &str, body: &Bytes) -> Result<()> {
    let (whole, part) = read_back(store, key, body).await;
    match lists(store).await {
        Err(e) => tracing::warn!(
            "{e}; files can be used without it, but nothing that lists objects, as gc and fsck do"
        ),
        Ok(false) => {
            tracing::warn!("{}: the listing does not have what was just written", store.describe());
        }
        Ok(true) => {}
    }
    let deleted = store.delete(key).await;
    let mut denied = Vec::new();
    let mut sort = |outcome: Result<()>| match outcome {
        Err(ObjectError::AccessDenied(text)) => {
            denied.push(text);
            Ok(())
        }
        other => other,
    };
    sort(whole)?;
    sort(part)?;
    let left_over = deleted.is_err();
    sort(deleted)?;
    if denied.is_empty() {
        return Ok(());
    }
    if left_over {
        denied.push(format!("the test object {key} stays behind"));
    }
    Err(ObjectError::AccessDenied(denied.join("; ")))
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
