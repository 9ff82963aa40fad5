//! Who waits for whom: finds circles of record locks that would never end.
//!
//! A client sees circles of its own holders at once. For circles through several clients, one that waits for another's lock
//! tells its waits to the fleet ([`super::fleet`]).

use ciderfs_format::SessionId;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use ciderfs_format::lock::LockRecord;

use crate::error::Result;
use crate::store::LockOwner;

/// A holder that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wait {
    /// Session and lock owner.
    pub(crate) who: LockOwner,
    /// Its process.
    pub(crate) pid: u32,
    /// Since when, by the waiting client's clock: microseconds since 1970.
    pub(crate) since: u64,
    /// Those that hold what it waits for.
    pub(crate) on: Vec<LockOwner>,
}

impl Wait {
    /// Is one of those another client's?
    pub(crate) fn is_foreign(&self) -> bool {
        self.on.iter().any(|(sid, _)| *sid != self.who.0)
    }

    /// Of the waits in a circle the greatest is given up, by whichever client it belongs to: the youngest, as Linux does.
    fn rank(&self) -> (u64, LockOwner) {
        (self.since, self.who)
    }

    /// A look and the waits that it found as lock records: one with the look's number, then for each wait one with the number of
    /// blockers, the process, the owner and the time, and one for each blocker with its session and owner. Nothing without
    /// waits.
    pub(crate) fn encode(look: u64, waits: &[Self]) -> Option<Bytes> {
        if waits.is_empty() {
            return None;
        }
        let mut out = vec![LockRecord { kind: 0, pid: 0, start: look, end: 0 }];
        for w in waits {
            out.push(LockRecord { kind: w.on.len() as u32, pid: w.pid, start: w.who.1, end: w.since });
            out.extend(w.on.iter().map(|&(sid, end)| LockRecord { kind: 0, pid: 0, start: sid.0, end }));
        }
        Some(LockRecord::encode_list(&out).into())
    }

    /// Reads back the look and the waits of session `sid`; what is cut off is left out.
    pub(crate) fn decode(sid: SessionId, raw: &[u8]) -> Result<(u64, Vec<Self>)> {
        let mut out = Vec::new();
        let records = LockRecord::decode_list(raw)?;
        let Some((look, mut rest)) = records.split_first() else { return Ok((0, out)) };
        while let Some((head, tail)) = rest.split_first() {
            let Some((on, tail)) = tail.split_at_checked(head.kind as usize) else { break };
            rest = tail;
            let on = on.iter().map(|r| (SessionId(r.start), r.end)).collect();
            out.push(Self { who: (sid, head.start), pid: head.pid, since: head.end, on });
        }
        Ok((look.start, out))
    }
}

/// Does waiting for `on` come back to `who`, over waits that `counts`?
fn reaches<'a>(
    waits: impl Iterator<Item = &'a Wait> + Clone,
    on: &[LockOwner],
    (who, pid): (LockOwner, u32),
    counts: impl Fn(&Wait) -> bool,
) -> bool {
    let mut seen = HashSet::new();
    let mut open: Vec<LockOwner> = on.to_vec();
    while let Some(holder) = open.pop() {
        if holder == who {
            return true;
        }
        if !seen.insert(holder) {
            continue;
        }
        // Two owners of one process: locks of open files, which another thread may give back. Linux looks for no
        // circles among those.
        let same_process = |w: &Wait| w.who.0 == who.0 && w.pid == pid;
        let next = waits.clone().filter(|w| w.who == holder && !same_process(w) && counts(w));
        open.extend(next.flat_map(|w| &w.on));
    }
    false
}

/// The waits of a session that are the youngest of a circle.
pub(crate) fn to_give_up(all: &[Wait], sid: SessionId) -> Vec<&Wait> {
    let youngest = |w: &&Wait| reaches(all.iter(), &w.on, (w.who, w.pid), |other| other.rank() < w.rank());
    all.iter().filter(|w| w.who.0 == sid).filter(youngest).collect()
}

/// All waits of this client.
#[derive(Default)]
pub(crate) struct Waits {
    by_ticket: HashMap<u64, Wait>,
}

impl Waits {
    /// Notes that a request waits, for one more reason or still. False, and nothing noted, if one of those it waits for waits
    /// in turn, however indirectly, for the asking one.
    pub(crate) fn begin(&mut self, ticket: u64, mut wait: Wait) -> bool {
        if let Some(old) = self.by_ticket.remove(&ticket) {
            wait.since = old.since;
        }
        if reaches(self.by_ticket.values(), &wait.on, (wait.who, wait.pid), |_| true) {
            return false;
        }
        self.by_ticket.insert(ticket, wait);
        true
    }

