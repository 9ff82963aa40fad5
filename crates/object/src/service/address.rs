//! Buckets as first label of a host, as the clouds have them.

use crate::error::Result;
use crate::s3::{Parts, bad, split};

/// `[https://]BUCKET[.ENDPOINT]`.
pub(super) struct InHost {
    pub(super) bucket: String,
    pub(super) scheme: String,
    /// Host and port without the bucket; empty where the address is only a bucket.
    pub(super) rest: String,
    pub(super) parts: Parts,
}

impl InHost {
    /// Reads an address; `form` is how it is written.
    pub(super) fn parse(text: &str, storage: &str, form: &str) -> Result<Self> {
        let wrong = || bad(text, &format!("does not fit storage {storage}: write {form}"));
        let parts = split(text, |_| "https")?;
        if !parts.path.is_empty() || parts.host.parse::<std::net::IpAddr>().is_ok() {
            return Err(wrong());
        }
        let (bucket, rest) = parts.authority.split_once('.').unwrap_or((&parts.authority, ""));
        if bucket.is_empty() || bucket.contains(':') {
            return Err(wrong());
        }
        Ok(Self { bucket: bucket.to_owned(), scheme: parts.scheme.clone(), rest: rest.to_owned(), parts })
    }

    /// Address of the service.
    pub(super) fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.rest)
    }
}
