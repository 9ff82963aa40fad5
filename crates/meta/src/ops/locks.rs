//! Advisory locks of a file: what a batch of requests of this client changes (`docs/format/sessions-and-locks.md#lock-owners`).
//!
//! Requests are granted on what is believed of the file's locks, guarded; the session must be registered, so that a client
//! that was declared dead gets none. Giving back needs no look at others: nobody else writes this client's records.

use std::collections::BTreeMap;

use ciderfs_format::lock::{self, F_UNLCK, LockRecord, flock_allowed};
use ciderfs_format::{Attr, Ino};

use crate::error::{Error, Result};
use crate::proof::Proof;
use crate::store::{AttrMask, LockKind, LockOwner, Read, StoreError, Value, Write};
use crate::txn::{Step, Txn};
use crate::volume::Meta;

/// The locks that this client holds on a file, by the kernel's lock owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) flocks: BTreeMap<u64, bool>,
    pub(crate) records: BTreeMap<u64, Vec<LockRecord>>,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.flocks.is_empty() && self.records.is_empty()
    }

    pub(crate) fn has(&self, kind: LockKind, owner: u64) -> bool {
        match kind {
            LockKind::Flock => self.flocks.contains_key(&owner),
            LockKind::Record => self.records.contains_key(&owner),
        }
    }

    pub(crate) fn holders(&self) -> impl Iterator<Item = (LockKind, u64)> {
        let flocks = self.flocks.keys().map(|o| (LockKind::Flock, *o));
        flocks.chain(self.records.keys().map(|o| (LockKind::Record, *o)))
    }

    pub(crate) fn drop(&mut self, kind: LockKind, owner: u64) {
        match kind {
            LockKind::Flock => _ = self.flocks.remove(&owner),
            LockKind::Record => _ = self.records.remove(&owner),
        }
    }

    fn records_of(&self, owner: u64) -> Vec<LockRecord> {
        self.records.get(&owner).cloned().unwrap_or_default()
    }

    /// What a holder has before a request of its changes it, as far as the request reaches.
    pub(crate) fn before(&self, owner: u64, ask: &Ask) -> Option<Ask> {
        match ask {
            Ask::Flock(Some(_)) => Some(Ask::Flock(self.flocks.get(&owner).copied())),
            Ask::Range(r) if r.kind != F_UNLCK => {
                let inside = |l: &LockRecord| {
                    let (start, end) = (l.start.max(r.start), l.end.min(r.end));
                    (start <= end).then_some(LockRecord { start, end, ..*l })
                };
                Some(Ask::Restore(*r, self.records_of(owner).iter().filter_map(inside).collect()))
            }
            _ => None,
        }
    }
}

/// What a holder asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A flock, exclusive if true; `None` gives it back.
    Flock(Option<bool>),
    /// A range; with `F_UNLCK` it is given back.
    Range(LockRecord),
    /// In the range these records, as before, unless others have locked what they cover.
    Restore(LockRecord, Vec<LockRecord>),
    /// All locks of a kind are given back.
    Drop(LockKind),
    /// Nothing: only looks whether what is held is still there.
    Verify,
}

impl Ask {
    /// May it have to wait for others?
    pub(crate) fn acquires(&self) -> bool {
        match self {
            Self::Flock(want) => want.is_some(),
            Self::Range(r) => r.kind != F_UNLCK,
            _ => false,
        }
    }

    pub(crate) fn kind(&self) -> LockKind {
        match self {
            Self::Flock(_) | Self::Drop(LockKind::Flock) => LockKind::Flock,
            _ => LockKind::Record,
        }
    }

    /// May the holder have no lock afterwards although it had one?
    pub(crate) fn may_end(&self) -> bool {
        !matches!(self, Self::Verify) && !matches!(self, Self::Range(r) if r.kind != F_UNLCK)
    }
}

/// A request of a holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) owner: u64,
    pub(crate) ask: Ask,
    /// Lets others go first that asked earlier and wait. Only for who holds nothing: nobody can be waiting for it.
    pub(crate) polite: bool,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// These hold what stands in the way; empty if an earlier waiter goes first.
    Blocked(Vec<LockOwner>),
}

/// What becomes of a batch of requests, in their order.
#[derive(Debug, Default)]
pub(crate) struct Decided {
    pub(crate) verdicts: Vec<Verdict>,
    /// What the holders of the batch have afterwards.
    pub(crate) flocks: Vec<(u64, Option<bool>)>,
    pub(crate) records: Vec<(u64, Vec<LockRecord>)>,
    /// The output with the file's attributes.
    pub(crate) attr_at: Option<usize>,
    /// Holders whose locks are gone. Nothing else is decided then.
    pub(crate) lost: Vec<(LockKind, u64)>,
    /// The session is not registered. Nothing else is decided then.
    pub(crate) no_session: bool,
}

