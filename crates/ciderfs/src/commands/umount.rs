//! `ciderfs umount MOUNTPOINT`.

use ciderfs_format::shown;

use crate::args::Args;
use crate::failure::{Failure, Result};

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly("umount", &["MOUNTPOINT"])?;
    ciderfs_fuse::mount::unmount(args.place(0), args.is_on("force"))
        .map_err(|e| Failure::new(format!("umount {}: {e}", shown(args.given(0)))))
}
