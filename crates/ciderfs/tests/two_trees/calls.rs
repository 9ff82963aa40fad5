//! System calls as values: made at random, done in either tree, with an outcome that can be compared.

use std::fmt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, IFlags, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

use crate::support::noise;

/// A call. Paths are relative to the tree.
#[derive(Debug, Clone)]
pub enum Call {
    Open { path: PathBuf, flags: OFlags, mode: u32, write: Option<(u64, usize)> },
    Read { path: PathBuf },
    Mkdir { path: PathBuf, mode: u32 },
    Mknod { path: PathBuf, kind: FileType, mode: u32, dev: u64 },
    Symlink { target: PathBuf, path: PathBuf },
    Link { old: PathBuf, new: PathBuf, follow: bool },
    Rename { old: PathBuf, new: PathBuf, flags: RenameFlags },
    Unlink { path: PathBuf },
    Rmdir { path: PathBuf },
    Chmod { path: PathBuf, mode: u32 },
    Chown { path: PathBuf, uid: Option<u32>, gid: Option<u32>, follow: bool },
    Utimens { path: PathBuf, atime: Time, mtime: Time, follow: bool },
    Truncate { path: PathBuf, len: u64 },
    Readdir { path: PathBuf },
    Readlink { path: PathBuf },
    Stat { path: PathBuf, follow: bool },
    Access { path: PathBuf, mask: Access },
    SetXattr { path: PathBuf, name: &'static str, value: Vec<u8>, flags: XattrFlags, follow: bool },
    GetXattr { path: PathBuf, name: &'static str, follow: bool },
    ListXattr { path: PathBuf, follow: bool },
    RemoveXattr { path: PathBuf, name: &'static str, follow: bool },
    Chattr { path: PathBuf, flags: IFlags },
    Tmpfile { dir: PathBuf, mode: u32, link: PathBuf },
    Unnamed { path: PathBuf, then: Unnamed },
}

/// What is done to an open file whose name has just been removed.
#[derive(Debug, Clone, Copy)]
pub enum Unnamed {
    Stat,
    Chmod(u32),
    Truncate(u64),
    Xattr,
    Times,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Omit,
    Now,
    At(i64, i64),
}

/// What a call answered: a description, or the error.
pub type Outcome = Result<String, Errno>;

impl Call {
    /// The paths whose attributes it may change.
    pub fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Open { path, .. }
            | Self::Read { path }
            | Self::Mkdir { path, .. }
            | Self::Mknod { path, .. }
            | Self::Symlink { path, .. }
            | Self::Unlink { path }
            | Self::Rmdir { path }
            | Self::Chmod { path, .. }
            | Self::Chown { path, .. }
            | Self::Utimens { path, .. }
            | Self::Truncate { path, .. }
            | Self::Readdir { path }
            | Self::Readlink { path }
            | Self::Stat { path, .. }
            | Self::Access { path, .. }
            | Self::SetXattr { path, .. }
            | Self::GetXattr { path, .. }
            | Self::ListXattr { path, .. }
            | Self::RemoveXattr { path, .. }
            | Self::Unnamed { path, .. }
            | Self::Chattr { path, .. } => vec![path],
            Self::Link { old, new, .. } | Self::Rename { old, new, .. } => vec![old, new],
            Self::Tmpfile { dir, link, .. } => vec![dir, link],
        }
    }

    /// Does it below `root`, as whoever the thread is.
    pub fn run(&self, root: &Path) -> Outcome {
        let at = |p: &Path| root.join(p);
        let nofollow = |follow: bool| if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        let done = |r: Result<(), Errno>| r.map(|()| "done".to_owned());
        match self {
            Self::Open { path, flags, mode, write } => {
                let fd = rustix::fs::open(at(path), *flags | OFlags::NONBLOCK, Mode::from(*mode))?;
                let mut said = describe(&rustix::fs::fstat(&fd)?);
                if let Some((off, len)) = write {
                    said += &match rustix::io::pwrite(&fd, &noise(*off, *len), *off) {
                        Ok(n) => format!(", wrote {n}"),
                        Err(e) => format!(", writing: {e}"),
                    };
                    said += &format!(", then {}", describe(&rustix::fs::fstat(&fd)?));
                }
                Ok(said)
            }
            Self::Read { path } => {
                let fd = rustix::fs::open(at(path), OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
                if !FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode).is_file() {
                    return Ok("not a file".into());
                }
                let (mut sum, mut total, mut buffer) = (0_u64, 0, vec![0; 1 << 16]);
                loop {
                    let n = rustix::io::pread(&fd, &mut buffer[..], total)?;
                    if n == 0 {
                        return Ok(format!("{total} bytes, sum {sum:x}"));
                    }
                    total += n as u64;
                    for b in &buffer[..n] {
                        sum = sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(*b);
                    }
                }
            }
            Self::Mkdir { path, mode } => done(rustix::fs::mkdir(at(path), Mode::from(*mode))),
            Self::Mknod { path, kind, mode, dev } => {
                done(rustix::fs::mknodat(CWD, at(path), *kind, Mode::from(*mode), *dev))
            }
            Self::Symlink { target, path } => done(rustix::fs::symlink(target, at(path))),
            Self::Link { old, new, follow } => {
                let flags = if *follow { AtFlags::SYMLINK_FOLLOW } else { AtFlags::empty() };
                done(rustix::fs::linkat(CWD, at(old), CWD, at(new), flags))
            }
            Self::Rename { old, new, flags } => {
                done(rustix::fs::renameat_with(CWD, at(old), CWD, at(new), *flags))
            }
            Self::Unlink { path } => done(rustix::fs::unlink(at(path))),
            Self::Rmdir { path } => done(rustix::fs::rmdir(at(path))),
            Self::Chmod { path, mode } => done(rustix::fs::chmod(at(path), Mode::from(*mode))),
            Self::Chown { path, uid, gid, follow } => {
                let uid = uid.map(rustix::fs::Uid::from_raw);
                let gid = gid.map(rustix::fs::Gid::from_raw);
                done(rustix::fs::chownat(CWD, at(path), uid, gid, nofollow(*follow)))
            }
            Self::Utimens { path, atime, mtime, follow } => {
                let times = Timestamps { last_access: atime.timespec(), last_modification: mtime.timespec() };
                done(rustix::fs::utimensat(CWD, at(path), &times, nofollow(*follow)))
            }
            Self::Truncate { path, len } => truncate(&at(path), *len),
            Self::Readdir { path } => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                let fd = rustix::fs::open(at(path), flags, Mode::empty())?;
                let mut names = Vec::new();
                for entry in rustix::fs::Dir::read_from(&fd)? {
                    let entry = entry?;
                    names.push(format!("{:?} {:?}", entry.file_name(), entry.file_type()));
                }
                names.sort();
                // The virtual files of a mount's root.
                names.retain(|n| {
                    !["stats", "config", "accesslog", "control", "trash"]
                        .iter()
                        .any(|v| n.starts_with(&format!("\".{v}\"")))
                });
                Ok(names.join(" "))
            }
            Self::Readlink { path } => rustix::fs::readlink(at(path), Vec::new()).map(|t| format!("{t:?}")),
            Self::Stat { path, follow } => {
                rustix::fs::statat(CWD, at(path), nofollow(*follow)).map(|s| describe(&s))
            }
            Self::Access { path, mask } => done(rustix::fs::accessat(CWD, at(path), *mask, AtFlags::EACCESS)),
            Self::SetXattr { path, name, value, flags, follow } => done(if *follow {
                rustix::fs::setxattr(at(path), *name, value, *flags)
            } else {
                rustix::fs::lsetxattr(at(path), *name, value, *flags)
            }),
            Self::GetXattr { path, name, follow } => {
                let mut value = vec![0; 4096];
                let n = if *follow {
                    rustix::fs::getxattr(at(path), *name, &mut value[..])
                } else {
                    rustix::fs::lgetxattr(at(path), *name, &mut value[..])
                }?;
                Ok(format!("{:02x?}", &value[..n]))
            }
            Self::ListXattr { path, follow } => {
                let mut list = vec![0; 4096];
                let n = if *follow {
                    rustix::fs::listxattr(at(path), &mut list[..])
                } else {
                    rustix::fs::llistxattr(at(path), &mut list[..])
                }?;
                let text = String::from_utf8_lossy(&list[..n]).into_owned();
                let mut names: Vec<&str> = text.split_terminator('\0').collect();
                names.sort_unstable();
                Ok(names.join(" "))
            }
            Self::RemoveXattr { path, name, follow } => done(if *follow {
                rustix::fs::removexattr(at(path), *name)
            } else {
                rustix::fs::lremovexattr(at(path), *name)
            }),
            Self::Chattr { path, flags } => {
                let how = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
                let fd = rustix::fs::open(at(path), how, Mode::empty())?;
                let was = rustix::fs::ioctl_getflags(&fd)?;
                let ours = IFlags::IMMUTABLE | IFlags::APPEND;
                rustix::fs::ioctl_setflags(&fd, (was - ours) | *flags)?;
                Ok(format!("was {:?}", was & ours))
            }
            Self::Tmpfile { dir, mode, link } => {
                let fd = rustix::fs::open(at(dir), OFlags::TMPFILE | OFlags::RDWR, Mode::from(*mode))?;
                rustix::io::write(&fd, b"made without a name")?;
                let before = describe(&rustix::fs::fstat(&fd)?);
                let proc = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
                let linked = rustix::fs::linkat(CWD, proc, CWD, at(link), AtFlags::SYMLINK_FOLLOW);
                Ok(format!("{before}, linked: {linked:?}, {}", describe(&rustix::fs::fstat(&fd)?)))
            }
            Self::Unnamed { path, then } => unnamed(&at(path), *then),
        }
    }
}

