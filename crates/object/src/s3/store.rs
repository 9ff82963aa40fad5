//! The driver: opendal behind our trait.

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::excerpt;
use futures_util::TryStreamExt as _;
use opendal::options::{ListOptions, WriteOptions};
use opendal::{BytesRange, ErrorKind, Operator, Reader};
use reqwest::Client;
use tokio::sync::OnceCell;

use super::address::{Address, is_region_name as is_region};
use super::answers::{UNKNOWN_LENGTH, too_much};
use super::bound::{Bound, Manner};
use super::client::{READ_TIMEOUT, http_client};
use super::error::{Asked, Call};
use super::keys::{Credentials, Keys};
use super::{bucket, error};
use crate::error::{ObjectError, Result};
use crate::store::{Entry, MAX_OBJECT, Meta, ObjectStore};

/// Entries of a page of a listing.
const MAX_LIST: usize = 1000;
/// Bytes of a key, as S3 has it.
const MAX_KEY: usize = 1024;
/// User metadata with the CRC-32C of the body as decimal text.
const CRC_NAME: &str = "crc32c";

/// A bucket of an S3 service. One attempt per call; deadlines are the caller's ([`crate::layers::Limited`]).
pub(crate) struct S3Store {
    address: Address,
    keys: Keys,
    client: Client,
    manner: Manner,
    /// Made at the first request when the region must be asked for.
    bound: OnceCell<Bound>,
    /// Instead of it, once the store has named another region.
    moved: OnceLock<Bound>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store")
            .field("address", &self.address)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

impl S3Store {
    /// Sets up the client; nothing is sent yet.
    pub(crate) fn new(address: Address, keys: Credentials, manner: Manner) -> Result<Self> {
        let (client, keys) = (http_client(&address, Some(READ_TIMEOUT))?, Keys::new(keys));
        let (bound, moved) = (OnceCell::new(), OnceLock::new());
        let store = Self { address, keys, client, manner, bound, moved };
        if store.address.region.is_some() {
            // Builds now, so that errors show now.
            let bound = store.bind(store.address.clone())?;
            let _ = store.bound.set(bound);
        }
        Ok(store)
    }

    fn bind(&self, address: Address) -> Result<Bound> {
        Bound::new(address, &self.keys, &self.client, &self.manner)
    }

    async fn bound(&self) -> Result<&Bound> {
        if let Some(moved) = self.moved.get() {
            return Ok(moved);
        }
        self.bound
            .get_or_try_init(|| async {
                let region = bucket::find_region(&self.client, &self.address, &self.describe()).await?;
                self.bind(self.address.with_region(&region))
            })
            .await
    }

    fn error(&self, call: Call, key: &str, e: &opendal::Error) -> ObjectError {
        let asked =
            Asked { store: &self.describe(), bucket: &self.address.bucket, call, key, keys: &self.keys };
        error::from_opendal(&asked, e).reworded(|text| self.keys.hidden_in(text))
    }

    /// What to tell whoever makes a volume here about a bucket that does not free what is deleted.
    pub(crate) async fn warnings(&self) -> Vec<String> {
        let Ok(bound) = self.bound().await else { return Vec::new() };
        let (versioned, locked) = bucket::keeps_deleted(&self.client, &bound.address, &self.keys).await;
        let store = self.describe();
        let mut all = Vec::new();
        if versioned {
            all.push(format!(
                "{store} has versioning: every block that is deleted or overwritten is kept and paid for; suspend versioning, or \
                 set a rule that expires noncurrent versions"
            ));
        }
        if locked {
            all.push(format!(
                "{store} has object lock: blocks cannot be deleted before their retention ends, so the space of deleted files is \
                 not freed; use a bucket without object lock"
            ));
        }
        all
    }

    /// What to make a failed request with once more, because the store named the region of the bucket; or its error.
    async fn again(&self, bound: &Bound, call: Call, key: &str, e: &opendal::Error) -> Result<&Bound> {
        let Some(hint) = error::other_region(e, bound.address.is_aws()) else {
            return Err(self.error(call, key, e));
        };
        let region = match hint {
            Some(region) => Some(region),
            // An answer without a body.
            None => bucket::locate(&self.client, &bound.address, &self.keys, key).await.0,
        };
        let old = bound.address.region.as_deref().unwrap_or_default();
        let Some(region) = region.filter(|region| is_region(region) && region != old) else {
            return Err(self.error(call, key, e));
        };
        if self.moved.get().is_none() {
            let moved = self.bind(bound.address.with_region(&region))?;
            if self.moved.set(moved).is_ok() {
                tracing::warn!(
                    "{} is in the region {region}, not in {old}: set AWS_REGION={region}, or put ?region={region} at the end of \
                     --bucket, to save a request at each start",
                    self.describe()
                );
            }
        }
        // Whoever names a second one is not followed.
        self.moved
            .get()
            .filter(|moved| moved.address.region.as_deref() == Some(&region))
            .ok_or_else(|| self.error(call, key, e))
    }

