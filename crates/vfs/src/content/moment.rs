//! Moments: the one clock by which what was fetched is older or newer than what has changed.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts changes of committed content in this process, so that a moment before a request can be told from one after it.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A moment, in changes: of this process, not of the wall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Moment {
    /// Now. What was fetched from the engine after this moment is not older than any change up to it.
    pub(crate) fn now() -> Self {
        Self(CHANGES.load(Ordering::Acquire))
    }

    /// A moment after all others.
    pub(crate) fn next() -> Self {
        Self(CHANGES.fetch_add(1, Ordering::AcqRel) + 1)
    }
}
