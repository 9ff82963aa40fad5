//! Requests in flight and the interruptions that reach them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Locks over which requests in flight are spread.
const SHARDS: usize = 16;
/// Most interruptions remembered for requests not seen yet.
const MAX_EARLY: usize = 64;
/// How long such an interruption is remembered. The kernel queues it when the request's bytes are already being
/// handed to a reader, so the request shows up within microseconds or was answered before.
const EARLY_LIFE: Duration = Duration::from_secs(5);

type Callback = Box<dyn FnOnce() + Send>;

enum Slot {
    Running,
    Watched(Callback),
    Interrupted,
}

/// Spreads the kernel's consecutive even numbers.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Shard = Mutex<HashMap<u64, Slot, BuildHasherDefault<IdHasher>>>;

/// What an INTERRUPT met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// The request is in flight and now knows.
    Found,
    /// Not in flight (yet, or any more); remembered for a while.
    Remembered,
    /// As `Remembered`, but an older one had to make room: ask the kernel to repeat it.
    Evicted,
}

/// All requests that were received and not answered.
#[derive(Default)]
pub(crate) struct Inflight {
    shards: [Shard; SHARDS],
    early: Mutex<VecDeque<(u64, Instant)>>,
    /// Length of `early`, so that the usual case takes no second lock.
    early_len: AtomicUsize,
    /// What is not answered is asked again by the kernel, of another process.
    left: AtomicBool,
}

impl Inflight {
    fn shard(&self, unique: u64) -> &Shard {
        // Bit 0 of `unique` tells interruptions from requests.
        &self.shards[(unique >> 1) as usize % SHARDS]
    }

    /// Leaves what is not answered to another process.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// Whether another process answers what is dropped unanswered.
    pub fn is_left(&self) -> bool {
        self.left.load(Ordering::Acquire)
    }

    /// Takes up a request; call before its handler runs.
    pub fn register(&self, unique: u64) {
        let mut shard = self.shard(unique).lock();
        // The shard's lock is held in `interrupt` while it adds to `early`: one of the two sees the other.
        let hit = self.early_len.load(Ordering::Acquire) > 0 && self.take_early(unique);
        shard.insert(unique, if hit { Slot::Interrupted } else { Slot::Running });
    }

    fn take_early(&self, unique: u64) -> bool {
        let mut early = self.early.lock();
        while early.front().is_some_and(|(_, at)| at.elapsed() > EARLY_LIFE) {
            early.pop_front();
        }
        let at = early.iter().position(|(u, _)| *u == unique);
        let hit = at.and_then(|at| early.remove(at)).is_some();
        self.early_len.store(early.len(), Ordering::Release);
        hit
    }

    /// The request is being answered.
    pub fn complete(&self, unique: u64) {
        let slot = self.shard(unique).lock().remove(&unique);
        drop(slot); // outside the lock: a callback's captures may do anything when dropped
    }

    /// An INTERRUPT for `unique` arrived.
    pub fn interrupt(&self, unique: u64) -> Met {
        let mut shard = self.shard(unique).lock();
        if let Some(slot) = shard.get_mut(&unique) {
            let old = std::mem::replace(slot, Slot::Interrupted);
            drop(shard);
            if let Slot::Watched(callback) = old {
                callback();
            }
            return Met::Found;
        }
        let mut early = self.early.lock();
        let full = early.len() >= MAX_EARLY;
        if full {
            early.pop_front();
        }
        early.push_back((unique, Instant::now()));
        self.early_len.store(early.len(), Ordering::Release);
        if full { Met::Evicted } else { Met::Remembered }
    }

    fn is_interrupted(&self, unique: u64) -> bool {
        matches!(self.shard(unique).lock().get(&unique), Some(Slot::Interrupted))
    }

    fn watch(&self, unique: u64, callback: Callback) {
        let mut shard = self.shard(unique).lock();
        match shard.get_mut(&unique) {
            Some(Slot::Interrupted) => {
                drop(shard);
                callback();
            }
            Some(slot) => {
                let old = std::mem::replace(slot, Slot::Watched(callback));
                drop(shard);
                drop(old);
            }
            None => {}
        }
    }

    /// Number of requests in flight.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

/// Tells whether a request was interrupted; outlives its [`crate::Reply`] and is cheap to clone.
#[derive(Clone)]
pub struct InterruptFlag {
    pub(crate) unique: u64,
    pub(crate) inflight: Arc<Inflight>,
}

impl InterruptFlag {
    /// Whether the caller got a signal and gave up waiting. False once the request is answered.
    pub fn is_interrupted(&self) -> bool {
        self.inflight.is_interrupted(self.unique)
    }

    /// Calls `callback` when the request is interrupted: at once if it already was, never after it is answered.
    /// A later callback takes the place of an earlier one. It runs on a reader thread and must not block.
    pub fn on_interrupt(&self, callback: Box<dyn FnOnce() + Send>) {
        self.inflight.watch(self.unique, callback);
    }
}

impl std::fmt::Debug for InterruptFlag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InterruptFlag").field("unique", &self.unique).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(inflight: &Arc<Inflight>, unique: u64) -> InterruptFlag {
        InterruptFlag { unique, inflight: inflight.clone() }
    }

    #[test]
    fn callback_runs_once_and_late_ones_at_once() {
        let inflight = Arc::new(Inflight::default());
        inflight.register(10);
        let hits = Arc::new(AtomicUsize::new(0));
        let count = || {
            let hits = hits.clone();
            Box::new(move || _ = hits.fetch_add(1, Ordering::SeqCst)) as Callback
        };
        flag(&inflight, 10).on_interrupt(count());
        assert!(!flag(&inflight, 10).is_interrupted());
        assert_eq!(inflight.interrupt(10), Met::Found);
        assert_eq!(inflight.interrupt(10), Met::Found);
        assert_eq!(hits.load(Ordering::SeqCst), 1);
        flag(&inflight, 10).on_interrupt(count());
        assert_eq!(hits.load(Ordering::SeqCst), 2);
        inflight.complete(10);
        flag(&inflight, 10).on_interrupt(count());
        assert_eq!(hits.load(Ordering::SeqCst), 2);
        assert_eq!(inflight.len(), 0);
    }

    #[test]
    fn interruption_before_the_request_is_not_lost() {
        let inflight = Arc::new(Inflight::default());
        assert_eq!(inflight.interrupt(20), Met::Remembered);
        inflight.register(22);
        inflight.register(20);
        assert!(flag(&inflight, 20).is_interrupted());
        assert!(!flag(&inflight, 22).is_interrupted());
    }

    #[test]
    fn memory_of_early_interruptions_is_bounded() {
        let inflight = Inflight::default();
        for i in 0..MAX_EARLY as u64 {
            assert_eq!(inflight.interrupt(i * 2), Met::Remembered);
        }
        assert_eq!(inflight.interrupt(9999), Met::Evicted);
        assert_eq!(inflight.early.lock().len(), MAX_EARLY);
    }

    #[test]
    fn a_race_of_both_sides_always_meets() {
        for unique in (0..2000u64).step_by(2) {
            let inflight = Arc::new(Inflight::default());
            let seen = Arc::new(AtomicBool::new(false));
            let other = std::thread::spawn({
                let inflight = inflight.clone();
                move || inflight.interrupt(unique)
            });
            inflight.register(unique);
            let mark = seen.clone();
            flag(&inflight, unique).on_interrupt(Box::new(move || mark.store(true, Ordering::SeqCst)));
            other.join().unwrap();
            assert!(seen.load(Ordering::SeqCst));
        }
    }
}
