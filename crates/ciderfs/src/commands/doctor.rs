//! `ciderfs doctor [--env-file F] [META-URL]`: what a new node gets wrong, in the order in which things depend on each other.
//!
//! A check is a function that returns findings. Nothing is changed anywhere, and whatever may hang is bounded: each check, and all
//! of them together.

mod bucket;
mod certificate;
mod engine;
pub(super) mod env_file;
mod machine;
mod reach;
pub(super) mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ciderfs_format::envelope::{PASSPHRASE_ENV, PrivateKey};
use ciderfs_format::{Secret, Settings};
use ciderfs_object::named_bucket;
use ciderfs_volume::{Keys, Override, stored_bucket, with_region};

use crate::cli::args::Args;
use crate::cli::flag::{Flag, kinds};
use crate::cli::places;
use crate::cli::table::{
    ACCESS_KEY, BUCKET, CACHE_SIZE, ENDPOINT, ENV_FILE, FREE_SPACE_RATIO, JSON, META_PASSWORD, MOUNT_POINT,
    REGION, SECRET_KEY, SESSION_TOKEN, STORAGE,
};
use crate::config;
use crate::failure::{Failure, Result};
use env_file::EnvFile;
use report::{Finding, Report};

/// Longest time of a check.
const LIMIT: Duration = Duration::from_secs(5);
/// No check begins later; what begins before is over within half a minute.
const TOTAL: Duration = Duration::from_secs(20);
/// What to do about a check that others stand in the way of.
const CORRECT_FIRST: &str = "correct what failed above, and run it again";
/// The name of a volume that has none yet.
const SOME_NAME: &str = "doctor";

/// How much time is left.
struct Clock(Instant);

impl Clock {
    fn left(&self) -> Duration {
        TOTAL.saturating_sub(self.0.elapsed()).min(LIMIT)
    }

    /// A check that may hang in a call.
    async fn blocking<F>(&self, check: &'static str, look: F) -> Vec<Finding>
    where
        F: FnOnce() -> Vec<Finding> + Send + 'static,
    {
        // What others have left of the time says nothing of this.
        let time = self.left().max(LEAST);
        match tokio::time::timeout(time, tokio::task::spawn_blocking(look)).await {
            Ok(Ok(findings)) => findings,
            _ => vec![Finding::failed(
                check,
                "no answer in time",
                "look for a file system whose server is away (mount, df)",
            )],
        }
    }
}

/// A check of this machine has so long in any case.
const LEAST: Duration = Duration::from_secs(2);

/// What comes of it in the time that is left.
async fn within<T>(time: &Clock, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(time.left(), work).await.ok()
}

/// The kind of store and the bucket, as they would be stored, of what names them.
pub(super) fn named_place(
    storage: Option<&str>,
    bucket: &str,
    endpoint: Option<&str>,
    region: Option<&str>,
) -> Result<(String, String)> {
    let is_service = endpoint.is_some() || bucket.contains("://");
    let storage = storage.unwrap_or(if is_service { "s3" } else { "file" });
    let named = named_bucket(storage, endpoint, bucket)?;
    let stored = stored_bucket(storage, &named, &places::absolute(bucket.as_ref())?)?;
    Ok((storage.to_owned(), with_region(storage, &stored, region.unwrap_or_default())))
}

/// What the volume is, as command line, file and environment say: in this order.
struct Given {
    address: Option<OsString>,
    password: Option<Secret>,
    storage: Option<String>,
    bucket: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    keys: Keys,
    other_keys: Keys,
    /// A bucket that this client uses instead of that of the volume, and the directory that it means.
    over: Option<(String, PathBuf)>,
    passphrase: Option<Secret>,
    /// Of the volume that is to be.
    name: String,
}

impl Given {
    fn new(args: &Args, file: &EnvFile, out: &mut Vec<Finding>) -> Self {
        let plain = |name: &str| file.get(name).map(|value| value.expose().to_owned());
        let first = |flag: Flag<kinds::Text>, name| {
            let given = config::explicit(args, flag).map(str::to_owned);
            given.or_else(|| plain(name)).or_else(|| args.find(flag).map(str::to_owned))
        };
        let secret = |flag: Flag<kinds::Secret>, name| {
            let given = config::explicit(args, flag).cloned();
            given.or_else(|| file.get(name).cloned()).or_else(|| args.find(flag).cloned())
        };
        let address = match (args.count(), file.meta_url().map(str::to_owned)) {
            (0, None) => None,
            (0, Some(url)) => match places::source(url.as_ref()) {
                Ok(url) => Some(url),
                Err(e) => {
                    out.push(Finding::error("engine address", &e.text, "correct META_URL or REDIS_URL"));
                    None
                }
            },
            _ => Some(args.place(0).into()),
        };
        let passphrase = file.get(PASSPHRASE_ENV).cloned();
        Self {
            address,
            password: secret(META_PASSWORD, "META_PASSWORD").or_else(|| file.meta_password().cloned()),
            storage: args.find(STORAGE).map(str::to_owned),
            bucket: args.find(BUCKET).map(|(text, _)| text.to_owned()).or_else(|| plain("BUCKET")),
            endpoint: first(ENDPOINT, "ENDPOINT"),
            region: first(REGION, "REGION"),
            // Of the file as of the environment, which it stands for: they complete a volume and change none.
            keys: config::keys(args, true),
            other_keys: Keys {
                access_key: first(ACCESS_KEY, "ACCESS_KEY"),
                secret_key: secret(SECRET_KEY, "SECRET_KEY"),
                session_token: secret(SESSION_TOKEN, "SESSION_TOKEN"),
            },
            over: args.find(BUCKET).map(|(text, dir)| (text.to_owned(), dir.to_owned())),
            passphrase: passphrase.or_else(|| Secret::given(std::env::var(PASSPHRASE_ENV).ok())),
            name: plain("VOLUME").unwrap_or_else(|| SOME_NAME.to_owned()),
        }
    }

