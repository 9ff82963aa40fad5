//! A bounded queue from async callers to dedicated threads.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

/// What a waiting thread gets.
pub(crate) enum Popped<T> {
    Job(T),
    /// Nothing came within the time.
    Idle,
    /// Closed and empty.
    Closed,
}

struct State<T> {
    jobs: VecDeque<T>,
    closed: bool,
}

/// Callers wait for a slot without blocking their thread; workers wait for a job on theirs.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
    slots: Semaphore,
}

impl<T> Queue<T> {
    pub fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State { jobs: VecDeque::new(), closed: false }),
            ready: Condvar::new(),
            slots: Semaphore::new(limit),
        }
    }

    /// Waits for a slot; false when the queue is closed.
    pub async fn push(&self, job: T) -> bool {
        let Ok(slot) = self.slots.acquire().await else { return false };
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        slot.forget();
        state.jobs.push_back(job);
        drop(state);
        self.ready.notify_one();
        true
    }

    /// The next job, waiting for it at most so long (`None`: for ever).
    pub fn pop(&self, wait: Option<Duration>) -> Popped<T> {
        let deadline = wait.map(|w| Instant::now() + w);
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                self.slots.add_permits(1);
                return Popped::Job(job);
            }
            if state.closed {
                return Popped::Closed;
            }
            match deadline {
                None => self.ready.wait(&mut state),
                Some(at) => {
                    if self.ready.wait_until(&mut state, at).timed_out() && state.jobs.is_empty() {
                        return if state.closed { Popped::Closed } else { Popped::Idle };
                    }
                }
            }
        }
    }

    /// The next job, if one waits.
    pub fn try_pop(&self) -> Option<T> {
        let job = self.state.lock().jobs.pop_front();
        if job.is_some() {
            self.slots.add_permits(1);
        }
        job
    }

    /// Refuses new jobs; workers still drain what is queued.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.slots.close();
        self.ready.notify_all();
    }
}
