//! Programs from the Python package index, each in a virtual environment of the workspace.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Makes a virtual environment with these packages. The caller holds a lock, and has found that there is none.
pub(crate) fn install(home: &Path, packages: &[&str]) -> Result<()> {
    let run = |program: &OsStr, args: &[&OsStr]| match Command::new(program).args(args).output() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            bail!("{} is not installed: apt-get install python3 python3-venv", program.display())
        }
        Err(e) => Err(e).with_context(|| program.display().to_string()),
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => bail!(
            "{}: {}{}\n{} needs python3-venv and access to a Python package index",
            program.display(),
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr),
            packages.join(" ")
        ),
    };
    run("python3".as_ref(), &["-m".as_ref(), "venv".as_ref(), home.as_ref()])?;
    let mut args = vec!["install", "--quiet", "--disable-pip-version-check"];
    args.extend(packages);
    let args: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
    run(home.join("bin/pip").as_ref(), &args)
}
