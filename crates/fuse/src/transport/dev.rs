//! The classic transport: blocking reads and writes on `/dev/fuse`, one cloned descriptor for each thread.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use zerocopy::IntoBytes;

use crate::abi::{self, wire};
use crate::buffer::{Body, BufferPool};

use super::stop::Stop;
use super::{Queues, ReplyChannel, Sink, Transport};

/// Requests up to this many bytes are copied so that the receive buffer is free at once.
const SMALL: usize = 8 << 10;
/// Pieces of one system call; more are joined first.
const MAX_PIECES: usize = 1000;
/// How long a reader waits for a buffer when all are in use. After that the request gets an allocation of its
/// own, so that INTERRUPT and FORGET keep flowing; the wait paces the growth.
const POOL_WAIT: Duration = Duration::from_millis(50);

/// A descriptor of the connection.
pub(crate) struct DevChannel {
    fd: OwnedFd,
}

impl DevChannel {
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Another descriptor of the same connection with a queue of its own.
    fn try_clone(&self) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let mut original = u32::try_from(self.fd.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: both descriptors are open, and this ioctl reads one u32 from the pointer.
        let rc = unsafe { libc::ioctl(device.as_raw_fd(), abi::DEV_IOC_CLONE as _, &raw mut original) };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { fd: device.into() })
    }

    fn write(&self, head: &wire::OutHeader, payload: &[IoSlice<'_>]) -> io::Result<()> {
        let head = IoSlice::new(head.as_bytes());
        let written = match payload {
            [] => rustix::io::write(&self.fd, &head)?,
            [one] => rustix::io::writev(&self.fd, &[head, *one])?,
            many if many.len() < MAX_PIECES => {
                let mut all = Vec::with_capacity(many.len() + 1);
                all.push(head);
                all.extend_from_slice(many);
                rustix::io::writev(&self.fd, &all)?
            }
            many => {
                let joined = many.iter().flat_map(|piece| piece.iter().copied()).collect::<Vec<u8>>();
                rustix::io::writev(&self.fd, &[head, IoSlice::new(&joined)])?
            }
        };
        let expected = head.len() + payload.iter().map(|piece| piece.len()).sum::<usize>();
        if written == expected { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Sends a notification.
    pub fn notify(&self, code: i32, payload: &[IoSlice<'_>]) -> io::Result<()> {
        self.send(0, code, payload)
    }
}

impl ReplyChannel for DevChannel {
    fn send(&self, unique: u64, error: i32, payload: &[IoSlice<'_>]) -> io::Result<()> {
        let len = size_of::<wire::OutHeader>() + payload.iter().map(|piece| piece.len()).sum::<usize>();
        let len = u32::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        self.write(&wire::OutHeader { len, error, unique }, payload)
    }
}

/// Reads one request into `buf`; `None` when the connection ended, or reading is to stop.
pub(crate) fn receive(channel: &DevChannel, buf: &mut [u8], stop: &Stop) -> io::Result<Option<usize>> {
    loop {
        if stop.is_asked() {
            return Ok(None);
        }
        match rustix::io::read(&channel.fd, &mut *buf) {
            Ok(n) => return Ok(Some(n)),
            // Unmounted; or aborted through the control file system.
            Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(None),
            // NOENT: the request was interrupted before it was read.
            Err(Errno::INTR | Errno::NOENT) => {}
            Err(Errno::AGAIN) => {
                // Only a descriptor made by somebody else is non-blocking.
                use rustix::event::{PollFd, PollFlags, poll};
                match poll(&mut [PollFd::new(&channel.fd, PollFlags::IN)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// Reader threads over one connection.
pub(crate) struct DevTransport {
    channels: Vec<Arc<DevChannel>>,
    pool: Arc<BufferPool>,
    thread_name: String,
    stop: Arc<Stop>,
}

impl DevTransport {
    /// `threads` readers; each gets its own clone of the descriptor if `queues` and the kernel agree.
    pub fn new(
        main: Arc<DevChannel>,
        threads: usize,
        queues: Queues,
        pool: Arc<BufferPool>,
        thread_name: String,
        stop: Arc<Stop>,
    ) -> Self {
        let mut channels = Vec::new();
        for i in 0..threads.max(1) {
            let clone = match queues {
                Queues::Shared => false,
                Queues::OwnButFirst => i > 0,
                Queues::Own => true,
            };
            let own = clone.then(|| main.try_clone());
            channels.push(match own {
                Some(Ok(channel)) => Arc::new(channel),
                Some(Err(e)) => {
                    tracing::debug!("cloning the FUSE device failed, sharing it: {e}");
                    main.clone()
                }
                None => main.clone(),
            });
        }
        Self { channels, pool, thread_name, stop }
    }

    fn read_loop(&self, channel: &Arc<DevChannel>, sink: &dyn Sink) -> io::Result<()> {
        let reply_to: Arc<dyn ReplyChannel> = channel.clone();
        let _reader = self.stop.reader();
        // The pool's limit leaves room for one buffer for each reader.
        let mut buf = loop {
            if let Some(buf) = self.pool.take(POOL_WAIT)? {
                break buf;
            }
        };
        while let Some(n) = receive(channel, buf.room(), &self.stop)
            .inspect_err(|e| tracing::error!("a FUSE reader gives up, requests go to the others: {e}"))?
        {
            buf.set_filled(n);
            let body = if n <= SMALL {
                Body::Small(buf[..].into())
            } else {
                match self.pool.take(POOL_WAIT) {
                    Ok(Some(next)) => Body::Pooled(std::mem::replace(&mut buf, next)),
                    Ok(None) | Err(_) => {
                        self.pool.count_overflow();
                        Body::Small(buf[..].into())
                    }
                }
            };
            sink.take(body, &reply_to);
        }
        Ok(())
    }
}

impl Transport for DevTransport {
    fn serve(&self, sink: &dyn Sink) -> io::Result<()> {
        std::thread::scope(|scope| {
            let mut result = Ok(());
            let mut readers = Vec::new();
            for (i, channel) in self.channels.iter().enumerate().skip(1) {
                let thread = std::thread::Builder::new().name(format!("{}-{i}", self.thread_name));
                match thread.spawn_scoped(scope, move || self.read_loop(channel, sink)) {
                    Ok(reader) => readers.push(reader),
                    Err(e) => tracing::warn!("fewer FUSE readers than wanted: {e}"),
                }
            }
            // This thread is the first reader.
            if let Some(first) = self.channels.first() {
                result = self.read_loop(first, sink);
            }
            for reader in readers {
                let ended = reader.join().unwrap_or_else(|_| Err(io::Error::other("a FUSE reader panicked")));
                result = result.and(ended);
            }
            result
        })
    }
}
