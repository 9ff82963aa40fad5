//! What a descriptor of `.control` keeps: requests and answers at their places in one stream. Everybody may open it, so
//! everything has an end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use ciderfs_meta::{Errno, Result};
use tokio::sync::Semaphore;

/// Largest request. Those of the official client have some 300 bytes, but for lists of paths, which this version refuses.
pub(super) const REQUEST_MAX: usize = 16 << 10;
/// What was answered is forgotten at the next request if it is longer than this with what came before. Nor is more told of
/// the progress of a command.
const KEPT_MAX: usize = 16 << 10;
/// Descriptors for all but root.
const OPEN_MAX: usize = 512;
/// Bytes of answers that wait to be read, of all descriptors but those of root.
const ANSWERS_MAX: usize = 16 << 20;
/// Long answers that are made at a time, but for those of root: each is some 30 MiB at most meanwhile.
const TURNS_MAX: usize = 1;
/// Trees that are cloned or removed at a time, but for those of root: each lists directories, and asks for much at once.
const TREES_MAX: usize = 4;

/// What the descriptors of a mount share.
#[derive(Debug)]
pub(crate) struct Shared {
    open: AtomicUsize,
    answers: AtomicUsize,
    turns: Turns,
}

/// Where commands wait for their turn.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    /// To make a long answer.
    pub(super) answers: Arc<Semaphore>,
    /// To clone or remove a tree.
    pub(super) trees: Arc<Semaphore>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            open: AtomicUsize::new(0),
            answers: AtomicUsize::new(0),
            turns: Turns {
                answers: Arc::new(Semaphore::new(TURNS_MAX)),
                trees: Arc::new(Semaphore::new(TREES_MAX)),
            },
        }
    }
}

fn add(to: &AtomicUsize, n: usize, max: usize) -> bool {
    let sum = |now: usize| now.checked_add(n).filter(|sum| *sum <= max);
    to.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
}

/// A place among the descriptors of a mount.
#[derive(Debug)]
pub(super) struct Place {
    shared: Arc<Shared>,
    /// Root can help itself, and must be able to.
    root: bool,
    answers: usize,
}

impl Place {
    pub(super) fn take(shared: &Arc<Shared>, root: bool) -> Result<Self> {
        if !add(&shared.open, 1, if root { usize::MAX } else { OPEN_MAX }) {
            return Err(Errno::ENFILE.into());
        }
        Ok(Self { shared: Arc::clone(shared), root, answers: 0 })
    }

    fn claim(&mut self, n: usize) -> bool {
        if self.root {
            return true;
        }
        let done = add(&self.shared.answers, n, ANSWERS_MAX);
        self.answers += if done { n } else { 0 };
        done
    }

    fn forget(&mut self) {
        self.shared.answers.fetch_sub(std::mem::take(&mut self.answers), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.forget();
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The bytes of a descriptor.
#[derive(Debug)]
pub(super) struct Stream {
    place: Place,
    /// Where in the stream the bytes begin that are still known.
    base: u64,
    bytes: Vec<u8>,
    /// Up to where it was read.
    read: u64,
    /// Start of the request that is not complete; `None` while one runs.
    request: Option<usize>,
}

/// A request: command and body.
pub(super) type Request = (u32, Bytes);

impl Stream {
    pub(super) fn new(place: Place) -> Self {
        Self { place, base: 0, bytes: Vec::new(), read: 0, request: Some(0) }
    }

    /// Where commands wait for their turn; those of root do not.
    pub(super) fn turns(&self) -> Option<Turns> {
        (!self.place.root).then(|| self.place.shared.turns.clone())
    }

    /// Takes part of a request, and gives the request when it is complete.
    ///
    /// # Errors
    /// `EBUSY` while one runs; `EINVAL` if the request says that it is longer, or is longer, than any may be: nothing is taken
    /// of this part then.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<Option<Request>> {
        let begin = self.request.ok_or(Errno::EBUSY)?;
        if self.bytes.len() - begin + data.len() > REQUEST_MAX {
            return Err(Errno::EINVAL.into());
        }
        let begin = if begin == self.bytes.len() { self.forget() } else { begin };
        let before = self.bytes.len();
        self.bytes.extend_from_slice(data);
        let Some((head, body)) = self.bytes.get(begin..).and_then(|r| r.split_at_checked(8)) else {
            return Ok(None);
        };
        let number = |at: usize| head[at..at + 4].iter().fold(0_u32, |n, b| n << 8 | u32::from(*b));
        let (command, length) = (number(0), number(4) as usize);
        if length > REQUEST_MAX {
            self.bytes.truncate(before);
            return Err(Errno::EINVAL.into());
        }
        if body.len() < length {
            return Ok(None);
        }
        if body.len() > length {
            self.answer(vec![Errno::EIO.0 as u8]);
            return Ok(None);
        }
        let body = Bytes::copy_from_slice(body);
        self.request = None;
        Ok(Some((command, body)))
    }

    /// Forgets what was answered if it is much; gives the place of the next request.
    fn forget(&mut self) -> usize {
        if self.bytes.len() > KEPT_MAX {
            self.base += self.bytes.len() as u64;
            self.bytes = Vec::new();
            self.place.forget();
        }
        self.request = Some(self.bytes.len());
        self.bytes.len()
    }

    pub(super) fn progress(&mut self, message: Option<Vec<u8>>) {
        let message = message.unwrap_or_default();
        if self.bytes.len() >= KEPT_MAX {
            // A command that takes long goes on telling whoever listens.
            let read = usize::try_from(self.read.saturating_sub(self.base)).unwrap_or(usize::MAX);
            let read = read.min(self.bytes.len());
            self.bytes.drain(..read);
            self.base += read as u64;
        }
        if self.bytes.len() < KEPT_MAX {
            self.bytes.extend_from_slice(&message);
        }
    }

    /// Ends a request: with `ENOBUFS` if too many answers wait.
    pub(super) fn answer(&mut self, answer: Vec<u8>) {
        // A status is always told.
        let fits = answer.len() == 1 || self.place.claim(answer.len());
        if fits {
            self.bytes.extend_from_slice(&answer);
        } else {
            self.bytes.push(Errno::ENOBUFS.0 as u8);
        }
        self.request = Some(self.bytes.len());
    }

    /// What is known from `off` on; nothing while the answer is not there.
    pub(super) fn read(&mut self, off: u64, size: u32) -> Bytes {
        let from = off.checked_sub(self.base).and_then(|from| usize::try_from(from).ok());
        let known = from.and_then(|from| self.bytes.get(from..)).unwrap_or_default();
        let told = Bytes::copy_from_slice(known.get(..size as usize).unwrap_or(known));
        if !told.is_empty() {
            self.read = self.read.max(off + told.len() as u64);
        }
        told
    }
}
