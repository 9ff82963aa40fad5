//! The clock of a cache directory: seconds of its life. It goes on across restarts. What the machine's wall clock says is of no
//! account, so a clock that is set neither empties the cache nor keeps it for ever. The time between two runs counts if
//! the machine was not started anew in between; the time before a start of the machine is not known and does not.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Where the kernel names the time since it was started.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A reading, as the index keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Second of the cache's clock.
    pub second: u32,
    /// Seconds since the machine was started.
    pub steady: u64,
    /// Which start that was; 0 if it is not known.
    pub boot: u128,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Clock {
    start: u32,
    opened: Duration,
    boot: u128,
    /// Seconds that a test lets pass.
    #[cfg(test)]
    ahead: std::sync::atomic::AtomicU32,
}

impl Clock {
    /// Goes on from the last reading, and from `newest`, the last second that was used.
    pub fn resume(last: Option<Reading>, newest: u32) -> Self {
        Self::resume_at(last, newest, steady(), boot_id())
    }

    fn resume_at(last: Option<Reading>, newest: u32, opened: Duration, boot: u128) -> Self {
        let passed = |r: Reading| {
            let known = boot != 0 && r.boot == boot;
            if known { opened.as_secs().saturating_sub(r.steady) } else { 0 }
        };
        let last = last.map_or(0, |r| r.second.saturating_add(u32::try_from(passed(r)).unwrap_or(u32::MAX)));
        Self {
            // A new second, so that the next use of a block counts.
            start: last.max(newest).saturating_add(1),
            opened,
            boot,
            #[cfg(test)]
            ahead: std::sync::atomic::AtomicU32::new(0),
        }
    }

    /// Now.
    pub fn second(&self) -> u32 {
        let run = steady().saturating_sub(self.opened).as_secs();
        let second = self.start.saturating_add(u32::try_from(run).unwrap_or(u32::MAX));
        #[cfg(test)]
        let second = second + self.ahead.load(std::sync::atomic::Ordering::SeqCst);
        second
    }

    /// Now, for the next run.
    pub fn reading(&self) -> Reading {
        Reading { second: self.second(), steady: steady().as_secs(), boot: self.boot }
    }

    /// Lets time pass.
    #[cfg(test)]
    pub fn advance(&self, seconds: u32) {
        self.ahead.fetch_add(seconds, std::sync::atomic::Ordering::SeqCst);
    }
}

/// Time since the machine was started; it goes on while the machine sleeps, and nobody can set it.
fn steady() -> Duration {
    let t = clock_gettime(ClockId::Boottime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

fn boot_id() -> u128 {
    let text = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_between_two_runs_counts_within_one_run_of_the_machine() {
        let last = Reading { second: 1000, steady: 50_000, boot: 7 };
        let resumed = |steady, boot| Clock::resume_at(Some(last), 0, Duration::from_secs(steady), boot).start;
        assert_eq!(resumed(50_600, 7), 1601);
        assert_eq!(resumed(40_000, 7), 1001, "as in a container with a clock of its own");
        assert_eq!(resumed(9_000_000, 8), 1001, "another start of the machine");
        let unknown = Reading { boot: 0, ..last };
        assert_eq!(Clock::resume_at(Some(unknown), 0, Duration::from_secs(90_000), 0).start, 1001);
        assert_eq!(Clock::resume_at(None, 30, Duration::ZERO, 7).start, 31);
        assert_eq!(Clock::resume_at(Some(last), 1200, Duration::ZERO, 7).start, 1201);
    }

    #[test]
    fn the_kernel_names_its_start() {
        assert_ne!(boot_id(), 0);
        let clock = Clock::resume(None, 0);
        let before = clock.second();
        clock.advance(100);
        assert!(clock.second() >= before + 100);
        assert!(Clock::resume(Some(clock.reading()), 0).second() >= before + 101);
    }
}
