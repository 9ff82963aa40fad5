//! From answers of S3 services and broken connections to our errors.

use std::error::Error as StdError;

use opendal::{Error, ErrorKind};

use crate::error::ObjectError;

/// Value of a field in the text that opendal makes of an S3 error document.
fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let start = message.find(&format!("{name}: \""))? + name.len() + 3;
    message.get(start..)?.split('"').next().filter(|v| !v.is_empty())
}

/// The chain of causes, without repetitions.
fn causes(e: &(dyn StdError + 'static)) -> String {
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

fn transport<'a>(e: &'a (dyn StdError + 'static)) -> Option<&'a reqwest::Error> {
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
pub(super) fn from_transport(store: &str, e: &reqwest::Error) -> ObjectError {
    let detail = causes(e);
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
pub(super) fn from_code(store: &str, code: &str, message: &str) -> Option<ObjectError> {
    let said = if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") };
    let at = || format!("{store}: {said}");
    let denied = |remedy: &str| Some(ObjectError::AccessDenied(format!("{store}: {said}; {remedy}")));
    match code {
        "NoSuchBucket" => Some(ObjectError::NoBucket(store.to_owned())),
        "InvalidAccessKeyId" | "NotSignedUp" => {
            denied("the access key is not known there: check --access-key")
        }
        "SignatureDoesNotMatch" => denied("the secret key is wrong: check --secret-key (and the region)"),
        "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" => {
            denied("the session token has expired or is wrong: set a new one with --session-token")
        }
        "RequestTimeTooSkewed" | "RequestExpired" => {
            denied("the clocks of this machine and the store differ: correct the time here")
        }
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => {
            denied("the key may not do this: check the keys and the policy of bucket and user")
        }
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "IllegalLocationConstraintException"
        | "InvalidRegion" => Some(ObjectError::Config(format!(
            "{store}: {said}; the bucket is in another region: put region=REGION into the bucket address"
        ))),
        "InvalidBucketName" => {
            Some(ObjectError::Config(format!("{store}: {said}; correct the bucket address")))
        }
        "SlowDown" | "TooManyRequests" | "RequestLimitExceeded" | "Throttling" | "ThrottlingException" => {
            Some(ObjectError::Throttled(at()))
        }
        "QuotaExceeded" | "XMinioStorageFull" | "StorageFull" | "InsufficientStorage" => {
            Some(ObjectError::NoSpace(at()))
        }
        "InternalError" | "ServiceUnavailable" | "RequestTimeout" | "OperationAborted" | "Busy" => {
            Some(ObjectError::Server(at()))
        }
        _ => None,
    }
}

/// An error by the status of an answer that says no more.
pub(super) fn from_status(store: &str, status: u16, said: &str) -> ObjectError {
    let at = format!("{store}: {said}");
    match status {
        401 | 403 => ObjectError::AccessDenied(format!("{at}; check the keys and the policy of the bucket")),
        429 => ObjectError::Throttled(at),
        507 => ObjectError::NoSpace(at),
        408 | 499 | 500..=599 => ObjectError::Server(at),
        _ => ObjectError::Other(at),
    }
}

/// An error of an opendal operation on `key`.
pub(super) fn from_opendal(store: &str, key: &str, e: &Error) -> ObjectError {
    let message = e.message();
    let code = field(message, "code");
    let said = field(message, "message").unwrap_or_default();
    if let Some(error) = code.and_then(|code| from_code(store, code, said)) {
        return error;
    }
    if let Some(broken) = e.source().and_then(transport) {
        return from_transport(store, broken);
    }
    let detail = match (code, e.source()) {
        (Some(code), _) => format!("{code}: {said}"),
        (None, Some(source)) => format!("{message}: {}", causes(source)),
        (None, None) if message.is_empty() => e.kind().to_string(),
        (None, None) => message.to_owned(),
    };
    let at = format!("{store}: {detail}");
    match e.kind() {
        ErrorKind::NotFound => ObjectError::NotFound(key.to_owned()),
        ErrorKind::PermissionDenied => from_status(store, 403, &detail),
        ErrorKind::RateLimited => ObjectError::Throttled(at),
        ErrorKind::ConfigInvalid => ObjectError::Config(at),
        _ if detail.to_ascii_lowercase().contains("credential") => ObjectError::AccessDenied(format!(
            "{at}; no usable keys: set --access-key and --secret-key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )),
        _ if e.is_temporary() => ObjectError::Server(at),
        _ => ObjectError::Other(at),
    }
}
