//! This client's own account of its locks: who holds what, who waits, and what was lost.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ciderfs_format::{Attr, Ino};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::fleet::now;
use super::waits::{Wait, Waits};
use crate::error::{Errno, Error, Result};
use crate::ops::locks::{Ask, Decided, Granted, Held, Request, Verdict};
use crate::store::LockKind;

/// Own locks of a file that a change of its data is tied to; more would only repeat the question.
const FENCES_MAX: usize = 64;

/// Where a request's answer goes.
pub(super) type Answer = oneshot::Sender<Result<Granted>>;

/// A request of a holder: the kernel's lock owner, and the process that asks.
pub(super) struct Asking {
    pub(super) owner: u64,
    pub(super) pid: u32,
    pub(super) ask: Ask,
    /// For as long as others are in the way.
    pub(super) wait: bool,
}

/// A request on its way.
struct Ticket {
    id: u64,
    by: Asking,
    answer: Option<Answer>,
    /// Waits for a lock of another client, whose end nobody tells.
    foreign: bool,
    /// What has become of its caller while a commit was under way.
    caller: Caller,
}

/// Who waits for a request that is being decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// Somebody.
    Waits,
    /// Somebody who would rather not: it gets what this commit brings.
    Interrupted,
    /// Nobody: what it brings is undone.
    Gone,
}

impl Ticket {
    fn respond(&mut self, result: Result<Granted>) {
        if let Some(answer) = self.answer.take() {
            // Who has gone meanwhile sees to it.
            let _ = answer.send(result);
        }
    }

    /// The session ends: there is nothing to take and nothing to give back.
    fn end(&mut self) {
        let nothing = Granted { attr: None, undo: None };
        self.respond(if self.by.ask.acquires() { Err(Errno::ENOLCK.into()) } else { Ok(nothing) });
    }

    fn holder(&self) -> (LockKind, u64) {
        (self.by.ask.kind(), self.by.owner)
    }
}

/// What is known of a file.
#[derive(Default)]
struct Entry {
    held: Held,
    /// Holders whose locks were revoked and that have not closed the file since.
    lost: BTreeSet<(LockKind, u64)>,
    /// The number of the last loss on this file; 0 without any.
    loss: u64,
    queue: VecDeque<Ticket>,
    waiting: Vec<Ticket>,
    /// Requests in the commit under way.
    deciding: HashMap<u64, (LockKind, u64)>,
    /// Holders whose lock may end in it.
    ending: HashSet<(LockKind, u64)>,
    /// Requests in it whose callers do not simply wait any more.
    callers: HashMap<u64, Caller>,
    running: bool,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    files: HashMap<Ino, Entry>,
    /// Number of files on which an owner holds record locks.
    holdings: HashMap<u64, usize>,
    waits: Waits,
    /// Somebody looks for circles through other clients.
    watched: bool,
    told: Told,
    tickets: u64,
    losses: u64,
    /// The session ends, and with it every lock.
    closed: bool,
}

/// The waits that this session's record in the volume tells.
#[derive(Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    These(Vec<u8>),
    /// A commit has withdrawn them, or its reply was lost.
    Unknown,
}

/// See the module.
#[derive(Default)]
pub(crate) struct LockTable {
    state: Mutex<State>,
    /// Entries; 0 spares most writes a look into the table.
    files: AtomicUsize,
}

/// Requests to decide together.
pub(super) struct Batch {
    tickets: Vec<Ticket>,
    pub(super) requests: Vec<Request>,
    pub(super) held: Held,
}

/// What a driver does next.
pub(super) enum Next {
    Decide(Batch),
    /// Nothing until it is woken. `foreign`: somebody waits for a lock of another client.
    Sleep {
        wake: Arc<Notify>,
        foreign: bool,
    },
    End,
}

/// What a batch has led to.
pub(super) enum After {
    /// Nothing has changed.
    Nothing,
    /// Something was granted, given back or lost.
    Progress,
    /// The session has to be registered again first.
    Register,
    /// The engine did not answer.
    Failed,
}

