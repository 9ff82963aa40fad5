//! The object store of a volume, with all its layers.

use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::envelope::{Envelope, PrivateKey};
use ciderfs_format::{Secret, Settings};
use ciderfs_object::layers::{
    Encrypted, EnvelopeCipher, Limited, Limits, Metered, Prefixed, Request, Retried,
};
use ciderfs_object::{Bandwidth, ObjectStore, StoreConfig};

use crate::{Error, Result};

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

/// Opens a volume's object store with all its layers. `settings` has its secrets decrypted; the passphrase is that of the private
/// key of an encrypted volume.
///
/// # Errors
/// Of settings that name no store, and of keys that cannot be used. Nothing is asked of the store itself.
pub fn storage(
    settings: &Settings,
    passphrase: Option<&Secret>,
    bounds: Bounds,
    observer: Option<Observer>,
) -> Result<Arc<dyn ObjectStore>> {
    storage_within(settings, passphrase, bounds, &bandwidth(settings), observer)
}

/// Which object store settings mean. They have their secrets decrypted.
pub fn store_config(settings: &Settings) -> StoreConfig {
    StoreConfig {
        storage: settings.storage.clone(),
        bucket: settings.bucket.clone(),
        access_key: settings.access_key.clone(),
        secret_key: settings.secret_key.clone(),
        session_token: settings.session_token.clone(),
        shards: settings.shard_count(),
        tiers: settings.all_tiers(),
        ..StoreConfig::default()
    }
}

/// The bandwidth that settings grant a client.
pub(crate) fn bandwidth(settings: &Settings) -> Arc<Bandwidth> {
    let bandwidth = Arc::new(Bandwidth::default());
    let (upload, download) = settings.limits();
    bandwidth.set(upload, download);
    bandwidth
}

/// [`storage`] with a bandwidth that others have part in, or that changes.
pub(crate) fn storage_within(
    settings: &Settings,
    passphrase: Option<&Secret>,
    bounds: Bounds,
    bandwidth: &Arc<Bandwidth>,
    observer: Option<Observer>,
) -> Result<Arc<dyn ObjectStore>> {
    let cfg = StoreConfig { bandwidth: Arc::clone(bandwidth), ..store_config(settings) };
    let mut store = ciderfs_object::open(&cfg)?;
    store = Arc::new(Prefixed::new(store, &settings.name));
    if let Some(observer) = observer {
        store = Arc::new(Metered::new(store, observer));
    }
    store = Arc::new(Limited::new(store, bounds.limits));
    store = Arc::new(Retried::new(store, bounds.retries));
    let refused = |e: &dyn std::error::Error| Error::Settings(e.to_string());
    if let Some(algorithm) = settings.encryption().map_err(|e| refused(&e))? {
        let passphrase = passphrase.map(Secret::expose);
        let key = PrivateKey::load(settings.encrypt_key.expose(), passphrase).map_err(|e| refused(&e))?;
        store = Arc::new(Encrypted::new(store, Arc::new(EnvelopeCipher(Envelope::new(key, algorithm)))));
    }
    Ok(store)
}
