//! What was written and is not committed yet.
//!
//! The log is cut into segments of 1 MiB; a write lies in one or several of them, in pieces with a header each. A segment is used
//! again when nothing in it counts any more. Small writes have segments of their own: a trickle of them would keep the memory of a
//! stream.
//!
//! Where a segment's pieces end, the next header's state is 0; that word is written before the piece in front of it exists. So what
//! earlier uses of the memory have left, which users have chosen, is never taken for a header.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::map::Map;

/// Bytes of a segment.
pub(crate) const SEGMENT: usize = 1 << 20;
/// Bytes of a piece's header; pieces begin at multiples of it.
const PIECE: usize = 64;
/// Writes up to this length share segments.
const SMALL: usize = 64 << 10;
/// Less than this is not worth a piece of its own.
const LEAST: usize = 4 << 10;
/// Empty segments whose memory is kept.
const WARM: usize = 8;
/// What is kept of a file's empty segments: their first word is looked at.
const FIRST: usize = 4 << 10;

/// Words of a header, by offset.
const STATE: usize = 0;
/// Length of the piece in the lower half; its number and how many there are above.
const SHAPE: usize = 8;
const SEQ: usize = 16;
const INO: usize = 24;
const AT: usize = 32;
const SLICE: usize = 40;
const UNIQUE: usize = 48;
const FLAGS: usize = 56;

/// States: room for a piece that counts for nothing yet,
const ROOM: u64 = 1;
/// a piece that counts,
const VALID: u64 = 2;
/// and one that does so no more.
const DEAD: u64 = 3;

/// Flag of what is appended.
const APPEND: u64 = 1;

/// What is told of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub ino: u64,
    /// Offset in the file. Of what is appended: where the end was believed to be.
    pub at: u64,
    /// It goes to the end of the file.
    pub append: bool,
    /// The slice that it is to be committed in.
    pub slice: u64,
    /// The kernel's number of the request, 0 if unknown. It tells a request that is sent again from a new one.
    pub unique: u64,
}

/// A write that the log holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// What was told of it.
    pub written: Written,
    /// Its bytes.
    pub data: Vec<u8>,
    /// To release it by.
    pub ticket: Ticket,
}

/// A write in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what is never released fills the log"]
pub struct Ticket(Places);

/// Where the pieces of a write are, by the offset of their headers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Places {
    One(usize),
    Many(Vec<usize>),
}

impl Places {
    fn all(&self) -> &[usize] {
        match self {
            Self::One(at) => std::slice::from_ref(at),
            Self::Many(all) => all,
        }
    }
}

/// Room for a write.
#[must_use = "room that is not given back fills the log"]
#[derive(Debug)]
pub struct Room(Places);

/// A write that was found in the memory, not copied yet.
pub(crate) struct Found {
    written: Written,
    pieces: Vec<(usize, usize)>,
}

impl Found {
    pub(crate) fn written(&self) -> Written {
        self.written
    }

    pub(crate) fn read(self, map: &Map) -> Logged {
        let data = self.pieces.iter().flat_map(|(at, len)| map.read(at + PIECE, *len)).collect();
        let places = match self.pieces[..] {
            [(at, _)] => Places::One(at),
            _ => Places::Many(self.pieces.iter().map(|(at, _)| *at).collect()),
        };
        Logged { written: self.written, data, ticket: Ticket(places) }
    }
}

/// The order of all writes. One for all states of the process, which only has to grow.
static SEQUENCE: AtomicU64 = AtomicU64::new(1);

/// A segment that is being filled.
#[derive(Clone, Copy)]
struct Filling {
    segment: usize,
    /// Where the next header goes, in the segment.
    at: usize,
}

/// Which segments are used how.
pub(crate) struct Log {
    base: usize,
    /// Pieces of each segment that count, or may come to.
    live: Vec<u32>,
    /// Segments that are empty and have memory, or may have some.
    warm: VecDeque<usize>,
    /// Segments that are empty and have none.
    cold: Vec<usize>,
    /// For small writes and for others.
    filling: [Option<Filling>; 2],
}

