//! Mounting a vfs and serving it until it is unmounted.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_format::Ino;
use ciderfs_fuse::{
    InitConfig, Monitor, MountError, MountGuard, MountOptions, Negotiated, Notifier, Session, SessionConfig,
    SessionError, SessionHandle,
};
use ciderfs_vfs::{Growth, Kernel, Stale, Vfs};
use tokio::runtime::Handle;

use crate::begun::Begun;
use crate::handler::{Bridge, Front, Validity};
use crate::identity::Identity;
use crate::xattr::XattrOptions;

/// Read-ahead of the kernel, in KiB; its own default of 128 halves sequential reads.
const READ_AHEAD_KB: u32 = 1024;

/// After unmounting, requests under way have this long to end.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// Between two looks at them.
const LAST_REQUESTS_POLL: Duration = Duration::from_millis(5);

/// How a volume is mounted.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Options of the mount itself.
    pub mount: MountOptions,
    /// Reader threads of the kernel connection; `None` chooses by the number of processors.
    pub threads: Option<usize>,
    /// How long the kernel may believe attributes.
    pub attr_valid: Duration,
    /// How long the kernel may believe names of files.
    pub entry_valid: Duration,
    /// How long the kernel may believe names of directories.
    pub dir_entry_valid: Duration,
    /// How long the kernel may believe that a name is missing; 0 asks every time.
    pub negative_valid: Duration,
    /// Which extended attributes there are.
    pub xattr: XattrOptions,
    /// As whom callers count, and who checks permissions.
    pub identity: Identity,
    /// `chattr` and `lsattr` work.
    pub ioctl: bool,
    /// Serve only root and this user; the counterpart of `allow_root`.
    pub only_uid: Option<u32>,
    /// The kernel may keep listings of directories that have not changed.
    pub keep_listings: bool,
    /// What to negotiate with the kernel.
    pub init: InitConfig,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            mount: MountOptions::default(),
            threads: None,
            attr_valid: Duration::from_secs(1),
            entry_valid: Duration::from_secs(1),
            dir_entry_valid: Duration::from_secs(1),
            negative_valid: Duration::ZERO,
            xattr: XattrOptions::default(),
            identity: Identity::default(),
            ioctl: true,
            only_uid: None,
            keep_listings: false,
            init: InitConfig {
                handle_killpriv_v2: true,
                // With it a program that is running would be emptied before open(O_RDONLY | O_TRUNC) fails with ETXTBSY.
                atomic_o_trunc: false,
                ..InitConfig::default()
            },
        }
    }
}

/// Why mounting failed.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The mount itself.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The conversation with the kernel.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// A volume that is mounted and served.
pub struct MountedFs {
    guard: MountGuard,
    session: SessionHandle,
}

/// What a mount needs that outlives the process that serves it.
pub struct Outlive {
    /// Requests that must happen once.
    pub begun: Arc<Begun>,
    /// Called with the descriptor of a new mount and its device number, before anything is asked of it.
    pub mounted: OnMounted,
    /// Called with what was negotiated.
    pub agreed: OnAgreed,
}