    /// It waits no longer.
    pub(crate) fn end(&mut self, ticket: u64) {
        self.by_ticket.remove(&ticket);
    }

    /// The requests by which this holder waits since then.
    pub(crate) fn tickets(&self, wait: &Wait) -> Vec<u64> {
        let same = |w: &Wait| (w.who, w.since) == (wait.who, wait.since);
        self.by_ticket.iter().filter(|(_, w)| same(w)).map(|(t, _)| *t).collect()
    }

    /// All of them in a fixed order.
    pub(crate) fn all(&self) -> Vec<Wait> {
        let mut all: Vec<Wait> = self.by_ticket.values().cloned().collect();
        all.sort_unstable_by_key(Wait::rank);
        all
    }

    /// Does one wait for another client's lock, since before `since`?
    pub(crate) fn has_foreign(&self, since: u64) -> bool {
        self.by_ticket.values().any(|w| w.since <= since && w.is_foreign())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Owners of session 1.
    fn wait(owner: u64, pid: u32, on: &[u64]) -> Wait {
        Wait {
            who: (SessionId(1), owner),
            pid,
            since: owner,
            on: on.iter().map(|o| (SessionId(1), *o)).collect(),
        }
    }

    #[test]
    fn circles() {
        let mut w = Waits::default();
        assert!(w.begin(1, wait(10, 1, &[20])));
        assert!(!w.begin(2, wait(20, 2, &[30, 10])), "two wait for each other");
        assert!(w.begin(2, wait(20, 2, &[30])));
        assert!(!w.begin(3, wait(30, 3, &[10])), "three in a circle");
        w.end(1);
        assert!(w.begin(3, wait(30, 3, &[10])));
        // A wait that goes on may close the circle later, when somebody else got the lock.
        assert!(!w.begin(4, wait(10, 1, &[20])));
        assert!(w.begin(3, wait(30, 3, &[40])));
        assert!(w.begin(4, wait(10, 1, &[20])));
    }

    #[test]
    fn threads_with_locks_of_open_files_are_left_alone() {
        let mut w = Waits::default();
        assert!(w.begin(1, wait(10, 7, &[20])));
        assert!(w.begin(2, wait(20, 7, &[10])));
    }

    #[test]
    fn one_of_a_circle_through_several_clients_gives_up() {
        let w = |who, since, on: &[LockOwner]| Wait { who, pid: 7, since, on: on.to_vec() };
        // Processes of different machines may have the same number. The owner 5 of session 1 only waits for the circle.
        let all = [
            w((SessionId(1), 1), 10, &[(SessionId(2), 1), (SessionId(1), 9)]),
            w((SessionId(2), 1), 30, &[(SessionId(3), 1)]),
            w((SessionId(3), 1), 20, &[(SessionId(1), 1)]),
            w((SessionId(1), 5), 40, &[(SessionId(1), 1)]),
        ];
        let victims = |all: &[Wait]| {
            (1..=3).flat_map(|sid| to_give_up(all, SessionId(sid))).map(|w| w.who).collect::<Vec<_>>()
        };
        assert_eq!(victims(&all), [(SessionId(2), 1)], "the youngest, and only it");
        assert_eq!(victims(&all[..2]), []);
        assert_eq!(victims(&[all[0].clone(), all[2].clone(), all[3].clone()]), []);
        // Two circles over one holder.
        let two = [
            w((SessionId(1), 1), 10, &[(SessionId(2), 1), (SessionId(3), 1)]),
            w((SessionId(2), 1), 20, &[(SessionId(1), 1)]),
            w((SessionId(3), 1), 20, &[(SessionId(1), 1)]),
        ];
        assert_eq!(victims(&two), [(SessionId(2), 1), (SessionId(3), 1)]);
    }

    #[test]
    fn waits_are_told_in_the_form_of_lock_records() {
        let waits = [wait(3, 4, &[]), wait(5, 6, &[7, 8]), wait(9, 9, &[1])];
        let raw = Wait::encode(17, &waits).unwrap();
        assert_eq!(raw.len() % LockRecord::RECORD, 0);
        assert_eq!(Wait::decode(SessionId(1), &raw).unwrap(), (17, waits.to_vec()));
        let cut = Wait::decode(SessionId(1), &raw[..raw.len() - LockRecord::RECORD]).unwrap();
        assert_eq!(cut, (17, waits[..2].to_vec()));
        assert!(Wait::decode(SessionId(1), &raw[1..]).is_err());
        assert_eq!(Wait::encode(17, &[]), None);
        assert_eq!(Wait::decode(SessionId(1), &[]).unwrap(), (0, Vec::new()));
    }
}
