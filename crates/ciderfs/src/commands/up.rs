//! `ciderfs up MOUNTPOINT`: a ready volume with one command.

use std::path::PathBuf;

use crate::args::Args;
use crate::commands::{format, mount};
use crate::failure::{Failure, Result};

/// Name of the volume that `up` creates.
const NAME: &str = "default";

/// Directory for objects when `format` is told none.
pub fn default_bucket() -> String {
    if rustix::process::geteuid().is_root() {
        return "/var/jfs".into();
    }
    let home = std::env::var("HOME").unwrap_or_else(|_| ".".into());
    format!("{home}/.juicefs/local")
}

fn default_data() -> Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let base = var("XDG_DATA_HOME").or_else(|| var("HOME").map(|h| h.join(".local/share")));
    let base = base.ok_or_else(|| Failure::new("neither XDG_DATA_HOME nor HOME is set: use --data DIR"))?;
    Ok(base.join("ciderfs").join(NAME))
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    args.exactly("up", &["MOUNTPOINT"])?;
    let data = match args.text("data") {
        Some(dir) => std::path::absolute(dir)?,
        None => default_data()?,
    };
    std::fs::create_dir_all(&data)
        .map_err(|e| Failure::new(format!("cannot create {}: {e}", data.display())))?;
    let url = format!("sqlite3://{}", data.join("meta.db").display());
    let objects = data.join("objects").display().to_string();
    let mut words = vec!["--no-update".into(), format!("--bucket={objects}"), url.clone(), NAME.into()];
    words.push("--quiet".into());
    let create = Args::parse("format", &words)?;
    tokio::runtime::Runtime::new()?.block_on(format::format(&create, &url, NAME))?;
    let banner = format!(
        "metadata: {}\nobjects:  {objects}\nstop:     press Ctrl-C, or run `ciderfs umount {}`",
        data.join("meta.db").display(),
        args.positional[0],
    );
    let mut mount_args = Args::parse("mount", &[url, args.positional[0].clone()])?;
    if !args.has("cache-dir") {
        mount_args.set_by_name("mount", "cache-dir", Some(&data.join("cache").display().to_string()))?;
    }
    mount::serve(&mount_args.merged(args), Some(&banner))
}
