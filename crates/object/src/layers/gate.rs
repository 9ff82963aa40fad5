//! How many requests of a kind run at a time: as many as allowed, or fewer while the store asks to slow down.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use crate::error::{ObjectError, Result};

/// What is left of the width when the store asks to slow down. It is asked for once by all requests that were under way then.
const FALL: f64 = 0.7;
/// Growth of the width for each second in which the store does not ask to slow down: from a twentieth to all in half a minute.
const RISE: f64 = 1.1;
/// The least width: one request, and then a pause of so many times its length.
const NARROWEST: f64 = 1.0 / 64.0;
/// Longest pause before a request that is let in.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pause after the store asked to slow down; it doubles each time that what follows it is refused as well. Stores count by the
/// second: without it the rest of one that is full would only be told again and again.
const HOLD: Duration = Duration::from_millis(250);
/// Longest such pause.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(2);
/// Weight of a request in the average of their lengths.
const WEIGHT: f64 = 0.2;

/// How long a caller waits for a store that takes nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Since when it waits, with all its attempts.
    pub(super) began: Instant,
    /// For how long the store may take nothing, counted from then or from the last request that it took.
    pub(super) most: Duration,
}

tokio::task_local! {
    /// That of the request whose attempts these are; without one, an attempt waits as long as it takes.
    pub(super) static PATIENCE: Patience;
}

/// Places for requests of one kind.
#[derive(Debug)]
pub(super) struct Gate {
    places: Semaphore,
    state: Mutex<State>,
    /// Told when a request has ended while the store takes nothing.
    heard: Notify,
}

#[derive(Debug)]
struct State {
    /// Places that are allowed.
    most: usize,
    /// Requests at a time. Below 1, one with pauses in between.
    width: f64,
    /// Places that there are, those in use included.
    open: usize,
    /// Places in use that close when they are left.
    closing: usize,
    /// Places in use.
    used: usize,
    /// Counts the times that the store asked to slow down and was heard.
    falls: u64,
    /// When the width last grew or fell.
    changed: Instant,
    /// Seconds that a request takes, on average.
    length: f64,
    /// Where there are pauses between requests: when the next one may begin.
    next: Instant,
    /// When the pause after the last fall ends.
    resume: Instant,
    /// The next pause.
    hold: Duration,
    /// Requests that the store has not answered yet.
    under_way: usize,
    /// Since when the store takes nothing, if it does.
    refusing: Option<Instant>,
}

/// A place in use.
#[derive(Debug)]
pub(super) struct Place<'a> {
    gate: &'a Gate,
    permit: Option<SemaphorePermit<'a>>,
    began: Instant,
    falls: u64,
    is_under_way: bool,
}

impl Gate {
    /// With at most `most` places, at least one.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        let now = Instant::now();
        let state = State {
            most,
            width: most as f64,
            open: most,
            closing: 0,
            used: 0,
            falls: 0,
            changed: now,
            length: 0.0,
            next: now,
            resume: now,
            hold: HOLD,
            under_way: 0,
            refusing: None,
        };
        Self { places: Semaphore::new(most), state: Mutex::new(state), heard: Notify::new() }
    }

    /// Waits for a place; not longer than [`PATIENCE`] where the store takes nothing from anybody.
    pub(super) async fn enter(&self) -> Result<Place<'_>> {
        let Ok(patience) = PATIENCE.try_get() else { return self.place().await };
        tokio::select! {
            biased;
            place = self.place() => place,
            since = self.in_vain(patience) => Err(ObjectError::Refusing(since)),
        }
    }

    /// Returns when the store has taken nothing for as long as a caller waits at most, and tells for how long that is.
    async fn in_vain(&self, patience: Patience) -> Duration {
        loop {
            let heard = self.heard.notified();
            let (until, is_quiet) = {
                let state = self.state.lock();
                // What is under way may be taken yet, and has a deadline of its own.
                (state.refusing.map(|since| since.max(patience.began) + patience.most), state.under_way == 0)
            };
            let now = Instant::now();
            match until {
                Some(until) if until > now => tokio::select! {
                    () = heard => {}
                    () = sleep_until(until) => {}
                },
                Some(_) if is_quiet => return now.duration_since(patience.began),
                _ => heard.await,
            }
        }
    }

    async fn place(&self) -> Result<Place<'_>> {
        loop {
            let permit = self.places.acquire().await.map_err(|e| ObjectError::Other(e.to_string()))?;
            self.state.lock().used += 1;
            // From here on, whoever gives up leaves the place.
            let mut place = Place {
                gate: self,
                permit: Some(permit),
                began: Instant::now(),
                falls: 0,
                is_under_way: false,
            };
            let mut is_paced = false;
            loop {
                let now = Instant::now();
                let begin = {
                    let mut state = self.state.lock();
                    // While it waited there came to be fewer places.
                    if state.closing > 0 {
                        break;
                    }
                    if state.width < 1.0 && !is_paced {
                        is_paced = true;
                        let begin = state.next.max(now);
                        let pause = Duration::from_secs_f64(state.length / state.width).min(PAUSE_MAX);
                        state.next = begin + pause;
                        begin.max(state.resume)
                    } else {
                        state.resume
                    }
                };
                if begin <= now {
                    let mut state = self.state.lock();
                    state.under_way += 1;
                    place.is_under_way = true;
                    place.falls = state.falls;
                    place.began = now;
                    return Ok(place);
                }
                sleep_until(begin).await;
            }
        }
    }

    /// Opens and closes places until there are as many as the width says.
    fn fit(&self, state: &mut State) {
        let wanted = (state.width.ceil() as usize).clamp(1, state.most);
        if wanted > state.open {
            let more = wanted - state.open;
            let stay = more.min(state.closing);
            state.closing -= stay;
            self.places.add_permits(more - stay);
        } else {
            let fewer = state.open - wanted;
            state.closing += fewer - self.places.forget_permits(fewer);
        }
        state.open = wanted;
    }
}

