//! Clients as transient units of systemd: each with a control group and limits of its own, and whatever becomes of the unit or the container of
//! the mounter takes none of them along. The keeper watches them as it watches clients of an earlier mounter.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::log;
use crate::record::{Process, is_in_memory};

/// Everybody may ask systemd for a unit's variables, so they go through a file, which is there only while the unit starts.
const VARIABLES: &str = "variables";
/// A client has this long to store what it has when its unit is stopped, as when the machine goes down.
const STOP: &str = "120s";

/// Starts a client as a unit, with a log in its directory. Returns its first process.
///
/// # Errors
/// Of the system and of systemd; it has ended at once.
pub fn start(client: &Command, key: &str, dir: &Path) -> io::Result<Process> {
    if !is_in_memory(dir) {
        return Err(io::Error::other(format!(
            "{} is on a disk, and secrets of clients with units go through it: name a directory on tmpfs, such as one below /run",
            dir.display()
        )));
    }
    log::open(dir)?;
    let name = format!("ciderfs-client-{key}-{}.service", &uuid::Uuid::new_v4().simple().to_string()[..8]);
    let variables = dir.join(VARIABLES);
    let _ = std::fs::remove_file(&variables);
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&variables)?;
    file.write_all(&environment(client))?;
    let log = dir.join(log::NAME);
    let mut run = Command::new("systemd-run");
    run.args(["--quiet", "--collect", "--service-type=exec"]).arg(format!("--unit={name}"));
    let at = |path: &Path| path.display().to_string();
    for property in [
        format!("EnvironmentFile={}", at(&variables)),
        format!("StandardOutput=append:{}", at(&log)),
        format!("StandardError=append:{}", at(&log)),
        "WorkingDirectory=/".to_owned(),
        // The supervisor tells its worker.
        "KillMode=mixed".to_owned(),
        format!("TimeoutStopSec={STOP}"),
    ] {
        run.arg(format!("--property={property}"));
    }
    run.arg("--").arg(client.get_program());
    for word in client.get_args() {
        // systemd puts variables in.
        run.arg(OsStr::from_bytes(&doubled(word.as_bytes())));
    }
    let started = run.stdin(Stdio::null()).output();
    std::fs::remove_file(&variables)?;
    let said = |out: &[u8]| String::from_utf8_lossy(out).trim().to_owned();
    let started = started.map_err(|e| io::Error::new(e.kind(), format!("systemd-run: {e}")))?;
    if !started.status.success() {
        return Err(io::Error::other(format!("systemd-run: {}", said(&started.stderr))));
    }
    let shown = Command::new("systemctl").args(["show", "--property=MainPID", "--value", &name]).output()?;
    let process = said(&shown.stdout).parse().ok().filter(|pid| *pid > 0).and_then(Process::now);
    process.ok_or_else(|| io::Error::other(format!("{name} has ended: {}", log::last_words(dir))))
}

/// What a command sets, as systemd reads it.
fn environment(command: &Command) -> Vec<u8> {
    let mut out = Vec::new();
    let set = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    // Its name would say so otherwise.
    let helper = (OsStr::new("CALL_VIA_MOUNT"), OsStr::new("1"));
    for (name, value) in set.chain([helper]) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        for byte in value.as_bytes() {
            if b"\\\"`$".contains(byte) {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.extend_from_slice(b"\"\n");
    }
    out
}

fn doubled(text: &[u8]) -> Vec<u8> {
    text.split(|byte| *byte == b'$').collect::<Vec<_>>().join(&b"$$"[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_quoted() {
        let mut command = Command::new("x");
        command.env("A", "a b\"$\\`").env("B", "1\n2").env_remove("C");
        let text = String::from_utf8(environment(&command)).unwrap_or_default();
        assert_eq!(text, "A=\"a b\\\"\\$\\\\\\`\"\nB=\"1\n2\"\nCALL_VIA_MOUNT=\"1\"\n");
        assert_eq!(doubled(b"a$b$"), b"a$$b$$");
    }
}
