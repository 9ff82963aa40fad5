//! Looking at mounts, binding and unmounting, each in a [`disposable`] child. A bind is made of what was looked at, not of a path
//! that something else may have taken meanwhile.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use crate::disposable::{self, Answer, Failure, WORDS};

/// Inode of the root of a mount.
pub const ROOT_INODE: u64 = 1;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Whoever serves it answers.
    Alive {
        /// Device number, major and minor.
        device: (u32, u32),
        /// Inode.
        inode: u64,
    },
    /// A mount whose server has died.
    Dead,
    /// There is nothing.
    Missing,
    /// There was no answer in time.
    Hung,
    /// Something else is wrong.
    Wrong(Errno),
}

/// Does an error say that the server of a mount has died?
pub fn is_death(e: Errno) -> bool {
    matches!(e, Errno::NOTCONN | Errno::CONNABORTED)
}

fn c_path(path: &Path) -> Result<CString, Failure> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Failure::Step(0, Errno::INVAL))
}

/// Looks at a path, past what the kernel remembers of it.
pub fn look(path: &Path, patience: Duration) -> Seen {
    let seen = c_path(path).and_then(|path| {
        disposable::run_once(("look", path.clone()), patience, || {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_FORCE_SYNC;
            let found = rustix::fs::statx(rustix::fs::CWD, path.as_c_str(), flags, StatxFlags::BASIC_STATS);
            let found = found.map_err(|e| (0, e))?;
            words(&[found.stx_dev_major.into(), found.stx_dev_minor.into(), found.stx_ino])
        })
    });
    match seen {
        Ok([major, minor, inode, ..]) => Seen::Alive { device: (major as u32, minor as u32), inode },
        Err(Failure::Step(_, e)) if is_death(e) => Seen::Dead,
        Err(Failure::Step(_, Errno::NOENT | Errno::NOTDIR)) => Seen::Missing,
        Err(Failure::Step(_, e)) => Seen::Wrong(e),
        Err(Failure::TimedOut) => Seen::Hung,
        Err(Failure::Lost(_)) => Seen::Wrong(Errno::AGAIN),
    }
}

fn words(some: &[u64]) -> Answer {
    let mut all = [0; WORDS];
    all[..some.len()].copy_from_slice(some);
    Ok(all)
}

/// What `df` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that are left.
    pub bytes_left: u64,
    /// Inodes in all.
    pub inodes: u64,
    /// Inodes that are left.
    pub inodes_left: u64,
}

/// Asks a mount how much room it has.
///
/// # Errors
/// Of the call; no answer in time.
pub fn space(path: &Path, patience: Duration) -> Result<Space, Failure> {
    let path = c_path(path)?;
    let [bytes, bytes_left, inodes, inodes_left, ..] =
        disposable::run_once(("space", path.clone()), patience, || {
            let s = rustix::fs::statvfs(path.as_c_str()).map_err(|e| (0, e))?;
            let unit = s.f_frsize.max(1);
            words(&[s.f_blocks.saturating_mul(unit), s.f_bavail.saturating_mul(unit), s.f_files, s.f_favail])
        })?;
    Ok(Space { bytes, bytes_left, inodes, inodes_left })
}

/// Unmounts what is on top at a path. With `lazy` what still uses it is left with it.
///
/// # Errors
/// `EBUSY` when in use and not `lazy`; `EINVAL` when nothing is mounted there.
pub fn unmount(path: &Path, lazy: bool, patience: Duration) -> Result<(), Failure> {
    let path = c_path(path)?;
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() } | UnmountFlags::NOFOLLOW;
    let done = disposable::run_once(("unmount", path.clone()), patience, || {
        rustix::mount::unmount(path.as_c_str(), flags).map_err(|e| (0, e))?;
        words(&[])
    });
    done.map(|_| ())
}

/// Ends the connection of what is mounted at a path with whoever serves it or holds it: all who wait get an error. It is unmounted too, if
/// nobody uses it.
pub fn abort(path: &Path, patience: Duration) {
    let Ok(path) = c_path(path) else { return };
    let done = disposable::run(patience, || {
        let flags = UnmountFlags::FORCE | UnmountFlags::NOFOLLOW;
        rustix::mount::unmount(path.as_c_str(), flags).map_err(|e| (0, e))?;
        words(&[])
    });
    if let Err(e) = done
        && !matches!(e, Failure::Step(_, Errno::BUSY))
    {
        tracing::warn!("ending the connection of {}: {e}", path.to_string_lossy());
    }
}

/// A bind mount to be made.
#[derive(Debug, Clone, Copy)]
pub struct Bind<'a> {
    /// Where the client's mount is.
    pub source: &'a Path,
    /// Its device, as the mount table tells it.
    pub device: (u32, u32),
    /// The directory of it; empty for the root.
    pub directory: &'a Path,
    /// Where it is to appear.
    pub target: &'a Path,
    /// Nobody may write there.
    pub read_only: bool,
    /// A dead mount is there, which is to be replaced. At no moment is there nothing: a pod that sees the change would write on the disk
    /// of the machine.
    pub over_dead: bool,
}

