//! The table of inodes that are open here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciderfs_format::{Attr, Ino};
use parking_lot::Mutex;

use crate::file::{File, next_moment};

/// Classes of inode numbers.
const LEFT: usize = 256;

/// Open files by inode, with the number of handles.
#[derive(Default)]
pub(crate) struct Files {
    open: Mutex<HashMap<Ino, (Arc<File>, usize)>>,
    left: Left,
}

/// When a file of each class of inode numbers was closed last.
struct Left([AtomicU64; LEFT]);

impl Default for Left {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
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
            self.left.0[ino.0 as usize % LEFT].store(next_moment(), Ordering::Release);
            return true;
        }
        false
    }

    /// Has the last handle of such a file been closed since a moment? Then its content may have changed since.
    pub(crate) fn left_since(&self, ino: Ino, since: u64) -> bool {
        self.left.0[ino.0 as usize % LEFT].load(Ordering::Acquire) > since
    }

    pub(crate) fn get(&self, ino: Ino) -> Option<Arc<File>> {
        self.open.lock().get(&ino).map(|(f, _)| Arc::clone(f))
    }

    pub(crate) fn all(&self) -> Vec<Arc<File>> {
        self.open.lock().values().map(|(f, _)| Arc::clone(f)).collect()
    }
}
