//! What happened to inodes of late.

use std::time::Duration;

use ciderfs_format::Ino;
use parking_lot::Mutex;

use crate::aging::Aging;
use crate::content::moment::Moment;

/// What happened is remembered at least this long, unless it is too much.
const KEPT: Duration = Duration::from_secs(3);

/// Inodes to which something happened, with the moment when it did last.
///
/// Attributes that were fetched before something happened to an inode must not be told after it. The kernel takes an answer for
/// as old as its request; but an answer to a listing may hold what was fetched for an earlier one.
pub(crate) struct Recent(Mutex<Aging<Moment>>);

impl Default for Recent {
    fn default() -> Self {
        Self(Mutex::new(Aging::new(KEPT)))
    }
}

impl Recent {
    /// Something happens to an inode now: what was fetched before is out of date.
    pub(crate) fn note(&self, ino: Ino) {
        let mut t = self.0.lock();
        t.turn();
        t.put(ino, Moment::next());
    }

    /// May something have happened to the inode after a moment?
    pub(crate) fn since(&self, ino: Ino, moment: Moment) -> bool {
        let t = self.0.lock();
        // Nobody knows what happened before.
        !t.reaches(moment) || t.get(ino).is_some_and(|last| last > moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aging::KEPT_MAX;

    #[test]
    fn what_happened_is_remembered_or_taken_for_granted() {
        let r = Recent::default();
        let start = Moment::now();
        assert!(!r.since(Ino(1), start));
        r.note(Ino(1));
        let later = Moment::now();
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
        assert!(!r.since(Ino(2), Moment::now()));
    }
}
