//! `ciderfs clone SRC DST`: a copy in the metadata, by the mount, of either client, that both lie on (`docs/format/control.md`).

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ciderfs_format::shown;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::Mode;
use serde_json::json;

use super::channel::{Channel, name_field};
use crate::cli::args::Args;
use crate::cli::table::{CLONE_THREADS, JSON, PRESERVE};
use crate::failure::{Failure, Result};

const CLONE: u32 = 1006;
/// The bit of the mode that keeps owners, modes and times.
const KEEP: u8 = 2;

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    for i in 0..2 {
        args.refuse_address(i)?;
    }
    let (from, to) = (args.place(0), target(args));
    let fail = |what: &Path, e: std::io::Error| Failure::new(format!("{}: {e}", shown(&what)));
    // What a link leads to is cloned, as the official client does it.
    let source = std::fs::metadata(from).map_err(|e| fail(from, e))?;
    let above_source = std::fs::metadata(parent(from)).map_err(|e| fail(from, e))?;
    let above = parent(&to);
    let dir = std::fs::metadata(above).map_err(|e| fail(above, e))?;
    if std::fs::symlink_metadata(&to).is_ok() {
        return Err(Failure::new(format!("{} is there already: choose another name", shown(&to))));
    }
    let full = |place: &Path| std::fs::canonicalize(place).map_err(|e| fail(place, e));
    if full(above)?.starts_with(full(from)?) {
        return Err(Failure::new(format!(
            "{} lies in {}: choose a place beside it",
            shown(&to),
            shown(&from)
        )));
    }
    if source.dev() != dir.dev() {
        return Err(Failure::new(format!(
            "{} and {} are not on the same mount of a volume: data can only be shared within one",
            shown(&from),
            shown(&above)
        )));
    }
    let name = name_field(to.file_name().unwrap_or_default())?;
    let channel = Channel::open(above)
        .map_err(|e| Failure::new(format!("{} is not on a mounted volume: {e}", shown(&above))))?;
    let (umask, mode) = (umask(), if args.get(PRESERVE) { KEEP } else { 0 });
    let threads = u8::try_from(args.get(CLONE_THREADS)).unwrap_or(u8::MAX);
    let body = [
        &source.ino().to_be_bytes()[..],
        &above_source.ino().to_be_bytes(),
        &dir.ino().to_be_bytes(),
        &name,
        &umask.to_be_bytes(),
        &[mode, threads],
    ]
    .concat();
    // Only on a terminal.
    let bar = ProgressBar::no_length().with_style(ProgressStyle::default_bar()).with_message("cloning");
    let mut cloned = 0;
    let ended = channel.change(CLONE, &body, &mut |done, total| {
        cloned = done;
        bar.set_length(total.max(done));
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    ended.map_err(|e| Failure::new(format!("clone {} to {}: {e}", shown(&from), shown(&to))))?;
    if args.get(JSON) {
        println!("{}", json!({ "Cloned": cloned }));
    }
    Ok(())
}

/// The place of the clone: with a slash at its end a directory, in which the name stays.
fn target(args: &Args) -> PathBuf {
    let to = args.place(1);
    match (args.given(1).as_bytes().ends_with(b"/"), args.place(0).file_name()) {
        (true, Some(name)) => to.join(name),
        _ => to.to_owned(),
    }
}

/// The directory that holds a place.
fn parent(place: &Path) -> &Path {
    // Without it the place is the root, which no volume is mounted at.
    place.parent().unwrap_or(place)
}

/// The umask of this process, which can only be asked for by setting another one.
fn umask() -> u16 {
    let umask = rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::umask(umask);
    umask.bits() as u16
}
