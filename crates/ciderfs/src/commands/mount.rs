//! `ciderfs mount META-URL MOUNTPOINT`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_block::{BlockConfig, BlockStore};
use ciderfs_format::{Settings, shown, shown_address};
use ciderfs_meta::{Meta, MetaConfig};
use ciderfs_mount::{MountedFs, XattrOptions};
use ciderfs_object::layers::{Limits, Replaceable};
use ciderfs_object::{ObjectError, ObjectStore, has_checksums, named_bucket, probe};
use ciderfs_vfs::{Metrics, Vfs, VfsConfig};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::Args;
use crate::commands::{format, fstab, mount_options, mountpoint as place};
use crate::failure::{EXIT_STOP, Failure, Result};
use crate::opening::{self, Bounds, Purpose};
use crate::{daemon, http, memory, places};

/// After a signal, the mount may go on flushing as long as this is not without effect for so long.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// The same when everything is stored and only the metadata engine does not answer: it ends the session by itself later.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);
/// A session that was being registered when a signal came has this long to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(2);
/// Between reports while it does.
const REPORT: Duration = Duration::from_secs(2);
/// How often the serving loop looks whether it was unmounted from outside.
const POLL: Duration = Duration::from_millis(100);

/// Runs the command.
pub fn run(args: &Args, argv: &[OsString]) -> Result<()> {
    args.exactly("mount", &["META-URL", "MOUNTPOINT"])?;
    if args.is_address(1) {
        return Err(Failure::new("the mount point is an address: write META-URL before MOUNTPOINT"));
    }
    if args.is_on("background") && !args.is_on("foreground") && !daemon::is_daemon() {
        if is_mounted(args)? {
            fstab::enter(args);
            return Ok(());
        }
        daemon::start(argv, &log_path(args)?)?;
        fstab::enter(args);
        return Ok(());
    }
    if daemon::is_daemon() {
        daemon::detach();
    }
    serve(args, None)
}

/// Whether the volume is mounted there already, which is what was asked for. Asks the engine only if something is there.
fn is_mounted(args: &Args) -> Result<bool> {
    let Some(occupant) = place::prepare(args.place(1))? else { return Ok(false) };
    let settings = tokio::runtime::Runtime::new()?.block_on(async {
        let store = opening::meta(args.place(0), Purpose::Look).await?;
        let meta = Meta::load(store, MetaConfig { read_only: true, ..MetaConfig::default() }).await?;
        Ok::<_, Failure>(meta.settings())
    })?;
    println!("{}", occupant.must_be(&settings, subdir(args).as_deref())?);
    Ok(true)
}

/// The directory of the volume that is mounted, as it is told.
fn subdir(args: &Args) -> Option<String> {
    args.path("subdir").map(|dir| shown(dir).into_owned())
}

/// Says that nothing needs to be done.
fn already(text: &str, log: Option<&Path>) {
    tracing::info!("{text}");
    match log {
        Some(log) => daemon::ready(text, log),
        None => println!("{text}"),
    }
}

fn log_path(args: &Args) -> Result<PathBuf> {
    match args.path("log") {
        Some(path) => Ok(path.to_owned()),
        None => places::default_place("/var/log/ciderfs.log", ".ciderfs/ciderfs.log", "--log FILE"),
    }
}

/// How long a thread for blocking work lives without any. Whatever there is to do wakes another one of those that wait: with
/// a longer time a little work now and then keeps all of them alive.
const IDLE_THREAD: Duration = Duration::from_secs(1);

