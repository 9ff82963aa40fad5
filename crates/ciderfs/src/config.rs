//! Configuration of the parts, out of what the command line says.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::Arc;

use ciderfs_block::{BlockConfig, CacheMode};
use ciderfs_format::{Settings, shown};
use ciderfs_meta::MetaConfig;
use ciderfs_meta::store::Store;
use ciderfs_mount::ServeOptions;
use ciderfs_object::layers::Limits;
use ciderfs_vfs::{Metrics, OpenCache, VfsConfig, custom_labels};
use ciderfs_volume::{Bounds, Engine, Keys, Override, Purpose, VolumeConfig};

use crate::cli::args::Args;
use crate::cli::flag::{Flag, Take};
use crate::cli::places;
use crate::cli::table::{
    ACCESS_KEY, BUCKET, BUFFER_SIZE, CACHE_DIR, CACHE_EVICTION, CACHE_EXPIRE, CACHE_ITEMS, CACHE_LARGE_WRITE,
    CACHE_MODE, CACHE_PARTIAL_ONLY, CACHE_SIZE, CHECK_STORAGE, CUSTOM_LABELS, DOWNLOAD_LIMIT,
    ENCRYPT_PASSPHRASE, EXISTING_SUBDIR, FREE_SPACE_RATIO, GET_TIMEOUT, HEARTBEAT, HIDE_INTERNAL, IO_RETRIES,
    MAX_DELETES, MAX_DOWNLOADS, MAX_READAHEAD, MAX_UPLOADS, META_PASSWORD, NETWORK_INTERFACES, NO_BGJOB,
    OPEN_CACHE, OPEN_CACHE_LIMIT, PREFETCH, PREFIX_INTERNAL, PUT_TIMEOUT, REGION, SECRET_KEY, SESSION_TOKEN,
    SKIP_DIR_MTIME, SORT_DIR, STORAGE, STORAGE_CLASS, SUBDIR, TAG, UPLOAD_LIMIT, VERIFY_READS,
};
use crate::commands::mount_options;
use crate::failure::{Failure, Result};
use crate::supervise::worker;

/// The engine whose address is an argument, opened.
pub async fn engine(args: &Args, index: usize, purpose: Purpose) -> Result<Arc<dyn Store>> {
    Ok(engine_at(args, index).open(purpose).await?)
}

/// The engine whose address is an argument.
pub fn engine_at(args: &Args, index: usize) -> Engine<'_> {
    Engine { address: args.place(index).as_os_str(), password: args.find(META_PASSWORD).cloned() }
}

/// The directory of the volume that is mounted, as it is told.
pub fn subdir(args: &Args) -> Option<String> {
    args.find(SUBDIR).map(|dir| shown(dir).into_owned())
}

/// How a mount opens the volume whose address is the first argument.
pub fn volume(args: &Args, mount_point: &OsStr, options: &ServeOptions) -> Result<VolumeConfig> {
    let limits = Limits {
        max_uploads: count(args.get(MAX_UPLOADS)).max(1),
        max_downloads: count(args.get(MAX_DOWNLOADS)).max(1),
        get_timeout: args.get(GET_TIMEOUT),
        put_timeout: args.get(PUT_TIMEOUT),
        ..Limits::default()
    };
    Ok(VolumeConfig {
        address: args.place(0).into(),
        password: args.find(META_PASSWORD).cloned(),
        meta: MetaConfig {
            read_only: options.mount.read_only,
            subdir: args.find(SUBDIR).map(|dir| dir.as_os_str().as_bytes().to_vec()),
            existing_subdir: args.get(EXISTING_SUBDIR),
            heartbeat: args.get(HEARTBEAT),
            no_bgjob: args.get(NO_BGJOB),
            max_deletes: count(args.get(MAX_DELETES)),
            skip_dir_mtime: args.get(SKIP_DIR_MTIME),
            xattr_valid: options.attr_valid,
            atime_mode: mount_options::atime_mode(args)?,
            dir_atime: mount_options::dir_atime(args),
            prefix_internal: args.get(PREFIX_INTERNAL),
            network_interfaces: interfaces(args),
            mount_point: shown(mount_point).into_owned(),
            ..MetaConfig::default()
        },
        storage: storage(args),
        passphrase: args.find(ENCRYPT_PASSPHRASE).cloned(),
        bounds: Bounds { limits, retries: u32::try_from(args.get(IO_RETRIES)).unwrap_or(u32::MAX) },
        probe: args.get(CHECK_STORAGE),
        blocks: blocks(args)?,
    })
}

/// What this client does otherwise than the settings of the volume say.
fn storage(args: &Args) -> Override {
    Override {
        storage: args.find(STORAGE).map(str::to_owned),
        bucket: args.find(BUCKET).map(|(text, dir)| (text.to_owned(), dir.to_owned())),
        region: explicit(args, REGION).map(str::to_owned),
        keys: keys(args, true),
        // Keys belong together: those of the environment do not complete others.
        other_keys: if has_keys(args) { Keys::default() } else { keys(args, false) },
        storage_class: args.find(STORAGE_CLASS).map(str::to_owned),
        tag: args.find(TAG).map(str::to_owned),
        upload_limit: args.find(UPLOAD_LIMIT),
        download_limit: args.find(DOWNLOAD_LIMIT),
    }
}

