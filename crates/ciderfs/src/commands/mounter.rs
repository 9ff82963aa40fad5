//! `ciderfs mounter`: keeps the clients of a machine for `ciderfs csi`.

use std::path::PathBuf;

use ciderfs_mounter::{Config, init};

use crate::cli::args::Args;
use crate::cli::command::Command;
use crate::cli::parse;
use crate::cli::table::{MOUNT_DIR, MOUNTER_SOCKET, NO_SUPERVISOR, RUN_DIR};
use crate::failure::{Failure, Result};

/// Runs the command until the process ends. Clients go on.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    if init::is_needed() {
        return Ok(init::run()?);
    }
    let can_supervise = parse::find(Command::Mount, b"supervised").is_some();
    let config = Config {
        socket: PathBuf::from(args.get(MOUNTER_SOCKET)),
        run_dir: PathBuf::from(args.get(RUN_DIR)),
        mount_dir: PathBuf::from(args.get(MOUNT_DIR)),
        program: std::env::current_exe()?,
        supervised: can_supervise && !args.get(NO_SUPERVISOR),
    };
    ciderfs_mounter::serve(config).map_err(|e| Failure::new(format!("the mounter cannot work: {e}")))
}
