//! The driver: an operator of opendal behind our trait.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::{Secret, excerpt};
use futures_util::TryStreamExt as _;
use opendal::options::WriteOptions;
use opendal::{BytesRange, ErrorKind, Operator, Reader};

use super::list::Listing;
use crate::error::{ObjectError, Result};
use crate::s3::{causes, from_transport, status_of, transport};
use crate::store::{Entry, MAX_OBJECT, Meta, ObjectStore, too_long};

/// User metadata with the CRC-32C of the body as decimal text, where the official client writes it.
const CRC_NAME: &str = "crc32c";

/// A place for objects that opendal serves. One attempt per call; deadlines are the caller's ([`crate::layers::Limited`]).
pub(crate) struct Blobs {
    pub(super) operator: Operator,
    /// The address in words.
    pub(super) name: String,
    /// What stands before each key.
    pub(super) before: String,
    pub(super) listing: Listing,
    /// Checksums are written and verified.
    pub(super) has_checksums: bool,
    /// Readers would see a part of what is being written: it is written beside, and then renamed.
    pub(super) renames: bool,
    /// Directories that the place itself is.
    pub(super) is_directory: bool,
    /// What no text may tell.
    pub(super) secrets: Vec<Secret>,
    /// What to do where the keys are refused.
    pub(super) keys: &'static str,
    /// The server was seen to send whole objects only.
    pub(super) sends_whole: AtomicBool,
}

impl fmt::Debug for Blobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs")
            .field("name", &self.name)
            .field("listing", &self.listing)
            .finish_non_exhaustive()
    }
}

async fn body_of(
    reader: &Reader,
    range: impl Into<BytesRange>,
    key: &str,
    most: u64,
) -> opendal::Result<Bytes> {
    let mut stream = reader.clone().into_stream(range).await?;
    let mut body = Vec::new();
    while let Some(part) = stream.try_next().await? {
        if (body.len() + part.len()) as u64 > most {
            return Err(opendal::Error::new(ErrorKind::RangeNotSatisfied, too_long(key, most).to_string()));
        }
        part.for_each(|piece| body.extend_from_slice(&piece));
    }
    Ok(body.into())
}

/// Did a server of SFTP answer that something cannot be done, without saying why?
fn is_plain_failure(e: &opendal::Error) -> bool {
    use std::error::Error as _;
    e.source().is_some_and(|source| source.to_string().contains("reported error kind Failure"))
}

