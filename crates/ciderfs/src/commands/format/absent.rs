//! `ciderfs format --if-absent`: what a unit runs at every start of every node.
//!
//! The engine decides which volume there is: its settings are written only where there are none. The marker in the bucket comes
//! after them. So whoever finds a marker without settings has met another volume, and whoever finds settings without a marker
//! goes on where somebody else has stopped.

use std::sync::Arc;

use ciderfs_format::objname::UUID_KEY;
use ciderfs_format::settings::validate_name;
use ciderfs_format::{Settings, shown_address};
use ciderfs_meta::Meta;
use ciderfs_meta::store::{Store, StoreError};
use ciderfs_object::{ObjectError, ObjectStore, prepare};
use ciderfs_volume::{Bounds, Error, Purpose, object_place, storage, unusable};

use super::{change, is_checked, is_in_use, new_settings, save, tell_place, warn_of};
use crate::cli::args::Args;
use crate::cli::table::{ENCRYPT_PASSPHRASE, FORCE};
use crate::config;
use crate::failure::{EXIT_NO_ANSWER, EXIT_OTHER_VOLUME, Failure, Result};

/// Longest marker that is read.
const MARKER_MAX: u64 = 4096;
/// Rounds in which others change what was seen.
const ROUNDS: usize = 5;

/// Creates the volume, or finds that it is there.
pub async fn format(args: &Args, name: &str) -> Result<()> {
    validate_name(name)?;
    tracing::info!("Meta address: {}", shown_address(args.place(0)));
    let opened = config::engine_at(args, 0).open(Purpose::Create).await;
    let store = opened.map_err(|e| match e {
        Error::Away(text) => no_answer(text),
        other => other.into(),
    })?;
    for _ in 0..ROUNDS {
        if let Some(found) = settings_in(store.as_ref()).await? {
            return same(args, name, &found).await;
        }
        if create(args, name, &store).await? {
            return Ok(());
        }
    }
    Err(Failure::new("the settings of the volume come and go: somebody else makes and removes volumes there"))
}

async fn settings_in(store: &dyn Store) -> Result<Option<Settings>> {
    Meta::read_settings(store).await.map_err(engine_failure)
}

/// Makes the volume; false if another one was made meanwhile.
async fn create(args: &Args, name: &str, store: &Arc<dyn Store>) -> Result<bool> {
    let settings = new_settings(args, name)?;
    let uuid = settings.uuid.clone();
    let objects = storage(&settings, args.find(ENCRYPT_PASSPHRASE), Bounds::interactive(), None)?;
    tell_place(&settings, objects.as_ref());
    let failed = |e: &ObjectError| place_failure(objects.as_ref(), e);
    if is_checked() {
        let prepared = prepare(objects.as_ref(), name, settings.shard_count()).await;
        prepared.map_err(|e| failed(&e))?;
        if !args.get(FORCE) && is_in_use(objects.as_ref(), failed).await? {
            if settings_in(store.as_ref()).await?.is_some() {
                return Ok(false);
            }
            let whose = match marker(objects.as_ref()).await? {
                Some(other) => {
                    format!("holds the volume with the UUID {other}, which is not at this address")
                }
                None => {
                    "holds objects, and there is no volume at this address that they could belong to".into()
                }
            };
            return Err(other_volume(format!(
                "{} {whose}: check META-URL and --bucket, choose another name or bucket, or, if nothing there is needed, \
                 clean it up or use --force",
                objects.describe()
            )));
        }
        warn_of(&settings).await;
    }
    if let Err(e) = save(store.as_ref(), settings, None).await {
        return if settings_in(store.as_ref()).await?.is_some() { Ok(false) } else { Err(e) };
    }
    if !is_checked() {
        return Ok(true);
    }
    if args.get(FORCE) {
        let marked = objects.put(UUID_KEY, uuid.clone().into()).await;
        marked.map_err(|e| failed(&e))?;
        return Ok(true);
    }
    match mark(objects.as_ref(), &uuid).await {
        // Somebody with another engine was faster by a moment.
        Err(e) if e.code == EXIT_OTHER_VOLUME => {
            let gone = Meta::withdraw_settings(store.as_ref(), &uuid).await;
            if !gone.as_ref().is_ok_and(|gone| *gone) {
                tracing::error!("the settings that were just written stay behind at {}", store.describe());
            }
            Err(e)
        }
        // The next start goes on here.
        marked => marked.map(|()| true),
    }
}

