//! `ciderfs up MOUNTPOINT`: a ready volume with one command.

use std::ffi::OsString;
use std::path::PathBuf;

use ciderfs_format::shown;

use crate::args::Args;
use crate::commands::{format, mount};
use crate::failure::{Failure, Result};
use crate::places;

/// Name of the volume that `up` creates.
const NAME: &str = "default";

/// Directory for objects when `format` is told none.
pub fn default_bucket() -> Result<PathBuf> {
    places::default_place("/var/jfs", ".juicefs/local", "--bucket DIR")
}

fn default_data() -> Result<PathBuf> {
    let full = |dir: OsString| Some(PathBuf::from(dir)).filter(|dir| dir.is_absolute());
    let base = match std::env::var_os("XDG_DATA_HOME").and_then(full) {
        Some(base) => base,
        None => places::home("--data DIR")?.join(".local/share"),
    };
    Ok(base.join("ciderfs").join(NAME))
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly("up", &["MOUNTPOINT"])?;
    args.refuse_address(0)?;
    let data = args.path("data").map_or_else(default_data, |dir| Ok(dir.to_owned()))?;
    std::fs::create_dir_all(&data)
        .map_err(|e| Failure::new(format!("cannot create {}: {e}", shown(&data))))?;
    let with = |before: &str, path: PathBuf| -> OsString {
        let mut out = OsString::from(before);
        out.push(path);
        out
    };
    let url = with("sqlite3://", data.join("meta.db"));
    let objects = data.join("objects");
    let bucket = with("--bucket=", objects.clone());
    let words = ["--no-update".into(), bucket, url.clone(), NAME.into(), "--quiet".into()];
    let create = Args::parse("format", &words)?;
    tokio::runtime::Runtime::new()?.block_on(format::format(&create, create.place(0), NAME))?;
    let banner = format!(
        "metadata: {}\nobjects:  {}\nstop:     press Ctrl-C, or run `ciderfs umount {}`",
        shown(&data.join("meta.db")),
        shown(&objects),
        shown(args.place(0)),
    );
    let mut words = vec![url, args.place(0).into()];
    if !args.has("cache-dir") {
        words.push(with("--cache-dir=", data.join("cache")));
    }
    mount::serve(&Args::parse("mount", &words)?.merged(args), Some(&banner))
}
