//! What this client knows of its locks, and what the outcome of a commit makes of it.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use ciderfs_format::{Attr, Ino, SessionId};
use tokio::sync::{Notify, oneshot};

use super::fleet::now;
use super::waits::{Wait, Waits};
use crate::error::{Errno, Error, Result};
use crate::ops::locks::{Ask, Decided, Granted, Held, Request, Verdict};
use crate::store::LockKind;

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
pub(super) struct Ticket {
    pub(super) id: u64,
    pub(super) by: Asking,
    pub(super) answer: Option<Answer>,
    /// Waits for a lock of another client, whose end nobody tells.
    pub(super) foreign: bool,
    /// What has become of its caller while a commit was under way.
    pub(super) caller: Caller,
}

/// Who waits for a request that is being decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody.
    Waits,
    /// Somebody who would rather not: it gets what this commit brings.
    Interrupted,
    /// Nobody: what it brings is undone.
    Gone,
}

impl Ticket {
    pub(super) fn respond(&mut self, result: Result<Granted>) {
        if let Some(answer) = self.answer.take() {
            // Who has gone meanwhile sees to it.
            let _ = answer.send(result);
        }
    }

    /// The session ends: there is nothing to take and nothing to give back.
    pub(super) fn end(&mut self) {
        let nothing = Granted { attr: None, undo: None };
        self.respond(if self.by.ask.acquires() { Err(Errno::ENOLCK.into()) } else { Ok(nothing) });
    }

    pub(super) fn holder(&self) -> (LockKind, u64) {
        (self.by.ask.kind(), self.by.owner)
    }
}

/// What is known of a file.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) held: Held,
    /// Holders whose locks were revoked and that have not closed the file since.
    pub(super) lost: BTreeSet<(LockKind, u64)>,
    /// The number of the last loss on this file; 0 without any.
    pub(super) loss: u64,
    pub(super) queue: VecDeque<Ticket>,
    pub(super) waiting: Vec<Ticket>,
    /// Requests in the commit under way.
    pub(super) deciding: HashMap<u64, (LockKind, u64)>,
    /// Holders whose lock may end in it.
    pub(super) ending: HashSet<(LockKind, u64)>,
    /// Requests in it whose callers do not simply wait any more.
    pub(super) callers: HashMap<u64, Caller>,
    pub(super) running: bool,
    pub(super) wake: Arc<Notify>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) files: HashMap<Ino, Entry>,
    /// Number of files on which an owner holds record locks.
    pub(super) holdings: HashMap<u64, usize>,
    pub(super) waits: Waits,
    /// Somebody looks for circles through other clients.
    pub(super) watched: bool,
    /// This session's record in the volume tells waits, or may do so still.
    pub(super) tells: bool,
    pub(super) tickets: u64,
    pub(super) losses: u64,
    /// The session ends, and with it every lock.
    pub(super) closed: bool,
}

/// Requests to decide together.
pub(super) struct Batch {
    pub(super) tickets: Vec<Ticket>,
    pub(super) requests: Vec<Request>,
    pub(super) held: Held,
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

impl State {
    pub(super) fn note_holding(&mut self, owner: u64, had: bool, has: bool) {
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
    pub(super) fn enter(&mut self, ino: Ino, d: &Decided) {
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
    pub(super) fn lose(&mut self, ino: Ino, lost: &[(LockKind, u64)]) {
        if lost.is_empty() {
            return;
        }
        self.adopt_lost(ino, lost);
        let Some(e) = self.files.get_mut(&ino) else { return };
        for &(kind, owner) in lost {
            e.held.drop(kind, owner);
        }
        for &(_, owner) in lost.iter().filter(|(kind, _)| *kind == LockKind::Record) {
            self.note_holding(owner, true, false);
        }
    }

    /// Locks are gone, of which this process may know or not.
    pub(super) fn adopt_lost(&mut self, ino: Ino, lost: &[(LockKind, u64)]) {
        if lost.is_empty() {
            return;
        }
        self.losses += 1;
        let losses = self.losses;
        let Some(e) = self.files.get_mut(&ino) else { return };
        e.loss = losses;
        e.lost.extend(lost);
        tracing::error!(
            "inode {ino}: {} of its locks were revoked while this client did not answer; what was written under them and \
             not stored yet is refused, and so is writing through what is open now",
            lost.len()
        );
    }

    /// Puts a batch back in front.
    pub(super) fn again(&mut self, ino: Ino, batch: Batch) {
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
    pub(super) fn fail(&mut self, ino: Ino, batch: Batch, error: &Error) -> After {
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

    pub(super) fn answer(
        &mut self,
        ino: Ino,
        sid: SessionId,
        batch: Batch,
        (d, attr): (Decided, Option<Attr>),
    ) -> After {
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
