//! How requests and answers travel.

#[allow(unsafe_code, reason = "an ioctl of the device")]
mod dev;
#[allow(unsafe_code, reason = "a signal to threads of this process")]
mod stop;

use std::io::{self, IoSlice};
use std::sync::Arc;

use crate::buffer::Body;
pub(crate) use dev::{DevChannel, DevTransport, receive};
pub(crate) use stop::Stop;

/// On which descriptors of the connection readers read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Queues {
    /// All on the one that was given.
    Shared,
    /// The first on that one, each of the others on a clone.
    OwnButFirst,
    /// Each on a clone.
    Own,
}

/// Where the answer to a request goes.
pub trait ReplyChannel: Send + Sync {
    /// Sends an answer: `error` is 0 or a negative error number, `payload` the bytes after the header.
    ///
    /// # Errors
    /// What the kernel says; `ENOENT` means that it does not know the request any more.
    fn send(&self, unique: u64, error: i32, payload: &[IoSlice<'_>]) -> io::Result<()>;
}

/// Who takes the requests that a transport received.
pub(crate) trait Sink: Send + Sync {
    /// Takes one request, as the kernel wrote it; its answer goes to `channel`, then or later, from any thread. Never panics.
    fn take(&self, body: Body, channel: &Arc<dyn ReplyChannel>);
}

/// Receives requests until the file system is unmounted. One implementation reads `/dev/fuse`; another may use
/// io_uring and keep a reader of this kind for FORGET, INTERRUPT and notifications.
pub(crate) trait Transport: Send {
    /// Receives requests on threads of its own and gives them to `sink`. Returns when all threads ended.
    ///
    /// # Errors
    /// The first failure other than an orderly end.
    fn serve(&self, sink: &dyn Sink) -> io::Result<()>;
}
