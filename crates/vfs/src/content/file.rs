//! An inode that is open here.

use std::sync::Arc;

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::Version;
use ciderfs_rt::Instant;
use parking_lot::Mutex;

use crate::content::moment::Moment;
use crate::content::state::State;
use crate::kernel::OfFile;

/// State shared by all handles of an inode.
pub(crate) struct File {
    pub(crate) ino: Ino,
    pub(crate) state: Mutex<State>,
    /// Held by the one flush (or truncate) of the file that runs.
    pub(crate) flushing: tokio::sync::Mutex<()>,
    /// Told at the end of each commit.
    settled: tokio::sync::Notify,
    pub(crate) kernel: OfFile,
    /// When a descriptor of a handle with a flock was closed last.
    pub(crate) flock_closed: Mutex<Option<Instant>>,
}

impl File {
    pub(crate) fn new(ino: Ino, attr: Attr) -> Arc<Self> {
        Arc::new(Self {
            ino,
            state: Mutex::new(State::new(attr)),
            flushing: tokio::sync::Mutex::new(()),
            settled: tokio::sync::Notify::new(),
            kernel: OfFile::default(),
            flock_closed: Mutex::default(),
        })
    }

    /// Takes attributes from the engine that were fetched as of a moment, and returns them with what is not flushed yet. Content that
    /// changed elsewhere is forgotten.
    pub(crate) fn tell(&self, attr: &Attr, as_of: Moment) -> Attr {
        let mut s = self.state.lock();
        let current = s.as_of() == as_of;
        if !current && attr.ctime <= s.attr().ctime {
            // Fetched before a commit that has told more by now: a shorter length would make the kernel drop what was written.
            return s.attr().clone();
        }
        s.tell(attr, current)
    }

    /// Takes attributes from the engine that were fetched as of a moment; see [`State::learn`].
    pub(crate) fn learn(&self, attr: &Attr, as_of: Moment) -> bool {
        self.state.lock().learn(attr, as_of)
    }

    /// Attributes fetched since a moment, with what is not flushed yet; `None` if the content has changed since.
    pub(crate) fn tell_since(&self, attr: &Attr, since: Moment) -> Option<Attr> {
        let mut s = self.state.lock();
        if s.as_of() > since {
            return None;
        }
        Some(s.tell(attr, true))
    }

    /// Attributes as the engine told them some time ago, with what is not flushed yet; `None` if anything else is known by now.
    pub(crate) fn tell_remembered(&self, attr: &Attr) -> Option<Attr> {
        let s = self.state.lock();
        let known = s.knows(Version::of(attr)) && !s.is_behind();
        known.then(|| s.overlay(attr))
    }

    /// What is known of the file is of this version.
    pub(crate) fn version(&self) -> Version {
        self.state.lock().version()
    }

    /// Is nothing newer than this version to be learnt of the engine for now?
    pub(crate) fn knows(&self, version: Version) -> bool {
        self.state.lock().knows(version)
    }

    /// The moment as of which the content is known.
    pub(crate) fn as_of(&self) -> Moment {
        self.state.lock().as_of()
    }

    /// Attributes as last seen or written.
    pub(crate) fn attr(&self) -> Attr {
        self.state.lock().attr().clone()
    }

    /// Forgets what is known of the content.
    pub(crate) fn forget_content(&self) {
        self.state.lock().forget_content();
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.state.lock().slices().is_empty()
    }

    /// Is a byte of the file still in the buffer?
    pub(crate) fn has_written(&self, at: u64) -> bool {
        self.state.lock().slices().iter().any(|p| p.overlaps(at, at + 1))
    }

    /// Waits while a commit decides where appended data goes: what the engine tells meanwhile may hold it already.
    ///
    /// Another one may begin before the caller gets to run: it looks itself.
    pub(crate) async fn placed(&self) {
        self.while_committing(State::is_placing).await;
    }

    /// Waits while a change of the content is under way.
    pub(crate) async fn settled(&self) {
        self.while_committing(State::is_changing).await;
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

/// A change of the file's content that is under way; ends with this, however it ends.
pub(crate) struct UnderWay<'a> {
    file: &'a File,
    /// As of when it began.
    pub(crate) began: Moment,
}

impl<'a> UnderWay<'a> {
    /// A change begins; so many slices, from the first, are committed by it. The caller holds [`File::flushing`].
    pub(crate) fn begin(file: &'a File, slices: usize) -> Self {
        let began = file.state.lock().begin_change(slices);
        Self { file, began }
    }

    /// The change is a truncation to this length: what is written beyond it from now on grows the file from there.
    pub(crate) fn shrinking(self, to: u64) -> Self {
        self.file.state.lock().shrink_to(to);
        self
    }

    /// Of which file.
    pub(crate) fn file(&self) -> &'a File {
        self.file
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.file.state.lock().end_change();
        self.file.settled.notify_waiters();
    }
}
