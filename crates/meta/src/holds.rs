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
use crate::volume::Meta;

/// Nodes removed here that are remembered without being open: a process may stand in a directory, or have a descriptor of
/// which we know nothing (`O_PATH`).
const REMEMBERED_MAX: usize = 4096;

/// What is held beside open files.
#[derive(Default)]
pub(crate) struct Holds(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Handles of directories that were opened outside the trash.
    dirs: HashMap<Ino, u64>,
    /// Moved to the trash by this client, and not reached through it since.
    left: HashSet<Ino>,
    order: VecDeque<Ino>,
}

impl Holds {
    /// This client moves a node to the trash. If that fails nothing is lost: only nodes there are asked about.
    pub(crate) fn leaves(&self, ino: Ino) {
        let known = &mut *self.0.lock();
        if !known.left.insert(ino) {
            return;
        }
        known.order.push_back(ino);
        if known.order.len() > REMEMBERED_MAX
            && let Some(oldest) = known.order.pop_front()
        {
            known.left.remove(&oldest);
        }
    }

    /// Somebody has found nodes in the trash.
    pub(crate) fn found(&self, nodes: impl Iterator<Item = Ino>) {
        let known = &mut *self.0.lock();
        let mut any = false;
        for ino in nodes {
            any |= known.left.remove(&ino);
        }
        if any {
            let left = &known.left;
            known.order.retain(|ino| left.contains(ino));
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
        known.dirs.contains_key(&ino) || known.left.contains(&ino)
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

    /// Counts a directory as open until the result is dropped; `None` if it is opened in the trash, which does not count.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn hold_dir(&self, ino: Ino) -> Result<Option<HeldDir>> {
        let real = self.real(ino);
        let attr = match self.beliefs.attr(real) {
            None if self.settings().trash_enabled() => Some(self.getattr(ino).await?),
            known => known,
        };
        if real.is_trash() || attr.is_some_and(|a| a.in_trash()) {
            return Ok(None);
        }
        *self.holds.0.lock().dirs.entry(real).or_default() += 1;
        Ok(Some(HeldDir { holds: Arc::clone(&self.holds), ino: real }))
    }
}

/// A directory that somebody has open.
pub struct HeldDir {
    holds: Arc<Holds>,
    ino: Ino,
}

impl Drop for HeldDir {
    fn drop(&mut self) {
        let known = &mut *self.holds.0.lock();
        if let Some(handles) = known.dirs.get_mut(&self.ino) {
            *handles -= 1;
            if *handles == 0 {
                known.dirs.remove(&self.ino);
            }
        }
    }
}