impl LockTable {
    /// Queues a request; its number, and true if a driver has to be started.
    pub(super) fn submit(&self, ino: Ino, by: Asking, answer: Option<Answer>) -> (u64, bool) {
        let mut s = self.state.lock();
        s.tickets += 1;
        let id = s.tickets;
        let mut ticket = Ticket { id, by, answer, foreign: false, caller: Caller::Waits };
        if s.closed {
            ticket.end();
            return (id, false);
        }
        let e = s.files.entry(ino).or_default();
        e.queue.push_back(ticket);
        e.wake.notify_one();
        let start = !std::mem::replace(&mut e.running, true);
        self.files.store(s.files.len(), Ordering::Release);
        (id, start)
    }

    /// The session ends. Requests that are not being decided end now.
    pub(crate) fn close(&self) {
        let mut s = self.state.lock();
        s.closed = true;
        for e in s.files.values_mut() {
            e.queue.drain(..).chain(e.waiting.drain(..)).for_each(|mut t| t.end());
            e.wake.notify_one();
        }
    }

    /// Is a commit under way?
    pub(crate) fn is_deciding(&self) -> bool {
        self.state.lock().files.values().any(|e| !e.deciding.is_empty())
    }

    /// Nobody waits for a request any more: it is withdrawn, or what it brings will be undone. False if it has been answered.
    pub(super) fn forget(&self, ino: Ino, id: u64) -> bool {
        let mut s = self.state.lock();
        let s = &mut *s;
        let Some(e) = s.files.get_mut(&ino) else { return false };
        if e.deciding.contains_key(&id) {
            e.callers.insert(id, Caller::Gone);
            return true;
        }
        let before = e.queue.len() + e.waiting.len();
        e.queue.retain(|t| t.id != id);
        e.waiting.retain(|t| t.id != id);
        s.waits.end(id);
        // Somebody may have waited only to let this one go first.
        e.wake.notify_one();
        before > e.queue.len() + e.waiting.len()
    }

    /// The caller of a request was interrupted: it waits no longer. False if a commit decides about it right now, which is told
    /// as it falls.
    pub(super) fn interrupt(&self, ino: Ino, id: u64) -> bool {
        let mut s = self.state.lock();
        let s = &mut *s;
        let Some(e) = s.files.get_mut(&ino) else { return false };
        if e.deciding.contains_key(&id) {
            e.callers.insert(id, Caller::Interrupted);
            return false;
        }
        let waiting = e.queue.iter().chain(&e.waiting).any(|t| t.id == id);
        e.queue.retain(|t| t.id != id);
        e.waiting.retain(|t| t.id != id);
        s.waits.end(id);
        e.wake.notify_one();
        waiting
    }

    /// Has somebody begun to wait for another client's lock while nobody looks for circles? From now on the caller does.
    pub(super) fn begin_watching(&self) -> bool {
        let mut s = self.state.lock();
        let begin = !s.watched && !s.closed && s.waits.has_foreign(u64::MAX);
        s.watched |= begin;
        begin
    }

    /// Nobody waits for other clients any more, so looking for circles ends. False if somebody does.
    pub(super) fn end_watching(&self) -> bool {
        let mut s = self.state.lock();
        s.watched = s.waits.has_foreign(u64::MAX);
        !s.watched
    }

    /// All waits, if one of them has waited for another client's lock since before `since`.
    pub(super) fn waits_to_tell(&self, since: u64) -> Option<Vec<Wait>> {
        let s = self.state.lock();
        (!s.closed && s.waits.has_foreign(since)).then(|| s.waits.all())
    }

    /// Does the record of this session tell any waits?
    pub(super) fn tells(&self) -> bool {
        self.state.lock().told != Told::Nothing
    }

    /// Notes what the record is about to tell; false if it does already.
    pub(super) fn begin_telling(&self, waits: &[u8]) -> bool {
        let new = if waits.is_empty() { Told::Nothing } else { Told::These(waits.to_vec()) };
        let mut s = self.state.lock();
        let other = s.told != new;
        s.told = new;
        other
    }

    /// It is not known what the record tells.
    pub(super) fn forget_telling(&self) {
        self.state.lock().told = Told::Unknown;
    }

