//! Who holds a node that lies in the trash by now.
//!
//! A removed file or directory is to those who hold it what it is on any file system: without a name, and theirs to change. To
//! those who come to it through the trash it is kept as it was. The kernel does not tell which of them asks; what counts is
//! whether somebody here holds the node since before it went there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use ciderfs_format::{Attr, Ino};
use parking_lot::Mutex;

use crate::error::Result;
use crate::store::{Guard, Read, Value};
use crate::txn::Txn;
use crate::volume::Meta;

/// Nodes that are remembered without being open: a process may stand in a directory, or have a descriptor of which we know
/// nothing (`O_PATH`).
const REMEMBERED_MAX: usize = 4096;

/// What is held beside open files.
#[derive(Default)]
pub(crate) struct Holds(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Directories that are open, and were not opened in the trash.
    dirs: HashMap<Ino, OpenDir>,
    /// Moved to the trash by this client, and not reached through it since.
    left: Remembered,
    /// Reached through the trash, and by no name outside it since.
    reached: Remembered,
}

#[derive(Default)]
struct OpenDir {
    handles: u64,
    /// What was known when it was opened.
    attr: Option<Attr>,
}

/// The last [`REMEMBERED_MAX`] nodes of a kind.
#[derive(Default)]
struct Remembered {
    nodes: HashSet<Ino>,
    order: VecDeque<Ino>,
}

impl Remembered {
    fn add(&mut self, ino: Ino) {
        if !self.nodes.insert(ino) {
            return;
        }
        self.order.push_back(ino);
        if self.order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.nodes.remove(&oldest);
        }
    }

    fn remove(&mut self, nodes: impl Iterator<Item = Ino>) {
        if self.nodes.is_empty() {
            return;
        }
        let before = self.nodes.len();
        nodes.for_each(|ino| _ = self.nodes.remove(&ino));
        if self.nodes.len() < before {
            self.order.retain(|ino| self.nodes.contains(ino));
        }
    }
}

impl Holds {
    /// This client moves a node to the trash. If that fails nothing is lost: only nodes there are asked about.
    pub(crate) fn leaves(&self, ino: Ino) {
        let known = &mut *self.0.lock();
        known.left.add(ino);
        known.reached.remove(std::iter::once(ino));
    }

    /// Somebody has found nodes by their names in a directory.
    pub(crate) fn found(&self, dir: Ino, nodes: impl Iterator<Item = Ino> + Clone) {
        let known = &mut *self.0.lock();
        if dir.is_trash() {
            known.left.remove(nodes.clone());
            nodes.for_each(|ino| known.reached.add(ino));
        } else {
            known.reached.remove(nodes);
        }
    }
}

impl Meta {
    /// Does somebody here hold a node since before it went to the trash? Asked of nodes that lie there.
    pub fn is_held(&self, ino: Ino) -> bool {
        if self.open.is_open_from_outside(ino) {
            return true;
        }
        let known = self.holds.0.lock();
        known.dirs.contains_key(&ino) || known.left.nodes.contains(&ino)
    }

    /// Was a node reached through the trash, as far as is known? Tells the two ways to a file apart that has names on both
    /// sides.
    pub(crate) fn was_reached_through_trash(&self, ino: Ino) -> bool {
        self.holds.0.lock().reached.nodes.contains(&ino)
    }

    /// Somebody here has found a node outside the trash, to which another client has moved it since.
    pub fn met_outside(&self, ino: Ino) {
        let real = self.real(ino);
        self.holds.leaves(real);
        self.open.opened_outside(real);
    }

    /// Does a node lie in the trash, where it is kept as it is?
    pub(crate) fn is_kept(&self, ino: Ino, a: &Attr) -> bool {
        a.in_trash() && !self.is_held(ino)
    }

    /// [`Meta::is_kept`] in an operation, also of files with several names.
    pub(crate) fn keeps(&self, t: &mut Txn<'_>, ino: Ino, a: &Attr) -> bool {
        !self.is_held(ino) && is_only_in_trash(t, ino, a)
    }

    /// Are all names of a node in the trash? Asks for those of a file with several.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn is_in_trash_only(&self, ino: Ino, a: &Attr) -> Result<bool> {
        if !has_parents(a) {
            return Ok(a.in_trash());
        }
        let real = self.real(ino);
        let found = self.read(&[Read::Parents(real)]).await?;
        Ok(found.first().is_some_and(|dirs| !Guard::NamedOutside(real).holds(dirs)))
    }

    /// [`Meta::is_kept`] of a file whose parents were read, if it has several.
    pub(crate) fn is_kept_below(&self, ino: Ino, a: &Attr, parents: Option<&Value>) -> bool {
        let several = parents.filter(|_| has_parents(a));
        several.map_or(a.in_trash(), |dirs| !Guard::NamedOutside(ino).holds(dirs)) && !self.is_held(ino)
    }

    /// Last attributes of a directory that somebody has open here, if its record was found to be gone: another client has
    /// removed it.
    pub(crate) fn last_of_open_dir(&self, ino: Ino) -> Option<Attr> {
        if self.beliefs.attr(ino).is_some() {
            return None;
        }
        let known = self.holds.0.lock();
        let open = known.dirs.get(&ino)?;
        self.beliefs.last_of_gone(ino).or_else(|| open.attr.clone())
    }

    /// Counts a directory as open until the result is dropped; `None` if it is opened in the trash by who did not hold it
    /// before, which does not count.
    ///
    /// # Errors
    /// `ENOENT`, and those of the engine.
    pub async fn hold_dir(&self, ino: Ino) -> Result<Option<HeldDir>> {
        let real = self.real(ino);
        let attr = match self.beliefs.attr(real) {
            None if self.settings().trash_enabled() => Some(self.getattr_of_held(ino).await?),
            known => known,
        };
        if real.is_trash() || attr.as_ref().is_some_and(|a| self.is_kept(real, a)) {
            return Ok(None);
        }
        let known = &mut *self.holds.0.lock();
        let open = known.dirs.entry(real).or_default();
        open.handles += 1;
        open.attr = attr.or(open.attr.take());
        Ok(Some(HeldDir { holds: Arc::clone(&self.holds), ino: real }))
    }
}

/// A file that has, or had, several names has no parent in its record, but a list of them.
pub(crate) fn has_parents(a: &Attr) -> bool {
    a.parent.0 == 0 && a.nlink > 0 && !a.is_dir()
}

/// Are all names of a node in the trash? Of a file with several the commit may have to find it out.
pub(crate) fn is_only_in_trash(t: &mut Txn<'_>, ino: Ino, a: &Attr) -> bool {
    if has_parents(a) { t.is_named_in_trash_only(ino) } else { a.in_trash() }
}

/// A directory that somebody has open.
pub struct HeldDir {
    holds: Arc<Holds>,
    ino: Ino,
}

impl Drop for HeldDir {
    fn drop(&mut self) {
        let known = &mut *self.holds.0.lock();
        if let Some(open) = known.dirs.get_mut(&self.ino) {
            open.handles -= 1;
            if open.handles == 0 {
                known.dirs.remove(&self.ino);
            }
        }
    }
}
