//! The table of inodes that are open here.

use std::collections::BTreeMap;
use std::sync::Arc;

use ciderfs_format::{Attr, Ino};
use parking_lot::Mutex;

use crate::content::file::File;

/// Open files by inode, with the number of handles.
#[derive(Default)]
pub(crate) struct Files {
    open: Mutex<BTreeMap<Ino, (Arc<File>, usize)>>,
}

impl Files {
    /// Opens one more handle; true if it is the first, and the file has these attributes.
    pub(crate) fn open(&self, ino: Ino, attr: &Attr) -> (Arc<File>, bool) {
        let mut open = self.open.lock();
        let (file, handles) = open.entry(ino).or_insert_with(|| (File::new(ino, attr.clone()), 0));
        *handles += 1;
        (Arc::clone(file), *handles == 1)
    }

    /// Closes one handle; true if it was the last.
    pub(crate) fn close(&self, ino: Ino) -> bool {
        let mut open = self.open.lock();
        let Some((_, handles)) = open.get_mut(&ino) else { return false };
        *handles -= 1;
        if *handles == 0 {
            open.remove(&ino);
            return true;
        }
        false
    }

    pub(crate) fn get(&self, ino: Ino) -> Option<Arc<File>> {
        self.open.lock().get(&ino).map(|(f, _)| Arc::clone(f))
    }

    pub(crate) fn all(&self) -> Vec<Arc<File>> {
        self.open.lock().values().map(|(f, _)| Arc::clone(f)).collect()
    }
}
