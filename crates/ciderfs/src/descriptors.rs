//! File descriptors of the process as a whole.

use std::fs::File;
use std::os::fd::AsRawFd as _;

/// Lets no program that is started from now on inherit more than its standard streams.
pub fn close_on_exec() {
    // SAFETY: these calls only set the close-on-exec flag, which no code here relies on to be unset.
    let done = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    if done == 0 {
        return;
    }
    // Before Linux 5.11.
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        if let Some(fd) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()).filter(|fd| *fd > 2)
        {
            // SAFETY: as above; a number that is no descriptor any more is refused.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

/// Makes a file standard input.
pub fn read_from(file: &File) -> std::io::Result<()> {
    // SAFETY: replaces what an open descriptor refers to, in one step; it stays open.
    if unsafe { libc::dup2(file.as_raw_fd(), 0) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Makes a file standard output and standard error.
pub fn write_to(file: &File) -> std::io::Result<()> {
    for stream in [1, 2] {
        // SAFETY: replaces what two open descriptors refer to, in one step; both stay open.
        if unsafe { libc::dup2(file.as_raw_fd(), stream) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
