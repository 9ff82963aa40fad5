//! A figure of the engine that many requests change and tell at a time.
//!
//! Moments are counted by the ledger. A request has been answered at some moment between sending it and hearing of it, and
//! no more is known: a figure holds all changes that were heard of before it was asked for, none that were sent after it
//! was heard of, and of those between nobody knows. What gives back is not counted then, and what takes is.

use std::collections::VecDeque;

/// What is used of something, as far as this client can know; too much rather than too little.
#[derive(Debug, Default)]
pub(crate) struct Figure {
    used: i64,
    /// When the request was sent that told it last,
    asked: u64,
    /// and when the answer was heard.
    heard: u64,
    /// Changes of this client that a request under way may or may not hold: when they were heard of, and how much.
    recent: VecDeque<(u64, i64)>,
}

impl Figure {
    pub(crate) fn used(&self) -> i64 {
        self.used
    }

    /// A request sent at `asked` tells the figure at `now`. False if a younger one has told it already.
    pub(crate) fn tell(&mut self, asked: u64, now: u64, used: i64) -> bool {
        if asked < self.asked {
            return false;
        }
        let unknown = self.recent.iter().filter(|(at, _)| *at > asked);
        self.used = unknown.fold(used, |sum, (_, more)| sum.saturating_add((*more).max(0)));
        (self.asked, self.heard) = (asked, now);
        true
    }

    /// A request sent at `asked` has changed the figure by `more`, and told what it is then, or not. `oldest` is the oldest
    /// request still under way.
    pub(crate) fn land(&mut self, asked: u64, now: u64, more: i64, told: Option<i64>, oldest: Option<u64>) {
        let told = told.is_some_and(|used| self.tell(asked, now, used));
        if !told && (more > 0 || asked > self.heard) {
            self.used = self.used.saturating_add(more);
        }
        match oldest {
            Some(oldest) => {
                while self.recent.front().is_some_and(|(at, _)| *at < oldest) {
                    self.recent.pop_front();
                }
                self.recent.push_back((now, more));
            }
            None => self.recent.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_cross_each_other_do_not_hide_a_change() {
        let mut f = Figure::default();
        assert!(f.tell(1, 2, 100));
        // Two changes, sent at 3 and 4; the later one is heard first, and its figure may lack the earlier one.
        f.land(4, 5, 20, Some(120), Some(3));
        f.land(3, 6, 10, Some(130), None);
        assert_eq!(f.used(), 130, "the figure sent first is not the newer one");
        // A reader sent before a change is heard after it.
        f.land(8, 9, 5, Some(135), Some(7));
        assert!(!f.tell(7, 10, 130), "older than what is known");
        assert_eq!(f.used(), 135);
        assert!(f.tell(11, 12, 135));
        assert_eq!(f.used(), 135);
    }

    #[test]
    fn what_may_be_missing_is_added_and_what_may_be_there_is_not_taken_away() {
        let mut f = Figure::default();
        assert!(f.tell(1, 2, 100));
        // Changes without figures, while a request is under way since 3.
        f.land(4, 5, 10, None, Some(3));
        f.land(6, 7, -30, None, Some(3));
        assert_eq!(f.used(), 80, "known to come after the figure");
        assert!(f.tell(3, 8, 110));
        assert_eq!(f.used(), 120, "both may be in it, or none");
        f.land(5, 9, -30, None, Some(10));
        assert_eq!(f.used(), 120, "may be in it");
        assert!(f.tell(10, 11, 80));
        assert_eq!(f.used(), 80);
        f.land(12, 13, 0, None, None);
        assert!(f.recent.is_empty());
    }
}