/// The keys that were asked for, or those that were there anyway.
pub fn keys(args: &Args, asked_for: bool) -> Keys {
    fn taken<T: Take>(args: &Args, flag: Flag<T>, asked_for: bool) -> Option<T::Out<'_>> {
        args.find(flag).filter(|_| args.is_explicit(flag) == asked_for)
    }
    Keys {
        access_key: taken(args, ACCESS_KEY, asked_for).map(str::to_owned),
        secret_key: taken(args, SECRET_KEY, asked_for).cloned(),
        session_token: taken(args, SESSION_TOKEN, asked_for).cloned(),
    }
}

/// Was a key asked for?
fn has_keys(args: &Args) -> bool {
    args.is_explicit(ACCESS_KEY) || args.is_explicit(SECRET_KEY) || args.is_explicit(SESSION_TOKEN)
}

/// A value that was asked for.
pub fn explicit<T: Take>(args: &Args, flag: Flag<T>) -> Option<T::Out<'_>> {
    args.find(flag).filter(|_| args.is_explicit(flag))
}

/// Buffers and cache.
fn blocks(args: &Args) -> Result<BlockConfig> {
    Ok(BlockConfig {
        cache_dirs: cache_dirs(args)?,
        cache_size: args.get(CACHE_SIZE),
        cache_items: args.get(CACHE_ITEMS),
        cache_mode: cache_mode(args),
        cache_expire: args.get(CACHE_EXPIRE),
        cache_eviction: args.get(CACHE_EVICTION).parse().unwrap_or_default(),
        free_space_ratio: args.get(FREE_SPACE_RATIO),
        cache_large_write: args.get(CACHE_LARGE_WRITE),
        cache_partial_only: args.get(CACHE_PARTIAL_ONLY),
        buffer_size: args.get(BUFFER_SIZE),
        prefetch: count(args.get(PREFETCH)),
        verify_reads: args.get(VERIFY_READS),
        ..BlockConfig::default()
    })
}

/// The mode of cached blocks; the table knows its range.
fn cache_mode(args: &Args) -> CacheMode {
    u32::try_from(args.get(CACHE_MODE)).ok().and_then(CacheMode::new).unwrap_or_default()
}

/// The directories of the disk cache that are there or can be made; none for a cache in memory.
pub fn cache_dirs(args: &Args) -> Result<Vec<PathBuf>> {
    let Some(entries) = args.find(CACHE_DIR) else {
        let flag = format!("--{name} DIR, or --{name} memory", name = CACHE_DIR.name());
        return Ok(vec![places::default_place("/var/cache/ciderfs", ".cache/ciderfs", &flag)?]);
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let found = entry.expand();
        if found.is_empty() {
            let pattern = OsString::from_vec(entry.text());
            tracing::warn!("--{} {}: there is no such directory", CACHE_DIR.name(), shown(&pattern));
        }
        dirs.extend(found);
    }
    if dirs.is_empty() && !entries.is_empty() {
        tracing::warn!("no disk cache: blocks are kept in memory only");
    }
    dirs.sort();
    dirs.dedup();
    Ok(dirs)
}

/// The interfaces whose addresses the session tells.
fn interfaces(args: &Args) -> Vec<String> {
    let names = args.get(NETWORK_INTERFACES).split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The metrics of a mount, with their labels.
pub fn metrics(args: &Args, settings: &Settings) -> Result<Metrics> {
    let mut labels = custom_labels(args.get(CUSTOM_LABELS))
        .map_err(|e| Failure::new(format!("--{}: {e}", CUSTOM_LABELS.name())))?;
    labels.insert("vol_name".into(), settings.name.clone());
    labels.insert("mp".into(), shown(args.place(1)).into_owned());
    Ok(Metrics::new(labels)?.with_storage_class(&settings.storage_class))
}

/// What the mount makes of a volume.
pub fn vfs(
    args: &Args,
    config_json: serde_json::Value,
    options: &ServeOptions,
    metrics: Arc<Metrics>,
) -> VfsConfig {
    VfsConfig {
        max_readahead: args.find(MAX_READAHEAD),
        hide_internal: args.get(HIDE_INTERNAL),
        prefix_internal: args.get(PREFIX_INTERNAL),
        sort_dir: args.get(SORT_DIR),
        attr_valid: options.attr_valid,
        open_cache: OpenCache { valid: args.get(OPEN_CACHE), limit: count(args.get(OPEN_CACHE_LIMIT)) },
        config_json,
        metrics,
        handover: worker::get().map(|worker| Arc::clone(&worker.state)),
    }
}

/// A number of things.
fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use ciderfs_block::Eviction;

    use super::*;
    use crate::cli::flag::Kind;

    #[test]
    fn every_policy_of_the_cache_has_its_name_in_the_table() {
        let Kind::Choice(choices) = CACHE_EVICTION.row.kind else { panic!("no choice") };
        assert_eq!(choices.len(), Eviction::ALL.len());
        assert!(Eviction::ALL.iter().all(|policy| choices.contains(&policy.name())));
        assert_eq!(CACHE_EVICTION.row.default, Eviction::default().name());
    }
}
