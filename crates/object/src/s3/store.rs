//! The driver: opendal behind our trait.

use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::excerpt;
use futures_util::TryStreamExt as _;
use opendal::options::{ListOptions, WriteOptions};
use opendal::services::S3;
use opendal::{BytesRange, ErrorKind, HttpTransporter, OperationContext, Operator, Reader};
use opendal_http_transport_reqwest::ReqwestTransport;
use reqwest::Client;
use tokio::sync::OnceCell;

use super::address::Address;
use super::answers::{Bounded, too_much};
use super::client::{Credentials, http_client};
use super::error::{Asked, Call};
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
    keys: Credentials,
    client: Client,
    /// The address with its region and the operator for it. Made at the first request when the region must be asked for.
    bound: OnceCell<(Address, Operator)>,
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
    pub(crate) fn new(address: Address, keys: Credentials) -> Result<Self> {
        let client = http_client(&address)?;
        let store = Self { address, keys, client, bound: OnceCell::new() };
        if store.address.region.is_some() {
            // Builds now, so that errors show now.
            let bound = store.bind(store.address.clone())?;
            let _ = store.bound.set(bound);
        }
        Ok(store)
    }

    fn bind(&self, address: Address) -> Result<(Address, Operator)> {
        let mut builder = S3::default()
            .bucket(&address.bucket)
            .endpoint(&address.endpoint)
            .region(address.region.as_deref().unwrap_or("us-east-1"))
            .credential_provider_chain(self.keys.provider(address.is_aws()));
        if address.virtual_host {
            builder = builder.enable_virtual_host_style();
        }
        if self.keys == Credentials::Anonymous {
            builder = builder.skip_signature();
        }
        let transport = HttpTransporter::new(Bounded(ReqwestTransport::new(self.client.clone())));
        let context = OperationContext::new().with_http_transport(transport);
        let operator = Operator::new(builder)
            .map_err(|e| ObjectError::Config(format!("{}: {e}", self.describe())))?
            .with_context(context);
        Ok((address, operator))
    }

    async fn bound(&self) -> Result<&(Address, Operator)> {
        self.bound
            .get_or_try_init(|| async {
                let region = bucket::find_region(&self.client, &self.address, &self.describe()).await?;
                self.bind(self.address.with_region(&region))
            })
            .await
    }

    async fn operator(&self) -> Result<&Operator> {
        Ok(&self.bound().await?.1)
    }

    fn error(&self, call: Call, key: &str, e: &opendal::Error) -> ObjectError {
        let asked = Asked { store: &self.describe(), bucket: &self.address.bucket, call, key };
        error::from_opendal(&asked, e).reworded(|text| self.keys.hidden_in(text))
    }

    /// The error of a write, which is the first request to a bucket: where the bucket is somewhere else, ask where.
    async fn write_error(&self, key: &str, e: &opendal::Error) -> ObjectError {
        let error = self.error(Call::Put, key, e);
        if !e.message().contains("PermanentRedirect") {
            return error;
        }
        let address = self.bound.get().map_or(&self.address, |(address, _)| address);
        match bucket::locate(&self.client, address, &self.keys, key).await {
            (region, Some(endpoint)) => ObjectError::Config(format!(
                "{}: PutObject of {key} was refused (PermanentRedirect); {}",
                self.describe(),
                error::elsewhere(region.as_deref(), Some(&endpoint))
            ))
            .reworded(|text| self.keys.hidden_in(text)),
            _ => error,
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
    while let Some(part) = stream.try_next().await? {
        if (body.len() + part.len()) as u64 > most {
            return Err(too_much(most));
        }
        part.for_each(|piece| body.extend_from_slice(&piece));
    }
    Ok(body.into())
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put(&self, key: &str, body: Bytes) -> Result<()> {
        let options = self.write_options(&body);
        let operator = self.operator().await?;
        match operator.write_options(key, body, options).await {
            Ok(_) => Ok(()),
            Err(e) => Err(self.write_error(key, &e).await),
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
        let operator = self.operator().await?;
        match operator.write_options(key, body.clone(), options).await {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::ConditionNotMatch => Ok(false),
            Err(e) if e.message().contains("NotImplemented") => self.put(key, body).await.map(|()| true),
            Err(e) => Err(self.write_error(key, &e).await),
        }
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let Some(range) = range else { return self.get_whole(key, MAX_OBJECT).await };
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let operator = self.operator().await?;
        let fail = |e: opendal::Error| self.error(Call::Get, key, &e);
        let reader = operator.reader(key).await.map_err(fail)?;
        let asked = range.end - range.start;
        match read(&reader, range.clone(), asked).await {
            Ok(body) => Ok(body),
            Err(e) if e.kind() == ErrorKind::RangeNotSatisfied => Ok(Bytes::new()),
            // A store that does not know ranges has sent all.
            Err(_) if reader.metadata().is_some_and(|m| m.content_length() <= range.start) => {
                Ok(Bytes::new())
            }
            // opendal rejects answers that the end of the object cuts short. Callers know the sizes of blocks, so the
            // second request is rare.
            Err(_)
                if reader
                    .metadata()
                    .is_some_and(|m| (range.start + 1..range.end).contains(&m.content_length())) =>
            {
                let end = reader.metadata().map_or(range.start, |m| m.content_length());
                let reader = operator.reader(key).await.map_err(fail)?;
                read(&reader, range.start..end, asked).await.map_err(fail)
            }
            Err(e) => Err(fail(e)),
        }
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        let fail = |e: opendal::Error| self.error(Call::Get, key, &e);
        let reader = self.operator().await?.reader(key).await.map_err(fail)?;
        let body = read(&reader, .., most).await.map_err(fail)?;
        if self.address.checksum {
            let meta = reader.metadata().and_then(|m| m.user_metadata());
            self.verify(key, &body, meta.as_ref().and_then(|m| m.get(CRC_NAME)))?;
        }
        Ok(body)
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        let meta = self.operator().await?.stat(key).await.map_err(|e| self.error(Call::Head, key, &e))?;
        Ok(Meta { size: meta.content_length(), mtime: meta.last_modified().map(SystemTime::from) })
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.operator().await?.delete(key).await.map_err(|e| self.error(Call::Delete, key, &e)) {
            Err(ObjectError::NotFound(_)) => Ok(()),
            other => other,
        }
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        let options = ListOptions {
            recursive: true,
            limit: Some(limit.clamp(1, MAX_LIST)),
            start_after: Some(start_after.to_owned()).filter(|s| !s.is_empty()),
            ..ListOptions::default()
        };
        let fail = |e: opendal::Error| self.error(Call::List, prefix, &e);
        let mut lister = self.operator().await?.lister_options(prefix, options).await.map_err(fail)?;
        let mut found: Vec<Entry> = Vec::new();
        while found.len() < limit {
            let Some(entry) = lister.try_next().await.map_err(fail)? else { break };
            let (key, meta) = entry.into_parts();
            // Folder markers are no objects of a volume.
            if key.ends_with('/') {
                continue;
            }
            let last = found.last().map_or(start_after, |e| &e.key);
            if key.len() > MAX_KEY || !key.starts_with(prefix) || (!last.is_empty() && key.as_str() <= last) {
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
        Ok(found)
    }

    async fn create_bucket(&self, _key: &str) -> Result<()> {
        let address = match self.address.region {
            Some(_) => &self.address,
            // The bucket does not exist yet, so nobody knows its region.
            None => &self.address.with_region("us-east-1"),
        };
        let created = bucket::create(&self.client, address, &self.keys, &self.describe()).await;
        created.map_err(|e| e.reworded(|text| self.keys.hidden_in(text)))
    }

    fn describe(&self) -> String {
        format!("bucket {} at {}", self.address.bucket, self.address.endpoint)
    }
}
