//! What the kernel may still hold: the third of the three books (`docs/technical/coherence.md`).
//!
//! Facts come from [`Vfs::done`], and only here they become messages: the kernel asks for attributes again, drops pages, or learns a
//! length. Questions go the other way: an open asks which pages must go ([`Vfs::opens`]). No operation names the pages or what the
//! kernel was told.

pub(crate) mod growth;
pub(crate) mod looks;
mod pages;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::{Changed, Version};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::content::file::File;
pub use crate::kernel::growth::Growth;
use crate::kernel::looks::Looks;
use crate::kernel::pages::Pages;
pub(crate) use crate::kernel::pages::{Drops, Opening};
use crate::kernel::told::Told;
use crate::vfs::Vfs;

/// How long a command of a tool waits until the kernel has forgotten a name: somebody may hold the directory.
const NAME_PATIENCE: Duration = Duration::from_secs(1);
/// How long a new lock waits for the kernel to forget cached pages.
const FORGET_PATIENCE: Duration = Duration::from_secs(5);

/// What the kernel must not believe any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// Attributes and cached pages. May be told later: the kernel may wait for pages that requests under way hold.
    Content,
    /// Attributes only. Told before the call that finds out returns.
    Attributes,
}

/// A kernel that caches, or whatever stands in for one.
pub trait Kernel: Send + Sync {
    /// What it has cached of an inode is no longer right. Must not wait for requests.
    fn invalidate(&self, ino: Ino, what: Stale);

    /// It must have forgotten the attributes and some pages of an inode (offset and length in bytes; no length: all that follow)
    /// when the future ends. Not for callers whose request holds pages.
    fn forget(&self, ino: Ino, off: u64, len: u64) -> BoxFuture<'static, ()>;

    /// It must look a name up again when the future ends. Not for callers whose request holds the directory.
    fn forget_name(&self, dir: Ino, name: &[u8]) -> BoxFuture<'static, ()>;

    /// A file has grown elsewhere. If the future ends with true, the kernel knows the length. Not for callers whose request holds
    /// pages.
    fn grow(&self, growth: Growth) -> BoxFuture<'static, bool>;
}

/// What has happened to an inode.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fact {
    /// A file was made here.
    Made(Version),
    /// This mount has made one version out of another, as the kernel has asked for, so that its pages are of the new one; but for
    /// what it could not see.
    Own { before: Version, after: Version, unseen: Option<Stale> },
    /// Another mount has changed it.
    Foreign,
    /// What the kernel has may not be what the file holds: data went elsewhere or is lost, it was never told of a success, or
    /// nobody knows.
    Unknown,
    /// A request has done more than its answer tells.
    Unanswered(Stale),
    /// Its names, or attributes that have no part in its content, are others by a request of the kernel.
    Entry,
}

impl Fact {
    pub(crate) fn own(changed: &Changed, unseen: Option<Stale>) -> Self {
        Self::Own { before: changed.before, after: Version::of(&changed.attr), unseen }
    }
}

/// The part of the view that lies with an open file, since every read asks for it: does the kernel have pages of it, or may it get
/// some?
#[derive(Default)]
pub(crate) struct OfFile(AtomicBool);

