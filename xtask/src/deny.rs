//! `cargo xtask deny`: licences, sources and known flaws of the dependencies, by `cargo-deny`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// The release that checks.
const VERSION: &str = "0.20.2";

/// Runs the checks of `deny.toml`; with `--advisories` those that need the advisory database of RustSec too.
pub fn run(args: &[String]) -> Result<()> {
    let mut checks = vec!["bans", "licenses", "sources"];
    match args {
        [] => {}
        [flag] if flag == "--advisories" => checks.push("advisories"),
        other => bail!("unknown options {}", other.join(" ")),
    }
    let status = Command::new(installed()?).args(["--all-features", "check"]).args(checks).status()?;
    ensure!(
        status.success(),
        "a dependency breaks a rule of deny.toml: replace it, or change the rule and say why"
    );
    Ok(())
}

/// The tool below `target/tools`; compiling it takes minutes.
fn installed() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    let exe = root.join("bin/cargo-deny");
    let here = Command::new(&exe).arg("--version").output();
    if here.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains(VERSION)) {
        return Ok(exe);
    }
    let status = Command::new(env!("CARGO"))
        // It runs for seconds: what an optimized build takes is not worth it.
        .args(["install", "cargo-deny", "--version", VERSION, "--locked", "--force", "--debug", "--root"])
        .arg(&root)
        .env("CARGO_TARGET_DIR", root.join("build"))
        .status()
        .context("cargo")?;
    ensure!(status.success(), "cargo-deny cannot be installed");
    Ok(exe)
}
