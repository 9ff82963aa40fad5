//! What happened to inodes of late.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ciderfs_format::Ino;
use parking_lot::Mutex;

use crate::file::{moment, next_moment};

/// What happened is remembered at least this long, unless it is too much.
const KEPT: Duration = Duration::from_secs(3);
/// Inodes remembered of such a time.
const KEPT_MAX: usize = 65_536;

/// Numbers of inodes, kept for a time at least and for twice that time at most.
struct Aging {
    kept: Duration,
    young: HashMap<Ino, u64>,
    old: HashMap<Ino, u64>,
    /// The moments when the two begin.
    young_from: u64,
    old_from: u64,
    turned: Instant,
}

impl Aging {
    fn new(kept: Duration) -> Self {
        let now = moment();
        Self {
            kept,
            young: HashMap::new(),
            old: HashMap::new(),
            young_from: now,
            old_from: now,
            turned: Instant::now(),
        }
    }

    fn put(&mut self, ino: Ino, value: u64) {
        if self.young.len() >= KEPT_MAX || self.turned.elapsed() >= self.kept {
            self.old = std::mem::take(&mut self.young);
            self.old_from = std::mem::replace(&mut self.young_from, moment());
            self.turned = Instant::now();
        }
        self.young.insert(ino, value);
    }

    fn get(&self, ino: Ino) -> Option<u64> {
        self.young.get(&ino).or_else(|| self.old.get(&ino)).copied()
    }
}

/// Inodes to which something happened, with the moment when it did last.
///
/// Attributes that were fetched before something happened to an inode must not be told after it. The kernel takes an answer for
/// as old as its request; but an answer to a listing may hold what was fetched for an earlier one.
pub(crate) struct Recent(Mutex<Aging>);

impl Default for Recent {
    fn default() -> Self {
        Self(Mutex::new(Aging::new(KEPT)))
    }
}

impl Recent {
    /// Something happens to an inode now: what was fetched before is out of date.
    pub(crate) fn note(&self, ino: Ino) {
        self.0.lock().put(ino, next_moment());
    }

    /// May something have happened to the inode after a moment?
    pub(crate) fn since(&self, ino: Ino, moment: u64) -> bool {
        let t = self.0.lock();
        // Nobody knows what happened before.
        moment < t.old_from || t.get(ino).is_some_and(|last| last > moment)
    }
}

/// The least length of a file that the kernel may believe: of what it was told of late some may have been thrown away.
pub(crate) struct Lengths(Mutex<Aging>);

impl Lengths {
    /// `kept`: how long the kernel believes attributes.
    pub(crate) fn new(kept: Duration) -> Self {
        Self(Mutex::new(Aging::new(kept)))
    }

    /// The kernel is told a length.
    pub(crate) fn told(&self, ino: Ino, length: u64) {
        let mut lengths = self.0.lock();
        let least = lengths.get(ino).map_or(length, |l| l.min(length));
        lengths.put(ino, least);
    }

    /// The kernel has taken a length.
    pub(crate) fn taken(&self, ino: Ino, length: u64) {
        self.0.lock().put(ino, length);
    }

    /// The least length that it may believe, if it was told any of late.
    pub(crate) fn get(&self, ino: Ino) -> Option<u64> {
        self.0.lock().get(ino)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_remembered_or_taken_for_granted() {
        let r = Recent::default();
        let start = moment();
        assert!(!r.since(Ino(1), start));
        r.note(Ino(1));
        let later = moment();
        assert!(r.since(Ino(1), start) && !r.since(Ino(2), start));
        assert!(!r.since(Ino(1), later));
        for n in 0..KEPT_MAX as u64 {
            r.note(Ino(n + 10));
        }
        // Still known after one turn.
        assert!(r.since(Ino(1), start) && !r.since(Ino(1), later) && !r.since(Ino(2), later));
        for n in 0..KEPT_MAX as u64 {
            r.note(Ino(n + 10));
        }
        // Forgotten: anything may have happened since.
        assert!(r.since(Ino(2), start) && r.since(Ino(1), start));
        assert!(!r.since(Ino(2), moment()));
    }

    #[test]
    fn lengths_are_forgotten_in_time() {
        let l = Lengths::new(Duration::from_millis(20));
        l.told(Ino(1), 7);
        l.told(Ino(1), 5);
        l.told(Ino(1), 7);
        assert_eq!((l.get(Ino(1)), l.get(Ino(2))), (Some(5), None));
        l.taken(Ino(1), 7);
        assert_eq!(l.get(Ino(1)), Some(7));
        for n in 2..4 {
            std::thread::sleep(Duration::from_millis(30));
            l.told(Ino(n), n);
        }
        assert_eq!((l.get(Ino(1)), l.get(Ino(3))), (None, Some(3)));
    }
}
