//! An inode that is open here: unflushed slices, what is known of its content, errors to report.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::{Changed, ChunkView, Claim, Errno, Version};
use ciderfs_rt::Instant;
use parking_lot::Mutex;

use crate::pending::Pending;
use crate::room::Arriving;

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
    /// A commit, or another change of the content, is under way: the version when it began.
    pub(crate) under_way: Option<Version>,
    /// Appended data is not where it was believed to be when the kernel wrote it.
    pub(crate) moved: bool,
    /// Room held for what is not committed yet.
    pub(crate) claim: Option<Claim>,
    /// Writes that were given room and are not in `pending` yet.
    pub(crate) arriving: Arriving,
    /// A truncation to this length is under way.
    pub(crate) shrinks_to: Option<u64>,
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
            under_way: None,
            attr,
            pending: VecDeque::new(),
            committing: 0,
            moved: false,
            claim: None,
            arriving: Arriving::default(),
            shrinks_to: None,
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
        let current = s.generation == generation;
        s.tell(attr, current)
    }

    /// Takes attributes from the engine, fetched while `generation` was current. False if it is not any more, or if a commit is
    /// under way: what others have written after it would lie under what is still pending.
    pub(crate) fn learn(&self, attr: &Attr, generation: u64) -> bool {
        let mut s = self.state.lock();
        let current = s.generation == generation && !s.may_hold_a_change(attr);
        if current {
            s.adopt(attr);
        }
        current
    }

    /// What is known of the file is of this version.
    pub(crate) fn version(&self) -> Version {
        self.state.lock().version
    }

    /// Is nothing newer than this version to be learnt of the engine for now?
    pub(crate) fn knows(&self, version: Version) -> bool {
        let s = self.state.lock();
        s.version == version && s.under_way.is_none()
    }

    /// Attributes as the engine told them some time ago, with what is not flushed yet; `None` if anything else is known by now.
    pub(crate) fn as_told(&self, attr: &Attr) -> Option<Attr> {
        let s = self.state.lock();
        let known = s.version == Version::of(attr) && s.under_way.is_none() && !s.behind;
        known.then(|| s.overlay(attr))
    }

    /// Attributes fetched since a moment, with what is not flushed yet; `None` if the content has changed since.
    pub(crate) fn current(&self, attr: &Attr, since: u64) -> Option<Attr> {
        let mut s = self.state.lock();
        if s.generation > since {
            return None;
        }
        Some(s.tell(attr, true))
    }

    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Takes attributes from a commit, begun while `generation` was current, that changed the content otherwise than by
    /// writing; see [`State::adopt_own`].
    #[must_use]
    pub(crate) fn adopt_change(&self, changed: &Changed, generation: u64) -> bool {
        let mut s = self.state.lock();
        s.adopt_own(changed, generation)
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

    /// Waits while a change of the content is under way.
    pub(crate) async fn settled(&self) {
        self.while_committing(|s| s.under_way.is_some()).await;
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
        self.settle_claim();
    }

    /// Attributes with what is not flushed yet, for somebody who is told them. They are believed if they are `current`, unless a
    /// change under way may be in them; in any case what is told must be there to be read.
    fn tell(&mut self, attr: &Attr, current: bool) -> Attr {
        if current && !self.may_hold_a_change(attr) {
            self.adopt(attr);
        } else {
            self.behind |= attr.length > self.attr.length;
        }
        self.overlay(attr)
    }

    /// Believes attributes as this client's own change has left them, which began while `generation` was current. Where it has
    /// not changed the version that was known here, somebody else has changed the file too.
    ///
    /// False if something else was learnt meanwhile: which of the two is newer, only the engine knows.
    #[must_use]
    pub(crate) fn adopt_own(&mut self, changed: &Changed, generation: u64) -> bool {
        let after = Version::of(&changed.attr);
        // A compaction or a change of the mode comes between without a newer version.
        let known = self.generation == generation || self.version == changed.before || self.version == after;
        let untold = self.untold || (self.version != changed.before && self.version != after) || !known;
        self.changed();
        if known {
            let newer =
                Some(self.attr.clone()).filter(|a| a.ctime > changed.attr.ctime && self.pending.is_empty());
            self.adopt(&changed.attr);
            if let Some(newer) = newer {
                let (length, mtime) = (self.attr.length, self.attr.mtime);
                self.attr = Attr { length, mtime, ..newer };
            }
        }
        self.untold = untold;
        known
    }

    /// Is a change under way that these attributes may be the result of, or of what came after it?
    fn may_hold_a_change(&self, attr: &Attr) -> bool {
        self.under_way.is_some_and(|version| version != Version::of(attr))
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

/// A change of the file's content that is under way; ends with this, however it ends.
pub(crate) struct UnderWay<'a> {
    file: &'a File,
    /// The generation when it began.
    pub(crate) generation: u64,
}

impl<'a> UnderWay<'a> {
    /// A change begins; so many slices, from the first, are committed by it. The caller holds [`File::flushing`].
    pub(crate) fn begin(file: &'a File, slices: usize) -> Self {
        let mut s = file.state.lock();
        s.committing = slices;
        s.under_way = Some(s.version);
        Self { file, generation: s.generation }
    }

    /// The change is a truncation to this length: what is written beyond it from now on grows the file from there.
    pub(crate) fn shrinking(self, to: u64) -> Self {
        let mut s = self.file.state.lock();
        s.shrinks_to = Some(to);
        s.settle_claim();
        drop(s);
        self
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut s = self.file.state.lock();
        (s.committing, s.under_way) = (0, None);
        s.shrinks_to = None;
        s.settle_claim();
        drop(s);
        self.file.settled.notify_waiters();
    }
}
