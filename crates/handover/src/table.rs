//! Open handles and the locks that they hold, in records of one size.

use std::collections::HashMap;
use std::io::{Error, Result};
use std::sync::atomic::Ordering;

use crate::map::Map;

/// Bytes of a record.
pub(crate) const RECORD: usize = 64;
/// Memory of a file is reserved in pieces of so many bytes.
pub(crate) const CHUNK: usize = 64 << 10;
/// Words of a record, by offset.
const STATE: usize = 0;
const FH: usize = 8;
const INO: usize = 16;
const FLAGS: usize = 24;
const OWNER: usize = 32;
const ERROR: usize = 40;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An open file.
    File,
    /// An open directory.
    Dir,
    /// A flock that an open file holds, or waits for.
    Flock,
    /// Record locks that an owner holds through an open file, or waits for.
    Plock,
}

impl Kind {
    fn of(n: u64) -> Option<Self> {
        match n {
            1 => Some(Self::File),
            2 => Some(Self::Dir),
            3 => Some(Self::Flock),
            4 => Some(Self::Plock),
            _ => None,
        }
    }

    /// What the state word of a valid record holds.
    fn number(self) -> u64 {
        match self {
            Self::File => 1,
            Self::Dir => 2,
            Self::Flock => 3,
            Self::Plock => 4,
        }
    }

    fn is_lock(self) -> bool {
        matches!(self, Self::Flock | Self::Plock)
    }
}

/// An open handle, or a lock of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What it is about.
    pub kind: Kind,
    /// Number of the handle.
    pub fh: u64,
    /// Its inode.
    pub ino: u64,
    /// Of `open(2)`, as the kernel gave them. Of a lock: 1 if it is held.
    pub flags: i32,
    /// The owner of the lock as other clients see it. Of a handle: who opened it, the user in the lower half, the group above.
    pub owner: u64,
    /// An error of writing that the handle has not reported yet; 0: none.
    pub error: i32,
}

/// Where the records of a handle are.
#[derive(Default)]
struct Places {
    ino: u64,
    handle: Option<u32>,
    locks: Vec<(Kind, u64, u32)>,
}

/// The records that are in use.
pub(crate) struct Table {
    base: usize,
    /// Free records below `used`.
    free: Vec<u32>,
    /// None beyond was ever used.
    used: u32,
    max: u32,
    handles: HashMap<u64, Places>,
}

impl Table {
    /// The records in memory that some process has left.
    pub(crate) fn read(map: &Map, base: usize, max: usize) -> Self {
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let mut table = Self { base, free: Vec::new(), used: 0, max, handles: HashMap::new() };
        // The first record's spare word says how many may have been used: no more have to be looked at.
        let used = map.word(base + RECORD - 8).load(Ordering::Acquire);
        table.used = u32::try_from(used).unwrap_or(max).min(max);
        for slot in 0..table.used {
            match table.record(map, slot) {
                Some(r) => table.index(&r, slot),
                None => table.free.push(slot),
            }
        }
        table
    }

    fn at(&self, slot: u32) -> usize {
        self.base + slot as usize * RECORD
    }

    fn index(&mut self, r: &Record, slot: u32) {
        let places = self.handles.entry(r.fh).or_default();
        if r.kind.is_lock() {
            places.locks.push((r.kind, r.owner, slot));
        } else {
            (places.ino, places.handle) = (r.ino, Some(slot));
        }
    }

    fn record(&self, map: &Map, slot: u32) -> Option<Record> {
        let at = self.at(slot);
        let kind = Kind::of(map.word(at + STATE).load(Ordering::Acquire))?;
        let word = |field: usize| map.word(at + field).load(Ordering::Relaxed);
        Some(Record {
            kind,
            fh: word(FH),
            ino: word(INO),
            flags: word(FLAGS) as i32,
            owner: word(OWNER),
            error: word(ERROR) as i32,
        })
    }

    pub(crate) fn put(&mut self, map: &Map, r: &Record) -> Result<()> {
        if r.kind.is_lock()
            && let Some(p) = self.handles.get(&r.fh)
            && let Some((_, _, slot)) =
                p.locks.iter().find(|(kind, owner, _)| (*kind, *owner) == (r.kind, r.owner))
        {
            map.word(self.at(*slot) + FLAGS).store(r.flags as u32 as u64, Ordering::Release);
            return Ok(());
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.used < self.max => {
                let next = self.at(self.used);
                if (next - self.base).is_multiple_of(CHUNK) && !map.reserve(next, CHUNK) {
                    return Err(Error::from_raw_os_error(libc::ENFILE));
                }
                self.used += 1;
                map.word(self.base + RECORD - 8).store(u64::from(self.used), Ordering::Release);
                self.used - 1
            }
            None => return Err(Error::from_raw_os_error(libc::ENFILE)),
        };
        let at = self.at(slot);
        let set = |field: usize, value: u64| map.word(at + field).store(value, Ordering::Relaxed);
        set(FH, r.fh);
        set(INO, r.ino);
        set(FLAGS, r.flags as u32 as u64);
        set(OWNER, r.owner);
        set(ERROR, r.error as u32 as u64);
        map.word(at + STATE).store(r.kind.number(), Ordering::Release);
        self.index(r, slot);
        Ok(())
    }

    fn clear(&mut self, map: &Map, slot: u32) {
        map.word(self.at(slot) + STATE).store(0, Ordering::Release);
        self.free.push(slot);
    }

    pub(crate) fn remove(&mut self, map: &Map, fh: u64) {
        let Some(places) = self.handles.remove(&fh) else { return };
        // A lock without its handle is passed over, a handle without its locks would keep them for ever.
        if let Some(slot) = places.handle {
            self.clear(map, slot);
        }
        for (_, _, slot) in places.locks {
            self.clear(map, slot);
        }
    }

    pub(crate) fn remove_lock(&mut self, map: &Map, fh: u64, kind: Kind, owner: u64) {
        let Some(places) = self.handles.get_mut(&fh) else { return };
        if let Some(n) = places.locks.iter().position(|(k, o, _)| (*k, *o) == (kind, owner)) {
            let (_, _, slot) = places.locks.swap_remove(n);
            self.clear(map, slot);
        }
    }

    pub(crate) fn all(&self, map: &Map) -> Vec<Record> {
        let mut out: Vec<Record> = (0..self.used).filter_map(|slot| self.record(map, slot)).collect();
        // Of a handle that was being removed when its process ended, only locks may be left.
        out.retain(|r| !r.kind.is_lock() || self.handles.get(&r.fh).is_some_and(|p| p.handle.is_some()));
        out.sort_by_key(|r| (r.fh, r.kind, r.owner));
        out
    }

    pub(crate) fn fail(&mut self, map: &Map, ino: u64, errno: i32) {
        for places in self.handles.values().filter(|p| p.ino == ino) {
            if let Some(slot) = places.handle {
                map.word(self.at(slot) + ERROR).store(errno as u32 as u64, Ordering::Release);
            }
        }
    }

    pub(crate) fn reported(&mut self, map: &Map, fh: u64) {
        if let Some(slot) = self.handles.get(&fh).and_then(|p| p.handle) {
            map.word(self.at(slot) + ERROR).store(0, Ordering::Release);
        }
    }
}
