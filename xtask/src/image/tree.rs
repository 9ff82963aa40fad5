//! Files of a layer.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::deb::output;

/// A directory in which a layer is laid out. Everything has a mode that is said, none from the umask.
pub struct Tree(tempfile::TempDir);

impl Tree {
    pub fn new() -> Result<Self> {
        let tree = Self(tempfile::tempdir()?);
        fs::set_permissions(tree.0.path(), fs::Permissions::from_mode(0o755))?;
        Ok(tree)
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    /// A directory, and those above it.
    pub fn dir(&self, path: &str, mode: u32) -> Result<()> {
        let mut at = self.root().to_owned();
        for part in Path::new(path).components() {
            at.push(part);
            if !at.exists() {
                fs::create_dir(&at)?;
                fs::set_permissions(&at, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(fs::set_permissions(&at, fs::Permissions::from_mode(mode))?)
    }

    pub fn put(&self, path: &str, content: &[u8], mode: u32) -> Result<()> {
        self.above(path)?;
        let at = self.path(path);
        fs::write(&at, content).with_context(|| at.display().to_string())?;
        Ok(fs::set_permissions(&at, fs::Permissions::from_mode(mode))?)
    }

    pub fn link(&self, to: impl AsRef<Path>, path: &str) -> Result<()> {
        self.above(path)?;
        let at = self.path(path);
        symlink(to, &at).with_context(|| at.display().to_string())
    }

    fn above(&self, path: &str) -> Result<()> {
        match path.rsplit_once('/') {
            Some((dir, _)) if !self.path(dir).exists() => self.dir(dir, 0o755),
            _ => Ok(()),
        }
    }

    /// All files and links, without directories, sorted.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        list(self.root(), "", &mut found)?;
        found.sort();
        Ok(found)
    }

    /// The file of a name.
    pub fn only(&self, name: &str) -> Result<PathBuf> {
        let files = self.files()?;
        let found = files.iter().find(|file| file.rsplit('/').next() == Some(name));
        Ok(self.path(found.with_context(|| format!("there is no {name}"))?))
    }
}

/// Adds what is below a directory, as paths from where the search began.
pub fn list(dir: &Path, above: &str, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name that is not text")?;
        let path = if above.is_empty() { name } else { format!("{above}/{name}") };
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Every library that a program or library asks for is there.
pub fn check(trees: &[&Tree]) -> Result<()> {
    let mut there = BTreeSet::new();
    let mut needed = Vec::new();
    for tree in trees {
        for file in tree.files()? {
            there.insert(file.rsplit('/').next().unwrap_or_default().to_owned());
            let at = tree.path(&file);
            if at.is_symlink() || !fs::read(&at)?.starts_with(b"\x7fELF") {
                continue;
            }
            let said = output(Command::new("readelf").env("LC_ALL", "C").arg("-d").arg(&at))?;
            for line in String::from_utf8_lossy(&said).lines().filter(|line| line.contains("(NEEDED)")) {
                let name = line.rsplit_once('[').and_then(|(_, name)| name.split(']').next());
                needed.push((file.clone(), name.unwrap_or_default().to_owned()));
            }
        }
    }
    for (file, library) in needed {
        if !there.contains(&library) {
            bail!("{file} needs {library}, which no package in xtask/src/image/root.rs brings");
        }
    }
    Ok(())
}
