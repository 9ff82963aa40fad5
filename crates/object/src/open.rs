//! Opening the back end that a volume's settings name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ciderfs_format::settings::Tier;
use ciderfs_format::{Secret, shown_address, shown_bucket};

use crate::bandwidth::Bandwidth;
use crate::error::{ObjectError, Result};
use crate::file::FileStore;
use crate::layers::{Paced, Sharded};
use crate::memory::MemoryStore;
use crate::s3::{self, Address, Credentials, Dialect, Greeting, Manner, S3Store, named, process_env, split};
use crate::service::{self, RedisStore};
use crate::storages::refusal;
use crate::store::ObjectStore;

/// Where objects are, and with which credentials.
#[derive(Clone, Default)]
pub struct StoreConfig {
    /// Driver, see [`crate::STORAGES`].
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
    /// Class and tag of what is stored, by storage tier; tiers that are missing are stored as tier 0, and without that as the store's
    /// default. See [`ciderfs_format::Settings::all_tiers`].
    pub tiers: BTreeMap<u8, Tier>,
    /// How fast bodies may be sent and received.
    pub bandwidth: Arc<Bandwidth>,
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the keys.
        f.debug_struct("StoreConfig")
            .field("storage", &self.storage)
            .field("bucket", &shown_bucket(&self.storage, &self.bucket))
            .field("shards", &self.shards)
            .field("tiers", &self.tiers)
            .field("bandwidth", &self.bandwidth)
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

/// Is `?region=` in the address of a bucket read there?
pub fn takes_region(storage: &str) -> bool {
    let storage = storage.to_ascii_lowercase();
    matches!(storage.as_str(), "s3" | "minio") || Dialect::of(&storage).is_some()
}

/// Does the address of a bucket tell the region by itself? Where it does not, the environment does, or it is a usual one.
pub fn names_region(storage: &str, bucket: &str) -> bool {
    // None that an address has.
    const NONE: &str = "zz-none-1";
    let env = |name: &str| name.ends_with("_REGION").then(|| NONE.to_owned());
    let address = match storage.to_ascii_lowercase().as_str() {
        "s3" => Address::s3(bucket, &env),
        "minio" => Address::minio(bucket, &env),
        _ => return true,
    };
    address.is_ok_and(|a| a.region.is_some_and(|region| region != NONE))
}

/// What to tell whoever makes a volume about its buckets: that they keep what is deleted, or are at a place that is no longer meant
/// to be used. Asks the store, and takes no answer for a good one: a key need not have the right to ask.
pub async fn bucket_warnings(cfg: &StoreConfig) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for shard in 0..cfg.shards.clamp(1, Sharded::MAX) {
        let bucket = shard_of(&cfg.bucket, shard);
        let Some(store) = s3_store(cfg, &bucket)? else { return Ok(all) };
        all.extend(store.warnings().await);
        if !all.is_empty() {
            break;
        }
    }
    Ok(all)
}

/// Does the back end keep a checksum with every object, which reads of whole objects verify?
pub fn has_checksums(storage: &str, bucket: &str) -> bool {
    let bucket = shard_of(bucket, 0);
    match storage.to_ascii_lowercase().as_str() {
        "s3" => Address::parse_s3(&bucket),
        "minio" => Address::parse_minio(&bucket),
        "oss" | "cos" | "tos" => return split(&bucket, |_| "https").is_ok_and(|parts| parts.query.checksum),
        other => match Dialect::of(other) {
            Some(dialect) => dialect.address(&bucket, &process_env),
            None => return false,
        },
    }
    .is_ok_and(|address| address.checksum)
}

