//! What a mount's process leaves to the one that follows it, after an upgrade or a crash: which handles are open, what was written
//! and is not committed yet, the session, and what was agreed with the kernel.
//!
//! It lies in a memfd whose descriptor somebody else (a supervisor) holds as well, or in a file that others find. The process may be killed at any instruction: a
//! record counts only once its last word says so, and that word is written after everything else. Nothing here survives the machine.

pub mod descriptors;
pub mod held;
pub mod link;
mod log;
mod map;
pub mod place;
mod places;
mod table;

use std::collections::HashSet;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

pub use log::{Logged, Room, Ticket, Written};
pub use places::Place;
pub use table::{Kind, Record};

use log::{Log, SEGMENT};
use map::Map;
use places::Places;
use table::Table;

/// The first bytes of a state.
const MAGIC: u64 = u64::from_le_bytes(*b"ciderfs\x01");
/// Grows with each change of the layout. Another version is refused: then the handles are lost, and not misread.
pub const VERSION: u64 = 1;

/// Words of the header, by offset.
const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 8;
const AT_HANDLES: usize = 16;
const AT_SEGMENTS: usize = 24;
const AT_CHECKSUM: usize = 32;
const AT_SID: usize = 40;
const AT_LAST_FH: usize = 48;
/// Which of the two blobs counts: its number, and how long it is. See [`State::set_negotiated`].
const AT_BLOB: usize = 56;
/// How many places of directories may have been used.
const AT_PLACES: usize = 64;
/// The two blobs.
const BLOBS: usize = 1024;
/// Longest blob.
const BLOB_MAX: usize = 512;
/// The numbers of the requests that appended last.
const APPENDED: usize = 4096;
/// So many of them; the kernel has no more requests under way.
const APPENDED_MAX: usize = 4096;
/// Where the table begins.
const HEADER: usize = APPENDED + APPENDED_MAX * 8;

/// Records of handles and locks that a mount can have.
const HANDLES: usize = 1 << 20;

/// The state of one mount. All methods may be called by several threads at once.
pub struct State {
    map: Map,
    table: Mutex<Table>,
    places: Mutex<Places>,
    log: Mutex<Log>,
    blob: Mutex<()>,
    /// Where the number of the next request that appends goes.
    appended: AtomicUsize,
}

impl State {
    /// Memory for a new mount; the log of writes holds so many bytes. `name` is shown in `/proc/PID/fd`.
    ///
    /// # Errors
    /// What the system answers.
    pub fn create(name: &str, log_bytes: u64) -> Result<Self> {
        let segments = segments(log_bytes)?;
        Ok(Self::new(Map::create(name, length(HANDLES, segments))?, segments))
    }

    /// The same in a file, where nothing is, for those who have no descriptor of it. Half of what its file system has left is the
    /// most that it ever takes.
    ///
    /// # Errors
    /// What the system answers; there is no room.
    pub fn create_at(path: &Path, log_bytes: u64) -> Result<Self> {
        let system = rustix::fs::statvfs(path.parent().unwrap_or(path))?;
        let room = system.f_bavail.saturating_mul(system.f_frsize) / 2;
        let segments = segments(log_bytes.min(room))?;
        let map = Map::create_at(path, length(HANDLES, segments))?;
        let places_at = HEADER + HANDLES * table::RECORD;
        let log_at = places_at + places::PLACES * places::PLACE;
        if !map.reserve(0, HEADER + table::CHUNK) || !Log::reserve(&map, log_at, segments) {
            let _ = std::fs::remove_file(path);
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(Self::new(map, segments))
    }

    fn new(map: Map, segments: usize) -> Self {
        let put = |at: usize, value: u64| map.word(at).store(value, Ordering::Relaxed);
        put(AT_VERSION, VERSION);
        put(AT_HANDLES, HANDLES as u64);
        put(AT_SEGMENTS, segments as u64);
        put(AT_CHECKSUM, checksum(&map));
        map.word(AT_MAGIC).store(MAGIC, Ordering::Release);
        Self::over(map, HANDLES, segments)
    }

    /// The state that another process has left. Changes nothing in it.
    ///
    /// # Errors
    /// It is none, of another version, or damaged.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let bad = |why: &str| Err(Error::new(ErrorKind::InvalidData, format!("state of a mount: {why}")));
        let map = Map::open(fd)?;
        if map.len() < HEADER || map.word(AT_MAGIC).load(Ordering::Acquire) != MAGIC {
            return bad("it is none");
        }
        let word = |at: usize| map.word(at).load(Ordering::Relaxed);
        if word(AT_VERSION) != VERSION {
            return bad(&format!("version {} instead of {VERSION}", word(AT_VERSION)));
        }
        if word(AT_CHECKSUM) != checksum(&map) {
            return bad("its header is damaged");
        }
        let (handles, segments) = (word(AT_HANDLES) as usize, word(AT_SEGMENTS) as usize);
        if length(handles, segments) != map.len() {
            return bad("it does not have the length that its header says");
        }
        Ok(Self::over(map, handles, segments))
    }

