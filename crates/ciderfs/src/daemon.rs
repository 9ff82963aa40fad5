//! Going to the background: the command starts itself again as a session of its own and waits for the word that the mount is
//! ready.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::failure::{Failure, Result};

/// Set for the process that serves in the background.
const ENV: &str = "CIDERFS_DAEMON";
/// First word of the line that says that the mount is ready.
const READY: &str = "READY";
/// First word of the line that says why it is not.
const FAILED: &str = "FAILED";

/// Is this the process in the background?
pub fn is_daemon() -> bool {
    std::env::var_os(ENV).is_some()
}

/// Starts the same command in the background and waits until it is ready or has failed.
pub fn start(argv: &[String], log: &Path) -> Result<()> {
    if let Some(dir) = log.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(log);
    let file = file
        .map_err(|e| Failure::new(format!("cannot open the log file {}: {e}; use --log", log.display())))?;
    let exe = std::env::current_exe()?;
    let mut child = Command::new(exe)
        .args(argv.get(1..).unwrap_or_default())
        .env(ENV, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()?;
    let lines = child.stdout.take().map(BufReader::new);
    for line in lines.into_iter().flat_map(BufReader::lines) {
        let line = line?;
        if let Some(text) = line.strip_prefix(READY) {
            println!("{}", text.trim());
            return Ok(());
        }
        if let Some(text) = line.strip_prefix(FAILED) {
            return Err(Failure::new(text.trim()));
        }
    }
    let status = child.wait()?;
    Err(Failure::new(format!("the mount process ended ({status}); see {}", log.display())))
}

/// In the background process: leaves the caller's session. Until the mount is ready it still ends with the command that waits
/// for it.
pub fn detach() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
}

/// Tells the waiting command that the mount is ready.
pub fn ready(text: &str) {
    let _ = rustix::process::set_parent_process_death_signal(None);
    tell(READY, text);
}

/// Tells the waiting command why there will be no mount. After [`ready`] nobody listens any more.
pub fn failed(text: &str) {
    tell(FAILED, text);
}

fn tell(what: &str, text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{what} {text}").and_then(|()| out.flush());
}