impl Blobs {
    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.before)
    }

    pub(super) fn hidden(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| secret.hidden_in(&text))
    }

    fn error(&self, what: &str, key: &str, e: &opendal::Error) -> ObjectError {
        use std::error::Error as _;
        if let Some(broken) = e.source().and_then(transport) {
            return from_transport(&self.name, broken).reworded(|text| self.hidden(text));
        }
        let said = match e.source() {
            Some(source) if e.message().is_empty() => causes(source),
            Some(source) => format!("{}: {}", e.message(), causes(source)),
            None => e.message().to_owned(),
        };
        let at = format!("{}: {what} of {key}: {}", self.name, excerpt(&self.hidden(&said)));
        match status_of(e) {
            Some(401 | 403) => return ObjectError::AccessDenied(format!("{at}; {}", self.keys)),
            Some(429 | 503) => return ObjectError::Throttled(at),
            Some(507) => return ObjectError::NoSpace(at),
            Some(500..=599) => return ObjectError::Server(at),
            _ => {}
        }
        // An error page says less than this.
        if what == "PUT" && self.is_directory && status_of(e) == Some(409) {
            return ObjectError::Config(format!(
                "{}: PUT of {key} was refused (409 Conflict): make the directory of the address on the server first",
                self.name
            ));
        }
        match e.kind() {
            ErrorKind::NotFound if what == "PUT" => ObjectError::NoBucket(self.name.clone()),
            ErrorKind::NotFound => ObjectError::NotFound(key.to_owned()),
            ErrorKind::PermissionDenied => ObjectError::AccessDenied(format!("{at}; {}", self.keys)),
            ErrorKind::RateLimited => ObjectError::Throttled(at),
            ErrorKind::ConfigInvalid => ObjectError::Config(at),
            _ if said.to_ascii_lowercase().contains("credential") => {
                ObjectError::AccessDenied(format!("{at}; {}", self.keys))
            }
            _ if said.contains("failed to connect to") || said.contains("onnection refused") => {
                ObjectError::Unreachable(at)
            }
            _ if e.is_temporary() || self.renames => ObjectError::Server(at),
            _ => ObjectError::Other(at),
        }
    }

    async fn write(&self, key: &str, body: Bytes, is_new: bool) -> opendal::Result<()> {
        let can = self.operator.info().capability();
        let crc = || [(CRC_NAME.to_owned(), crc32c::crc32c(&body).to_string())].into();
        let options = WriteOptions {
            content_type: can.write_with_content_type.then(|| "application/octet-stream".to_owned()),
            user_metadata: self.has_checksums.then(crc),
            if_not_exists: is_new,
            ..WriteOptions::default()
        };
        if !self.renames {
            return self.operator.write_options(key, body, options).await.map(|_| ());
        }
        let (dir, name) = key.rfind('/').map_or(("", key), |at| key.split_at(at + 1));
        let temp = format!("{dir}.{}.tmp.{}", excerpt(name), rand::random::<u64>());
        let len = body.len() as u64;
        let written = async {
            self.operator.write_options(&temp, body, options).await?;
            self.replace(&temp, key, len).await
        };
        let result = written.await;
        if result.is_err() {
            let _ = self.operator.delete(&temp).await;
        }
        result
    }

    /// Length of the file, if it is there.
    async fn len_of(&self, path: &str) -> opendal::Result<Option<u64>> {
        match self.operator.stat(path).await {
            Ok(meta) => Ok(meta.is_file().then(|| meta.content_length())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Puts the file `temp` of `len` bytes in the place of an object, which stays as it was if that fails.
    async fn replace(&self, temp: &str, key: &str, len: u64) -> opendal::Result<()> {
        let Err(failed) = self.operator.rename(temp, key).await else { return Ok(()) };
        if failed.kind() != ErrorKind::Unexpected {
            return Err(failed);
        }
        let (Ok(new), Ok(old)) = (self.len_of(temp).await, self.len_of(key).await) else {
            return Err(failed);
        };
        // The answer was lost.
        if new.is_none() && old == Some(len) {
            return Ok(());
        }
        if new.is_none() || old.is_none() || !is_plain_failure(&failed) {
            return Err(failed);
        }
        // Many servers rename to no name that is taken. Not a number at the end: it is never cleaned up as an upload.
        let aside = format!("{temp}-old");
        let moved = async {
            self.operator.rename(key, &aside).await?;
            self.operator.rename(temp, key).await
        };
        if let Err(e) = moved.await {
            if let Err(e) = self.operator.rename(&aside, key).await
                && e.kind() != ErrorKind::NotFound
            {
                tracing::warn!(
                    "{}: the old {key} may be at {aside}: {}",
                    self.name,
                    self.hidden(&e.to_string())
                );
            }
            return Err(e);
        }
        if let Err(e) = self.operator.delete(&aside).await {
            tracing::warn!(
                "{}: {aside} is left and can be deleted: {}",
                self.name,
                self.hidden(&e.to_string())
            );
        }
        Ok(())
    }

    async fn whole(&self, key: &str, most: u64) -> opendal::Result<(Bytes, Option<String>)> {
        let reader = self.operator.reader(&self.full(key)).await?;
        let body = body_of(&reader, .., key, most).await?;
        let meta = reader.metadata().and_then(|meta| meta.user_metadata());
        Ok((body, meta.and_then(|meta| meta.get(CRC_NAME).map(str::to_owned))))
    }

    /// Reads a part; one past the end is cut.
    async fn part(&self, key: &str, range: &Range<u64>) -> opendal::Result<Bytes> {
        let full = self.full(key);
        let read = async |range: Range<u64>| {
            let asked = range.end - range.start;
            body_of(&self.operator.reader(&full).await?, range, key, asked).await
        };
        let failed = match read(range.clone()).await {
            // A server may tell the end of an object by sending less.
            Ok(body) => return Ok(body),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Err(e),
            Err(e) => e,
        };
        match failed.kind() {
            ErrorKind::RangeNotSatisfied | ErrorKind::Unexpected => {}
            _ => return Err(failed),
        }
        let len = self.operator.stat(&full).await?.content_length();
        if len <= range.start {
            Ok(Bytes::new())
        } else if len < range.end {
            read(range.start..len).await
        } else {
            Err(failed)
        }
    }
}

#[async_trait]
impl ObjectStore for Blobs {
    async fn put_in_tier(&self, key: &str, body: Bytes, _tier: u8) -> Result<()> {
        self.write(&self.full(key), body, false).await.map_err(|e| self.error("PUT", key, &e))
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<bool> {
        match self.head(key).await {
            Ok(_) => return Ok(false),
            Err(ObjectError::NotFound(_)) => {}
            Err(e) => return Err(e),
        }
        let can = self.operator.info().capability().write_with_if_not_exists && !self.renames;
        match self.write(&self.full(key), body, can).await {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists) => {
                Ok(false)
            }
            Err(e) => Err(self.error("PUT", key, &e)),
        }
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let Some(range) = range else { return self.get_whole(key, MAX_OBJECT).await };
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if self.supports_range() {
            match self.part(key, &range).await {
                Ok(body) => return Ok(body),
                Err(e) if e.kind() == ErrorKind::Unsupported => {
                    if !self.sends_whole.swap(true, Ordering::Relaxed) {
                        tracing::warn!("{}: {}: whole objects are read", self.name, e.message());
                    }
                }
                Err(e) => return Err(self.error("GET", key, &e)),
            }
        }
        let body = self.get_whole(key, MAX_OBJECT).await?;
        let end = range.end.min(body.len() as u64);
        Ok(body.slice(range.start.min(end) as usize..end as usize))
    }

    async fn get_whole(&self, key: &str, most: u64) -> Result<Bytes> {
        let (body, crc) = match self.whole(key, most).await {
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::RangeNotSatisfied => return Err(too_long(key, most)),
            Err(e) => return Err(self.error("GET", key, &e)),
        };
        // Absent or unreadable: written by something else, accepted as the official client does.
        if let Some(expected) = crc.and_then(|crc| crc.parse::<u32>().ok()).filter(|_| self.has_checksums) {
            let found = crc32c::crc32c(&body);
            if found != expected {
                let text = format!("CRC-32C is {found}, {expected} was written");
                return Err(ObjectError::Corrupt(key.to_owned(), text));
            }
        }
        Ok(body)
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        let meta = self.operator.stat(&self.full(key)).await.map_err(|e| self.error("HEAD", key, &e))?;
        Ok(Meta { size: meta.content_length(), mtime: meta.last_modified().map(SystemTime::from) })
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.operator.delete(&self.full(key)).await {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(self.error("DELETE", key, &e)),
            _ => Ok(()),
        }
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        let after = if start_after.is_empty() { String::new() } else { self.full(start_after) };
        let page = self.listing.page(&self.operator, &self.full(prefix), &after, limit).await;
        let mut page = page.map_err(|e| self.error("LIST", prefix, &e))?;
        for entry in &mut page {
            entry.key.drain(..self.before.len());
        }
        Ok(page)
    }

    async fn create_bucket(&self, _key: &str) -> Result<()> {
        if !self.is_directory {
            return Err(ObjectError::Config(format!(
                "{} does not exist: make it in the console of the service, then repeat this",
                self.name
            )));
        }
        self.operator.create_dir("/").await.map_err(|e| self.error("MKDIR", "/", &e))
    }

    fn describe(&self) -> String {
        self.name.clone()
    }

    fn supports_range(&self) -> bool {
        !self.sends_whole.load(Ordering::Relaxed)
    }

    fn device(&self) -> Option<u64> {
        None
    }
}
