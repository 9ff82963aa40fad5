//! Signals as something to be read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _};

#[allow(unsafe_code, reason = "a set of signals is plain memory")]
fn set() -> libc::sigset_t {
    // SAFETY: an all-zero set is valid memory for `sigemptyset`.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// In a worker, while it has one thread: they do what they do in any other process.
#[allow(unsafe_code, reason = "signals are unblocked")]
pub fn as_usual() {
    let set = set();
    // SAFETY: the set is initialized.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}

/// The signals that a supervisor is sent.
#[derive(Debug)]
pub struct Signals(File);

impl Signals {
    /// From here on they do nothing by themselves. Call it while there is one thread. A worker inherits that: see
    /// [`as_usual`].
    #[allow(unsafe_code, reason = "signals are blocked, and read from a descriptor")]
    pub fn new() -> io::Result<Self> {
        let set = set();
        // SAFETY: the set is initialized; the descriptor that signalfd returns is new and ours.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            match libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) {
                -1 => Err(io::Error::last_os_error()),
                fd => Ok(Self(File::from_raw_fd(fd))),
            }
        }
    }

    /// The next one that has come.
    pub fn next(&self) -> Option<libc::c_int> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        (&self.0).read_exact(&mut info).ok()?;
        info.first_chunk().map(|number| i32::from_ne_bytes(*number))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
