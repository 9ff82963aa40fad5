//! The duty to unmount.

use std::path::{Path, PathBuf};

use super::utab::Entry;
use super::{MountError, find_mount, set_read_ahead_kb, unmount};

/// A mount made by this process; unmounts (lazily) when dropped.
#[derive(Debug)]
pub struct MountGuard {
    mountpoint: PathBuf,
    /// Device number of the mount, by which it is told from a later one at the same place.
    device: Option<(u32, u32)>,
    armed: bool,
    /// What others are told of the mount. Dropped after all the rest has been done.
    entry: Option<Entry>,
}

impl MountGuard {
    pub(super) fn new(mountpoint: PathBuf) -> Self {
        let found = find_mount(&mountpoint).ok().flatten();
        let device = found.map(|info| (info.major, info.minor));
        Self::of(mountpoint, device)
    }

    /// Of a mount that is `device`.
    pub(super) fn of(mountpoint: PathBuf, device: Option<(u32, u32)>) -> Self {
        Self { mountpoint, device, armed: true, entry: None }
    }

    /// Enters options that the kernel does not keep in the table of those.
    pub(super) fn enter(&mut self, source: &str, options: &[String]) {
        match Entry::write(source, &self.mountpoint, options) {
            Ok(entry) => self.entry = Some(entry),
            Err(e) => tracing::debug!("umount and systemd are not told {options:?}: {e}"),
        }
    }

    /// Where, as an absolute path.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Major and minor device number of the mount, if it was found in the mount table.
    pub fn device(&self) -> Option<(u32, u32)> {
        self.device
    }

    /// Whether this very mount is still there.
    pub fn is_mounted(&self) -> bool {
        match find_mount(&self.mountpoint) {
            Ok(Some(info)) => self.device.is_none_or(|device| device == (info.major, info.minor)),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// Raises the kernel's read-ahead; see [`set_read_ahead_kb`].
    ///
    /// # Errors
    /// When the setting may not be written (not root).
    pub fn set_read_ahead_kb(&self, kb: u32) -> std::io::Result<()> {
        set_read_ahead_kb(&self.mountpoint, kb)
    }

    /// Unmounts; nothing to do if somebody else did. With `lazy`, detaches the mount now and lets open files end
    /// later. After an error the guard is still responsible.
    ///
    /// # Errors
    /// [`MountError::Busy`] when in use and not `lazy`.
    pub fn unmount(&mut self, lazy: bool) -> Result<(), MountError> {
        if !self.armed || !self.is_mounted() {
            self.armed = false;
            return Ok(());
        }
        match unmount(&self.mountpoint, lazy) {
            Ok(()) | Err(MountError::NotMounted { .. } | MountError::Missing { .. }) => {
                self.armed = false;
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Ends the duty after the kernel has closed the connection. The mount is gone then, unless the connection was
    /// aborted: what is left is dead and is removed. A living mount at the same place belongs to somebody else, even if
    /// it has our device number, which the kernel gives out again at once.
    pub fn finish(self) {
        let dead = std::fs::symlink_metadata(&self.mountpoint)
            .is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN));
        if !dead {
            self.disarm();
        }
    }

    /// Leaves the mount to somebody else.
    pub fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for MountGuard {
    fn drop(&mut self) {
        if let Err(e) = self.unmount(true) {
            tracing::warn!(mountpoint = ?self.mountpoint, "unmounting failed: {e}");
        }
    }
}
