//! The end of a mount: signals, unmounting, what is still to be stored.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_block::BlockStore;
use ciderfs_meta::Meta;
use ciderfs_mount::MountedFs;
use ciderfs_vfs::Vfs;
use ciderfs_volume::Volume;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::report::Reporter;
use crate::failure::{EXIT_STOP, Failure, Result};

/// After a signal, the mount may go on flushing as long as this is not without effect for so long.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// The same when everything is stored and only the metadata engine does not answer: it ends the session by itself later.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);
/// A session that was being registered when a signal came has this long to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(2);
/// Between reports while it does.
const REPORT: Duration = Duration::from_secs(2);
/// How long the service manager is told to wait for the next word: longer than this process does.
pub const REPORTED_PATIENCE: Duration = STOP_PATIENCE.saturating_add(REPORT).saturating_add(REPORT);
/// How often the serving loop looks whether it was unmounted from outside.
const POLL: Duration = Duration::from_millis(100);

/// Registers the session. From the moment when the mount appears somebody may want it to end.
pub async fn start_session(meta: &Arc<Meta>, signals: &mut Signals) -> Result<()> {
    tokio::select! {
        started = meta.start_session() => Ok(started?),
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
) -> Result<()> {
    let meta = &volume.meta;
    let (stopped, asked) = wait(&mut mounted, meta, &mut signals, reporter).await?;
    reporter.stopping();
    let end = async {
        tokio::task::spawn_blocking(move || mounted.join()).await??;
        vfs.shutdown().await;
        meta.close_session().await?;
        Ok::<(), Failure>(())
    };
    let ended = tokio::select! {
        ended = end => Some(ended),
        () = stuck(&volume.blocks, meta, reporter) => None,
        failure = signals.end_again(asked) => return Err(failure),
    };
    match (ended, stopped) {
        (None, _) => Err(Failure { text: "the mount did not end in time".into(), code: EXIT_STOP }),
        (Some(result), None) => result,
        (Some(_), Some(reason)) => Err(Failure { text: reason, code: EXIT_STOP }),
    }
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
        tokio::select! {
            _ = self.term.recv() => Failure::signal(libc::SIGTERM),
            _ = self.int.recv() => Failure::signal(libc::SIGINT),
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

/// Waits until the file system is unmounted, by whomever. Returns why the mount had to stop by itself, if it had, and whether a
/// signal has asked for it.
async fn wait(
    mounted: &mut MountedFs,
    meta: &Meta,
    signals: &mut Signals,
    reporter: &Reporter,
) -> Result<(Option<String>, bool)> {
    let mut fatal = meta.fatal();
    let (mut reason, mut asked) = (None, false);
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = signals.end() => {
                asked = true;
                reporter.stopping();
                unmount(mounted);
            }
            changed = fatal.wait_for(Option::is_some), if reason.is_none() => {
                if let Ok(why) = changed {
                    reason = why.clone();
                }
                unmount(mounted);
            }
        }
        if mounted.is_finished() {
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
