//! `ciderfs format META-URL NAME`.

use std::path::Path;

use ciderfs_format::settings::{round_block_size, validate_name};
use ciderfs_format::{Secret, Settings, shown, shown_address, version};
use ciderfs_meta::Meta;
use ciderfs_object::{ObjectError, ObjectStore, has_other_objects, named_bucket, prepare, probe};

use crate::args::Args;
use crate::failure::{Failure, Result};
use crate::opening::{self, Bounds};

/// Flags that an existing volume cannot change.
const IMMUTABLE: &[&str] =
    &["block-size", "compress", "encrypt-rsa-key", "encrypt-algo", "hash-prefix", "shards"];

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly("format", &["META-URL", "NAME"])?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(format(args, args.place(0), args.word(1)))
}

/// Creates the volume, or updates its settings.
pub async fn format(args: &Args, url: &Path, name: &str) -> Result<()> {
    validate_name(name)?;
    tracing::info!("Meta address: {}", shown_address(url));
    let store = opening::meta(url, opening::Purpose::Create).await?;
    if let Some(old) = Meta::read_settings(store.as_ref()).await? {
        if args.is_on("no-update") {
            return Ok(());
        }
        if old.name != name {
            return Err(Failure::new(format!("cannot update volume name from {} to {name}", old.name)));
        }
        for flag in IMMUTABLE.iter().filter(|f| args.has(f)) {
            tracing::warn!("Flag {flag} is ignored since it cannot be updated");
        }
        let mut new = old.clone();
        new.decrypt_secrets()?;
        let before = new.clone();
        change(args, &mut new)?;
        check_storage(args, &before, &new).await?;
        return save(store.as_ref(), new, Some(&old)).await;
    }
    let settings = new_settings(args, name)?;
    let objects = opening::storage(&settings, Bounds::interactive(), None)?;
    tell_place(&settings, objects.as_ref());
    if std::env::var_os("JFS_NO_CHECK_OBJECT_STORAGE").is_none() {
        let failed = |e: ObjectError| unusable(objects.as_ref(), &e);
        prepare(objects.as_ref(), &settings.name, settings.shard_count()).await.map_err(failed)?;
        if !args.is_on("force") && is_in_use(objects.as_ref()).await? {
            return Err(Failure::new(format!(
                "{} is not empty: choose another name, clean it up, or use --force",
                objects.describe()
            )));
        }
        objects.put("juicefs_uuid", settings.uuid.clone().into()).await.map_err(failed)?;
    }
    save(store.as_ref(), settings, None).await
}

/// Says where objects will be: the address as it was understood.
fn tell_place(s: &Settings, objects: &dyn ObjectStore) {
    let plain = s.storage == "s3" && !s.bucket.contains(['/', '.', ':']);
    let why = if plain { " (Amazon S3, because --bucket is a plain name without --endpoint)" } else { "" };
    tracing::info!("Objects: {}{why}", objects.describe());
}

/// What a store answered when it was tried. The address is said once.
pub fn unusable(objects: &dyn ObjectStore, e: &ObjectError) -> Failure {
    let hint = if matches!(e, ObjectError::Timeout(_)) { "; check --bucket and the network" } else { "" };
    Failure::new(format!("{}: {e}{hint}", objects.describe()))
}

/// Are there objects below the prefix? Without the right to list nobody can know, and two volumes in one place would overwrite
/// each other's objects.
async fn is_in_use(objects: &dyn ObjectStore) -> Result<bool> {
    has_other_objects(objects).await.map_err(|e| {
        let failure = unusable(objects, &e);
        match e {
            ObjectError::AccessDenied(_) => Failure::new(format!(
                "{}; the listing tells whether another volume is there: if you know that none is, use --force",
                failure.text
            )),
            _ => failure,
        }
    })
}

/// All that says where objects are and who may use them.
pub fn object_place(s: &Settings) -> ([String; 3], [Secret; 2]) {
    (
        [&s.storage, &s.bucket, &s.access_key].map(String::clone),
        [&s.secret_key, &s.session_token].map(Secret::clone),
    )
}

/// Tries the object store if its address or a key has changed, unless `--force`.
pub async fn check_storage(args: &Args, old: &Settings, new: &Settings) -> Result<()> {
    if object_place(old) == object_place(new) || args.is_on("force") {
        return Ok(());
    }
    let objects = opening::storage(new, Bounds::interactive(), None)?;
    tell_place(new, objects.as_ref());
    probe(objects.as_ref(), &new.name, new.shard_count()).await.map_err(|e| {
        Failure::new(format!(
            "{}: {e}; nothing was changed, --force changes it all the same",
            objects.describe()
        ))
    })
}

