//! Copies of what a client's supervisor holds, so that the next one goes on with the mount when it has died.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ciderfs_handover::held::{Held, Holder};
use ciderfs_handover::place;

use super::{Keeper, PROBE};
use crate::probe::{self, Seen};
use crate::record::Record;

/// Where copies of what its supervisor holds are given.
const HELD: &str = "held";
/// A mount whose server has died says so at once; one that nobody serves just now does not answer.
const GLANCE: Duration = Duration::from_millis(300);

impl Keeper {
    /// Takes copies of what the client's supervisor holds: whatever becomes of it, its mount goes on.
    pub(super) fn hold(&self) {
        let Some(mount) = self.entry.mounted().filter(|_| self.config.supervised) else { return };
        let device = (mount.major, mount.minor);
        if self.held.borrow().as_ref().is_some_and(|held| held.device() == Some(device)) {
            return;
        }
        let socket = place::find(device, rustix::process::geteuid().as_raw());
        let asked = socket.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        match asked.and_then(|socket| Held::from(&socket)) {
            Ok(held) => self.give(held),
            Err(e) => tracing::warn!("{}: its mount would end with its supervisor: {e}", self.entry.key),
        }
    }

    /// Gives copies of what is held from now on.
    fn give(&self, held: Held) {
        self.let_go();
        match Holder::at(self.entry.dir.join(HELD), held) {
            Ok(holder) => {
                self.entry.change(|inner| inner.holder = Some(holder.path().to_owned()));
                *self.held.borrow_mut() = Some(holder);
            }
            Err(e) => tracing::warn!("{}: its mount cannot be held: {e}", self.entry.key),
        }
    }

    pub(super) fn let_go(&self) {
        self.entry.change(|inner| inner.holder = None);
        *self.held.borrow_mut() = None;
    }

    /// Who gives what the next supervisor needs to go on with the mount of a client that has ended. If nobody does, or it is not `wanted`
    /// any more, what is mounted has no future, and whoever serves it still is ended.
    pub(super) fn holder(&self, record: &Record, wanted: bool) -> Option<PathBuf> {
        let mount = self.entry.mounted()?;
        let device = Some((mount.major, mount.minor));
        let goes_on =
            wanted && self.config.supervised && probe::look(&self.entry.mountpoint, GLANCE) != Seen::Dead;
        if goes_on && self.held.borrow().as_ref().is_none_or(|held| held.device() != device) {
            let held = record.holder.as_ref().and_then(|at| Held::from(at).ok());
            if let Some(held) = held.filter(|held| held.device() == device) {
                self.give(held);
            }
        }
        let at = self.held.borrow().as_ref().filter(|h| h.device() == device).map(|h| h.path().to_owned());
        if let Some(at) = at.filter(|_| goes_on) {
            return Some(at);
        }
        self.let_go();
        probe::abort(&self.entry.mountpoint, PROBE);
        None
    }
}
