//! Circles of waiting locks through several clients.
//!
//! A client that has waited for another's lock for a while tells the waits of all its holders in a record of the volume, and
//! looks at what the others tell, again and again. The record has the form of locks on an inode that does not exist, so that
//! whoever cleans up after a dead session, the official client too, removes it with the session's locks.
//!
//! A circle must be found several times in a row, among clients whose records are written again meanwhile: what an
//! interrupted or frozen client has told is soon not believed any more. A commit that grants a lock takes the wait for it out
//! of the record. The official client tells nothing: circles through it are not found.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::{Ino, SessionId};

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
/// A client whose record has not been written again for so many looks is frozen, or waits no longer.
const STALE_AFTER: u32 = 2;

/// The time of a wait: microseconds since 1970, from a clock that is not set while the program runs. Among several clients it
/// decides only who gives up.
pub(super) fn now() -> u64 {
    ciderfs_rt::unset_clock().as_micros() as u64
}

/// Tells these waits instead of what the session has told before.
pub(super) fn tell(t: &mut Txn<'_>, sid: SessionId, look: u64, waits: &[Wait]) {
    t.write(Write::PutPlock(WAITS, (sid, OWNER), Wait::encode(look, waits)));
}

/// What one client remembers from look to look.
#[derive(Default)]
struct Watch {
    look: u64,
    /// The last look that each session has told, and how often in a row it was still the same.
    told: HashMap<SessionId, (u64, u32)>,
    /// Waits that were the youngest of a circle, and how often in a row.
    suspects: HashMap<(LockOwner, u64), u32>,
}

impl Watch {
    /// Waits of those clients that go on telling them.
    fn believed(&mut self, told: &[(LockOwner, bytes::Bytes)]) -> Result<Vec<Wait>> {
        let mut all = Vec::new();
        let mut now = HashMap::new();
        for ((sid, _), raw) in told {
            let (look, waits) = Wait::decode(*sid, raw)?;
            let same = match self.told.get(sid) {
                Some((last, same)) if *last == look => same + 1,
                _ => 0,
            };
            now.insert(*sid, (look, same));
            if same < STALE_AFTER {
                all.extend(waits);
            }
        }
        self.told = now;
        Ok(all)
    }

    /// The waits of session `sid` that have been the youngest of a circle for long enough.
    fn sure<'a>(&mut self, all: &'a [Wait], sid: SessionId) -> Vec<&'a Wait> {
        let found = to_give_up(all, sid);
        let looks = |w: &Wait| self.suspects.get(&(w.who, w.since)).map_or(1, |n| n + 1);
        self.suspects = found.iter().map(|w| ((w.who, w.since), looks(w))).collect();
        found
            .into_iter()
            .filter(|w| self.suspects.get(&(w.who, w.since)).is_some_and(|n| *n >= LOOKS))
            .collect()
    }
}

impl Meta {
    /// Looks for circles as long as somebody waits for another client's lock.
    pub(super) async fn watch_waits(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        let mut watch = Watch::default();
        loop {
            tokio::select! {
                biased;
                () = ciderfs_rt::sleep(LOOK) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            let waits = self.locks.waits_to_tell(now().saturating_sub(LOOK.as_micros() as u64));
            if let Err(e) = self.look_for_circles(&waits, &mut watch).await {
                tracing::debug!("no look for circles of waiting locks: {e}");
            } else if waits.is_empty() && self.locks.end_watching() {
                return;
            }
        }
    }

    async fn look_for_circles(&self, own: &[Wait], watch: &mut Watch) -> Result<()> {
        watch.look += 1;
        if !own.is_empty() || self.locks.tells() {
            self.tell_waits(watch.look, own).await?;
        }
        if own.is_empty() {
            watch.suspects.clear();
            return Ok(());
        }
        let Some(Value::Plocks(told)) = self.read(&[Read::Plocks(WAITS)]).await?.into_iter().next() else {
            return Err(StoreError::another_question().into());
        };
        let all = watch.believed(&told)?;
        for wait in watch.sure(&all, self.sid()) {
            self.locks.give_up(wait);
        }
        Ok(())
    }

    /// Takes back what a process before this one has told in the same session.
    pub(crate) async fn forget_waits(&self) -> Result<()> {
        let sid = self.sid();
        let Some(Value::Plocks(told)) = self.read(&[Read::Plocks(WAITS)]).await?.into_iter().next() else {
            return Err(StoreError::another_question().into());
        };
        if told.iter().any(|((teller, _), _)| *teller == sid) {
            self.tell_waits(0, &[]).await
        } else {
            Ok(())
        }
    }

    async fn tell_waits(&self, look: u64, waits: &[Wait]) -> Result<()> {
        let sid = self.sid();
        if !waits.is_empty() {
            // Before it is done: a commit that grants a lock meanwhile writes the record too.
            self.locks.note_telling(true);
        }
        self.run("Lock", |t| {
            if waits.is_empty() || t.session(sid) {
                tell(t, sid, look, waits);
            }
            Ok(())
        })
        .await?;
        if waits.is_empty() {
            self.locks.note_telling(false);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Two sessions that wait for each other; the second has the youngest wait.
    fn told(looks: [u64; 2]) -> Vec<(LockOwner, bytes::Bytes)> {
        let wait = |sid, other, since| Wait {
            who: (SessionId(sid), 5),
            pid: 1,
            since,
            on: vec![(SessionId(other), 5)],
        };
        let waits = [wait(1, 2, 10), wait(2, 1, 20)];
        let tell =
            |n: usize| ((SessionId((n + 1) as u64), OWNER), Wait::encode(looks[n], &waits[n..=n]).unwrap());
        vec![tell(0), tell(1)]
    }

    #[test]
    fn a_circle_must_be_found_several_times() {
        let mut watch = Watch::default();
        let mut sure = |looks| {
            let all = watch.believed(&told(looks)).unwrap();
            assert!(Watch::default().sure(&all, SessionId(1)).is_empty());
            watch.sure(&all, SessionId(2)).len()
        };
        // The other is a little slower.
        assert_eq!([sure([1, 1]), sure([1, 2]), sure([2, 3]), sure([3, 4])], [0, 0, 1, 1]);
    }

    #[test]
    fn what_a_frozen_client_has_told_is_not_believed() {
        let mut watch = Watch::default();
        for look in 1..10 {
            let all = watch.believed(&told([1, look])).unwrap();
            assert!(watch.sure(&all, SessionId(2)).is_empty(), "look {look}");
        }
    }
}
