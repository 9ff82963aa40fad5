//! Opening the back end that a volume's settings name.

use std::fmt;
use std::sync::Arc;

use ciderfs_format::{Secret, shown_address};

use crate::error::{ObjectError, Result};
use crate::file::FileStore;
use crate::layers::Sharded;
use crate::memory::MemoryStore;
use crate::s3::{self, Address, Credentials, Greeting, S3Store, named};
use crate::store::ObjectStore;

/// Where objects are, and with which credentials.
#[derive(Clone, Default)]
pub struct StoreConfig {
    /// Driver: `file`, `s3`, `minio`, `mem`.
    pub storage: String,
    /// Directory, bucket or URL; with shards it contains `%d`.
    pub bucket: String,
    /// Access key; empty uses the driver's own sources.
    pub access_key: String,
    /// Secret key.
    pub secret_key: Secret,
    /// Session token of temporary credentials.
    pub session_token: Secret,
    /// Number of buckets; 0 and 1 mean one.
    pub shards: u32,
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the keys.
        f.debug_struct("StoreConfig")
            .field("storage", &self.storage)
            .field("bucket", &shown_address(&self.bucket))
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// The bucket to store in the settings for what a command line says, checked as far as that is possible without asking the
/// store: every part has an effect, and every client reads the same address.
pub fn named_bucket(storage: &str, endpoint: Option<&str>, bucket: &str) -> Result<String> {
    let storage = storage.to_ascii_lowercase();
    match (storage.as_str(), endpoint) {
        ("s3" | "minio", _) => named(&storage, endpoint, bucket),
        (_, Some(_)) => Err(ObjectError::Config(format!(
            "--endpoint would have no effect with storage {storage}: leave it out, or say --storage s3 or --storage minio"
        ))),
        (_, None) => Ok(bucket.to_owned()),
    }
}

/// Does the back end keep a checksum with every object, which reads of whole objects verify?
pub fn has_checksums(storage: &str, bucket: &str) -> bool {
    let bucket = bucket.replacen("%d", "0", 1);
    match storage.to_ascii_lowercase().as_str() {
        "s3" => Address::parse_s3(&bucket),
        "minio" => Address::parse_minio(&bucket),
        _ => return false,
    }
    .is_ok_and(|address| address.checksum)
}

/// Opens the back end, sharded if asked for. Nothing is contacted yet.
pub fn open(cfg: &StoreConfig) -> Result<Arc<dyn ObjectStore>> {
    if cfg.shards > Sharded::MAX {
        return Err(ObjectError::Config(format!(
            "{} shards: at most {} are possible",
            cfg.shards,
            Sharded::MAX
        )));
    }
    if cfg.shards > 1 {
        if !cfg.bucket.contains("%d") {
            return Err(ObjectError::Config(format!(
                "{} shards need a %d in the bucket: {}",
                cfg.shards,
                shown_address(&cfg.bucket)
            )));
        }
        let shards = (0..cfg.shards)
            .map(|i| open_one(cfg, &cfg.bucket.replacen("%d", &i.to_string(), 1)))
            .collect::<Result<Vec<_>>>()?;
        return Ok(Arc::new(Sharded::new(shards)));
    }
    if cfg.bucket.contains("%d") && matches!(cfg.storage.to_ascii_lowercase().as_str(), "s3" | "minio") {
        return Err(ObjectError::Config(format!(
            "the %d in the bucket {} stands for the number of a shard: it needs --shards with at least 2",
            shown_address(&cfg.bucket)
        )));
    }
    open_one(cfg, &cfg.bucket)
}

/// A bucket of S3 and the keys for it, if that is what the storage is.
fn s3_parts(cfg: &StoreConfig, bucket: &str) -> Result<Option<(Address, Credentials)>> {
    Ok(Some(match cfg.storage.to_ascii_lowercase().as_str() {
        "s3" => {
            let keys = Credentials::new(&cfg.access_key, &cfg.secret_key, &cfg.session_token)?;
            (Address::parse_s3(bucket)?, keys)
        }
        "minio" => {
            let (mut access, mut secret) = (cfg.access_key.clone(), cfg.secret_key.clone());
            if access.is_empty() {
                access = std::env::var("MINIO_ACCESS_KEY").unwrap_or_default();
                secret = std::env::var("MINIO_SECRET_KEY").unwrap_or_default().into();
            }
            let keys = Credentials::new(&access, &secret, &cfg.session_token)?;
            (Address::parse_minio(bucket)?, keys)
        }
        _ => return Ok(None),
    }))
}

/// The URL of the service that objects are sent to, and the region that requests are signed for; of the first shard. `None` for a
/// storage that is no service.
pub fn service(cfg: &StoreConfig) -> Result<Option<(String, Option<String>)>> {
    let parts = s3_parts(cfg, &first_bucket(cfg))?;
    Ok(parts.map(|(address, _)| (address.with_host(), address.region)))
}

/// What the service tells everybody; nothing of a storage that is none.
pub async fn greet(cfg: &StoreConfig) -> Result<Greeting> {
    match s3_parts(cfg, &first_bucket(cfg))? {
        Some((address, _)) => s3::greet(&address).await,
        None => Ok(Greeting::default()),
    }
}

/// Deletes objects that need not be there with one request. Keys are whole, with the prefix of the volume. `None` for a storage
/// without such a request.
pub async fn delete_many(cfg: &StoreConfig, objects: &[String]) -> Result<Option<()>> {
    match s3_parts(cfg, &first_bucket(cfg))? {
        Some((address, keys)) => s3::delete_many(&address, &keys, objects).await.map(Some),
        None => Ok(None),
    }
}

fn first_bucket(cfg: &StoreConfig) -> String {
    cfg.bucket.replacen("%d", "0", 1)
}

fn open_one(cfg: &StoreConfig, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    if let Some((address, keys)) = s3_parts(cfg, bucket)? {
        return Ok(Arc::new(S3Store::new(address, keys)?));
    }
    Ok(match cfg.storage.to_ascii_lowercase().as_str() {
        "file" => Arc::new(FileStore::new(bucket)),
        "mem" => Arc::new(MemoryStore::default()),
        other => {
            return Err(ObjectError::Config(format!(
                "storage {other:?} is not supported in this version; supported are file, s3 and minio"
            )));
        }
    })
}
