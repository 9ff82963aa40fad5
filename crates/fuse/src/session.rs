//! One mounted file system being served.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use zerocopy::FromBytes;

use crate::abi::{self, opcode, wire};
use crate::buffer::{BufferPool, PoolStats};
use crate::dispatch::Dispatcher;
use crate::handler::Handler;
use crate::init::{self, Answer, InitConfig, InitError, Negotiated};
use crate::interrupt::Inflight;
use crate::notify::Notifier;
use crate::transport::{DevChannel, DevTransport, Queues, ReplyChannel, Stop, Transport, receive};

/// Most reader threads started by default.
const DEFAULT_MAX_THREADS: usize = 4;
/// Fewest: one may be busy while another takes its interruption.
const DEFAULT_MIN_THREADS: usize = 2;
/// Buffers that requests may hold at one time by default (64 MiB with 1 MiB requests).
const DEFAULT_BUFFERS: usize = 64;

/// Why a session could not start or ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The connection cannot be negotiated.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The kernel sent something unexpected during start-up.
    #[error("FUSE start-up: {0}")]
    Protocol(String),
    /// Unmounted before it was started.
    #[error("the file system was unmounted before it was started")]
    Unmounted,
    /// Reading from or writing to the device failed.
    #[error("FUSE device: {0}")]
    Io(#[from] io::Error),
}

/// How to serve.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Wishes for the negotiation.
    pub init: InitConfig,
    /// Reader threads; `None` for one per CPU, at least 2 and at most 4.
    pub threads: Option<usize>,
    /// Give each reader its own queue (FUSE_DEV_IOC_CLONE) where possible.
    pub clone_fd: bool,
    /// Somebody else holds the descriptor as well, and serves on if this process ends. What was read and not answered is
    /// then sent again by kernels that can ([`Notifier::resend`]), and ends with an error on others; without this it would
    /// end with an error, or wait for ever.
    pub shared: bool,
    /// Large requests that may be held at one time, each with a buffer of `max_write` + 4096 bytes.
    pub buffers: usize,
    /// Name of the threads, at most 13 bytes to leave room for a number.
    pub thread_name: String,
    /// Serve only root and this user; the counterpart of [`crate::MountOptions::allow_root`]. What the kernel
    /// has cached it shows to everybody, subject to permission bits.
    pub only_uid: Option<u32>,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            init: InitConfig::default(),
            threads: None,
            clone_fd: true,
            shared: false,
            buffers: DEFAULT_BUFFERS,
            thread_name: "fuse".into(),
            only_uid: None,
        }
    }
}

/// A connection with the kernel, ready to serve.
pub struct Session {
    channel: Arc<DevChannel>,
    dispatcher: Arc<Dispatcher>,
    transport: Box<dyn Transport>,
    pool: Arc<BufferPool>,
    stop: Arc<Stop>,
}

impl Session {
    /// Negotiates over the descriptor of a new mount. Returns once the kernel has its answer; requests wait until
    /// [`Session::run`] or [`Session::spawn`].
    ///
    /// # Errors
    /// [`SessionError`]; the connection is closed then, so the mount point answers ENOTCONN until unmounted.
    pub fn new(fd: OwnedFd, config: SessionConfig, handler: impl Handler) -> Result<Self, SessionError> {
        let channel = Arc::new(DevChannel::new(fd));
        let negotiated = handshake(&channel, &config.init)?;
        tracing::debug!(?negotiated, "FUSE connection ready");
        Ok(Self::start(channel, config, negotiated, Box::new(handler)))
    }

    /// Takes over a connection that was negotiated before, by another process or session. Requests that it left
    /// unanswered come again after [`Notifier::resend`].
    pub fn adopt(fd: OwnedFd, config: SessionConfig, negotiated: Negotiated, handler: impl Handler) -> Self {
        Self::start(Arc::new(DevChannel::new(fd)), config, negotiated, Box::new(handler))
    }

    fn start(
        channel: Arc<DevChannel>,
        config: SessionConfig,
        negotiated: Negotiated,
        handler: Box<dyn Handler>,
    ) -> Self {
        let threads = config.threads.unwrap_or_else(default_threads).max(1);
        let size = (negotiated.max_write as usize + abi::HEADER_ROOM).max(abi::MIN_READ_BUFFER);
        let pool = BufferPool::new(size, config.buffers.max(1) + threads, config.shared);
        let stop = Arc::<Stop>::default();
        let queues = match (config.shared, config.clone_fd) {
            // The kernel ends what was read on a descriptor when that is closed, and sends the rest again.
            (true, _) if negotiated.can_resend() => Queues::Shared,
            (true, _) => Queues::Own,
            (false, true) => Queues::OwnButFirst,
            (false, false) => Queues::Shared,
        };
        let transport = DevTransport::new(
            channel.clone(),
            threads,
            queues,
            pool.clone(),
            config.thread_name,
            stop.clone(),
        );
        handler.init(&negotiated);
        let inflight = Arc::new(Inflight::default());
        let dispatcher = Arc::new(Dispatcher { handler, negotiated, inflight, only_uid: config.only_uid });
        Self { channel, dispatcher, transport: Box::new(transport), pool, stop }
    }