impl Decided {
    /// Who has got a lock that it asked for, if anything is decided.
    pub(crate) fn acquired(&self, requests: &[Request]) -> Vec<u64> {
        if self.no_session || !self.lost.is_empty() {
            return Vec::new();
        }
        let granted = requests.iter().zip(&self.verdicts).filter(|(_, v)| **v == Verdict::Done);
        granted.filter(|(r, _)| r.ask.acquires()).map(|(r, _)| r.owner).collect()
    }
}

/// The locks of a file while a batch is decided.
struct Desk {
    sid: u64,
    flocks: Vec<(LockOwner, bool)>,
    records: Vec<(LockOwner, Vec<LockRecord>)>,
    /// Ranges that earlier requests of the batch wait for.
    awaited: Vec<(u64, LockRecord)>,
}

impl Desk {
    fn own_flock(&self, owner: u64) -> Option<bool> {
        self.flocks.iter().find(|(o, _)| *o == (self.sid, owner)).map(|(_, w)| *w)
    }

    fn own_records(&self, owner: u64) -> &[LockRecord] {
        self.records.iter().find(|(o, _)| *o == (self.sid, owner)).map_or(&[], |(_, l)| l)
    }

    fn set_flock(&mut self, owner: u64, lock: Option<bool>) {
        let me = (self.sid, owner);
        self.flocks.retain(|(o, _)| *o != me);
        self.flocks.extend(lock.map(|w| (me, w)));
    }

    fn set_records(&mut self, owner: u64, list: Vec<LockRecord>) {
        let me = (self.sid, owner);
        self.records.retain(|(o, _)| *o != me);
        if !list.is_empty() {
            self.records.push((me, list));
        }
    }

    fn in_the_way(&self, owner: u64, want: &LockRecord) -> Vec<LockOwner> {
        let others = self.records.iter().filter(|(o, _)| *o != (self.sid, owner));
        others.filter(|(_, l)| lock::find_conflict(l, want).is_some()).map(|(o, _)| *o).collect()
    }

    fn answer(&mut self, r: &Request) -> Verdict {
        match &r.ask {
            Ask::Flock(want) => return self.flock(r.owner, *want),
            Ask::Range(range) => {
                let blockers = self.in_the_way(r.owner, range);
                let behind = |(o, w): &(u64, LockRecord)| *o != r.owner && w.conflicts(range);
                if !blockers.is_empty() || (r.polite && self.awaited.iter().any(behind)) {
                    self.awaited.push((r.owner, *range));
                    return Verdict::Blocked(blockers);
                }
                self.set_records(r.owner, lock::update(self.own_records(r.owner), *range));
            }
            Ask::Restore(range, before) => {
                if before.iter().all(|l| self.in_the_way(r.owner, l).is_empty()) {
                    let unlock = LockRecord { kind: F_UNLCK, ..*range };
                    let list = lock::update(self.own_records(r.owner), unlock);
                    let list = before.iter().fold(list, |list, l| lock::update(&list, *l));
                    self.set_records(r.owner, list);
                }
            }
            Ask::Drop(LockKind::Flock) => self.set_flock(r.owner, None),
            Ask::Drop(LockKind::Record) => self.set_records(r.owner, Vec::new()),
            Ask::Verify => {}
        }
        Verdict::Done
    }

    fn flock(&mut self, owner: u64, want: Option<bool>) -> Verdict {
        let letter = |w: bool| if w { lock::FLOCK_EXCLUSIVE } else { lock::FLOCK_SHARED };
        if let Some(write) = want {
            let others = || self.flocks.iter().filter(|(o, _)| *o != (self.sid, owner));
            let blockers: Vec<LockOwner> = others()
                .filter(|(_, w)| !flock_allowed(letter(write), [letter(*w)]))
                .map(|(o, _)| *o)
                .collect();
            if !blockers.is_empty() {
                // As Linux does: a conversion gives up the old lock before it looks for the new one.
                self.set_flock(owner, None);
                return Verdict::Blocked(blockers);
            }
        }
        self.set_flock(owner, want);
        Verdict::Done
    }
}

