//! Who waits for whom: finds circles of record locks that would never end.

use std::collections::{HashMap, HashSet};

/// A holder that waits.
struct Wait {
    owner: u64,
    pid: u32,
    on: Vec<u64>,
}

/// All waits of this client for locks that it holds itself. Waits for other clients are not known to anybody.
#[derive(Default)]
pub(crate) struct Waits {
    by_ticket: HashMap<u64, Wait>,
}

impl Waits {
    /// Notes that a request waits for all of these holders. False, and nothing noted, if one of them waits in turn,
    /// however indirectly, for the asking one.
    pub(crate) fn begin(&mut self, ticket: u64, owner: u64, pid: u32, on: Vec<u64>) -> bool {
        self.by_ticket.remove(&ticket);
        if self.reaches(&on, owner, pid) {
            return false;
        }
        self.by_ticket.insert(ticket, Wait { owner, pid, on });
        true
    }

    /// It waits no longer.
    pub(crate) fn end(&mut self, ticket: u64) {
        self.by_ticket.remove(&ticket);
    }

    fn reaches(&self, from: &[u64], owner: u64, pid: u32) -> bool {
        let mut seen = HashSet::new();
        let mut open: Vec<u64> = from.to_vec();
        while let Some(holder) = open.pop() {
            if holder == owner {
                return true;
            }
            if !seen.insert(holder) {
                continue;
            }
            // Two owners of one process: locks of open files, which another thread may give back. Linux looks for no
            // circles among those.
            let waits = self.by_ticket.values().filter(|w| w.owner == holder && w.pid != pid);
            open.extend(waits.flat_map(|w| &w.on));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles() {
        let mut w = Waits::default();
        assert!(w.begin(1, 10, 1, vec![20]));
        assert!(!w.begin(2, 20, 2, vec![30, 10]), "two wait for each other");
        assert!(w.begin(2, 20, 2, vec![30]));
        assert!(!w.begin(3, 30, 3, vec![10]), "three in a circle");
        w.end(1);
        assert!(w.begin(3, 30, 3, vec![10]));
        // A wait that goes on may close the circle later, when somebody else got the lock.
        assert!(!w.begin(4, 10, 1, vec![20]));
        assert!(w.begin(3, 30, 3, vec![40]));
        assert!(w.begin(4, 10, 1, vec![20]));
    }

    #[test]
    fn threads_with_locks_of_open_files_are_left_alone() {
        let mut w = Waits::default();
        assert!(w.begin(1, 10, 7, vec![20]));
        assert!(w.begin(2, 20, 7, vec![10]));
    }
}
