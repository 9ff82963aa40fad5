//! Mounting a vfs and serving it until it is unmounted.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_fuse::{
    InitConfig, MountError, MountGuard, MountOptions, Session, SessionConfig, SessionError, SessionHandle,
};
use ciderfs_vfs::{Stale, Vfs};
use tokio::runtime::Handle;

use crate::handler::{Bridge, Front, Validity};
use crate::xattr::XattrOptions;

/// Read-ahead of the kernel, in KiB; its own default of 128 halves sequential reads.
const READ_AHEAD_KB: u32 = 1024;

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
    /// Check permissions in this process, for mounts without `default_permissions`.
    pub check_permissions: bool,
    /// Which extended attributes there are.
    pub xattr: XattrOptions,
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
            check_permissions: false,
            xattr: XattrOptions::default(),
            // Locks stay with the kernel, local to this machine, until the metadata layer has them.
            init: InitConfig {
                posix_locks: false,
                flock_locks: false,
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

/// Mounts `vfs` at `mountpoint` and serves it on threads of its own; what has to wait runs on `runtime`.
pub fn serve(
    vfs: Arc<Vfs>,
    mountpoint: &Path,
    options: &ServeOptions,
    runtime: Handle,
) -> Result<MountedFs, ServeError> {
    let (fd, guard) = ciderfs_fuse::mount::mount(mountpoint, &options.mount)?;
    let bridge = Arc::new(Bridge {
        vfs: Arc::clone(&vfs),
        runtime: runtime.clone(),
        valid: Validity {
            attr: options.attr_valid,
            entry: options.entry_valid,
            dir_entry: options.dir_entry_valid,
            negative: options.negative_valid,
        },
        check: options.check_permissions,
        masks: options.init.posix_acl || options.init.dont_mask,
        xattr: options.xattr,
    });
    let config =
        SessionConfig { init: options.init.clone(), threads: options.threads, ..SessionConfig::default() };
    let session = Session::new(fd, config, Front(bridge))?;
    let notifier = session.notifier();
    vfs.set_invalidator(Box::new(move |ino, what| {
        if what == Stale::Attributes {
            // Takes no lock that a request can hold.
            if let Err(e) = notifier.inval_inode(ino.0, -1, 0) {
                tracing::debug!("invalidating attributes of inode {ino}: {e}");
            }
            return;
        }
        // From a thread of its own: the kernel may hold a page lock that a request of this file waits for.
        let notifier = notifier.clone();
        runtime.spawn_blocking(move || {
            if let Err(e) = notifier.inval_inode(ino.0, 0, 0) {
                tracing::debug!("invalidating inode {ino}: {e}");
            }
        });
    }));
    if let Err(e) = guard.set_read_ahead_kb(READ_AHEAD_KB) {
        tracing::debug!("the kernel's read-ahead stays at its default: {e}");
    }
    Ok(MountedFs { guard, session: session.spawn()? })
}

impl MountedFs {
    /// Has the file system been unmounted?
    pub fn is_finished(&self) -> bool {
        self.session.is_finished()
    }

    /// Unmounts; `lazy` detaches a busy mount and serves it on until its last user leaves.
    pub fn unmount(&mut self, lazy: bool) -> Result<(), ServeError> {
        Ok(self.guard.unmount(lazy)?)
    }

    /// Waits until the file system is unmounted and the last request is answered.
    pub fn join(self) -> Result<(), ServeError> {
        let Self { guard, session } = self;
        // After an error the guard unmounts when dropped.
        session.join()?;
        guard.finish();
        Ok(())
    }
}
