//! The closing call: how every operation that changes a node ends.
//!
//! An operation calls [`Vfs::done`] once for each node that it has changed, and says how. That brings content and buffer up to date,
//! has whatever was fetched before disbelieved, and gives the kernel's view one [`Fact`]. Nothing else is to be done, and nothing of it
//! by hand. The model is in `docs/technical/coherence.md`.

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::{Changed, Errno, Version};

use crate::content::file::{File, UnderWay};
use crate::content::moment::Moment;
use crate::kernel::{Fact, Stale};
use crate::vfs::Vfs;

/// What an operation has done to a node.
pub(crate) enum Change<'a> {
    /// A file was made, and is about to be opened.
    Made(&'a Attr),
    /// The commit of buffered slices has ended, well or not.
    Written(Commit<'a>),
    /// Content or length of an open file were changed in another way by a commit.
    Content { changed: &'a Changed, under_way: UnderWay<'a> },
    /// Content or attributes were changed of a file that nobody had open here before.
    Closed(&'a Changed),
    /// Attributes of an open file were set; nothing was known of it then but what was known at a moment.
    Attributes { file: &'a File, changed: &'a Changed, since: Moment },
    /// An extended attribute was set or removed, or was tried to; the mode may have changed with it.
    Xattr(Option<&'a Attr>),
    /// A name was added to it or taken away.
    Names,
    /// Something was added to this directory or taken away.
    Listing,
    /// This name in the directory was made or taken away by a command of a tool, of which the kernel knows nothing.
    ByTool(&'a [u8]),
    /// A request has changed more than its answer tells the kernel.
    Unanswered(Stale),
    /// Content may have changed by a request whose caller was told nothing, or that it failed: the kernel has left its pages as they
    /// were.
    Unheard,
}

/// A commit that has ended.
pub(crate) struct Commit<'a> {
    pub(crate) under_way: UnderWay<'a>,
    /// So many slices, from the first, were to be committed.
    pub(crate) slices: usize,
    /// What it has changed, unless it has failed, or nobody knows.
    pub(crate) changed: Option<&'a Changed>,
    /// Some data is not where it was believed to be.
    pub(crate) moved: bool,
    /// What is to be told to whoever has written.
    pub(crate) error: Option<Errno>,
}

/// What is known after a change.
pub(crate) struct Done {
    /// The attributes, where the operation answers with them.
    pub(crate) attr: Option<Attr>,
    /// A moment before which nothing is known to have happened after the change.
    pub(crate) as_of: Moment,
}

impl Vfs {
    /// Ends an operation that has changed a node: the one call that it makes.
    pub(crate) async fn done(&self, ino: Ino, change: Change<'_>) -> Done {
        let mut as_of = None;
        let mut attr = None;
        match change {
            Change::Made(made) => {
                let stale = self.kernel.happened(ino, Fact::Made(Version::of(made)));
                self.kernel.tell(ino, stale);
            }
            Change::Written(commit) => self.written(ino, commit).await,
            Change::Content { changed, under_way } => {
                as_of = Some(self.content_changed(ino, changed, under_way).await);
            }
            Change::Closed(changed) => {
                self.own(ino, changed);
                as_of = Some(Moment::now());
                self.catch_up_if_open(ino).await;
                attr = Some(changed.attr.clone());
            }
            Change::Attributes { file, changed, since } => {
                self.own(ino, changed);
                let at = Moment::now();
                attr = {
                    let mut s = file.state.lock();
                    s.adopt_set(changed, since).then(|| s.attr().clone())
                };
                as_of = Some(at);
                if attr.is_none() {
                    // What was committed meanwhile counts as well, if it can be found out: the change is made.
                    as_of = Some(Moment::now());
                    attr = Some(self.getattr(ino).await.unwrap_or_else(|_| changed.attr.clone()));
                }
            }
            Change::Xattr(set) => {
                self.happened(ino, Fact::Entry);
                if let (Some(set), Some(file)) = (set, self.files.get(ino)) {
                    file.state.lock().adopt_mode(set);
                }
            }
            Change::Names => self.happened(ino, Fact::Entry),
            Change::Listing => {
                self.recent.note(ino);
                self.count_listing_change(ino);
            }
            Change::ByTool(name) => {
                self.recent.note(ino);
                self.count_listing_change(ino);
                self.kernel.forget_name(ino, name).await;
                let stale = self.kernel.happened(ino, Fact::Unanswered(Stale::Attributes));
                self.kernel.tell(ino, stale);
            }
            Change::Unanswered(stale) => {
                let stale = self.kernel.happened(ino, Fact::Unanswered(stale));
                self.kernel.tell(ino, stale);
            }
            Change::Unheard => self.happened(ino, Fact::Unknown),
        }
        Done { attr, as_of: as_of.unwrap_or_else(Moment::now) }
    }

    async fn written(&self, ino: Ino, commit: Commit<'_>) {
        let Commit { under_way, slices, changed, moved, error } = commit;
        let file = under_way.file();
        let (as_believed, known, logged) = {
            let mut s = file.state.lock();
            let (adopted, logged) = match changed {
                Some(changed) => s.committed(slices, changed, moved, under_way.began),
                None => (false, s.lost(slices)),
            };
            let known = adopted && error.is_none();
            if let Some(e) = error {
                s.fail(e);
            }
            (known && !s.take_moved(), known, logged)
        };
        if let Some(e) = error {
            self.carry.failed(ino, e);
        }
        self.carry.release(logged);
        let fact = match changed {
            Some(changed) if as_believed => Fact::own(changed, None),
            _ => Fact::Unknown,
        };
        let stale = self.disbelieve_and_note(ino, fact);
        drop(under_way);
        if !known {
            self.catch_up_alone(file).await;
        }
        self.kernel.tell(ino, stale);
    }

    async fn content_changed(&self, ino: Ino, changed: &Changed, under_way: UnderWay<'_>) -> Moment {
        let file = under_way.file();
        let (mode, known) = {
            let mut s = file.state.lock();
            (s.attr().mode, s.adopt_own(changed, under_way.began))
        };
        let unseen = match known {
            false => Some(Stale::Content),
            // The kernel does not know that special bits went with it.
            true => (mode != changed.attr.mode).then_some(Stale::Attributes),
        };
        let stale = self.disbelieve_and_note(ino, Fact::own(changed, unseen));
        let at = Moment::now();
        drop(under_way);
        if !known {
            self.catch_up_alone(file).await;
        }
        self.kernel.tell(ino, stale);
        at
    }

    /// This mount has changed a file.
    fn own(&self, ino: Ino, changed: &Changed) {
        self.happened(ino, Fact::own(changed, None));
    }

    fn happened(&self, ino: Ino, fact: Fact) {
        let stale = self.disbelieve_and_note(ino, fact);
        self.kernel.tell(ino, stale);
    }

    /// Another mount has changed a file, which somebody here opens or locks: what was fetched before is out of date.
    #[must_use]
    pub(crate) fn foreign(&self, ino: Ino) -> Option<Stale> {
        self.recent.note(ino);
        self.kernel.happened(ino, Fact::Foreign)
    }

    /// This mount has changed a node: what was fetched before is out of date. Returns what the kernel is to be told.
    #[must_use]
    fn disbelieve_and_note(&self, ino: Ino, fact: Fact) -> Option<Stale> {
        let stale = self.kernel.happened(ino, fact);
        self.recent.note(ino);
        self.remembered.forget(ino);
        stale
    }

    /// May something have happened to an inode since a moment, so that what was fetched then is out of date?
    pub(crate) fn is_overtaken(&self, ino: Ino, since: Moment) -> bool {
        self.recent.since(ino, since)
    }

    /// A change of content has ended whose caller was told that it failed, or nothing.
    pub async fn unheard(&self, ino: Ino) {
        self.done(ino, Change::Unheard).await;
    }

    /// A request has changed attributes without telling so in its answer: the kernel asks for them again.
    pub(crate) async fn attributes_changed(&self, ino: Ino) {
        self.done(ino, Change::Unanswered(Stale::Attributes)).await;
    }
}
