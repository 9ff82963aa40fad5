//! Mounting and unmounting.

mod direct;
mod error;
mod fusermount;
mod guard;
mod mountinfo;
mod options;
#[cfg(test)]
mod tests;
mod utab;

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::MountError;
pub use guard::MountGuard;
pub use mountinfo::{MountInfo, find_mount, list_mounts};
pub use options::{MountOptions, has_selinux, is_context, is_one, split, split_text};

/// Mounts a FUSE file system on a directory: directly when privileged, else with the program `fusermount3`.
/// Serve the returned descriptor with [`crate::Session`] soon; the first access to the mount waits for it.
///
/// Dropping the guard unmounts; [`MountGuard::disarm`] leaves the mount alone.
///
/// # Errors
/// [`MountError`] with a message fit for users.
pub fn mount(mountpoint: &Path, options: &MountOptions) -> Result<(OwnedFd, MountGuard), MountError> {
    let mountpoint = check(mountpoint, options)?;
    let fd = match rustix::process::geteuid().is_root() {
        true => match direct::mount(&mountpoint, options) {
            // Root in a container without the capability may still have the helper.
            Err(MountError::Denied { .. }) if fusermount::is_installed() => {
                fusermount::mount(&mountpoint, options)?
            }
            other => other?,
        },
        false => fusermount::mount(&mountpoint, options)?,
    };
    let mut guard = MountGuard::new(mountpoint);
    if !options.table.is_empty() {
        guard.enter(&options.fsname, &options.table);
    }
    Ok((fd, guard))
}

/// The duty for a mount that another process has made with these options, and that is `device`.
///
/// # Errors
/// When a directory on the way to it cannot be followed.
pub fn take_over(
    mountpoint: &Path,
    device: Option<(u32, u32)>,
    options: &MountOptions,
) -> Result<MountGuard, MountError> {
    let mountpoint = absolute(mountpoint).map_err(|source| MountError::io(mountpoint, source))?;
    let mut guard = MountGuard::of(mountpoint, device);
    if !options.table.is_empty() {
        guard.enter(&options.fsname, &options.table);
    }
    Ok(guard)
}

/// Unmounts whatever FUSE file system is mounted there, also one of another process or with a dead server. With
/// `lazy`, detaches it now and lets open files end later.
///
/// # Errors
/// [`MountError::Busy`] when in use and not `lazy`; [`MountError::NotMounted`].
pub fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let mountpoint = absolute(mountpoint).map_err(|source| MountError::io(mountpoint, source))?;
    if rustix::process::geteuid().is_root() {
        direct::unmount(&mountpoint, lazy)
    } else {
        fusermount::unmount(&mountpoint, lazy)
    }
}

/// Changes the flags of a mounted FUSE file system, such as `ro`, `rw`, `nosuid`; options without a flag of mount(2) are
/// left alone, because the kernel changes no others. Whoever serves the mount is not told.
///
/// # Errors
/// [`MountError::Busy`] for `ro` while a file is open for writing; [`MountError::NotMounted`]; [`MountError::Denied`].
pub fn remount(mountpoint: &Path, options: &[&str]) -> Result<(), MountError> {
    let mountpoint = absolute(mountpoint).map_err(|source| MountError::io(mountpoint, source))?;
    let found = find_mount(&mountpoint).map_err(|source| MountError::io(&mountpoint, source))?;
    let info = found
        .filter(MountInfo::is_fuse)
        .ok_or_else(|| MountError::NotMounted { mountpoint: mountpoint.clone() })?;
    let mut flags = rustix::mount::MountFlags::empty();
    for option in info.options.split(',').chain(options.iter().copied()) {
        options::apply(&mut flags, option);
    }
    direct::remount(&mountpoint, flags)
}

/// Sets the kernel's read-ahead for a mounted file system, in KiB. Needs root. Does not touch the mount itself,
/// so that the serving process may call it.
///
/// # Errors
/// When the mount is not found or the setting may not be written.
pub fn set_read_ahead_kb(mountpoint: &Path, kb: u32) -> io::Result<()> {
    let mountpoint = absolute(mountpoint)?;
    let info = find_mount(&mountpoint)?.ok_or(io::ErrorKind::NotFound)?;
    std::fs::write(format!("/sys/class/bdi/{}:{}/read_ahead_kb", info.major, info.minor), kb.to_string())
}

/// The path without symbolic links, found without touching what is mounted at its end.
///
/// # Errors
/// When a directory on the way to it cannot be followed.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            let joined = parent.canonicalize()?.join(name);
            // A link is not a mount point; what it leads to may be one.
            match std::fs::read_link(&joined) {
                Ok(_) => joined.canonicalize(),
                Err(_) => Ok(joined),
            }
        }
        // "/", or something that ends in "..".
        _ => path.canonicalize(),
    }
}

/// Removes from the table of options that the kernel does not keep (`/run/mount/utab`) what killed servers have left there: lines
/// of mounts whose sources begin with a text and that are gone. Without the right to do so the lines stay.
pub fn sweep_table(source: &str) {
    if rustix::process::geteuid().is_root()
        && let Err(e) = utab::sweep(source)
    {
        tracing::debug!("lines of dead mounts stay in the table: {e}");
    }
}

fn check(mountpoint: &Path, options: &MountOptions) -> Result<PathBuf, MountError> {
    let fail = |source: io::Error| match source.raw_os_error() {
        Some(libc::ENOENT) => MountError::Missing { mountpoint: mountpoint.into() },
        Some(libc::ENOTCONN) => MountError::Broken { mountpoint: mountpoint.into() },
        _ => MountError::io(mountpoint, source),
    };
    let full = absolute(mountpoint).map_err(fail)?;
    // Asked before stat, which hangs on a mount whose server hangs.
    if !options.allow_over
        && let Some(info) = find_mount(&full).map_err(fail)?
        && info.is_fuse()
        && full.as_os_str() != OsStr::new("/")
    {
        return Err(match is_broken(&full) {
            true => MountError::Broken { mountpoint: full },
            false => MountError::Busy { mountpoint: full, by: format!("{} ({})", info.source, info.fstype) },
        });
    }
    match std::fs::metadata(&full) {
        Ok(meta) if meta.is_dir() => Ok(full),
        Ok(_) => Err(MountError::NotADirectory { mountpoint: full }),
        Err(e) => Err(fail(e)),
    }
}

/// Whether the server of the mount there is gone. A mount that does not answer counts as alive.
fn is_broken(mountpoint: &Path) -> bool {
    const PATIENCE: Duration = Duration::from_secs(2);
    let (tx, rx) = std::sync::mpsc::channel();
    let path = mountpoint.to_path_buf();
    // A thread of its own, because there is no stat with a time limit.
    let spawned = std::thread::Builder::new().spawn(move || _ = tx.send(std::fs::metadata(path)));
    spawned.is_ok()
        && matches!(rx.recv_timeout(PATIENCE), Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOTCONN))
}
