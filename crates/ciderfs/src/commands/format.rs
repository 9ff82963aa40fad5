//! `ciderfs format META-URL NAME`.

mod absent;

use ciderfs_format::objname::UUID_KEY;
use ciderfs_format::settings::{round_block_size, validate_name};
use ciderfs_format::{Settings, shown, shown_address, version};
use ciderfs_meta::Meta;
use ciderfs_object::{
    ObjectError, ObjectStore, bucket_warnings, has_other_objects, named_bucket, names_region, prepare, probe,
    try_tier,
};
use ciderfs_volume::{
    Bounds, Purpose, object_place, storage, store_config, stored_bucket, unusable, with_region,
};

use crate::cli::args::Args;
use crate::cli::command::Command;
use crate::cli::flag::Row;
use crate::cli::table::{
    BLOCK_SIZE, BUCKET, CAPACITY, COMPRESS, DIR_STATS, DOWNLOAD_LIMIT, ENABLE_ACL, ENCRYPT_ALGO,
    ENCRYPT_PASSPHRASE, ENCRYPT_RSA_KEY, ENDPOINT, FORCE, HASH_PREFIX, IF_ABSENT, INODES, MAX_CLIENT_VERSION,
    MIN_CLIENT_VERSION, NO_UPDATE, REGION, SHARDS, STORAGE, STORAGE_CLASS, TAG, TIER, TRASH_DAYS,
    UPLOAD_LIMIT, USER_GROUP_QUOTA,
};
use crate::config;
use crate::failure::{Failure, Result};

/// Flags that an existing volume cannot change.
const IMMUTABLE: &[&Row] =
    &[BLOCK_SIZE.row, COMPRESS.row, ENCRYPT_RSA_KEY.row, ENCRYPT_ALGO.row, HASH_PREFIX.row, SHARDS.row];

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    let runtime = tokio::runtime::Runtime::new()?;
    if args.get(IF_ABSENT) {
        return runtime.block_on(absent::format(args, args.word(1)));
    }
    runtime.block_on(format(args, args.word(1)))
}

/// Creates the volume, or updates its settings.
pub async fn format(args: &Args, name: &str) -> Result<()> {
    validate_name(name)?;
    tracing::info!("Meta address: {}", shown_address(args.place(0)));
    let store = config::engine(args, 0, Purpose::Create).await?;
    if let Some(old) = Meta::read_settings(store.as_ref()).await? {
        if args.get(NO_UPDATE) {
            return Ok(());
        }
        if old.name != name {
            return Err(Failure::new(format!("cannot update volume name from {} to {name}", old.name)));
        }
        for flag in IMMUTABLE.iter().filter(|row| args.is_given(row)) {
            tracing::warn!("Flag {} is ignored since it cannot be updated", flag.name);
        }
        let mut new = old.clone();
        new.decrypt_secrets()?;
        let before = new.clone();
        change(args, &mut new)?;
        check_storage(args, &before, &new).await?;
        return save(store.as_ref(), new, Some(&old)).await;
    }
    let settings = new_settings(args, name)?;
    let objects = storage(&settings, args.find(ENCRYPT_PASSPHRASE), Bounds::interactive(), None)?;
    tell_place(&settings, objects.as_ref());
    if is_checked() {
        let failed = |e: ObjectError| unusable(objects.as_ref(), &e);
        prepare(objects.as_ref(), &settings.name, settings.shard_count()).await.map_err(failed)?;
        let unusable = |e: &ObjectError| unusable(objects.as_ref(), e).into();
        if !args.get(FORCE) && is_in_use(objects.as_ref(), unusable).await? {
            return Err(Failure::new(format!(
                "{} is not empty: choose another name, clean it up, or use --force",
                objects.describe()
            )));
        }
        objects.put(UUID_KEY, settings.uuid.clone().into()).await.map_err(failed)?;
        warn_of(&settings).await;
    }
    save(store.as_ref(), settings, None).await
}

