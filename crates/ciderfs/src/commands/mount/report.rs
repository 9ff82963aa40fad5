//! What a mount tells while it runs: the service manager, and whoever unmounts it, how much is still to be stored.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ciderfs_block::BlockStore;
use ciderfs_format::shown;
use ciderfs_meta::Meta;
use tokio::signal::unix::Signal;

use super::stop::REPORTED_PATIENCE;
use crate::failure::Result;
use crate::log;
use crate::progress::Progress;
use crate::service::manager;
use crate::supervise::{custody, worker};

/// Between looks at what is still to be stored.
const LOOK: Duration = Duration::from_millis(500);
/// Settings that are read again are waited for this long.
const RELOAD_PATIENCE: Duration = Duration::from_secs(10);

/// What is told of a mount.
pub struct Reporter {
    /// The volume and where it is.
    title: String,
    blocks: Arc<BlockStore>,
    progress: Progress,
    stopping: AtomicBool,
}

impl Reporter {
    /// Of the volume `name` at a place.
    pub fn new(name: &str, at: &Path, blocks: Arc<BlockStore>) -> Arc<Self> {
        Arc::new(Self {
            title: format!("{name} at {}", shown(&at)),
            blocks,
            progress: Progress::new(&ciderfs_fuse::mount::absolute(at).unwrap_or_else(|_| at.to_owned())),
            stopping: AtomicBool::new(false),
        })
    }

    /// Bytes that are still to be stored.
    fn left(&self) -> u64 {
        self.blocks.stats().buffer_used
    }

    fn status(&self, left: u64) -> String {
        let is_over = self.stopping.load(Ordering::Relaxed);
        let state = if is_over { "unmounting, " } else { "" };
        match left {
            0 => format!("{}: {state}everything is stored", self.title),
            _ => format!("{}: {state}{} still to be stored", self.title, amount(left)),
        }
    }

    /// Says that the mount is ready, and from now on whatever changes.
    pub fn ready(self: &Arc<Self>, meta: &Arc<Meta>) {
        let (mut told, mut before) = (self.status(0), 0);
        if let Some(manager) = manager() {
            manager.ready(&told);
            let meta = Arc::clone(meta);
            manager.watch(move || meta.is_beating());
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let left = this.left();
                let status = this.status(left);
                if status == told {
                    continue;
                }
                this.progress.left(left);
                if let Some(manager) = manager() {
                    manager.status(&status);
                }
                // Also while the last users of a mount that has disappeared write.
                if left < before && this.stopping.load(Ordering::Relaxed) {
                    this.goes_on();
                }
                (told, before) = (status, left);
            }
        });
    }

    /// The end has begun.
    pub fn stopping(&self) {
        if !self.stopping.swap(true, Ordering::Relaxed)
            && let Some(manager) = manager()
        {
            manager.stopping(REPORTED_PATIENCE);
        }
    }

    /// There is progress.
    pub fn goes_on(&self) {
        if let Some(manager) = manager() {
            manager.extend(REPORTED_PATIENCE);
        }
    }

    /// The last word.
    pub fn end(&self, result: &Result<()>) {
        self.progress.end(result.as_ref().err().map(|e| e.text.as_str()));
    }

    /// Reads settings again whenever SIGHUP asks for it.
    pub fn follow_hangups(self: &Arc<Self>, mut hangups: Signal, meta: Arc<Meta>) {
        let this = Arc::clone(self);
        tokio::spawn(async move {
            while hangups.recv().await.is_some() {
                // The official driver asks for another program, or another pod, in this way.
                if let Some(worker) = worker::get().filter(|_| custody::socket().is_some()) {
                    worker.leave();
                    continue;
                }
                if let Some(manager) = manager() {
                    manager.reloading();
                }
                log::reload();
                match tokio::time::timeout(RELOAD_PATIENCE, meta.reload_settings()).await {
                    Ok(Ok(())) => tracing::info!("the settings were read again"),
                    Ok(Err(e)) => tracing::warn!("reading the settings again: {e}"),
                    Err(_) => {
                        tracing::warn!("reading the settings again: the metadata engine does not answer")
                    }
                }
                if let Some(manager) = manager() {
                    manager.ready(&this.status(this.left()));
                }
            }
        });
    }
}

/// Bytes, in words.
pub fn amount(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes.div_ceil(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}
