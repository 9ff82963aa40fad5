//! `ciderfs umount MOUNTPOINT`.

use ciderfs_format::shown;

use ciderfs_fuse::mount::{absolute, find_mount, unmount};

use crate::cli::args::Args;
use crate::cli::table::FORCE_UMOUNT;
use crate::commands::mountpoint;
use crate::failure::{Failure, Result};

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    args.refuse_address(0)?;
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("umount {}: {e}", shown(args.given(0))));
    let full = absolute(args.place(0)).map_err(|e| failed(&e))?;
    if let Some(other) = find_mount(&full)?.filter(|mount| !mountpoint::is_volume(mount)) {
        let what = format!(
            "a mount of {} ({}) and no volume of ours; for that there is umount(8)",
            other.source, other.fstype
        );
        return Err(failed(&what));
    }
    unmount(&full, args.get(FORCE_UMOUNT)).map_err(|e| failed(&e))
}
