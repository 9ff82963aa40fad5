//! What is left to the next process of the mount, should this one end without a word: noted in a [`State`] before the kernel is
//! answered. Without one, nothing is.

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::{Ino, SessionId, SliceId};
use ciderfs_handover::{Kind, Place, Record, Room, State, Ticket, Written};
use ciderfs_meta::Errno;
use ciderfs_meta::store::LockKind;
use tokio::sync::Notify;

use crate::content::file::File;
use crate::io::locks::LockRequest;
use crate::vfs::Vfs;

/// How long a writer waits for others to leave the log before it has them flushed again: some may have come meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Carry {
    pub(crate) state: Option<Arc<State>>,
    /// Told when there is room in the log again.
    freed: Notify,
}

impl Carry {
    pub(crate) fn new(state: Option<Arc<State>>, sid: SessionId) -> Self {
        if let Some(state) = &state {
            state.set_sid(sid.0);
        }
        Self { state, freed: Notify::new() }
    }

    /// A handle is about to be given to the kernel.
    pub(crate) fn opened(&self, kind: Kind, fh: u64, ino: Ino, flags: i32, owner: u64) {
        self.put(Record { kind, fh, ino: ino.0, flags, owner, error: 0 });
    }

    fn put(&self, record: Record) {
        if let Some(Err(e)) = self.state.as_ref().map(|state| state.put(&record)) {
            tracing::warn!("handle {} would not survive this process: {e}", record.fh);
        }
    }

    /// A directory was listed as far as this, and the kernel is about to be told so.
    pub(crate) fn listed(&self, fh: u64, place: impl FnOnce() -> Option<Place>) {
        if let Some(state) = &self.state
            && let Some(place) = place()
        {
            state.listed(fh, &place);
        }
    }

    /// A handle is gone, and the kernel about to be told so.
    pub(crate) fn closed(&self, fh: u64) {
        if let Some(state) = &self.state {
            state.remove(fh);
        }
    }

    /// Data of a file is lost, and who has it open has yet to be told.
    pub(crate) fn failed(&self, ino: Ino, error: Errno) {
        if let Some(state) = &self.state {
            state.fail(ino.0, error.0);
        }
    }

    /// A handle has told so.
    pub(crate) fn reported(&self, fh: u64) {
        if let Some(state) = &self.state {
            state.reported(fh);
        }
    }

    /// A lock is asked for, or what has become of it: an owner holds some through the handle, or none.
    pub(crate) fn locking(&self, request: &LockRequest, ino: Ino, owner: u64, held: bool) {
        let Some(state) = &self.state else { return };
        let kind = record_kind(request.kind());
        let is_asked = request.asks();
        if held || is_asked {
            let flags = i32::from(held);
            self.put(Record { kind, fh: request.fh, ino: ino.0, flags, owner, error: 0 });
        } else {
            state.remove_lock(request.fh, kind, owner);
        }
    }

    /// A process has closed a descriptor of a handle, and with it lost its record locks.
    pub(crate) fn unlocked(&self, fh: u64, owner: u64) {
        if let Some(state) = &self.state {
            state.remove_lock(fh, Kind::Plock, owner);
        }
    }

    /// What was written is committed, or lost and told so.
    pub(crate) fn release(&self, logged: Vec<Ticket>) {
        if let Some(state) = self.state.as_ref().filter(|_| !logged.is_empty()) {
            state.release(logged);
            self.freed.notify_waiters();
        }
    }
}

/// The record of locks of a kind.
fn record_kind(kind: LockKind) -> Kind {
    match kind {
        LockKind::Flock => Kind::Flock,
        LockKind::Record => Kind::Plock,
    }
}

/// Where a write comes from.
#[derive(Default)]
pub(crate) struct Source {
    /// The kernel's number of the request, 0 if it does not matter.
    unique: u64,
    /// It is in the log already: the process before this one was told it.
    pub(crate) again: Option<Ticket>,
    /// It does not fit into the log.
    pub(crate) is_unlogged: bool,
}

impl Source {
    pub(crate) fn new(unique: u64) -> Self {
        Self { unique, ..Self::default() }
    }

    /// What the log holds.
    pub(crate) fn again(written: &Written, ticket: Ticket) -> Self {
        Self { unique: written.unique, again: Some(ticket), is_unlogged: false }
    }
}

/// A place in the log for a piece of a write.
pub(crate) struct LogPlace<'a> {
    carry: &'a Carry,
    unique: u64,
    room: Option<Room>,
    again: Option<Ticket>,
}

impl LogPlace<'_> {
    /// Notes what is being buffered in a slice.
    pub(crate) fn note(
        &mut self,
        ino: Ino,
        at: u64,
        append: bool,
        slice: SliceId,
        data: &[u8],
    ) -> Option<Ticket> {
        let state = self.carry.state.as_ref()?;
        if let Some(ticket) = self.again.take() {
            state.moved(&ticket, slice.0);
            return Some(ticket);
        }
        let written = Written { ino: ino.0, at, append, slice: slice.0, unique: self.unique };
        Some(state.append(self.room.take()?, &written, &[IoSlice::new(data)]))
    }
}

impl Drop for LogPlace<'_> {
    fn drop(&mut self) {
        if let (Some(state), Some(room)) = (&self.carry.state, self.room.take()) {
            state.give_back(room);
        }
    }
}

impl Vfs {
    /// A place in the log for so many bytes. While there is none, dirty files are flushed to make some.
    pub(crate) async fn log_place(
        self: &Arc<Self>,
        file: &Arc<File>,
        bytes: usize,
        source: &mut Source,
    ) -> LogPlace<'_> {
        let mut place =
            LogPlace { carry: &self.carry, unique: source.unique, room: None, again: source.again.take() };
        let Some(state) = self.carry.state.as_ref().filter(|_| place.again.is_none()) else { return place };
        if bytes as u64 > state.log_capacity() {
            source.is_unlogged = true;
            return place;
        }
        loop {
            let freed = self.carry.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            place.room = state.room(bytes);
            if place.room.is_some() {
                return place;
            }
            self.flush_all_in_background(file);
            _ = ciderfs_rt::timeout(LOOK_AGAIN, freed).await;
        }
    }
}
