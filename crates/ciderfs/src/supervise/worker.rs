//! The worker's side of a supervised mount.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ciderfs_fuse::Negotiated;
use ciderfs_handover::State;
use ciderfs_handover::link::{self, Link};
use ciderfs_mount::{Begun, Outlive};
use tokio::sync::Notify;

use super::turn;
use crate::descriptors;
use crate::failure::{Failure, Result};

/// Set for a worker.
pub const ENV: &str = "CIDERFS_WORKER";

static WORKER: OnceLock<Worker> = OnceLock::new();

/// What this process has been given by its supervisor.
pub struct Worker {
    link: Arc<Link>,
    /// What the mount's processes leave to each other.
    pub state: Arc<State>,
    /// Requests that must happen once.
    pub begun: Arc<Begun>,
    connection: Mutex<Option<Connection>>,
    watchdog: Option<Option<Duration>>,
    hand_over: Notify,
    stop: Notify,
    orphan: AtomicBool,
}

/// A mount that another process has served.
pub struct Connection {
    /// Descriptor of the device.
    pub fd: OwnedFd,
    /// Number of the mount.
    pub device: Option<(u32, u32)>,
    /// What was agreed with the kernel.
    pub negotiated: Negotiated,
}

/// This process as a worker, if it is one.
pub fn get() -> Option<&'static Worker> {
    WORKER.get()
}

/// The command line of this process, which a supervisor tells its worker: everybody can read what stands in its own.
///
/// # Errors
/// The supervisor says nothing that makes sense.
pub fn command_line(own: Vec<OsString>) -> Result<Vec<OsString>> {
    if std::env::var_os(ENV).is_none() {
        return Ok(own);
    }
    super::signals::as_usual();
    let _ = rustix::thread::set_name(c"ciderfs");
    let link = Link::over(std::io::stdin().as_fd().try_clone_to_owned()?);
    if let Ok(nothing) = File::open("/dev/null") {
        let _ = descriptors::read_from(&nothing);
    }
    let nothing = || Failure::new("the supervisor of this mount has ended");
    let message = link.receive(true)?.filter(|m| m.kind == link::BEGIN).ok_or_else(nothing)?;
    let mut words = link::split(&message.text).into_iter();
    let device = device_of(words.next().unwrap_or_default());
    // Empty: no service manager; 0: one without a watchdog.
    let usec: Option<u64> = words.next().and_then(|w| std::str::from_utf8(w).ok()?.parse().ok());
    let argv = words.map(|w| OsString::from_vec(w.to_vec())).collect();
    let mut fds = message.fds.into_iter();
    let (Some(state), Some(begun)) = (fds.next(), fds.next()) else { return Err(nothing()) };
    let state = State::from_fd(state)?;
    let begun = File::from(begun);
    turn::take(&begun).map_err(|_| match turn::holder(&begun) {
        Ok(Some(pid)) => Failure::new(format!("process {pid} serves this mount")),
        _ => Failure::new("another process serves this mount"),
    })?;
    let connection = fds.next().and_then(|fd| {
        let negotiated = Negotiated::from_bytes(&state.negotiated())?;
        Some(Connection { fd, device, negotiated })
    });
    let worker = Worker {
        link: Arc::new(link),
        state: Arc::new(state),
        begun: Arc::new(Begun::in_file(begun)?),
        connection: Mutex::new(connection),
        watchdog: usec.map(|usec| (usec > 0).then(|| Duration::from_micros(usec))),
        hand_over: Notify::new(),
        stop: Notify::new(),
        orphan: AtomicBool::new(false),
    };
    let _ = WORKER.set(worker);
    Ok(argv)
}

/// `MAJOR:MINOR`.
pub(super) fn device_of(text: &[u8]) -> Option<(u32, u32)> {
    let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Worker {
    /// The mount that this process goes on with. Given once.
    pub fn take_connection(&self) -> Option<Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a service manager listens, and how often it wants a sign of life.
    pub fn manager(&self) -> Option<Option<Duration>> {
        self.watchdog
    }

    fn tell(&self, kind: u8, text: &[u8], fds: &[BorrowedFd<'_>]) -> std::io::Result<()> {
        self.link
            .send(kind, text, fds)
            .inspect_err(|e| tracing::debug!("the supervisor does not listen: {e}"))
    }

    /// It serves.
    pub fn ready(&self, text: &str) {
        let _ = self.tell(link::READY, text.as_bytes(), &[]);
    }

    /// What it is for is there already.
    pub fn already(&self, text: &str) {
        let _ = self.tell(link::READY, text.as_bytes(), &[]);
        self.ended();
    }

    /// It cannot.
    pub fn failed(&self, text: &str) {
        let _ = self.tell(link::FAILED, text.as_bytes(), &[]);
    }

    /// Something for the service manager.
    pub fn notify(&self, text: &str) {
        let _ = self.tell(link::NOTIFY, text.as_bytes(), &[]);
    }

    /// The mount has ended, and not only this process.
    pub fn ended(&self) {
        let _ = self.tell(link::ENDED, b"", &[]);
    }

    /// What a new mount needs to outlive this process.
    pub fn outlive(&self) -> Outlive {
        let (link, state) = (Arc::clone(&self.link), Arc::clone(&self.state));
        Outlive {
            begun: Arc::clone(&self.begun),
            mounted: Box::new(move |fd, device| {
                let device = device.map(|(major, minor)| format!("{major}:{minor}")).unwrap_or_default();
                link.send(link::MOUNTED, device.as_bytes(), &[fd])
            }),
            agreed: Box::new(move |negotiated| state.set_negotiated(&negotiated.to_bytes())),
        }
    }

    /// Listens to the supervisor from now on.
    pub fn listen(&'static self) -> Result<()> {
        std::thread::Builder::new().name("supervisor".into()).spawn(|| {
            loop {
                match self.link.receive(true) {
                    Ok(Some(message)) if message.kind == link::HAND_OVER => self.hand_over.notify_one(),
                    Ok(Some(message)) if message.kind == link::STOP => self.stop.notify_one(),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(e) => {
                        tracing::warn!("the supervisor cannot be heard: {e}");
                        break;
                    }
                }
            }
            self.orphan.store(true, Ordering::Relaxed);
            tracing::warn!("the supervisor of this mount has ended: nobody starts this process again");
        })?;
        Ok(())
    }

    /// Leaves the mount to another worker, though the supervisor has not asked for it.
    pub fn leave(&self) {
        let _ = self.tell(link::LEAVING, b"", &[]);
        self.hand_over.notify_one();
    }

    /// Waits until another worker is to go on.
    pub async fn is_to_leave(&self) {
        self.hand_over.notified().await;
    }

    /// Whether nobody passes signals on.
    pub fn is_orphan(&self) -> bool {
        self.orphan.load(Ordering::Relaxed)
    }

    /// Waits until the supervisor wants the mount to end.
    pub async fn is_to_stop(&self) {
        self.stop.notified().await;
    }
}
