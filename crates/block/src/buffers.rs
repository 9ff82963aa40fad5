//! Reused buffers: a fresh allocation of megabytes costs a page fault per 4 KiB.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::budget::Permit;

/// Buffers below this size are allocated and freed as usual.
const POOLED_FROM: usize = 64 << 10;
/// Buffer sizes are multiples of this, so that few sizes exist.
const STEP: usize = 64 << 10;
/// Upper bound of idle bytes, whatever the budget.
const MAX_IDLE: usize = 8 << 20;

/// Idle buffers, at most a sixteenth of the budget and at most 8 MiB. They come on top of the budget.
pub(crate) struct Buffers {
    idle: Mutex<Idle>,
    max_idle: usize,
}

#[derive(Default)]
struct Idle {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    /// A pool beside a budget of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        let max_idle = usize::try_from(limit / 16).unwrap_or(MAX_IDLE).min(MAX_IDLE);
        Arc::new(Self { idle: Mutex::default(), max_idle })
    }

    /// Bytes that a buffer of `len` bytes really occupies: what a permit for it must cover.
    pub const fn footprint(len: usize) -> usize {
        if len < POOLED_FROM { len } else { len.div_ceil(STEP) * STEP }
    }

    /// A buffer of `len` bytes with undefined (but initialised) content.
    pub fn get(self: &Arc<Self>, len: usize) -> Buffer {
        let size = Self::footprint(len);
        let reused = if size < POOLED_FROM {
            None
        } else {
            let mut idle = self.idle.lock();
            // Few buffers are idle (8 MiB / 64 KiB at most, in practice a handful), so looking is cheap.
            idle.buffers.iter().rposition(|b| b.len() == size).map(|i| {
                let buffer = idle.buffers.swap_remove(i);
                idle.bytes -= buffer.len();
                buffer
            })
        };
        Buffer { data: reused.unwrap_or_else(|| vec![0; size]), len, pool: self.clone(), permit: None }
    }

    fn give(&self, data: Vec<u8>) {
        if data.len() < POOLED_FROM {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.bytes + data.len() <= self.max_idle {
            idle.bytes += data.len();
            idle.buffers.push(data);
        }
    }
}

/// A buffer that returns to its pool, and a permit that returns to its budget, when dropped.
pub(crate) struct Buffer {
    data: Vec<u8>,
    len: usize,
    pool: Arc<Buffers>,
    permit: Option<Permit>,
}

impl Buffer {
    /// The content.
    pub fn as_mut(&mut self) -> &mut [u8] {
        &mut self.data[..self.len]
    }

    /// Makes the content shorter.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Freezes the buffer together with the permit that covers it.
    pub fn freeze(mut self, permit: Permit) -> Bytes {
        self.permit = Some(permit);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.data[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.data));
    }
}

struct Covered {
    data: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for Covered {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// Ties a permit to bytes that somebody else allocated.
pub(crate) fn covered(data: Bytes, permit: Permit) -> Bytes {
    Bytes::from_owner(Covered { data, _permit: permit })
}
