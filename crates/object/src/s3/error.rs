//! From answers of S3 services and broken connections to our errors.

use std::error::Error as StdError;
use std::time::{Duration, SystemTime};

use ciderfs_format::excerpt;
use opendal::raw::Timestamp;
use opendal::{Error, ErrorKind};

use super::keys::Keys;
use crate::error::ObjectError;

/// Kinds of requests, by the names that policies have for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Put,
    Get,
    Head,
    Delete,
    DeleteMany,
    List,
    CreateBucket,
}

/// Codes of the refusal of a region.
pub(super) const WRONG_REGION: [&str; 3] =
    ["AuthorizationHeaderMalformed", "AuthorizationQueryParametersError", "InvalidRegion"];

/// A request, as its errors tell of it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Bucket and endpoint in words.
    pub(super) store: &'a str,
    /// Name of the bucket.
    pub(super) bucket: &'a str,
    /// What was asked for.
    pub(super) call: Call,
    /// Key, or prefix of a listing.
    pub(super) key: &'a str,
    /// What it was signed with.
    pub(super) keys: &'a Keys,
}

impl Asked<'_> {
    fn name(&self) -> &'static str {
        match self.call {
            Call::Put => "PutObject",
            Call::Get => "GetObject",
            Call::Head => "HeadObject",
            Call::Delete => "DeleteObject",
            Call::DeleteMany => "DeleteObjects",
            Call::List => "ListObjectsV2",
            Call::CreateBucket => "CreateBucket",
        }
    }

    /// The right that the request needs, and on what, in the terms of policies.
    fn right(&self) -> String {
        let Self { bucket, key, .. } = self;
        let prefix = key.split_once('/').map(|(first, _)| format!("{first}/")).unwrap_or_default();
        match self.call {
            Call::Put => format!("s3:PutObject on {bucket}/{prefix}*"),
            Call::Get | Call::Head => format!("s3:GetObject on {bucket}/{prefix}*"),
            Call::Delete | Call::DeleteMany => format!("s3:DeleteObject on {bucket}/{prefix}*"),
            Call::List => format!("s3:ListBucket on {bucket} with the prefix {prefix:?}"),
            Call::CreateBucket => format!("s3:CreateBucket on {bucket}"),
        }
    }

    /// What was asked of whom, for the begin of a text.
    pub(super) fn at(&self) -> String {
        let of = match self.call {
            Call::CreateBucket => String::new(),
            Call::List => format!(" of {:?}", self.key),
            _ => format!(" of {}", self.key),
        };
        format!("{}: {}{of}", self.store, self.name())
    }

    /// What to do where the right is missing.
    fn grant(&self) -> String {
        let more = match self.call {
            Call::CreateBucket => "; or let somebody with this right create the bucket",
            Call::Get | Call::Head => " (without s3:ListBucket a missing object is answered like this, too)",
            _ => "",
        };
        let missing = if self.call == Call::CreateBucket { "the bucket does not exist, and " } else { "" };
        format!(
            "{missing}the key lacks the right {}: add it to the policy of the user or bucket, or check the keys{more}",
            self.right()
        )
    }
}

/// The region that an answer expects: in its text, or in a header that opendal keeps with the error.
pub(super) fn expected_region(text: &str) -> Option<&str> {
    ["expecting '", "expecting \"", "x-amz-bucket-region\": \""].iter().find_map(|before| {
        let (_, rest) = text.split_once(before)?;
        rest.split(['\'', '"']).next().filter(|region| !region.is_empty())
    })
}

/// Does the store say that the bucket is in another region, and in which? A redirect only counts where the region leads to the
/// endpoint.
pub(super) fn other_region(e: &Error, aws: bool) -> Option<Option<String>> {
    let code = field(e.message(), "code");
    let fits = match (&code, status_of(e)) {
        (Some(code), _) => WRONG_REGION.contains(&code.as_str()) || (aws && code == "PermanentRedirect"),
        // An answer to HEAD has no body.
        (None, Some(status)) => e.message().is_empty() && (status == 400 || (aws && status == 301)),
        (None, None) => false,
    };
    let region = || {
        let said = expected_region(e.message()).map(str::to_owned);
        said.or_else(|| expected_region(&e.to_string()).map(str::to_owned))
    };
    fits.then(region)
}

/// How far the clock here is from that of the store, by the date of its answer.
fn clock_of(answer: &str) -> Option<String> {
    let (_, rest) = answer.split_once("\"date\": \"")?;
    let there = SystemTime::from(Timestamp::parse_rfc2822(rest.split('"').next()?).ok()?);
    let (behind, ahead) = (there.elapsed(), SystemTime::now().duration_since(there));
    let minutes = |apart: Duration| apart.as_secs().div_ceil(60);
    match (behind, ahead) {
        (_, Ok(apart)) => Some(format!("the clock here is {} minutes ahead of the store's", minutes(apart))),
        (Err(apart), _) => {
            Some(format!("the clock here is {} minutes behind the store's", minutes(apart.duration())))
        }
        (Ok(_), Err(_)) => None,
    }
}

