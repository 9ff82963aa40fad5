//! The memory budget of all block-sized buffers.
//!
//! Let `L` be the limit and `u(k)` the bytes granted to kind `k`. Every kind has a reserve that the others leave alone:
//! `r(Write) = r(Read) = L/4`, `r(Scratch) = L/8`, `r(Cache) = 0`. A request of `n` bytes for kind `k` is granted when
//!
//! ```text
//! sum over all j of u(j)  +  n  +  sum over j != k of max(0, r(j) - u(j))   <=   L
//! ```
//!
//! so readers can never starve writers of their quarter, nor the other way round. The one exception: when `u(k) = 0` and
//! the request is larger than what the rule could ever grant while the other kinds keep their reserves busy
//! (`n > r(k)`), it is granted anyway. Without it a 16 MiB block with a 32 MiB budget could wait for ever. The
//! exception lets usage exceed the limit by at most that one request per kind. `Cache` requests never wait, therefore
//! they have neither reserve nor exception.
//!
//! Waiters of one kind are served in order. Rule for callers, because it excludes deadlocks: do not wait for a permit
//! while holding one of the same kind; take the sum at once and [`Permit::split`] it. Holding `Write` one may wait for
//! `Scratch` (uploads), holding `Scratch` for `Read`, holding `Read` for nothing.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetKind {
    /// Dirty data of writers.
    Write = 0,
    /// Blocks on their way to readers, and blocks that the memory cache keeps.
    Read = 1,
    /// Blocks that wait for the disk cache; only ever tried, never waited for.
    Cache = 2,
    /// Copies: compressed blocks being uploaded, small pieces of many blocks. A kind of its own, because dirty data
    /// waits for it.
    Scratch = 3,
}

const KINDS: usize = 4;
/// Requests that may wait at a time for one kind; more than the front doors have requests in flight. The next ones
/// wait too, but are counted as overload.
const WAITERS_WARN: usize = 4096;

/// Something that can give memory back when a request would have to wait.
pub(crate) trait Reclaim: Send + Sync {
    /// Drops some cached buffer. False when there is nothing more to drop.
    fn reclaim(&self) -> bool;
}

struct Waiter {
    bytes: u64,
    ready: oneshot::Sender<Permit>,
}

#[derive(Default)]
struct State {
    used: [u64; KINDS],
    peak: u64,
    waiting: [VecDeque<Waiter>; KINDS],
}

