//! Bucket addresses: which bucket, endpoint, region and style a `--bucket` means.

use ciderfs_format::{is_password_cut, shown_address};
use url::{Url, form_urlencoded};

use crate::error::{ObjectError, Result};

pub(super) const DEFAULT_REGION: &str = "us-east-1";
/// Bytes of a region's name, as of a label of a host.
const MAX_REGION: usize = 63;

/// Where a bucket is and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Name of the bucket.
    pub(crate) bucket: String,
    /// Scheme, host and port. The bucket is not part of it.
    pub(crate) endpoint: String,
    /// Region in signatures. `None` for a bucket of AWS whose region must be asked for.
    pub(crate) region: Option<String>,
    /// Bucket as first label of the host, not as first element of the path.
    pub(crate) virtual_host: bool,
    /// Write and verify checksums.
    pub(crate) checksum: bool,
    /// Certificates.
    pub(crate) tls: TlsOptions,
}

/// How the store proves who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsOptions {
    /// Accept any certificate.
    pub(crate) insecure: bool,
    /// File with further authorities, PEM.
    pub(crate) ca_certs: Option<String>,
    /// File with our certificate, PEM.
    pub(crate) cert: Option<String>,
    /// File with our private key, PEM.
    pub(crate) key: Option<String>,
}

/// Query parameters of a bucket address.
#[derive(Default)]
pub(crate) struct Query {
    pub(crate) region: Option<String>,
    pub(crate) checksum: bool,
    pub(crate) tls: TlsOptions,
}

/// Reads an environment variable; empty counts as unset.
pub(crate) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(crate) fn bad(bucket: &str, why: &str) -> ObjectError {
    ObjectError::Config(format!("bucket address {:?} {why}", shown_address(bucket)))
}

impl Query {
    fn parse(text: &str) -> Result<Self> {
        let mut query = Self { checksum: true, ..Self::default() };
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let value = value.into_owned();
            match name.as_ref() {
                "region" => query.region = Some(value).filter(|v| !v.is_empty()),
                "tls-insecure-skip-verify" => query.tls.insecure = is_true(&value),
                "ca-certs" => query.tls.ca_certs = Some(value),
                "ssl-cert" => query.tls.cert = Some(value),
                "ssl-key" => query.tls.key = Some(value),
                "disable-checksum" => query.checksum = !is_true(&value),
                // We never ask for the interim answer.
                "disable-100-continue" => {}
                other => {
                    return Err(ObjectError::Config(format!(
                        "unknown option {other:?} in the bucket address: region, tls-insecure-skip-verify, ca-certs, \
                         ssl-cert, ssl-key and disable-checksum are known"
                    )));
                }
            }
        }
        if query.tls.cert.is_some() != query.tls.key.is_some() {
            return Err(ObjectError::Config(
                "bucket address: ssl-cert and ssl-key only work together".to_owned(),
            ));
        }
        Ok(query)
    }
}

fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "true" | "1" | "t")
}

/// Path style is the default outside AWS.
pub(super) fn wants_virtual_host(env: Env<'_>) -> bool {
    env("JFS_S3_VHOST_STYLE").is_some_and(|v| !matches!(v.to_ascii_lowercase().as_str(), "0" | "false"))
}

fn is_aws(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn") || host == "amazonaws.com"
}

/// Region in a host of AWS, from `s3.us-west-2.amazonaws.com` or `s3-us-west-2.amazonaws.com`.
fn aws_region(host: &str) -> String {
    let host = host.trim_end_matches(".cn").trim_end_matches("amazonaws.com").trim_end_matches('.');
    let host = host.strip_prefix("s3.").or_else(|| host.strip_prefix("s3-")).unwrap_or(host);
    let host = host.strip_prefix("dualstack.").unwrap_or(host);
    match host.split('.').next().unwrap_or_default() {
        "" | "s3" | "external-1" => DEFAULT_REGION.to_owned(),
        region => region.to_owned(),
    }
}

/// `eu-west-1`, `us-gov-west-1`: anything else where a region is expected would make up a host.
fn is_region(text: &str) -> bool {
    let labels: Vec<&str> = text.split('-').collect();
    labels.len() >= 3
        && labels.last().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        && labels[..labels.len() - 1]
            .iter()
            .all(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_lowercase()))
}

/// Scheme of an address of storage `s3` that has none.
pub(super) fn default_scheme(host: &str) -> &'static str {
    if host.contains('.') && !is_aws(host) { "http" } else { "https" }
}

fn aws_endpoint(region: &str) -> String {
    let cn = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("https://s3.{region}.amazonaws.com{cn}")
}

