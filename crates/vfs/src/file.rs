//! An inode that is open here: unflushed slices, what is known of its content, errors to report.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::{Changed, ChunkView, Claim, Errno, Version};
use parking_lot::Mutex;

use crate::pending::Pending;

/// Resolved chunks kept per open file.
const VIEWS_MAX: usize = 64;

/// Counts changes of committed content in this process, so that a moment before a request can be told from one after it.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Now, in changes. What was fetched from the engine after this moment is not older than any change up to it.
pub(crate) fn moment() -> u64 {
    CHANGES.load(Ordering::Acquire)
}

/// A moment after all others.
pub(crate) fn next_moment() -> u64 {
    CHANGES.fetch_add(1, Ordering::AcqRel) + 1
}

/// State shared by all handles of an inode.
pub(crate) struct File {
    pub(crate) ino: Ino,
    pub(crate) state: Mutex<State>,
    /// Held by the one flush (or truncate) of the file that runs.
    pub(crate) flushing: tokio::sync::Mutex<()>,
    /// Told at the end of each commit.
    settled: tokio::sync::Notify,
    /// Does the kernel have pages of it, or may it get some?
    pub(crate) paged: AtomicBool,
    /// When a descriptor of a handle with a flock was closed last.
    pub(crate) flock_closed: Mutex<Option<Instant>>,
}

/// What [`File::state`] protects.
pub(crate) struct State {
    /// Attributes as last seen or written; the length includes unflushed data.
    pub(crate) attr: Attr,
    /// As the engine last told it.
    pub(crate) version: Version,
    /// Slices not yet committed, in the order in which they were begun.
    pub(crate) pending: VecDeque<Pending>,
    /// So many of them, from the first, are in a commit under way: what the engine tells may hold them already.
    pub(crate) committing: usize,
    /// Version and generation when that commit began.
    pub(crate) committing_from: (Version, u64),
    /// Appended data is not where it was believed to be when the kernel wrote it.
    pub(crate) moved: bool,
    /// Room held for what is not committed yet.
    pub(crate) claim: Option<Claim>,
    /// Resolved chunks, as of `attr`.
    pub(crate) views: HashMap<u32, ChunkView>,
    /// The first chunk, fetched along with an open, until somebody reads.
    pub(crate) first: Option<ChunkView>,
    /// Indexes of the chunks that have lists, ascending, if known.
    pub(crate) chunks: Option<Arc<[u32]>>,
    /// The moment when committed content changed last, as far as this mount knows: what was fetched before is out of date.
    pub(crate) generation: u64,
    /// Failed flushes so far, and the last one's error. Each handle reports each failure once.
    pub(crate) failures: u64,
    pub(crate) error: Errno,
    /// Content or length have changed elsewhere, and the kernel may not know.
    pub(crate) untold: bool,
    /// Somebody was told a greater length than `attr` has.
    pub(crate) behind: bool,
}

impl File {
    pub(crate) fn new(ino: Ino, attr: Attr) -> Arc<Self> {
        let version = Version::of(&attr);
        let state = State {
            version,
            committing_from: (version, 0),
            attr,
            pending: VecDeque::new(),
            committing: 0,
            moved: false,
            claim: None,
            views: HashMap::new(),
            first: None,
            chunks: None,
            // Not that of an earlier state of the same inode, by which somebody may still go.
            generation: next_moment(),
            failures: 0,
            error: Errno::EIO,
            untold: false,
            behind: false,
        };
        Arc::new(Self {
            ino,
            state: Mutex::new(state),
            flushing: tokio::sync::Mutex::new(()),
            settled: tokio::sync::Notify::new(),
            paged: AtomicBool::new(false),
            flock_closed: Mutex::default(),
        })
    }

    /// Takes attributes from the engine, fetched while `generation` was current. Content that changed elsewhere is forgotten.
    pub(crate) fn refresh(&self, attr: &Attr, generation: u64) -> Attr {
        let mut s = self.state.lock();
        if s.generation != generation && attr.ctime <= s.attr.ctime {
            // Fetched before a commit that has told more by now: a shorter length would make the kernel drop what was written.
            return s.attr.clone();
        }
        if s.generation == generation && !s.may_hold_a_commit(attr) {
            s.adopt(attr);
        } else {
            s.behind |= attr.length > s.attr.length;
        }
        s.overlay(attr)
    }

    /// Takes attributes from the engine, fetched while `generation` was current. False if it is not any more, or if a commit is
    /// under way: what others have written after it would lie under what is still pending.
    pub(crate) fn learn(&self, attr: &Attr, generation: u64) -> bool {
        let mut s = self.state.lock();
        let current = s.generation == generation && !s.may_hold_a_commit(attr);
        if current {
            s.adopt(attr);
        }
        current
    }

