//! What a node service remembers: which volumes are staged, what is bound where. It is written before it is done, without secrets,
//! into memory (tmpfs), like the mounts themselves: none of it outlives the machine.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use ciderfs_mounter::record;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A volume that was staged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Where the cluster says so. Nothing is mounted there.
    pub path: PathBuf,
    /// The client's mount; none when the Secret comes with each publication.
    pub key: Option<String>,
    /// The option with the SELinux context of the mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selinux: Option<String>,
}

/// A place where a pod finds a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The volume.
    pub volume: String,
    /// The client's mount.
    pub key: String,
    /// Nobody writes there.
    pub read_only: bool,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// By volume.
    pub stages: BTreeMap<String, Stage>,
    /// By path.
    pub targets: BTreeMap<PathBuf, Target>,
}

impl Known {
    /// Places of a volume.
    pub fn places_of<'a>(&'a self, volume: &'a str) -> impl Iterator<Item = &'a PathBuf> {
        self.targets.iter().filter(move |(_, target)| target.volume == volume).map(|(path, _)| path)
    }

    /// Is a mount of a client in use?
    pub fn uses(&self, key: &str) -> bool {
        self.targets.values().any(|target| target.key == key)
            || self.stages.values().any(|stage| stage.key.as_deref() == Some(key))
    }
}

/// The file with it.
#[derive(Debug)]
pub struct Memory {
    file: PathBuf,
    known: Mutex<Known>,
}

impl Memory {
    /// Reads it, if there is one.
    ///
    /// # Errors
    /// Of the system. What cannot be understood is put aside.
    pub fn open(dir: &Path) -> io::Result<Self> {
        record::make_dir(dir)?;
        let file = dir.join("node.json");
        let known = match record::read(&file) {
            Ok(known) => known,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Known::default(),
            Err(e) => {
                let aside = file.with_extension("damaged");
                tracing::error!(
                    "{}: {e}; it is now {}, and mounts of before are not looked after",
                    file.display(),
                    aside.display()
                );
                std::fs::rename(&file, aside)?;
                Known::default()
            }
        };
        Ok(Self { file, known: Mutex::new(known) })
    }

    /// What is known now.
    pub fn get(&self) -> Known {
        self.known.lock().clone()
    }

    /// Changes it, in the file first.
    ///
    /// # Errors
    /// Of the system; then nothing has changed.
    pub fn change(&self, change: impl FnOnce(&mut Known)) -> io::Result<()> {
        let mut known = self.known.lock();
        let mut new = known.clone();
        change(&mut new);
        if new != *known {
            record::write(&self.file, &new)?;
            *known = new;
        }
        Ok(())
    }
}
