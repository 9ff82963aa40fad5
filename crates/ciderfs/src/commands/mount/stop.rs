//! The end of a mount: signals, unmounting, what is still to be stored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_block::BlockStore;
use ciderfs_meta::Meta;
use ciderfs_mount::MountedFs;
use ciderfs_mounter::init;
use ciderfs_vfs::Vfs;
use ciderfs_volume::Volume;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::report::Reporter;
use crate::failure::{EXIT_STOP, Failure, Result};
use crate::supervise::{custody, worker};

/// After a signal, the mount may go on flushing as long as this is not without effect for so long.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// The same when everything is stored and only the metadata engine does not answer: it ends the session by itself later.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);
/// A session that was being registered when a signal came has this long to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(2);
/// What is written takes this long to be stored, or is left to the next process.
const LEAVE_PATIENCE: Duration = Duration::from_secs(15);
/// The same for requests that were read. Some wait for a lock, and would for ever.
const PAUSE_PATIENCE: Duration = Duration::from_secs(1);
/// At the end of a container, who uses the mount still after so long loses it.
const CONTAINER_PATIENCE: Duration = Duration::from_secs(1);
/// Between reports while it does.
const REPORT: Duration = Duration::from_secs(2);
/// How long the service manager is told to wait for the next word: longer than this process does.
pub const REPORTED_PATIENCE: Duration = STOP_PATIENCE.saturating_add(REPORT).saturating_add(REPORT);
/// How often the serving loop looks whether it was unmounted from outside.
const POLL: Duration = Duration::from_millis(100);

/// Registers the session. From the moment when the mount appears somebody may want it to end. A session of a process before this one
/// goes on instead; false if others have declared it dead.
pub async fn start_session(meta: &Arc<Meta>, signals: &mut Signals) -> Result<bool> {
    let sid = worker::get().map_or(0, |worker| worker.state.sid());
    if sid != 0 {
        // Whoever wants an end waits until what was left is stored.
        return Ok(meta.take_over_session(sid).await?);
    }
    tokio::select! {
        started = meta.start_session() => started.map(|()| true).map_err(Failure::from),
        failure = signals.end() => {
            // What was sent before is carried out before this.
            let _ = tokio::time::timeout(CANCEL_PATIENCE, meta.close_session()).await;
            Err(failure)
        }
    }
}

/// Serves until the end, and stores what is still to be stored.
pub async fn serve(
    mut mounted: MountedFs,
    vfs: Arc<Vfs>,
    volume: &Volume,
    mut signals: Signals,
    reporter: &Reporter,
) -> Result<End> {
    let meta = &volume.meta;
    let worker = worker::get();
    let leaving = async {
        match worker {
            Some(worker) => worker.is_to_leave().await,
            None => std::future::pending().await,
        }
    };
    let (stopped, asked) = tokio::select! {
        ended = wait(&mut mounted, meta, &mut signals, reporter) => ended?,
        () = leaving => {
            leave(mounted, &vfs, volume).await?;
            return Ok(End::Left);
        }
    };
    reporter.stopping();
    let end = async {
        if mounted.is_finished() {
            tokio::task::spawn_blocking(move || mounted.join()).await??;
            vfs.shutdown().await;
            meta.close_session().await?;
        } else {
            // It ends with this process, whoever uses it.
            let mounted = tokio::task::spawn_blocking(move || {
                mounted.pause(PAUSE_PATIENCE);
                mounted
            })
            .await?;
            vfs.shutdown().await;
            meta.close_session().await?;
            mounted.leave();
        }
        Ok::<(), Failure>(())
    };
    let ended = tokio::select! {
        ended = end => Some(ended),
        () = stuck(&volume.blocks, meta, reporter) => None,
        failure = signals.end_again(asked) => return Err(failure),
    };
    match (ended, stopped) {
        (None, _) => Err(Failure { text: "the mount did not end in time".into(), code: EXIT_STOP }),
        (Some(result), None) => result.map(|()| End::Over),
        (Some(_), Some(reason)) => Err(Failure { text: reason, code: EXIT_STOP }),
    }
}

/// How a process stops serving a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The mount is over.
    Over,
    /// Another process goes on with it.
    Left,
}

