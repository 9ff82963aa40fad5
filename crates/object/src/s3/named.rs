//! What a command line says about the place of a bucket: one address that is stored, and that every client reads alike.
//!
//! Stored addresses are read leniently ([`Address`]), as the official client reads them. What somebody names now is held to
//! more: every part of it must have an effect, and no request goes to a host that was not named.

use ciderfs_format::shown_address;

use super::address::{Address, Env, process_env};
use crate::error::{ObjectError, Result};

/// Stands for the number of a shard while an address is looked at.
const SOME_SHARD: &str = "0";

fn refuse<T>(text: String) -> Result<T> {
    Err(ObjectError::Config(text))
}

/// The address to store for `--bucket` and `--endpoint` of storage `s3` or `minio`.
pub(crate) fn named(storage: &str, endpoint: Option<&str>, bucket: &str) -> Result<String> {
    named_in(storage, endpoint, bucket, &process_env)
}

pub(super) fn named_in(storage: &str, endpoint: Option<&str>, bucket: &str, env: Env<'_>) -> Result<String> {
    let reader = Reader { storage, env };
    if bucket.contains('#') {
        let bucket = shown_address(bucket);
        return refuse(format!("--bucket {bucket}: what follows # would have no effect; leave it out"));
    }
    let (body, query) = match bucket.split_once('?') {
        Some((body, query)) => (body, format!("?{query}")),
        None => (bucket, String::new()),
    };
    // Without the slash at the end: not every client takes a plain name with one.
    let body = body.trim_end_matches('/');
    let Some(endpoint) = endpoint.map(Endpoint::parse).transpose()? else {
        let text = format!("{body}{query}");
        let address = reader.check(&text)?;
        // Not every client finds the end of a bucket with dots in a host.
        let host = body.split_once("://").map_or(body, |(_, rest)| rest);
        return Ok(match address.in_path().filter(|_| !host.contains('/') && !body.contains("%d")) {
            Some(path) => format!("{path}{query}"),
            None => text,
        });
    };
    let text = if endpoint.is_in(body) {
        let body = match endpoint.scheme {
            Some(scheme) if !body.contains("://") => format!("{scheme}://{body}"),
            _ => body.to_owned(),
        };
        format!("{body}{query}")
    } else {
        let scheme = endpoint.scheme.unwrap_or_else(|| reader.scheme(endpoint.host));
        format!("{scheme}://{}/{body}{query}", endpoint.host)
    };
    let address = reader.check(&text)?;
    let scheme = endpoint.scheme.or_else(|| text.split_once("://").map(|(scheme, _)| scheme));
    let scheme = scheme.unwrap_or_else(|| reader.scheme(endpoint.host));
    let wanted = reader.read(&format!("{scheme}://{}/{}{query}", endpoint.host, address.bucket))?;
    if wanted.endpoint != address.endpoint {
        return refuse(format!(
            "--endpoint and --bucket name different places: --endpoint is understood as {}, --bucket as {}; give only the \
             name of the bucket, or leave out --endpoint",
            wanted.endpoint,
            understood(&address)
        ));
    }
    Ok(text)
}

fn understood(address: &Address) -> String {
    format!("bucket {} at {}", address.bucket, address.endpoint)
}

/// A given `--endpoint`.
struct Endpoint<'a> {
    scheme: Option<&'a str>,
    /// Host and port.
    host: &'a str,
}

impl<'a> Endpoint<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        if text.contains('@') {
            return refuse(
                "--endpoint contains a user or password: give keys as --access-key and --secret-key"
                    .to_owned(),
            );
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text),
        };
        if scheme.is_some_and(|s| !matches!(s, "http" | "https")) {
            return refuse(format!(
                "--endpoint {} must begin with http:// or https://, or have no scheme",
                shown_address(text)
            ));
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let shown = shown_address(text);
        if rest.contains(['?', '#']) {
            return refuse(format!(
                "--endpoint {shown}: options such as region= belong to the end of --bucket: --bucket NAME?region=REGION"
            ));
        }
        if host.is_empty() {
            return refuse(format!("--endpoint {shown} names no host"));
        }
        if !path.trim_matches('/').is_empty() {
            return refuse(format!(
                "--endpoint {shown} is understood as host {} with the path /{path}: an endpoint with a path cannot be \
                 stored, because clients read the first element of the path as the bucket; give one whose buckets are \
                 directly below the host",
                shown_address(host)
            ));
        }
        Ok(Self { scheme, host })
    }

    /// Does `body`, a bucket without options, name a host of its own?
    fn is_in(&self, body: &str) -> bool {
        let name = self.host.split(':').next().unwrap_or_default();
        let last = body.split(':').next().unwrap_or_default();
        // A name with dots beside an endpoint is a bucket, unless it is the endpoint's host or one of Amazon.
        body.contains(['/', ':', '@'])
            || last.ends_with(".amazonaws.com")
            || last.ends_with(".amazonaws.com.cn")
            || last.strip_suffix(name).is_some_and(|before| before.ends_with('.'))
    }
}

struct Reader<'a> {
    storage: &'a str,
    env: Env<'a>,
}

impl Reader<'_> {
    fn read(&self, text: &str) -> Result<Address> {
        let text = text.replacen("%d", SOME_SHARD, 1);
        if self.storage == "minio" { Address::minio(&text, self.env) } else { Address::s3(&text, self.env) }
    }

    /// What a host without a scheme is spoken to with.
    fn scheme(&self, host: &str) -> &'static str {
        if self.storage == "minio" {
            return "http";
        }
        super::address::default_scheme(host.split(':').next().unwrap_or_default())
    }

    /// Reads an address, every part of which must count.
    fn check(&self, text: &str) -> Result<Address> {
        let address = self.read(text)?;
        let shown = shown_address(text);
        let whole = text.split('?').next().unwrap_or_default();
        let body = whole.split_once("://").map_or(whole, |(_, rest)| rest);
        let (host, path) = body.split_once('/').unwrap_or((body, ""));
        if !path.is_empty() && !whole.contains("://") && !host.contains(['.', ':']) {
            return refuse(format!(
                "--bucket {shown} is understood as {}: if {host} is that host, write {}/{path}; if it is the bucket, leave out \
                 the path, which would have no effect",
                understood(&address),
                address.endpoint
            ));
        }
        if let Some(hint) = address.is_of_old() {
            return refuse(format!("--bucket {shown}: {hint}"));
        }
        // MinIO's own addresses once began with it; every client reads over it.
        let path = if self.storage == "minio" { path.strip_prefix("minio/").unwrap_or(path) } else { path };
        if let Some((_, rest)) = path.split_once('/') {
            return refuse(format!(
                "--bucket {shown} is understood as {}: the path {rest:?} after the bucket would have no effect; leave it out: \
                 a volume's objects are below BUCKET/NAME-OF-THE-VOLUME/",
                understood(&address)
            ));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let some = text.replacen("%d", SOME_SHARD, 1);
        if !address.bucket.chars().all(legal) || !some.contains(&address.bucket) {
            return refuse(format!(
                "--bucket {shown} is understood as {}: a bucket's name has small letters, digits, dots and hyphens",
                understood(&address)
            ));
        }
        if address.is_aws() && host.contains(':') {
            return refuse(format!(
                "--bucket {shown} is understood as {}: the port would have no effect with Amazon; leave it out",
                understood(&address)
            ));
        }
        Ok(address)
    }
}