/// Value of a field in the text that opendal makes of an S3 error document.
fn field(message: &str, name: &str) -> Option<String> {
    let start = message.find(&format!("{name}: \""))? + name.len() + 3;
    message.get(start..)?.split('"').next().filter(|v| !v.is_empty()).map(excerpt)
}

/// The chain of causes, without repetitions and not cut.
pub(crate) fn causes(e: &(dyn StdError + 'static)) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(e) = next {
        let one = e.to_string();
        if !text.contains(&one) {
            text = format!("{text}: {one}");
        }
        next = e.source();
    }
    text
}

/// The error of the HTTP client among the causes.
pub(crate) fn transport<'a>(e: &'a (dyn StdError + 'static)) -> Option<&'a reqwest::Error> {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(e) = e.downcast_ref::<reqwest::Error>() {
            return Some(e);
        }
        next = e.source();
    }
    None
}

/// What to do about a connection that cannot be made.
fn connect_remedy(text: &str) -> &'static str {
    let text = text.to_ascii_lowercase();
    if text.contains("certificate") {
        "check the certificate; ca-certs=FILE in the bucket address adds an authority"
    } else if text.contains("dns") || text.contains("lookup") || text.contains("resolve") {
        "check the host name in the bucket address"
    } else if text.contains("refused") {
        "check host and port in the bucket address, and that the service runs"
    } else if text.contains("corrupt message") || text.contains("invalidcontenttype") {
        "the port does not speak TLS: write http:// in the bucket address"
    } else {
        "check the bucket address and the network"
    }
}

/// An error of the HTTP client.
pub(crate) fn from_transport(store: &str, e: &reqwest::Error) -> ObjectError {
    let detail = excerpt(&causes(e));
    if e.is_connect() {
        let remedy = connect_remedy(&detail);
        return ObjectError::Unreachable(format!("{store}: {detail}; {remedy}"));
    }
    if e.is_timeout() {
        return ObjectError::Server(format!("{store} fell silent within a request"));
    }
    ObjectError::Server(format!("{store}: connection broke within a request: {detail}"))
}

/// An error by the code and text of an S3 service. `None` for codes that say no more than the HTTP status.
pub(super) fn from_code(asked: &Asked<'_>, code: &str, message: &str) -> Option<ObjectError> {
    let said = if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") };
    let at = || format!("{}: {said}", asked.at());
    let because = |remedy: &str| format!("{} was refused ({said}); {remedy}", asked.at());
    let denied = |remedy: &str| Some(ObjectError::AccessDenied(because(remedy)));
    let config = |remedy: &str| Some(ObjectError::Config(because(remedy)));
    match code {
        "NoSuchBucket" => Some(ObjectError::NoBucket(asked.store.to_owned())),
        "InvalidAccessKeyId" | "NotSignedUp" => {
            denied("the access key is not known there: check --access-key")
        }
        "SignatureDoesNotMatch" => denied("the secret key is wrong: check --secret-key (and the region)"),
        "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" => denied(
            "the session token has expired or is wrong: set a new one with --session-token, or renew the credentials where they come from",
        ),
        "RequestTimeTooSkewed" | "RequestExpired" => denied(
            "the clocks of this machine and the store differ: correct the time here, for example with chronyd or systemd-timesyncd",
        ),
        "AllAccessDisabled" | "AccountProblem" => {
            denied("the account is blocked: ask the operator of the store")
        }
        "AccessDenied" | "UnauthorizedAccess" | "Forbidden" => denied(&asked.grant()),
        "AuthorizationHeaderMalformed"
        | "AuthorizationQueryParametersError"
        | "IllegalLocationConstraintException"
        | "InvalidLocationConstraint"
        | "InvalidRegion" => {
            let region = expected_region(message).unwrap_or("REGION");
            config(&format!(
                "the bucket is in another region: set AWS_REGION={region}, or put ?region={region} at the end of --bucket"
            ))
        }
        "PermanentRedirect" | "MovedPermanently" => config(&elsewhere(expected_region(message), None)),
        "TemporaryRedirect" => Some(ObjectError::Server(at())),
        "BucketAlreadyExists" => config(
            "the name belongs to another account: choose another name for the bucket, or use the keys of its owner",
        ),
        "TooManyBuckets" => config("the account has as many buckets as it may: use one that exists"),
        "InvalidBucketName" => config("correct the bucket address"),
        "NotImplemented" | "MethodNotAllowed" | "XNotImplemented" => Some(ObjectError::Other(because(
            "the store does not offer this request: check that the address is that of an S3 service, not of its console or a proxy",
        ))),
        "MissingContentLength" => Some(ObjectError::Other(because(
            "the length of the request got lost on the way: a proxy in between must pass Content-Length on",
        ))),
        "EntityTooLarge" => Some(ObjectError::Other(because(
            "the store takes only smaller objects: create the volume with a smaller --block-size",
        ))),
        "SlowDown"
        | "ServiceUnavailable"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException" => Some(ObjectError::Throttled(at())),
        "QuotaExceeded" | "XMinioStorageFull" | "StorageFull" | "InsufficientStorage" => {
            Some(ObjectError::NoSpace(at()))
        }
        "OperationAborted" | "ConditionalRequestConflict" => Some(ObjectError::Server(because(
            "another request makes or removes this bucket or object: try again in a minute",
        ))),
        "InternalError" | "RequestTimeout" | "Busy" => Some(ObjectError::Server(at())),
        _ => None,
    }
}