/// `MOVE_MOUNT_BENEATH`: below what is mounted there (Linux 6.5).
const BENEATH: MoveMountFlags = MoveMountFlags::from_bits_retain(0x200);

/// Steps of a bind, for those who read errors.
const STEPS: [&str; 9] = [
    "opening the client's mount",
    "the client's mount is not there: another file system is in its place",
    "opening the volume's directory",
    "taking the tree",
    "the tree is not of the client's mount",
    "making it read-only",
    "attaching it",
    "looking at the target",
    "the target shows something else than the volume",
];

/// What a step of a bind was about.
pub fn step(number: u32) -> &'static str {
    STEPS.get(number as usize).copied().unwrap_or_default()
}

/// Binds. The source is looked at through the descriptor that the tree is then taken from: its root must be that of the client's mount
/// (inode 1 of this device). What is attached is looked at again, and taken away if it is not that.
///
/// # Errors
/// [`step`] tells which one failed.
pub fn bind(bind: Bind<'_>, patience: Duration) -> Result<(), Failure> {
    let (source, target) = (c_path(bind.source)?, c_path(bind.target)?);
    let directory = c_path(bind.directory)?;
    let (device, read_only, over_dead) = (bind.device, bind.read_only, bind.over_dead);
    let done = disposable::run_once(("bind", source.clone()), patience, || {
        let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::open(source.as_c_str(), open, Mode::empty()).map_err(|e| (0, e))?;
        let (at, inode) = of(&root).map_err(|e| (0, e))?;
        if at != device || inode != ROOT_INODE {
            return Err((1, Errno::STALE));
        }
        let mut inner = root;
        if !directory.is_empty() {
            let stay = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            inner = rustix::fs::openat2(&inner, directory.as_c_str(), open, Mode::empty(), stay)
                .map_err(|e| (2, e))?;
        }
        let wanted = of(&inner).map_err(|e| (2, e))?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = rustix::mount::open_tree(&inner, c"", flags).map_err(|e| (3, e))?;
        if of(&tree).map_err(|e| (4, e))? != wanted || wanted.0 != device {
            return Err((4, Errno::STALE));
        }
        // Before anybody can see it, where the kernel can do that (5.12).
        let late = read_only
            && match disposable::read_only(&tree) {
                Ok(()) => false,
                Err(Errno::NOSYS) => true,
                Err(e) => return Err((5, e)),
            };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let attach = |how| rustix::mount::move_mount(&tree, c"", rustix::fs::CWD, target.as_c_str(), how);
        if over_dead && attach(flags | BENEATH).is_ok() {
            let detach = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            rustix::mount::unmount(target.as_c_str(), detach).map_err(|e| (6, e))?;
        } else {
            // On top of the dead one, if there is one: it goes when the target does.
            attach(flags).map_err(|e| (6, e))?;
        }
        let checked = (|| {
            if late {
                let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
                rustix::mount::mount_remount(target.as_c_str(), flags, c"").map_err(|e| (5, e))?;
            }
            let there = rustix::fs::open(target.as_c_str(), open, Mode::empty()).map_err(|e| (7, e))?;
            if of(&there).map_err(|e| (7, e))? == wanted { Ok(()) } else { Err((8, Errno::STALE)) }
        })();
        if let Err(e) = checked {
            // Made just now, and told to nobody.
            let _ = rustix::mount::unmount(target.as_c_str(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            return Err(e);
        }
        words(&[])
    });
    done.map(|_| ())
}

/// Device and inode of what is open, as its server tells them.
fn of(fd: impl std::os::fd::AsFd) -> Result<((u32, u32), u64), Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let found = rustix::fs::statx(fd, c"", flags, StatxFlags::BASIC_STATS)?;
    Ok(((found.stx_dev_major, found.stx_dev_minor), found.stx_ino))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_disk_of_the_machine_is_never_bound() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("source"), dir.path().join("target"));
        std::fs::create_dir(&source).unwrap();
        std::fs::create_dir(&target).unwrap();
        let Seen::Alive { device, .. } = look(&source, LONG) else { unreachable!() };
        let bound = Bind {
            source: &source,
            device,
            directory: Path::new(""),
            target: &target,
            read_only: false,
            over_dead: false,
        };
        // Even with the right device: it is not the root of a mount.
        assert!(matches!(bind(bound, LONG), Err(Failure::Step(1, _))));
        assert!(matches!(bind(Bind { device: (0, 0), ..bound }, LONG), Err(Failure::Step(1, _))));
        assert!(matches!(unmount(&target, false, LONG), Err(Failure::Step(_, Errno::INVAL))));
        assert_eq!(look(&dir.path().join("none"), LONG), Seen::Missing);
    }
}
