//! A copy of the tree in which each removal is a switch, and its tests.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::list::{Removal, SOURCES, files, planted};

/// The test in the copy that says how often removals were reached.
pub const TEST: &str = "with_removals";
/// Which of them are removed: names with commas between them.
pub const REMOVED: &str = "SIM_REMOVED";
/// How a line about one that was reached begins.
pub const REACHED: &str = "reached:";

/// Behind the root of the crate.
const MODULE: &str = "
/// What `cargo xtask removals` has added.
#[doc(hidden)]
pub mod removals;
";

/// Behind the root of the test.
const HOOK: &str = "
#[test]
fn with_removals() {
    let done = std::panic::catch_unwind(a_thousand_seeds);
    ciderfs_vfs::removals::report();
    if let Err(found) = done {
        std::panic::resume_unwind(found);
    }
}
";

/// The module, behind the names.
const SWITCHES: &str = r#"
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static REACHED: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

pub(crate) fn is_removed(number: usize) -> bool {
    static REMOVED: OnceLock<Vec<bool>> = OnceLock::new();
    let removed = REMOVED.get_or_init(|| {
        let names = std::env::var("SIM_REMOVED").unwrap_or_default();
        NAMES.iter().map(|name| names.split(',').any(|n| n == *name)).collect()
    });
    if removed[number] {
        REACHED[number].fetch_add(1, Ordering::Relaxed);
    }
    removed[number]
}

pub fn report() {
    for (name, count) in NAMES.iter().zip(&REACHED) {
        println!("reached: {name} {}", count.load(Ordering::Relaxed));
    }
}
"#;

/// Makes the copy what the tree is now, with all switches. What has not changed is not touched: cargo goes by times.
pub fn copy(top: &Path, tree: &Path, all: &[Removal]) -> Result<()> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(top)
        .output()
        .context("git")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr).trim());
    let listed = String::from_utf8(output.stdout).context("git ls-files")?;
    let removed_of = files(all);
    let mut there = HashSet::new();
    for name in listed.split_terminator('\0') {
        let (from, to) = (top.join(name), tree.join(name));
        let Ok(meta) = from.symlink_metadata() else { continue };
        there.insert(to.clone());
        if meta.is_symlink() {
            link(&from, &to)?;
            continue;
        }
        let mut content = fs::read(&from).with_context(|| name.to_owned())?;
        let source = name.strip_prefix(SOURCES).and_then(|name| name.strip_prefix('/'));
        if let Some(file) = source.filter(|file| removed_of.contains(file)) {
            let text = String::from_utf8(content)?;
            let switch = |number| format!("crate::removals::is_removed({number})");
            match planted(all, file, &text, switch) {
                Ok(text) => content = text.into_bytes(),
                Err(wrong) => bail!("{}", wrong.join("\n")),
            }
        }
        match name {
            "crates/vfs/src/lib.rs" => content.extend_from_slice(MODULE.as_bytes()),
            "crates/vfs/tests/sim/main.rs" => content.extend_from_slice(HOOK.as_bytes()),
            _ => {}
        }
        write(&to, &content)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(meta.permissions().mode()))?;
    }
    let names: Vec<&str> = all.iter().map(|removal| removal.name.as_str()).collect();
    let module = tree.join(SOURCES).join("removals.rs");
    write(&module, format!("const NAMES: [&str; {}] = {names:?};\n{SWITCHES}", names.len()).as_bytes())?;
    there.insert(module);
    sweep(tree, &there)
}

fn write(to: &Path, content: &[u8]) -> Result<()> {
    if fs::read(to).is_ok_and(|before| before == content) && !to.is_symlink() {
        return Ok(());
    }
    make_room(to)?;
    fs::write(to, content).with_context(|| to.display().to_string())
}

fn link(from: &Path, to: &Path) -> Result<()> {
    let target = fs::read_link(from)?;
    if fs::read_link(to).is_ok_and(|before| before == target) {
        return Ok(());
    }
    make_room(to)?;
    symlink(target, to).with_context(|| to.display().to_string())
}

/// Has the directory be there, and nothing of another kind in its place.
fn make_room(to: &Path) -> Result<()> {
    if to.is_symlink() || to.is_file() {
        fs::remove_file(to)?;
    } else if to.is_dir() {
        fs::remove_dir_all(to)?;
    }
    to.parent().map_or(Ok(()), fs::create_dir_all).with_context(|| to.display().to_string())
}

/// Removes what is not in the tree any longer.
fn sweep(dir: &Path, there: &HashSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            sweep(&path, there)?;
        } else if !there.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// What is compiled of the copy, if it was asked for.
#[derive(Debug)]
pub struct Built {
    /// The simulation.
    pub sim: Option<PathBuf>,
    /// The unit tests.
    pub lib: Option<PathBuf>,
}

/// Compiles the tests of the copy.
pub fn build(tree: &Path, target: &Path, sim: bool, lib: bool) -> Result<Built> {
    let sim: &[&str] = if sim { &["--test", "sim"] } else { &[] };
    let lib: &[&str] = if lib { &["--lib"] } else { &[] };
    let output = Command::new(env!("CARGO"))
        // As JSON: warnings about code with switches are of no use.
        .args(["test", "--release", "--locked", "--package", "ciderfs-vfs", "--no-run"])
        .args(sim)
        .args(lib)
        .arg("--message-format=json")
        .current_dir(tree)
        .env("CARGO_TARGET_DIR", target)
        // Without what takes the most time to compile; with the checks of a test.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
        .stderr(Stdio::inherit())
        .output()
        .context("cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if !output.status.success() {
        let errors = messages.iter().map(|m| &m["message"]).filter(|m| m["level"] == "error");
        let shown: String = errors.filter_map(|m| m["rendered"].as_str()).collect();
        bail!("{shown}the copy in {} cannot be built", tree.display());
    }
    let exe = |asked: &[&str], kind: &str| {
        let of_kind =
            |m: &&Value| m["target"]["kind"].as_array().is_some_and(|k| k.iter().any(|k| k == kind));
        let found = messages.iter().filter(of_kind).filter_map(|m| m["executable"].as_str()).next_back();
        let found = found.map(PathBuf::from);
        ensure!(found.is_some() || asked.is_empty(), "cargo named no executable for {asked:?}");
        Ok(found)
    };
    Ok(Built { sim: exe(sim, "test")?, lib: exe(lib, "lib")? })
}
