//! What tests need beside the code they test: servers of other people's and of our own, with faults on demand.
//!
//! Only ever a dev-dependency.
#![forbid(unsafe_code)]

pub mod documents;
pub mod hostile;
pub mod official;
mod python;
pub mod redis;
pub mod s3;
pub mod s3fs;
pub mod sshd;
pub mod webdav;

/// Error of every helper.
pub use anyhow::Error;

/// Set to 1 to skip tests whose programs are missing, instead of failing them. Has no effect where `CI` is set.
pub const SKIP_ENV: &str = "CIDERFS_SKIP_MISSING";

/// Something that a test cannot do without, such as a server. When it is missing the test fails, with the reason; `None` only
/// when the developer has asked to skip such tests ([`SKIP_ENV`]).
///
/// # Panics
///
/// When the thing is missing.
#[track_caller]
#[allow(clippy::panic, reason = "the way in which tests fail")]
pub fn require<T, E: Into<anyhow::Error>>(thing: Result<T, E>) -> Option<T> {
    let is_set = |name| std::env::var(name).is_ok_and(|v| !matches!(v.as_str(), "" | "0" | "false"));
    match thing {
        Ok(thing) => Some(thing),
        Err(e) => {
            let e: anyhow::Error = e.into();
            if is_set(SKIP_ENV) && !is_set("CI") {
                eprintln!("skipped: {e:#}");
                return None;
            }
            panic!("{e:#}\n(set {SKIP_ENV}=1 to skip the tests that need it)");
        }
    }
}
