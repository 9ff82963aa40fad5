//! What is remembered of inodes for a while.

use std::collections::HashMap;
use std::time::Duration;

use ciderfs_format::Ino;
use ciderfs_rt::Instant;

use crate::content::moment::Moment;

/// Inodes remembered of such a time.
pub(crate) const KEPT_MAX: usize = 65_536;

/// Something about inodes, kept for a time at least and for twice that time at most.
pub(crate) struct Aging<V> {
    kept: Duration,
    young: HashMap<Ino, V>,
    old: HashMap<Ino, V>,
    /// The moments when the two begin.
    young_from: Moment,
    old_from: Moment,
    turned: Instant,
}

impl<V: Copy> Aging<V> {
    pub(crate) fn new(kept: Duration) -> Self {
        let now = Moment::now();
        Self {
            kept,
            young: HashMap::new(),
            old: HashMap::new(),
            young_from: now,
            old_from: now,
            turned: Instant::now(),
        }
    }

    /// Drops what is old, if it is time to.
    pub(crate) fn turn(&mut self) {
        if self.young.len() >= KEPT_MAX || self.turned.elapsed() >= self.kept {
            self.old = std::mem::take(&mut self.young);
            self.old_from = std::mem::replace(&mut self.young_from, Moment::now());
            self.turned = Instant::now();
        }
    }

    /// Keeps a value from now on.
    pub(crate) fn put(&mut self, ino: Ino, value: V) {
        self.young.insert(ino, value);
    }

    /// The value that was put last.
    pub(crate) fn get(&self, ino: Ino) -> Option<V> {
        self.young.get(&ino).or_else(|| self.old.get(&ino)).copied()
    }

    /// The values of now and of the time before.
    pub(crate) fn both(&self, ino: Ino) -> [Option<V>; 2] {
        [self.young.get(&ino).copied(), self.old.get(&ino).copied()]
    }

    /// Forgets the value of the time before.
    pub(crate) fn forget_old(&mut self, ino: Ino) {
        self.old.remove(&ino);
    }

    /// Is everything remembered that was put after a moment?
    pub(crate) fn reaches(&self, moment: Moment) -> bool {
        moment >= self.old_from
    }

    #[cfg(test)]
    pub(crate) fn keep_for(&mut self, kept: Duration) {
        self.kept = kept;
    }
}
