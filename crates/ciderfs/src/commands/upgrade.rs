//! `ciderfs upgrade MOUNTPOINT`: another program serves a supervised mount, and nobody who uses it notices.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ciderfs_format::shown;
use ciderfs_fuse::mount::{MountInfo, absolute, find_mount};
use serde_json::{Value, json};

use crate::cli::args::Args;
use crate::cli::table::{BINARY, JSON, WAIT};
use crate::commands::mountpoint;
use crate::failure::{EXIT_UNFIT, EXIT_UNSUPERVISED, Failure, Result};
use crate::supervise::{self, ON_THE_MOUNT, Program, UPGRADE};

/// A program has this long to say what it can.
const PATIENCE: Duration = Duration::from_secs(10);
/// A supervisor says something within this and the time that programs have.
const SILENCE: Duration = Duration::from_secs(120);

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    args.refuse_address(0)?;
    let full = absolute(args.place(0))?;
    let (socket, device) = socket(&full)?;
    let name = match args.find(BINARY) {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?,
    };
    let unfit = |why: String| Failure {
        text: format!("{} cannot serve the mount: {why}", shown(&name)),
        code: EXIT_UNFIT,
    };
    let program = Program::of(File::open(&name).map_err(|e| unfit(e.to_string()))?, name.clone());
    if program.device().ok() == Some(device) {
        return Err(unfit(format!("it {ON_THE_MOUNT}")));
    }
    let version = asked(&program).map_err(unfit)?;
    let json_only = args.get(JSON);
    let tell = |text: &str| {
        if !json_only {
            println!("{text}");
        }
    };
    tell(&format!("{} is {version}", shown(&name)));
    let wait = args.get(WAIT).as_secs().max(1);
    let request = json!({ "do": UPGRADE, "program": shown(&name), "wait": wait });
    let link = supervise::ask(&socket, &request, &[program.as_fd()]).map_err(|e| unsupervised(&full, &e))?;
    let mut heard = false;
    loop {
        let message = link.receive_within(SILENCE + 2 * args.get(WAIT)).map_err(|e| {
            Failure::new(format!("the supervisor of the mount says nothing ({e}); see its log"))
        })?;
        let Some(message) = message else {
            if !heard {
                return Err(unsupervised(&full, &"who listened there has ended"));
            }
            return Err(Failure::new("the supervisor of the mount has ended; see its log"));
        };
        heard = true;
        let mut said: Value = serde_json::from_slice(&message.text)?;
        if let Some(text) = said["say"].as_str() {
            tell(&shown(text));
        } else if let Some(why) = said["failed"].as_str() {
            let code = said["code"].as_u64().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            return Err(Failure { text: shown(why).into_owned(), code });
        } else {
            said["version"] = version.into();
            match json_only {
                true => println!("{said}"),
                false => println!("the mount goes on with it after {} ms", said["milliseconds"]),
            }
            return Ok(());
        }
    }
}

/// Tells which states of mounts this program reads.
pub fn check(args: &Args) -> Result<()> {
    args.exactly()?;
    println!("{}", json!({ "Version": super::version(), "Handover": ciderfs_handover::VERSION }));
    Ok(())
}

fn unsupervised(at: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure {
        text: format!(
            "{}: nobody supervises this mount ({why}): only mounts made with `mount --supervised` can be upgraded",
            shown(&at)
        ),
        code: EXIT_UNSUPERVISED,
    }
}

/// Where the supervisor of the mount listens, and the mount's device. The mount itself is not touched: it may be busy.
fn socket(at: &Path) -> Result<(PathBuf, (u32, u32))> {
    let mount = find_mount(at)?.filter(mountpoint::is_volume);
    let Some(mount) = mount else {
        return Err(Failure {
            text: format!("no volume is mounted at {}", shown(&at)),
            code: EXIT_UNSUPERVISED,
        });
    };
    let device = (mount.major, mount.minor);
    supervise::find(device, user(&mount))
        .map(|socket| (socket, device))
        .ok_or_else(|| unsupervised(at, &"it has no socket for you"))
}

/// Who has mounted it.
fn user(mount: &MountInfo) -> u32 {
    let found = mount.options.split(',').find_map(|o| o.strip_prefix("user_id=")?.parse().ok());
    found.unwrap_or_else(|| rustix::process::geteuid().as_raw())
}

/// The version of a program that can take mounts over.
pub fn asked(program: &Program) -> std::result::Result<String, String> {
    let mut command = Command::new(program.path());
    command.args(["version", "--check-handover"]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    let since = Instant::now();
    while child.try_wait().map_err(|e| e.to_string())?.is_none() {
        if since.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            return Err("it does not say what it can".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    let told: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
    if !out.status.success() || told.is_null() {
        return Err("it is no version of ciderfs that can take a mount over".into());
    }
    if told["Handover"] != ciderfs_handover::VERSION {
        return Err(format!(
            "it reads version {} of what a mount leaves, and this mount has {}",
            told["Handover"],
            ciderfs_handover::VERSION
        ));
    }
    Ok(told["Version"].as_str().unwrap_or_default().to_owned())
}
