//! `ciderfs up MOUNTPOINT`: a ready volume with one command.

use std::ffi::OsString;
use std::path::PathBuf;

use ciderfs_format::shown;

use crate::cli::args::Args;
use crate::cli::command::Command;
use crate::cli::places;
use crate::cli::table::{BUCKET, CACHE_DIR, DATA, NO_UPDATE, QUIET};
use crate::commands::{format, mount};
use crate::failure::{Failure, Result};
use crate::output;

/// Name of the volume that `up` creates.
const NAME: &str = "default";

/// Directory for objects when `format` is told none.
pub fn default_bucket() -> Result<PathBuf> {
    places::default_place("/var/jfs", ".juicefs/local", &format!("--{} DIR", BUCKET.name()))
}

fn default_data() -> Result<PathBuf> {
    let full = |dir: OsString| Some(PathBuf::from(dir)).filter(|dir| dir.is_absolute());
    let base = match std::env::var_os("XDG_DATA_HOME").and_then(full) {
        Some(base) => base,
        None => places::home(&format!("--{} DIR", DATA.name()))?.join(".local/share"),
    };
    Ok(base.join("ciderfs").join(NAME))
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly()?;
    args.refuse_address(0)?;
    output::is_aside();
    let data = args.find(DATA).map_or_else(default_data, |dir| Ok(dir.to_owned()))?;
    std::fs::create_dir_all(&data)
        .map_err(|e| Failure::new(format!("cannot create {}: {e}", shown(&data))))?;
    let mut url = OsString::from("sqlite3://");
    url.push(data.join("meta.db"));
    let objects = data.join("objects");
    let words = [NO_UPDATE.with("true"), QUIET.with("true"), BUCKET.with(&objects), url.clone(), NAME.into()];
    // A volume of this machine: keys that happen to be in the environment are those of another one.
    let create = Args::of_words(Command::Format, &words)?;
    tokio::runtime::Runtime::new()?.block_on(format::format(&create, NAME))?;
    let banner = format!(
        "metadata: {}\nobjects:  {}\nstop:     press Ctrl-C, or run `ciderfs umount {}`",
        shown(&data.join("meta.db")),
        shown(&objects),
        shown(args.place(0)),
    );
    let mut words = vec![url, args.place(0).into()];
    if !args.has(CACHE_DIR) {
        words.push(CACHE_DIR.with(data.join("cache")));
    }
    mount::serve(&Args::of_words(Command::Mount, &words)?.merged(args), Some(&banner))
}