    /// What was agreed on.
    pub fn negotiated(&self) -> &Negotiated {
        self.dispatcher.negotiated()
    }

    /// For telling the kernel about changes.
    pub fn notifier(&self) -> Notifier {
        Notifier::new(Arc::downgrade(&self.channel))
    }

    /// For watching the session from elsewhere.
    pub fn monitor(&self) -> Monitor {
        Monitor { dispatcher: self.dispatcher.clone(), pool: self.pool.clone() }
    }

    /// Serves on this thread and further ones until the file system is unmounted.
    ///
    /// # Errors
    /// The first failure of the device; unmounting is none.
    pub fn run(self) -> Result<(), SessionError> {
        let result = self.transport.serve(&*self.dispatcher);
        self.dispatcher.handler.destroy();
        Ok(result?)
    }

    /// Serves on threads of its own.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn spawn(self) -> Result<SessionHandle, SessionError> {
        let (notifier, monitor, stop) = (self.notifier(), self.monitor(), self.stop.clone());
        let thread = std::thread::Builder::new().name("fuse-0".into()).spawn(move || self.run())?;
        Ok(SessionHandle { thread, notifier, monitor, stop })
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("negotiated", self.negotiated()).finish_non_exhaustive()
    }
}

/// Counters of a session.
#[derive(Clone)]
pub struct Monitor {
    dispatcher: Arc<Dispatcher>,
    pool: Arc<BufferPool>,
}

impl Monitor {
    /// Requests received and not yet answered.
    pub fn in_flight(&self) -> usize {
        self.dispatcher.inflight.len()
    }

    /// Frees the receive buffers that no request needed since the last call.
    pub fn trim_buffers(&self) {
        self.pool.trim();
    }

    /// State of the receive buffers.
    pub fn buffers(&self) -> PoolStats {
        self.pool.stats()
    }
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut f = f.debug_struct("Monitor");
        f.field("in_flight", &self.in_flight()).field("buffers", &self.buffers()).finish()
    }
}

/// A session that runs on its own threads. Dropping it leaves them running.
pub struct SessionHandle {
    thread: JoinHandle<Result<(), SessionError>>,
    notifier: Notifier,
    monitor: Monitor,
    stop: Arc<Stop>,
}

impl std::fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionHandle").field("monitor", &self.monitor).finish_non_exhaustive()
    }
}

impl SessionHandle {
    /// Reads no more requests: they wait in the kernel for whoever serves next. Those that were read are still answered
    /// ([`Monitor::in_flight`]). False if reading did not stop within `patience`. Blocks.
    pub fn stop_reading(&self, patience: Duration) -> bool {
        self.stop.stop(patience)
    }

    /// From here on, requests that were read and are dropped unanswered are left to whoever serves next.
    pub fn leave(&self) {
        self.monitor.dispatcher.inflight.leave();
    }

    /// Waits until the file system is unmounted.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn join(self) -> Result<(), SessionError> {
        self.thread.join().unwrap_or_else(|_| Err(SessionError::Protocol("the session panicked".into())))
    }

    /// Whether it ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// For telling the kernel about changes.
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// For watching the session from elsewhere.
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }
}

fn default_threads() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    cpus.clamp(DEFAULT_MIN_THREADS, DEFAULT_MAX_THREADS)
}

fn handshake(channel: &DevChannel, config: &InitConfig) -> Result<Negotiated, SessionError> {
    /// The kernel asks again once at most.
    const ROUNDS: usize = 2;
    // The kernel wants room for the largest request before it knows what that is.
    let mut buf = vec![0; abi::MIN_READ_BUFFER + abi::HEADER_ROOM];
    let stop = Stop::default();
    for _ in 0..ROUNDS {
        let n = receive(channel, &mut buf, &stop)?.ok_or(SessionError::Unmounted)?;
        let bytes = buf.get(..n).unwrap_or_default();
        let Ok((header, args)) = wire::InHeader::read_from_prefix(bytes) else {
            return Err(SessionError::Protocol(format!("first request of only {n} bytes")));
        };
        if header.opcode != opcode::INIT {
            let name = opcode::name(header.opcode);
            return Err(SessionError::Protocol(format!(
                "first request is {name} ({}), not init",
                header.opcode
            )));
        }
        match init::negotiate(args, config, init::max_pages_limit()) {
            Ok(Answer::Agreed(negotiated, out)) => {
                channel.send(header.unique, 0, &[IoSlice::new(&out)])?;
                return Ok(*negotiated);
            }
            Ok(Answer::Retry(out)) => channel.send(header.unique, 0, &[IoSlice::new(&out)])?,
            Err(e) => {
                let _ = channel.send(header.unique, -libc::EPROTO, &[]);
                return Err(e.into());
            }
        }
    }
    Err(SessionError::Protocol("the kernel insists on another major version".into()))
}
