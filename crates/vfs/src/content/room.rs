//! Room for writes: what is buffered is held against the limits of the volume and of quotas before it is accepted, so that a
//! full volume is the answer to the write and not to a close much later.

use std::sync::Arc;

use ciderfs_format::{Attr, Ino, align4k};
use ciderfs_meta::{Caller, Claim, ClaimPlaces, Errno, Hold, Meta, Result, SetAttr};

use crate::content::file::File;
use crate::vfs::Vfs;

/// How often the engine is asked whether there is room, while commits of this mount come between.
const ASKED_MAX: u32 = 4;

/// Writes that were given room and are not buffered yet.
#[derive(Default)]
pub(crate) struct Arriving {
    /// Where those by offset end.
    ends: Vec<u64>,
    /// Bytes of those that go to the end of the file.
    appended: u64,
}

/// Where a write ends, or how long it is if it goes to the end of the file.
pub(crate) type Reach = std::result::Result<u64, u64>;

impl Arriving {
    fn add(&mut self, write: Reach) {
        match write {
            Ok(end) => self.ends.push(end),
            Err(bytes) => self.appended += bytes,
        }
    }

    fn remove(&mut self, write: Reach) {
        match write {
            Ok(end) => {
                if let Some(at) = self.ends.iter().position(|e| *e == end) {
                    self.ends.swap_remove(at);
                }
            }
            Err(bytes) => self.appended -= bytes,
        }
    }
}

/// Lengths of a file, in bytes.
pub(crate) struct Lengths {
    /// As it is believed to be committed.
    pub(super) committed: u64,
    /// Where what is buffered ends.
    pub(super) buffered: u64,
    /// As readers see it.
    pub(super) all: u64,
}

/// Room held for what is not committed yet.
#[derive(Default)]
pub(crate) struct Claims {
    claim: Option<Claim>,
    /// Writes that were given room and are not buffered yet.
    arriving: Arriving,
    /// A truncation to this length is under way.
    shrinks_to: Option<u64>,
}

impl Claims {
    /// Bytes, in whole blocks, by which the file has grown since its last commit, with all writes that were given room.
    fn growth(&self, lengths: &Lengths) -> u64 {
        // A truncation under way takes what lies beyond, but for what is written meanwhile.
        let (base, length) = match self.shrinks_to {
            Some(to) => (to.min(lengths.committed), lengths.buffered),
            None => (lengths.committed, lengths.all),
        };
        let reach = self.arriving.ends.iter().fold(length, |reach, end| reach.max(*end));
        align4k(reach.saturating_add(self.arriving.appended)).saturating_sub(align4k(base))
    }

    pub(super) fn shrink_to(&mut self, to: Option<u64>) {
        self.shrinks_to = to;
    }

    /// See [`State::admit`](crate::content::state::State::admit).
    pub(super) fn admit(
        &mut self,
        meta: &Meta,
        (ino, attr): (Ino, &Attr),
        write: Reach,
        lengths: &Lengths,
    ) -> Result<bool> {
        self.arriving.add(write);
        let bytes = self.growth(lengths);
        let claim = self.claim.get_or_insert_with(|| meta.claim_room());
        let admitted =
            if bytes <= claim.bytes() { Ok(true) } else { meta.raise_claim(claim, ino, attr, bytes) };
        if !matches!(admitted, Ok(true)) {
            self.arriving.remove(write);
        }
        admitted
    }

    pub(super) fn arrived(&mut self, write: Reach) {
        self.arriving.remove(write);
    }

    /// See [`State::settle_claim`](crate::content::state::State::settle_claim).
    pub(super) fn settle(&mut self, lengths: &Lengths, is_changing: bool) {
        let bytes = self.growth(lengths);
        if let Some(claim) = self.claim.as_mut().filter(|claim| !is_changing || bytes > claim.bytes()) {
            claim.settle(bytes);
        }
    }

    fn places(&self) -> Option<ClaimPlaces> {
        self.claim.as_ref().map(Claim::places)
    }

