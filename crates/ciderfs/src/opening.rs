//! Opening what a volume consists of: its metadata engine and its object store.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use ciderfs_format::envelope::{Envelope, PASSPHRASE_ENV, PrivateKey};
use ciderfs_format::{Secret, Settings, shown, shown_address};
use ciderfs_meta::MetaConfig;
use ciderfs_meta::store::Store;
use ciderfs_meta_redis::RedisStore;
use ciderfs_meta_sql::SqliteStore;
use ciderfs_object::layers::{
    Encrypted, EnvelopeCipher, Limited, Limits, Metered, Prefixed, Request, Retried,
};
use ciderfs_object::{ObjectStore, StoreConfig};

use crate::failure::{Failure, Result};

/// Engines of this version.
const ENGINES: &str = "sqlite3://PATH, redis://HOST[:PORT]/DB, rediss://, unix://";

/// What a command wants of a metadata engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Perhaps create a volume.
    Create,
    /// Change a volume that exists.
    Change,
    /// Look at one.
    Look,
}

/// SQLite files that were opened, for [`close`].
static FILES: Mutex<Vec<Weak<SqliteStore>>> = Mutex::new(Vec::new());

/// Closes the SQLite files before the process ends, whoever still refers to them: a thread that is cut off leaves rows in the
/// `-wal` file.
pub fn close() {
    let files = std::mem::take(&mut *FILES.lock().unwrap_or_else(PoisonError::into_inner));
    for file in files.iter().filter_map(Weak::upgrade) {
        file.close();
    }
}

/// Opens a metadata engine by its URL.
pub async fn meta(url: &(impl AsRef<OsStr> + ?Sized), purpose: Purpose) -> Result<Arc<dyn Store>> {
    let url = url.as_ref();
    let read_only = purpose == Purpose::Look;
    let text = shown(url);
    // In a password there may be anything, and it is not told as the name of an engine.
    let is_name = |s: &&str| s.bytes().all(|b| b.is_ascii_alphanumeric());
    let scheme = text.split_once("://").map(|(scheme, _)| scheme).filter(is_name).unwrap_or("redis");
    match scheme {
        "sqlite3" | "sqlite" => {
            let must_exist = purpose != Purpose::Create;
            let options = ciderfs_meta_sql::Options { read_only, must_exist };
            let store = Arc::new(SqliteStore::open(url, options).map_err(|e| Failure::new(e.to_string()))?);
            FILES.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&store));
            Ok(store)
        }
        "redis" | "rediss" | "unix" => {
            let patience = MetaConfig::default().retry_patience;
            let options = ciderfs_meta_redis::Options { read_only, patience };
            // Places in it are percent-encoded.
            let url = url
                .to_str()
                .ok_or_else(|| Failure::new(format!("{}: the address is not UTF-8", shown_address(url))))?;
            let store = RedisStore::open(url, options).await;
            Ok(Arc::new(store.map_err(|e| Failure::new(e.to_string()))?))
        }
        "mysql" | "postgres" | "badger" | "etcd" | "tikv" | "fdb" | "memkv" => Err(Failure::new(format!(
            "metadata engine {scheme} is not supported in this version; supported: {ENGINES}"
        ))),
        other => Err(Failure::new(format!("Invalid meta driver: {other}; supported: {ENGINES}"))),
    }
}

/// How requests to the object store are bounded.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Concurrency and deadlines.
    pub limits: Limits,
    /// Repetitions.
    pub retries: u32,
}

impl Bounds {
    /// For commands that a person waits for.
    pub fn interactive() -> Self {
        let deadline = Duration::from_secs(10);
        Self {
            limits: Limits { get_timeout: deadline, put_timeout: deadline, ..Limits::default() },
            retries: 1,
        }
    }
}

/// Told of every request.
pub type Observer = Arc<dyn Fn(Request<'_>) + Send + Sync>;

/// Opens a volume's object store with all its layers. `settings` has its secrets decrypted.
pub fn storage(
    settings: &Settings,
    bounds: Bounds,
    observer: Option<Observer>,
) -> Result<Arc<dyn ObjectStore>> {
    let cfg = StoreConfig {
        storage: settings.storage.clone(),
        bucket: settings.bucket.clone(),
        access_key: settings.access_key.clone(),
        secret_key: settings.secret_key.clone(),
        session_token: settings.session_token.clone(),
        shards: settings.shard_count(),
    };
    let mut store = ciderfs_object::open(&cfg)?;
    store = Arc::new(Prefixed::new(store, &settings.name));
    if let Some(observer) = observer {
        store = Arc::new(Metered::new(store, observer));
    }
    store = Arc::new(Limited::new(store, bounds.limits));
    store = Arc::new(Retried::new(store, bounds.retries));
    if let Some(algorithm) = settings.encryption()? {
        let passphrase = Secret::given(std::env::var(PASSPHRASE_ENV).ok());
        let key = PrivateKey::load(settings.encrypt_key.expose(), passphrase.as_ref().map(Secret::expose))?;
        store = Arc::new(Encrypted::new(store, Arc::new(EnvelopeCipher(Envelope::new(key, algorithm)))));
    }
    Ok(store)
}
