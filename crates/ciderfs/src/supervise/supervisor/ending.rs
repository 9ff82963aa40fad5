//! What the end of a worker means: another one, or the end of the mount.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use ciderfs_format::shown;

use super::{Supervisor, WINDOW};
use crate::commands::upgrade;
use crate::failure::{EXIT_STOP, Failure, Result};
use crate::supervise::program::Program;
use crate::supervise::turn;
use crate::supervise::upgrade::Stage;

/// So many workers may die within [`WINDOW`] before the mount is given up: what kills them is sent to each of them again. Those that
/// cannot start, because the engine is away, say so, and are started for as long as `--restart-limit` says.
const TRIES: usize = 5;
/// Before a worker is started again; doubled each time within the window.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl Supervisor {
    pub(super) fn worker_ended(&mut self, status: ExitStatus) -> Option<Result<()>> {
        if self.leaving.is_some() && !self.ended {
            return Some(Ok(()));
        }
        let left = std::mem::take(&mut self.left) && !self.ended;
        if left && self.stops > 0 || !self.ended && self.is_another_pods() {
            tracing::info!("the mount is left to another pod");
            return Some(Ok(()));
        }
        if left && self.upgrade.is_none() {
            self.renew_program();
            self.start_at = Some(Instant::now());
            return None;
        }
        if self.ended || !self.served || self.stops > 1 {
            return Some(self.result(status));
        }
        match self.upgrade.as_ref().map(|u| u.stage) {
            Some(Stage::Leaving | Stage::Starting) => {
                let why = self.last_words.take().unwrap_or_else(|| status.to_string());
                self.next_program(&why);
                self.start_at = Some(Instant::now());
                None
            }
            _ => {
                self.failed_upgrade(&status.to_string());
                self.crashed(&status.to_string())
            }
        }
    }

    /// Whether the driver has given the mount to another pod, or will. There is no worker here.
    fn is_another_pods(&self) -> bool {
        self.custody.as_ref().is_some_and(|custody| custody.is_released() || self.is_served())
    }

    /// Whether a worker serves, which is not of this process, that has none.
    fn is_served(&self) -> bool {
        !matches!(turn::holder(&self.begun), Ok(None))
    }

    /// What is at the place of this program by now, if it can go on with the mount: the official driver has put it there.
    fn renew_program(&mut self) {
        let name = self.program.name.clone();
        if name.starts_with(&self.mountpoint) {
            return;
        }
        let found = File::open(&name).map(|file| Program::of(file, name)).map_err(|e| e.to_string());
        let fit = found.and_then(|new| upgrade::asked(&new).map(|version| (new, version)));
        match fit {
            Ok((new, version)) => {
                tracing::info!("{version} goes on");
                self.upgrade_to(new);
            }
            Err(e) => tracing::error!("{}: {e}: the program stays as it is", shown(&self.program.name)),
        }
    }

    /// A worker has ended that should not have.
    pub(super) fn crashed(&mut self, how: &str) -> Option<Result<()>> {
        if self.is_another_pods() {
            tracing::info!("the mount is left to another pod");
            return Some(Ok(()));
        }
        self.ends.retain(|at| at.elapsed() < WINDOW);
        self.ends.push(Instant::now());
        let unserved = self.unserved.get_or_insert_with(Instant::now).elapsed();
        let speaks = self.last_words.is_some();
        let why = self.last_words.take().map(|why| format!(": {why}")).unwrap_or_default();
        if (self.ends.len() > TRIES && !speaks) || unserved > self.limit {
            self.give_up();
            return Some(Err(Failure {
                text: format!(
                    "no worker can serve {}: {} have ended, and none has served for {} s ({how}{why}); it was unmounted, and what was \
                     written but not synced may be lost",
                    shown(&self.mountpoint),
                    self.ends.len(),
                    unserved.as_secs(),
                ),
                code: EXIT_STOP,
            }));
        }
        let doubled = PAUSE * (1 << (self.ends.len() - 1).min(6));
        let pause = if self.stops > 0 { Duration::ZERO } else { doubled.min(PAUSE_MAX) };
        tracing::warn!("the worker has ended ({how}{why}); another one goes on in {} ms", pause.as_millis());
        self.start_at = Some(Instant::now() + pause);
        None
    }

    /// Ends a mount that nobody serves, so that nobody waits for it.
    fn give_up(&mut self) {
        self.fuse = None;
        if self.is_served() {
            return tracing::error!("another process serves the mount, which stays");
        }
        if let Some((_, minor)) = self.device {
            // Others may hold the connection.
            let _ = std::fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
        }
        let there = ciderfs_fuse::mount::find_mount(&self.mountpoint).ok().flatten();
        if there.is_some_and(|m| Some((m.major, m.minor)) == self.device)
            && let Err(e) = ciderfs_fuse::mount::unmount(&self.mountpoint, true)
        {
            tracing::error!("cannot unmount: {e}");
        }
    }

    /// What the end of the worker means for this process.
    fn result(&mut self, status: ExitStatus) -> Result<()> {
        if !self.ended {
            self.give_up();
        }
        if let Some(custody) = &self.custody {
            custody.end();
        }
        let text = self.last_words.take().unwrap_or_else(|| format!("the worker has ended: {status}"));
        let code = status.code().unwrap_or_else(|| 128 | status.signal().unwrap_or(0));
        match u8::try_from(code) {
            Ok(0) => Ok(()),
            code => Err(Failure { text, code: code.unwrap_or(1) }),
        }
    }
}