fn new_settings(args: &Args, name: &str) -> Result<Settings> {
    let storage = args.text("storage").unwrap_or("file");
    if storage != "file" && !args.has("bucket") {
        return Err(Failure::new(format!(
            "--storage {storage} needs --bucket: the name of a bucket or its URL"
        )));
    }
    // One that is named is set below.
    let bucket = if args.has("bucket") {
        String::new()
    } else {
        let dir = super::up::default_bucket()?;
        stored_bucket(storage, &shown(&dir), &dir)?
    };
    let mut s = Settings::new(name, &uuid::Uuid::new_v4().to_string(), storage, &bucket);
    s.block_size_kib = round_block_size(args.size("block-size", 4 << 20)?) >> 10;
    s.compression = args.text("compress").unwrap_or("none").to_owned();
    s.compression()?;
    s.hash_prefix = args.is_on("hash-prefix");
    s.shards = u32::try_from(args.int("shards", 0)).unwrap_or(u32::MAX);
    let env = |name: &str| std::env::var(name).unwrap_or_default();
    (s.access_key, s.secret_key, s.session_token) =
        (env("ACCESS_KEY"), env("SECRET_KEY").into(), env("SESSION_TOKEN").into());
    if let Some(path) = args.path("encrypt-rsa-key") {
        s.encrypt_key = ciderfs_bounded::read_text(path, ciderfs_bounded::KEY_FILE_MAX)
            .map_err(|e| Failure::new(format!("private key {}: {e}", shown(path))))?
            .into();
    }
    if let Some(algo) = args.text("encrypt-algo") {
        s.encrypt_algo = algo.to_owned();
    }
    change(args, &mut s)?;
    s.validate()?;
    Ok(s)
}

/// The bucket as it is stored: a directory absolute and with a slash at the end, as every client expects it. `dir` is what
/// the text means as a directory.
pub fn stored_bucket(storage: &str, bucket: &str, dir: &Path) -> Result<String> {
    if !storage.eq_ignore_ascii_case("file") {
        return Ok(bucket.to_owned());
    }
    // Its login would become the name of a directory, which everybody is told.
    if bucket.contains("://") && !bucket.starts_with(['/', '.']) {
        return Err(Failure::new(
            "--bucket is the address of a service: say --storage s3 or --storage minio, or name a directory",
        ));
    }
    // Settings are a document of text.
    let dir = dir.to_str().ok_or_else(|| {
        Failure::new(format!(
            "--bucket: the settings of a volume cannot hold {}, which is not UTF-8; choose another directory",
            shown(dir)
        ))
    })?;
    Ok(format!("{}/", dir.trim_end_matches('/')))
}

/// Applies the flags that may change at any time.
pub fn change(args: &Args, s: &mut Settings) -> Result<()> {
    if let Some(v) = args.text("storage") {
        s.storage = v.to_owned();
    }
    match (args.bucket(), args.text("endpoint")) {
        // As stored: nothing is changed, whatever it says.
        (Some((v, _)), None) if v == s.bucket => {}
        (Some((v, dir)), endpoint) => {
            s.bucket = stored_bucket(&s.storage, &named_bucket(&s.storage, endpoint, v)?, dir)?;
        }
        (None, Some(_)) => {
            return Err(Failure::new("--endpoint has no effect without --bucket: name the bucket, too"));
        }
        (None, None) => {}
    }
    if let Some(v) = args.text("access-key") {
        s.access_key = v.to_owned();
    }
    if let Some(v) = args.secret("secret-key") {
        s.secret_key = v.clone();
    }
    if let Some(v) = args.secret("session-token") {
        s.session_token = v.clone();
    }
    if args.is_on("enable-acl") && !s.enable_acl {
        s.enable_acl = true;
        s.raise_min_client(version::MIN_ACL);
    }
    if args.is_off("enable-acl") && s.enable_acl {
        return Err(Failure::new("ACLs cannot be turned off again"));
    }
    if args.has("capacity") {
        s.capacity = args.size("capacity", 0)?;
    }
    s.inodes = args.int("inodes", s.inodes);
    s.dir_stats = args.switch("dir-stats").unwrap_or(s.dir_stats);
    s.user_group_quota = args.switch("user-group-quota").unwrap_or(s.user_group_quota);
    s.trash_days = u32::try_from(args.int("trash-days", u64::from(s.trash_days))).unwrap_or(u32::MAX);
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
