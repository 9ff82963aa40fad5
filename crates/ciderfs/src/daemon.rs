//! Going to the background: the command starts itself again as a session of its own and waits for the word that the mount is
//! ready.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use ciderfs_format::shown;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::secrets;
use crate::failure::{Failure, Result};
use crate::supervise::worker;
use crate::{descriptors, log, visible};

/// Mode of a new log: it names files and addresses of everybody.
const LOG_MODE: u32 = 0o600;
/// What nobody gets of one that is there already.
const OTHERS: u32 = 0o007;
/// Set for the process that serves in the background.
const ENV: &str = "CIDERFS_DAEMON";
/// First word of the line that says that the mount is ready.
const READY: &str = "READY";
/// After each word of a command line.
const END: u8 = 0;
/// First word of what says why it is not, up to the end.
const FAILED: &str = "FAILED";

/// Is this the process in the background?
pub fn is_daemon() -> bool {
    std::env::var_os(ENV).is_some()
}

fn open_log(log: &Path) -> Result<File> {
    let file = log
        .parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| OpenOptions::new().create(true).append(true).mode(LOG_MODE).open(log));
    if let Ok(file) = &file {
        narrow(file);
    }
    file.map_err(|e| Failure::new(format!("cannot open the log file {}: {e}; use --log", shown(log))))
}

/// Takes a log from all but its owner and group, whom somebody may have chosen. Older versions wrote secrets into it.
fn narrow(log: &File) {
    let Ok(meta) = log.metadata() else { return };
    let is_ours = meta.uid() == rustix::process::geteuid().as_raw();
    if meta.is_file() && is_ours && meta.mode() & OTHERS != 0 {
        let mode = std::fs::Permissions::from_mode(meta.mode() & 0o7777 & !OTHERS);
        // Then it stays as it was.
        let _ = log.set_permissions(mode);
    }
}

/// The command line of this process. The one in the background gets it through its standard input: everybody can read what stands
/// in its own.
///
/// # Errors
/// The command that began it has ended before it said everything.
pub fn command_line(own: Vec<OsString>) -> Result<Vec<OsString>> {
    // A worker has been told by its supervisor.
    if !is_daemon() || worker::get().is_some() {
        return Ok(own);
    }
    let mut sent = Vec::new();
    let read = std::io::stdin().read_to_end(&mut sent);
    if let Ok(nothing) = File::open("/dev/null") {
        let _ = descriptors::read_from(&nothing);
    }
    match (read, sent.pop()) {
        (Ok(_), Some(END)) => Ok(sent.split(|b| *b == END).map(|w| OsString::from_vec(w.to_vec())).collect()),
        _ => Err(Failure::new("the command that mounts in the background ended too early")),
    }
}

/// Sends it. One that ends meanwhile says itself why.
fn send_command_line(to: Option<ChildStdin>, argv: &[OsString]) {
    let text: Vec<u8> = argv.iter().flat_map(|word| [word.as_bytes(), &[END]].concat()).collect();
    if let Some(mut to) = to {
        let _ = to.write_all(&text);
    }
}

/// Starts the same command in the background and waits until it is ready or has failed. It finds the caller's directory and
/// environment, and no descriptor of the caller but the log: a lock or the end of a pipe must not live on in it.
pub fn start(argv: &[OsString], log: &Path) -> Result<()> {
    let file = open_log(log)?;
    let exe = std::env::current_exe()?;
    descriptors::close_on_exec();
    let mut background = Command::new(exe);
    // Its content is in the command line that is sent: it may be a pipe, and the process in the background has another directory.
    background.env_remove(secrets::PASSWORD_FILE);
    let mut child = background
        .args(visible::words(argv).get(1..).unwrap_or_default())
        .env(ENV, "1")
        .envs(log::for_background())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()?;
    send_command_line(child.stdin.take(), argv);
    let mut said = child.stdout.take().map(BufReader::new);
    let mut line = String::new();
    while said.as_mut().map_or(Ok(0), |said| said.read_line(&mut line))? > 0 {
        if let Some(text) = line.strip_prefix(READY) {
            println!("{}", text.trim());
            return Ok(());
        }
        if let Some(text) = line.strip_prefix(FAILED) {
            let mut text = text.to_owned();
            said.as_mut().map_or(Ok(0), |said| said.read_to_string(&mut text))?;
            return Err(Failure::new(text.trim()));
        }
        line.clear();
    }
    let status = child.wait()?;
    Err(Failure::new(format!("the mount process ended ({status}); see {}", shown(log))))
}

/// In the background process: leaves the caller's session. Until the mount is ready it still ends with the command that waits
/// for it.
pub fn detach() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    let _ = rustix::process::setsid();
    let _ = std::env::set_current_dir("/");
}

/// Tells the waiting command that the mount is ready, and keeps nothing of it: what is still printed goes to the log.
pub fn ready(text: &str, log: &Path) {
    let _ = rustix::process::set_parent_process_death_signal(None);
    tell(READY, text);
    reopen(log);
}

/// Tells the waiting command why there will be no mount. After [`ready`] nobody listens any more.
pub fn failed(text: &str) {
    tell(FAILED, text);
}

fn tell(what: &str, text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{what} {text}").and_then(|()| out.flush());
}

/// Opens the log again whenever SIGHUP says that it was moved away. Call it within a runtime.
pub fn follow_log(log: PathBuf) -> Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            reopen(&log);
            tracing::info!("the log file was opened again");
        }
    });
    Ok(())
}

/// Opens the log again and writes there from now on.
pub fn reopen(log: &Path) {
    let opened = open_log(log).and_then(|file| Ok(descriptors::write_to(&file)?));
    if let Err(e) = opened {
        // To the old one.
        tracing::error!("{e}");
    }
}