/// Is the volume that is there the one that is wanted, and its place for objects, too?
async fn same(args: &Args, name: &str, found: &Settings) -> Result<()> {
    if found.name != name {
        return Err(other_volume(format!(
            "the volume at {} is {} ({}), not {name}: check META-URL (the database in it, too) and NAME",
            shown_address(args.place(0)),
            found.name,
            found.uuid
        )));
    }
    if !is_checked() {
        return Ok(());
    }
    let mut wanted = found.clone();
    wanted.decrypt_secrets()?;
    let stored = place(&wanted);
    change(args, &mut wanted)?;
    if wanted.access_key.is_empty() && wanted.secret_key.is_empty() {
        config::keys(args, false).put_into(&mut wanted);
    }
    let objects = storage(&wanted, args.find(ENCRYPT_PASSPHRASE), Bounds::interactive(), None)?;
    match marker(objects.as_ref()).await? {
        Some(uuid) if uuid == found.uuid => {}
        Some(other) => {
            return Err(other_volume(format!(
                "{} holds the volume with the UUID {other}, and the volume {name} at {} has the UUID {}: check META-URL and \
                 --bucket",
                objects.describe(),
                shown_address(args.place(0)),
                found.uuid
            )));
        }
        None if place(&wanted) == stored => mark(objects.as_ref(), &found.uuid).await?,
        None => {
            return Err(other_volume(format!(
                "the volume {name} keeps its objects at {}, and {} has none of it: correct --bucket, or leave it out",
                found.shown_bucket(),
                objects.describe()
            )));
        }
    }
    tracing::info!("the volume {name} ({}) is there", found.uuid);
    Ok(())
}

/// Where objects are, without who may use them.
fn place(s: &Settings) -> (String, String) {
    let ([storage, bucket, _], ..) = object_place(s);
    (storage, bucket)
}

/// Writes the marker, unless it is there. Every node of a volume writes the same one.
async fn mark(objects: &dyn ObjectStore, uuid: &str) -> Result<()> {
    let failed = |e: ObjectError| place_failure(objects, &e);
    objects.put_new(UUID_KEY, uuid.to_owned().into()).await.map_err(failed)?;
    // A store that does not know the condition has taken the last one.
    match marker(objects).await? {
        Some(there) if there == uuid => Ok(()),
        there => Err(other_volume(format!(
            "{} was taken at the same moment by the volume with the UUID {}: choose another bucket or name",
            objects.describe(),
            there.unwrap_or_default()
        ))),
    }
}

/// The UUID in the marker.
async fn marker(objects: &dyn ObjectStore) -> Result<Option<String>> {
    match objects.get_whole(UUID_KEY, MARKER_MAX).await {
        Ok(text) => Ok(Some(ciderfs_format::excerpt(String::from_utf8_lossy(&text).trim()))),
        Err(ObjectError::NotFound(_)) => Ok(None),
        // Encrypted with another key.
        Err(ObjectError::Corrupt(_, why)) => {
            Err(other_volume(format!("{}: the object {UUID_KEY} cannot be read: {why}", objects.describe())))
        }
        Err(e) => Err(place_failure(objects, &e)),
    }
}

fn place_failure(objects: &dyn ObjectStore, e: &ObjectError) -> Failure {
    let failure = Failure::from(unusable(objects, e));
    if e.is_retryable() { no_answer(failure.text) } else { failure }
}

fn engine_failure(e: ciderfs_meta::Error) -> Failure {
    match e {
        ciderfs_meta::Error::Store(StoreError::Unavailable(_) | StoreError::Ambiguous(_)) => {
            no_answer(e.to_string())
        }
        other => other.into(),
    }
}

fn other_volume(text: String) -> Failure {
    Failure { text, code: EXIT_OTHER_VOLUME }
}

fn no_answer(text: String) -> Failure {
    Failure { text, code: EXIT_NO_ANSWER }
}