impl Log {
    /// The log in memory that some process has left. What it had room for only, counts no more.
    pub(crate) fn read(map: &Map, base: usize, segments: usize) -> Self {
        let mut log = Self {
            base,
            live: vec![0; segments],
            warm: VecDeque::new(),
            cold: Vec::new(),
            filling: [None; 2],
        };
        for segment in (0..segments).rev() {
            let mut touched = false;
            let mut live = 0;
            let mut last = 0;
            log.walk(map, segment, |at, state, _| {
                touched = true;
                if state == VALID {
                    live += 1;
                    last = last.max(map.word(at + SEQ).load(Ordering::Relaxed));
                }
            });
            SEQUENCE.fetch_max(last + 1, Ordering::AcqRel);
            log.live[segment] = live;
            match (live, touched) {
                (0, true) => log.warm.push_back(segment),
                (0, false) => log.cold.push(segment),
                _ => {}
            }
        }
        log
    }

    /// Has the file system of a file provide what is looked at of each segment, and enough of them for a write of any length that the
    /// kernel sends: so many are never given back. False if it cannot.
    pub(crate) fn reserve(map: &Map, base: usize, segments: usize) -> bool {
        (0..segments).all(|n| map.reserve(base + n * SEGMENT, if n < WARM { SEGMENT } else { FIRST }))
    }

    pub(crate) fn capacity(&self) -> u64 {
        // Two are being filled, and each piece has a header.
        (self.live.len().saturating_sub(3) * (SEGMENT - PIECE)) as u64
    }

    pub(crate) fn memory(&self) -> u64 {
        ((self.live.len() - self.cold.len()) * SEGMENT) as u64
    }

    fn start(&self, segment: usize) -> usize {
        self.base + segment * SEGMENT
    }

    /// Calls `see` with place, state and length of each piece of a segment.
    fn walk(&self, map: &Map, segment: usize, mut see: impl FnMut(usize, u64, usize)) {
        let (start, mut at) = (self.start(segment), 0);
        while at + PIECE <= SEGMENT {
            let state = map.word(start + at + STATE).load(Ordering::Acquire);
            let len = map.word(start + at + SHAPE).load(Ordering::Relaxed) as u32 as usize;
            if !matches!(state, ROOM | VALID | DEAD) || len > SEGMENT - PIECE - at {
                return;
            }
            see(start + at, state, len);
            at = next_piece(at, len);
        }
    }

    /// Takes room for a write, all of it or nothing.
    pub(crate) fn room(&mut self, map: &Map, bytes: usize) -> Option<Room> {
        let class = usize::from(bytes > SMALL);
        let fits = self.filling[class].map_or(0, |f| (SEGMENT - f.at).saturating_sub(PIECE));
        if bytes <= fits {
            let at = self.take(map, class, bytes, 0, 1)?;
            return Some(Room(Places::One(at)));
        }
        // The rest of the segment, if it is worth it, and as many others as it takes.
        let first = if class == 1 && fits >= LEAST { fits } else { 0 };
        let others = (bytes - first).div_ceil(SEGMENT - PIECE).max(1);
        if others > self.warm.len() + self.cold.len() || !self.provide(map, others) {
            return None;
        }
        let count = others + usize::from(first > 0);
        let mut places = Vec::with_capacity(count);
        let mut rest = bytes;
        for number in 0..count {
            if number > 0 || first == 0 {
                self.begin_segment(map, class);
            }
            let len = if number == 0 && first > 0 { first } else { rest.min(SEGMENT - PIECE) };
            places.push(self.take(map, class, len, number, count)?);
            rest -= len;
        }
        Some(Room(match places[..] {
            [at] => Places::One(at),
            _ => Places::Many(places),
        }))
    }

