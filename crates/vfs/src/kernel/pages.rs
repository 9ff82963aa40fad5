//! Which version of a file the kernel's pages are of.
//!
//! The kernel drops its pages of a file at each open that does not tell it to keep them. It may keep them where they are of the
//! version that is opened: where nothing has changed the file since they were dropped last but changes that this mount has
//! made itself, of which the kernel knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ciderfs_format::Ino;
use ciderfs_meta::Version;
use ciderfs_rt::Instant;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// A file in which opens here meet a new version of others within this time of the one before, so many times in a row, is
/// written to while it is read.
const BUSY: (Duration, u32) = (Duration::from_secs(5), 3);
/// Files remembered; of others the pages are dropped.
const REMEMBERED_MAX: usize = 16_384;

/// What is known of the kernel's pages.
#[derive(Default)]
pub(crate) struct Pages {
    files: Mutex<HashMap<Ino, Paged>>,
}

/// No page of the file is older than this version, once the kernel has dropped those that it had.
struct Paged {
    version: Version,
    /// The number of the drop that the kernel has been told of and may not have done yet.
    pending: Option<u64>,
    /// Set when the kernel has been told that its attributes are out of date.
    announced: Arc<OnceCell<()>>,
    /// Set when it has dropped the pages for a lock.
    forgotten: Arc<OnceCell<()>>,
    /// When an open met this version, or the one from which this mount has made it.
    met: Instant,
    /// How many were met before it in a row, each shortly after the other.
    row: u32,
    /// The one met before it.
    replaced: Option<Version>,
}

impl Paged {
    fn is_busy(&self) -> bool {
        self.row >= BUSY.1 && self.met.elapsed() < BUSY.0
    }
}

/// What an open is to do about the kernel's pages.
pub(crate) struct Opening {
    /// `None`: the pages are of the version that is opened. Otherwise the answer must have the kernel drop them.
    pub(crate) drops: Option<Drops>,
    /// The file changes elsewhere all the time. Between its pages and the length that it knows the kernel keeps no order: while
    /// one reader learns that a file has grown, another one reads zeros at its old end.
    pub(crate) busy: bool,
}

/// A drop of pages that the answer to an open asks for.
#[derive(Default)]
pub(crate) struct Drops {
    number: AtomicU64,
    announced: Arc<OnceCell<()>>,
    forgotten: Arc<OnceCell<()>>,
}

impl Drops {
    fn new(number: u64, announced: &Arc<OnceCell<()>>, forgotten: &Arc<OnceCell<()>>) -> Self {
        Self {
            number: AtomicU64::new(number),
            announced: Arc::clone(announced),
            forgotten: Arc::clone(forgotten),
        }
    }

    /// Has `tell` tell the kernel that its attributes are out of date, once for a version: an answer that is on its way while it
    /// is told again is thrown away, and whoever has asked goes on with an old length. Returns when it is told, by whomever.
    pub(crate) async fn tell(&self, tell: impl Future<Output = ()>) {
        self.announced.get_or_init(|| tell).await;
    }

    /// The same for a lock, which has no answer by which the kernel drops pages: `forget` has it drop them, once for a version as well.
    pub(crate) async fn forget<F>(&self, forget: impl Fn() -> F, tell: impl Future<Output = ()>)
    where
        F: Future<Output = ()>,
    {
        let both = async {
            let mut is_done = false;
            let first = async {
                forget().await;
                is_done = true;
                tell.await;
            };
            self.announced.get_or_init(|| first).await;
            if !is_done {
                forget().await;
            }
        };
        self.forgotten.get_or_init(|| both).await;
    }
}

/// Numbers of drops; 0 is none.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

impl Pages {
    fn put(&self, ino: Ino, paged: Paged) {
        let mut map = self.files.lock();
        if map.len() >= REMEMBERED_MAX {
            map.clear();
        }
        map.insert(ino, paged);
    }

