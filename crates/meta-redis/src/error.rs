//! From the driver's errors to those of the store.

use ciderfs_meta::store::StoreError;
use redis::RedisError;

/// Answers that pass by themselves, or once the connection goes to the right server.
const PASSING: [&str; 9] =
    ["LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "MOVED", "ASK", "BUSY", "NOREPLICAS"];
/// Answers that call for a new connection: we talk to the wrong server.
const MISPLACED: [&str; 5] = ["READONLY", "MOVED", "ASK", "MASTERDOWN", "UNBLOCKED"];

/// Does the server not know the script?
pub(crate) fn is_no_script(e: &RedisError) -> bool {
    e.code() == Some("NOSCRIPT")
}

/// Must the connection be replaced?
pub(crate) fn is_lost(e: &RedisError) -> bool {
    e.is_io_error()
        || e.is_unrecoverable_error()
        || e.code().is_some_and(|c| MISPLACED.contains(&c))
        || e.to_string().contains("READONLY")
}

/// What an error means. `sent` tells whether a commit may have been applied when the connection broke.
pub(crate) fn explain(server: &str, e: &RedisError, sent: bool) -> StoreError {
    let text = e.to_string();
    let code = e.code().unwrap_or_default();
    let says = |words: &[&str]| words.iter().any(|w| code == *w || text.contains(&format!("{w} ")));
    if says(&["OOM", "command not allowed when used memory > 'maxmemory'"]) {
        return StoreError::NoSpace(format!("{server} is out of memory; raise its maxmemory: {text}"));
    }
    if says(&["MISCONF"]) {
        return StoreError::NoSpace(format!("{server} cannot save to its disk and refuses writes: {text}"));
    }
    if says(&["NOAUTH", "WRONGPASS", "NOPERM"]) || text.contains("invalid password") {
        return StoreError::Fatal(format!(
            "{server} refuses us: {text}; check user and password in the address, or META_PASSWORD"
        ));
    }
    if says(&PASSING) {
        return StoreError::Unavailable(format!("{server}: {text}"));
    }
    if e.code().is_some() {
        return StoreError::Corrupt(format!("{server}: {text}"));
    }
    if sent {
        StoreError::Ambiguous(format!("{server}: {text}"))
    } else {
        StoreError::Unavailable(format!("{server}: {text}"))
    }
}

/// What an error means that came while connecting.
pub(crate) fn explain_connect(server: &str, e: &RedisError) -> StoreError {
    match explain(server, e, false) {
        StoreError::Corrupt(text) => StoreError::Fatal(text),
        StoreError::Unavailable(_) if e.kind() == redis::ErrorKind::AuthenticationFailed => {
            StoreError::Fatal(format!(
                "{server} refuses us: {e}; check user and password in the address, or META_PASSWORD"
            ))
        }
        StoreError::Unavailable(_) if e.kind() == redis::ErrorKind::InvalidClientConfig => {
            StoreError::Fatal(format!("{server}: {e}"))
        }
        StoreError::Unavailable(text) if e.is_io_error() => {
            StoreError::Unavailable(format!("{text}; is Redis running there, and can this machine reach it?"))
        }
        other => other,
    }
}