/// Is the place for objects looked at?
fn is_checked() -> bool {
    std::env::var_os("JFS_NO_CHECK_OBJECT_STORAGE").is_none()
}

/// Says what is odd about the buckets of a new volume, as far as the store tells.
async fn warn_of(s: &Settings) {
    for warning in bucket_warnings(&store_config(s)).await.unwrap_or_default() {
        tracing::warn!("{warning}");
    }
}

/// Says where objects will be: the address as it was understood.
fn tell_place(s: &Settings, objects: &dyn ObjectStore) {
    let plain = s.storage == "s3" && !s.bucket.contains(['/', '.', ':']);
    let why = if plain { " (Amazon S3, because --bucket is a plain name without --endpoint)" } else { "" };
    tracing::info!("Objects: {}{why}", objects.describe());
}

/// Are there objects below the prefix? Without the right to list nobody can know, and two volumes in one place would overwrite
/// each other's objects.
async fn is_in_use(objects: &dyn ObjectStore, failed: impl Fn(&ObjectError) -> Failure) -> Result<bool> {
    has_other_objects(objects).await.map_err(|e| {
        let failure = failed(&e);
        match e {
            ObjectError::AccessDenied(_) => Failure::new(format!(
                "{}; the listing tells whether another volume is there: if you know that none is, use --force",
                failure.text
            )),
            _ => failure,
        }
    })
}

/// Tries the object store if its address or a key has changed, unless `--force`.
pub async fn check_storage(args: &Args, old: &Settings, new: &Settings) -> Result<()> {
    if object_place(old) == object_place(new) || args.get(FORCE) {
        return Ok(());
    }
    let objects = storage(new, args.find(ENCRYPT_PASSPHRASE), Bounds::interactive(), None)?;
    tell_place(new, objects.as_ref());
    let shards = new.shard_count();
    let failed = |e| {
        Failure::new(format!(
            "{}: {e}; nothing was changed, --force changes it all the same",
            objects.describe()
        ))
    };
    probe(objects.as_ref(), &new.name, shards).await.map_err(failed)?;
    match args.find(TIER).and_then(|tier| u8::try_from(tier).ok()) {
        Some(tier) => try_tier(objects.as_ref(), &new.name, shards, tier).await.map_err(failed),
        None => Ok(()),
    }
}

fn new_settings(args: &Args, name: &str) -> Result<Settings> {
    let kind = args.get(STORAGE);
    if kind != "file" && !args.has(BUCKET) {
        return Err(Failure::new(format!(
            "--storage {kind} needs --bucket: the name of a bucket or its URL"
        )));
    }
    // One that is named is set below.
    let bucket = if args.has(BUCKET) {
        String::new()
    } else {
        let dir = super::up::default_bucket()?;
        stored_bucket(kind, &shown(&dir), &dir)?
    };
    let mut s = Settings::new(name, &uuid::Uuid::new_v4().to_string(), kind, &bucket);
    s.block_size_kib = round_block_size(args.get(BLOCK_SIZE)) >> 10;
    s.compression = args.get(COMPRESS).to_owned();
    s.compression()?;
    s.hash_prefix = args.get(HASH_PREFIX);
    s.shards = u32::try_from(args.get(SHARDS)).unwrap_or(u32::MAX);
    config::keys(args, false).put_into(&mut s);
    if let Some(path) = args.find(ENCRYPT_RSA_KEY) {
        s.encrypt_key = ciderfs_bounded::read_text(path, ciderfs_bounded::KEY_FILE_MAX)
            .map_err(|e| Failure::new(format!("private key {}: {e}", shown(path))))?
            .into();
    }
    if let Some(algo) = args.find(ENCRYPT_ALGO) {
        s.encrypt_algo = algo.to_owned();
    }
    change(args, &mut s)?;
    s.set_first_class(args.find(STORAGE_CLASS), args.find(TAG))?;
    s.validate()?;
    Ok(s)
}

