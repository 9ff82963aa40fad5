//! The books of one open file: what is believed to be committed, what is buffered, what was read of its lists, and what has failed.
//!
//! Each is a struct of its own with private fields; what concerns two of them is here. Whoever has fetched something from the engine
//! says as of which [`Moment`] it was fetched, and it is believed only if nothing has changed since.

use std::collections::VecDeque;
use std::sync::Arc;

use ciderfs_format::{Attr, Ino, Time};
use ciderfs_handover::Ticket;

use ciderfs_meta::{Changed, ChunkView, ClaimPlaces, Errno, Meta, Version};

use crate::content::believed::Believed;
use crate::content::buffer::Buffer;
use crate::content::failures::Failures;
use crate::content::moment::Moment;
use crate::content::pending::Pending;
use crate::content::room::{Claims, Lengths, Reach};
use crate::content::views::Views;
use crate::error::Result;
use crate::io::locks::Losses;

/// What [`File::state`](crate::content::file::File::state) protects.
pub(crate) struct State {
    believed: Believed,
    buffer: Buffer,
    claims: Claims,
    views: Views,
    failures: Failures,
}

impl State {
    pub(super) fn new(attr: Attr) -> Self {
        Self {
            believed: Believed::new(attr),
            buffer: Buffer::default(),
            claims: Claims::default(),
            views: Views::default(),
            failures: Failures::default(),
        }
    }

    // What is believed.

    /// Attributes as last seen or written; the length includes unflushed data.
    pub(crate) fn attr(&self) -> &Attr {
        self.believed.attr()
    }

    /// The version that is believed to be committed.
    pub(crate) fn version(&self) -> Version {
        self.believed.version()
    }

    /// The moment of the last change: what was fetched before is out of date.
    pub(crate) fn as_of(&self) -> Moment {
        self.believed.as_of()
    }

    /// Is a change of the content under way?
    pub(crate) fn is_changing(&self) -> bool {
        self.believed.under_way().is_some()
    }

    /// Was somebody told a greater length than is known here?
    pub(crate) fn is_behind(&self) -> bool {
        self.believed.behind()
    }

    /// May content or length have changed elsewhere without the kernel's knowing?
    pub(crate) fn is_untold(&self) -> bool {
        self.believed.untold()
    }

    /// See [`State::is_untold`].
    pub(crate) fn set_untold(&mut self, untold: bool) {
        self.believed.set_untold(untold);
    }

    /// Is nothing newer than this version to be learnt of the engine for now?
    pub(crate) fn knows(&self, version: Version) -> bool {
        self.believed.version() == version && !self.is_changing()
    }

    /// Believes fresh attributes.
    fn adopt(&mut self, attr: &Attr) {
        if self.believed.meet(Version::of(attr)) {
            self.forget_content();
        }
        self.buffer.place_appends(attr.length);
        self.believed.set_attr(self.buffer.overlay(attr));
        self.settle_claim();
    }

    /// Believes attributes that were fetched as of a moment. False if that is over, or if a commit is under way: what others have
    /// written after it would lie under what is still pending.
    pub(super) fn learn(&mut self, attr: &Attr, as_of: Moment) -> bool {
        let current = self.as_of() == as_of && !self.believed.may_hold_a_change(attr);
        if current {
            self.adopt(attr);
        }
        current
    }

    /// Takes attributes and lists that were fetched together as of a moment; false if that is over, or if a commit decides where
    /// appended data goes.
    #[must_use]
    pub(crate) fn learn_chunks(
        &mut self,
        attr: &Attr,
        as_of: Moment,
        views: impl Iterator<Item = (u32, ChunkView)>,
    ) -> bool {
        if self.as_of() != as_of || self.buffer.is_placing() {
            return false;
        }
        self.adopt(attr);
        for (indx, view) in views {
            self.views.keep(indx, view);
        }
        true
    }

    /// Attributes with what is not flushed yet, for somebody who is told them. They are believed if they are `current`, unless a
    /// change under way may be in them; in any case what is told must be there to be read.
    pub(super) fn tell(&mut self, attr: &Attr, current: bool) -> Attr {
        if current && !self.believed.may_hold_a_change(attr) {
            self.adopt(attr);
        } else if self.believed.tell_length(attr.length) {
            // What is being fetched may be of before, and would take back what is told.
            self.believed.renew();
        }
        self.overlay(attr)
    }

