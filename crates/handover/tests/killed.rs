//! A process that is killed at any moment, with several threads at work, leaves exactly what it was told to keep.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use ciderfs_handover::{Kind, Record, State, Ticket, Written};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const THREADS: u64 = 3;
/// Operations of a thread that fit into the diary.
const OPS: u64 = 200_000;

/// What the child was about to do, and has done: a byte for each write and each handle, which outlives it as well.
#[derive(Clone, Copy)]
struct Diary(*mut u8);
// SAFETY: each byte is written by one thread.
unsafe impl Send for Diary {}

const BEGUN: u8 = 1;
const DONE: u8 = 2;
const RELEASING: u8 = 3;
const RELEASED: u8 = 4;

impl Diary {
    fn note(self, index: u64, what: u8) {
        // SAFETY: in bounds of the mapping, which is never undone.
        unsafe { std::sync::atomic::AtomicU8::from_ptr(self.0.add(index as usize)) }
            .store(what, std::sync::atomic::Ordering::SeqCst);
    }
}

fn memory(len: u64) -> File {
    // SAFETY: a new descriptor.
    let file = unsafe { File::from_raw_fd(libc::memfd_create(c"diary".as_ptr(), 0)) };
    file.set_len(len).unwrap();
    file
}

fn content(op: u64) -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(op);
    let len = match rng.random_range(0..10) {
        0 => rng.random_range(0..2_500_000),
        1..4 => rng.random_range(0..200_000),
        _ => rng.random_range(0..5000),
    };
    let (a, b) = (rng.random::<u8>(), rng.random_range(1..250_usize));
    (0..len).map(|i: usize| (i / b) as u8 ^ a).collect()
}

fn record(op: u64) -> Record {
    let kind = if op.is_multiple_of(5) { Kind::Dir } else { Kind::File };
    Record { kind, fh: op + 1, ino: op ^ 77, flags: op as i32, owner: op << 7, error: 0 }
}

/// The child: it works until it is killed.
#[test]
#[ignore = "run by the other test"]
fn child() {
    let fd = |name: &str| {
        let n: i32 = std::env::var(name).unwrap().parse().unwrap();
        // SAFETY: the parent has left it to this process.
        unsafe { OwnedFd::from_raw_fd(n) }
    };
    let (state, diary) = (State::from_fd(fd("STATE")).unwrap(), fd("DIARY"));
    let seed: u64 = std::env::var("SEED").unwrap().parse().unwrap();
    let len = (THREADS * OPS) as usize;
    // SAFETY: a new mapping of the whole diary.
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), len, libc::PROT_WRITE, libc::MAP_SHARED, diary.as_raw_fd(), 0)
    };
    assert_ne!(at, libc::MAP_FAILED);
    let diary = Diary(at.cast());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let state = &state;
            scope.spawn(move || work(state, diary, thread, seed));
        }
    });
}

fn work(state: &State, diary: Diary, thread: u64, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed * 100 + thread);
    let mut tickets: Vec<(u64, Ticket)> = Vec::new();
    let mut handles: Vec<u64> = Vec::new();
    for op in thread * OPS..(thread + 1) * OPS {
        if op % 4 == 0 {
            diary.note(op, BEGUN);
            state.put(&record(op)).unwrap();
            diary.note(op, DONE);
            handles.push(op);
            if handles.len() > 20 {
                let gone = handles.swap_remove(rng.random_range(0..handles.len()));
                diary.note(gone, RELEASING);
                state.remove(record(gone).fh);
                diary.note(gone, RELEASED);
            }
            continue;
        }
        let data = content(op);
        diary.note(op, BEGUN);
        let room = loop {
            match state.room(data.len()) {
                Some(room) => break room,
                // The log is full, of the others' too: they release theirs.
                None => release(state, diary, &mut tickets, 0),
            }
        };
        let written = Written { ino: thread, at: op, append: false, slice: op * 3, unique: op * 5 };
        let (a, b) = data.split_at(data.len() / 2);
        tickets.push((op, state.append(room, &written, &[IoSlice::new(a), IoSlice::new(b)])));
        diary.note(op, DONE);
        if rng.random_range(0..3) == 0 {
            let keep = rng.random_range(0..12);
            // In any order, as files are flushed.
            let n = tickets.len();
            tickets.rotate_left(rng.random_range(0..n));
            release(state, diary, &mut tickets, keep);
        }
    }
}

