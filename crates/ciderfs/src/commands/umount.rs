//! `ciderfs umount MOUNTPOINT`.

mod users;

use std::io::IsTerminal as _;
use std::time::Duration;

use ciderfs_format::shown;

use ciderfs_fuse::MountError;
use ciderfs_fuse::mount::{absolute, find_mount, sweep_table, unmount};

use crate::cli::args::Args;
use crate::cli::table::{FLUSH, FORCE_UMOUNT};
use crate::commands::{mount, mountpoint};
use crate::failure::{Failure, Result};
use crate::progress::Watched;

/// Between two looks at what is still to be stored.
const LOOK: Duration = Duration::from_millis(500);

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    args.refuse_address(0)?;
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("umount {}: {e}", shown(args.given(0))));
    let full = absolute(args.place(0)).map_err(|e| failed(&e))?;
    let mount = find_mount(&full)?;
    if let Some(other) = mount.as_ref().filter(|mount| !mountpoint::is_volume(mount)) {
        let what = format!(
            "a mount of {} ({}) and no volume of ours; for that there is umount(8)",
            other.source, other.fstype
        );
        return Err(failed(&what));
    }
    let served = if args.get(FLUSH) { Watched::at(&full) } else { Vec::new() };
    if args.get(FLUSH) && mount.is_none() {
        // Somebody else was faster, as systemd is at the end; a place that does not exist is a mistake.
        std::fs::symlink_metadata(&full).map_err(|e| failed(&e))?;
        sweep_table(mountpoint::SOURCE);
        println!("nothing is mounted at {}", shown(&full));
        return flushed(&served).map_err(|e| failed(&e));
    }
    if args.get(FLUSH) && served.is_empty() {
        return Err(failed(
            &"whoever serves it cannot be watched (another program, another user's, or in another container): unmount it without \
              --flush",
        ));
    }
    // This command is not in the way.
    let _ = std::env::set_current_dir("/");
    unmount(&full, args.get(FORCE_UMOUNT)).map_err(|e| match e {
        MountError::Busy { .. } => failed(&users::busy(&full)),
        other => failed(&other),
    })?;
    let done = flushed(&served).map_err(|e| failed(&e));
    // Of a server that was killed; one that lives does it as well, at its end.
    sweep_table(mountpoint::SOURCE);
    done
}

/// Waits until those who serve the mount have stored everything and ended.
fn flushed(served: &[Watched]) -> Result<()> {
    let shows = std::io::stderr().is_terminal();
    for process in served {
        let mut told = 0;
        while !process.has_ended(LOOK) {
            let left = process.left().unwrap_or(0);
            if shows && left != told {
                eprintln!("{} are still to be stored", mount::amount(left));
                told = left;
            }
        }
        if let Some(why) = process.failure() {
            return Err(Failure::new(format!(
                "unmounted, but not everything was stored: {why}; see its log"
            )));
        }
    }
    if shows && !served.is_empty() {
        eprintln!("everything is stored");
    }
    Ok(())
}
