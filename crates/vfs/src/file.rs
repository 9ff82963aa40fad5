//! An inode that is open here: unflushed slices, what is known of its content, errors to report.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use ciderfs_format::{Attr, Ino, Time};
use ciderfs_meta::{ChunkView, Claim, Errno};
use parking_lot::Mutex;

use crate::pending::Pending;

/// Resolved chunks kept per open file.
const VIEWS_MAX: usize = 64;

/// State shared by all handles of an inode.
pub(crate) struct File {
    pub(crate) ino: Ino,
    pub(crate) state: Mutex<State>,
    /// Held by the one flush (or truncate) of the file that runs.
    pub(crate) flushing: tokio::sync::Mutex<()>,
    /// When a descriptor of a handle with a flock was closed last.
    pub(crate) flock_closed: Mutex<Option<Instant>>,
}

/// What [`File::state`] protects.
pub(crate) struct State {
    /// Attributes as last seen or written; the length includes unflushed data.
    pub(crate) attr: Attr,
    /// mtime and length as the engine last told them: when they change, so has the content.
    pub(crate) version: (Time, u64),
    /// Slices not yet committed, in the order in which they were begun.
    pub(crate) pending: VecDeque<Pending>,
    /// Room held for what is not committed yet.
    pub(crate) claim: Option<Claim>,
    /// Resolved chunks, as of `attr`.
    pub(crate) views: HashMap<u32, ChunkView>,
    /// Indexes of the chunks that have lists, ascending, if known.
    pub(crate) chunks: Option<Arc<[u32]>>,
    /// Changes whenever committed content may have changed: what was fetched before is then out of date.
    pub(crate) generation: u64,
    /// Failed flushes so far, and the last one's error. Each handle reports each failure once.
    pub(crate) failures: u64,
    pub(crate) error: Errno,
    /// Content or length have changed elsewhere, and the kernel may not know.
    pub(crate) untold: bool,
}

impl File {
    pub(crate) fn new(ino: Ino, attr: Attr) -> Arc<Self> {
        let state = State {
            version: (attr.mtime, attr.length),
            attr,
            pending: VecDeque::new(),
            claim: None,
            views: HashMap::new(),
            chunks: None,
            generation: 0,
            failures: 0,
            error: Errno::EIO,
            untold: false,
        };
        Arc::new(Self {
            ino,
            state: Mutex::new(state),
            flushing: tokio::sync::Mutex::new(()),
            flock_closed: Mutex::default(),
        })
    }

    /// Takes attributes from the engine, fetched while `generation` was current. Content that changed elsewhere is forgotten.
    pub(crate) fn refresh(&self, attr: &Attr, generation: u64) -> Attr {
        let mut s = self.state.lock();
        if s.generation == generation {
            s.adopt(attr);
        }
        s.overlay(attr)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Takes attributes from a commit that changed the content otherwise than by appending what was written.
    pub(crate) fn adopt_change(&self, attr: &Attr) {
        let mut s = self.state.lock();
        s.changed();
        let untold = s.untold;
        s.adopt(attr);
        s.untold = untold;
        s.settle_claim();
    }

    /// The error of a flush that failed after so many failures.
    pub(crate) fn failed_since(&self, failures: u64) -> Result<(), Errno> {
        let s = self.state.lock();
        if s.failures > failures { Err(s.error) } else { Ok(()) }
    }

    /// Forgets what is known of the content.
    pub(crate) fn forget_views(&self) {
        self.state.lock().changed();
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.state.lock().pending.is_empty()
    }
}

impl State {
    /// Believes fresh attributes.
    pub(crate) fn adopt(&mut self, attr: &Attr) {
        let version = (attr.mtime, attr.length);
        if self.version != version {
            self.version = version;
            self.changed();
            self.untold = true;
        }
        self.attr = self.overlay(attr);
    }

    /// Believes attributes as this client's own change has left them. Where the length is not what it expected, somebody
    /// else has changed the file too.
    pub(crate) fn adopt_own(&mut self, attr: &Attr) {
        let untold = self.untold || self.attr.length != self.overlay(attr).length;
        self.adopt(attr);
        self.untold = untold;
    }

    /// Attributes with what is not flushed yet.
    pub(crate) fn overlay(&self, attr: &Attr) -> Attr {
        let mut attr = attr.clone();
        attr.length = attr.length.max(self.written_length());
        if let Some(t) = self.pending.iter().map(|p| p.mtime).max() {
            attr.mtime = t;
            attr.ctime = attr.ctime.max(t);
        }
        attr
    }

    /// Attributes of a file whose record is gone.
    pub(crate) fn orphaned(&self) -> Attr {
        Attr { nlink: 0, ..self.overlay(&self.attr) }
    }

    pub(crate) fn written_length(&self) -> u64 {
        self.pending
            .iter()
            .map(|p| u64::from(p.chunk) * ciderfs_format::CHUNK_SIZE + u64::from(p.end()))
            .max()
            .unwrap_or(0)
    }

    /// Committed content is not what it was.
    pub(crate) fn changed(&mut self) {
        self.views.clear();
        self.chunks = None;
        self.generation += 1;
    }

    pub(crate) fn keep_view(&mut self, indx: u32, view: ChunkView) {
        if self.views.len() >= VIEWS_MAX {
            self.views.clear();
        }
        self.views.insert(indx, view);
    }

    pub(crate) fn fail(&mut self, error: Errno) {
        self.failures += 1;
        self.error = error;
    }
}