    /// Believes attributes as this client's own change has left them, which began as of a moment. Where it has not changed the
    /// version that was believed here, somebody else has changed the file too.
    ///
    /// False if something else was learnt meanwhile: which of the two is newer, only the engine knows.
    #[must_use]
    pub(crate) fn adopt_own(&mut self, changed: &Changed, began: Moment) -> bool {
        let after = Version::of(&changed.attr);
        let version = self.version();
        let is_own = version == changed.before || version == after;
        // A compaction or a change of the mode comes between without a newer version.
        let known = self.as_of() == began || is_own;
        let untold = self.is_untold() || !is_own || !known;
        self.forget_content();
        if known {
            let newer = Some(self.attr().clone())
                .filter(|a| a.ctime > changed.attr.ctime && self.buffer.slices().is_empty());
            // Somebody may have been told more while this was under way.
            let told = self.believed.told_length();
            self.adopt(&changed.attr);
            self.believed.tell_length(told);
            if let Some(newer) = newer {
                let (length, mtime) = (self.attr().length, self.attr().mtime);
                *self.believed.attr_mut() = Attr { length, mtime, ..newer };
            }
        }
        self.set_untold(untold);
        known
    }

    /// Believes attributes that this client has set, if nothing has changed since the moment before it did. The content is what it
    /// was.
    #[must_use]
    pub(crate) fn adopt_set(&mut self, changed: &Changed, since: Moment) -> bool {
        if self.as_of() > since {
            return false;
        }
        self.believed.restamp(changed.before, Version::of(&changed.attr));
        self.adopt(&changed.attr);
        // What was fetched before does not know the new mode or owner.
        self.believed.renew();
        true
    }

    /// An access ACL was set: it changes the mode too. The rest of such attributes may be older than what is believed.
    pub(crate) fn adopt_mode(&mut self, attr: &Attr) {
        let own = self.believed.attr_mut();
        (own.mode, own.access_acl) = (attr.mode, attr.access_acl);
        self.believed.renew();
    }

    /// The attributes of a file whose record is gone are changed.
    ///
    /// # Errors
    /// Those of `change`.
    pub(crate) fn set_orphan(&mut self, change: impl FnOnce(&mut Attr) -> Result<()>) -> Result<Attr> {
        change(self.believed.attr_mut())?;
        Ok(self.orphaned())
    }

    /// A file whose record is gone is emptied.
    pub(crate) fn empty_orphan(&mut self) -> Attr {
        self.believed.attr_mut().length = 0;
        self.forget_content();
        self.orphaned()
    }

    /// Attributes with what is not flushed yet.
    pub(super) fn overlay(&self, attr: &Attr) -> Attr {
        self.buffer.overlay(attr)
    }

    /// Attributes of a file whose record is gone.
    pub(crate) fn orphaned(&self) -> Attr {
        Attr { nlink: 0, ..self.overlay(self.attr()) }
    }

    // What is buffered.

    /// Slices not yet committed, in the order in which they were begun.
    pub(crate) fn slices(&self) -> &VecDeque<Pending> {
        self.buffer.slices()
    }