/// Applies the flags that may change at any time.
pub fn change(args: &Args, s: &mut Settings) -> Result<()> {
    if let Some(v) = args.find(STORAGE) {
        s.storage = v.to_owned();
    }
    match (args.find(BUCKET), args.find(ENDPOINT)) {
        // As stored: nothing is changed, whatever it says.
        (Some((v, _)), None) if v == s.bucket => {}
        (Some((v, dir)), endpoint) => {
            s.bucket = stored_bucket(&s.storage, &named_bucket(&s.storage, endpoint, v)?, dir)?;
            // A region that was there without being asked for completes an address that tells none. Every `format` of the same
            // volume takes it for the same one.
            if args.command() == Command::Format && !names_region(&s.storage, &s.bucket) {
                s.bucket = with_region(&s.storage, &s.bucket, args.find(REGION).unwrap_or_default());
            }
        }
        (None, Some(_)) => {
            return Err(Failure::new("--endpoint has no effect without --bucket: name the bucket, too"));
        }
        (None, None) => {}
    }
    if let Some(region) = config::explicit(args, REGION) {
        s.bucket = with_region(&s.storage, &s.bucket, region);
    }
    config::keys(args, true).put_into(s);
    let acls = args.find(ENABLE_ACL);
    if acls == Some(true) && !s.enable_acl {
        s.enable_acl = true;
        s.raise_min_client(version::MIN_ACL);
    }
    if acls == Some(false) && s.enable_acl {
        return Err(Failure::new("ACLs cannot be turned off again"));
    }
    s.capacity = args.find(CAPACITY).unwrap_or(s.capacity);
    s.inodes = args.find(INODES).unwrap_or(s.inodes);
    s.dir_stats = args.find(DIR_STATS).unwrap_or(s.dir_stats);
    s.user_group_quota = args.find(USER_GROUP_QUOTA).unwrap_or(s.user_group_quota);
    let version = |text: &str| {
        let is_version = version::Version::parse(text).is_some();
        is_version
            .then(|| text.to_owned())
            .ok_or_else(|| Failure::new(format!("no version: {text:?}; write it as 1.3.0")))
    };
    let tier = args.find(TIER).and_then(|tier| u8::try_from(tier).ok());
    let (class, tag) = (args.find(STORAGE_CLASS), args.find(TAG));
    if tier.is_some() || class.is_some() || tag.is_some() {
        s.set_tier(tier, class, tag)?;
    }
    let limits = (args.find(UPLOAD_LIMIT), args.find(DOWNLOAD_LIMIT));
    if limits != (None, None) {
        s.set_limits(limits.0, limits.1);
    }
    if let Some(oldest) = args.find(MIN_CLIENT_VERSION) {
        s.min_client_version = version(oldest)?;
    }
    if let Some(newest) = args.find(MAX_CLIENT_VERSION) {
        s.max_client_version = version(newest)?;
    }
    if !args.get(FORCE) {
        version::check_client(&s.min_client_version, &s.max_client_version).map_err(|e| {
            Failure::new(format!("{e}: this client would be kept out, too; --force does it all the same"))
        })?;
    }
    if let Some(days) = args.find(TRASH_DAYS) {
        s.trash_days = u32::try_from(days).unwrap_or(u32::MAX);
    }
    Ok(())
}

/// Writes settings, secrets encrypted.
pub async fn save(
    store: &dyn ciderfs_meta::store::Store,
    mut new: Settings,
    old: Option<&Settings>,
) -> Result<()> {
    if new.has_secrets() {
        let nonce = || -> [u8; 12] {
            // The first and last six bytes of a version 4 UUID hold no fixed bits.
            let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
            std::array::from_fn(|i| if i < 6 { a.as_bytes()[i] } else { b.as_bytes()[i + 4] })
        };
        new.encrypt_secrets([nonce(), nonce(), nonce()])?;
    }
    Meta::write_settings(store, &new, old).await?;
    tracing::info!("Volume is formatted as {}", new.to_display_json()?);
    Ok(())
}
