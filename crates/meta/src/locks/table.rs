//! This client's own account of its locks: who holds what, who waits, and what was lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ciderfs_format::{Attr, Ino};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::state::{After, Answer, Asking, Batch, Caller, Entry, State, Ticket};
use super::waits::{Wait, Waits};
use crate::error::{Errno, Error, Result};
use crate::ops::locks::{Ask, Decided, Held, Request};
use crate::store::LockKind;

/// Own locks of a file that a change of its data is tied to; more would only repeat the question.
const FENCES_MAX: usize = 64;

/// See the module.
#[derive(Default)]
pub(crate) struct LockTable {
    state: Mutex<State>,
    /// Entries; 0 spares most writes a look into the table.
    files: AtomicUsize,
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

    /// Enters what a process before this one has held on a file, and what of it was lost.
    pub(super) fn adopt(&self, ino: Ino, held: Held, lost: &[(LockKind, u64)]) {
        if held.is_empty() && lost.is_empty() {
            return;
        }
        let mut s = self.state.lock();
        for owner in held.records.keys() {
            s.note_holding(*owner, false, true);
        }
        s.files.entry(ino).or_default().held = held;
        s.adopt_lost(ino, lost);
        self.files.store(s.files.len(), Ordering::Release);
    }

    /// The session ends. Requests that are not being decided end now.
    pub(crate) fn close(&self) {
        let mut s = self.state.lock();
        s.closed = true;
        s.waits = Waits::default();
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
    pub(super) fn waits_to_tell(&self, since: u64) -> Vec<Wait> {
        let s = self.state.lock();
        if !s.closed && s.waits.has_foreign(since) { s.waits.all() } else { Vec::new() }
    }

    /// Does the record of this session tell any waits?
    pub(super) fn tells(&self) -> bool {
        self.state.lock().tells
    }

    /// What the record of this session is to tell once these owners have what they wait for; `None` if that makes no
    /// difference.
    pub(super) fn told_without(&self, owners: &[u64]) -> Option<Vec<Wait>> {
        let s = self.state.lock();
        let all = if s.tells { s.waits.all() } else { Vec::new() };
        let (theirs, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|w| owners.contains(&w.who.1));
        (!theirs.is_empty()).then(|| if rest.iter().any(Wait::is_foreign) { rest } else { Vec::new() })
    }

    /// Notes whether the record tells waits.
    pub(super) fn note_telling(&self, tells: bool) {
        self.state.lock().tells = tells;
    }

    /// Ends a wait that would never end, unless it is being decided.
    pub(super) fn give_up(&self, wait: &Wait) {
        let mut s = self.state.lock();
        let State { files, waits, .. } = &mut *s;
        let tickets = waits.tickets(wait);
        for e in files.values_mut() {
            for mut t in e.waiting.extract_if(.., |t| tickets.contains(&t.id)) {
                waits.end(t.id);
                t.respond(Err(Errno::EDEADLK.into()));
                // Somebody may have waited only to let this one go first.
                e.wake.notify_one();
            }
        }
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

    /// The files on which something is held, or is perhaps since a commit whose reply is on its way.
    pub(super) fn held_files(&self) -> Vec<Ino> {
        let s = self.state.lock();
        let concerned = |e: &Entry| !e.held.is_empty() || !e.deciding.is_empty();
        s.files.iter().filter(|(_, e)| concerned(e)).map(|(ino, _)| *ino).collect()
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
