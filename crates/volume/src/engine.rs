//! The metadata engine of an address.

use std::ffi::OsStr;
use std::sync::{Arc, Weak};

use ciderfs_format::{Secret, shown, shown_address};
use ciderfs_meta::MetaConfig;
use ciderfs_meta::store::{Store, StoreError};
use ciderfs_meta_redis::RedisStore;
use ciderfs_meta_sql::SqliteStore;
use parking_lot::Mutex;

use crate::{Error, Result};

/// Engines of this version.
const ENGINES: &str = "sqlite3://PATH, redis://HOST[:PORT]/DB, rediss://, unix://";

/// What is wanted of a metadata engine.
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
    let files = std::mem::take(&mut *FILES.lock());
    for file in files.iter().filter_map(Weak::upgrade) {
        file.close();
    }
}

/// Where metadata is.
#[derive(Debug, Clone)]
pub struct Engine<'a> {
    /// The address; places in it are absolute.
    pub address: &'a OsStr,
    /// The password, for an address that has none.
    pub password: Option<Secret>,
}

impl Engine<'_> {
    /// Opens it.
    ///
    /// # Errors
    /// An address that is none or of an engine that is not there; what the driver says.
    pub async fn open(&self, purpose: Purpose) -> Result<Arc<dyn Store>> {
        let url = self.address;
        let read_only = purpose == Purpose::Look;
        let text = shown(url);
        // In a password there may be anything, and it is not told as the name of an engine.
        let is_name = |s: &&str| s.bytes().all(|b| b.is_ascii_alphanumeric());
        let scheme = text.split_once("://").map(|(scheme, _)| scheme).filter(is_name).unwrap_or("redis");
        match scheme {
            "sqlite3" | "sqlite" => {
                let must_exist = purpose != Purpose::Create;
                let options = ciderfs_meta_sql::Options { read_only, must_exist };
                let store = SqliteStore::open(url, options).map_err(|e| Error::Engine(e.to_string()))?;
                let store = Arc::new(store);
                FILES.lock().push(Arc::downgrade(&store));
                Ok(store)
            }
            "redis" | "rediss" | "unix" => {
                let patience = MetaConfig::default().retry_patience;
                let password = self.password.clone();
                let options = ciderfs_meta_redis::Options { password, read_only, patience };
                // Places in it are percent-encoded.
                let url = url.to_str().ok_or_else(|| {
                    Error::Engine(format!("{}: the address is not UTF-8", shown_address(url)))
                })?;
                let store = RedisStore::open(url, options).await;
                Ok(Arc::new(store.map_err(|e| match e {
                    StoreError::Unavailable(reason) => Error::Away(reason.to_string()),
                    other => Error::Engine(other.to_string()),
                })?))
            }
            "mysql" | "postgres" | "badger" | "etcd" | "tikv" | "fdb" | "memkv" => Err(Error::Engine(
                format!("metadata engine {scheme} is not supported in this version; supported: {ENGINES}"),
            )),
            other => Err(Error::Engine(format!("Invalid meta driver: {other}; supported: {ENGINES}"))),
        }
    }
}