/// Mounts and serves until unmounted or told to stop.
pub fn serve(args: &Args, banner: Option<&str>) -> Result<()> {
    let (url, mountpoint) = (args.place(0), args.place(1));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("ciderfs")
        .thread_keep_alive(IDLE_THREAD)
        .build()?;
    let result = runtime.block_on(serve_async(args, url, mountpoint, banner));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve_async(args: &Args, url: &Path, mountpoint: &Path, banner: Option<&str>) -> Result<()> {
    let log = if daemon::is_daemon() { Some(log_path(args)?) } else { None };
    if let Some(log) = &log {
        daemon::follow_log(log.clone())?;
    }
    let occupant = place::prepare(mountpoint)?;
    let mut options = mount_options::serve_options(args)?;
    let read_only = options.mount.read_only;
    tracing::info!("Meta address: {}", shown_address(url));
    let store = opening::meta(url, if read_only { Purpose::Look } else { Purpose::Change }).await?;
    let mount_point = shown(mountpoint).into_owned();
    let meta = Meta::load(
        store,
        MetaConfig {
            read_only,
            subdir: args.path("subdir").map(|p| p.as_os_str().as_bytes().to_vec()),
            heartbeat: args.duration("heartbeat", Duration::from_secs(12))?,
            no_bgjob: args.is_on("no-bgjob"),
            max_deletes: args.int("max-deletes", 10) as usize,
            skip_dir_mtime: args.duration("skip-dir-mtime", Duration::ZERO)?,
            xattr_valid: options.attr_valid,
            atime_mode: mount_options::atime_mode(args)?,
            dir_atime: mount_options::dir_atime(args),
            prefix_internal: args.is_on("prefix-internal"),
            mount_point: mount_point.clone(),
            ..MetaConfig::default()
        },
    )
    .await?;
    if let Some(occupant) = occupant {
        already(&occupant.must_be(&meta.settings(), subdir(args).as_deref())?, log.as_deref());
        if !daemon::is_daemon() {
            fstab::enter(args);
        }
        return Ok(());
    }
    options.init.posix_acl = meta.has_acls();
    options.xattr = XattrOptions {
        // ACLs are attributes.
        enabled: meta.has_acls() || !args.is_off("enable-xattr"),
        capability: !args.is_off("enable-cap"),
        selinux: args.switch("enable-selinux").unwrap_or_else(has_selinux),
    };
    let mut settings = (*meta.settings()).clone();
    settings.decrypt_secrets()?;
    let place = Place::of(args, &settings)?;
    place.apply(&mut settings)?;
    let labels = HashMap::from([
        ("vol_name".to_owned(), settings.name.clone()),
        ("mp".to_owned(), mount_point.clone()),
    ]);
    let metrics = Arc::new(Metrics::new(labels)?.with_storage_class(&settings.storage_class));
    let blocks = open_blocks(args, &settings, read_only, &metrics, &meta, place).await?;
    let vfs = Vfs::new(
        Arc::clone(&meta),
        Arc::clone(&blocks),
        VfsConfig {
            max_readahead: if args.has("max-readahead") {
                Some(args.size("max-readahead", 0)?)
            } else {
                None
            },
            hide_internal: args.is_on("hide-internal"),
            prefix_internal: args.is_on("prefix-internal"),
            sort_dir: args.is_on("sort-dir"),
            attr_valid: options.attr_valid,
            config_json: config_json(&settings, &mount_point, read_only, subdir(args).as_deref())?,
            metrics,
        },
    );
    if let Some(address) = Some(args.text("metrics").unwrap_or("127.0.0.1:9567")).filter(|a| !a.is_empty()) {
        match http::serve(address, args.has("metrics"), Arc::clone(&vfs)).await {
            Ok(at) => tracing::info!("Prometheus metrics at http://{at}/metrics"),
            Err(e) => tracing::error!("no metrics endpoint at {address}: {e}"),
        }
    }
    // From the moment when the mount appears somebody may want it to end.
    let mut signals = Signals::new()?;
    tokio::select! {
        started = meta.start_session() => started?,
        failure = signals.end() => {
            // What was sent before is carried out before this.
            let _ = tokio::time::timeout(CANCEL_PATIENCE, meta.close_session()).await;
            return Err(failure);
        }
    }
    let served = {
        let (vfs, path) = (Arc::clone(&vfs), mountpoint.to_owned());
        let mut options = options;
        options.mount.fsname = format!("JuiceFS:{}", settings.name);
        let handle = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            // Another command may have mounted meanwhile. Mounting is one step with looking.
            let turn = place::lock(&path)?;
            Ok(match place::look(&path, &turn)? {
                Some(occupant) => Err(occupant),
                None => Ok(ciderfs_mount::serve(vfs, &path, &options, handle)
                    .map_err(|e| Failure::new(format!("cannot mount at {}: {e}", shown(&path))))?),
            })
        })
        .await?
        .and_then(|served: std::result::Result<_, place::Occupant>| match served {
            Ok(mounted) => Ok(Some(mounted)),
            Err(occupant) => {
                already(&occupant.must_be(&meta.settings(), subdir(args).as_deref())?, log.as_deref());
                Ok(None)
            }
        })
    };
    let mut mounted = match served {
        Ok(Some(mounted)) => mounted,
        not_mounted => {
            if let Err(e) = meta.close_session().await {
                tracing::warn!("the session is left to other clients: {e}");
            }
            return not_mounted.map(drop);
        }
    };
    memory::keep_small(&blocks, mounted.monitor())?;
    // One line, whatever the name is.
    let ready = format!("OK, {} is ready at {mountpoint:?}", settings.name);
    tracing::info!("{ready}");
    match (banner, &log) {
        (Some(text), _) => println!("{ready}\n{text}"),
        (None, Some(log)) => daemon::ready(&ready, log),
        (None, None) => {}
    }
    if !daemon::is_daemon() {
        fstab::enter(args);
    }
    let stopped = wait(&mut mounted, &meta, &mut signals).await?;
    let ending = Arc::clone(&meta);
    let end = async {
        tokio::task::spawn_blocking(move || mounted.join()).await??;
        vfs.shutdown().await;
        meta.close_session().await?;
        Ok::<(), Failure>(())
    };
    let ended = tokio::select! {
        ended = end => Some(ended),
        () = stuck(&blocks, &ending) => None,
        // Whoever asks again does not want to wait.
        failure = signals.end() => return Err(failure),
    };
    match (ended, stopped) {
        (None, _) => Err(Failure { text: "the mount did not end in time".into(), code: EXIT_STOP }),
        (Some(result), None) => result,
        (Some(_), Some(reason)) => Err(Failure { text: reason, code: EXIT_STOP }),
    }
}