    /// Has a file's system provide so many empty segments; false if it is full.
    fn provide(&self, map: &Map, segments: usize) -> bool {
        let cold = segments.saturating_sub(self.warm.len());
        self.cold.iter().rev().take(cold).all(|segment| map.reserve(self.start(*segment), SEGMENT))
    }

    /// Gives the memory of a segment back in which nothing counts.
    fn punch(&self, map: &Map, segment: usize) {
        let kept = if map.is_file() { FIRST } else { 0 };
        map.punch(self.start(segment) + kept, SEGMENT - kept);
    }

    /// A piece in the segment that is being filled, which has the room.
    fn take(&mut self, map: &Map, class: usize, len: usize, number: usize, count: usize) -> Option<usize> {
        let filling = self.filling[class].as_mut()?;
        let segment = filling.segment;
        let place = self.base + segment * SEGMENT + filling.at;
        let next = next_piece(filling.at, len);
        if next + PIECE <= SEGMENT {
            map.word(self.base + segment * SEGMENT + next + STATE).store(0, Ordering::Relaxed);
        }
        let shape = len as u64 | (number as u64) << 32 | (count as u64) << 48;
        map.word(place + SHAPE).store(shape, Ordering::Release);
        map.word(place + STATE).store(ROOM, Ordering::Release);
        filling.at = next;
        self.live[segment] += 1;
        Some(place)
    }

    /// Goes on with another segment; there is one.
    fn begin_segment(&mut self, map: &Map, class: usize) {
        if let Some(old) = self.filling[class].take()
            && self.live[old.segment] == 0
        {
            self.empty(map, old.segment);
        }
        let (segment, is_cold) = match self.warm.pop_back() {
            Some(segment) => (segment, false),
            None => match self.cold.pop() {
                Some(segment) => (segment, true),
                None => return,
            },
        };
        let start = self.start(segment);
        if is_cold && class == 1 {
            map.populate(start, SEGMENT);
        }
        map.word(start + STATE).store(0, Ordering::Release);
        self.filling[class] = Some(Filling { segment, at: 0 });
    }

    /// Nothing in a segment counts any more.
    fn empty(&mut self, map: &Map, segment: usize) {
        map.word(self.start(segment) + STATE).store(0, Ordering::Release);
        if let Some(filling) = self.filling.iter_mut().flatten().find(|f| f.segment == segment) {
            filling.at = 0;
            return;
        }
        self.warm.push_back(segment);
        if self.warm.len() > WARM
            && let Some(oldest) = self.warm.pop_front()
        {
            self.punch(map, oldest);
            self.cold.push(oldest);
        }
    }

    fn forget(&mut self, map: &Map, places: &Places) {
        // The first says that the others count no more, should this be the process's last act.
        for place in places.all() {
            map.word(place + STATE).store(DEAD, Ordering::Release);
        }
        for place in places.all() {
            let segment = (place - self.base) / SEGMENT;
            self.live[segment] = self.live[segment].saturating_sub(1);
            if self.live[segment] == 0 {
                self.empty(map, segment);
            }
        }
    }

    pub(crate) fn give_back(&mut self, map: &Map, room: Room) {
        self.forget(map, &room.0);
    }

    pub(crate) fn release(&mut self, map: &Map, tickets: impl IntoIterator<Item = Ticket>) {
        for ticket in tickets {
            self.forget(map, &ticket.0);
        }
    }