impl OfFile {
    /// The kernel is given what goes into its pages, or a handle that may fill them.
    pub(crate) fn gets_pages(&self) {
        if !self.may_have_pages() {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn may_have_pages(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is known of one kernel's caches.
pub(crate) struct View {
    pages: Pages,
    told: Told,
    /// Its threads that were told to look a name up again.
    looks: Looks,
    /// It lets files be mapped that it does not cache otherwise.
    mixes_direct: AtomicBool,
    kernel: Mutex<Option<Arc<dyn Kernel>>>,
}

impl View {
    /// `valid`: how long the kernel believes attributes.
    pub(crate) fn new(valid: Duration) -> Self {
        Self {
            pages: Pages::default(),
            told: Told::new(valid),
            looks: Looks::default(),
            mixes_direct: AtomicBool::new(false),
            kernel: Mutex::default(),
        }
    }

    fn kernel(&self) -> Option<Arc<dyn Kernel>> {
        self.kernel.lock().clone()
    }

    /// Takes a fact. Returns what the kernel must not believe any longer, to be told by [`View::tell`] once it may ask again.
    #[must_use]
    pub(crate) fn happened(&self, ino: Ino, fact: Fact) -> Option<Stale> {
        match fact {
            Fact::Made(version) => {
                self.pages.created(ino, version);
                None
            }
            Fact::Own { before, after, unseen } => {
                self.pages.moved(ino, before, after);
                unseen
            }
            Fact::Foreign => Some(Stale::Attributes),
            Fact::Unknown => {
                self.pages.forget(ino);
                Some(Stale::Content)
            }
            Fact::Unanswered(stale) => Some(stale),
            Fact::Entry => None,
        }
    }

    /// Tells the kernel what [`View::happened`] has found.
    pub(crate) fn tell(&self, ino: Ino, stale: Option<Stale>) {
        if let Some(stale) = stale {
            self.invalidate(ino, stale);
        }
    }

    fn invalidate(&self, ino: Ino, stale: Stale) {
        if let Some(kernel) = self.kernel() {
            kernel.invalidate(ino, stale);
        }
    }

    /// Returns when the kernel has forgotten the attributes and some pages: so many bytes, or with 0 all that follow.
    pub(crate) async fn forget(&self, ino: Ino, off: u64, len: u64) {
        if let Some(kernel) = self.kernel() {
            kernel.forget(ino, off, len).await;
        }
    }

    /// Returns when the kernel has forgotten a name, or somebody holds the directory for long.
    pub(crate) async fn forget_name(&self, dir: Ino, name: &[u8]) {
        if let Some(kernel) = self.kernel() {
            let _late = ciderfs_rt::timeout(NAME_PATIENCE, kernel.forget_name(dir, name)).await;
        }
    }

    /// The kernel is told attributes.
    pub(crate) fn answered(&self, ino: Ino, attr: &Attr) {
        self.told.note(ino, attr);
    }

    /// Was it told what is newer than these attributes?
    pub(crate) fn was_told_newer(&self, ino: Ino, attr: &Attr) -> bool {
        self.told.is_newer(ino, attr)
    }

    /// It has read data into its pages up to this length, and none behind it.
    pub(crate) fn has_read_to(&self, ino: Ino, length: u64) {
        self.told.ends(ino, length);
    }

    /// It uses a handle, so it has done what the answer to its open asked for.
    pub(crate) fn used(&self, ino: Ino, drops: &Drops) {
        self.pages.used(ino, drops);
    }

    /// One of its threads has looked a name up.
    pub(crate) fn found(&self, pid: u32, ino: Ino, attr: &Attr) {
        self.looks.found(pid, ino, attr);
    }

    /// One of its threads has opened a file that has a name.
    pub(crate) fn opened(&self, pid: u32) {
        self.looks.done(pid);
    }

    /// One of its threads has looked up a name that leads nowhere.
    pub(crate) fn missed(&self, pid: u32) {
        self.looks.done(pid);
    }

    /// It will not hear the answer to an open.
    pub(crate) fn not_opened(&self, ino: Ino) {
        self.pages.forget(ino);
    }

    /// Must a file that is opened be read past the pages?
    pub(crate) fn reads_past_pages(&self, opening: &Opening) -> bool {
        opening.busy && self.mixes_direct.load(Ordering::Relaxed)
    }
}

impl Vfs {
    /// Tells `kernel` from now on what it must not believe any longer.
    pub fn set_kernel(&self, kernel: Arc<dyn Kernel>) {
        *self.kernel.kernel.lock() = Some(kernel);
    }

    /// May what the kernel is told not to cache be mapped all the same?
    pub fn set_mixes_direct(&self, yes: bool) {
        self.kernel.mixes_direct.store(yes, Ordering::Relaxed);
    }

    /// An open asks what is to be done about the pages of a file of this version. If they must go, the kernel knows when this returns
    /// that the file has changed elsewhere; `reads`: something can be read or mapped through the handle.
    pub(crate) async fn opens(self: &Arc<Self>, file: &Arc<File>, version: Version, reads: bool) -> Opening {
        let ino = file.ino;
        let mut opening = self.kernel.pages.open(ino, version);
        if let Some(drops) = &mut opening.drops {
            // Close-to-open: the length that the kernel remembers from a lookup would cut the reads that follow.
            let stale = self.foreign(ino);
            if reads {
                drops.tell(self.tell_version(file, version)).await;
            } else {
                self.kernel.tell(ino, stale);
                // The next open that reads tells the length all the same: its pages are not current before.
                *drops = Drops::default();
            }
        }
        opening
    }

    /// A lock asks the same. When this returns the kernel has no pages of an older version, and nobody who opens this one has it disbelieve
    /// its attributes again: the holder's question may be under way by then, whose answer would be thrown away, and it would go on
    /// with an old length. False if the kernel takes too long.
    pub(crate) async fn locks(self: &Arc<Self>, file: &Arc<File>, version: Version) -> bool {
        let ino = file.ino;
        let stale = self.foreign(ino);
        let Some(drops) = self.kernel.pages.open(ino, version).drops else {
            self.kernel.tell(ino, stale);
            return true;
        };
        let tell = Box::pin(self.tell_version(file, version));
        let told = drops.forget(|| self.kernel.forget(ino, 0, 0), tell);
        let in_time = ciderfs_rt::timeout(FORGET_PATIENCE, told).await.is_ok();
        if in_time {
            self.kernel.used(ino, &drops);
        } else {
            tracing::warn!("inode {ino}: the kernel is slow to forget cached pages");
        }
        in_time
    }
}

#[cfg(test)]
mod tests {
    use ciderfs_format::Time;

    use super::*;

    const INO: Ino = Ino(7);

    /// Notes what it must not believe.
    #[derive(Default)]
    struct Notes(Mutex<Vec<Stale>>);

    impl Kernel for Notes {
        fn forget_name(&self, _: Ino, _: &[u8]) -> BoxFuture<'static, ()> {
            Box::pin(async {})
        }

        fn invalidate(&self, ino: Ino, what: Stale) {
            assert_eq!(ino, INO);
            self.0.lock().push(what);
        }

        fn forget(&self, _: Ino, _: u64, _: u64) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }

        fn grow(&self, _: Growth) -> BoxFuture<'static, bool> {
            Box::pin(std::future::ready(false))
        }
    }

    fn version(n: i64) -> Version {
        Version { mtime: Time { sec: n, nsec: 0 }, length: 5 }
    }

    fn own(before: i64, after: i64, unseen: Option<Stale>) -> Fact {
        Fact::Own { before: version(before), after: version(after), unseen }
    }

    #[test]
    fn a_fact_becomes_a_message_and_decides_about_the_pages() {
        let (content, attributes) = (Some(Stale::Content), Some(Stale::Attributes));
        // What happens to pages of version 1, what is told, and the version that may be opened with them then.
        for (fact, told, kept) in [
            (own(1, 2, None), None, Some(2)),
            (own(1, 2, attributes), attributes, Some(2)),
            // Others came between, and nobody knows what the pages are of.
            (own(3, 4, content), content, None),
            (Fact::Unknown, content, None),
            (Fact::Foreign, attributes, Some(1)),
            (Fact::Unanswered(Stale::Attributes), attributes, Some(1)),
            (Fact::Unanswered(Stale::Content), content, Some(1)),
            (Fact::Entry, None, Some(1)),
            (Fact::Made(version(3)), None, Some(1)),
        ] {
            let view = View::new(Duration::from_secs(1));
            let notes = Arc::new(Notes::default());
            *view.kernel.lock() = Some(Arc::clone(&notes) as Arc<dyn Kernel>);
            view.used(INO, &view.pages.open(INO, version(1)).drops.unwrap());
            let stale = view.happened(INO, fact);
            assert!(notes.0.lock().is_empty(), "{fact:?}: the kernel is told when the change has ended");
            view.tell(INO, stale);
            assert_eq!(*notes.0.lock(), Vec::from_iter(told), "{fact:?}");
            let keeps = |n| view.pages.open(INO, version(n)).drops.is_none();
            match kept {
                Some(n) => assert!(keeps(n), "{fact:?}"),
                None => assert!(!keeps(1) && !keeps(4), "{fact:?}"),
            }
        }
    }

    #[test]
    fn after_an_open_that_has_failed_nobody_relies_on_pages() {
        let view = View::new(Duration::from_secs(1));
        view.used(INO, &view.pages.open(INO, version(1)).drops.unwrap());
        assert!(view.pages.open(INO, version(1)).drops.is_none());
        view.not_opened(INO);
        assert!(view.pages.open(INO, version(1)).drops.is_some());
    }
}