    fn over(map: Map, handles: usize, segments: usize) -> Self {
        let table = Table::read(&map, HEADER, handles);
        let places_at = HEADER + handles * table::RECORD;
        let places = Places::read(&map, places_at, AT_PLACES);
        let log = Log::read(&map, places_at + places::PLACES * places::PLACE, segments);
        Self {
            map,
            table: Mutex::new(table),
            places: Mutex::new(places),
            log: Mutex::new(log),
            blob: Mutex::default(),
            appended: AtomicUsize::new(0),
        }
    }

    /// The memory, for whoever keeps it beyond this process.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.map.fd()
    }

    /// What was agreed with the kernel, as [`State::set_negotiated`] was given it; empty at first.
    pub fn negotiated(&self) -> Vec<u8> {
        let word = self.map.word(AT_BLOB).load(Ordering::Acquire);
        let len = (word & 0xffff) as usize;
        self.map.read(BLOBS + (word >> 16) as usize % 2 * BLOB_MAX, len.min(BLOB_MAX))
    }

    /// Keeps up to 512 bytes: the old ones until the new ones are complete.
    ///
    /// # Errors
    /// There are more.
    pub fn set_negotiated(&self, blob: &[u8]) -> Result<()> {
        if blob.len() > BLOB_MAX {
            return Err(Error::new(ErrorKind::InvalidInput, "more than 512 bytes"));
        }
        let _one = self.blob.lock();
        let number = (self.map.word(AT_BLOB).load(Ordering::Relaxed) >> 16) + 1;
        self.map.write(BLOBS + number as usize % 2 * BLOB_MAX, blob);
        self.map.word(AT_BLOB).store(number << 16 | blob.len() as u64, Ordering::Release);
        Ok(())
    }

    /// The session of the mount, 0 for none.
    pub fn sid(&self) -> u64 {
        self.map.word(AT_SID).load(Ordering::Acquire)
    }

    /// Notes the session.
    pub fn set_sid(&self, sid: u64) {
        self.map.word(AT_SID).store(sid, Ordering::Release);
    }

    /// The greatest handle number that was ever noted. Those that follow must be greater: the kernel may still close old ones.
    pub fn last_fh(&self) -> u64 {
        self.map.word(AT_LAST_FH).load(Ordering::Acquire)
    }

    /// Notes an open handle, or a lock that one holds. Before the kernel is answered.
    ///
    /// # Errors
    /// There are a million of them.
    pub fn put(&self, record: &Record) -> Result<()> {
        self.map.word(AT_LAST_FH).fetch_max(record.fh, Ordering::AcqRel);
        self.table.lock().put(&self.map, record)
    }

    /// Removes a handle with all its locks.
    pub fn remove(&self, fh: u64) {
        self.table.lock().remove(&self.map, fh);
        self.places.lock().remove(&self.map, fh);
    }

    /// Removes the lock that an owner holds through a handle.
    pub fn remove_lock(&self, fh: u64, kind: Kind, owner: u64) {
        self.table.lock().remove_lock(&self.map, fh, kind, owner);
    }

    /// All handles and locks, handles in the order of their numbers, each followed by its locks.
    pub fn records(&self) -> Vec<Record> {
        self.table.lock().all(&self.map)
    }

    /// Notes how far a directory has been listed, before the kernel is answered. The place noted before is kept as well: the
    /// kernel may send the request again.
    pub fn listed(&self, fh: u64, place: &Place) {
        self.places.lock().note(&self.map, fh, place);
    }

    /// Up to two places of a directory, the latest first.
    pub fn places(&self, fh: u64) -> Vec<Place> {
        self.places.lock().of(&self.map, fh)
    }

    /// Every handle of an inode has an error to report.
    pub fn fail(&self, ino: u64, errno: i32) {
        self.table.lock().fail(&self.map, ino, errno);
    }

    /// A handle has reported its error.
    pub fn reported(&self, fh: u64) {
        self.table.lock().reported(&self.map, fh);
    }

    /// Room in the log for a write of so many bytes; `None` if it is full: what is in it must be committed first.
    pub fn room(&self, bytes: usize) -> Option<Room> {
        self.log.lock().room(&self.map, bytes)
    }

    /// Longer writes do not fit into the log, even when it is empty.
    pub fn log_capacity(&self) -> u64 {
        self.log.lock().capacity()
    }

    /// Notes what was written, which may be in pieces. It is there when this returns, and comes after all that others have noted
    /// before. `room` was asked for with the same length.
    pub fn append(&self, room: Room, written: &Written, parts: &[std::io::IoSlice<'_>]) -> Ticket {
        let ticket = log::append(&self.map, room, written, parts);
        if written.append && written.unique != 0 {
            let n = self.appended.fetch_add(1, Ordering::Relaxed) % APPENDED_MAX;
            self.map.word(APPENDED + n * 8).store(written.unique, Ordering::Release);
        }
        ticket
    }

    /// The requests whose data was appended, so that none of them is made again when the kernel sends it again to the next process:
    /// to be asked before that begins to write.
    pub fn appended(&self) -> HashSet<u64> {
        let last = (0..APPENDED_MAX).map(|n| self.map.word(APPENDED + n * 8).load(Ordering::Acquire));
        // Of the very last one only the log may tell.
        let logged = self.log.lock().all(&self.map).into_iter().map(|found| found.written());
        let logged = logged.filter(|w| w.append).map(|w| w.unique);
        last.chain(logged).filter(|unique| *unique != 0).collect()
    }

    /// What was written is to be committed in another slice than it was noted with.
    pub fn moved(&self, ticket: &Ticket, slice: u64) {
        log::moved(&self.map, ticket, slice);
    }

    /// Room that is not needed after all.
    pub fn give_back(&self, room: Room) {
        self.log.lock().give_back(&self.map, room);
    }

    /// What was written is committed, or lost and told so.
    pub fn release(&self, tickets: impl IntoIterator<Item = Ticket>) {
        self.log.lock().release(&self.map, tickets);
    }

    /// What the log holds, in the order in which it was noted. Bytes are copied one by one as the iterator is asked.
    pub fn iter(&self) -> impl Iterator<Item = Logged> + '_ {
        let found = self.log.lock().all(&self.map);
        found.into_iter().map(|f| f.read(&self.map))
    }

    /// What is told of each of those, without their bytes.
    pub fn written(&self) -> Vec<Written> {
        self.log.lock().all(&self.map).iter().map(log::Found::written).collect()
    }

    /// Bytes of the log that are in memory now, more or less.
    pub fn log_memory(&self) -> u64 {
        self.log.lock().memory()
    }

    /// Gives memory back that the process before has left behind.
    pub fn tidy(&self) {
        self.log.lock().tidy(&self.map);
    }
}

/// Segments of a log of so many bytes.
fn segments(log_bytes: u64) -> Result<usize> {
    let segments = usize::try_from(log_bytes.div_ceil(SEGMENT as u64));
    Ok(segments.map_err(|e| Error::new(ErrorKind::InvalidInput, e))?.max(8))
}

/// The whole length of a state.
fn length(handles: usize, segments: usize) -> usize {
    let table = handles.saturating_mul(table::RECORD);
    let places = places::PLACES * places::PLACE;
    HEADER.saturating_add(table).saturating_add(places).saturating_add(segments.saturating_mul(SEGMENT))
}

/// Of what never changes in the header.
fn checksum(map: &Map) -> u64 {
    u64::from(crc32c::crc32c(&map.read(AT_VERSION, AT_CHECKSUM - AT_VERSION)))
}
