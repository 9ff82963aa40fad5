//! How a certain service differs from an S3 server that takes everything.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::{HeaderMap, StatusCode};
use s3s::S3Result;
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::host::{S3Host, VirtualHost};

use super::faults::Op;

/// Times of requests that may differ from the server's clock.
const MAX_SKEW: u64 = 15 * 60;

/// Every region code of OVHcloud.
pub const OVH_REGIONS: [&str; 13] = [
    "gra",
    "rbx",
    "sbg",
    "de",
    "uk",
    "waw",
    "bhs",
    "ca-east-tor",
    "sgp",
    "ap-southeast-syd",
    "ap-south-mum",
    "eu-west-par",
    "eu-south-mil",
];

/// OVHcloud's object storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The region that signatures must name.
    pub region: String,
    /// PUTs of a second that are taken.
    pub puts: usize,
    /// GETs of a second that are taken.
    pub gets: usize,
    /// A session token that has expired.
    pub expired_token: Option<String>,
    /// How far the clock of the server is ahead.
    pub clock_ahead: Duration,
    /// Deleted objects are kept.
    pub versioned: bool,
    /// Objects cannot be deleted for a while.
    pub locked: bool,
}

impl Profile {
    /// As documented, in a region.
    pub fn ovhcloud(region: &str) -> Self {
        Self {
            region: region.to_owned(),
            puts: 300,
            gets: 900,
            expired_token: None,
            clock_ahead: Duration::ZERO,
            versioned: false,
            locked: false,
        }
    }
}

/// Host names of OVHcloud: region and, in virtual-hosted style, the bucket.
pub(crate) fn ovh_host(host: &str) -> Option<(&str, Option<&str>)> {
    let host = host.split(':').next()?;
    let place = host.strip_suffix(".cloud.ovh.net")?;
    let place = place.strip_suffix(".io").or_else(|| place.strip_suffix(".perf"))?;
    match place.strip_prefix("s3.") {
        Some(region) => Some((region, None)),
        None => place.rsplit_once(".s3.").map(|(bucket, region)| (region, Some(bucket))),
    }
}

/// Both styles of addresses at hosts of OVHcloud; paths alone anywhere else.
#[derive(Debug)]
pub(crate) struct Hosts;

impl S3Host for Hosts {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        Ok(match ovh_host(host) {
            Some((_, Some(bucket))) => VirtualHost::new(host).with_bucket(bucket),
            _ => VirtualHost::new(host),
        })
    }
}