    /// Every write that is there with all its pieces, in order.
    pub(crate) fn all(&self, map: &Map) -> Vec<Found> {
        let mut pieces: Vec<(u64, u16, u16, usize, usize)> = Vec::new();
        for segment in 0..self.live.len() {
            self.walk(map, segment, |at, state, len| {
                if state == VALID {
                    let shape = map.word(at + SHAPE).load(Ordering::Relaxed);
                    let seq = map.word(at + SEQ).load(Ordering::Relaxed);
                    pieces.push((seq, (shape >> 32) as u16, (shape >> 48) as u16, at, len));
                }
            });
        }
        pieces.sort_unstable();
        pieces
            .chunk_by(|a, b| a.0 == b.0)
            .filter(|of_one| {
                let count = of_one.first().map_or(0, |p| p.2);
                of_one.len() == usize::from(count)
                    && of_one.iter().enumerate().all(|(n, p)| n == usize::from(p.1))
            })
            .filter_map(|of_one| {
                let at = of_one.first()?.3;
                let word = |field: usize| map.word(at + field).load(Ordering::Relaxed);
                let written = Written {
                    ino: word(INO),
                    at: word(AT),
                    append: word(FLAGS) & APPEND != 0,
                    slice: word(SLICE),
                    unique: word(UNIQUE),
                };
                Some(Found { written, pieces: of_one.iter().map(|p| (p.3, p.4)).collect() })
            })
            .collect()
    }

    /// Pieces of writes that are not there with all of them are forgotten, and memory that nobody needs is given back.
    pub(crate) fn tidy(&mut self, map: &Map) {
        let whole: std::collections::HashSet<usize> =
            self.all(map).iter().flat_map(|f| f.pieces.iter().map(|p| p.0)).collect();
        for segment in 0..self.live.len() {
            let mut torn = Vec::new();
            self.walk(map, segment, |at, state, _| {
                if state == VALID && !whole.contains(&at) {
                    torn.push(at);
                }
            });
            for at in torn {
                self.forget(map, &Places::One(at));
            }
        }
        let kept = if map.is_file() { WARM } else { 0 };
        while self.warm.len() > kept
            && let Some(segment) = self.warm.pop_front()
        {
            self.punch(map, segment);
            self.cold.push(segment);
        }
    }
}

/// Where the header after a piece goes.
fn next_piece(at: usize, len: usize) -> usize {
    at + PIECE + len.next_multiple_of(PIECE)
}

/// Notes another slice for a write.
pub(crate) fn moved(map: &Map, ticket: &Ticket, slice: u64) {
    if let Some(first) = ticket.0.all().first() {
        map.word(first + SLICE).store(slice, Ordering::Release);
    }
}

/// Fills room with what was written and makes it count. Needs no lock: nobody else knows the room.
pub(crate) fn append(map: &Map, room: Room, written: &Written, parts: &[IoSlice<'_>]) -> Ticket {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let room_len: u64 =
        room.0.all().iter().map(|at| u64::from(map.word(at + SHAPE).load(Ordering::Relaxed) as u32)).sum();
    // What the memory held before must not become part of a write.
    assert_eq!(len as u64, room_len, "the room is that of another write");
    let seq = SEQUENCE.fetch_add(1, Ordering::AcqRel);
    let mut parts = parts.iter().map(|p| &p[..]);
    let mut rest: &[u8] = &[];
    for place in room.0.all() {
        let shape = map.word(place + SHAPE).load(Ordering::Relaxed);
        let (mut at, mut left) = (place + PIECE, shape as u32 as usize);
        while left > 0 {
            if rest.is_empty() {
                match parts.next() {
                    Some(part) => rest = part,
                    None => break,
                }
                continue;
            }
            let n = rest.len().min(left);
            map.write(at, &rest[..n]);
            rest = &rest[n..];
            at += n;
            left -= n;
        }
        let set = |field: usize, value: u64| map.word(place + field).store(value, Ordering::Relaxed);
        set(SEQ, seq);
        set(INO, written.ino);
        set(AT, written.at);
        set(SLICE, written.slice);
        set(UNIQUE, written.unique);
        set(FLAGS, if written.append { APPEND } else { 0 });
    }
    // It counts when the last of its pieces does.
    for place in room.0.all() {
        map.word(place + STATE).store(VALID, Ordering::Release);
    }
    Ticket(room.0)
}