/// Says now and then how much is still to be stored. Returns when that has not become less for too long, or when all is stored
/// and the metadata engine does not answer.
async fn stuck(blocks: &BlockStore, meta: &Meta) {
    let (mut least, mut answers, mut since) = (u64::MAX, 0, Instant::now());
    loop {
        tokio::time::sleep(REPORT).await;
        let left = blocks.stats().buffer_used;
        if left > 0 {
            tracing::info!("unmounting: {} KiB are still to be stored", left.div_ceil(1024));
        }
        let now = meta.progress();
        if left < least || (left == 0 && answers != now) {
            (least, answers, since) = (left, now, Instant::now());
        }
        if since.elapsed() >= if left > 0 { STOP_PATIENCE } else { ENGINE_PATIENCE } {
            return;
        }
    }
}

/// What ends a mount, or would.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// From here on they do not end the process by themselves.
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one that ends the program.
    async fn end(&mut self) -> Failure {
        tokio::select! {
            _ = self.term.recv() => Failure::signal(libc::SIGTERM),
            _ = self.int.recv() => Failure::signal(libc::SIGINT),
        }
    }
}

/// Waits until the file system is unmounted, by whomever. Returns why the mount had to stop by itself, if it had.
async fn wait(mounted: &mut MountedFs, meta: &Meta, signals: &mut Signals) -> Result<Option<String>> {
    let Signals { term, int, hup } = signals;
    let mut fatal = meta.fatal();
    let mut reason = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = hup.recv() => continue,
            _ = term.recv() => unmount(mounted),
            _ = int.recv() => unmount(mounted),
            changed = fatal.wait_for(Option::is_some), if reason.is_none() => {
                if let Ok(why) = changed {
                    reason = why.clone();
                }
                unmount(mounted);
            }
        }
        if mounted.is_finished() {
            return Ok(reason);
        }
    }
}