    /// Ends a wait that would never end. False if it is not there any more, or is being decided.
    pub(super) fn give_up(&self, wait: &Wait) -> bool {
        let mut s = self.state.lock();
        let State { files, waits, .. } = &mut *s;
        let tickets = waits.tickets(wait);
        let mut found = false;
        for e in files.values_mut() {
            for mut t in e.waiting.extract_if(.., |t| tickets.contains(&t.id)) {
                waits.end(t.id);
                t.respond(Err(Errno::EDEADLK.into()));
                found = true;
            }
            if found {
                // Somebody may have waited only to let this one go first.
                e.wake.notify_one();
            }
        }
        found
    }

    /// The number of the last loss on a file: it has grown whenever locks on it were lost.
    pub(crate) fn loss(&self, ino: Ino) -> u64 {
        if self.is_empty() { 0 } else { self.state.lock().files.get(&ino).map_or(0, |e| e.loss) }
    }

    fn is_empty(&self) -> bool {
        self.files.load(Ordering::Acquire) == 0
    }

    /// The last handle of a file is closed: nobody is left who relied on lost locks.
    pub(crate) fn forgive(&self, ino: Ino) {
        if self.is_empty() {
            return;
        }
        let mut s = self.state.lock();
        if let Some(e) = s.files.get_mut(&ino) {
            e.loss = 0;
            e.lost.clear();
        }
        self.tidy(&mut s, ino);
    }

    /// Does this holder have, wait for, or has it lost a lock?
    pub(crate) fn concerns(&self, ino: Ino, kind: LockKind, owner: u64) -> bool {
        let who = (kind, owner);
        !self.is_empty()
            && self.state.lock().files.get(&ino).is_some_and(|e| {
                e.held.has(kind, owner)
                    || e.lost.contains(&who)
                    || e.deciding.values().any(|h| *h == who)
                    || e.queue.iter().chain(&e.waiting).any(|t| t.holder() == who)
            })
    }

    /// The files on which something is held.
    pub(super) fn held_files(&self) -> Vec<Ino> {
        let s = self.state.lock();
        s.files.iter().filter(|(_, e)| !e.held.is_empty()).map(|(ino, _)| *ino).collect()
    }

    /// Does this holder wait?
    #[cfg(feature = "suite")]
    pub(crate) fn waits(&self, ino: Ino, owner: u64) -> bool {
        self.state.lock().files.get(&ino).is_some_and(|e| e.waiting.iter().any(|t| t.by.owner == owner))
    }

    /// The ranges that this holder has by this client's account.
    #[cfg(feature = "suite")]
    pub(crate) fn records_of(&self, ino: Ino, owner: u64) -> Vec<ciderfs_format::lock::LockRecord> {
        let s = self.state.lock();
        s.files.get(&ino).and_then(|e| e.held.records.get(&owner).cloned()).unwrap_or_default()
    }

    /// Is anything held on the file?
    pub(crate) fn holds_any(&self, ino: Ino) -> bool {
        !self.is_empty() && self.state.lock().files.get(&ino).is_some_and(|e| !e.held.is_empty())
    }

    /// The locks that a change of the file's data depends on.
    ///
    /// # Errors
    /// Some were lost after the loss number `seen`.
    pub(crate) fn fence(&self, ino: Ino, seen: u64) -> Result<Vec<(LockKind, u64)>> {
        if self.is_empty() {
            return Ok(Vec::new());
        }
        let s = self.state.lock();
        let Some(e) = s.files.get(&ino) else { return Ok(Vec::new()) };
        if e.loss > seen {
            return Err(Error::LockLost);
        }
        Ok(e.held.holders().filter(|h| !e.ending.contains(h)).take(FENCES_MAX).collect())
    }

