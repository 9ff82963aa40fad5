//! The first process of a container: it must not end, or all others end with it, and it reaps those whose parents have ended. So it
//! does nothing but that, and the mounter is its child. At the end of the container it gives clients without a supervisor the time to store what
//! they have.

use std::io;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::disposable::{Signals, default_signals};

/// Set for the mounter that is the child.
const ENV: &str = "CIDERFS_MOUNTER_CHILD";
/// Set for a process that serves a mount for a supervisor.
const WORKER: &str = "CIDERFS_WORKER";
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

/// Has clients without a supervisor store what they have, and waits for them. Whoever gives the container a time for that kills what is left then; a second
/// SIGTERM does not wait.
fn end(signals: &Signals, mounter: Pid) -> io::Result<()> {
    // Nobody starts a client again.
    let _ = kill_process(mounter, Signal::KILL);
    let all = processes();
    for process in &all {
        // A supervisor would unmount what others can go on with: they have what it holds, writes that are not stored among it.
        let is_supervised =
            process.is_worker || all.iter().any(|other| other.is_worker && other.parent == process.pid);
        let signal = if is_supervised { Signal::KILL } else { Signal::TERM };
        if process.pid != mounter {
            let _ = kill_process(process.pid, signal);
        }
    }
    while has_children()? {
        if signals.next()? == libc::SIGTERM {
            break;
        }
    }
    Ok(())
}

struct Process {
    pid: Pid,
    parent: Pid,
    is_worker: bool,
}

/// All of the container but the first.
fn processes() -> Vec<Process> {
    let numbers = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let process = |number: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
        // The name, in brackets, may have anything in it.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        let environment = std::fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
        let is_worker = environment
            .split(|b| *b == 0)
            .any(|v| v.strip_prefix(WORKER.as_bytes()).is_some_and(|rest| rest.starts_with(b"=")));
        Some(Process { pid: Pid::from_raw(number)?, parent: Pid::from_raw(parent)?, is_worker })
    };
    numbers.filter(|number| *number != 1).filter_map(process).collect()
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