    /// A file is new and has no pages, unless somebody has opened it already.
    pub(crate) fn created(&self, ino: Ino, version: Version) {
        if !self.files.lock().contains_key(&ino) {
            let (announced, forgotten, met) = (Arc::default(), Arc::default(), Instant::now());
            let paged = Paged { version, pending: None, announced, forgotten, met, row: 0, replaced: None };
            self.put(ino, paged);
        }
    }

    /// A file is opened at a version. From here on no page of an older one may come to be, but through requests that have begun.
    pub(crate) fn open(&self, ino: Ino, version: Version) -> Opening {
        let (mut row, mut replaced) = (0, None);
        if let Some(k) = self.files.lock().get(&ino) {
            if k.version == version {
                return Opening {
                    drops: k.pending.map(|n| Drops::new(n, &k.announced, &k.forgotten)),
                    busy: k.is_busy(),
                };
            }
            row = if k.met.elapsed() < BUSY.0 { k.row + 1 } else { 0 };
            replaced = Some(k.version);
        }
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed) + 1;
        let (announced, forgotten) = (Arc::default(), Arc::default());
        let drops = Drops::new(number, &announced, &forgotten);
        let paged = Paged {
            version,
            pending: Some(number),
            announced,
            forgotten,
            met: Instant::now(),
            row,
            replaced,
        };
        let busy = paged.is_busy();
        self.put(ino, paged);
        Opening { drops: Some(drops), busy }
    }

    /// The kernel uses a handle, so it has done what the answer to its open asked for.
    pub(crate) fn used(&self, ino: Ino, drops: &Drops) {
        if drops.number.load(Ordering::Relaxed) == 0 {
            return;
        }
        let number = drops.number.swap(0, Ordering::Relaxed);
        if let Some(k) = self.files.lock().get_mut(&ino).filter(|k| k.pending == Some(number)) {
            k.pending = None;
        }
    }

    /// This mount has made one version out of another, and the kernel's pages with it.
    pub(crate) fn moved(&self, ino: Ino, before: Version, after: Version) {
        let mut map = self.files.lock();
        let Some(k) = map.get_mut(&ino) else { return };
        if k.version == before {
            k.version = after;
        } else if k.version == after {
            // An open has met it before this was told: it was no change of others.
            if k.replaced == Some(before) {
                k.row = k.row.saturating_sub(1);
            }
        } else {
            // Somebody else has changed it before, or an open has seen what came afterwards.
            map.remove(&ino);
        }
    }

    /// The kernel's pages are not what the file holds, or nobody knows.
    pub(crate) fn forget(&self, ino: Ino) {
        self.files.lock().remove(&ino);
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
        let drops = p.open(INO, version(n)).drops;
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
        let first = p.open(INO, version(1)).drops.unwrap();
        let second = p.open(INO, version(1)).drops.unwrap();
        change(&p, 1, 2);
        let third = p.open(INO, version(2)).drops.unwrap();
        p.used(INO, &third);
        assert!(keeps(&p, 2));
        // A drop for an older version says nothing about a newer one.
        let newer = p.open(INO, version(3)).drops.unwrap();
        p.used(INO, &first);
        p.used(INO, &second);
        assert!(p.open(INO, version(3)).drops.is_some());
        p.used(INO, &newer);
        assert!(p.open(INO, version(3)).drops.is_none());
    }

    #[test]
    fn a_file_that_others_change_again_and_again_is_busy() {
        let p = Pages::default();
        assert!(!p.open(INO, version(1)).busy && !p.open(INO, version(1)).busy);
        change(&p, 1, 2);
        assert!(!p.open(INO, version(2)).busy, "changed by this mount alone");
        assert!(!p.open(INO, version(3)).busy && !p.open(INO, version(4)).busy);
        // Met by an open, and told afterwards to be this mount's own.
        assert!(p.open(INO, version(5)).busy);
        change(&p, 4, 5);
        assert!(!p.open(INO, version(5)).busy);
        assert!(p.open(INO, version(6)).busy && p.open(INO, version(6)).busy);
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
