//! Link counts as POSIX knows them.
//!
//! A name that goes to the trash still counts in the file's record, as the official client has it: there it is a name like any
//! other. Whoever asks with `stat` wants to know of the names outside.

use std::collections::HashMap;

use ciderfs_format::{Attr, Ino, Time};
use parking_lot::Mutex;

use crate::vfs::Vfs;

/// Files whose names in the trash are remembered.
const KNOWN_MAX: usize = 16_384;

/// Names in the trash of files with several names, as of a ctime: whatever adds or takes a name sets it.
#[derive(Default)]
pub(crate) struct Trashed {
    known: Mutex<HashMap<Ino, (Time, u32)>>,
}

impl Trashed {
    fn get(&self, ino: Ino, ctime: Time) -> Option<u32> {
        self.known.lock().get(&ino).filter(|(at, _)| *at == ctime).map(|(_, n)| *n)
    }

    fn set(&self, ino: Ino, ctime: Time, names: u32) {
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(ino, (ctime, names));
    }
}

/// A file that has, or had, several names has no parent in its record.
fn has_several_names(attr: &Attr) -> bool {
    attr.parent.0 == 0 && attr.nlink > 1 && !attr.is_dir()
}

impl Vfs {
    /// May some of the file's names be in the trash, and is it not known how many?
    fn names_unknown(&self, ino: Ino, attr: &Attr) -> bool {
        has_several_names(attr)
            && !ino.is_virtual()
            && self.meta.settings().trash_enabled()
            && self.trashed.get(ino, attr.ctime).is_none()
    }

    /// Finds out how many names of these files are in the trash, in one turn if that is not known; for [`Vfs::links`].
    pub(crate) async fn count_links(&self, files: impl Iterator<Item = (Ino, &Attr)> + Send) {
        let unknown: Vec<(Ino, Time)> =
            files.filter(|(ino, a)| self.names_unknown(*ino, a)).map(|(ino, a)| (ino, a.ctime)).collect();
        if unknown.is_empty() {
            return;
        }
        let inos: Vec<Ino> = unknown.iter().map(|(ino, _)| *ino).collect();
        match self.meta.names_in_trash(&inos).await {
            Ok(counts) => {
                for ((ino, ctime), n) in unknown.into_iter().zip(counts) {
                    self.trashed.set(ino, ctime, n);
                }
            }
            Err(e) => tracing::debug!("names in the trash: {e}"),
        }
    }

    /// The link count that `stat` tells: names outside the trash. What is only in the trash has the names that it has
    /// there, except for those who hold it since before it went there: to them it is deleted.
    pub(crate) fn links(&self, ino: Ino, attr: &Attr) -> u32 {
        let outside = if has_several_names(attr) {
            attr.nlink.saturating_sub(self.trashed.get(ino, attr.ctime).unwrap_or(0))
        } else if attr.in_trash() {
            0
        } else {
            return attr.nlink;
        };
        if outside == 0 && !self.meta.is_held(ino) { attr.nlink } else { outside }
    }
}
