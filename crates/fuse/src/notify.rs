//! Telling the kernel about changes that it did not make.

use std::io::{self, IoSlice};
use std::sync::Weak;

use zerocopy::IntoBytes;

use crate::abi::{flags, notify, wire};
use crate::transport::DevChannel;

/// Sends notifications from any thread. Cloning is cheap; does not keep the connection open.
///
/// # Deadlocks
/// The kernel takes its own locks while it works a notification off: `inval_entry` and `delete` take the parent
/// directory's lock, `inval_inode` with a range and `store` wait for pages that requests in flight may hold.
/// Never send one while serving a request for the same directory or file (a reader thread, or a task whose
/// request is still unanswered), nor while holding a lock that a handler wants. A dedicated thread is safe.
#[derive(Clone)]
pub struct Notifier {
    channel: Weak<DevChannel>,
}

impl Notifier {
    pub(crate) fn new(channel: Weak<DevChannel>) -> Self {
        Self { channel }
    }

    /// True if done, false if the kernel had nothing of the kind cached.
    fn send(&self, code: i32, payload: &[IoSlice<'_>]) -> io::Result<bool> {
        let channel = self.channel.upgrade().ok_or(io::Error::from_raw_os_error(libc::ENODEV))?;
        match channel.notify(code, payload) {
            Ok(()) => Ok(true),
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Drops cached attributes of a node and its cached pages from `offset` on: `len` bytes, 0 for all the
    /// rest. A negative `offset` drops the attributes only. Returns whether the kernel knew the node.
    ///
    /// # Errors
    /// `ENODEV` when unmounted.
    pub fn inval_inode(&self, nodeid: u64, offset: i64, len: i64) -> io::Result<bool> {
        let out = wire::NotifyInvalInode { ino: nodeid, off: offset, len };
        self.send(notify::INVAL_INODE, &[IoSlice::new(out.as_bytes())])
    }

    /// Drops a cached name (and what is below it); with `expire_only` the name is looked up again at its next use
    /// and open files or mounts below stay untouched. Ask [`crate::Negotiated::can_expire`] first: older
    /// kernels drop. Returns whether the kernel knew the name.
    ///
    /// # Errors
    /// `ENODEV` when unmounted; `ENOTEMPTY`, `EBUSY` when the name is a directory in use.
    pub fn inval_entry(&self, parent: u64, name: &[u8], expire_only: bool) -> io::Result<bool> {
        let flags = if expire_only { flags::EXPIRE_ONLY } else { 0 };
        let out = wire::NotifyInvalEntry { parent, namelen: name_len(name)?, flags };
        self.send(
            notify::INVAL_ENTRY,
            &[IoSlice::new(out.as_bytes()), IoSlice::new(name), IoSlice::new(b"\0")],
        )
    }

    /// Tells that `name`, which led to `child`, was removed; wakes watchers (inotify). Returns whether the kernel
    /// knew the name.
    ///
    /// # Errors
    /// As [`Notifier::inval_entry`].
    pub fn delete(&self, parent: u64, child: u64, name: &[u8]) -> io::Result<bool> {
        let out = wire::NotifyDelete { parent, child, namelen: name_len(name)?, padding: 0 };
        self.send(notify::DELETE, &[IoSlice::new(out.as_bytes()), IoSlice::new(name), IoSlice::new(b"\0")])
    }

    /// Puts data into the page cache of a node that the kernel knows.
    ///
    /// # Errors
    /// `ENODEV` when unmounted; `ENOMEM`.
    pub fn store(&self, nodeid: u64, offset: u64, data: &[u8]) -> io::Result<bool> {
        let size = u32::try_from(data.len()).map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        let out = wire::NotifyStore { nodeid, offset, size, padding: 0 };
        self.send(notify::STORE, &[IoSlice::new(out.as_bytes()), IoSlice::new(data)])
    }

    /// Wakes the waiter `kh` of a POLL.
    ///
    /// # Errors
    /// `ENODEV` when unmounted.
    pub fn poll_wakeup(&self, kh: u64) -> io::Result<bool> {
        self.send(notify::POLL, &[IoSlice::new(wire::NotifyPoll { kh }.as_bytes())])
    }

    /// Has the kernel send all unanswered requests again (7.40), after taking over a connection.
    ///
    /// # Errors
    /// `ENODEV` when unmounted; `EINVAL` from kernels that cannot.
    pub fn resend(&self) -> io::Result<bool> {
        self.send(notify::RESEND, &[])
    }

    /// Makes every cached name expire at once (7.44).
    ///
    /// # Errors
    /// `ENODEV` when unmounted; `EINVAL` from kernels that cannot.
    pub fn inc_epoch(&self) -> io::Result<bool> {
        self.send(notify::INC_EPOCH, &[])
    }
}

fn name_len(name: &[u8]) -> io::Result<u32> {
    u32::try_from(name.len()).map_err(|_| io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notifier").finish_non_exhaustive()
    }
}
