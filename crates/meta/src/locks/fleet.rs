//! Circles of waiting locks through several clients.
//!
//! A client that has waited for another's lock for a while tells the waits of all its holders in a record of the volume, and
//! looks at what the others tell. The record has the form of locks on an inode that does not exist, so that whoever cleans up
//! after a dead session, the official client too, removes it with the session's locks.
//!
//! A circle must be seen several times, because a record may be older than the interruption of a wait. A commit that grants
//! a lock withdraws the record, so a client that is frozen behind it leaves no false one. The official client tells nothing:
//! circles through it are not found.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ciderfs_format::Ino;

use super::waits::{Wait, to_give_up};
use crate::error::Result;
use crate::store::{LockOwner, Read, StoreError, Value, Write};
use crate::txn::Txn;
use crate::volume::Meta;

/// The inode whose record locks are waits; the format gives this number to nobody.
pub(crate) const WAITS: Ino = Ino(0x7FFF_FFFE_0000_0001);
/// Owner of the record within its session.
const OWNER: u64 = 0;
/// Waits for other clients that are shorter are not told; and the time between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// So many looks in a row must find a circle.
const LOOKS: u32 = 3;

/// The time of a wait: microseconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// Withdraws what a session tells.
pub(super) fn withdraw(t: &mut Txn<'_>, sid: u64) {
    t.write(Write::PutPlock(WAITS, (sid, OWNER), None));
}

/// A wait that was found to be the youngest of a circle, and how often in a row.
type Suspect = ((LockOwner, u64), u32);

impl Meta {
    /// Looks for circles as long as somebody waits for another client's lock.
    pub(super) async fn watch_waits(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        let mut suspects: Vec<Suspect> = Vec::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            let Some(waits) = self.locks.waits_to_tell(now().saturating_sub(LOOK.as_micros() as u64)) else {
                suspects.clear();
                if let Err(e) = self.tell_waits(&[]).await {
                    tracing::debug!("the waits of this client's locks stay told for now: {e}");
                    continue;
                }
                if self.locks.end_watching() {
                    return;
                }
                continue;
            };
            match self.look_for_circles(&waits, &suspects).await {
                Ok(found) => suspects = found,
                Err(e) => tracing::debug!("no look for circles of waiting locks: {e}"),
            }
        }
    }

    async fn look_for_circles(&self, own: &[Wait], before: &[Suspect]) -> Result<Vec<Suspect>> {
        self.tell_waits(own).await?;
        let sid = self.sid();
        let Some(Value::Plocks(told)) = self.read(&[Read::Plocks(WAITS)]).await?.into_iter().next() else {
            return Err(StoreError::another_question().into());
        };
        let mut all = Vec::new();
        for ((sid, _), raw) in &told {
            all.extend(Wait::decode(*sid, raw)?);
        }
        let mut suspects = Vec::new();
        for wait in to_give_up(&all, sid) {
            let key = (wait.who, wait.since);
            let looks = before.iter().find(|(k, _)| *k == key).map_or(0, |(_, looks)| *looks) + 1;
            if looks < LOOKS || !self.locks.give_up(wait) {
                suspects.push((key, looks));
            }
        }
        Ok(suspects)
    }

    /// Tells these waits instead of what was told before.
    async fn tell_waits(&self, waits: &[Wait]) -> Result<()> {
        let raw = Wait::encode(waits);
        if !self.locks.begin_telling(&raw) {
            return Ok(());
        }
        let sid = self.sid();
        let told = self
            .run(|t| {
                if waits.is_empty() {
                    withdraw(t, sid);
                } else if t.session(sid) {
                    t.write(Write::PutPlock(WAITS, (sid, OWNER), Some(raw.clone().into())));
                }
                Ok(())
            })
            .await;
        if told.is_err() {
            self.locks.forget_telling();
        }
        told.map(|_| ())
    }
}
