//! Answers.

#[cfg(test)]
mod tests;

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use zerocopy::{Immutable, IntoBytes};

use crate::abi::{opcode, wire};
use crate::attr::{Attr, Entry, FileLock, Opened, Statfs, Statx};
use crate::dir::{DirBuffer, DirPlusBuffer};
use crate::interrupt::{Inflight, InterruptFlag};
use crate::transport::ReplyChannel;

/// Error numbers from here on are the kernel's own and refused by it in answers.
const ERRNO_LIMIT: i32 = 512;

/// The duty to answer one request, exactly once. Dropping it unanswered answers EIO and logs, but in a process
/// that has left the mount to another one ([`crate::SessionHandle::leave`]): the kernel asks that one again.
///
/// Every answer tells whether the kernel took it. It does not when the connection is gone; after `entry`,
/// `create` or `open` the node or handle must then be given up, because no FORGET or RELEASE will come.
/// FORGET and BATCH_FORGET have no answer; their `Reply` may be dropped or answered, both do nothing.
pub struct Reply {
    unique: u64,
    opcode: u32,
    /// False once answered, and from the start for operations without an answer.
    open: bool,
    channel: Arc<dyn ReplyChannel>,
    inflight: Arc<Inflight>,
}

impl Reply {
    pub(crate) fn new(
        unique: u64,
        opcode: u32,
        channel: Arc<dyn ReplyChannel>,
        inflight: Arc<Inflight>,
    ) -> Self {
        let open = !matches!(opcode, opcode::FORGET | opcode::BATCH_FORGET);
        if open {
            inflight.register(unique);
        }
        Self { unique, opcode, open, channel, inflight }
    }

    /// Number of the request.
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// Whether the caller got a signal and gave up waiting; then answer EINTR soon.
    pub fn is_interrupted(&self) -> bool {
        self.interrupt_flag().is_interrupted()
    }

    /// See [`InterruptFlag::on_interrupt`].
    pub fn on_interrupt(&self, callback: Box<dyn FnOnce() + Send>) {
        self.interrupt_flag().on_interrupt(callback);
    }

    /// A handle on this request's interruption that can be given to other layers.
    pub fn interrupt_flag(&self) -> InterruptFlag {
        InterruptFlag { unique: self.unique, inflight: self.inflight.clone() }
    }

    fn send(&mut self, error: i32, payload: &[IoSlice<'_>]) -> bool {
        if !std::mem::replace(&mut self.open, false) {
            return true;
        }
        self.inflight.complete(self.unique);
        match self.channel.send(self.unique, error, payload) {
            Ok(()) => true,
            Err(e) => {
                let op = opcode::name(self.opcode);
                match e.raw_os_error() {
                    // The kernel no longer knows the request, or the connection is gone.
                    Some(libc::ENOENT | libc::ENODEV | libc::ENOTCONN | libc::ECONNABORTED) => {
                        tracing::debug!(op, unique = self.unique, "answer not wanted any more: {e}");
                    }
                    _ => {
                        tracing::error!(op, unique = self.unique, "the kernel refused an answer: {e}");
                        // If it refused before taking the request off its list, the caller would hang.
                        let _ = self.channel.send(self.unique, -libc::EIO, &[]);
                    }
                }
                false
            }
        }
    }

    fn send_struct<T: IntoBytes + Immutable>(mut self, value: &T) -> bool {
        self.send(0, &[IoSlice::new(value.as_bytes())])
    }

    /// Failure with an error number such as `libc::ENOENT` (positive). Numbers outside the valid range become EIO.
    pub fn error(mut self, errno: i32) -> bool {
        let errno = if (1..ERRNO_LIMIT).contains(&errno) { errno } else { libc::EIO };
        self.send(-errno, &[])
    }

    /// Success without a value.
    pub fn empty(mut self) -> bool {
        self.send(0, &[])
    }

    /// A name and its node (LOOKUP, MKNOD, MKDIR, SYMLINK, LINK).
    pub fn entry(self, entry: &Entry) -> bool {
        self.send_struct(&entry.to_wire())
    }

    /// Attributes that the kernel may believe for `valid` (GETATTR, SETATTR).
    pub fn attr(self, attr: &Attr, valid: Duration) -> bool {
        self.send_struct(&wire::AttrOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            dummy: 0,
            attr: attr.to_wire(),
        })
    }

    /// An open handle (OPEN, OPENDIR).
    pub fn open(self, opened: Opened) -> bool {
        self.send_struct(&opened.to_wire())
    }