/// See [`Outlive`].
pub type OnMounted = Box<dyn FnOnce(BorrowedFd<'_>, Option<(u32, u32)>) -> io::Result<()> + Send>;
/// See [`Outlive`].
pub type OnAgreed = Box<dyn FnOnce(&Negotiated) -> io::Result<()> + Send>;

/// Mounts `vfs` at `mountpoint` and serves it on threads of its own; what has to wait runs on `runtime`.
pub fn serve(
    vfs: Arc<Vfs>,
    mountpoint: &Path,
    options: &ServeOptions,
    outlive: Option<Outlive>,
    runtime: Handle,
) -> Result<MountedFs, ServeError> {
    let (fd, guard) = ciderfs_fuse::mount::mount(mountpoint, &options.mount)?;
    let shared = outlive.is_some();
    let (begun, agreed) = match outlive {
        Some(Outlive { begun, mounted, agreed }) => {
            mounted(fd.as_fd(), guard.device()).map_err(SessionError::Io)?;
            (Some(begun), Some(agreed))
        }
        None => (None, None),
    };
    let (front, config) = front(&vfs, options, begun, shared, runtime.clone());
    let session = Session::new(fd, config, front)?;
    if let Some(agreed) = agreed {
        agreed(session.negotiated()).map_err(SessionError::Io)?;
    }
    begin(&vfs, &session, runtime);
    if let Err(e) = guard.set_read_ahead_kb(READ_AHEAD_KB) {
        tracing::debug!("the kernel's read-ahead stays at its default: {e}");
    }
    Ok(MountedFs { guard, session: session.spawn()? })
}

/// Serves on where another process has served the mount on `fd`, with what it has negotiated. What it did not answer comes again,
/// and nothing that the kernel remembers of names and attributes is believed.
pub fn adopt(
    vfs: Arc<Vfs>,
    (fd, device): (OwnedFd, Option<(u32, u32)>),
    mountpoint: &Path,
    negotiated: Negotiated,
    options: &ServeOptions,
    begun: Arc<Begun>,
    runtime: Handle,
) -> Result<MountedFs, ServeError> {
    let guard = ciderfs_fuse::mount::take_over(mountpoint, device, &options.mount)?;
    let (front, config) = front(&vfs, options, Some(begun), true, runtime.clone());
    let (resends, epochs) = (negotiated.can_resend(), negotiated.can_inc_epoch());
    let session = Session::adopt(fd, config, negotiated, front);
    begin(&vfs, &session, runtime);
    let notifier = session.notifier();
    // What others have changed meanwhile is seen at once where the kernel can be told so, else when its own times are over.
    if epochs && let Err(e) = notifier.inc_epoch() {
        tracing::debug!("names stay believed for their time: {e}");
    }
    // Before anything is read, so that what was begun earlier comes first.
    if resends && let Err(e) = notifier.resend() {
        tracing::warn!("requests that the former process has not answered are lost: {e}");
    }
    Ok(MountedFs { guard, session: session.spawn()? })
}

/// The kernel's requests, as calls of the vfs.
fn front(
    vfs: &Arc<Vfs>,
    options: &ServeOptions,
    begun: Option<Arc<Begun>>,
    shared: bool,
    runtime: Handle,
) -> (Front, SessionConfig) {
    let mut init = options.init.clone();
    init.dont_mask |= options.identity.umask.is_some();
    let cached = options.identity.names_may_be_cached();
    let bridge = Arc::new(Bridge {
        vfs: Arc::clone(vfs),
        runtime,
        valid: Validity {
            attr: options.attr_valid,
            entry: if cached { options.entry_valid } else { Duration::ZERO },
            dir_entry: if cached { options.dir_entry_valid } else { Duration::ZERO },
            negative: options.negative_valid,
        },
        xattr: options.xattr,
        identity: options.identity,
        masks: init.dont_mask || init.posix_acl,
        ioctl: options.ioctl,
        keep_listings: options.keep_listings,
        begun,
    });
    let config = SessionConfig {
        init,
        threads: options.threads,
        only_uid: options.only_uid,
        shared,
        ..SessionConfig::default()
    };
    (Front(bridge), config)
}

/// What the vfs tells the kernel.
fn begin(vfs: &Arc<Vfs>, session: &Session, runtime: Handle) {
    let notifier = session.notifier();
    vfs.set_kernel(Arc::new(Notified { notifier, runtime }));
}

/// The kernel behind a mount.
struct Notified {
    notifier: Notifier,
    runtime: Handle,
}

impl Kernel for Notified {
    fn invalidate(&self, ino: Ino, what: Stale) {
        let notifier = self.notifier.clone();
        if what == Stale::Attributes {
            // Takes no lock that a request can hold.
            if let Err(e) = notifier.inval_inode(ino.0, -1, 0) {
                tracing::debug!("invalidating attributes of inode {ino}: {e}");
            }
            return;
        }
        // From a thread of its own: the kernel may hold a page lock that a request of this file waits for.
        self.runtime.spawn_blocking(move || {
            if let Err(e) = notifier.inval_inode(ino.0, 0, 0) {
                tracing::debug!("invalidating inode {ino}: {e}");
            }
        });
    }

    fn forget_name(&self, dir: Ino, name: &[u8]) -> Forgotten {
        let (notifier, name) = (self.notifier.clone(), name.to_vec());
        // From a thread of its own: the kernel takes the directory's lock, which a request may hold.
        let forgotten = self.runtime.spawn_blocking(move || {
            if let Err(e) = notifier.inval_entry(dir.0, &name, false) {
                tracing::debug!("forgetting a name in directory {dir}: {e}");
            }
        });
        Box::pin(async move { forgotten.await.unwrap_or_default() })
    }

    /// From a thread of its own: the kernel may wait for pages that other requests hold.
    fn forget(&self, ino: Ino, off: u64, len: u64) -> Forgotten {
        let notifier = self.notifier.clone();
        let done = self.runtime.spawn_blocking(move || {
            // Offsets of files fit: the kernel's own are signed.
            if let Err(e) = notifier.inval_inode(ino.0, off.cast_signed(), len.cast_signed()) {
                tracing::debug!("invalidating inode {ino}: {e}");
            }
        });
        Box::pin(async move { _ = done.await })
    }

    /// From a thread of its own as well.
    fn grow(&self, growth: Growth) -> Grown {
        let notifier = self.notifier.clone();
        let done = self.runtime.spawn_blocking(move || {
            let (ino, at) = (growth.ino.0, growth.at);
            // A page that is not full yet would show zeros behind the old end.
            let mut told = notifier.inval_inode(ino, growth.before.cast_signed(), 0);
            if !growth.is_current() {
                return false;
            }
            told = told.and_then(|_| notifier.store(ino, at, &[growth.last]));
            // The length stays, also if the byte should have changed meanwhile.
            told = told.and_then(|_| notifier.inval_inode(ino, at.cast_signed(), 1));
            if let Err(e) = &told {
                tracing::debug!("telling the length of inode {ino}: {e}");
            }
            told.unwrap_or(false)
        });
        Box::pin(async move { done.await.unwrap_or(false) })
    }
}

type Forgotten = Pin<Box<dyn Future<Output = ()> + Send>>;
type Grown = Pin<Box<dyn Future<Output = bool> + Send>>;

impl MountedFs {
    /// For watching the session from elsewhere.
    pub fn monitor(&self) -> Monitor {
        self.session.monitor()
    }

    /// Has the file system been unmounted?
    pub fn is_finished(&self) -> bool {
        self.session.is_finished()
    }

    /// Unmounts; `lazy` detaches a busy mount and serves it on until its last user leaves.
    pub fn unmount(&mut self, lazy: bool) -> Result<(), ServeError> {
        Ok(self.guard.unmount(lazy)?)
    }

    /// Reads no more requests, which wait for whoever serves next, and gives those that were read so long to end. False if
    /// some did not. Blocks.
    pub fn pause(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        let monitor = self.session.monitor();
        let stopped = self.session.stop_reading(patience);
        while monitor.in_flight() > 0 && begun.elapsed() < patience {
            std::thread::sleep(LAST_REQUESTS_POLL);
        }
        stopped && monitor.in_flight() == 0
    }

    /// Leaves the mount to another process, and to that one the requests that are not answered yet.
    pub fn leave(self) {
        self.session.leave();
        // Neither the mount nor what others are told of it ends with this process.
        std::mem::forget(self.guard);
    }

    /// Waits until the file system is unmounted and the last request is answered.
    pub fn join(self) -> Result<(), ServeError> {
        let Self { guard, session } = self;
        // After an error the guard unmounts when dropped.
        let monitor = session.monitor();
        session.join()?;
        // Nobody waits for the last answers, but what those requests have begun ends first.
        let begun = Instant::now();
        while monitor.in_flight() > 0 && begun.elapsed() < LAST_REQUESTS {
            std::thread::sleep(LAST_REQUESTS_POLL);
        }
        guard.finish();
        Ok(())
    }
}