fn unmount(mounted: &mut MountedFs) {
    tracing::info!("unmounting");
    if mounted.unmount(false).is_err() {
        // Somebody still uses it: it disappears for everybody else, and ends with its last user.
        if let Err(e) = mounted.unmount(true) {
            tracing::error!("cannot unmount: {e}");
        }
    }
}

/// Where the command line says the objects are, whatever the settings say.
#[derive(Clone)]
struct Place {
    storage: Option<String>,
    bucket: Option<(String, PathBuf)>,
}

impl Place {
    fn of(args: &Args, settings: &Settings) -> Result<Self> {
        let storage = args.text("storage").unwrap_or(&settings.storage);
        let named = |(text, dir): (&str, &Path)| -> Result<_> {
            let text =
                if text == settings.bucket { text.to_owned() } else { named_bucket(storage, None, text)? };
            Ok((text, dir.to_owned()))
        };
        let bucket = args.bucket().map(named).transpose()?;
        Ok(Self { storage: args.text("storage").map(str::to_owned), bucket })
    }

    fn apply(&self, settings: &mut Settings) -> Result<()> {
        if let Some(v) = &self.storage {
            settings.storage.clone_from(v);
        }
        if let Some((text, dir)) = &self.bucket {
            settings.bucket = format::stored_bucket(&settings.storage, text, dir)?;
        }
        Ok(())
    }
}

/// Opens the object store anew when its address or a key in the settings changes.
fn follow_settings(
    meta: &Meta,
    now: Settings,
    place: Place,
    objects: Arc<Replaceable>,
    open: impl Fn(&Settings) -> Result<Arc<dyn ObjectStore>> + Send + Sync + 'static,
) {
    let address = format::object_place;
    let current = std::sync::Mutex::new(address(&now));
    meta.on_settings(Box::new(move |new| {
        let mut new = (**new).clone();
        let opened = new.decrypt_secrets().map_err(Failure::from).and_then(|()| {
            place.apply(&mut new)?;
            let Ok(mut current) = current.lock() else { return Ok(()) };
            if *current != address(&new) {
                objects.replace(open(&new)?);
                *current = address(&new);
                tracing::info!("objects are now at {}", objects.describe());
            }
            Ok(())
        });
        if let Err(e) = opened {
            tracing::error!(
                "the new settings of the object store cannot be used, the old ones stay: {}",
                e.text
            );
        }
    }));
}

/// Says so where `--verify-reads` can verify little.
fn tell_what_is_verified(settings: &Settings) {
    if !has_checksums(&settings.storage, &settings.bucket) && settings.encrypt_key.is_empty() {
        tracing::warn!(
            "--verify-reads: objects of this volume have no checksum (only S3 without disable-checksum and encrypted volumes \
             have one): of what is read, no more than length and compressed form can be verified"
        );
    }
}