    /// See [`State::slices`].
    pub(crate) fn slices_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.buffer.slices_mut()
    }

    /// See [`State::find_slice`].
    pub(crate) fn slice_mut(&mut self, index: usize) -> &mut Pending {
        self.buffer.slice_mut(index)
    }

    /// The slice that a write can extend.
    pub(crate) fn find_slice(&self, losses: Losses, at: u64, bytes: u64, append: bool) -> Option<usize> {
        self.buffer.find(losses, at, bytes, append)
    }

    /// Begins a slice.
    pub(crate) fn push_slice(&mut self, slice: Pending) -> usize {
        self.buffer.push(slice)
    }

    /// Data was buffered up to `end`.
    pub(crate) fn written(&mut self, end: u64, now: Time) {
        self.believed.written(end, now);
    }

    /// Does a commit that is under way decide where appended data goes?
    pub(crate) fn is_placing(&self) -> bool {
        self.buffer.is_placing()
    }

    /// A commit of so many slices has ended well; `moved`: some of them are not where they were believed to be. Returns whether the
    /// attributes are believed, see [`State::adopt_own`], and the slices' places in the log.
    pub(crate) fn committed(
        &mut self,
        slices: usize,
        changed: &Changed,
        moved: bool,
        began: Moment,
    ) -> (bool, Vec<Ticket>) {
        let logged = self.buffer.take(slices);
        self.buffer.note_moved(moved);
        (self.adopt_own(changed, began), logged)
    }

    /// A commit of so many slices has failed, or none of them could be committed. Returns their places in the log.
    pub(crate) fn lost(&mut self, slices: usize) -> Vec<Ticket> {
        let logged = self.buffer.take(slices);
        self.forget_content();
        // The rest of the length may have been only in the buffers that are lost.
        self.believed.attr_mut().length = self.buffer.length().max(self.version().length);
        logged
    }

    /// Has data gone elsewhere than the kernel believes, since somebody asked last?
    pub(crate) fn take_moved(&mut self) -> bool {
        self.buffer.take_moved()
    }

    /// A change of the content begins; so many slices, from the first, are committed by it. Returns as of when it began.
    pub(super) fn begin_change(&mut self, slices: usize) -> Moment {
        self.buffer.commit(slices);
        self.believed.begin();
        self.as_of()
    }

    /// It has ended.
    pub(super) fn end_change(&mut self) {
        self.buffer.commit(0);
        self.believed.end();
        self.claims.shrink_to(None);
        self.settle_claim();
    }

    /// It is a truncation to this length.
    pub(super) fn shrink_to(&mut self, to: u64) {
        self.claims.shrink_to(Some(to));
        self.settle_claim();
    }

    // Room for what is buffered.

    fn lengths(&self) -> Lengths {
        Lengths { committed: self.version().length, buffered: self.buffer.length(), all: self.attr().length }
    }

    /// Holds room for one more write; it arrives only if there is some. False if it is not known yet what limits the file.
    pub(super) fn admit(&mut self, meta: &Meta, ino: Ino, write: Reach) -> Result<bool> {
        let lengths = self.lengths();
        self.claims.admit(meta, (ino, self.believed.attr()), write, &lengths)
    }

    /// A write that was admitted is buffered, or given up.
    pub(super) fn arrived(&mut self, write: Reach) {
        self.claims.arrived(write);
        self.settle_claim();
    }

    /// Gives back what has been committed or lost, and holds what is still to be committed. While a change is under way nothing
    /// is given back: what it takes is not among the figures before its reply.
    pub(crate) fn settle_claim(&mut self) {
        let lengths = self.lengths();
        self.claims.settle(&lengths, self.is_changing());
    }

    pub(super) fn claims(&self) -> &Claims {
        &self.claims
    }

    pub(super) fn place_claim(&mut self, places: ClaimPlaces) {
        self.claims.place(places);
    }

    // Lists of chunks.

    /// What is known of the content is not believed any more.
    pub(crate) fn forget_content(&mut self) {
        self.views.forget();
        self.believed.renew();
    }

    /// The list of a chunk, if it is at hand.
    pub(crate) fn view(&self, indx: u32) -> Option<&ChunkView> {
        self.views.get(indx)
    }

    /// All lists that are at hand.
    pub(crate) fn views(&self) -> impl Iterator<Item = (u32, &ChunkView)> {
        self.views.all()
    }

    /// Lists of the version that is believed, from elsewhere.
    pub(crate) fn extend_views(&mut self, views: impl Iterator<Item = (u32, ChunkView)>) {
        self.views.extend(views);
    }

    /// Takes a list that was fetched as of a moment, if it is current.
    pub(crate) fn learn_view(&mut self, indx: u32, view: ChunkView, as_of: Moment) {
        if self.as_of() == as_of && !self.is_placing() {
            self.views.keep(indx, view);
        }
    }

    /// Keeps what an open has fetched along with this version.
    pub(crate) fn keep_first_view(&mut self, version: Version, view: ChunkView) {
        if self.version() == version && !self.is_placing() {
            self.views.keep_first(view);
        }
    }

    /// Somebody reads: what the open has fetched is a list like others from now on. Returns it, the first time.
    pub(crate) fn use_first_view(&mut self) -> Option<&ChunkView> {
        let first = self.views.take_first()?;
        self.views.keep(0, first);
        self.views.get(0)
    }

    /// Indexes of the chunks that have lists, ascending, if known.
    pub(crate) fn chunks(&self) -> Option<&Arc<[u32]>> {
        self.views.chunks()
    }

    /// Takes such indexes, fetched as of a moment, if they are current.
    pub(crate) fn learn_chunk_indexes(&mut self, chunks: Arc<[u32]>, as_of: Moment) {
        if self.as_of() == as_of {
            self.views.keep_chunks(chunks);
        }
    }

    // Failures.

    /// A flush has failed.
    pub(crate) fn fail(&mut self, error: Errno) {
        self.failures.note(error);
    }

    /// How many flushes have failed so far.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.count()
    }

    /// The error of a flush that failed after so many failures.
    pub(crate) fn failed_since(&self, failures: u64) -> Result<(), Errno> {
        self.failures.since(failures)
    }
}