/// A refusal: status, code, message.
pub(crate) type Refusal = (u16, &'static str, String);

/// A profile at work.
#[derive(Debug)]
pub(crate) struct Strict {
    pub(crate) profile: Profile,
    puts: Mutex<VecDeque<Instant>>,
    gets: Mutex<VecDeque<Instant>>,
}

/// What is looked at of a request.
pub(crate) struct Look<'a> {
    pub(crate) op: Op,
    pub(crate) method: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

impl Look<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Seconds since 1970 of `20261130T113521Z`.
fn seconds(date: &str) -> Option<u64> {
    let number = |from: usize, to: usize| date.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    // Days since 0000-03-01, by the calendar.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1;
    let hours = (days - 719_468) * 24 + number(9, 11)?;
    Some((hours * 60 + number(11, 13)?) * 60 + number(13, 15)?)
}

fn is_over(times: &Mutex<VecDeque<Instant>>, most: usize) -> bool {
    let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    while times.front().is_some_and(|t| now.duration_since(*t) >= Duration::from_secs(1)) {
        times.pop_front();
    }
    if times.len() >= most {
        return true;
    }
    times.push_back(now);
    false
}

impl Strict {
    pub(crate) fn new(profile: Profile) -> Self {
        Self { profile, puts: Mutex::default(), gets: Mutex::default() }
    }

    fn now(&self) -> SystemTime {
        SystemTime::now() + self.profile.clock_ahead
    }

    /// The date of answers.
    pub(crate) fn date(&self) -> String {
        let mut text = Vec::new();
        // There is always room.
        let _ = Timestamp::from(self.now()).format(TimestampFormat::HttpDate, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// What the service has against a request.
    pub(crate) fn refusal(&self, look: &Look<'_>) -> Option<Refusal> {
        let Profile { region, puts, gets, expired_token, .. } = &self.profile;
        let scope =
            look.header("authorization").and_then(|a| a.split("Credential=").nth(1)?.split('/').nth(2));
        if let Some(named) = scope.filter(|named| named != region) {
            let text = format!(
                "The authorization header is malformed; the region '{named}' is wrong; expecting '{region}'"
            );
            return Some((400, "AuthorizationHeaderMalformed", text));
        }
        if let Some((at, _)) = look.header("host").and_then(ovh_host).filter(|(at, _)| at != region) {
            return Some((404, "NoSuchBucket", format!("no such bucket in {at}")));
        }
        let now = self.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if look.header("x-amz-date").and_then(seconds).is_some_and(|date| date.abs_diff(now) > MAX_SKEW) {
            let text = "The difference between the request time and the server's time is too large.";
            return Some((403, "RequestTimeTooSkewed", text.to_owned()));
        }
        if let Some(token) =
            look.header("x-amz-security-token").filter(|t| Some(*t) == expired_token.as_deref())
        {
            return Some((400, "ExpiredToken", format!("The provided token has expired: {token}")));
        }
        let is_trailer =
            look.header("x-amz-content-sha256").is_some_and(|hash| hash.starts_with("STREAMING-"));
        let has_checksum = look.headers.keys().map(|name| name.as_str()).any(|name| {
            name.starts_with("x-amz-checksum-")
                || matches!(name, "x-amz-trailer" | "x-amz-sdk-checksum-algorithm")
        });
        if is_trailer || has_checksum {
            return Some((
                400,
                "InvalidArgument",
                "x-amz-content-sha256 or a checksum is not supported".to_owned(),
            ));
        }
        if look.headers.contains_key("x-amz-copy-source") {
            return Some((501, "NotImplemented", "CopyObject is not there".to_owned()));
        }
        let is_multi_delete =
            look.method == "POST" && look.query.split('&').any(|q| matches!(q, "delete" | "delete="));
        if is_multi_delete && !look.headers.contains_key("content-md5") {
            return Some((
                400,
                "InvalidRequest",
                "Missing required header for this request: Content-MD5".to_owned(),
            ));
        }
        let is_busy = match look.op {
            Op::Put => is_over(&self.puts, *puts),
            Op::Get => is_over(&self.gets, *gets),
            _ => false,
        };
        is_busy.then(|| (503, "SlowDown", "Please reduce your request rate.".to_owned()))
    }

    /// The answer to a question about the bucket.
    pub(crate) fn about_bucket(&self, query: &str) -> Option<(StatusCode, String)> {
        let is = |name: &str| query == name || query == format!("{name}=");
        let enabled =
            |on: bool, name: &str| if on { format!("<{name}>Enabled</{name}>") } else { String::new() };
        if is("versioning") {
            let status = enabled(self.profile.versioned, "Status");
            let text = format!("<VersioningConfiguration>{status}</VersioningConfiguration>");
            return Some((StatusCode::OK, text));
        }
        if is("object-lock") {
            if !self.profile.locked {
                let text = "<Error><Code>ObjectLockConfigurationNotFoundError</Code></Error>";
                return Some((StatusCode::NOT_FOUND, text.to_owned()));
            }
            let status = enabled(true, "ObjectLockEnabled");
            return Some((
                StatusCode::OK,
                format!("<ObjectLockConfiguration>{status}</ObjectLockConfiguration>"),
            ));
        }
        None
    }
}

/// Does a request ask about a bucket, and not for what is in it?
pub(crate) fn is_about_bucket(query: &str) -> bool {
    matches!(query.trim_end_matches('='), "versioning" | "object-lock")
}
