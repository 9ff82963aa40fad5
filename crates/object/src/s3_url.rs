//! What a `--bucket` URL of an S3 store says (`spec/data-path.md` 3.5).

use url::Url;

use crate::error::{ObjectError, Result};

/// Region of last resort.
const DEFAULT_REGION: &str = "us-east-1";

/// An S3 bucket's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct S3Url {
    /// Bucket name.
    pub(crate) bucket: String,
    /// `scheme://host[:port]`; none for Amazon's own endpoint of the region.
    pub(crate) endpoint: Option<String>,
    /// Signing region.
    pub(crate) region: String,
    /// Put the bucket into the host name.
    pub(crate) virtual_host: bool,
    /// Write no checksum metadata.
    pub(crate) disable_checksum: bool,
}

impl S3Url {
    /// Parses `--bucket`. `minio` takes the bucket from the path and plain HTTP by default. `env` looks up environment
    /// variables.
    pub(crate) fn parse(bucket: &str, minio: bool, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let bad = |why: &str| ObjectError::Config(format!("bucket {bucket:?}: {why}"));
        let with_scheme = if bucket.contains("://") {
            bucket.to_owned()
        } else {
            let host = bucket.split(['/', '?']).next().unwrap_or_default();
            let aws = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
            let https = !minio && (aws || !host.contains('.'));
            format!("{}://{bucket}", if https { "https" } else { "http" })
        };
        let url = Url::parse(&with_scheme).map_err(|e| bad(&e.to_string()))?;
        let host = url.host_str().ok_or_else(|| bad("no host"))?.to_owned();
        let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
        let base = |host: &str| format!("{}://{host}{port}", url.scheme());
        let query = |name: &str| url.query_pairs().find(|(k, _)| k == name).map(|(_, v)| v.into_owned());
        let is_ip = host.parse::<std::net::IpAddr>().is_ok() || host.starts_with('[');

        let mut path: Vec<&str> = url.path().split('/').filter(|p| !p.is_empty()).collect();
        if minio && path.first() == Some(&"minio") && path.len() > 1 {
            path.remove(0);
        }
        let env_region = || env("AWS_REGION").or_else(|| env("AWS_DEFAULT_REGION"));
        let vhost = env("JFS_S3_VHOST_STYLE").is_some_and(|v| !matches!(v.as_str(), "" | "0" | "false"));
        let (name, endpoint_host) = match path.first() {
            Some(name) => ((*name).to_owned(), Some(host.clone())),
            None if minio => return Err(bad("the bucket is missing: http://HOST:PORT/BUCKET")),
            None if !host.contains('.') && url.port().is_none() => (host.clone(), None),
            None if is_ip => return Err(bad("the bucket is missing: http://HOST:PORT/BUCKET")),
            None => match host.split_once('.') {
                Some((name, rest)) => (name.to_owned(), Some(rest.to_owned())),
                None => return Err(bad("the bucket is missing: http://HOST:PORT/BUCKET")),
            },
        };
        let aws =
            endpoint_host.as_deref().is_none_or(|h| h.contains(".amazonaws.com") || h == "amazonaws.com");
        let minio_region = || if minio { env("MINIO_REGION") } else { None };
        let from_host = endpoint_host.as_deref().and_then(region_of_host);
        let region = query("region")
            .or(from_host)
            .or_else(minio_region)
            .or_else(env_region)
            .unwrap_or(DEFAULT_REGION.into());
        Ok(Self {
            bucket: name,
            endpoint: endpoint_host.filter(|_| !aws).map(|h| base(&h)),
            region,
            virtual_host: aws || vhost,
            disable_checksum: query("disable-checksum").as_deref() == Some("true"),
        })
    }
}

/// The region that well-known host names spell out.
fn region_of_host(host: &str) -> Option<String> {
    let host = host.to_ascii_lowercase();
    if let Some(rest) = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))
    {
        let rest = rest.strip_prefix("s3.").or_else(|| rest.strip_prefix("s3-")).unwrap_or(rest);
        let rest = rest.strip_prefix("dualstack.").unwrap_or(rest);
        let label = rest.split('.').next().unwrap_or_default();
        return Some(if matches!(label, "" | "s3" | "external-1") {
            DEFAULT_REGION.into()
        } else {
            label.into()
        });
    }
    // OVHcloud: s3.<region>.io.cloud.ovh.net and s3.<region>.perf.cloud.ovh.net.
    let ovh = host.strip_suffix(".cloud.ovh.net").or_else(|| host.strip_suffix(".cloud.ovh.us"))?;
    let mut labels = ovh.split('.');
    (labels.next() == Some("s3")).then(|| labels.next().map(str::to_owned))?
}