/// Decides about a batch of requests and buffers what it changes. `held` is what this client holds by its own account.
pub(crate) fn decide(
    t: &mut Txn<'_>,
    sid: u64,
    ino: Ino,
    requests: &[Request],
    held: &Held,
) -> Step<Decided> {
    let mut out = Decided::default();
    let acquires = requests.iter().any(|r| r.ask.acquires());
    let verifies = requests.iter().any(|r| r.ask == Ask::Verify);
    let of = |kind| requests.iter().any(|r| r.ask != Ask::Verify && r.ask.kind() == kind);
    if verifies {
        t.want([Read::Flocks(ino), Read::Plocks(ino)])?;
    }
    if acquires {
        t.want([Read::Attr(ino)])?;
        t.attr(ino, AttrMask::EXISTS)?;
    }
    // A batch that only gives back rests on this client's own account.
    let look = acquires || requests.iter().any(|r| matches!(r.ask, Ask::Restore(..)));
    let mut desk = Desk {
        sid,
        flocks: held.flocks.iter().map(|(o, w)| ((sid, *o), *w)).collect(),
        records: held.records.iter().map(|(o, l)| ((sid, *o), l.clone())).collect(),
        awaited: Vec::new(),
    };
    if verifies || (look && of(LockKind::Flock)) {
        let (flocks, fetched) = t.flocks(ino);
        let mine = |o: u64| flocks.iter().any(|(h, _)| *h == (sid, o));
        out.lost.extend(held.flocks.keys().filter(|o| fetched && !mine(**o)).map(|o| (LockKind::Flock, *o)));
        desk.flocks = flocks;
    }
    if verifies || (look && of(LockKind::Record)) {
        let (records, fetched) = t.plocks(ino);
        let mine = |o: u64| records.iter().any(|(h, _)| *h == (sid, o));
        out.lost
            .extend(held.records.keys().filter(|o| fetched && !mine(**o)).map(|o| (LockKind::Record, *o)));
        let decoded = records.iter().map(|(o, raw)| Ok((*o, LockRecord::decode_list(raw)?)));
        desk.records = decoded.collect::<Result<_>>()?;
    }
    if !out.lost.is_empty() {
        return Ok(out);
    }
    let before = (desk.flocks.clone(), desk.records.clone());
    out.verdicts = requests.iter().map(|r| desk.answer(r)).collect();
    let granted = requests.iter().zip(&out.verdicts).any(|(r, v)| r.ask.acquires() && *v == Verdict::Done);
    if granted && !t.session(sid) {
        out.no_session = true;
        t.commit.writes.clear();
        return Ok(out);
    }
    let mut proof = (Vec::new(), Vec::new());
    let mut owners: Vec<u64> = requests.iter().map(|r| r.owner).collect();
    owners.sort_unstable();
    owners.dedup();
    for owner in owners {
        let me = (sid, owner);
        let lock = desk.own_flock(owner);
        let dropped = |kind| requests.iter().any(|r| r.owner == owner && r.ask == Ask::Drop(kind));
        let old = before.0.iter().find(|(o, _)| *o == me).map(|(_, w)| *w);
        if lock != old || dropped(LockKind::Flock) {
            t.write(Write::PutFlock(ino, me, lock));
            proof.0.push((me, lock));
        }
        out.flocks.push((owner, lock));
        let list = desk.own_records(owner).to_vec();
        let old = before.1.iter().find(|(o, _)| *o == me).map(|(_, l)| l.as_slice()).unwrap_or_default();
        if list != old || dropped(LockKind::Record) {
            // What stays of a lock must still be there.
            if !look && !list.is_empty() && !t.holds(ino, LockKind::Record, me) {
                out.lost.push((LockKind::Record, owner));
            }
            let raw = Some(LockRecord::encode_list(&list).into()).filter(|_| !list.is_empty());
            t.write(Write::PutPlock(ino, me, raw.clone()));
            proof.1.push((me, raw));
        }
        out.records.push((owner, list));
    }
    if !out.lost.is_empty() {
        t.commit.writes.clear();
        return Ok(out);
    }
    if granted {
        out.attr_at = Some(t.write(Write::TellAttr(ino)));
    }
    t.proof(Proof::Locks(ino, proof.0, proof.1));
    Ok(out)
}

impl Meta {
    /// The first lock that keeps `owner` from locking this range, with the process that holds it if that is a process of
    /// this mount (else 0).
    ///
    /// # Errors
    /// `EIO` if the engine stays away.
    pub async fn find_lock(&self, ino: Ino, owner: u64, want: LockRecord) -> Result<Option<LockRecord>> {
        let ino = self.real(ino);
        let Some(Value::Plocks(held)) = self.read(&[Read::Plocks(ino)]).await?.into_iter().next() else {
            return Err(StoreError::another_question().into());
        };
        let sid = self.sid();
        let mut found: Option<LockRecord> = None;
        for (o, raw) in held.iter().filter(|(o, _)| *o != (sid, owner)) {
            let list = LockRecord::decode_list(raw)?;
            for l in list.iter().filter(|l| l.conflicts(&want)) {
                if found.is_none_or(|f| l.start < f.start) {
                    found = Some(LockRecord { pid: if o.0 == sid { l.pid } else { 0 }, ..*l });
                }
            }
        }
        Ok(found)
    }

    /// Ties a change of a file's data to the locks that this client holds on it: it happens only while they are still there.
    /// `seen` is the count of lost locks ([`Meta::lock_loss`]) when the change was asked for.
    pub(crate) fn fence(&self, t: &mut Txn<'_>, ino: Ino, seen: u64) -> Step<()> {
        let sid = self.sid();
        for (kind, owner) in self.locks.fence(ino, seen)? {
            if !t.holds(ino, kind, (sid, owner)) {
                return Err(Error::LockLost.into());
            }
        }
        Ok(())
    }
}

/// What a lock brought.
#[derive(Debug)]
pub(crate) struct Granted {
    /// The file's attributes at that moment.
    pub(crate) attr: Option<Attr>,
    /// Takes it back.
    pub(crate) undo: Option<Ask>,
}
