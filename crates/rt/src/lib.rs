//! Time, chance and tasks: what would make two runs of the same operations differ.
//!
//! `meta`, `block` and `vfs` get them from here and from nowhere else (`clippy.toml` of each sees to that), so that a test can
//! decide about all of them with one number: see `replay` (a feature, for tests).
#![forbid(unsafe_code)]

#[cfg(feature = "replay")]
pub mod replay;

use std::ops::Range;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngExt as _;
pub use tokio::task::JoinHandle;
pub use tokio::time::Instant;

/// Waits for some time.
pub fn sleep(time: Duration) -> tokio::time::Sleep {
    tokio::time::sleep(time)
}

/// Waits for work as long as that.
pub fn timeout<F: Future>(time: Duration, work: F) -> tokio::time::Timeout<F> {
    tokio::time::timeout(time, work)
}

/// Ticks from a moment on.
pub fn interval_at(first: Instant, period: Duration) -> tokio::time::Interval {
    tokio::time::interval_at(first, period)
}

/// Runs a task beside others.
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(task)
}

/// Runs what may block its thread on one of those that are there for that. In a replay it runs at once, in the caller's.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(feature = "replay")]
    if replay::is_on() {
        let done = work();
        return tokio::spawn(async move { done });
    }
    tokio::task::spawn_blocking(work)
}

/// A number of the range, each as likely as any other.
pub fn random_range(range: Range<f64>) -> f64 {
    #[cfg(feature = "replay")]
    if let Some(drawn) = replay::draw(|rng| rng.random_range(range.clone())) {
        return drawn;
    }
    rand::rng().random_range(range)
}

/// The time of day. It may be set back.
pub fn wall_clock() -> SystemTime {
    #[cfg(feature = "replay")]
    if let Some(now) = replay::wall_clock() {
        return now;
    }
    SystemTime::now()
}

/// Time since some moment. It is never set, and goes on while the machine sleeps or the program is frozen.
pub fn boot_time() -> Duration {
    #[cfg(feature = "replay")]
    if let Some(now) = replay::elapsed() {
        return now;
    }
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
}

/// Time since 1970, from a clock that is not set while the program runs.
pub fn unset_clock() -> Duration {
    #[cfg(feature = "replay")]
    if let Some(now) = replay::wall_clock() {
        return now.duration_since(UNIX_EPOCH).unwrap_or_default();
    }
    static START: OnceLock<(Duration, Instant)> = OnceLock::new();
    let (wall, at) = START
        .get_or_init(|| (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), Instant::now()));
    *wall + at.elapsed()
}
