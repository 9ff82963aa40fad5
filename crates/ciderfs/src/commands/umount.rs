//! `ciderfs umount MOUNTPOINT`.

use std::path::Path;

use crate::args::Args;
use crate::failure::{Failure, Result};

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly("umount", &["MOUNTPOINT"])?;
    let path = &args.positional[0];
    ciderfs_fuse::mount::unmount(Path::new(path), args.is_on("force"))
        .map_err(|e| Failure::new(format!("umount {path}: {e}")))
}
