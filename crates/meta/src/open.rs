//! Which inodes this client has open.
//!
//! There is no open tracking between clients: an inode unlinked here stays (as *sustained*) only if it is open here.

use std::collections::HashMap;
use std::sync::Arc;

use ciderfs_format::Ino;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Counts opens, and makes opening wait while a removal of the same inode is being decided.
#[derive(Default)]
pub(crate) struct OpenFiles {
    files: Mutex<HashMap<Ino, Entry>>,
    changed: Notify,
}

#[derive(Default)]
struct Entry {
    opens: u64,
    removing: u32,
    /// Opened, by one of these or an earlier one, while it was outside the trash.
    outside: bool,
    /// Without a name when last looked at: the last close removes it.
    unlinked: bool,
    /// Never had a name and may get one.
    linkable: bool,
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.opens == 0 && self.removing == 0
    }
}

impl OpenFiles {
    /// Counts an open, after any removal under way has been decided.
    pub(crate) async fn open(&self, ino: Ino) {
        loop {
            let waiting = self.changed.notified();
            tokio::pin!(waiting);
            waiting.as_mut().enable();
            {
                let mut files = self.files.lock();
                let e = files.entry(ino).or_default();
                if e.removing == 0 {
                    e.opens += 1;
                    return;
                }
            }
            waiting.await;
        }
    }

    /// Counts an open of an inode that nobody else can know yet.
    pub(crate) fn opened(&self, ino: Ino) {
        let mut files = self.files.lock();
        let e = files.entry(ino).or_default();
        e.opens += 1;
        e.outside = true;
    }

    /// Counts an open of a file that was made without a name.
    pub(crate) fn opened_nameless(&self, ino: Ino) {
        let mut files = self.files.lock();
        let e = files.entry(ino).or_default();
        e.opens += 1;
        (e.unlinked, e.linkable, e.outside) = (true, true, true);
    }

    /// Without a name when last looked at, and open: the last close removes it. `linkable`: it never had one.
    pub(crate) fn is_nameless(&self, ino: Ino, linkable: bool) {
        if let Some(e) = self.files.lock().get_mut(&ino) {
            (e.unlinked, e.linkable) = (true, linkable);
        }
    }

    /// It is open, and was not in the trash when that was looked at.
    pub(crate) fn opened_outside(&self, ino: Ino) {
        if let Some(e) = self.files.lock().get_mut(&ino) {
            e.outside = true;
        }
    }

    /// Is it open since before it went to the trash, if it lies there?
    pub(crate) fn is_open_from_outside(&self, ino: Ino) -> bool {
        self.files.lock().get(&ino).is_some_and(|e| e.opens > 0 && e.outside)
    }

    /// Was it made without a name and never given one?
    pub(crate) fn is_linkable(&self, ino: Ino) -> bool {
        self.files.lock().get(&ino).is_some_and(|e| e.linkable)
    }

    /// It has its first name. Its last close still looks whether it has one then.
    pub(crate) fn linked(&self, ino: Ino) {
        if let Some(e) = self.files.lock().get_mut(&ino) {
            e.linkable = false;
        }
    }

    /// Counts a close; true if it was the last one of an unlinked inode.
    pub(crate) fn close(&self, ino: Ino) -> bool {
        let mut files = self.files.lock();
        let Some(e) = files.get_mut(&ino) else { return false };
        e.opens = e.opens.saturating_sub(1);
        let last = e.opens == 0 && e.unlinked;
        if e.is_idle() {
            files.remove(&ino);
        }
        last
    }

    /// Is it open?
    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.files.lock().get(&ino).is_some_and(|e| e.opens > 0)
    }

    /// Begins to decide about a removal; until the result is dropped nobody opens the inode.
    pub(crate) fn removing(self: &Arc<Self>, ino: Ino) -> Removing {
        let mut files = self.files.lock();
        let e = files.entry(ino).or_default();
        e.removing += 1;
        Removing { open: Arc::clone(self), ino, is_open: e.opens > 0 }
    }
}

/// A removal being decided.
pub(crate) struct Removing {
    open: Arc<OpenFiles>,
    ino: Ino,
    /// Was the inode open when the decision began? It cannot become open before the decision falls.
    pub(crate) is_open: bool,
}

impl Removing {
    pub(crate) fn ino(&self) -> Ino {
        self.ino
    }

    /// The inode lost its last name and was kept because it is open. Returns true if it has been closed meanwhile: then the
    /// caller removes it.
    pub(crate) fn sustained(&self) -> bool {
        let mut files = self.open.files.lock();
        match files.get_mut(&self.ino) {
            Some(e) if e.opens > 0 => {
                e.unlinked = true;
                false
            }
            _ => true,
        }
    }
}

impl Drop for Removing {
    fn drop(&mut self) {
        let mut files = self.open.files.lock();
        if let Some(e) = files.get_mut(&self.ino) {
            e.removing -= 1;
            if e.is_idle() {
                files.remove(&self.ino);
            }
        }
        drop(files);
        self.open.changed.notify_waiters();
    }
}
