//! What this process believes to be committed of an open file.

use ciderfs_format::{Attr, Time};
use ciderfs_meta::Version;

use crate::content::moment::Moment;

/// Version and attributes of a file, as of a moment.
pub(crate) struct Believed {
    /// Attributes as last seen or written; the length includes unflushed data.
    attr: Attr,
    /// As the engine last told it.
    version: Version,
    /// The moment when committed content changed last, as far as this mount knows: what was fetched before is out of date.
    as_of: Moment,
    /// A commit, or another change of the content, is under way: the version when it began.
    under_way: Option<Version>,
    /// Content or length have changed elsewhere, and the kernel may not know.
    untold: bool,
    /// The greatest length that somebody was told when it was not known, and is not yet; 0 if there is none.
    told: u64,
}

impl Believed {
    pub(super) fn new(attr: Attr) -> Self {
        Self {
            version: Version::of(&attr),
            attr,
            // Not that of an earlier state of the same inode, by which somebody may still go.
            as_of: Moment::next(),
            under_way: None,
            untold: false,
            told: 0,
        }
    }

    pub(super) fn attr(&self) -> &Attr {
        &self.attr
    }

    /// For changes that the engine does not tell of.
    pub(super) fn attr_mut(&mut self) -> &mut Attr {
        &mut self.attr
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn as_of(&self) -> Moment {
        self.as_of
    }

    /// What was fetched before now is out of date.
    pub(super) fn renew(&mut self) {
        self.as_of = Moment::next();
    }

    /// Another version than before is committed. True if it is one.
    pub(super) fn meet(&mut self, version: Version) -> bool {
        let is_new = self.version != version;
        if is_new {
            self.version = version;
            self.untold = true;
        }
        is_new
    }

    /// The version is another one by this mount's own change, and the content still what it was.
    pub(super) fn restamp(&mut self, before: Version, after: Version) {
        if self.version == before {
            self.version = after;
        }
    }

    /// The attributes that belong to the version.
    pub(super) fn set_attr(&mut self, attr: Attr) {
        self.attr = attr;
        self.told = 0;
    }

    /// Data was buffered up to `end`.
    pub(super) fn written(&mut self, end: u64, now: Time) {
        self.attr.length = self.attr.length.max(end);
        self.attr.mtime = now;
        self.attr.ctime = now;
    }

    pub(super) fn under_way(&self) -> Option<Version> {
        self.under_way
    }

    pub(super) fn begin(&mut self) {
        self.under_way = Some(self.version);
    }

    pub(super) fn end(&mut self) {
        self.under_way = None;
    }

    /// Is a change under way that these attributes may be the result of, or of what came after it?
    pub(super) fn may_hold_a_change(&self, attr: &Attr) -> bool {
        self.under_way.is_some_and(|version| version != Version::of(attr))
    }

    pub(super) fn untold(&self) -> bool {
        self.untold
    }

    pub(super) fn set_untold(&mut self, untold: bool) {
        self.untold = untold;
    }

    /// Was somebody told a greater length than is known here?
    pub(super) fn behind(&self) -> bool {
        self.told > 0
    }

    /// The greatest length that somebody was told and that is not known yet.
    pub(super) fn told_length(&self) -> u64 {
        self.told
    }

    /// Somebody is told this length. True if it is greater than the one that is known.
    pub(super) fn tell_length(&mut self, length: u64) -> bool {
        let is_greater = length > self.attr.length;
        if is_greater {
            self.told = self.told.max(length);
        }
        is_greater
    }
}