/// Does the store have classes and tags for its objects, as this program sets them? Others ignore them.
pub fn has_classes(storage: &str) -> bool {
    matches!(storage.to_ascii_lowercase().as_str(), "s3" | "minio" | "scw" | "eos" | "oos" | "ks3")
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
    if !has_classes(&cfg.storage)
        && cfg.tiers.values().any(|tier| !tier.storage_class.is_empty() || !tier.tag.is_empty())
    {
        tracing::warn!(
            "storage {} has no storage classes and tags: what is set of them has no effect",
            cfg.storage
        );
    }
    if cfg.shards > 1 {
        if !cfg.bucket.contains("%d") {
            return Err(ObjectError::Config(format!(
                "{} shards need a %d in the bucket: {}",
                cfg.shards,
                shown_address(&cfg.bucket)
            )));
        }
        let shards =
            (0..cfg.shards).map(|i| open_one(cfg, &shard_of(&cfg.bucket, i))).collect::<Result<Vec<_>>>()?;
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
        other => {
            let Some(dialect) = Dialect::of(other) else { return Ok(None) };
            let address = dialect.address(bucket, &process_env)?;
            let (access, secret) = dialect.keys(&cfg.access_key, cfg.secret_key.expose(), &process_env)?;
            (address, Credentials::new(&access, &secret.into(), &cfg.session_token)?)
        }
    }))
}

/// The URL of the service that objects are sent to, and the region that requests are signed for; of the first shard. `None` for a
/// storage that is no service.
pub fn service(cfg: &StoreConfig) -> Result<Option<(String, Option<String>)>> {
    let parts = s3_parts(cfg, &shard_of(&cfg.bucket, 0))?;
    Ok(parts.map(|(address, _)| (address.with_host(), address.region)))
}

/// What the service tells everybody; nothing of a storage that is none.
pub async fn greet(cfg: &StoreConfig) -> Result<Greeting> {
    match s3_parts(cfg, &shard_of(&cfg.bucket, 0))? {
        Some((address, _)) => s3::greet(&address).await,
        None => Ok(Greeting::default()),
    }
}

/// Deletes objects that need not be there with one request. Keys are whole, with the prefix of the volume. `None` for a storage
/// without such a request.
pub async fn delete_many(cfg: &StoreConfig, objects: &[String]) -> Result<Option<()>> {
    match s3_parts(cfg, &shard_of(&cfg.bucket, 0))? {
        Some((address, keys)) => s3::delete_many(&address, keys, objects).await.map(Some),
        None => Ok(None),
    }
}

/// The address of one of several buckets.
fn shard_of(bucket: &str, shard: u32) -> String {
    bucket.replacen("%d", &shard.to_string(), 1)
}

/// The driver of buckets of S3, if that is what the storage is.
fn s3_store(cfg: &StoreConfig, bucket: &str) -> Result<Option<S3Store>> {
    let Some((address, keys)) = s3_parts(cfg, bucket)? else { return Ok(None) };
    if let Some(hint) = address.is_of_old() {
        tracing::warn!("{hint}");
    }
    let manner = Manner { tiers: cfg.tiers.clone(), bandwidth: Arc::clone(&cfg.bandwidth) };
    S3Store::new(address, keys, manner).map(Some)
}

fn open_one(cfg: &StoreConfig, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    if let Some(store) = s3_store(cfg, bucket)? {
        return Ok(Arc::new(store));
    }
    let storage = cfg.storage.to_ascii_lowercase();
    let store: Arc<dyn ObjectStore> = match storage.as_str() {
        "file" => Arc::new(FileStore::new(bucket)),
        "mem" => Arc::new(MemoryStore::default()),
        "redis" => Arc::new(RedisStore::new(bucket, &cfg.access_key, &cfg.secret_key)?),
        other => match service::open(other, cfg, bucket)? {
            Some(store) => Arc::new(store),
            None => return Err(refusal(&cfg.storage)),
        },
    };
    Ok(Arc::new(Paced::new(store, Arc::clone(&cfg.bandwidth))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_where_the_driver_writes_them() {
        for (storage, bucket, want) in [
            ("oss", "https://b.oss-cn-hangzhou.aliyuncs.com", true),
            ("oss", "https://b.oss-cn-hangzhou.aliyuncs.com?disable-checksum=true", false),
            ("cos", "b-1.cos.ap-beijing.myqcloud.com?disable-checksum=1", false),
            ("tos", "https://b.tos-cn-beijing.volces.com?disable-checksum=t", false),
            ("tos", "https://b.tos-cn-beijing.volces.com?disable-checksum=false", true),
            ("wasabi", "https://b.s3.eu-west-1.wasabisys.com", true),
            ("b2", "https://b.s3.eu-west-1.backblazeb2.com", false),
            ("file", "/d/", false),
        ] {
            assert_eq!(has_checksums(storage, bucket), want, "{storage} {bucket}");
        }
    }
}
