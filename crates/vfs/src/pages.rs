//! Which version of a file the kernel's pages are of.
//!
//! The kernel drops its pages of a file at each open that does not tell it to keep them. It may keep them where they are of the
//! version that is opened: where nothing has changed the file since they were dropped last but changes that this mount has
//! made itself, of which the kernel knows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ciderfs_format::Ino;
use ciderfs_meta::{Changed, Version};
use parking_lot::Mutex;

/// Files remembered; of others the pages are dropped.
const REMEMBERED_MAX: usize = 16_384;

/// What is known of the kernel's pages.
#[derive(Default)]
pub(crate) struct Pages {
    known: Mutex<HashMap<Ino, Known>>,
    telling: Mutex<()>,
}

/// No page of the file is older than this version, once the kernel has dropped those that it had.
struct Known {
    version: Version,
    /// The number of the drop that the kernel has been told of and may not have done yet.
    pending: Option<u64>,
    /// Has the kernel been told to ask for attributes?
    told: bool,
}

/// A drop of pages that the answer to an open asks for.
#[derive(Default)]
pub(crate) struct Drops(AtomicU64);

/// Numbers of drops; 0 is none.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

impl Pages {
    fn put(&self, ino: Ino, known: Known) {
        let mut map = self.known.lock();
        if map.len() >= REMEMBERED_MAX {
            map.clear();
        }
        map.insert(ino, known);
    }

    /// A file is new and has no pages, unless somebody has opened it already.
    pub(crate) fn created(&self, ino: Ino, version: Version) {
        if !self.known.lock().contains_key(&ino) {
            self.put(ino, Known { version, pending: None, told: true });
        }
    }

    /// A file is opened at a version. `None`: the pages are of it. Otherwise the answer must have the kernel drop them.
    ///
    /// From here on no page of an older version may come to be, but through requests that have begun.
    pub(crate) fn open(&self, ino: Ino, version: Version) -> Option<Drops> {
        if let Some(k) = self.known.lock().get(&ino).filter(|k| k.version == version) {
            return k.pending.map(|n| Drops(AtomicU64::new(n)));
        }
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed) + 1;
        self.put(ino, Known { version, pending: Some(number), told: false });
        Some(Drops(AtomicU64::new(number)))
    }

    /// Has `tell` tell the kernel to ask for the attributes of this version, once: an answer that is on its way while it is told
    /// again is thrown away, and whoever has asked goes on with an old length. Returns when it is told, by whomever.
    pub(crate) fn tell(&self, ino: Ino, version: Version, tell: impl FnOnce()) {
        let _one = self.telling.lock();
        let told = |k: &&mut Known| k.version == version;
        if self.known.lock().get_mut(&ino).filter(told).is_some_and(|k| k.told) {
            return;
        }
        tell();
        if let Some(k) = self.known.lock().get_mut(&ino).filter(told) {
            k.told = true;
        }
    }

    /// The kernel uses a handle, so it has done what the answer to its open asked for.
    pub(crate) fn used(&self, ino: Ino, drops: &Drops) {
        if drops.0.load(Ordering::Relaxed) == 0 {
            return;
        }
        let number = drops.0.swap(0, Ordering::Relaxed);
        if let Some(k) = self.known.lock().get_mut(&ino).filter(|k| k.pending == Some(number)) {
            k.pending = None;
        }
    }

    /// This mount has changed a file, and the kernel's pages with it.
    pub(crate) fn changed(&self, ino: Ino, changed: &Changed) {
        self.moved(ino, changed.before, Version::of(&changed.attr));
    }

    fn moved(&self, ino: Ino, before: Version, after: Version) {
        let mut map = self.known.lock();
        let Some(k) = map.get_mut(&ino) else { return };
        if k.version == before {
            k.version = after;
        } else if k.version != after {
            // Somebody else has changed it before, or an open has seen what came afterwards.
            map.remove(&ino);
        }
    }

    /// The kernel's pages are not what the file holds, or nobody knows.
    pub(crate) fn forget(&self, ino: Ino) {
        self.known.lock().remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use ciderfs_format::Time;

    use super::*;

    const INO: Ino = Ino(7);

    fn version(n: i64) -> Version {
        Version { mtime: Time { sec: n, nsec: 0 }, length: 5 }
    }

    fn change(p: &Pages, from: i64, to: i64) {
        p.moved(INO, version(from), version(to));
    }

    /// Opens at a version and uses the handle; were the pages kept?
    fn keeps(p: &Pages, n: i64) -> bool {
        let drops = p.open(INO, version(n));
        if let Some(drops) = &drops {
            p.used(INO, drops);
        }
        drops.is_none()
    }

    #[test]
    fn pages_are_kept_while_only_this_mount_changes_the_file() {
        let p = Pages::default();
        assert!(!keeps(&p, 1));
        assert!(keeps(&p, 1));
        change(&p, 1, 2);
        change(&p, 2, 3);
        assert!(keeps(&p, 3));
        // Somebody else makes 4 of it.
        change(&p, 4, 5);
        assert!(!keeps(&p, 5));
        assert!(keeps(&p, 5));
        p.forget(INO);
        assert!(!keeps(&p, 5));
    }

    #[test]
    fn an_open_may_see_a_change_before_it_is_told() {
        let p = Pages::default();
        assert!(!keeps(&p, 1));
        assert!(!keeps(&p, 2));
        change(&p, 1, 2);
        assert!(keeps(&p, 2));
    }

    #[test]
    fn nobody_relies_on_a_drop_that_the_kernel_has_not_done() {
        let p = Pages::default();
        let first = p.open(INO, version(1)).unwrap();
        let second = p.open(INO, version(1)).unwrap();
        change(&p, 1, 2);
        let third = p.open(INO, version(2)).unwrap();
        p.used(INO, &third);
        assert!(keeps(&p, 2));
        // A drop for an older version says nothing about a newer one.
        let newer = p.open(INO, version(3)).unwrap();
        p.used(INO, &first);
        p.used(INO, &second);
        assert!(p.open(INO, version(3)).is_some());
        p.used(INO, &newer);
        assert!(p.open(INO, version(3)).is_none());
    }

    #[test]
    fn a_new_file_has_no_pages() {
        let p = Pages::default();
        p.created(INO, version(1));
        assert!(keeps(&p, 1));
        assert!(!keeps(&p, 2));
        p.created(INO, version(1));
        assert!(keeps(&p, 2));
    }
}