/// May a text be a region, in a signature and in a host?
pub(super) fn is_region_name(text: &str) -> bool {
    (1..=MAX_REGION).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A host of OVHcloud's object storage, without a bucket.
struct Ovh {
    /// In lower case.
    region: String,
    /// The product before S3 was offered, which is another store.
    is_old: bool,
}

impl Ovh {
    /// `s3.gra.io.cloud.ovh.net`, `s3.gra.perf.cloud.ovh.net`, `s3.us-east-va.io.cloud.ovh.us`; of old `s3.gra.cloud.ovh.net` and
    /// `storage.gra.cloud.ovh.net`.
    fn parse(host: &str) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        let labels: Vec<&str> = host.split('.').collect();
        let (region, is_old) = match labels.as_slice() {
            ["s3", region, "io" | "perf", "cloud", "ovh", _] => (region, false),
            ["s3" | "storage", region, "cloud", "ovh", _] => (region, true),
            _ => return None,
        };
        is_region_name(region).then(|| Self { region: (*region).to_owned(), is_old })
    }

    /// `BUCKET.HOST`, where the bucket may have dots, in its parts.
    fn split(authority: &str) -> Option<(&str, &str)> {
        authority.match_indices('.').find_map(|(at, _)| {
            let rest = &authority[at + 1..];
            Self::parse(rest.split(':').next()?).map(|_| (&authority[..at], rest))
        })
    }
}

/// Region in the hosts of services that check it: OVHcloud and Oracle.
fn known_region(host: &str) -> Option<String> {
    if let Some(ovh) = Ovh::parse(host) {
        return Some(ovh.region);
    }
    let host = host.to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').collect();
    match labels.as_slice() {
        [_, "compat" | "vhcompat", "objectstorage", region, .., "oraclecloud", "com"] => {
            Some((*region).to_owned())
        }
        _ => None,
    }
}

fn env_region(env: Env<'_>) -> Option<String> {
    env("AWS_REGION").or_else(|| env("AWS_DEFAULT_REGION"))
}

/// What an address is made of.
pub(crate) struct Parts {
    pub(crate) scheme: String,
    pub(crate) host: String,
    /// Host with the port, if one is given.
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) query: Query,
}

