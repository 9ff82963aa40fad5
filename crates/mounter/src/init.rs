//! The first process of a container: it must not end, or all others end with it, and it reaps those whose parents have ended. So it
//! does nothing but that, and the mounter is its child. At the end of the container it gives clients the time to store what they have; those
//! with a supervisor leave their mounts to whoever holds them.

use std::io;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::disposable::{Signals, default_signals};

/// Set for the mounter that is the child.
const ENV: &str = "CIDERFS_MOUNTER_CHILD";
/// Between the end of a mounter and the next one.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Must this process be the first of a container, and no mounter?
pub fn is_needed() -> bool {
    std::process::id() == 1 && std::env::var_os(ENV).is_none()
}

/// Does this process end with a container? Its mounter, and all that the mounter has started.
pub fn is_contained() -> bool {
    std::env::var_os(ENV).is_some()
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
                return end(&signals, mounter);
            }
        }
        tracing::error!("the mounter has ended; it is started again, mounts go on");
        std::thread::sleep(BACK_OFF);
    }
}

/// Has clients store what they have, and waits for them. Whoever gives the container a time for that kills what is left then; a second
/// SIGTERM does not wait.
fn end(signals: &Signals, mounter: Pid) -> io::Result<()> {
    // Nobody starts a client again.
    let _ = kill_process(mounter, Signal::KILL);
    for process in others().filter(|process| *process != mounter) {
        let _ = kill_process(process, Signal::TERM);
    }
    while has_children()? {
        if signals.next()? == libc::SIGTERM {
            break;
        }
    }
    Ok(())
}

/// All processes of the container but the first.
fn others() -> impl Iterator<Item = Pid> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers.filter(|number| *number != 1).filter_map(Pid::from_raw)
}

/// Reaps all that have ended. Are others left?
fn has_children() -> io::Result<bool> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(true),
            Err(Errno::CHILD) => return Ok(false),
            Err(e) => return Err(e.into()),
        }
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
