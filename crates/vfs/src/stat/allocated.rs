//! How much data this mount knows to be in files that have holes, or may have some.

use std::collections::HashMap;
use std::time::Duration;

use ciderfs_format::{Attr, CHUNK_SIZE, Ino, Time};
use ciderfs_rt::Instant;
use parking_lot::Mutex;

/// Files that are remembered.
const FILES_MAX: usize = 16_384;
/// A file of this length that nobody has looked at yet is counted: a wrong answer would be too far off.
const COUNTED_ALWAYS: u64 = CHUNK_SIZE;
/// A file of so many chunks is counted whenever it has changed.
const COUNTED_EXACTLY: u64 = 64;
/// Of the time, counting the blocks of a longer file that keeps changing takes at most one part in so many.
const COUNTING_SHARE: u32 = 20;
/// A file that had no holes gets some from others only; it is looked at again after this time.
const DENSE_FOR: Duration = Duration::from_secs(10);

/// Bytes of a file as they were counted last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) length: u64,
    pub(crate) mtime: Time,
    /// Of data, or reserved for data.
    pub(crate) bytes: u64,
    /// When it was counted, and how long that took.
    pub(crate) at: Instant,
    pub(crate) took: Duration,
}

impl Counted {
    pub(crate) fn new((length, mtime): (u64, Time), bytes: u64, began: Instant) -> Self {
        Self { length, mtime, bytes, at: Instant::now(), took: began.elapsed() }
    }
}

/// All files of which this mount knows that they have, or may have, holes; with what was counted.
#[derive(Default)]
pub(crate) struct Allocated {
    files: Mutex<HashMap<Ino, Option<Counted>>>,
}

impl Allocated {
    /// A file got a hole, or may have got one, or one was filled: it is counted when somebody asks.
    pub(crate) fn suspect(&self, ino: Ino) {
        self.enter(ino, None);
    }

    /// Enters what was counted.
    pub(crate) fn set(&self, ino: Ino, counted: Counted) {
        self.enter(ino, Some(counted));
    }

    fn enter(&self, ino: Ino, counted: Option<Counted>) {
        let mut files = self.files.lock();
        if files.len() >= FILES_MAX {
            let mut keep = false;
            files.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
        files.insert(ino, counted);
    }

    /// A file has no data and no holes any more.
    pub(crate) fn forget(&self, ino: Ino) {
        self.files.lock().remove(&ino);
    }

    /// Should the file be counted, for [`Allocated::bytes`] to be right?
    pub(crate) fn is_due(&self, ino: Ino, attr: &Attr) -> bool {
        match self.files.lock().get(&ino) {
            None => attr.length >= COUNTED_ALWAYS,
            Some(None) => true,
            Some(Some(c)) => {
                let since = c.at.elapsed();
                (c.length, c.mtime) != (attr.length, attr.mtime)
                    && (c.bytes < c.length || since >= DENSE_FOR)
                    && (attr.length <= COUNTED_EXACTLY * CHUNK_SIZE || since >= c.took * COUNTING_SHARE)
            }
        }
    }

    /// Bytes of data, or reserved for data.
    pub(crate) fn bytes(&self, ino: Ino, attr: &Attr) -> u64 {
        match self.files.lock().get(&ino).copied().flatten() {
            // What came behind the end since it was counted is data until it is counted again.
            Some(c) => c.bytes.saturating_add(attr.length.saturating_sub(c.length)),
            None => attr.length,
        }
    }
}