impl Place<'_> {
    /// What became of the request.
    pub(super) fn learn<T>(&self, result: &Result<T>) {
        let mut state = self.gate.state.lock();
        let now = Instant::now();
        if result.is_ok() && self.falls == state.falls {
            state.hold = HOLD;
        }
        let was_refusing = state.refusing;
        match result {
            Err(ObjectError::Throttled(_)) => state.refusing = was_refusing.or(Some(now)),
            // Whatever will not be repeated was dealt with.
            Err(e) if e.is_retryable() => {}
            _ => state.refusing = None,
        }
        let took = now.duration_since(self.began).as_secs_f64();
        state.length = if state.length == 0.0 { took } else { state.length + WEIGHT * (took - state.length) };
        match result {
            Err(ObjectError::Throttled(_)) if self.falls == state.falls => {
                // Places that nobody uses say nothing about what the store takes.
                let width = state.width.min(state.used as f64);
                state.width = (width * FALL).max(NARROWEST);
                state.falls += 1;
                state.changed = now;
                state.resume = now + state.hold;
                state.hold = (state.hold * 2).min(HOLD_MAX);
                if state.falls == 1 {
                    tracing::warn!(
                        "the object store asks to slow down: fewer requests at a time until it takes more"
                    );
                }
                tracing::debug!("slower: {:.2} requests at a time", state.width);
            }
            Ok(_) | Err(ObjectError::NotFound(_)) if state.width < state.most as f64 => {
                let quiet = now.duration_since(state.changed).as_secs_f64();
                state.width = (state.width * RISE.powf(quiet.min(1.0))).min(state.most as f64);
                state.changed = now;
            }
            _ => return,
        }
        self.gate.fit(&mut state);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.used -= 1;
        if self.is_under_way {
            state.under_way -= 1;
            if state.refusing.is_some() {
                self.gate.heard.notify_waiters();
            }
        }
        if state.closing > 0
            && let Some(permit) = self.permit.take()
        {
            state.closing -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn slow_down() -> Result<()> {
        Err(ObjectError::Throttled("please".to_owned()))
    }

    fn width(gate: &Gate) -> f64 {
        gate.state.lock().width
    }

    #[tokio::test(start_paused = true)]
    async fn falls_once_for_all_and_recovers() {
        let gate = Gate::new(20);
        let mut places = Vec::new();
        for _ in 0..20 {
            places.push(gate.enter().await.unwrap());
        }
        assert!(tokio::time::timeout(Duration::from_secs(1), gate.enter()).await.is_err());
        for place in places.drain(..) {
            place.learn(&slow_down());
        }
        assert!((width(&gate) - 14.0).abs() < 0.01, "{}", width(&gate));
        for _ in 0..14 {
            places.push(gate.enter().await.unwrap());
        }
        assert!(tokio::time::timeout(Duration::from_secs(1), gate.enter()).await.is_err());
        // Half of them are still under way when the next ask to slow down.
        places.truncate(7);
        for place in places.drain(..) {
            place.learn(&slow_down());
        }
        assert!((width(&gate) - 4.9).abs() < 0.01, "{}", width(&gate));
        // Errors of another kind say nothing, and time alone does not, either.
        tokio::time::advance(Duration::from_secs(100)).await;
        gate.enter().await.unwrap().learn::<()>(&Err(ObjectError::Server("no".to_owned())));
        assert!((width(&gate) - 4.9).abs() < 0.01, "{}", width(&gate));
        for _ in 0..40 {
            let place = gate.enter().await.unwrap();
            tokio::time::advance(Duration::from_secs(1)).await;
            place.learn(&Ok(()));
        }
        assert!((width(&gate) - 20.0).abs() < 0.01, "{}", width(&gate));
        assert_eq!(gate.places.available_permits(), 20);
        let state = gate.state.lock();
        assert_eq!((state.used, state.closing), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn below_one_there_are_pauses() {
        let gate = Gate::new(3);
        for _ in 0..100 {
            let place = gate.enter().await.unwrap();
            tokio::time::advance(Duration::from_millis(10)).await;
            place.learn(&slow_down());
        }
        assert!((width(&gate) - NARROWEST).abs() < 0.001, "{}", width(&gate));
        let began = Instant::now();
        for _ in 0..10 {
            let place = gate.enter().await.unwrap();
            tokio::time::advance(Duration::from_millis(10)).await;
            place.learn(&Ok(()));
        }
        let took = began.elapsed();
        assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&took), "{took:?}");
        // Whoever gives up while it waits leaves the place.
        assert!(tokio::time::timeout(Duration::from_millis(1), gate.enter()).await.is_err());
        assert_eq!(gate.state.lock().used, 0);
        assert_eq!(gate.places.available_permits(), 1);
    }
}
