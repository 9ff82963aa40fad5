//! Ending the reads of a connection that goes on without this process.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two signals to readers that are still there: one that comes just before a read begins does not end it.
const AGAIN: Duration = Duration::from_millis(2);

/// Whether readers are to stop, and who they are.
#[derive(Default)]
pub(crate) struct Stop {
    asked: AtomicBool,
    /// Thread ids.
    readers: Mutex<Vec<libc::pid_t>>,
}

/// A thread that reads, until dropped.
pub(crate) struct Reader<'a> {
    stop: &'a Stop,
    tid: libc::pid_t,
}

impl Stop {
    /// Whether no more requests are to be read.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// This thread reads.
    pub fn reader(&self) -> Reader<'_> {
        // SAFETY: takes nothing and cannot fail.
        let tid = unsafe { libc::gettid() };
        self.readers.lock().push(tid);
        Reader { stop: self, tid }
    }

    /// Has all readers stop; requests that were read go on. False if one did not within `patience`.
    pub fn stop(&self, patience: Duration) -> bool {
        listen();
        self.asked.store(true, Ordering::Release);
        let since = Instant::now();
        loop {
            let readers = self.readers.lock();
            if readers.is_empty() {
                return true;
            }
            for tid in readers.iter() {
                wake(*tid);
            }
            drop(readers);
            if since.elapsed() >= patience {
                return false;
            }
            std::thread::sleep(AGAIN);
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.stop.readers.lock().retain(|tid| *tid != self.tid);
    }
}

/// A signal that nothing else uses.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 1
}

/// Has the signal end system calls, and nothing else.
fn listen() {
    static ONCE: Once = Once::new();
    extern "C" fn nothing(_signal: libc::c_int) {}
    ONCE.call_once(|| {
        // SAFETY: an all-zero `sigaction` is a valid one (no flags: interrupted reads are not begun again, which is the purpose);
        // the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(signal(), &raw const action, std::ptr::null_mut());
        }
    });
}

fn wake(tid: libc::pid_t) {
    // SAFETY: sends a signal that does nothing to a thread of this process, or to none.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal()) };
}
