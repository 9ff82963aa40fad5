//! `ciderfs mount META-URL MOUNTPOINT`.

mod document;
mod follow;
mod report;
mod serve;
mod stop;

use std::ffi::OsString;
use std::path::PathBuf;

use ciderfs_meta::{Meta, MetaConfig};
use ciderfs_volume::Purpose;

use crate::cli::args::Args;
use crate::cli::places;
use crate::cli::table::{BACKGROUND, FOREGROUND, LOG, RESUME_FROM, SUPERVISED};
use crate::commands::{fstab, mountpoint as place};
use crate::failure::{Failure, Result};
use crate::supervise::{self, custody, worker};
use crate::{config, daemon, output};

pub use report::amount;
pub use serve::serve;

/// Runs the command.
pub fn run(args: &Args, argv: &[OsString]) -> Result<()> {
    output::is_aside();
    let resumes = args.find(RESUME_FROM).is_some() && worker::get().is_none();
    if resumes {
        if !args.get(SUPERVISED) {
            return Err(Failure::new("--resume-from needs --supervised"));
        }
    } else {
        args.exactly()?;
    }
    if !resumes && args.is_address(1) {
        return Err(Failure::new("the mount point is an address: write META-URL before MOUNTPOINT"));
    }
    if args.get(BACKGROUND) && !args.get(FOREGROUND) && !daemon::is_daemon() && worker::get().is_none() {
        if !resumes && is_mounted(args)? {
            fstab::enter(args);
            return Ok(());
        }
        daemon::start(&args.for_another(argv), &log_path(args)?)?;
        fstab::enter(args);
        return Ok(());
    }
    if worker::get().is_some() {
        return serve(args, None);
    }
    if daemon::is_daemon() {
        daemon::detach();
    }
    if args.get(SUPERVISED) || custody::socket().is_some() {
        let log = if daemon::is_daemon() { Some(log_path(args)?) } else { None };
        return supervise::run(args, argv, log);
    }
    serve(args, None)
}

/// Whether the volume is mounted there already, which is what was asked for. Asks the engine only if something is there.
fn is_mounted(args: &Args) -> Result<bool> {
    let Some(occupant) = place::prepare(args.place(1))? else { return Ok(false) };
    let settings = tokio::runtime::Runtime::new()?.block_on(async {
        let store = config::engine(args, 0, Purpose::Look).await?;
        let meta = Meta::load(store, MetaConfig { read_only: true, ..MetaConfig::default() }).await?;
        Ok::<_, Failure>(meta.settings())
    })?;
    println!("{}", occupant.must_be(&settings, config::subdir(args).as_deref())?);
    Ok(true)
}

/// Where a mount in the background logs.
fn log_path(args: &Args) -> Result<PathBuf> {
    match args.find(LOG) {
        Some(path) => Ok(path.to_owned()),
        None => places::default_place("/var/log/ciderfs.log", ".ciderfs/ciderfs.log", "--log FILE"),
    }
}
