//! Page-aligned receive buffers, pooled and counted.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Idle buffers kept for reuse; more are given back to the system.
const MAX_IDLE: usize = 16;

/// Anonymous memory of a fixed size; pages are backed only once touched.
struct Pages {
    ptr: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is owned by this value alone and holds plain bytes.
unsafe impl Send for Pages {}
// SAFETY: shared access only reads plain bytes.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(len: usize, present: bool) -> io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let populate = if present { libc::MAP_POPULATE } else { 0 };
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | populate;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let ptr = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, kind, -1, 0) };
        if ptr == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ptr = NonNull::new(ptr.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { ptr, len })
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: the mapping is `len` bytes long, readable, zero-initialised and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping and nothing refers to it any more.
        unsafe { libc::munmap(self.ptr.as_ptr().cast(), self.len) };
    }
}

/// State of a session's receive buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStats {
    /// Size of one buffer in bytes.
    pub buffer_size: usize,
    /// Most buffers that may exist.
    pub limit: usize,
    /// Buffers that exist now.
    pub allocated: usize,
    /// Of these, idle ones.
    pub idle: usize,
    /// Requests received while all buffers were in use, which got a copy of their own.
    pub overflows: u64,
}

#[derive(Default)]
struct Idle {
    buffers: Vec<Pages>,
    /// The fewest idle buffers since the last [`BufferPool::trim`]: nobody needed those.
    least: usize,
}

impl Idle {
    fn pop(&mut self) -> Option<Pages> {
        let pages = self.buffers.pop();
        self.least = self.least.min(self.buffers.len());
        pages
    }
}

/// Buffers of one size.
pub(crate) struct BufferPool {
    size: usize,
    limit: usize,
    present: bool,
    idle: Mutex<Idle>,
    returned: Condvar,
    allocated: AtomicUsize,
    overflows: AtomicU64,
}

impl BufferPool {
    /// `present`: with their memory from the start. The kernel answers `EIO` for a request that it cannot copy, and it brings in no
    /// memory for a process that is being killed.
    pub fn new(size: usize, limit: usize, present: bool) -> Arc<Self> {
        Arc::new(Self {
            size,
            limit,
            present,
            idle: Mutex::default(),
            returned: Condvar::new(),
            allocated: AtomicUsize::new(0),
            overflows: AtomicU64::new(0),
        })
    }

    /// A buffer; `None` if the limit is reached and none came back within `wait`.
    pub fn take(self: &Arc<Self>, wait: Duration) -> io::Result<Option<PooledBuf>> {
        let mut idle = self.idle.lock();
        loop {
            if let Some(pages) = idle.pop() {
                return Ok(Some(self.wrap(pages)));
            }
            if self.allocated.load(Ordering::Relaxed) < self.limit {
                let pages = Pages::new(self.size, self.present)?;
                self.allocated.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(self.wrap(pages)));
            }
            if wait.is_zero() || self.returned.wait_for(&mut idle, wait).timed_out() {
                if let Some(pages) = idle.pop() {
                    return Ok(Some(self.wrap(pages)));
                }
                return Ok(None);
            }
        }
    }

    fn wrap(self: &Arc<Self>, pages: Pages) -> PooledBuf {
        PooledBuf { pages: Some(pages), filled: 0, pool: self.clone() }
    }

    /// Gives the buffers back to the system that were idle since the last call.
    pub fn trim(&self) {
        let mut idle = self.idle.lock();
        let surplus = idle.least;
        let freed: Vec<Pages> = idle.buffers.drain(..surplus).collect();
        idle.least = idle.buffers.len();
        self.allocated.fetch_sub(freed.len(), Ordering::Relaxed);
        drop(idle);
        drop(freed);
    }

    pub fn count_overflow(&self) {
        self.overflows.fetch_add(1, Ordering::Relaxed);
    }

    pub fn stats(&self) -> PoolStats {
        let idle = self.idle.lock();
        PoolStats {
            buffer_size: self.size,
            limit: self.limit,
            allocated: self.allocated.load(Ordering::Relaxed),
            idle: idle.buffers.len(),
            overflows: self.overflows.load(Ordering::Relaxed),
        }
    }
}

/// A buffer out of the pool; goes back when dropped. Reads as the bytes filled.
pub(crate) struct PooledBuf {
    /// Only `None` while being dropped.
    pages: Option<Pages>,
    filled: usize,
    pool: Arc<BufferPool>,
}

impl PooledBuf {
    /// The whole room.
    pub fn room(&mut self) -> &mut [u8] {
        self.pages.as_mut().map(Pages::as_mut_slice).unwrap_or_default()
    }

    /// Says how many bytes from the start are filled.
    pub fn set_filled(&mut self, len: usize) {
        self.filled = len.min(self.pool.size);
    }
}

impl Deref for PooledBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.as_ref().and_then(|p| p.as_slice().get(..self.filled)).unwrap_or_default()
    }
}

impl Drop for PooledBuf {
    fn drop(&mut self) {
        let Some(pages) = self.pages.take() else { return };
        let mut idle = self.pool.idle.lock();
        if idle.buffers.len() < MAX_IDLE {
            idle.buffers.push(pages);
        } else {
            self.pool.allocated.fetch_sub(1, Ordering::Relaxed);
        }
        drop(idle);
        self.pool.returned.notify_one();
    }
}

/// The bytes of one request.
pub(crate) enum Body {
    /// A right-sized copy.
    Small(Box<[u8]>),
    /// A receive buffer of its own.
    Pooled(PooledBuf),
}

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Pooled(buf) => buf,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_reused() {
        let pool = BufferPool::new(8192, 2, false);
        let mut a = pool.take(Duration::ZERO).unwrap().unwrap();
        assert_eq!(a.room().as_ptr() as usize % 4096, 0);
        a.room()[..3].copy_from_slice(b"abc");
        a.set_filled(3);
        assert_eq!(&a[..], b"abc");
        let b = pool.take(Duration::ZERO).unwrap().unwrap();
        assert!(pool.take(Duration::from_millis(1)).unwrap().is_none());
        drop(b);
        assert_eq!(pool.stats().idle, 1);
        let _c = pool.take(Duration::ZERO).unwrap().unwrap();
        assert_eq!(pool.stats().allocated, 2);
    }

    #[test]
    fn what_no_request_needs_is_freed() {
        let pool = BufferPool::new(8192, 8, true);
        let take = || pool.take(Duration::ZERO).unwrap().unwrap();
        drop([take(), take(), take()]);
        pool.trim();
        assert_eq!((pool.stats().idle, pool.stats().allocated), (3, 3), "needed a moment ago");
        let used = take();
        pool.trim();
        assert_eq!((pool.stats().idle, pool.stats().allocated), (0, 1));
        drop(used);
        assert_eq!((pool.stats().idle, pool.stats().allocated), (1, 1));
    }

    #[test]
    fn a_waiter_gets_what_comes_back() {
        let pool = BufferPool::new(8192, 1, false);
        let a = pool.take(Duration::ZERO).unwrap().unwrap();
        let waiter = std::thread::spawn({
            let pool = pool.clone();
            move || pool.take(Duration::from_secs(30)).unwrap().is_some()
        });
        drop(a);
        assert!(waiter.join().unwrap());
    }
}
