//! What this process has begun and not yet answered of those requests that must not be done twice.
//!
//! The list is in a file that outlives the process (memory that the supervisor holds as well). The kernel sends what was not
//! answered again to the next process, which finds here whether the former one had begun it, when, and whether it was done.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ciderfs_fuse::abi::UNIQUE_RESEND;
use parking_lot::Mutex;

/// Requests that can be under way at a time and be remembered; what is beyond is done like any other.
const SLOTS: u32 = 4096;
/// Bytes of each: number, when it was begun, whether it was done, handle.
const SLOT: usize = 32;

/// What became of a request in the process that began it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Before {
    /// When it was begun, in nanoseconds since 1970.
    pub(crate) at: i64,
    /// It was done.
    pub(crate) done: bool,
    /// The handle that was opened for it, 0 for none.
    pub(crate) fh: u64,
}

/// Requests under way.
#[derive(Debug)]
pub struct Begun {
    file: File,
    /// Slots that no request of this process has; those that tell of the former process are at the front, and are used last.
    free: Mutex<Vec<u32>>,
    /// What the former process has left, by number.
    before: Mutex<HashMap<u64, (u32, Before)>>,
}

/// A request's slot, until its answer is sent.
pub(crate) struct Ticket {
    begun: Arc<Begun>,
    slot: u32,
    unique: u64,
    at: i64,
}

impl Begun {
    /// The list in `file`, which is empty or comes from a former process.
    ///
    /// # Errors
    /// When the file cannot be read or made long enough.
    pub fn in_file(file: File) -> io::Result<Self> {
        let len = u64::from(SLOTS) * SLOT as u64;
        if file.metadata()?.len() < len {
            file.set_len(len)?;
        }
        let (mut used, mut free, mut before) = (Vec::new(), Vec::new(), HashMap::new());
        let mut bytes = vec![0; SLOTS as usize * SLOT];
        file.read_exact_at(&mut bytes, 0)?;
        for (slot, bytes) in (0..).zip(bytes.chunks_exact(SLOT)) {
            let word = |i: usize| bytes[i * 8..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
            match word(0) {
                0 => free.push(slot),
                unique => {
                    let done = word(2) != 0;
                    before.insert(unique, (slot, Before { at: word(1).cast_signed(), done, fh: word(3) }));
                    used.push(slot);
                }
            }
        }
        used.extend(free);
        Ok(Self { file, free: Mutex::new(used), before: Mutex::new(before) })
    }

    /// Takes up a request. For one that the kernel sends again, what the former process did of it.
    pub(crate) fn begin(self: &Arc<Self>, unique: u64) -> (Option<Ticket>, Option<Before>) {
        let number = unique & !UNIQUE_RESEND;
        let left = if number == unique { None } else { self.before.lock().remove(&number) };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i64);
        if let Some((slot, before)) = left {
            self.free.lock().retain(|s| *s != slot);
            // It stands there already, should this process die as well.
            return (
                Some(Ticket { begun: Arc::clone(self), slot, unique: number, at: before.at }),
                Some(before),
            );
        }
        let Some(slot) = self.free.lock().pop() else { return (None, None) };
        let ticket = Ticket { begun: Arc::clone(self), slot, unique: number, at: now };
        ticket.write(false, 0);
        (Some(ticket), None)
    }
}

impl Ticket {
    /// The request was done; only its answer is still to be sent.
    pub(crate) fn done(&self, fh: u64) {
        self.write(true, fh);
    }

    fn write(&self, done: bool, fh: u64) {
        let mut bytes = [0; SLOT];
        for (to, word) in
            bytes.chunks_exact_mut(8).zip([self.unique, self.at.cast_unsigned(), done.into(), fh])
        {
            to.copy_from_slice(&word.to_le_bytes());
        }
        // Memory: there is no reason why it should fail. A process that is killed ends after the call.
        if let Err(e) = self.begun.file.write_all_at(&bytes, u64::from(self.slot) * SLOT as u64) {
            tracing::debug!("a request is not noted as begun: {e}");
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // What stands there is about a request that is never sent again.
        self.begun.free.lock().push(self.slot);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn begun(file: &File) -> Arc<Begun> {
        Arc::new(Begun::in_file(file.try_clone().unwrap()).unwrap())
    }

    #[test]
    fn the_next_process_finds_what_was_begun() {
        let file = tempfile::tempfile().unwrap();
        let first = begun(&file);
        let (a, before) = first.begin(10);
        assert_eq!(before, None);
        let (b, _) = first.begin(12);
        b.as_ref().unwrap().done(33);
        let at = a.as_ref().unwrap().at;
        std::mem::forget((a, b));
        // Not sent again: a request of its own, and nothing is known of one that was not begun.
        let second = begun(&file);
        assert_eq!(second.begin(14).1, None);
        assert_eq!(second.begin(16 | UNIQUE_RESEND).1, None);
        let (a, before) = second.begin(10 | UNIQUE_RESEND);
        assert_eq!(before, Some(Before { at, done: false, fh: 0 }));
        // It dies too.
        std::mem::forget(a);
        let third = begun(&file);
        assert_eq!(third.begin(10 | UNIQUE_RESEND).1.unwrap().at, at);
        let before = third.begin(12 | UNIQUE_RESEND).1.unwrap();
        assert_eq!((before.done, before.fh), (true, 33));
        // Told once.
        assert_eq!(third.begin(12 | UNIQUE_RESEND).1, None);
    }

    #[test]
    fn slots_come_back() {
        let file = tempfile::tempfile().unwrap();
        let begun = begun(&file);
        for unique in 0..u64::from(SLOTS) * 2 {
            assert!(begun.begin(unique * 2 + 2).0.is_some());
        }
        let held: Vec<_> = (0..u64::from(SLOTS)).map(|n| begun.begin(n * 2 + 2).0.unwrap()).collect();
        assert!(begun.begin(1 << 20).0.is_none());
        drop(held);
        assert!(begun.begin(1 << 20).0.is_some());
    }
}
