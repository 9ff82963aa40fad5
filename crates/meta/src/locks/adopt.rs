//! Locks that a process before this one has taken in the same session.

use std::collections::BTreeSet;
use std::sync::Arc;

use ciderfs_format::Ino;
use ciderfs_format::lock::LockRecord;

use crate::error::Result;
use crate::ops::locks::{Ask, Held};
use crate::store::{LockKind, Read, StoreError, Value};
use crate::volume::Meta;

use super::LockCaller;

/// A holder of locks on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// Of which kind.
    pub kind: LockKind,
    /// The kernel's lock owner.
    pub owner: u64,
}

impl Meta {
    /// Goes on with the locks that this session has on a file, after [`Meta::take_over_session`]. Those of `holders` stay; of
    /// anybody else, who is gone, they are given back. With `was_lost`, the session was declared dead: what of `holders` is not
    /// there any more counts as lost, and writing to the file through what is open now is refused.
    ///
    /// # Errors
    /// `EIO` if the engine stays away.
    pub async fn adopt_locks(self: &Arc<Self>, ino: Ino, holders: &[Holder], was_lost: bool) -> Result<()> {
        let (ino, sid) = (self.real(ino), self.sid());
        let values = self.read(&[Read::Flocks(ino), Read::Plocks(ino)]).await?;
        let [Value::Flocks(flocks), Value::Plocks(records)] = &values[..] else {
            return Err(StoreError::another_question().into());
        };
        let mut held = Held::default();
        held.flocks.extend(flocks.iter().filter(|((s, _), _)| *s == sid).map(|((_, o), w)| (*o, *w)));
        for ((_, owner), raw) in records.iter().filter(|((s, _), _)| *s == sid) {
            held.records.insert(*owner, LockRecord::decode_list(raw)?);
        }
        let there: BTreeSet<Holder> = held.holders().map(|(kind, owner)| Holder { kind, owner }).collect();
        let lost: Vec<_> = holders.iter().filter(|h| was_lost && !there.contains(h)).collect();
        let lost: Vec<_> = lost.into_iter().map(|h| (h.kind, h.owner)).collect();
        self.locks.adopt(ino, held, &lost);
        for Holder { kind, owner } in there.into_iter().filter(|h| !holders.contains(h)) {
            let by = LockCaller { owner, pid: 0 };
            self.request_lock(ino, by, Ask::Drop(kind), false).answer().await?;
        }
        Ok(())
    }
}
