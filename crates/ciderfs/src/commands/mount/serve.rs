//! Mounting, and serving in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::{Settings, shown, shown_address};
use ciderfs_fuse::mount::{absolute, find_mount};
use ciderfs_mount::{MountedFs, ServeOptions, XattrOptions};
use ciderfs_object::ObjectError;
use ciderfs_vfs::{Metrics, Vfs};
use ciderfs_volume::{Observer, Volume};
use tokio::net::TcpListener;

use super::document::{self, document};
use super::follow::follow;
use super::log_path;
use super::report::Reporter;
use super::stop::{self, End, Signals};
use crate::cli::args::Args;
use crate::cli::table::{
    DISABLE_TRANSPARENT_HUGEPAGE, ENABLE_CAP, ENABLE_SELINUX, ENABLE_XATTR, GUARD, METRICS,
};
use crate::commands::mountpoint::Occupant;
use crate::commands::{fstab, mount_options, mountpoint as place};
use crate::failure::{Failure, Result};
use crate::service::manager;
use crate::supervise::worker::{self, Connection, Worker};
use crate::{config, daemon, http, memory};

/// How long a thread for blocking work lives without any. Whatever there is to do wakes another one of those that wait: with
/// a longer time a little work now and then keeps all of them alive.
const IDLE_THREAD: Duration = Duration::from_secs(1);

