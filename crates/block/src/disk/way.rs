//! The way to a cache directory. The client often runs as root, and a cache lies where others may write too (`/tmp`, `/var/tmp`,
//! a scratch disk): every step is taken relative to the directory before, no link of a stranger is followed, and what
//! is reached belongs to this user or to root. The directory stays open and all files are named relative to it, so that
//! nobody can put another one in its place later.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// Mode of directories that are not for blocks: only the owner may see what a cache holds.
pub(super) const PRIVATE: Mode = Mode::RWXU;
/// Links on one way, as the kernel has it.
const LINKS_MAX: u32 = 40;
/// A step: the directory itself is only needed to go on from.
const STEP: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that is held open.
#[derive(Debug)]
pub(crate) struct HeldDir {
    fd: OwnedFd,
    /// Where it was when it was opened, for messages.
    named: PathBuf,
}

impl HeldDir {
    /// Opens a directory. It and its parents are created, for the owner only, where they are missing.
    ///
    /// # Errors
    /// `PermissionDenied` if a step of the way belongs to somebody else; those of the file system.
    pub fn open(path: &Path) -> io::Result<Self> {
        let named = std::path::absolute(path)?;
        let root = || rustix::fs::openat(CWD, "/", STEP, Mode::empty());
        let (mut at, mut links) = (root()?, 0);
        let mut left: VecDeque<OsString> = steps(&named).collect();
        while let Some(name) = left.pop_front() {
            let step = open_or_create(&at, &name)?;
            let stat = rustix::fs::fstat(&step)?;
            check_owner(&stat, &name, &named)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => at = step,
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    let target = rustix::fs::readlinkat(&step, "", Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        at = root()?;
                    }
                    for name in steps(&target).rev() {
                        left.push_front(name);
                    }
                }
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        Ok(Self { fd: at, named })
    }

    /// Opens a directory in this one, which is created if it is missing and has this mode afterwards.
    ///
    /// # Errors
    /// `PermissionDenied` if it belongs to somebody else; `NotADirectory` also for a link; those of the file system.
    pub fn own(&self, name: &str, mode: Mode) -> io::Result<Self> {
        let fd = open_or_create(&self.fd, OsStr::new(name))?;
        let (stat, named) = (rustix::fs::fstat(&fd)?, self.named.join(name));
        if !FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(Errno::NOTDIR.into());
        }
        check_owner(&stat, OsStr::new(name), &named)?;
        let dir = Self { fd, named };
        if stat.st_mode & 0o777 != mode.bits() {
            rustix::fs::chmod(dir.path(), mode)?;
        }
        Ok(dir)
    }

    /// Lets those pass through that may search directories of this mode, if the directory is this user's.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn let_pass(&self, mode: Mode) -> io::Result<()> {
        let stat = rustix::fs::fstat(&self.fd)?;
        let wanted = stat.st_mode & 0o7777 | mode.bits() & 0o011;
        if stat.st_uid == rustix::process::geteuid().as_raw() && wanted != stat.st_mode & 0o7777 {
            rustix::fs::chmod(self.path(), Mode::from_bits_truncate(wanted))?;
        }
        Ok(())
    }

    /// A path that leads to the open directory, wherever it has been moved.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }

    /// Where it was, for messages.
    pub fn named(&self) -> &Path {
        &self.named
    }
}

fn steps(path: &Path) -> impl DoubleEndedIterator<Item = OsString> + '_ {
    path.components()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| c.as_os_str().to_owned())
}

fn open_or_create(at: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    match rustix::fs::openat(at, name, STEP, Mode::empty()) {
        Err(Errno::NOENT) => {
            match rustix::fs::mkdirat(at, name, PRIVATE) {
                // Another process was faster.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            Ok(rustix::fs::openat(at, name, STEP, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Would the owners on the way to a cache directory be accepted? Looks at what is there of it, and makes nothing.
///
/// # Errors
/// Who owns a step, and what to do.
pub fn check_cache_owner(dir: &Path) -> io::Result<()> {
    let mut steps: Vec<&Path> = dir.ancestors().collect();
    steps.reverse();
    for step in steps {
        for stat in [rustix::fs::lstat(step), rustix::fs::stat(step)] {
            match stat {
                Ok(stat) => check_owner(&stat, step.file_name().unwrap_or(step.as_os_str()), dir)?,
                Err(Errno::NOENT) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }
    Ok(())
}

/// Whoever owns a step may put something else in its place.
fn check_owner(stat: &Stat, name: &OsStr, way: &Path) -> io::Result<()> {
    let me = rustix::process::geteuid().as_raw();
    if stat.st_uid == 0 || stat.st_uid == me {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{:?} on the way to {} belongs to user {}, who could put anything in its place; \
             choose a directory of your own or change its owner",
            name,
            way.display(),
            stat.st_uid
        ),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};

    use super::*;

    /// The tests run as root; this is somebody else.
    const STRANGER: u32 = 12_345;

    fn is_refused(path: &Path) -> bool {
        HeldDir::open(path).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
    }

    #[test]
    fn directories_are_made_for_the_owner_only() {
        let top = tempfile::tempdir().unwrap();
        let way = HeldDir::open(&top.path().join("a/b")).unwrap();
        fs::create_dir(top.path().join("a/b/cache")).unwrap();
        fs::set_permissions(top.path().join("a/b/cache"), fs::Permissions::from_mode(0o777)).unwrap();
        way.own("cache", PRIVATE).unwrap();
        for dir in ["a", "a/b", "a/b/cache"] {
            assert_eq!(fs::metadata(top.path().join(dir)).unwrap().mode() & 0o777, 0o700, "{dir}");
        }
    }

    #[test]
    fn what_a_stranger_owns_is_refused() {
        let top = tempfile::tempdir().unwrap();
        let (theirs, ours) = (top.path().join("theirs"), top.path().join("ours"));
        fs::create_dir(&theirs).unwrap();
        fs::create_dir(theirs.join("below")).unwrap();
        fs::create_dir(&ours).unwrap();
        chown(&theirs, Some(STRANGER), None).unwrap();
        assert!(is_refused(&theirs));
        assert!(is_refused(&theirs.join("below")), "its parent is theirs");
        let link = top.path().join("link");
        symlink(&ours, &link).unwrap();
        HeldDir::open(&link).unwrap();
        lchown(&link, Some(STRANGER), None).unwrap();
        assert!(is_refused(&link), "a link of theirs to what is ours");
        assert!(is_refused(&link.join("new")));
        assert!(!ours.join("new").exists());
        let way = HeldDir::open(&ours).unwrap();
        symlink("/etc", ours.join("cache")).unwrap();
        assert_eq!(way.own("cache", PRIVATE).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn links_in_a_circle_end() {
        let top = tempfile::tempdir().unwrap();
        symlink("two", top.path().join("one")).unwrap();
        symlink("one", top.path().join("two")).unwrap();
        let error = HeldDir::open(&top.path().join("one")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        let error = HeldDir::open(&top.path().join("one/../one")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn a_directory_that_is_swapped_is_not_left() {
        let top = tempfile::tempdir().unwrap();
        let held = HeldDir::open(&top.path().join("real")).unwrap().own("cache", PRIVATE).unwrap();
        fs::rename(top.path().join("real"), top.path().join("moved")).unwrap();
        fs::create_dir_all(top.path().join("real/cache")).unwrap();
        fs::write(held.path().join("file"), "x").unwrap();
        assert!(top.path().join("moved/cache/file").exists());
        assert!(!top.path().join("real/cache/file").exists());
    }
}