    /// What is never told.
    fn secrets(&self) -> Vec<Secret> {
        let login = self.address.as_ref().and_then(|url| {
            let url = url.to_str()?;
            let (login, _) = url.split_once("://").map_or(url, |(_, rest)| rest).rsplit_once('@')?;
            login.split_once(':').map(|(_, password)| Secret::from(password))
        });
        let Keys { secret_key, session_token, .. } = &self.other_keys;
        let all = [&self.password, secret_key, session_token, &self.passphrase, &login];
        all.into_iter().flatten().cloned().collect()
    }

    /// The place that is named, as it would be stored.
    fn place(&self) -> Result<Option<(String, String)>> {
        let Some(bucket) = &self.bucket else { return Ok(None) };
        let (storage, endpoint) = (self.storage.as_deref(), self.endpoint.as_deref());
        named_place(storage, bucket, endpoint, self.region.as_deref()).map(Some)
    }

    /// The settings of a volume for this node, or of one to come. `None`: nothing names a place.
    fn settings(&self, volume: Option<&Settings>, out: &mut Vec<Finding>) -> Result<Option<Settings>> {
        let place = self.place()?;
        let Some(volume) = volume else {
            let Some((storage, bucket)) = place else { return Ok(None) };
            let mut settings =
                Settings::new(&self.name, &uuid::Uuid::new_v4().to_string(), &storage, &bucket);
            self.other_keys.clone().put_into(&mut settings);
            return Ok(Some(settings));
        };
        let mut settings = volume.clone();
        settings.decrypt_secrets()?;
        let without_query =
            |bucket: &str| bucket.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
        if self.over.is_none()
            && let Some((_, bucket)) = &place
            && without_query(bucket) != without_query(&settings.bucket)
        {
            out.push(Finding::failed(
                "bucket address",
                format!(
                    "the volume {} keeps its objects at {}, and another place is named here",
                    settings.name,
                    settings.shown_bucket()
                ),
                "is it another volume? correct META-URL, or BUCKET and ENDPOINT",
            ));
        }
        let over = Override {
            storage: self.over.is_some().then(|| self.storage.clone()).flatten(),
            bucket: self.over.clone(),
            region: self.region.clone(),
            keys: self.keys.clone(),
            other_keys: self.other_keys.clone(),
            ..Override::default()
        };
        over.apply(&mut settings)?;
        Ok(Some(settings))
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if args.count() > 1 {
        args.exactly()?;
    }
    let mut report = Report::default();
    let file = match args.find(ENV_FILE) {
        Some(path) => {
            let (file, findings) = EnvFile::read(path);
            report.hide(file.secrets());
            report.add(findings);
            file
        }
        None => EnvFile::default(),
    };
    let mut findings = Vec::new();
    let given = Given::new(args, &file, &mut findings);
    report.hide(given.secrets());
    report.add(findings);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(examine(args, &given, &mut report));
    // A call that hangs is not waited for.
    runtime.shutdown_background();
    if args.get(JSON) {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        print!("{}", report.lines());
    }
    match report.failures() {
        0 => Ok(()),
        1 => Err(Failure::new("1 check failed")),
        n => Err(Failure::new(format!("{n} checks failed"))),
    }
}

async fn examine(args: &Args, given: &Given, report: &mut Report) {
    let time = Clock(Instant::now());
    let mut out = vec![machine::kernel(), machine::fusermount(), machine::clock()];
    let volume = match &given.address {
        Some(address) => engine::check(address, given.password.clone(), &time, &mut out).await,
        None => {
            out.push(Finding::skipped(
                "engine",
                "no META-URL is named",
                "name it, or META_URL in --env-file",
            ));
            None
        }
    };
    match given.settings(volume.as_ref(), &mut out) {
        Ok(Some(settings)) => {
            report.hide([settings.secret_key.clone(), settings.session_token.clone()]);
            bucket::check(&settings, volume.is_some(), &time, &mut out).await;
        }
        Ok(None) => out.push(Finding::skipped(
            "bucket",
            "nothing names a bucket",
            "name a volume, or BUCKET in --env-file",
        )),
        Err(e) => out.push(Finding::error("bucket address", &e.text, "correct --bucket and --endpoint")),
    }
    out.extend(cache(args, &time).await);
    out.extend(mount_point(args.find(MOUNT_POINT), &time).await);
    out.push(machine::descriptors());
    out.push(passphrase(volume.as_ref(), given.passphrase.as_ref()));
    report.add(out);
}

async fn cache(args: &Args, time: &Clock) -> Vec<Finding> {
    let check = "cache directory";
    let dirs = match config::cache_dirs(args) {
        Ok(dirs) => dirs,
        Err(e) => return vec![Finding::error(check, &e.text, "name another --cache-dir")],
    };
    if dirs.is_empty() {
        return vec![Finding::ok(check, "none, blocks are kept in memory")];
    }
    let (size, ratio) = (args.get(CACHE_SIZE) / dirs.len() as u64, args.get(FREE_SPACE_RATIO));
    let mut out = Vec::new();
    for dir in dirs {
        out.extend(time.blocking(check, move || machine::cache(&dir, size, ratio)).await);
    }
    out
}

async fn mount_point(path: Option<&Path>, time: &Clock) -> Vec<Finding> {
    let check = "mount point";
    let Some(path) = path else {
        return vec![Finding::skipped(check, "none is named", "name it by --mount-point")];
    };
    let path = path.to_owned();
    time.blocking(check, move || vec![machine::mount_point(&path)]).await
}

/// What an encrypted volume is read with.
fn passphrase(volume: Option<&Settings>, passphrase: Option<&Secret>) -> Finding {
    let check = "encryption";
    let Some(volume) = volume else {
        return Finding::skipped(check, "there is no volume to look at", "name a volume that is there");
    };
    if volume.encrypt_key.is_empty() {
        return Finding::ok(check, "the volume is not encrypted");
    }
    let mut settings = volume.clone();
    let loaded = settings
        .decrypt_secrets()
        .map_err(|e| e.to_string())
        .and_then(|()| settings.encryption().map_err(|e| e.to_string()))
        .and_then(|_| {
            PrivateKey::load(settings.encrypt_key.expose(), passphrase.map(Secret::expose))
                .map_err(|e| e.to_string())
        });
    match loaded {
        Ok(_) => Finding::ok(check, "the key of the volume can be used"),
        Err(e) => Finding::error(check, &e, "set JFS_RSA_PASSPHRASE to the passphrase of the volume's key"),
    }
}