/// Mounts and serves until unmounted or told to stop.
pub fn serve(args: &Args, banner: Option<&str>) -> Result<()> {
    if args.get(DISABLE_TRANSPARENT_HUGEPAGE)
        && let Err(e) = memory::without_huge_pages()
    {
        tracing::warn!("huge pages stay: {e}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("ciderfs")
        .thread_keep_alive(IDLE_THREAD)
        .build()?;
    let result = runtime.block_on(serve_async(args, banner));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn serve_async(args: &Args, banner: Option<&str>) -> Result<()> {
    let mountpoint = args.place(1);
    let report = Report { args, banner, log: follow_log(args)? };
    let worker = worker::get();
    let connection = worker.and_then(Worker::take_connection);
    // A mount that this process goes on with answers nobody yet.
    let occupant = if connection.is_some() { None } else { place::prepare(mountpoint)? };
    if let Some(worker) = worker {
        worker.listen()?;
    }
    if connection.is_none() && occupant.is_none() && args.get(GUARD) {
        place::guard(mountpoint)?;
    }
    let mut options = mount_options::serve_options(args)?;
    tracing::info!("Meta address: {}", shown_address(args.place(0)));
    let config = config::volume(args, mountpoint.as_os_str(), &options)?;
    let meta = config.load().await?;
    if let Some(occupant) = occupant {
        return report.already(&occupant, &meta.settings()).await;
    }
    let metrics = Arc::new(config::metrics(args, &meta.settings())?);
    let cache = document::chunk(&config.blocks, &meta.settings());
    let volume = Volume::with(meta, config, Some(observer(&metrics))).await?;
    complete(&mut options, args, &volume);
    if connection.is_some() {
        is_of(mountpoint, &options.mount.fsname)?;
    }
    let (meta, blocks) = (Arc::clone(&volume.meta), Arc::clone(&volume.blocks));
    let mut signals = Signals::new()?;
    // Before the vfs, which notes the session for the next process.
    let lives = stop::start_session(&volume.meta, &mut signals).await?;
    let metrics_at = listen_for_metrics(args).await;
    let document = document(args, &volume, &options, cache, metrics_at.as_ref().map(|(_, at)| *at))?;
    let vfs = Vfs::new(meta, blocks, config::vfs(args, document, &options, metrics));
    serve_metrics(metrics_at.map(|(listener, _)| listener), &vfs);
    if connection.is_some() {
        let found = vfs.resume(lives).await?;
        tracing::info!(
            "going on with {} open handles, {} lost, and {} writes of {} bytes that were not stored yet, {} lost",
            found.handles,
            found.lost_handles,
            found.writes,
            found.bytes,
            found.lost_writes
        );
    }
    let attached = match connection {
        Some(connection) => adopt(&vfs, mountpoint, options, connection).await.map(Ok),
        None => attach(&vfs, mountpoint, options).await,
    };
    let mounted = match attached {
        Ok(Ok(mounted)) => mounted,
        // The next worker goes on with the session.
        Err(e) if worker.is_some_and(|w| !w.state.negotiated().is_empty()) => return Err(e),
        not_mounted => {
            if let Err(e) = volume.meta.close_session().await {
                tracing::warn!("the session is left to other clients: {e}");
            }
            return match not_mounted? {
                Err(occupant) => report.already(&occupant, &volume.meta.settings()).await,
                Ok(_) => Ok(()),
            };
        }
    };
    serve_mounted(mounted, vfs, &volume, signals, &report).await
}

/// Serves what is mounted. Others may use it from now on: it is brought to its end whatever happens.
async fn serve_mounted(
    mut mounted: MountedFs,
    vfs: Arc<Vfs>,
    volume: &Volume,
    mut signals: Signals,
    report: &Report<'_>,
) -> Result<()> {
    let mountpoint = report.args.place(1);
    let reporter = Reporter::new(&volume.settings.name, mountpoint, Arc::clone(&volume.blocks));
    if let Some(hangups) = signals.hup.take() {
        reporter.follow_hangups(hangups, Arc::clone(&volume.meta));
    }
    let begun = async {
        memory::keep_small(&volume.blocks, mounted.monitor())?;
        if answers(mountpoint, &mut mounted, &mut signals).await? {
            reporter.ready(&volume.meta);
            report.ready(&volume.settings.name);
        }
        Ok(())
    }
    .await;
    if begun.is_err() {
        stop::unmount(&mut mounted);
    }
    let result = begun.and(stop::serve(mounted, vfs, volume, signals, &reporter).await);
    let (left, result) = (matches!(result, Ok(End::Left)), result.map(drop));
    reporter.end(&result);
    if let Some(worker) = worker::get()
        && !left
    {
        worker.ended();
    }
    result
}

/// Looks at the root as everybody will: the kernel has agreed with us by then. False if it must end before.
async fn answers(mountpoint: &Path, mounted: &mut MountedFs, signals: &mut Signals) -> Result<bool> {
    if worker::get().is_some() {
        // A thread that waits for its own process keeps that from ending when it is killed, and the next one from answering.
        return Ok(true);
    }
    let path = mountpoint.to_owned();
    let looked = tokio::task::spawn_blocking(move || std::fs::metadata(path));
    let fail =
        |e: std::io::Error| Failure::new(format!("the mount at {} cannot be used: {e}", shown(&mountpoint)));
    tokio::select! {
        answer = looked => answer?.map(|_| true).map_err(fail),
        _ = signals.end() => {
            stop::unmount(mounted);
            Ok(false)
        }
    }
}

/// The log of a mount in the background.
fn follow_log(args: &Args) -> Result<Option<PathBuf>> {
    if !daemon::is_daemon() {
        return Ok(None);
    }
    let log = log_path(args)?;
    daemon::follow_log(log.clone())?;
    Ok(Some(log))
}

/// Counts requests to the object store.
fn observer(metrics: &Arc<Metrics>) -> Observer {
    let metrics = Arc::clone(metrics);
    Arc::new(move |r| {
        let failed = r.error.filter(|e| !matches!(e, ObjectError::NotFound(_)));
        metrics.object(r.method, r.took, r.bytes, failed.is_some());
        if matches!(failed, Some(ObjectError::Throttled(_))) {
            metrics.object_throttled();
        }
    })
}

/// What only the volume tells.
fn complete(options: &mut ServeOptions, args: &Args, volume: &Volume) {
    let acls = volume.meta.has_acls();
    options.mount.fsname = format!("{}{}", place::SOURCE, volume.settings.name);
    options.init.posix_acl = acls;
    options.xattr = XattrOptions {
        // ACLs are attributes.
        enabled: acls || args.get(ENABLE_XATTR),
        capability: args.get(ENABLE_CAP),
        selinux: args.find(ENABLE_SELINUX).unwrap_or_else(ciderfs_fuse::mount::has_selinux),
    };
}

/// Where the figures are told: by the mounter, that serves those of all its clients at one address, or here.
async fn listen_for_metrics(args: &Args) -> Option<(TcpListener, SocketAddr)> {
    let (address, explicit) = (args.get(METRICS), args.has(METRICS));
    if address.is_empty() || (!explicit && std::env::var_os(ciderfs_mounter::metrics::ENV).is_some()) {
        return None;
    }
    let listening = http::listen(address, explicit).await;
    match &listening {
        Ok((_, at)) => tracing::info!("Prometheus metrics at http://{at}/metrics"),
        Err(e) => tracing::error!("no metrics endpoint at {address}: {e}"),
    }
    listening.ok()
}

fn serve_metrics(listener: Option<TcpListener>, vfs: &Arc<Vfs>) {
    let vfs = Arc::clone(vfs);
    let text: http::Text = Arc::new(move || vfs.metrics().prometheus_text());
    if let Some(at) = std::env::var_os(ciderfs_mounter::metrics::ENV)
        && let Err(e) = http::serve_at(Path::new(&at), Arc::clone(&text))
    {
        tracing::error!("no metrics for the mounter at {}: {e}", shown(&at));
    }
    if let Some(listener) = listener {
        http::serve(listener, text);
    }
}

/// Whether a mount that goes on is of this volume: the address may lead to another one by now.
fn is_of(mountpoint: &Path, source: &str) -> Result<()> {
    let there = absolute(mountpoint).and_then(|full| find_mount(&full))?;
    match there.filter(|mount| mount.source != source) {
        Some(other) => Err(Failure::new(format!(
            "{} is mounted at {}, and not {source}: unmount it first",
            other.source,
            shown(&mountpoint)
        ))),
        None => Ok(()),
    }
}

/// Mounts, unless another command has done so meanwhile.
async fn attach(
    vfs: &Arc<Vfs>,
    mountpoint: &Path,
    options: ServeOptions,
) -> Result<std::result::Result<MountedFs, Occupant>> {
    let (vfs, path) = (Arc::clone(vfs), mountpoint.to_owned());
    let handle = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        // Mounting is one step with looking.
        let turn = place::lock(&path)?;
        Ok(match place::look(&path, &turn)? {
            Some(occupant) => Err(occupant),
            None => {
                Ok(ciderfs_mount::serve(vfs, &path, &options, worker::get().map(Worker::outlive), handle)
                    .map_err(|e| Failure::new(format!("cannot mount at {}: {e}", shown(&path))))?)
            }
        })
    })
    .await?
}

/// Goes on with a mount that another process has served.
async fn adopt(
    vfs: &Arc<Vfs>,
    mountpoint: &Path,
    options: ServeOptions,
    connection: Connection,
) -> Result<MountedFs> {
    let (vfs, path) = (Arc::clone(vfs), mountpoint.to_owned());
    let handle = tokio::runtime::Handle::current();
    let worker = worker::get().ok_or_else(|| Failure::new("only a worker goes on with a mount"))?;
    tokio::task::spawn_blocking(move || {
        let Connection { fd, device, negotiated } = connection;
        let begun = Arc::clone(&worker.begun);
        ciderfs_mount::adopt(vfs, (fd, device), &path, negotiated, &options, begun, handle)
            .map_err(|e| Failure::new(format!("cannot go on with the mount at {}: {e}", shown(&path))))
    })
    .await?
}

/// Tells whoever waits for the mount.
struct Report<'a> {
    args: &'a Args,
    banner: Option<&'a str>,
    log: Option<PathBuf>,
}

