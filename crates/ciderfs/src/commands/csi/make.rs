//! Makes the volume that a Secret describes, as `format --if-absent` does.

use std::ffi::OsString;
use std::future::Future;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::pin::Pin;
use std::time::Duration;

use ciderfs_csi::Formatter;
use ciderfs_csi::secrets::Secrets;
use ciderfs_csi::tonic::Status;

use crate::cli::args::Args;
use crate::cli::command::Command;
use crate::commands::format;
use crate::failure::{EXIT_NO_ANSWER, Failure};

/// Most time for it: an unreachable bucket must not keep a call.
const PATIENCE: Duration = Duration::from_secs(25);
/// Keys of a Secret that are flags of `format` under the same names.
const FLAGS: [&str; 11] = [
    "storage",
    "bucket",
    "access-key",
    "secret-key",
    "session-token",
    "block-size",
    "compress",
    "trash-days",
    "capacity",
    "inodes",
    "shards",
];
/// Variables that are flags.
const VARIABLES: [(&str, &str); 4] = [
    ("ACCESS_KEY", "access-key"),
    ("SECRET_KEY", "secret-key"),
    ("SESSION_TOKEN", "session-token"),
    ("JFS_RSA_PASSPHRASE", "encrypt-passphrase"),
];

/// What makes volumes.
pub struct Make;

impl Formatter for Make {
    fn format(&self, secrets: Secrets) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send + '_>> {
        Box::pin(async move {
            let place = secrets.shown_place();
            let work = tokio::task::spawn_blocking(move || make(&secrets));
            match tokio::time::timeout(PATIENCE, work).await {
                Ok(Ok(made)) => made,
                Ok(Err(_)) => Err(Status::internal("making the volume broke off")),
                Err(_) => Err(Status::deadline_exceeded(format!(
                    "making the volume took too long: {place} or the bucket of the Secret does not answer"
                ))),
            }
        })
    }
}

fn make(secrets: &Secrets) -> Result<(), Status> {
    if secrets.get("storage").is_none() && secrets.get("bucket").is_none() {
        return Err(Status::failed_precondition(format!(
            "there is no volume at {}, and the Secret names no bucket to make one: add storage and bucket, or use \
             `ciderfs format`",
            secrets.shown_place()
        )));
    }
    // Read by its number while this function runs.
    let key = secrets.get("encrypt_rsa_key").map(|pem| in_memory(pem.expose())).transpose();
    let key = key.map_err(|e| Status::internal(format!("the private key: {e}")))?;
    let words = words(secrets, key.as_ref())?;
    let args = Args::of_words(Command::Format, &words).map_err(|e| Status::invalid_argument(e.text))?;
    format::run(&args).map_err(|e: Failure| match e.code {
        EXIT_NO_ANSWER => Status::unavailable(e.text),
        _ => Status::failed_precondition(e.text),
    })
}

fn in_memory(text: &str) -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("key", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(text.as_bytes())?;
    Ok(file.into())
}

/// The command line of `format`.
fn words(secrets: &Secrets, key: Option<&OwnedFd>) -> Result<Vec<OsString>, Status> {
    let mut words = vec!["--if-absent".to_owned()];
    let has = |words: &[String], flag: &str| words.iter().any(|word| word.starts_with(&format!("--{flag}=")));
    for flag in FLAGS {
        if let Some(value) = secrets.get(flag) {
            words.push(format!("--{flag}={}", value.expose()));
        }
    }
    if let Some(key) = key {
        words.push(format!("--encrypt-rsa-key=/proc/self/fd/{}", key.as_raw_fd()));
    }
    for (name, value) in secrets.format_options() {
        words.push(match value {
            Some(value) => format!("--{name}={}", value.expose()),
            None => format!("--{name}"),
        });
    }
    let envs = secrets.envs();
    for (name, flag) in VARIABLES {
        if let Some(value) = envs.get(name).filter(|_| !has(&words, flag)) {
            words.push(format!("--{flag}={}", value.expose()));
        }
    }
    if let Some(password) = secrets.password() {
        words.push(format!("--meta-password={}", password.expose()));
    }
    words.push("--".into());
    words.push(secrets.require("metaurl")?.into());
    words.push(secrets.require("name")?.into());
    Ok(words.into_iter().map(OsString::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_command_line() {
        let pairs = [
            ("name", "vol"),
            ("metaurl", "redis://h/1"),
            ("storage", "s3"),
            ("bucket", "b"),
            ("accesskey", "a"),
            ("format-options", "trash-days=3,hash-prefix"),
            ("envs", r#"{"META_PASSWORD":"p","SECRET_KEY":"s"}"#),
        ];
        let secrets = Secrets::of(&pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        let words = words(&secrets, None).unwrap();
        let words: Vec<_> = words.iter().map(|w| w.to_str().unwrap()).collect();
        assert_eq!(
            words,
            [
                "--if-absent",
                "--storage=s3",
                "--bucket=b",
                "--access-key=a",
                "--trash-days=3",
                "--hash-prefix",
                "--secret-key=s",
                "--meta-password=p",
                "--",
                "redis://h/1",
                "vol"
            ]
        );
        assert!(Args::of_words(Command::Format, &words).is_ok());
        let bare = Secrets::of(
            &[("metaurl", "redis://h/1"), ("name", "v")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        );
        assert!(make(&bare).unwrap_err().message().contains("bucket"));
    }
}