    /// The next step of a file's driver. `retry` asks again for those who wait.
    pub(super) fn next(&self, ino: Ino, retry: bool) -> Next {
        let mut s = self.state.lock();
        let State { files, holdings, waits, closed, .. } = &mut *s;
        let Some(e) = files.get_mut(&ino) else { return Next::End };
        if *closed {
            e.queue.drain(..).chain(e.waiting.drain(..)).for_each(|mut t| t.end());
        }
        if e.queue.is_empty() && e.waiting.is_empty() {
            e.running = false;
            self.tidy(&mut s, ino);
            return Next::End;
        }
        if e.queue.is_empty() && !retry {
            let foreign = e.waiting.iter().any(|t| t.foreign);
            return Next::Sleep { wake: Arc::clone(&e.wake), foreign };
        }
        // What is given back goes first, then those who have waited, in their order.
        let (given, wanted): (Vec<_>, Vec<_>) = e.queue.drain(..).partition(|t| !t.by.ask.acquires());
        let all = given.into_iter().chain(std::mem::take(&mut e.waiting)).chain(wanted);
        let mut tickets = Vec::new();
        for mut t in all {
            match t.by.ask {
                Ask::Verify => tickets.push(t),
                Ask::Drop(_) => {
                    e.lost.remove(&t.holder());
                    tickets.push(t);
                }
                _ if e.lost.contains(&t.holder()) => {
                    waits.end(t.id);
                    t.respond(Err(Error::LockLost));
                }
                _ => tickets.push(t),
            }
        }
        e.deciding = tickets.iter().map(|t| (t.id, t.holder())).collect();
        e.ending = tickets.iter().filter(|t| t.by.ask.may_end()).map(Ticket::holder).collect();
        let request = |t: &Ticket| Request {
            owner: t.by.owner,
            ask: t.by.ask.clone(),
            polite: t.by.wait && !holdings.contains_key(&t.by.owner),
        };
        let requests = tickets.iter().map(request).collect();
        Next::Decide(Batch { tickets, requests, held: e.held.clone() })
    }

    /// Enters what became of a batch, and answers.
    pub(super) fn settle(
        &self,
        ino: Ino,
        sid: u64,
        mut batch: Batch,
        result: Result<(Decided, Option<Attr>)>,
    ) -> After {
        let mut s = self.state.lock();
        let Some(e) = s.files.get_mut(&ino) else { return After::Nothing };
        e.deciding.clear();
        e.ending.clear();
        let callers = std::mem::take(&mut e.callers);
        for t in &mut batch.tickets {
            t.caller = callers.get(&t.id).copied().unwrap_or(t.caller);
        }
        match result {
            Err(error) => s.fail(ino, batch, &error),
            Ok((d, _)) if d.no_session || !d.lost.is_empty() => {
                s.lose(ino, &d.lost);
                s.again(ino, batch);
                if d.no_session { After::Register } else { After::Progress }
            }
            Ok((d, attr)) => {
                s.enter(ino, &d);
                s.answer(ino, sid, batch, (d, attr))
            }
        }
    }

    fn tidy(&self, s: &mut State, ino: Ino) {
        let idle = |e: &Entry| !e.running && e.held.is_empty() && e.lost.is_empty() && e.loss == 0;
        if s.files.get(&ino).is_some_and(idle) {
            s.files.remove(&ino);
        }
        self.files.store(s.files.len(), Ordering::Release);
    }
}

impl State {
    fn note_holding(&mut self, owner: u64, had: bool, has: bool) {
        if has && !had {
            *self.holdings.entry(owner).or_default() += 1;
        } else if had
            && !has
            && let Some(n) = self.holdings.get_mut(&owner)
        {
            *n -= 1;
            if *n == 0 {
                self.holdings.remove(&owner);
            }
        }
    }

    /// Enters what the holders of a batch have now.
    fn enter(&mut self, ino: Ino, d: &Decided) {
        let Some(e) = self.files.get_mut(&ino) else { return };
        for &(owner, lock) in &d.flocks {
            match lock {
                Some(w) => _ = e.held.flocks.insert(owner, w),
                None => _ = e.held.flocks.remove(&owner),
            }
        }
        let mut changes = Vec::new();
        for (owner, list) in &d.records {
            let old = if list.is_empty() {
                e.held.records.remove(owner)
            } else {
                e.held.records.insert(*owner, list.clone())
            };
            changes.push((*owner, old.is_some(), !list.is_empty()));
        }
        for (owner, had, has) in changes {
            self.note_holding(owner, had, has);
        }
    }

