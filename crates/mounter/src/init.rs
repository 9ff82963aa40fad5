//! The first process of a container: it must not end, or all others end with it, and it reaps those whose parents have ended. So it
//! does nothing but that, and the mounter is its child.

use std::io;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};

use crate::disposable::{Signals, default_signals};

/// Set for the mounter that is the child.
const ENV: &str = "CIDERFS_MOUNTER_CHILD";
/// Between the end of a mounter and the next one.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Must this process be the first of a container, and no mounter?
pub fn is_needed() -> bool {
    std::process::id() == 1 && std::env::var_os(ENV).is_none()
}

/// Runs this command line as a child, again and again, until SIGTERM. Clients cannot outlive the container.
///
/// # Errors
/// Of the system.
pub fn run() -> io::Result<()> {
    let signals = Signals::block()?;
    loop {
        let mut command = Command::new("/proc/self/exe");
        command.args(std::env::args_os().skip(1)).env(ENV, "1");
        default_signals(&mut command);
        let mounter = Pid::from_child(&command.spawn()?);
        while !reaped(mounter)? {
            if signals.next()? == libc::SIGTERM {
                return Ok(());
            }
        }
        tracing::error!("the mounter has ended; it is started again, mounts go on");
        std::thread::sleep(BACK_OFF);
    }
}

/// Reaps all that have ended. Was this one among them?
fn reaped(mounter: Pid) -> io::Result<bool> {
    let mut found = false;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, _))) => found |= pid == mounter,
            Ok(None) | Err(Errno::CHILD) => return Ok(found),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
