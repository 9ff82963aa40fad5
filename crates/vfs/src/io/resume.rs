//! Going on where the process before this one has ended: its handles, what it was told to write, its locks.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use ciderfs_format::slice::{chunk_at, chunk_count};
use ciderfs_format::{Ino, SliceId};
use ciderfs_handover::{Kind, Logged, Record, State, Written};
use ciderfs_meta::store::LockKind;
use ciderfs_meta::{Caller, Errno, Holder};

use crate::error::{Error, Result};
use crate::io::carry::Source;
use crate::io::handles::{FileHandle, Handle};
use crate::io::locks::Losses;
use crate::kernel::Drops;
use crate::vfs::Vfs;

/// What was found of the process before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resumed {
    /// Handles that go on.
    pub handles: usize,
    /// Handles of files that are gone.
    pub lost_handles: usize,
    /// Writes that were not committed, and are buffered again.
    pub writes: usize,
    /// Bytes of those.
    pub bytes: u64,
    /// Writes that could not be made again: whoever has the file open is told so.
    pub lost_writes: usize,
}

impl Vfs {
    /// Goes on with what [`VfsConfig::handover`](crate::VfsConfig::handover) tells of the process before this one: handles have the
    /// numbers that the kernel knows, and what was written is buffered again, in its order. To be called before the first request
    /// is answered, after [`ciderfs_meta::Meta::take_over_session`], which has said whether the session lives.
    ///
    /// # Errors
    /// The engine stays away: nothing is lost, and another process may try it again.
    pub async fn resume(self: &Arc<Self>, session_lives: bool) -> Result<Resumed> {
        let Some(state) = self.carry.state.clone() else { return Ok(Resumed::default()) };
        _ = self.appended.set(state.appended());
        let mut found = Resumed::default();
        let mut files: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
        for record in state.records() {
            match record.kind {
                Kind::Dir => self.resume_dir(&state, &record).await?,
                Kind::File if Ino(record.ino).is_virtual() => self.resume_virtual(&record),
                _ => {
                    files.entry(record.ino).or_default().push(record);
                    continue;
                }
            }
            found.handles += 1;
        }
        for (ino, records) in files {
            let handles = records.iter().filter(|r| r.kind == Kind::File).count();
            if self.resume_file(Ino(ino), &records, session_lives).await? {
                found.handles += handles;
            } else {
                found.lost_handles += handles;
            }
        }
        self.rewrite(&state, &mut found).await?;
        state.tidy();
        Ok(found)
    }

    /// Has the process before this one appended for a request with this number? Then it must not be done again.
    pub fn has_appended(&self, unique: u64) -> bool {
        self.appended.get().is_some_and(|known| known.contains(&unique))
    }

    async fn resume_dir(&self, state: &State, r: &Record) -> Result<()> {
        let opener = Caller { check: r.flags != 0, ..opener(r) };
        let ino = Ino(r.ino);
        // As it is asked for otherwise, nobody would notice before it is listed.
        let handle = match self
            .meta
            .getattr(ino)
            .await
            .map_err(Error::from)
            .and(self.dir_handle(&opener, ino).await)
        {
            Err(e) if e.is_of_one_file() => {
                tracing::warn!("inode {ino}: the directory was open, and cannot be opened again: {e}");
                Handle::Lost
            }
            other => other?,
        };
        if let Handle::Dir(stream) = &handle {
            stream.lock().await.listed_before(state.places(r.fh));
        }
        self.handles.restore(r.fh, ino, handle);
        Ok(())
    }

    fn resume_virtual(&self, r: &Record) {
        let ino = Ino(r.ino);
        let handle = self.virtual_handle(&opener(r), ino, r.flags & libc::O_ACCMODE).unwrap_or(Handle::Lost);
        self.handles.restore(r.fh, ino, handle);
    }

    /// Opens the handles of a file again; false if it is gone.
    async fn resume_file(
        self: &Arc<Self>,
        ino: Ino,
        records: &[Record],
        session_lives: bool,
    ) -> Result<bool> {
        let handles = || records.iter().filter(|r| r.kind == Kind::File);
        let mut attr = None;
        for r in handles() {
            let writes = r.flags & libc::O_ACCMODE != libc::O_RDONLY;
            let nameless = r.flags & libc::O_TMPFILE == libc::O_TMPFILE;
            match self.meta.reopen(ino, writes, nameless).await.map_err(Error::from) {
                Ok(a) => attr = Some(a),
                Err(e) if e.is_of_one_file() => {
                    if e.errno() != Errno::ENOENT {
                        tracing::error!("inode {ino}: it was open, and cannot be opened again: {e}");
                    }
                    self.give_back(ino).await?;
                    self.handles.restore(r.fh, ino, Handle::Lost);
                }
                Err(e) => return Err(e),
            }
        }
        let Some(attr) = attr else {
            tracing::warn!("inode {ino}: it was open, and is gone");
            return Ok(false);
        };
        let holders = || records.iter().filter(|r| r.kind != Kind::File).map(|r| (r, holder(r)));
        let held: Vec<Holder> =
            holders().filter(|(r, _)| session_lives || r.flags != 0).map(|(_, h)| h).collect();
        match self.meta.adopt_locks(ino, &held, !session_lives).await.map_err(Error::from) {
            Err(e) if e.is_of_one_file() => {
                tracing::error!(
                    "inode {ino}: what is locked in it is not known, and what was open is lost: {e}"
                );
                for r in handles() {
                    self.give_back(ino).await?;
                    self.handles.restore(r.fh, ino, Handle::Lost);
                }
                return Ok(false);
            }
            other => other?,
        }
        let error = handles().map(|r| r.error).find(|e| *e != 0);
        for r in handles() {
            let (file, _) = self.files.open(ino, &attr);
            // The kernel may have pages, and others may have changed the file meanwhile.
            file.kernel.gets_pages();
            let failures = {
                let mut s = file.state.lock();
                s.set_untold(true);
                if let Some(error) = error.filter(|_| s.failures() == 0) {
                    s.fail(Errno(error));
                }
                s.failures()
            };
            let reported = if r.error == 0 { failures } else { 0 };
            // Opened before any loss of locks.
            let handle = FileHandle::new(file, r.flags, reported, Losses::default(), Drops::default());
            for (lock, h) in holders().filter(|(lock, _)| lock.fh == r.fh) {
                match h.kind {
                    LockKind::Flock => *handle.locks.flock.lock() = Some(lock.owner),
                    LockKind::Record => _ = handle.locks.owners.lock().insert(lock.owner),
                }
            }
            self.handles.restore(r.fh, ino, Handle::File(Arc::new(handle)));
        }
        Ok(true)
    }