    /// The error of a write, which is the first request to a bucket: where the bucket is somewhere else, ask where.
    async fn write_error(&self, bound: &Bound, key: &str, e: ObjectError) -> ObjectError {
        if !matches!(&e, ObjectError::Config(text) if text.contains("PermanentRedirect")) {
            return e;
        }
        match bucket::locate(&self.client, &bound.address, &self.keys, key).await {
            (region, Some(endpoint)) => ObjectError::Config(format!(
                "{}: PutObject of {key} was refused (PermanentRedirect); {}",
                self.describe(),
                error::elsewhere(region.as_deref(), Some(&endpoint))
            ))
            .reworded(|text| self.keys.hidden_in(text)),
            _ => e,
        }
    }

    fn write_options(&self, body: &Bytes) -> WriteOptions {
        let crc = || [(CRC_NAME.to_owned(), crc32c::crc32c(body).to_string())].into();
        WriteOptions {
            content_type: Some("application/octet-stream".to_owned()),
            user_metadata: self.address.checksum.then(crc),
            ..WriteOptions::default()
        }
    }

    fn verify(&self, key: &str, body: &Bytes, expected: Option<&str>) -> Result<()> {
        // Absent or unreadable: written by something else, accepted as the official client does.
        let Some(expected) = expected.and_then(|v| v.parse::<u32>().ok()) else { return Ok(()) };
        let found = crc32c::crc32c(body);
        if found == expected {
            return Ok(());
        }
        Err(ObjectError::Corrupt(key.to_owned(), format!("CRC-32C is {found}, {expected} was written")))
    }
}

/// Reads a part of at most `most` bytes into one piece of memory: small pieces would hold more than they are long.
async fn read(reader: &Reader, range: impl Into<BytesRange>, most: u64) -> opendal::Result<Bytes> {
    let mut stream = reader.clone().into_stream(range).await?;
    let told = stream.metadata().await?.content_length();
    let mut body = Vec::with_capacity(told.min(most) as usize);
    let is_unknown = told == UNKNOWN_LENGTH;
    while let Some(part) = stream.try_next().await? {
        if (body.len() + part.len()) as u64 > most {
            return Err(too_much(most));
        }
        part.for_each(|piece| body.extend_from_slice(&piece));
    }
    if is_unknown {
        body.shrink_to_fit();
    }
    Ok(body.into())
}

/// Reads a part; one past the end is cut.
async fn read_part(operator: &Operator, key: &str, range: &Range<u64>) -> opendal::Result<Bytes> {
    let reader = operator.reader(key).await?;
    let asked = range.end - range.start;
    let e = match read(&reader, range.clone(), asked).await {
        Ok(body) => return Ok(body),
        Err(e) if e.kind() == ErrorKind::RangeNotSatisfied => return Ok(Bytes::new()),
        Err(e) => e,
    };
    // Of the whole object, where the store tells.
    let Some(len) = reader.metadata().map(|m| m.content_length()).filter(|len| *len != UNKNOWN_LENGTH) else {
        return Err(e);
    };
    // A store that does not know ranges has sent all.
    if len <= range.start {
        return Ok(Bytes::new());
    }
    // opendal rejects answers that the end of the object cuts short. Callers know the sizes of blocks, so the second request is
    // rare.
    if len < range.end {
        return read(&operator.reader(key).await?, range.start..len, asked).await;
    }
    Err(e)
}

/// Reads a whole object, and the checksum that is stored with it.
async fn read_whole(operator: &Operator, key: &str, most: u64) -> opendal::Result<(Bytes, Option<String>)> {
    let reader = operator.reader(key).await?;
    let body = read(&reader, .., most).await?;
    let meta = reader.metadata().and_then(|m| m.user_metadata());
    Ok((body, meta.and_then(|m| m.get(CRC_NAME).map(str::to_owned))))
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<()> {
        let options = self.write_options(&body);
        let mut bound = self.bound().await?;
        loop {
            let Err(e) = bound.operator_for(tier).write_options(key, body.clone(), options.clone()).await
            else {
                return Ok(());
            };
            bound = match self.again(bound, Call::Put, key, &e).await {
                Ok(moved) => moved,
                Err(e) => return Err(self.write_error(bound, key, e).await),
            };
        }
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        // Stores that do not know the condition ignore it, or refuse it.
        match self.head(key).await {
            Ok(_) => return Ok(false),
            // Whoever may not list is told no more than this of an object that does not exist.
            Err(ObjectError::NotFound(_) | ObjectError::AccessDenied(_)) => {}
            Err(e) => return Err(e),
        }
        let options = WriteOptions { if_not_exists: true, ..self.write_options(&body) };
        let mut bound = self.bound().await?;
        loop {
            let e = match bound.operator_for(0).write_options(key, body.clone(), options.clone()).await {
                Ok(_) => return Ok(true),
                Err(e) => e,
            };
            if e.kind() == ErrorKind::ConditionNotMatch {
                return Ok(false);
            }
            if e.message().contains("NotImplemented") {
                return self.put(key, body).await.map(|()| true);
            }
            bound = match self.again(bound, Call::Put, key, &e).await {
                Ok(moved) => moved,
                Err(e) => return Err(self.write_error(bound, key, e).await),
            };
        }
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let Some(range) = range else { return self.get_whole(key, MAX_OBJECT).await };
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let mut bound = self.bound().await?;
        loop {
            match read_part(&bound.operator, key, &range).await {
                Ok(body) => return Ok(body),
                Err(e) => bound = self.again(bound, Call::Get, key, &e).await?,
            }
        }
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        let mut bound = self.bound().await?;
        loop {
            match read_whole(&bound.operator, key, most).await {
                Ok((body, crc)) => {
                    if self.address.checksum {
                        self.verify(key, &body, crc.as_deref())?;
                    }
                    return Ok(body);
                }
                Err(e) => bound = self.again(bound, Call::Get, key, &e).await?,
            }
        }
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        let mut bound = self.bound().await?;
        let meta = loop {
            match bound.operator.stat(key).await {
                Ok(meta) => break meta,
                Err(e) => bound = self.again(bound, Call::Head, key, &e).await?,
            }
        };
        Ok(Meta { size: meta.content_length(), mtime: meta.last_modified().map(SystemTime::from) })
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let mut bound = self.bound().await?;
        loop {
            let Err(e) = bound.operator.delete(key).await else { return Ok(()) };
            bound = match self.again(bound, Call::Delete, key, &e).await {
                Err(ObjectError::NotFound(_)) => return Ok(()),
                other => other?,
            };
        }
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        let options = ListOptions {
            recursive: true,
            limit: Some(limit.clamp(1, MAX_LIST)),
            start_after: Some(start_after.to_owned()).filter(|s| !s.is_empty()),
            ..ListOptions::default()
        };
        let mut bound = self.bound().await?;
        // A listing that has begun does not move.
        let (mut lister, mut next) = loop {
            let begin = async {
                let mut lister = bound.operator.lister_options(prefix, options.clone()).await?;
                let first = lister.try_next().await?;
                Ok((lister, first))
            };
            match begin.await {
                Ok(begun) => break begun,
                Err(e) => bound = self.again(bound, Call::List, prefix, &e).await?,
            }
        };
        let mut found: Vec<Entry> = Vec::new();
        while let Some(entry) = next {
            let (key, meta) = entry.into_parts();
            // Folder markers are no objects of a volume.
            if !key.ends_with('/') {
                let last = found.last().map_or(start_after, |e| &e.key);
                if key.len() > MAX_KEY
                    || !key.starts_with(prefix)
                    || (!last.is_empty() && key.as_str() <= last)
                {
                    return Err(ObjectError::Other(format!(
                        "{}: the listing of {prefix:?} has {:?} out of order after {last:?}",
                        self.describe(),
                        excerpt(&key)
                    )));
                }
                found.push(Entry {
                    size: meta.content_length(),
                    mtime: meta.last_modified().map(SystemTime::from),
                    key,
                });
            }
            if found.len() >= limit {
                break;
            }
            next = lister.try_next().await.map_err(|e| self.error(Call::List, prefix, &e))?;
        }
        Ok(found)
    }

    async fn create_bucket(&self, _key: &str) -> Result<()> {
        let address = match (self.moved.get(), &self.address.region) {
            (Some(moved), _) => &moved.address,
            (None, Some(_)) => &self.address,
            // The bucket does not exist yet, so nobody knows its region.
            (None, None) => &self.address.with_region("us-east-1"),
        };
        let created = bucket::create(&self.client, address, &self.keys, &self.describe()).await;
        created.map_err(|e| e.reworded(|text| self.keys.hidden_in(text)))
    }

    fn describe(&self) -> String {
        format!("bucket {} at {}", self.address.bucket, self.address.endpoint)
    }

    fn supports_range(&self) -> bool {
        true
    }

    fn device(&self) -> Option<u64> {
        None
    }
}
