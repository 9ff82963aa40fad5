//! `cargo xtask deny`: licences, sources and known flaws of the dependencies, by `cargo-deny`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// The release that checks.
const VERSION: &str = "0.20.2";

/// What was checked last, beside `Cargo.lock`: compiling the tool takes minutes, and the same dependencies give the same answer.
const CHECKED: &str = "deny.checked";

/// Runs the checks of `deny.toml`, unless these dependencies have passed them before; with `--advisories` always, and those that need
/// the advisory database of RustSec too.
pub fn run(args: &[String]) -> Result<()> {
    let mut checks = vec!["bans", "licenses", "sources"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (checked, state) = (root.join(CHECKED), state(&root)?);
    match args {
        [] if std::fs::read_to_string(&checked).is_ok_and(|before| before == state) => {
            println!("These dependencies and rules have passed before ({CHECKED}).");
            return Ok(());
        }
        [] => {}
        [flag] if flag == "--advisories" => checks.push("advisories"),
        other => bail!("unknown options {}", other.join(" ")),
    }
    let status = Command::new(installed()?).args(["--all-features", "check"]).args(checks).status()?;
    ensure!(
        status.success(),
        "a dependency breaks a rule of deny.toml: replace it, or change the rule and say why"
    );
    std::fs::write(&checked, state).with_context(|| checked.display().to_string())
}

/// Sums of what the checks depend on.
fn state(root: &Path) -> Result<String> {
    let sums = Command::new("sha256sum").args(["Cargo.lock", "deny.toml"]).current_dir(root).output()?;
    ensure!(sums.status.success(), "sha256sum: {}", String::from_utf8_lossy(&sums.stderr).trim());
    Ok(String::from_utf8(sums.stdout)?)
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