    pub(super) fn place(&mut self, places: ClaimPlaces) {
        if let Some(claim) = &mut self.claim {
            claim.place(places);
        }
    }

    fn is_some(&self) -> bool {
        self.claim.as_ref().is_some_and(|claim| claim.bytes() > 0)
    }
}

/// A write on its way into the buffers, which has room from [`Vfs::make_room`] on.
pub(crate) struct Room<'a> {
    file: &'a File,
    write: Reach,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.file.state.lock().arrived(self.write);
    }
}

impl Vfs {
    /// Holds room for a write of so many bytes at an offset, or at the end of the file, until it is buffered. Costs turns only
    /// where there seems to be none: others may have made some.
    ///
    /// # Errors
    /// `ENOSPC`, `EDQUOT`; nothing is held more than before.
    pub(crate) async fn make_room<'a>(
        &self,
        file: &'a Arc<File>,
        offset: Option<u64>,
        bytes: u64,
    ) -> Result<Room<'a>> {
        let write = offset.map(|at| at.saturating_add(bytes)).ok_or(bytes);
        let mut asked = 0;
        loop {
            let (full, attr, places) = {
                let mut s = file.state.lock();
                let full = match s.admit(&self.meta, file.ino, write) {
                    Ok(true) => return Ok(Room { file, write }),
                    Ok(false) => None,
                    Err(e) => Some(e),
                };
                (full, s.attr().clone(), s.claims().places())
            };
            let Some(full) = full else {
                let places = self.meta.find_places(file.ino, &attr).await?;
                file.state.lock().place_claim(places);
                continue;
            };
            // What is being committed counts twice for a moment, as used and as claimed.
            let counted_twice = asked > 0 && self.commits_settled().await;
            if asked > 0 && (!counted_twice || asked >= ASKED_MAX) {
                return Err(full);
            }
            asked += 1;
            if let Some(places) = places {
                self.meta.refresh_room(places).await?;
            }
        }
    }

    /// Waits for the commits that are under way; false if there was none.
    async fn commits_settled(&self) -> bool {
        let mut waited = false;
        for file in self.files.all() {
            if file.state.lock().is_changing() {
                file.settled().await;
                waited = true;
            }
        }
        waited
    }

    /// Before a removal in a directory: the trash may need a directory of its own, which takes room beyond every limit. Held
    /// until the removal is over.
    pub(crate) async fn room_for_trash(self: &Arc<Self>, dir: Ino) -> Option<Hold> {
        let hold = self.meta.hold_trash_room(dir)?;
        self.settle_writes(|_, _| true).await;
        Some(hold)
    }

    /// Before a file gets other owners: the superuser may give it beyond their quotas. Held until that is done.
    pub(crate) async fn room_for_owners(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        set: &SetAttr,
    ) -> Result<Option<Hold>> {
        if set.uid.is_none() && set.gid.is_none() || !self.meta.has_owner_limits() {
            return Ok(None);
        }
        let grows = |a: &Attr| set.uid == Some(a.uid) || set.gid == Some(a.gid);
        self.settle_writes(|file, _| file == ino).await;
        if c.uid != 0 {
            return Ok(None);
        }
        let hold = match self.meta.getattr(ino).await {
            Ok(attr) => Some(self.meta.hold_owner_room(&attr, set)),
            Err(e) if e.errno() == Errno::ENOENT => None,
            Err(e) => return Err(e),
        };
        self.settle_writes(|_, attr| grows(attr)).await;
        Ok(hold)
    }

    /// Commits what was written to files that are about to be charged elsewhere: it was given room where they are now.
    pub(crate) async fn settle_writes(self: &Arc<Self>, concerned: impl Fn(Ino, &Attr) -> bool) {
        for file in self.files.all() {
            let due = {
                let s = file.state.lock();
                s.claims().is_some() && concerned(file.ino, s.attr())
            };
            if due && let Err(e) = self.flush(&file).await {
                tracing::error!("inode {}: {e}", file.ino);
            }
        }
    }
}
