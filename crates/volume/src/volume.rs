//! A volume that is open: metadata, blocks and objects, following the settings as they change.

use std::ffi::OsString;
use std::sync::Arc;

use ciderfs_block::{BlockConfig, BlockStore};
use ciderfs_format::{Secret, Settings};
use ciderfs_meta::{Meta, MetaConfig};
use ciderfs_object::layers::Replaceable;
use ciderfs_object::{Bandwidth, ObjectError, ObjectStore, has_checksums, named_bucket, probe};
use parking_lot::Mutex;

use crate::engine::{Engine, Purpose};
use crate::place::{Override, object_place};
use crate::storage::{Bounds, Observer, bandwidth, storage_within};
use crate::{Error, Result};

/// How a volume is opened.
#[derive(Debug, Clone)]
pub struct VolumeConfig {
    /// Address of the metadata engine; places in it are absolute.
    pub address: OsString,
    /// Password of the engine, for an address that has none.
    pub password: Option<Secret>,
    /// Metadata. A volume that is opened `read_only` is never written, by any part.
    pub meta: MetaConfig,
    /// What this client does otherwise than the settings say.
    pub storage: Override,
    /// Passphrase of the private key of an encrypted volume.
    pub passphrase: Option<Secret>,
    /// Requests to the object store.
    pub bounds: Bounds,
    /// Try the object store before anything depends on it; not where the volume is opened `read_only`.
    pub probe: bool,
    /// Buffers and cache. What the settings of the volume decide is taken from there, and `bounds` decide the concurrency; the
    /// cache directories get one of the volume's own.
    pub blocks: BlockConfig,
}

/// A volume that is open.
pub struct Volume {
    /// Metadata.
    pub meta: Arc<Meta>,
    /// Data.
    pub blocks: Arc<BlockStore>,
    /// The object store; another one when the settings name another.
    pub objects: Arc<Replaceable>,
    /// The settings of this client as they were when the volume was opened, secrets decrypted.
    pub settings: Settings,
}

impl VolumeConfig {
    /// Opens the metadata alone.
    ///
    /// # Errors
    /// Those of the engine; no volume there.
    pub async fn load(&self) -> Result<Arc<Meta>> {
        let purpose = if self.meta.read_only { Purpose::Look } else { Purpose::Change };
        let engine = Engine { address: &self.address, password: self.password.clone() };
        Ok(Meta::load(engine.open(purpose).await?, self.meta.clone()).await?)
    }
}

impl Volume {
    /// Opens a volume.
    ///
    /// # Errors
    /// Whatever keeps one of its parts from being opened.
    pub async fn open(config: VolumeConfig) -> Result<Self> {
        let meta = config.load().await?;
        Self::with(meta, config, None).await
    }

    /// Opens the rest of a volume whose metadata are open. The observer is told of every request to the object store.
    ///
    /// # Errors
    /// Settings that cannot be used, an object store that does not answer as it should, a cache that cannot be opened.
    pub async fn with(meta: Arc<Meta>, config: VolumeConfig, observer: Option<Observer>) -> Result<Self> {
        let settings = own_settings(&meta, &config.storage)?;
        // Somebody else has stored it so, and it is read as the official client reads it; but not in silence.
        if let Err(e) = named_bucket(&settings.storage, None, &settings.bucket) {
            tracing::warn!("the address in the settings: {e}");
        }
        let (bounds, read_only) = (config.bounds, config.meta.read_only);
        let bandwidth = bandwidth(&settings);
        let open = {
            let (bandwidth, passphrase) = (Arc::clone(&bandwidth), config.passphrase);
            move |settings: &Settings| {
                storage_within(settings, passphrase.as_ref(), bounds, &bandwidth, observer.clone())
            }
        };
        let objects = Arc::new(Replaceable::new(open(&settings)?));
        follow(&meta, settings.clone(), config.storage, bandwidth, Arc::clone(&objects), open);
        if config.blocks.verify_reads {
            tell_what_is_verified(&settings);
        }
        if config.probe && !read_only {
            let failed = |e: ObjectError| unusable(objects.as_ref(), &e);
            probe(objects.as_ref(), &settings.name, settings.shard_count()).await.map_err(failed)?;
        }
        let blocks = BlockConfig {
            block_size: settings.block_size(),
            compression: settings.compression().map_err(|e| Error::Settings(e.to_string()))?,
            hash_prefix: settings.hash_prefix,
            cache_dirs: config.blocks.cache_dirs.iter().map(|dir| dir.join(&settings.uuid)).collect(),
            max_uploads: bounds.limits.max_uploads,
            max_downloads: bounds.limits.max_downloads,
            read_only,
            ..config.blocks
        };
        let blocks = BlockStore::new(Arc::clone(&objects) as Arc<dyn ObjectStore>, blocks)?;
        Ok(Self { meta, blocks, objects, settings })
    }
}

/// The settings of a client, secrets decrypted.
fn own_settings(meta: &Meta, over: &Override) -> Result<Settings> {
    let mut settings = (*meta.settings()).clone();
    settings.decrypt_secrets().map_err(|e| Error::Settings(e.to_string()))?;
    over.apply(&mut settings)?;
    Ok(settings)
}

/// What a store answered when it was tried. The address is said once.
pub fn unusable(objects: &dyn ObjectStore, e: &ObjectError) -> Error {
    let hint = if matches!(e, ObjectError::Timeout(_)) { "; check --bucket and the network" } else { "" };
    Error::Unusable(format!("{}: {e}{hint}", objects.describe()))
}

/// Opens the object store anew when its address, a key or a storage class in the settings changes, and keeps to their bandwidth.
fn follow(
    meta: &Meta,
    now: Settings,
    over: Override,
    bandwidth: Arc<Bandwidth>,
    objects: Arc<Replaceable>,
    open: impl Fn(&Settings) -> Result<Arc<dyn ObjectStore>> + Send + Sync + 'static,
) {
    let current = Mutex::new(object_place(&now));
    meta.on_settings(Box::new(move |new| {
        let mut new = (**new).clone();
        let mut adopt = || -> Result<()> {
            new.decrypt_secrets().map_err(|e| Error::Settings(e.to_string()))?;
            over.apply(&mut new)?;
            let (upload, download) = new.limits();
            bandwidth.set(upload, download);
            let mut current = current.lock();
            if *current != object_place(&new) {
                objects.replace(open(&new)?);
                *current = object_place(&new);
                tracing::info!("objects are now at {}", objects.describe());
            }
            Ok(())
        };
        if let Err(e) = adopt() {
            tracing::error!("the new settings of the object store cannot be used, the old ones stay: {e}");
        }
    }));
}

/// Says so where `--verify-reads` can verify little.
fn tell_what_is_verified(settings: &Settings) {
    if !has_checksums(&settings.storage, &settings.bucket) && settings.encrypt_key.is_empty() {
        tracing::warn!(
            "--verify-reads: objects of this volume have no checksum (encrypted volumes have one, and so do those in S3 and the \
             services that docs/object-stores.md names, without disable-checksum): of what is read, no more than length and \
             compressed form can be verified"
        );
    }
}