    /// What is known of the file is of this version.
    pub(crate) fn version(&self) -> Version {
        self.state.lock().version
    }

    /// Attributes fetched since a moment, with what is not flushed yet; `None` if the content has changed since.
    pub(crate) fn current(&self, attr: &Attr, since: u64) -> Option<Attr> {
        let s = self.state.lock();
        (s.generation <= since).then(|| s.overlay(attr))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Takes attributes from a commit, begun while `generation` was current, that changed the content otherwise than by
    /// writing; see [`State::adopt_own`].
    #[must_use]
    pub(crate) fn adopt_change(&self, changed: &Changed, generation: u64) -> bool {
        let mut s = self.state.lock();
        let known = s.adopt_own(changed, generation);
        s.settle_claim();
        known
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

    /// Waits while a commit decides where appended data goes: what the engine tells meanwhile may hold it already.
    ///
    /// Another one may begin before the caller gets to run: it looks itself.
    pub(crate) async fn placed(&self) {
        self.while_committing(State::is_placing).await;
    }

    /// Waits while a commit is under way.
    pub(crate) async fn settled(&self) {
        self.while_committing(|s| s.committing > 0).await;
    }

    async fn while_committing(&self, wait: impl Fn(&State) -> bool) {
        let settled = self.settled.notified();
        tokio::pin!(settled);
        settled.as_mut().enable();
        if wait(&self.state.lock()) {
            settled.await;
        }
    }
}

impl State {
    /// Believes fresh attributes.
    pub(crate) fn adopt(&mut self, attr: &Attr) {
        let version = Version::of(attr);
        if self.version != version {
            self.version = version;
            self.changed();
            self.untold = true;
        }
        self.place_appends(attr.length);
        self.attr = self.overlay(attr);
        self.behind = false;
    }

    /// Believes attributes as this client's own change has left them, which began while `generation` was current. Where it has
    /// not changed the version that was known here, somebody else has changed the file too.
    ///
    /// False if something else was learnt meanwhile: which of the two is newer, only the engine knows.
    #[must_use]
    pub(crate) fn adopt_own(&mut self, changed: &Changed, generation: u64) -> bool {
        let known = self.generation == generation || self.version == Version::of(&changed.attr);
        let untold = self.untold || self.version != changed.before || !known;
        self.changed();
        if known {
            self.adopt(&changed.attr);
        }
        self.untold = untold;
        known
    }

    /// Is a commit under way that these attributes may be the result of, or of what came after it?
    fn may_hold_a_commit(&self, attr: &Attr) -> bool {
        self.committing > 0 && self.committing_from.0 != Version::of(attr)
    }

    /// A commit of the first slices begins.
    pub(crate) fn begin_commit(&mut self, slices: usize) {
        self.committing = slices;
        self.committing_from = (self.version, self.generation);
    }

    /// Does a commit that is under way decide where appended data goes?
    pub(crate) fn is_placing(&self) -> bool {
        self.pending.iter().take(self.committing).any(|p| p.append)
    }

    /// Moves what goes to the end of the file behind the end that it has in the engine, and behind each other, as the commit
    /// will.
    fn place_appends(&mut self, length: u64) {
        let mut end = length;
        for (n, p) in self.pending.iter_mut().enumerate() {
            if p.append && n >= self.committing && p.at != end {
                p.at = end;
                self.moved = true;
            }
            end = end.max(p.end());
        }
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
        self.pending.iter().map(Pending::end).max().unwrap_or(0)
    }

    /// Committed content is not what it was.
    pub(crate) fn changed(&mut self) {
        self.views.clear();
        self.first = None;
        self.chunks = None;
        self.generation = next_moment();
    }

    pub(crate) fn keep_view(&mut self, indx: u32, view: ChunkView) {
        if self.views.len() >= VIEWS_MAX {
            self.views.clear();
        }
        self.views.insert(indx, view);
    }

    /// Keeps what an open has fetched along with this version.
    pub(crate) fn keep_first_view(&mut self, version: Version, view: ChunkView) {
        if self.version == version && !self.is_placing() {
            self.first = Some(view);
        }
    }

    pub(crate) fn fail(&mut self, error: Errno) {
        self.failures += 1;
        self.error = error;
    }
}

/// A commit of the file's first slices that is under way; ends with this, however it ends.
pub(crate) struct Committing<'a>(pub(crate) &'a File);

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        self.0.state.lock().committing = 0;
        self.0.settled.notify_waiters();
    }
}
