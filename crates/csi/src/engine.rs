//! Metadata of the volumes that requests name.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_format::Secret;
use ciderfs_meta::store::{Store, StoreError};
use ciderfs_meta::{Errno, Meta, MetaConfig};
use ciderfs_volume::{Engine, Purpose};
use parking_lot::Mutex;
use tonic::Status;

use crate::secrets::Secrets;
use crate::server::Formatter;

/// How long an operation waits for an engine that does not answer. Whoever calls comes again.
const PATIENCE: Duration = Duration::from_secs(10);

/// An engine that does not answer for so long is not there any more, as far as calls go that bring no Secret.
pub const RETIRED: Duration = Duration::from_secs(600);

/// Engines that were asked for, with connections that stay open.
pub struct Engines {
    known: Mutex<BTreeMap<Key, Known>>,
    retired: Duration,
}

/// What leads to an engine: its address and password. Never shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String, String);

#[derive(Clone)]
struct Known {
    store: Arc<dyn Store>,
    secrets: Secrets,
    /// Since when it does not answer.
    failing: Option<Instant>,
}

/// A file system that is open.
#[derive(Clone)]
pub struct Opened {
    /// Its metadata.
    pub meta: Arc<Meta>,
    /// The engine.
    pub key: Key,
    /// The address as everybody may see it.
    pub place: String,
}

impl Engines {
    /// None yet; those that do not answer for so long are forgotten.
    pub fn new(retired: Duration) -> Self {
        Self { known: Mutex::default(), retired }
    }

    /// Opens the metadata that secrets lead to. Where no volume is made yet the formatter makes it, if there is one.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for secrets that lead nowhere, `UNAVAILABLE`, `FAILED_PRECONDITION` where there is no such volume.
    pub async fn open(&self, secrets: &Secrets, formatter: Option<&dyn Formatter>) -> Result<Opened, Status> {
        let (address, name) = (secrets.require("metaurl")?, secrets.require("name")?);
        let place = secrets.shown_place();
        let password = secrets.password();
        let key =
            Key(address.to_owned(), password.as_ref().map(|p| p.expose().to_owned()).unwrap_or_default());
        let store = match self.stored(&key) {
            Some(store) => store,
            None => {
                let store = match connect(address, password.clone()).await {
                    // A file that is not there yet.
                    Err(_) if formatter.is_some() && address.starts_with("sqlite") => {
                        format(formatter, secrets).await?;
                        connect(address, password).await
                    }
                    other => other,
                };
                store.map_err(|e| engine_status(&place, e))?
            }
        };
        let config = MetaConfig { retry_patience: PATIENCE, no_bgjob: true, ..MetaConfig::default() };
        let settings = Meta::read_settings(store.as_ref()).await.map_err(|e| meta_status(&place, e))?;
        if settings.is_none() && formatter.is_some() {
            tracing::info!("{place}: there is no volume {name} yet, it is made");
            format(formatter, secrets).await?;
        }
        let meta = Meta::load(Arc::clone(&store), config).await.map_err(|e| meta_status(&place, e))?;
        let found = meta.settings().name.clone();
        if found != name {
            return Err(Status::failed_precondition(format!(
                "{place} holds the volume {found:?}, and the Secret names {name:?}"
            )));
        }
        let mut known = self.known.lock();
        // Another password of the same engine is an old one.
        known.retain(|other, _| other.0 != key.0 || *other == key);
        // It has answered just now.
        known.insert(key.clone(), Known { store, secrets: secrets.clone(), failing: None });
        drop(known);
        Ok(Opened { meta, key, place })
    }

    fn stored(&self, key: &Key) -> Option<Arc<dyn Store>> {
        self.known.lock().get(key).map(|known| Arc::clone(&known.store))
    }

    /// An engine has answered a call that brought no Secret, or not. One that has not for a long time is forgotten, until a call brings
    /// its Secret again. Returns whether it was.
    pub fn answered(&self, secrets: &Secrets, did: bool) -> bool {
        let address = secrets.get("metaurl").map(Secret::expose);
        let mut known = self.known.lock();
        let Some((key, found)) = known.iter_mut().find(|(key, _)| Some(key.0.as_str()) == address) else {
            return false;
        };
        if did {
            found.failing = None;
            return false;
        }
        let is_retired = found.failing.get_or_insert_with(Instant::now).elapsed() >= self.retired;
        if is_retired {
            let key = key.clone();
            known.remove(&key);
        }
        is_retired
    }

    /// The secrets of all engines that were asked for since this driver started.
    pub fn known(&self) -> Vec<Secrets> {
        self.known.lock().values().map(|known| known.secrets.clone()).collect()
    }
}

async fn connect(address: &str, password: Option<Secret>) -> Result<Arc<dyn Store>, ciderfs_volume::Error> {
    Engine { address: OsStr::new(address), password }.open(Purpose::Change).await
}

async fn format(formatter: Option<&dyn Formatter>, secrets: &Secrets) -> Result<(), Status> {
    match formatter {
        Some(formatter) => formatter.format(secrets.clone()).await,
        None => Ok(()),
    }
}

fn engine_status(place: &str, e: ciderfs_volume::Error) -> Status {
    match e {
        ciderfs_volume::Error::Away(text) => Status::unavailable(format!("{place}: {text}")),
        ciderfs_volume::Error::Meta(e) => meta_status(place, e),
        other => Status::failed_precondition(format!("{place}: {other}")),
    }
}

/// What an error of the metadata is to the caller.
pub fn meta_status(place: &str, e: ciderfs_meta::Error) -> Status {
    let text = format!("{place}: {e}");
    match e {
        ciderfs_meta::Error::Store(StoreError::Unavailable(_) | StoreError::Ambiguous(_)) => {
            Status::unavailable(text)
        }
        ciderfs_meta::Error::Store(StoreError::NoSpace(_)) => Status::resource_exhausted(text),
        ciderfs_meta::Error::Errno(Errno::ENOSPC | Errno::EDQUOT) => Status::resource_exhausted(text),
        ciderfs_meta::Error::Store(StoreError::Fatal(_)) | ciderfs_meta::Error::Volume(_) => {
            Status::failed_precondition(text)
        }
        _ => Status::internal(text),
    }
}