    /// A new node and its open handle (CREATE, TMPFILE).
    pub fn create(mut self, entry: &Entry, opened: Opened) -> bool {
        let (entry, opened) = (entry.to_wire(), opened.to_wire());
        self.send(0, &[IoSlice::new(entry.as_bytes()), IoSlice::new(opened.as_bytes())])
    }

    /// Bytes written (WRITE).
    pub fn written(self, size: u32) -> bool {
        self.send_struct(&wire::WriteOut { size, padding: 0 })
    }

    /// Bytes copied (COPY_FILE_RANGE, where more than `u32::MAX` is cut, and COPY_FILE_RANGE_64).
    pub fn copied(self, bytes: u64) -> bool {
        if self.opcode == opcode::COPY_FILE_RANGE_64 {
            return self.send_struct(&wire::CopyFileRangeOut { bytes_copied: bytes });
        }
        self.written(u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// Data (READ); not longer than the size asked for.
    pub fn data(mut self, data: &[u8]) -> bool {
        self.send(0, &[IoSlice::new(data)])
    }

    /// Data in pieces, sent without copying (READ).
    pub fn data_vectored(mut self, pieces: &[IoSlice<'_>]) -> bool {
        self.send(0, pieces)
    }

    /// Data in pieces, sent without copying (READ).
    pub fn data_bytes(mut self, pieces: &[Bytes]) -> bool {
        match pieces {
            [] => self.send(0, &[]),
            [one] => self.send(0, &[IoSlice::new(one)]),
            many => {
                let slices: Vec<_> = many.iter().map(|piece| IoSlice::new(piece)).collect();
                self.send(0, &slices)
            }
        }
    }

    /// Target of a link (READLINK).
    pub fn readlink(self, target: &[u8]) -> bool {
        self.data(target)
    }

    /// A listing (READDIR).
    pub fn directory(self, listing: &DirBuffer) -> bool {
        self.data(listing.as_bytes())
    }

    /// A listing with attributes (READDIRPLUS). If the kernel did not take it, none of its lookups count.
    pub fn directory_plus(self, listing: &DirPlusBuffer) -> bool {
        self.data(listing.as_bytes())
    }

    /// Statistics (STATFS).
    pub fn statfs(self, statfs: &Statfs) -> bool {
        self.send_struct(&statfs.to_wire())
    }

    /// Size of a value or list (GETXATTR, LISTXATTR with size 0).
    pub fn xattr_size(self, size: u32) -> bool {
        self.send_struct(&wire::GetxattrOut { size, padding: 0 })
    }

    /// A value or list; the caller answers ERANGE itself when it does not fit (GETXATTR, LISTXATTR).
    pub fn xattr(self, value: &[u8]) -> bool {
        self.data(value)
    }

    /// A conflicting lock, or type `F_UNLCK` if there is none (GETLK).
    pub fn lock(self, lock: &FileLock) -> bool {
        self.send_struct(&wire::FileLock { start: lock.start, end: lock.end, typ: lock.typ, pid: lock.pid })
    }

    /// An offset (LSEEK).
    pub fn lseek(self, offset: u64) -> bool {
        self.send_struct(&wire::LseekOut { offset })
    }

    /// `POLL*` bits that are ready (POLL).
    pub fn poll(self, revents: u32) -> bool {
        self.send_struct(&wire::PollOut { revents, padding: 0 })
    }

    /// Result of the call and the bytes it returns (IOCTL).
    pub fn ioctl(mut self, result: i32, data: &[u8]) -> bool {
        let head = wire::IoctlOut { result, ..Default::default() };
        self.send(0, &[IoSlice::new(head.as_bytes()), IoSlice::new(data)])
    }

    /// A block number (BMAP).
    pub fn bmap(self, block: u64) -> bool {
        self.send_struct(&wire::BmapOut { block })
    }

    /// Extended attributes of stat that the kernel may believe for `valid` (STATX).
    pub fn statx(self, statx: &Statx, valid: Duration) -> bool {
        self.send_struct(&wire::StatxOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            flags: 0,
            spare: [0; 2],
            stat: statx.to_wire(),
        })
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.open && self.inflight.is_left() {
            self.inflight.complete(self.unique);
        } else if self.open {
            tracing::error!(
                op = opcode::name(self.opcode),
                unique = self.unique,
                "request dropped unanswered"
            );
            self.send(-libc::EIO, &[]);
        }
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let op = opcode::name(self.opcode);
        f.debug_struct("Reply").field("op", &op).field("unique", &self.unique).finish_non_exhaustive()
    }
}
