//! What happened to inodes of late.

use std::collections::HashMap;
use std::time::Duration;

use ciderfs_format::{Attr, Ino, Time};
use ciderfs_rt::Instant;
use parking_lot::Mutex;

use crate::file::{moment, next_moment};

/// What happened is remembered at least this long, unless it is too much.
const KEPT: Duration = Duration::from_secs(3);
/// And what the kernel was told.
const BELIEVED_MIN: Duration = Duration::from_secs(1);
/// Inodes remembered of such a time.
const KEPT_MAX: usize = 65_536;

/// Something about inodes, kept for a time at least and for twice that time at most.
struct Aging<V> {
    kept: Duration,
    young: HashMap<Ino, V>,
    old: HashMap<Ino, V>,
    /// The moments when the two begin.
    young_from: u64,
    old_from: u64,
    turned: Instant,
}

impl<V: Copy> Aging<V> {
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

    fn put(&mut self, ino: Ino, value: V) {
        self.turn();
        self.young.insert(ino, value);
    }

    /// Drops what is old, if it is time to.
    fn turn(&mut self) {
        if self.young.len() >= KEPT_MAX || self.turned.elapsed() >= self.kept {
            self.old = std::mem::take(&mut self.young);
            self.old_from = std::mem::replace(&mut self.young_from, moment());
            self.turned = Instant::now();
        }
    }

    fn get(&self, ino: Ino) -> Option<V> {
        self.young.get(&ino).or_else(|| self.old.get(&ino)).copied()
    }
}

/// Inodes to which something happened, with the moment when it did last.
///
/// Attributes that were fetched before something happened to an inode must not be told after it. The kernel takes an answer for
/// as old as its request; but an answer to a listing may hold what was fetched for an earlier one.
pub(crate) struct Recent(Mutex<Aging<u64>>);

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

/// What the kernel was told of inodes, as long as it may believe it.
pub(crate) struct Told(Mutex<Aging<Belief>>);

#[derive(Clone, Copy)]
struct Belief {
    /// The least length: of what it was told some may have been thrown away.
    length: u64,
    /// The latest ctime.
    ctime: Time,
}

impl Told {
    /// `valid`: how long the kernel believes attributes.
    pub(crate) fn new(valid: Duration) -> Self {
        Self(Mutex::new(Aging::new(valid.max(BELIEVED_MIN))))
    }

    /// The kernel is told attributes.
    pub(crate) fn note(&self, ino: Ino, attr: &Attr) {
        let mut t = self.0.lock();
        t.turn();
        let (length, ctime) = (attr.length, attr.ctime);
        let belief = match (t.young.get(&ino), t.old.get(&ino)) {
            (Some(b), _) => Belief { length: b.length.min(length), ctime: b.ctime.max(ctime) },
            // The old length goes with the old entry, or it would stay as long as somebody asks.
            (None, Some(b)) => Belief { length, ctime: b.ctime.max(ctime) },
            (None, None) => Belief { length, ctime },
        };
        t.young.insert(ino, belief);
    }

    /// The kernel has data up to this length, and none behind it.
    pub(crate) fn ends(&self, ino: Ino, length: u64) {
        let mut t = self.0.lock();
        if let Some(b) = t.get(ino) {
            t.young.insert(ino, Belief { length: b.length.min(length), ..b });
        }
    }

    /// The kernel has taken a length.
    pub(crate) fn taken(&self, ino: Ino, length: u64) {
        let mut t = self.0.lock();
        if let Some(b) = t.get(ino) {
            t.old.remove(&ino);
            t.young.insert(ino, Belief { length, ..b });
        }
    }

    /// The least length that it may believe, if it was told any.
    pub(crate) fn length(&self, ino: Ino) -> Option<u64> {
        let t = self.0.lock();
        [&t.young, &t.old].into_iter().filter_map(|m| m.get(&ino)).map(|b| b.length).min()
    }

    /// Was it told what is newer than these attributes?
    pub(crate) fn is_newer(&self, ino: Ino, attr: &Attr) -> bool {
        self.0.lock().get(ino).is_some_and(|b| b.ctime > attr.ctime)
    }
}

#[cfg(test)]
mod tests {
    use ciderfs_format::FileType;

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

    fn attr(length: u64, ctime: i64) -> Attr {
        let time = Time { sec: ctime, nsec: 0 };
        Attr {
            flags: 0,
            kind: FileType::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            atime: time,
            mtime: time,
            ctime: time,
            nlink: 1,
            length,
            rdev: 0,
            parent: Ino::ROOT,
            access_acl: 0,
            default_acl: 0,
            tier: 0,
        }
    }

    #[test]
    fn the_kernel_may_believe_the_least_of_what_it_was_told_lately() {
        let t = Told::new(Duration::from_secs(1000));
        assert_eq!(t.length(Ino(1)), None);
        t.ends(Ino(1), 3);
        t.taken(Ino(1), 3);
        assert_eq!(t.length(Ino(1)), None, "it was told nothing");
        for (length, ctime) in [(7, 1), (5, 2), (9, 3)] {
            t.note(Ino(1), &attr(length, ctime));
        }
        assert_eq!(t.length(Ino(1)), Some(5));
        assert!(t.is_newer(Ino(1), &attr(9, 2)) && !t.is_newer(Ino(1), &attr(9, 3)));
        t.taken(Ino(1), 9);
        assert_eq!(t.length(Ino(1)), Some(9));
        t.ends(Ino(1), 6);
        assert_eq!(t.length(Ino(1)), Some(6));
        // Asked for all the time, what was told long ago goes all the same.
        t.0.lock().kept = Duration::ZERO;
        t.note(Ino(1), &attr(9, 4));
        assert_eq!(t.length(Ino(1)), Some(6));
        t.note(Ino(1), &attr(9, 4));
        assert_eq!(t.length(Ino(1)), Some(9));
        for n in 2..4 {
            t.note(Ino(n), &attr(1, 1));
        }
        assert_eq!(t.length(Ino(1)), None);
    }
}