/// What to do about a bucket that is served somewhere else.
pub(super) fn elsewhere(region: Option<&str>, endpoint: Option<&str>) -> String {
    let place = match (endpoint, region) {
        (Some(endpoint), Some(region)) => format!("at {endpoint}, region {region}"),
        (Some(endpoint), None) => format!("at {endpoint}"),
        (None, Some(region)) => format!("in the region {region}"),
        (None, None) => "in another region or at another endpoint".to_owned(),
    };
    let region = region.unwrap_or("REGION");
    format!(
        "the bucket is {place}: name that endpoint in --bucket, and set AWS_REGION={region} or put ?region={region} at the end \
         of --bucket"
    )
}

/// An error by the status of an answer that says no more.
pub(super) fn from_status(asked: &Asked<'_>, status: u16, said: &str) -> ObjectError {
    let code = match status {
        301 | 308 => "PermanentRedirect",
        302 | 307 => "TemporaryRedirect",
        401 | 403 => "AccessDenied",
        405 | 501 => "NotImplemented",
        411 => "MissingContentLength",
        413 => "EntityTooLarge",
        _ => "",
    };
    if let Some(error) = from_code(asked, code, said) {
        return error;
    }
    let at = format!("{}: {said}", asked.at());
    match status {
        // Nothing that is missing but the bucket makes these requests fail.
        404 if matches!(asked.call, Call::Put | Call::List) => ObjectError::NoBucket(asked.store.to_owned()),
        404 => ObjectError::NotFound(asked.key.to_owned()),
        429 | 503 => ObjectError::Throttled(at),
        507 => ObjectError::NoSpace(at),
        408 | 499 | 500..=599 => ObjectError::Server(at),
        _ => ObjectError::Other(at),
    }
}

/// The status of the answer that an error of opendal tells of.
pub(crate) fn status_of(e: &Error) -> Option<u16> {
    let text = e.to_string();
    let (_, rest) = text.split_once("status: ")?;
    rest.get(..3)?.parse().ok()
}

/// An error of an opendal operation.
pub(super) fn from_opendal(asked: &Asked<'_>, e: &Error) -> ObjectError {
    // Secrets are hidden in the whole text, before anything is taken from it and cut.
    let keys = asked.keys;
    let message = &keys.hidden_in(e.message());
    let code = field(message, "code");
    let said = field(message, "message").unwrap_or_default();
    if let Some(code) = &code {
        // The region of a bucket is often only in a header.
        let all = keys.hidden_in(&e.to_string());
        let region = expected_region(&said).is_none().then(|| expected_region(&all)).flatten().map(excerpt);
        let said = region.map_or_else(|| said.clone(), |region| format!("{said} expecting '{region}'"));
        let clock =
            matches!(code.as_str(), "RequestTimeTooSkewed" | "RequestExpired").then(|| clock_of(&all));
        let said = clock.flatten().map_or_else(|| said.clone(), |clock| format!("{said} {clock}"));
        if let Some(error) = from_code(asked, code, said.trim()) {
            return error;
        }
    }
    if let Some(broken) = e.source().and_then(transport) {
        return from_transport(asked.store, broken);
    }
    let detail = match (code, e.source()) {
        (Some(code), _) => format!("{code}: {said}"),
        (None, Some(source)) => format!("{}: {}", excerpt(message), keys.excerpt(&causes(source))),
        (None, None) if message.is_empty() => {
            status_of(e).map_or_else(|| e.kind().to_string(), |status| format!("HTTP status {status}"))
        }
        (None, None) => excerpt(message),
    };
    let at = format!("{}: {detail}", asked.at());
    match e.kind() {
        ErrorKind::NotFound => from_status(asked, 404, &detail),
        ErrorKind::PermissionDenied => from_status(asked, 403, &detail),
        ErrorKind::RateLimited => ObjectError::Throttled(at),
        ErrorKind::ConfigInvalid => ObjectError::Config(at),
        _ if detail.to_ascii_lowercase().contains("credential") => ObjectError::AccessDenied(format!(
            "{at}; no usable keys{}: set --access-key and --secret-key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            keys.trouble().map_or_else(String::new, |trouble| format!(" ({trouble})"))
        )),
        _ => match status_of(e) {
            Some(status) if status >= 300 => from_status(asked, status, &detail),
            _ if e.is_temporary() => ObjectError::Server(at),
            _ => ObjectError::Other(at),
        },
    }
}
