//! How far open directories have been listed: where the last answer began and where it ended, of each.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use crate::map::Map;

/// Directories whose places are kept.
pub(crate) const PLACES: usize = 16_384;
/// Bytes of one: two halves, of which the older one is written.
pub(crate) const PLACE: usize = 2 * HALF;
const HALF: usize = 320;
/// Words of a half, by offset.
const NUMBER: usize = 0;
const FH: usize = 8;
const OFFSET: usize = 16;
const CURSOR: usize = 24;
const LEN: usize = 32;
const NAME: usize = 40;
/// Longest name.
const NAME_MAX: usize = 255;

/// Where a listing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The offset by which the kernel asks for it.
    pub offset: u64,
    /// Where the engine goes on to get at it again; what the number means is up to the caller.
    pub cursor: u64,
    /// The last name in front of it.
    pub name: Vec<u8>,
}

/// The places in use.
pub(crate) struct Places {
    base: usize,
    /// Where the greatest slot that was ever used is noted.
    used_at: usize,
    used: usize,
    free: Vec<usize>,
    slots: HashMap<u64, usize>,
    /// Grows with each place noted.
    number: u64,
}

impl Places {
    /// Those that some process has left.
    pub(crate) fn read(map: &Map, base: usize, used_at: usize) -> Self {
        let used = (map.word(used_at).load(Ordering::Acquire) as usize).min(PLACES);
        let mut places = Self { base, used_at, used, free: Vec::new(), slots: HashMap::new(), number: 0 };
        for slot in 0..used {
            let mut fh = None;
            for half in places.halves(slot) {
                let number = map.word(half + NUMBER).load(Ordering::Acquire);
                places.number = places.number.max(number);
                if number > 0 {
                    fh = Some(map.word(half + FH).load(Ordering::Relaxed));
                }
            }
            match fh {
                Some(fh) => _ = places.slots.insert(fh, slot),
                None => places.free.push(slot),
            }
        }
        places
    }

    fn halves(&self, slot: usize) -> [usize; 2] {
        let at = self.base + slot * PLACE;
        [at, at + HALF]
    }

    pub(crate) fn note(&mut self, map: &Map, fh: u64, place: &Place) {
        if place.name.len() > NAME_MAX {
            return;
        }
        let slot = match self.slots.get(&fh) {
            Some(slot) => *slot,
            None => {
                let slot = match self.free.pop() {
                    Some(slot) => slot,
                    None if self.used < PLACES && map.reserve(self.base + self.used * PLACE, PLACE) => {
                        self.used += 1;
                        map.word(self.used_at).store(self.used as u64, Ordering::Release);
                        self.used - 1
                    }
                    None => return,
                };
                self.slots.insert(fh, slot);
                slot
            }
        };
        let older =
            self.halves(slot).into_iter().min_by_key(|at| map.word(at + NUMBER).load(Ordering::Relaxed));
        let Some(at) = older else { return };
        let set = |field: usize, value: u64| map.word(at + field).store(value, Ordering::Relaxed);
        map.word(at + NUMBER).swap(0, Ordering::AcqRel);
        set(FH, fh);
        set(OFFSET, place.offset);
        set(CURSOR, place.cursor);
        set(LEN, place.name.len() as u64);
        map.write(at + NAME, &place.name);
        self.number += 1;
        map.word(at + NUMBER).store(self.number, Ordering::Release);
    }

    /// The places of a handle, the latest first.
    pub(crate) fn of(&self, map: &Map, fh: u64) -> Vec<Place> {
        let Some(slot) = self.slots.get(&fh) else { return Vec::new() };
        let mut found: Vec<(u64, Place)> = Vec::new();
        for at in self.halves(*slot) {
            let word = |field: usize| map.word(at + field).load(Ordering::Relaxed);
            let number = map.word(at + NUMBER).load(Ordering::Acquire);
            if number > 0 && word(FH) == fh {
                let name = map.read(at + NAME, (word(LEN) as usize).min(NAME_MAX));
                found.push((number, Place { offset: word(OFFSET), cursor: word(CURSOR), name }));
            }
        }
        found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        found.into_iter().map(|(_, place)| place).collect()
    }

    pub(crate) fn remove(&mut self, map: &Map, fh: u64) {
        if let Some(slot) = self.slots.remove(&fh) {
            for at in self.halves(slot) {
                map.word(at + NUMBER).store(0, Ordering::Release);
            }
            self.free.push(slot);
        }
    }
}
