//! S3 and its compatibles, through OpenDAL.

use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use opendal::{ErrorKind, Operator};

use crate::error::{ObjectError, Result};
use crate::open::StoreConfig;
use crate::s3_url::S3Url;
use crate::store::{Entry, Meta, ObjectStore};

/// User metadata that carries the decimal CRC-32C of the body, as the official client writes it.
const CRC_METADATA: &str = "crc32c";
/// Access key that asks for unsigned requests.
const ANONYMOUS: &str = "anonymous";

/// A bucket of an S3-compatible service.
#[derive(Debug)]
pub(crate) struct S3Store {
    op: Operator,
    url: S3Url,
}

impl S3Store {
    pub(crate) fn open(cfg: &StoreConfig, bucket: &str, minio: bool) -> Result<Self> {
        let env = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let url = S3Url::parse(bucket, minio, env)?;
        let mut s3 = opendal::services::S3::default().root("/").bucket(&url.bucket).region(&url.region);
        if let Some(endpoint) = &url.endpoint {
            s3 = s3.endpoint(endpoint);
        }
        if url.virtual_host {
            s3 = s3.enable_virtual_host_style();
        }
        let (mut access, mut secret) = (cfg.access_key.clone(), cfg.secret_key.clone());
        if access.is_empty() && minio {
            access = env("MINIO_ACCESS_KEY").unwrap_or_default();
            secret = env("MINIO_SECRET_KEY").unwrap_or_default();
        }
        if access == ANONYMOUS {
            s3 = s3.skip_signature();
        } else if !access.is_empty() {
            s3 = s3
                .access_key_id(&access)
                .secret_access_key(&secret)
                .disable_config_load()
                .disable_ec2_metadata();
            if !cfg.session_token.is_empty() {
                s3 = s3.session_token(&cfg.session_token);
            }
        }
        let op = Operator::new(s3).map_err(|e| ObjectError::Config(format!("bucket {bucket}: {e}")))?;
        Ok(Self { op, url })
    }

    fn error(&self, key: &str, e: &opendal::Error) -> ObjectError {
        let text = e.to_string();
        let at = |what: &str| format!("{what} ({})", self.describe());
        match e.kind() {
            ErrorKind::NotFound if text.contains("NoSuchBucket") => ObjectError::NoBucket(self.describe()),
            ErrorKind::NotFound => ObjectError::NotFound(key.to_owned()),
            ErrorKind::PermissionDenied => ObjectError::AccessDenied(at(short(&text))),
            ErrorKind::RateLimited => ObjectError::Throttled(at(short(&text))),
            ErrorKind::ConfigInvalid => ObjectError::Config(at(short(&text))),
            _ if text.contains("NoSuchBucket") => ObjectError::NoBucket(self.describe()),
            _ if is_network(&text) => ObjectError::Unreachable(at(short(&text))),
            _ if e.is_temporary() => ObjectError::Throttled(at(short(&text))),
            _ => ObjectError::Other(at(short(&text))),
        }
    }
}

fn is_network(text: &str) -> bool {
    ["connect", "dns", "Connection", "connection", "timed out", "send http request"]
        .iter()
        .any(|w| text.contains(w))
}

/// The first line of an error; the rest is request context.
fn short(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put(&self, key: &str, body: Bytes) -> Result<()> {
        let mut write = self.op.write_with(key, body.clone()).content_type("application/octet-stream");
        if !self.url.disable_checksum {
            let crc = crc32c::crc32c(&body).to_string();
            write = write.user_metadata([(CRC_METADATA.to_owned(), crc)]);
        }
        write.await.map_err(|e| self.error(key, &e))?;
        Ok(())
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let read = self.op.read_with(key);
        let read = match range {
            Some(range) => read.range(range),
            None => read,
        };
        Ok(read.await.map_err(|e| self.error(key, &e))?.to_bytes())
    }

    async fn head(&self, key: &str) -> Result<Meta> {
        let meta = self.op.stat(key).await.map_err(|e| self.error(key, &e))?;
        Ok(Meta { size: meta.content_length(), mtime: meta.last_modified().map(SystemTime::from) })
    }

    async fn delete(&self, key: &str) -> Result<()> {
        match self.op.delete(key).await {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound && !e.to_string().contains("NoSuchBucket") => Ok(()),
            Err(e) => Err(self.error(key, &e)),
        }
    }

    async fn list(&self, prefix: &str, start_after: &str, limit: usize) -> Result<Vec<Entry>> {
        let mut lister = self.op.lister_with(prefix).recursive(true);
        if !start_after.is_empty() {
            lister = lister.start_after(start_after);
        }
        let mut lister = lister.await.map_err(|e| self.error(prefix, &e))?;
        let mut out = Vec::new();
        while out.len() < limit {
            let Some(entry) = lister.try_next().await.map_err(|e| self.error(prefix, &e))? else { break };
            let meta = entry.metadata();
            if meta.is_dir() || entry.path() <= start_after {
                continue;
            }
            out.push(Entry {
                key: entry.path().to_owned(),
                size: meta.content_length(),
                mtime: meta.last_modified().map(SystemTime::from),
            });
        }
        Ok(out)
    }

    async fn create_bucket(&self) -> Result<()> {
        // Creating buckets needs permissions that clients seldom have, and names, regions and policies that users choose.
        match self.op.lister_with("").limit(1).await {
            Ok(mut lister) => match lister.try_next().await {
                Ok(_) => Ok(()),
                Err(e) => Err(self.error("", &e)),
            },
            Err(e) => Err(self.error("", &e)),
        }
    }

    fn describe(&self) -> String {
        match &self.url.endpoint {
            Some(endpoint) => format!("s3 bucket {} at {endpoint}", self.url.bucket),
            None => format!("s3 bucket {} in region {}", self.url.bucket, self.url.region),
        }
    }
}