/// Takes an address apart; `scheme` tells that of a host without one.
pub(crate) fn split(text: &str, scheme: impl Fn(&str) -> &'static str) -> Result<Parts> {
    let (body, query) = text.split_once('?').unwrap_or((text, ""));
    // Before anything is taken for a host or a bucket, and told.
    if body.contains('@') || is_password_cut(text) {
        return Err(ObjectError::Config(
            "bucket address contains a user or password: give keys as --access-key and --secret-key"
                .to_owned(),
        ));
    }
    let query = Query::parse(query)?;
    let body = match body.split_once("://") {
        Some(_) => body.to_owned(),
        None => {
            let host = body.split('/').next().unwrap_or_default();
            format!("{}://{body}", scheme(host.split(':').next().unwrap_or_default()))
        }
    };
    let url = Url::parse(&body).map_err(|e| bad(text, &format!("cannot be read: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad(text, "must begin with http:// or https://, or have no scheme"));
    }
    let host = url.host_str().ok_or_else(|| bad(text, "names no host"))?.to_owned();
    let authority = url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
    Ok(Parts {
        scheme: url.scheme().to_owned(),
        path: url.path().trim_matches('/').to_owned(),
        host,
        authority,
        query,
    })
}

impl Address {
    /// Reads the bucket address of storage `s3`: `BUCKET.ENDPOINT`, `ENDPOINT/BUCKET` or `BUCKET`, each with or
    /// without `http://` or `https://`.
    pub(crate) fn parse_s3(text: &str) -> Result<Self> {
        Self::s3(text, &process_env)
    }

    /// Reads the bucket address of storage `minio`: `HOST:PORT/BUCKET`.
    pub(crate) fn parse_minio(text: &str) -> Result<Self> {
        Self::minio(text, &process_env)
    }

    pub(crate) fn s3(text: &str, env: Env<'_>) -> Result<Self> {
        let parts = split(text, default_scheme)?;
        let Parts { scheme, host, authority, path, query } = parts;
        let custom = |bucket: &str, authority: &str, region: Option<String>| Self {
            bucket: bucket.to_owned(),
            endpoint: format!("{scheme}://{authority}"),
            region: query
                .region
                .clone()
                .or(region)
                .or_else(|| env_region(env))
                .or_else(|| Some(DEFAULT_REGION.to_owned())),
            virtual_host: wants_virtual_host(env) && !bucket.contains('.'),
            checksum: query.checksum,
            tls: query.tls.clone(),
        };
        let aws = |bucket: &str, region: Option<String>| {
            let region = query.region.clone().or(region);
            let foreign = host.ends_with(".cn") && !region.as_deref().unwrap_or_default().starts_with("cn-");
            if is_aws(&host) && (foreign || !region.as_deref().is_some_and(is_region)) {
                return Err(bad(
                    text,
                    "names a host of Amazon without a region that can be read: write https://s3.REGION.amazonaws.com/BUCKET",
                ));
            }
            Ok(Self {
                bucket: bucket.to_owned(),
                endpoint: aws_endpoint(region.as_deref().unwrap_or(DEFAULT_REGION)),
                region,
                // The certificate does not cover buckets with dots.
                virtual_host: !bucket.contains('.'),
                checksum: query.checksum,
                tls: query.tls.clone(),
            })
        };
        let address = if let Some(bucket) = path.split('/').next().filter(|b| !b.is_empty()) {
            if is_aws(&host) && !host.contains(".vpce.") {
                aws(bucket, Some(aws_region(&host)))?
            } else {
                custom(bucket, &authority, known_region(&host))
            }
        } else if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(bad(text, "names no bucket: write http://HOST:PORT/BUCKET"));
        } else if Ovh::parse(&host).is_some() {
            return Err(bad(text, &format!("names no bucket: write {scheme}://{authority}/BUCKET")));
        } else if !host.contains('.') && host == authority {
            aws(&host, env_region(env))?
        } else {
            let split = Ovh::split(&authority).or_else(|| authority.split_once('.'));
            let (bucket, rest) = split.unwrap_or_default();
            let rest_host = rest.split(':').next().unwrap_or_default();
            if host.ends_with(".vpce.amazonaws.com") {
                let labels: Vec<&str> = host.split('.').collect();
                let region = labels.iter().rev().nth(3).map(|r| (*r).to_owned());
                custom(bucket, rest, region)
            } else if is_aws(&host) {
                let (bucket, tail) = host
                    .find(".s3")
                    .map(|at| host.split_at(at))
                    .ok_or_else(|| bad(text, "has no bucket before \".s3\""))?;
                aws(bucket, Some(aws_region(tail.trim_start_matches('.'))))?
            } else {
                custom(bucket, rest, known_region(rest_host))
            }
        };
        if address.bucket.is_empty() {
            return Err(bad(text, "names no bucket"));
        }
        Ok(address)
    }

    pub(crate) fn minio(text: &str, env: Env<'_>) -> Result<Self> {
        let Parts { scheme, host, authority, path, query } = split(text, |_| "http")?;
        let path = path.strip_prefix("minio/").unwrap_or(&path);
        let bucket = path.split('/').next().unwrap_or_default();
        if bucket.is_empty() {
            return Err(bad(
                text,
                "names no bucket: write http://HOST:PORT/BUCKET, or BUCKET beside --endpoint",
            ));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            endpoint: format!("{scheme}://{authority}"),
            region: query
                .region
                .clone()
                .or_else(|| known_region(&host))
                .or_else(|| env("MINIO_REGION"))
                .or_else(|| Some(DEFAULT_REGION.to_owned())),
            virtual_host: wants_virtual_host(env) && !bucket.contains('.'),
            checksum: query.checksum,
            tls: query.tls,
        })
    }

    /// Is it a service of AWS?
    pub(crate) fn is_aws(&self) -> bool {
        host_of(&self.endpoint).is_some_and(is_aws)
    }

    /// What to do about an endpoint that belongs to a product of the past.
    pub(crate) fn is_of_old(&self) -> Option<String> {
        let Ovh { region, .. } = host_of(&self.endpoint).and_then(Ovh::parse).filter(|ovh| ovh.is_old)?;
        Some(format!(
            "{} is OVHcloud's old object storage, which is Swift and has S3 only in part: make the bucket in the S3 object storage \
             and name it as https://s3.{region}.io.cloud.ovh.net/{}",
            self.endpoint, self.bucket
        ))
    }

    /// Is the bucket's name part of a host that the certificate does not cover, because it has dots?
    pub(crate) fn in_path(&self) -> Option<String> {
        let ovh = host_of(&self.endpoint).and_then(Ovh::parse);
        (ovh.is_some() && self.bucket.contains('.')).then(|| format!("{}/{}", self.endpoint, self.bucket))
    }

    /// The same bucket once its region is known.
    pub(crate) fn with_region(&self, region: &str) -> Self {
        // An endpoint within a private network is the only way out of it.
        let is_public = self.is_aws() && !self.endpoint.contains(".vpce.");
        let endpoint = if is_public { aws_endpoint(region) } else { self.endpoint.clone() };
        Self { endpoint, region: Some(region.to_owned()), ..self.clone() }
    }

    /// Address of the bucket itself, for requests about it.
    pub(crate) fn bucket_url(&self) -> String {
        let (scheme, authority) = self.endpoint.split_once("://").unwrap_or(("http", &self.endpoint));
        if self.virtual_host {
            format!("{scheme}://{}.{authority}/", self.bucket)
        } else {
            format!("{scheme}://{authority}/{}", self.bucket)
        }
    }

    /// Scheme, host and port that requests go to.
    pub(crate) fn with_host(&self) -> String {
        let url = self.bucket_url();
        let start = url.find("://").map_or(0, |at| at + 3);
        let end = url[start..].find('/').map_or(url.len(), |at| start + at);
        url[..end].to_owned()
    }

    /// The region to name when a bucket is made.
    pub(crate) fn location_constraint(&self) -> Option<&str> {
        self.region.as_deref().filter(|region| *region != DEFAULT_REGION)
    }
}

fn host_of(endpoint: &str) -> Option<&str> {
    endpoint.split_once("://")?.1.split(':').next()
}

/// The environment of this process.
pub(crate) fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}
