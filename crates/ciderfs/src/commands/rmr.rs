//! `ciderfs rmr PATH...`: removes trees, by the mount, of either client, that they lie on (`docs/format/control.md`).

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ciderfs_format::shown;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::channel::{Channel, name_field};
use crate::cli::args::Args;
use crate::cli::table::{JSON, RMR_THREADS, SKIP_TRASH};
use crate::failure::{Failure, Result};

const RMR: u32 = 1002;

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    if args.count() == 0 {
        return Err(Failure::new(
            "ERROR: This command requires at least 1 arguments; USAGE: ciderfs rmr [options] PATH...",
        ));
    }
    let skip_trash = args.get(SKIP_TRASH);
    if skip_trash && !rustix::process::geteuid().is_root() {
        return Err(Failure::new("only root can remove something past the trash: run it with sudo"));
    }
    let threads = u8::try_from(args.get(RMR_THREADS)).unwrap_or(u8::MAX);
    // Only on a terminal.
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
    let mut removed = 0;
    for i in 0..args.count() {
        args.refuse_address(i)?;
        let before = removed;
        one(args.place(i), u8::from(skip_trash), threads, &mut |entries| {
            removed = before + entries;
            bar.set_message(format!("{removed} removed"));
            bar.tick();
        })?;
    }
    bar.finish_and_clear();
    if args.get(JSON) {
        println!("{}", json!({ "Removed": removed }));
    }
    Ok(())
}

fn one(place: &Path, skip_trash: u8, threads: u8, progress: &mut dyn FnMut(u64)) -> Result<()> {
    let fail = |e| Failure::new(format!("remove {}: {e}", shown(&place)));
    let (Some(above), Some(name)) = (place.parent(), place.file_name()) else {
        return Err(Failure::new(format!("{} has no name that could be removed", shown(&place))));
    };
    let node = std::fs::symlink_metadata(place).map_err(fail)?;
    let dir = std::fs::metadata(above).map_err(fail)?;
    if node.dev() != dir.dev() {
        return Err(Failure::new(format!(
            "{} is a mount point: name what is in it, or unmount it first",
            shown(&place)
        )));
    }
    let channel = Channel::open(above).map_err(|e| {
        Failure::new(format!("{} is not on a mounted volume ({e}): `rm -r` removes it", shown(&place)))
    })?;
    let body = [&dir.ino().to_be_bytes()[..], &name_field(name)?, &[skip_trash, threads]].concat();
    channel.change(RMR, &body, &mut |entries, _| progress(entries))?.map_err(fail)
}