async fn open_blocks(
    args: &Args,
    settings: &Settings,
    read_only: bool,
    metrics: &Arc<Metrics>,
    meta: &Meta,
    place: Place,
) -> Result<Arc<BlockStore>> {
    let max_uploads = args.int("max-uploads", 20).max(1) as usize;
    let max_downloads = args.int("max-downloads", 200).max(1) as usize;
    let minute = Duration::from_secs(60);
    let bounds = Bounds {
        limits: Limits {
            max_uploads,
            max_downloads,
            get_timeout: args.duration("get-timeout", minute)?,
            put_timeout: args.duration("put-timeout", minute)?,
            ..Limits::default()
        },
        retries: u32::try_from(args.int("io-retries", 10)).unwrap_or(u32::MAX),
    };
    let counted = Arc::clone(metrics);
    let observer: opening::Observer = Arc::new(move |r: ciderfs_object::layers::Request<'_>| {
        let failed = r.error.filter(|e| !matches!(e, ObjectError::NotFound(_)));
        counted.object(r.method, r.took, r.bytes, failed.is_some());
        if matches!(failed, Some(ObjectError::Throttled(_))) {
            counted.object_throttled();
        }
    });
    // Somebody else has stored it so, and it is read as the official client reads it; but not in silence.
    if let Err(e) = named_bucket(&settings.storage, None, &settings.bucket) {
        tracing::warn!("the address in the settings: {e}");
    }
    let first = opening::storage(settings, bounds, Some(Arc::clone(&observer)))?;
    let objects = Arc::new(Replaceable::new(first));
    follow_settings(meta, settings.clone(), place, Arc::clone(&objects), move |s| {
        opening::storage(s, bounds, Some(Arc::clone(&observer)))
    });
    if args.is_on("verify-reads") {
        tell_what_is_verified(settings);
    }
    if args.is_on("check-storage") && !read_only {
        let failed = |e| super::format::unusable(objects.as_ref(), &e);
        probe(objects.as_ref(), &settings.name, settings.shard_count()).await.map_err(failed)?;
    }
    let cache_dirs = cache_dirs(args)?.iter().map(|dir| dir.join(&settings.uuid)).collect();
    let config = BlockConfig {
        block_size: settings.block_size(),
        compression: settings.compression()?,
        hash_prefix: settings.hash_prefix,
        cache_dirs,
        cache_size: args.size("cache-size", 100 << 30)?,
        free_space_ratio: args.share("free-space-ratio", 0.1),
        cache_large_write: args.is_on("cache-large-write"),
        cache_partial_only: args.is_on("cache-partial-only"),
        buffer_size: args.size("buffer-size", 300 << 20)?,
        prefetch: args.int("prefetch", 1) as usize,
        max_uploads,
        max_downloads,
        read_only,
        verify_reads: args.is_on("verify-reads"),
        ..BlockConfig::default()
    };
    Ok(BlockStore::new(objects, config)?)
}

/// The directories of the disk cache that are there or can be made; none for a cache in memory.
fn cache_dirs(args: &Args) -> Result<Vec<PathBuf>> {
    let Some(entries) = args.dirs("cache-dir") else {
        let flag = "--cache-dir DIR, or --cache-dir memory";
        return Ok(vec![places::default_place("/var/cache/ciderfs", ".cache/ciderfs", flag)?]);
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let found = entry.expand();
        if found.is_empty() {
            let pattern = OsString::from_vec(entry.text());
            tracing::warn!("--cache-dir {}: there is no such directory", shown(&pattern));
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

fn config_json(
    settings: &Settings,
    mount_point: &str,
    read_only: bool,
    subdir: Option<&str>,
) -> Result<serde_json::Value> {
    let format: serde_json::Value = serde_json::from_str(&settings.to_display_json()?)?;
    Ok(serde_json::json!({
        "Meta": { "ReadOnly": read_only, "Subdir": subdir.unwrap_or_default() },
        "Format": format,
        "Mountpoint": mount_point,
        "Version": ciderfs_format::version::presented_version(env!("CARGO_PKG_VERSION")),
        "Pid": std::process::id(),
        // No hand-over between processes: an official mount command then mounts on top instead of asking for it.
        "CommPath": "",
    }))
}

/// Does the kernel run SELinux? Its file system is there as soon as it does, mounted or not.
fn has_selinux() -> bool {
    std::fs::read_to_string("/proc/filesystems").is_ok_and(|all| all.contains("selinuxfs"))
}