    /// Locks that were held are gone.
    fn lose(&mut self, ino: Ino, lost: &[(LockKind, u64)]) {
        if lost.is_empty() {
            return;
        }
        self.losses += 1;
        let losses = self.losses;
        let Some(e) = self.files.get_mut(&ino) else { return };
        e.loss = losses;
        e.lost.extend(lost);
        for &(kind, owner) in lost {
            e.held.drop(kind, owner);
        }
        for &(_, owner) in lost.iter().filter(|(kind, _)| *kind == LockKind::Record) {
            self.note_holding(owner, true, false);
        }
        tracing::error!(
            "inode {ino}: {} of its locks were revoked while this client did not answer; what was written under them and \
             not stored yet is refused, and so is writing through what is open now",
            lost.len()
        );
    }

    /// Puts a batch back in front.
    fn again(&mut self, ino: Ino, batch: Batch) {
        let Some(e) = self.files.get_mut(&ino) else { return };
        for mut t in batch.tickets.into_iter().rev() {
            if t.caller != Caller::Waits && t.by.ask.acquires() {
                self.waits.end(t.id);
                t.respond(Err(Errno::EINTR.into()));
            } else {
                e.queue.push_front(t);
            }
        }
    }

    /// The engine refused a batch or did not answer.
    fn fail(&mut self, ino: Ino, batch: Batch, error: &Error) -> After {
        let Some(e) = self.files.get_mut(&ino) else { return After::Failed };
        let acquires = batch.tickets.iter().any(|t| t.by.ask.acquires());
        let unknown = !matches!(error, Error::Errno(_));
        let mut left = Vec::new();
        for mut t in batch.tickets {
            let (kind, owner) = t.holder();
            if t.by.ask.acquires() {
                self.waits.end(t.id);
                t.respond(Err(error.clone()));
                if unknown && !e.held.has(kind, owner) {
                    // Perhaps it was granted: then it must not stay.
                    let by = Asking { owner, pid: t.by.pid, ask: Ask::Drop(kind), wait: false };
                    left.push(Ticket { id: t.id, by, answer: None, foreign: false, caller: Caller::Waits });
                }
            } else if acquires {
                // On its own it may succeed.
                left.push(t);
            } else {
                t.respond(Err(error.clone()));
                if matches!(t.by.ask, Ask::Drop(_) | Ask::Restore(..)) {
                    left.push(t);
                }
            }
        }
        for t in left.into_iter().rev() {
            e.queue.push_front(t);
        }
        if acquires && !unknown { After::Progress } else { After::Failed }
    }

    fn answer(&mut self, ino: Ino, sid: u64, batch: Batch, (d, attr): (Decided, Option<Attr>)) -> After {
        let Some(e) = self.files.get_mut(&ino) else { return After::Nothing };
        let mut after = After::Nothing;
        // Waits are entered before anybody learns that a lock is free, so that none of them is out of date.
        let mut answers = Vec::new();
        for (mut t, verdict) in batch.tickets.into_iter().zip(d.verdicts) {
            match verdict {
                Verdict::Done => {
                    self.waits.end(t.id);
                    if t.by.ask != Ask::Verify {
                        after = After::Progress;
                    }
                    let undo = batch.held.before(t.by.owner, &t.by.ask);
                    match undo {
                        Some(undo) if t.caller == Caller::Gone => {
                            let by = Asking { ask: undo, wait: false, ..t.by };
                            e.queue.push_front(Ticket {
                                id: t.id,
                                by,
                                answer: None,
                                foreign: false,
                                caller: Caller::Waits,
                            });
                        }
                        undo => answers.push((t, Ok(Granted { attr: attr.clone(), undo }))),
                    }
                }
                Verdict::Blocked(_) if t.caller != Caller::Waits => {
                    self.waits.end(t.id);
                    answers.push((t, Err(Errno::EINTR.into())));
                }
                Verdict::Blocked(_) if !t.by.wait => answers.push((t, Err(Errno::EAGAIN.into()))),
                Verdict::Blocked(blockers) => {
                    t.foreign = blockers.iter().any(|(s, _)| *s != sid);
                    let is_record = t.by.ask.kind() == LockKind::Record;
                    let wait = Wait { who: (sid, t.by.owner), pid: t.by.pid, since: now(), on: blockers };
                    if is_record && !self.waits.begin(t.id, wait) {
                        answers.push((t, Err(Errno::EDEADLK.into())));
                    } else {
                        e.waiting.push(t);
                    }
                }
            }
        }
        for (mut t, result) in answers {
            t.respond(result);
        }
        after
    }
}