/// Removes a file that is open, then works on it.
fn unnamed(path: &Path, then: Unnamed) -> Outcome {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::unlink(path)?;
    let result = match then {
        Unnamed::Stat => Ok(()),
        Unnamed::Chmod(mode) => rustix::fs::fchmod(&fd, Mode::from(mode)),
        Unnamed::Truncate(len) => rustix::fs::ftruncate(&fd, len),
        Unnamed::Xattr => rustix::fs::fsetxattr(&fd, "user.a", b"late", XattrFlags::empty()),
        Unnamed::Times => {
            let t = Timespec { tv_sec: 1_000_000_000, tv_nsec: 5 };
            rustix::fs::futimens(&fd, &Timestamps { last_access: t, last_modification: t })
        }
    };
    Ok(format!("{result:?}, {}", describe(&rustix::fs::fstat(&fd)?)))
}

fn truncate(path: &Path, len: u64) -> Outcome {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a string that ends with 0; the call keeps no reference.
    let result = unsafe { libc::truncate(path.as_ptr(), len.cast_signed()) };
    if result == 0 {
        Ok("done".into())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap())
    }
}

impl Time {
    fn timespec(self) -> Timespec {
        match self {
            Self::Omit => Timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
            Self::Now => Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW },
            Self::At(tv_sec, tv_nsec) => Timespec { tv_sec, tv_nsec },
        }
    }
}

/// What both file systems must agree on. Not: the size of a directory, which is each one's own affair, and blocks.
pub fn describe(s: &Stat) -> String {
    let kind = FileType::from_raw_mode(s.st_mode);
    let size = if kind.is_dir() { "-".to_owned() } else { s.st_size.to_string() };
    let rdev = if kind.is_char_device() || kind.is_block_device() { s.st_rdev } else { 0 };
    format!("{:o} {}:{} links {} size {size} rdev {rdev}", s.st_mode, s.st_uid, s.st_gid, s.st_nlink)
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
