//! One worker at a time: whoever serves a mount holds a lock on a file that all of them are given. Unlike others, this kind of lock
//! belongs to a process and tells which.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

fn lock() -> libc::flock {
    // SAFETY: a structure of numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock
}

/// Takes the turn for this process, until it ends. The file must be closed nowhere in it.
///
/// # Errors
/// Another process serves.
pub fn take(file: &File) -> io::Result<()> {
    let lock = lock();
    // SAFETY: the descriptor is open, and the structure is read only.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw const lock) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The process that serves.
///
/// # Errors
/// One does that cannot be seen from here: in a container, or outside of the one that this is in.
pub fn holder(file: &File) -> io::Result<Option<i32>> {
    let mut lock = lock();
    // SAFETY: the descriptor is open, and the structure is ours to be written to.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) };
    match (rc, lock.l_pid) {
        (-1, _) => Err(io::Error::last_os_error()),
        _ if i32::from(lock.l_type) == libc::F_UNLCK => Ok(None),
        (_, pid @ 1..) => Ok(Some(pid)),
        _ => Err(io::Error::other("a process in another PID namespace serves the mount: end it there first")),
    }
}