/// Finishes what was begun and stores what was written, as far as that takes no long time: the next process finds the rest.
async fn leave(mounted: MountedFs, vfs: &Arc<Vfs>, volume: &Volume) -> Result<()> {
    // Most of it while the mount is still served.
    let _ = tokio::time::timeout(LEAVE_PATIENCE, vfs.flush_all()).await;
    let (mounted, quiet) = tokio::task::spawn_blocking(move || {
        let quiet = mounted.pause(PAUSE_PATIENCE);
        (mounted, quiet)
    })
    .await?;
    if !quiet {
        tracing::info!("some requests are left to the next worker");
    }
    let _ = tokio::time::timeout(LEAVE_PATIENCE, vfs.suspend()).await;
    mounted.leave();
    let _ = tokio::time::timeout(CANCEL_PATIENCE, volume.meta.leave_session()).await;
    tracing::info!("the mount is left to another worker");
    Ok(())
}

/// Says now and then how much is still to be stored. Returns when that has not become less for too long, or when all is stored
/// and the metadata engine does not answer.
async fn stuck(blocks: &BlockStore, meta: &Meta, reporter: &Reporter) {
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
            reporter.goes_on();
        }
        if since.elapsed() >= if left > 0 { STOP_PATIENCE } else { ENGINE_PATIENCE } {
            return;
        }
    }
}

/// What ends a mount, or would.
pub struct Signals {
    term: Signal,
    int: Signal,
    /// For whoever follows it.
    pub hup: Option<Signal>,
}

impl Signals {
    /// From here on they do not end the process by themselves.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: Some(signal(SignalKind::hangup())?),
        })
    }

    /// Waits for one that ends the program.
    pub async fn end(&mut self) -> Failure {
        let worker = worker::get();
        let told = async {
            match worker {
                Some(worker) => worker.is_to_stop().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(told);
        loop {
            let failure = tokio::select! {
                () = &mut told => return Failure::signal(libc::SIGTERM),
                _ = self.term.recv() => Failure::signal(libc::SIGTERM),
                _ = self.int.recv() => Failure::signal(libc::SIGINT),
            };
            // A service manager signals all processes; the supervisor says it once. The official driver means the one that it signals.
            let supervised = worker.filter(|_| custody::socket().is_none());
            match supervised.filter(|worker| !worker.is_orphan() || init::is_contained()) {
                None => return failure,
                // Who holds the mount gives it to the next container.
                Some(worker) if worker.is_orphan() => worker.leave(),
                Some(_) => {}
            }
        }
    }

    /// While the mount ends: whoever asks again does not want to wait. After an end from outside (`umount`) the first one asks
    /// for what is under way: a service manager sends it when the mount is gone.
    async fn end_again(&mut self, asked: bool) -> Failure {
        if !asked {
            self.end().await;
        }
        self.end().await
    }
}

/// Waits until the file system is unmounted, by whomever, or its container ends. Returns why the mount had to stop by itself, if it
/// had, and whether a signal has asked for it.
async fn wait(
    mounted: &mut MountedFs,
    meta: &Meta,
    signals: &mut Signals,
    reporter: &Reporter,
) -> Result<(Option<String>, bool)> {
    let mut fatal = meta.fatal();
    let (mut reason, mut asked) = (None, false);
    let mut until: Option<Instant> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = signals.end() => {
                asked = true;
                reporter.stopping();
                unmount(mounted);
                if worker::get().is_none() && init::is_contained() {
                    until.get_or_insert_with(|| Instant::now() + CONTAINER_PATIENCE);
                }
            }
            changed = fatal.wait_for(Option::is_some), if reason.is_none() => {
                if let Ok(why) = changed {
                    reason = why.clone();
                }
                unmount(mounted);
            }
        }
        if mounted.is_finished() || until.is_some_and(|until| until <= Instant::now()) {
            return Ok((reason, asked));
        }
    }
}

/// Takes the mount away from everybody who does not use it already.
pub fn unmount(mounted: &mut MountedFs) {
    tracing::info!("unmounting");
    if mounted.unmount(false).is_err() {
        // Somebody still uses it: it disappears for everybody else, and ends with its last user.
        if let Err(e) = mounted.unmount(true) {
            tracing::error!("cannot unmount: {e}");
        }
    }
}
