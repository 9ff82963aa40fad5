//! Runs in which a seed decides everything: one thread, a clock that goes on when nobody has anything to do, drawn numbers.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::time::Instant;

/// The wall clock at the beginning of each run.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);

struct World {
    rng: StdRng,
    began: Instant,
    /// The wall clock was read so often: no two reads give the same time.
    reads: u64,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Ends the world of a run, however it ends.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        WORLD.with_borrow_mut(|world| *world = None);
    }
}

/// Runs `work` to its end. The same seed and the same work do the same, as far as they ask nobody but this crate for time, chance
/// and tasks.
///
/// # Panics
/// If there can be no runtime.
#[allow(clippy::expect_used, reason = "for tests")]
pub fn run<F: Future>(seed: u64, work: impl FnOnce() -> F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let _running = Running;
    runtime.block_on(async {
        let world = World { rng: StdRng::seed_from_u64(seed), began: Instant::now(), reads: 0 };
        WORLD.with_borrow_mut(|w| *w = Some(world));
        work().await
    })
}

/// Is this thread in such a run?
pub fn is_on() -> bool {
    WORLD.with_borrow(Option::is_some)
}

/// Draws from the run's random numbers; `None` outside of a run.
pub fn draw<T>(with: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    WORLD.with_borrow_mut(|world| world.as_mut().map(|w| with(&mut w.rng)))
}

/// Time since the run began.
pub fn elapsed() -> Option<Duration> {
    WORLD.with_borrow(|world| world.as_ref().map(|w| w.began.elapsed()))
}

pub(crate) fn wall_clock() -> Option<SystemTime> {
    WORLD.with_borrow_mut(|world| {
        let w = world.as_mut()?;
        w.reads += 1;
        Some(UNIX_EPOCH + BEGIN + w.began.elapsed() + Duration::from_nanos(w.reads))
    })
}
