//! Leaves a sick disk alone for a while.

use std::collections::VecDeque;
use std::time::Duration;

use ciderfs_rt::Instant;

/// Errors within the window that open the breaker.
const MAX_ERRORS: usize = 5;
/// How long errors count.
const WINDOW: Duration = Duration::from_secs(60);
/// How long the disk is left alone.
const REST: Duration = Duration::from_secs(60);

/// Opens after too many errors, closes by itself.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    errors: VecDeque<Instant>,
    open_until: Option<Instant>,
}

impl Breaker {
    /// May the disk be used?
    pub fn allows(&mut self, now: Instant) -> bool {
        if self.open_until.is_some_and(|until| now >= until) {
            self.open_until = None;
        }
        self.open_until.is_none()
    }

    /// Counts an error; true if it opened the breaker.
    pub fn error(&mut self, now: Instant) -> bool {
        if self.open_until.is_some() {
            return false;
        }
        while self.errors.front().is_some_and(|&t| now.saturating_duration_since(t) > WINDOW) {
            self.errors.pop_front();
        }
        self.errors.push_back(now);
        if self.errors.len() < MAX_ERRORS {
            return false;
        }
        self.errors.clear();
        self.open_until = Some(now + REST);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_five_errors_in_a_minute_and_closes_after_one() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut breaker = Breaker::default();
        for s in [0, 1, 2, 3] {
            assert!(!breaker.error(at(s)));
        }
        // The first four are forgotten by then.
        assert!(!breaker.error(at(70)));
        for s in [71, 72, 73] {
            assert!(!breaker.error(at(s)) && breaker.allows(at(s)));
        }
        assert!(breaker.error(at(74)));
        assert!(!breaker.error(at(75)), "counted once");
        assert!(!breaker.allows(at(133)));
        assert!(breaker.allows(at(134)));
        assert!(!breaker.error(at(135)));
    }
}
