//! What happened to inodes of late.
//!
//! Attributes that were fetched before something happened to an inode must not be told after it. The kernel takes an answer for
//! as old as its request; but an answer to a listing may hold what was fetched for an earlier one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ciderfs_format::Ino;
use parking_lot::Mutex;

use crate::file::next_moment;

/// What happened is remembered at least this long, unless it is too much.
const KEPT: Duration = Duration::from_secs(3);
/// Inodes remembered of such a time.
const KEPT_MAX: usize = 65_536;

/// Inodes to which something happened, with the moment when it did last.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Times>);

#[derive(Default)]
struct Times {
    young: HashMap<Ino, u64>,
    old: HashMap<Ino, u64>,
    /// The moments when the two begin. Nobody knows what happened before `old_from`.
    young_from: u64,
    old_from: u64,
    turned: Option<Instant>,
}

impl Recent {
    /// Something happens to an inode now: what was fetched before is out of date.
    pub(crate) fn note(&self, ino: Ino) {
        let mut t = self.0.lock();
        let now = next_moment();
        if t.young.len() >= KEPT_MAX || t.turned.is_none_or(|at| at.elapsed() >= KEPT) {
            t.old = std::mem::take(&mut t.young);
            t.old_from = std::mem::replace(&mut t.young_from, now);
            t.turned = Some(Instant::now());
        }
        t.young.insert(ino, now);
    }

    /// May something have happened to the inode after a moment?
    pub(crate) fn since(&self, ino: Ino, moment: u64) -> bool {
        let t = self.0.lock();
        let last = t.young.get(&ino).or_else(|| t.old.get(&ino));
        moment < t.old_from || last.is_some_and(|last| *last > moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::moment;

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
}