impl Report<'_> {
    /// Something is mounted there: the same is what was asked for, something else is an error. A service lives as long as the mount.
    async fn already(&self, occupant: &Occupant, settings: &Settings) -> Result<()> {
        let text = occupant.must_be(settings, config::subdir(self.args).as_deref())?;
        tracing::info!("{text}");
        if let Some(worker) = worker::get() {
            let Some(manager) = manager() else {
                worker.already(&text);
                return Ok(());
            };
            worker.ready(&text);
            self.enter();
            let followed = follow(occupant, manager, &text).await;
            worker.ended();
            return followed;
        }
        match &self.log {
            Some(log) => daemon::ready(&text, log),
            None => println!("{text}"),
        }
        self.enter();
        match manager() {
            Some(manager) => follow(occupant, manager, &text).await,
            None => Ok(()),
        }
    }

    fn ready(&self, name: &str) {
        // One line, whatever the name is.
        let ready = format!("OK, {name} is ready at {:?}", self.args.place(1));
        tracing::info!("{ready}");
        if let Some(worker) = worker::get() {
            worker.ready(&ready);
            if let Some(log) = &self.log {
                daemon::reopen(log);
            }
            return self.enter();
        }
        match (self.banner, &self.log) {
            (Some(text), _) => println!("{ready}\n{text}"),
            (None, Some(log)) => daemon::ready(&ready, log),
            (None, None) => {}
        }
        self.enter();
    }

    /// In the background, the command that waits does it.
    fn enter(&self) {
        if !daemon::is_daemon() {
            fstab::enter(self.args);
        }
    }
}