fn release(state: &State, diary: Diary, tickets: &mut Vec<(u64, Ticket)>, keep: usize) {
    while tickets.len() > keep {
        let (op, ticket) = tickets.pop().unwrap();
        diary.note(op, RELEASING);
        state.release([ticket]);
        diary.note(op, RELEASED);
    }
}

#[test]
fn what_a_killed_process_leaves() {
    let mut rng = StdRng::seed_from_u64(14);
    let began = Instant::now();
    let mut seen = 0;
    for round in 0..25 {
        let state = State::create("killed", 24 << 20).unwrap();
        let diary = memory(THREADS * OPS);
        let inherited = |fd: i32| {
            // SAFETY: duplicates a descriptor, without close-on-exec.
            unsafe { libc::fcntl(fd, libc::F_DUPFD, 100) }
        };
        let fds = [inherited(state.fd().as_raw_fd()), inherited(diary.as_raw_fd())];
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child"])
            .env("STATE", fds[0].to_string())
            .env("DIARY", fds[1].to_string())
            .env("SEED", round.to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        for fd in fds {
            // SAFETY: made above; the child has its own.
            unsafe { libc::close(fd) };
        }
        let mut first = [0];
        while first[0] == 0 {
            diary.read_exact_at(&mut first, 0).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "the child ended");
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..60_000)));
        child.kill().unwrap();
        child.wait().unwrap();

        let mut notes = vec![0; (THREADS * OPS) as usize];
        diary.read_exact_at(&mut notes, 0).unwrap();
        let left = State::from_fd(state.fd().try_clone_to_owned().unwrap()).unwrap();
        seen += compare(&left, &notes);
        // The next process finds the same, and after it has cleaned up too; and it can use all of it.
        left.tidy();
        let writes: Vec<_> = left.iter().map(|w| w.ticket).collect();
        compare(&left, &notes);
        left.release(writes);
        assert_eq!(left.iter().count(), 0);
        for _ in 0..18 {
            let room = left.room(1 << 20).expect("room as in a new log");
            let data = vec![1; 1 << 20];
            let written = Written { ino: 1, at: 0, append: true, slice: 0, unique: 0 };
            let _kept = left.append(room, &written, &[IoSlice::new(&data)]);
        }
        assert_eq!(left.iter().count(), 18);
    }
    println!("{seen} writes and handles compared in {:?}", began.elapsed());
    assert!(seen > 300);
}

/// Compares with the diary; returns how much was found.
fn compare(left: &State, notes: &[u8]) -> usize {
    let mut found = 0;
    let mut last = [0; THREADS as usize];
    let mut there = std::collections::HashSet::new();
    for w in left.iter() {
        let op = w.written.at;
        assert!(
            matches!(notes[op as usize], BEGUN | DONE | RELEASING),
            "write {op} was never made, or released"
        );
        assert_eq!((w.written.slice, w.written.unique), (op * 3, op * 5));
        assert!(w.data == content(op), "write {op} has other bytes");
        let last = &mut last[w.written.ino as usize];
        assert!(*last < op, "write {op} after {last}");
        *last = op;
        there.insert(op);
        found += 1;
    }
    for r in left.records() {
        let op = r.fh - 1;
        assert!(matches!(notes[op as usize], BEGUN | DONE | RELEASING), "handle {op}");
        assert_eq!(r, record(op));
        there.insert(op);
        found += 1;
    }
    for (op, note) in notes.iter().enumerate() {
        assert!(*note != DONE || there.contains(&(op as u64)), "{op} is lost");
    }
    found
}
