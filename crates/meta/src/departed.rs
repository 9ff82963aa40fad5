//! Nodes that this client has removed, and directories that another one has removed while they were open here, remembered for
//! those who still hold them.
//!
//! A process may stand in a directory that was removed, or hold a descriptor of it; POSIX lets it see attributes with a link
//! count of 0. There is no record any more that could tell them.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use ciderfs_format::{Attr, Ino, Time};
use parking_lot::Mutex;

use crate::error::{Errno, Result};
use crate::store::Name;
use crate::types::{Caller, SetAttr, SetTime, XattrSet};
use crate::volume::Meta;

/// Nodes remembered; whoever holds an older one gets `ENOENT`.
const REMEMBERED_MAX: usize = 1024;

/// Bytes of extended attributes, with their names, that one of them may have.
const XATTRS_MAX: usize = 66 << 10;

/// What is left of a node.
struct Gone {
    attr: Attr,
    /// Extended attributes that it was given since.
    xattrs: BTreeMap<Name, Bytes>,
}

/// The latest of them.
#[derive(Default)]
pub(crate) struct Departed(Mutex<Nodes>);

/// By inode, and in the order in which they went.
type Nodes = (HashMap<Ino, Gone>, VecDeque<Ino>);

impl Departed {
    /// Remembers a node whose record is being removed. If the removal fails nothing is lost: the record is asked first.
    pub(crate) fn remember(&self, ino: Ino, a: &Attr, now: Time) {
        insert(&mut self.0.lock(), ino, a, now);
    }
}

fn insert((nodes, order): &mut Nodes, ino: Ino, a: &Attr, now: Time) {
    let attr = Attr { nlink: 0, ctime: now, ..a.clone() };
    if nodes.insert(ino, Gone { attr, xattrs: BTreeMap::new() }).is_none() {
        order.push_back(ino);
    }
    if order.len() > REMEMBERED_MAX
        && let Some(oldest) = order.pop_front()
    {
        nodes.remove(&oldest);
    }
}

impl Meta {
    /// Last attributes of a node that this client has removed, or of a directory that is open here and that another one has
    /// removed; for those who still hold it when its record is gone.
    pub fn departed(&self, ino: Ino) -> Option<Attr> {
        let ino = self.real(ino);
        let known = || self.departed.0.lock().0.get(&ino).map(|gone| gone.attr.clone());
        known().or_else(|| {
            self.depart(ino, &self.last_of_open_dir(ino)?);
            known()
        })
    }

    /// Attributes for somebody who may hold a node that is gone.
    ///
    /// # Errors
    /// `ENOENT`: gone, and nobody here is known to hold it.
    pub(crate) async fn getattr_of_held(&self, ino: Ino) -> Result<Attr> {
        match self.getattr(ino).await {
            Err(e) if e.errno() == Errno::ENOENT => self.departed(ino).ok_or(e),
            known => known,
        }
    }

    /// Remembers a file that somebody holds here and another client has removed.
    pub fn depart(&self, ino: Ino, last: &Attr) {
        let mut nodes = self.departed.0.lock();
        // What was changed since it went stays.
        if !nodes.0.contains_key(&ino) {
            insert(&mut nodes, ino, last, last.ctime);
        }
    }

    /// An extended attribute that a removed node was given since; see [`Meta::set_departed_xattr`].
    pub(crate) fn departed_xattr(&self, ino: Ino, name: &[u8]) -> Option<Bytes> {
        self.departed.0.lock().0.get(&ino)?.xattrs.get(name).cloned()
    }

    /// The names of all of those.
    pub(crate) fn departed_xattrs(&self, ino: Ino) -> Vec<Name> {
        self.departed.0.lock().0.get(&ino).map_or_else(Vec::new, |gone| gone.xattrs.keys().cloned().collect())
    }

    /// Gives a removed node an extended attribute, or takes it away. The caller's permission has been checked.
    ///
    /// # Errors
    /// `EEXIST` and `ENODATA` (`set`), `ENOENT` (not remembered), `ENOSPC` (more than a node may have here).
    pub(crate) fn set_departed_xattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: Option<Bytes>,
        set: XattrSet,
    ) -> Result<()> {
        let mut nodes = self.departed.0.lock();
        let gone = nodes.0.get_mut(&ino).ok_or(Errno::ENOENT)?;
        match gone.xattrs.contains_key(name) {
            true if set.create => return Err(Errno::EEXIST.into()),
            false if set.replace || value.is_none() => return Err(Errno::ENODATA.into()),
            _ => {}
        }
        let others = gone.xattrs.iter().filter(|(n, _)| n.as_slice() != name);
        let kept: usize = others.map(|(n, v)| n.len() + v.len()).sum();
        if value.as_ref().is_some_and(|v| kept + name.len() + v.len() > XATTRS_MAX) {
            return Err(Errno::ENOSPC.into());
        }
        match value {
            Some(value) => gone.xattrs.insert(name.to_vec(), value),
            None => gone.xattrs.remove(name),
        };
        gone.attr.ctime = self.clock.now();
        Ok(())
    }

    /// Changes those attributes. `None` if the node is not remembered.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn set_departed(&self, c: &Caller, ino: Ino, set: &SetAttr) -> Option<Result<Attr>> {
        self.departed(ino)?;
        let mut nodes = self.departed.0.lock();
        let a = &mut nodes.0.get_mut(&self.real(ino))?.attr;
        Some(set_unrecorded(c, a, set, self.clock.now()).map(|()| a.clone()))
    }
}

/// Changes attributes that are kept in memory only.
///
/// # Errors
/// `EPERM` to others than the owner.
pub fn set_unrecorded(c: &Caller, a: &mut Attr, set: &SetAttr, now: Time) -> Result<()> {
    if c.uid != 0 && c.uid != a.uid {
        return Err(Errno::EPERM.into());
    }
    let time = |set: Option<SetTime>, old| match set {
        None => old,
        Some(SetTime::Now) => now,
        Some(SetTime::At(at)) => at,
    };
    a.mode = set.mode.unwrap_or(a.mode);
    a.uid = set.uid.unwrap_or(a.uid);
    a.gid = set.gid.unwrap_or(a.gid);
    a.atime = time(set.atime, a.atime);
    a.mtime = time(set.mtime, a.mtime);
    a.flags = set.flags.unwrap_or(a.flags);
    a.ctime = now;
    Ok(())
}