/// Accounts the memory of block-sized buffers; see the module's text for the rule.
pub struct Budget {
    limit: u64,
    reserve: [u64; KINDS],
    state: Mutex<State>,
    reclaim: OnceLock<Weak<dyn Reclaim>>,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("limit", &self.limit)
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

impl Budget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            reserve: [limit / 4, limit / 4, 0, limit / 8],
            state: Mutex::new(State::default()),
            reclaim: OnceLock::new(),
        })
    }

    /// Whom to ask for memory before a request waits. Only the first call counts.
    pub(crate) fn set_reclaim(&self, reclaim: Weak<dyn Reclaim>) {
        let _ = self.reclaim.set(reclaim);
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes granted at the moment.
    pub fn used(&self) -> u64 {
        self.state.lock().used.iter().sum()
    }

    /// Bytes granted at the moment to one kind.
    pub fn used_by(&self, kind: BudgetKind) -> u64 {
        self.state.lock().used[kind as usize]
    }

    /// The most bytes that were ever granted at a time.
    pub fn peak(&self) -> u64 {
        self.state.lock().peak
    }

    /// Bytes of `kind` that are guaranteed whatever the other kinds do.
    pub fn reserve(&self, kind: BudgetKind) -> u64 {
        self.reserve[kind as usize]
    }

    /// Is anybody waiting? Then caches should not keep what they could drop.
    pub fn has_waiters(&self) -> bool {
        self.state.lock().waiting.iter().any(|w| !w.is_empty())
    }

    /// Waits until `bytes` may be used. Cancel-safe. See the module's text for what not to hold while waiting.
    pub async fn acquire(self: &Arc<Self>, bytes: u64, kind: BudgetKind) -> Permit {
        let receiver = {
            let mut state = self.state.lock();
            if let Some(permit) = self.grant_now(&mut state, bytes, kind) {
                return permit;
            }
            let (ready, receiver) = oneshot::channel();
            let queue = &mut state.waiting[kind as usize];
            queue.retain(|w| !w.ready.is_closed());
            if queue.len() == WAITERS_WARN {
                tracing::warn!(?kind, "{WAITERS_WARN} requests wait for buffer memory");
            }
            queue.push_back(Waiter { bytes, ready });
            receiver
        };
        // Only now, so that a cache that fills between the two steps sees the waiter.
        self.serve_by_reclaim();
        let mut turn = Turn { budget: self, served: false };
        let answer = receiver.await;
        turn.served = true;
        match answer {
            Ok(permit) => permit,
            // The sender lives in the queue until it is used, and the queue lives as long as `self`.
            Err(_) => Permit { budget: self.clone(), bytes: 0, kind },
        }
    }

    /// Takes `bytes` if they may be used right now, without asking the memory cache to shrink.
    pub fn try_acquire(self: &Arc<Self>, bytes: u64, kind: BudgetKind) -> Option<Permit> {
        self.grant_now(&mut self.state.lock(), bytes, kind)
    }

    /// Serves waiters by shrinking caches until nobody waits or the caches are empty.
    pub(crate) fn serve_by_reclaim(self: &Arc<Self>) {
        let Some(reclaim) = self.reclaim.get().and_then(Weak::upgrade) else { return };
        // The caches are bounded, so this ends.
        while self.has_waiters() && reclaim.reclaim() {}
    }

    fn fits(&self, state: &State, bytes: u64, kind: BudgetKind) -> bool {
        let k = kind as usize;
        let mut total = bytes;
        for j in 0..KINDS {
            total =
                total.saturating_add(if j == k { state.used[j] } else { state.used[j].max(self.reserve[j]) });
        }
        let alone = kind != BudgetKind::Cache && state.used[k] == 0 && bytes > self.reserve[k];
        total <= self.limit || alone
    }

    /// Nothing is always granted; anything else only if nobody of the kind waits already.
    fn grant_now(self: &Arc<Self>, state: &mut State, bytes: u64, kind: BudgetKind) -> Option<Permit> {
        let now = bytes == 0 || (state.waiting[kind as usize].is_empty() && self.fits(state, bytes, kind));
        now.then(|| self.grant(state, bytes, kind))
    }

    fn grant(self: &Arc<Self>, state: &mut State, bytes: u64, kind: BudgetKind) -> Permit {
        state.used[kind as usize] += bytes;
        state.peak = state.peak.max(state.used.iter().sum());
        Permit { budget: self.clone(), bytes, kind }
    }

    fn release(self: &Arc<Self>, bytes: u64, kind: BudgetKind) {
        if bytes == 0 {
            return;
        }
        let mut state = self.state.lock();
        state.used[kind as usize] = state.used[kind as usize].saturating_sub(bytes);
        self.serve(state);
    }

    /// Grants what fits to those who wait.
    fn serve(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let mut granted = Vec::new();
        for kind in [BudgetKind::Scratch, BudgetKind::Read, BudgetKind::Write] {
            while let Some(first) = state.waiting[kind as usize].front() {
                let gone = first.ready.is_closed();
                if !gone && !self.fits(&state, first.bytes, kind) {
                    break;
                }
                let Some(waiter) = state.waiting[kind as usize].pop_front() else { break };
                if !gone {
                    let permit = self.grant(&mut state, waiter.bytes, kind);
                    granted.push((waiter.ready, permit));
                }
            }
        }
        drop(state);
        // Outside the lock: a waiter that went away meanwhile drops its permit, which comes back here.
        for (ready, permit) in granted {
            let _ = ready.send(permit);
        }
    }
}

/// A place in the queue. One who leaves it early may have blocked others that fit.
struct Turn<'a> {
    budget: &'a Arc<Budget>,
    served: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.served {
            self.budget.serve(self.budget.state.lock());
        }
    }
}

/// Bytes of the budget; given back on drop.
#[derive(Debug)]
pub struct Permit {
    budget: Arc<Budget>,
    bytes: u64,
    kind: BudgetKind,
}

impl Permit {
    /// Bytes that this permit covers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes up to `bytes` out of this permit into one of its own.
    pub fn split(&mut self, bytes: u64) -> Permit {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Permit { budget: self.budget.clone(), bytes, kind: self.kind }
    }

    /// Joins two permits of the same budget and kind; of different ones, the other is given back.
    #[must_use]
    pub fn join(mut self, mut other: Permit) -> Permit {
        if Arc::ptr_eq(&self.budget, &other.budget) && self.kind == other.kind {
            self.bytes += std::mem::take(&mut other.bytes);
        }
        self
    }

    /// Gives back what is more than `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let surplus = self.bytes.saturating_sub(bytes);
        drop(self.split(surplus));
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.release(self.bytes, self.kind);
    }
}
