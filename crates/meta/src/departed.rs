//! Nodes that this client has removed, remembered for those who still hold them.
//!
//! A process may stand in a directory that was removed, or hold a descriptor of it; POSIX lets it see attributes with a link
//! count of 0. There is no record any more that could tell them.

use std::collections::{HashMap, VecDeque};

use ciderfs_format::{Attr, Ino, Time};
use parking_lot::Mutex;

use crate::error::{Errno, Result};
use crate::types::{Caller, SetAttr, SetTime};
use crate::volume::Meta;

/// Nodes remembered; whoever holds an older one gets `ENOENT`.
const REMEMBERED_MAX: usize = 1024;

/// The latest of them.
#[derive(Default)]
pub(crate) struct Departed(Mutex<(HashMap<Ino, Attr>, VecDeque<Ino>)>);

impl Departed {
    /// Remembers a node whose record is being removed. If the removal fails nothing is lost: the record is asked first.
    pub(crate) fn remember(&self, ino: Ino, a: &Attr, now: Time) {
        let (nodes, order) = &mut *self.0.lock();
        if nodes.insert(ino, Attr { nlink: 0, ctime: now, ..a.clone() }).is_none() {
            order.push_back(ino);
        }
        if order.len() > REMEMBERED_MAX
            && let Some(oldest) = order.pop_front()
        {
            nodes.remove(&oldest);
        }
    }
}

impl Meta {
    /// Last attributes of a node that this client has removed; for those who still hold it when its record is gone.
    pub fn departed(&self, ino: Ino) -> Option<Attr> {
        self.departed.0.lock().0.get(&ino).cloned()
    }

    /// Changes those attributes. `None` if the node is not remembered.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn set_departed(&self, c: &Caller, ino: Ino, set: &SetAttr) -> Option<Result<Attr>> {
        let mut nodes = self.departed.0.lock();
        let a = nodes.0.get_mut(&ino)?;
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
