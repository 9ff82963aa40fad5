//! Reused buffers: a fresh allocation of megabytes costs a page fault for each 4 KiB.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Buffers below this size are allocated and freed as usual.
const POOLED_FROM: usize = 64 << 10;
/// Buffer sizes are multiples of this, so that few sizes exist.
const STEP: usize = 64 << 10;
/// What addresses, offsets and lengths of direct I/O must be multiples of: the largest logical block of a disk. Buffers of
/// at least [`POOLED_FROM`] begin at such an address.
pub(crate) const ALIGN: usize = 4096;
/// Upper bound of idle bytes, whatever the budget.
const MAX_IDLE: usize = 8 << 20;

/// Initialised bytes, of which the first `start` are skipped for the sake of alignment.
#[derive(Debug, Default)]
struct Memory {
    data: Vec<u8>,
    start: usize,
}

impl Memory {
    fn new(room: usize) -> Self {
        if room < POOLED_FROM {
            return Self { data: vec![0; room], start: 0 };
        }
        let data = vec![0; room + ALIGN];
        // It never moves: the vector keeps its length.
        let start = data.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { data, start }
    }

    /// Bytes that may be used.
    fn room(&self) -> usize {
        if self.data.len() < POOLED_FROM { self.data.len() } else { self.data.len() - ALIGN }
    }
}

/// A pool. Its idle buffers are at most a sixteenth of the budget and at most 8 MiB; they come on top of the budget.
pub struct Buffers {
    idle: Mutex<Idle>,
    max_idle: usize,
}

#[derive(Default)]
struct Idle {
    buffers: Vec<Memory>,
    bytes: usize,
    /// The fewest idle bytes since the last [`Buffers::trim`]: nobody needed those.
    least: usize,
}

impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers").field("idle", &self.idle.lock().bytes).finish_non_exhaustive()
    }
}

impl Buffers {
    /// A pool beside a budget of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        let max_idle = usize::try_from(limit / 16).unwrap_or(MAX_IDLE).min(MAX_IDLE);
        Arc::new(Self { idle: Mutex::default(), max_idle })
    }

    /// Bytes that a buffer of `len` bytes occupies, but for up to a page of alignment: what a permit for it must cover.
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
            idle.buffers.iter().rposition(|b| b.room() == size).map(|i| {
                let buffer = idle.buffers.swap_remove(i);
                idle.bytes -= size;
                idle.least = idle.least.min(idle.bytes);
                buffer
            })
        };
        Buffer { memory: reused.unwrap_or_else(|| Memory::new(size)), len, pool: self.clone() }
    }

    /// Frees the buffers that nobody needed since the last call.
    pub fn trim(&self) {
        let mut freed = Vec::new();
        {
            let mut idle = self.idle.lock();
            let mut surplus = idle.least;
            // The oldest first: the newest are the ones that are reused.
            while let Some(first) = idle.buffers.first().filter(|b| b.room() <= surplus) {
                surplus -= first.room();
                idle.bytes -= first.room();
                freed.push(idle.buffers.remove(0));
            }
            idle.least = idle.bytes;
        }
        drop(freed);
    }

    fn give(&self, memory: Memory) {
        let room = memory.room();
        if room < POOLED_FROM {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.bytes + room <= self.max_idle {
            idle.bytes += room;
            idle.buffers.push(memory);
        }
    }
}

/// A buffer that returns to its pool when dropped.
#[derive(Debug)]
pub struct Buffer {
    /// What is behind `len` is of no meaning.
    memory: Memory,
    len: usize,
    pool: Arc<Buffers>,
}

impl Buffer {
    /// Bytes that it has room for.
    pub fn capacity(&self) -> usize {
        self.memory.room()
    }

    /// Makes the content shorter, or longer as far as there is room; new bytes are undefined (but initialised).
    pub fn resize(&mut self, len: usize) {
        self.len = len.min(self.capacity());
    }

    /// Makes the content shorter.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Freezes the buffer.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.memory.data[self.memory.start..self.memory.start + self.len]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory.data[self.memory.start..self.memory.start + self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn buffers_are_reused_and_the_surplus_is_freed() {
        let pool = Buffers::new(u64::MAX);
        let idle = || pool.idle.lock().bytes;
        drop([pool.get(MIB), pool.get(MIB), pool.get(MIB)]);
        assert_eq!(idle(), 3 * MIB);
        pool.trim();
        assert_eq!(idle(), 3 * MIB, "they may have been needed a moment ago");
        drop(pool.get(MIB));
        pool.trim();
        assert_eq!(idle(), MIB, "one at a time was in use since");
        pool.trim();
        assert_eq!(idle(), 0);
    }

    #[test]
    fn idle_memory_is_bounded() {
        let pool = Buffers::new(32 * MIB as u64);
        drop([pool.get(MIB), pool.get(MIB), pool.get(MIB)]);
        assert_eq!(pool.idle.lock().bytes, 2 * MIB);
        drop(pool.get(MIB - 1));
        assert_eq!(pool.idle.lock().bytes, 2 * MIB, "same step, same buffer");
    }

    #[test]
    fn a_buffer_has_the_length_that_was_asked_for() {
        let pool = Buffers::new(u64::MAX);
        let mut buffer = pool.get(MIB + 5);
        assert_eq!((buffer.as_ref().len(), buffer.capacity()), (MIB + 5, MIB + STEP));
        assert_eq!(buffer.as_ref().as_ptr().align_offset(ALIGN), 0);
        buffer.as_mut().fill(7);
        buffer.resize(10);
        assert_eq!(buffer.freeze(), Bytes::from_static(&[7; 10]));
    }
}
