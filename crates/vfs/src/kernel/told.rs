//! Which attributes the kernel was told, and may still believe.

use std::time::Duration;

use ciderfs_format::{Attr, Ino, Time};
use parking_lot::Mutex;

use crate::aging::Aging;

/// What the kernel was told is remembered at least this long.
const BELIEVED_MIN: Duration = Duration::from_secs(1);

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
        let belief = match t.both(ino) {
            [Some(b), _] => Belief { length: b.length.min(length), ctime: b.ctime.max(ctime) },
            // The old length goes with the old entry, or it would stay as long as somebody asks.
            [None, Some(b)] => Belief { length, ctime: b.ctime.max(ctime) },
            [None, None] => Belief { length, ctime },
        };
        t.put(ino, belief);
    }

    /// The kernel has data up to this length, and none behind it.
    pub(crate) fn ends(&self, ino: Ino, length: u64) {
        let mut t = self.0.lock();
        if let Some(b) = t.get(ino) {
            t.put(ino, Belief { length: b.length.min(length), ..b });
        }
    }

    /// The kernel has taken a length.
    pub(crate) fn taken(&self, ino: Ino, length: u64) {
        let mut t = self.0.lock();
        if let Some(b) = t.get(ino) {
            t.forget_old(ino);
            t.put(ino, Belief { length, ..b });
        }
    }

    /// The least length that it may believe, if it was told any.
    pub(crate) fn length(&self, ino: Ino) -> Option<u64> {
        let t = self.0.lock();
        t.both(ino).into_iter().flatten().map(|b| b.length).min()
    }

    /// Was it told what is newer than these attributes?
    pub(crate) fn is_newer(&self, ino: Ino, attr: &Attr) -> bool {
        self.0.lock().get(ino).is_some_and(|b| b.ctime > attr.ctime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::support::file_attr;

    fn attr(length: u64, ctime: i64) -> Attr {
        file_attr(length, Time { sec: ctime, nsec: 0 })
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
        t.0.lock().keep_for(Duration::ZERO);
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