    /// Buffers again what the log holds, but for what was committed before its place in the log was given back.
    async fn rewrite(self: &Arc<Self>, state: &State, found: &mut Resumed) -> Result<()> {
        let mut writes: BTreeMap<u64, Vec<Written>> = BTreeMap::new();
        for w in state.written() {
            writes.entry(w.ino).or_default().push(w);
        }
        let mut committed = HashSet::new();
        // Files of which it is not known what they have.
        let mut damaged = HashSet::new();
        let mut opened = Vec::new();
        for (ino, writes) in &writes {
            let ino = Ino(*ino);
            if self.files.get(ino).is_none() {
                // Nobody has it open any more: it is only written.
                match self.meta.reopen(ino, true, false).await.map_err(Error::from) {
                    Ok(attr) => _ = self.files.open(ino, &attr),
                    Err(e) if e.is_of_one_file() => {
                        if e.errno() != Errno::ENOENT {
                            tracing::error!("inode {ino}: it cannot be written to: {e}");
                            damaged.insert(ino);
                        }
                        self.give_back(ino).await?;
                        continue;
                    }
                    Err(e) => return Err(e),
                }
                opened.push(ino);
            }
            match self.committed_of(ino, writes).await {
                Ok(ids) => committed.extend(ids),
                Err(e) if e.is_of_one_file() => {
                    tracing::error!("inode {ino}: what was written is lost: {e}");
                    damaged.insert(ino);
                }
                Err(e) => return Err(e),
            }
        }
        for Logged { written, data, ticket } in state.iter() {
            let file = self.files.get(Ino(written.ino));
            if damaged.contains(&Ino(written.ino)) {
                if let Some(file) = &file {
                    file.state.lock().fail(Errno::EIO);
                }
                self.carry.failed(Ino(written.ino), Errno::EIO);
                state.release([ticket]);
                found.lost_writes += 1;
                continue;
            }
            let Some(file) = file.filter(|_| !committed.contains(&SliceId(written.slice))) else {
                state.release([ticket]);
                continue;
            };
            let source = Source::again(&written, ticket.clone());
            let offset = (!written.append).then_some(written.at);
            match self.write_file(&file, Losses::default(), offset, &data, source).await {
                Ok(_) => {
                    found.writes += 1;
                    found.bytes += data.len() as u64;
                }
                Err(e) => {
                    tracing::error!(
                        "inode {}: {} bytes that were written are lost: {e}",
                        file.ino,
                        data.len()
                    );
                    file.state.lock().fail(e.errno());
                    self.carry.failed(file.ino, e.errno());
                    state.release([ticket]);
                    found.lost_writes += 1;
                }
            }
        }
        // The store may be away: nobody waits for it.
        let vfs = Arc::clone(self);
        ciderfs_rt::spawn(async move {
            for ino in opened {
                if let Some(file) = vfs.files.get(ino) {
                    // Told to the log.
                    _ = vfs.flush(&file).await;
                }
                vfs.files.close(ino);
                if let Err(e) = vfs.meta.close(ino).await {
                    tracing::warn!("inode {ino}: closing: {e}");
                }
            }
        });
        for file in self.files.all().into_iter().filter(|file| file.is_dirty()) {
            self.flush_in_background(&file);
        }
        Ok(())
    }

    /// Closes a file that was opened again for nothing.
    async fn give_back(&self, ino: Ino) -> Result<()> {
        match self.meta.close(ino).await.map_err(Error::from) {
            Err(e) if !e.is_of_one_file() => Err(e),
            _ => Ok(()),
        }
    }

    /// The slices, of those that some writes were to go into, that a file has.
    async fn committed_of(&self, ino: Ino, writes: &[Written]) -> Result<HashSet<SliceId>> {
        let ends = writes.iter().any(|w| w.append);
        let chunks = if ends { chunk_count(self.files.get(ino).map_or(0, |f| f.attr().length)) } else { 0 };
        let mut indexes: BTreeSet<u32> = BTreeSet::new();
        for w in writes {
            let first = chunk_at(w.at);
            // What is appended lies where the end was believed to be, or anywhere behind that.
            indexes.extend(first..if w.append { chunks.max(first + 1) } else { first + 1 });
        }
        let mut found = HashSet::new();
        for indx in indexes {
            found.extend(self.meta.read_raw_chunk(ino, indx).await?.into_iter().map(|slice| slice.id));
        }
        Ok(found)
    }
}

/// Who has opened a handle, of which it is known.
fn opener(r: &Record) -> Caller {
    Caller { check: false, ..Caller::kernel_checked(r.owner as u32, (r.owner >> 32) as u32, 0) }
}

fn holder(r: &Record) -> Holder {
    let kind = if r.kind == Kind::Flock { LockKind::Flock } else { LockKind::Record };
    Holder { kind, owner: r.owner }
}
