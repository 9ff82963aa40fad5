//! What one process leaves is what the next one finds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::IoSlice;

use ciderfs_handover::{Kind, Logged, Place, Record, State, Ticket, Written};

const MIB: u64 = 1 << 20;

fn create(mib: u64) -> State {
    State::create("ciderfs-test", mib * MIB).unwrap()
}

/// The state as another process finds it.
fn again(state: &State) -> State {
    State::from_fd(state.fd().try_clone_to_owned().unwrap()).unwrap()
}

fn written(ino: u64, at: u64) -> Written {
    Written { ino, at, append: false, slice: 7, unique: 9 }
}

fn append(state: &State, ino: u64, at: u64, data: &[u8]) -> Ticket {
    let room = state.room(data.len()).expect("room");
    let (a, b) = data.split_at(data.len() / 3);
    state.append(room, &written(ino, at), &[IoSlice::new(a), IoSlice::new(b)])
}

fn bytes(n: usize, seed: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + seed * 17 + i / 251) as u8).collect()
}

fn handle(fh: u64) -> Record {
    Record { kind: Kind::File, fh, ino: 100 + fh, flags: 2, owner: 3, error: 0 }
}

#[test]
fn what_was_agreed_is_kept_whole() {
    let state = create(1);
    assert_eq!(again(&state).negotiated(), b"");
    state.set_negotiated(b"first").unwrap();
    state.set_negotiated(&bytes(512, 1)).unwrap();
    assert!(state.set_negotiated(&bytes(513, 1)).is_err());
    state.set_sid(42);
    let next = again(&state);
    assert_eq!((next.negotiated(), next.sid()), (bytes(512, 1), 42));
    next.set_negotiated(b"").unwrap();
    assert_eq!(again(&next).negotiated(), b"");
}

#[test]
fn what_is_no_state_is_refused() {
    let file = std::fs::File::open("/dev/zero").unwrap();
    assert!(State::from_fd(file.into()).is_err());
    let state = create(1);
    let other = std::fs::File::from(state.fd().try_clone_to_owned().unwrap());
    std::os::unix::fs::FileExt::write_at(&other, &[9], 16).unwrap();
    assert!(State::from_fd(other.into()).is_err());
    drop(state);
}

#[test]
fn handles_and_their_locks_are_found_again() {
    let state = create(1);
    for fh in 1..=1000 {
        state.put(&handle(fh)).unwrap();
    }
    for fh in (1..=1000).step_by(2) {
        state.remove(fh);
    }
    let lock = |fh, kind, owner| Record { kind, owner, ..handle(fh) };
    state.put(&lock(2, Kind::Plock, 5)).unwrap();
    state.put(&lock(2, Kind::Plock, 5)).unwrap();
    state.put(&lock(2, Kind::Plock, 6)).unwrap();
    state.put(&lock(2, Kind::Flock, 7)).unwrap();
    state.put(&lock(4, Kind::Flock, 8)).unwrap();
    state.remove_lock(2, Kind::Plock, 6);
    state.remove(4);
    state.fail(106, libc::EIO);
    state.fail(108, libc::EDQUOT);
    state.reported(8);

    let next = again(&state);
    assert_eq!(next.last_fh(), 1000);
    let got = next.records();
    assert_eq!(&got[..3], &[handle(2), lock(2, Kind::Flock, 7), lock(2, Kind::Plock, 5)]);
    assert_eq!(got[3], Record { error: libc::EIO, ..handle(6) });
    assert_eq!(got[4], handle(8));
    assert_eq!(got.len(), 499 + 2);
    // The next process goes on with the same table.
    next.remove(2);
    next.put(&handle(2000)).unwrap();
    let third = again(&next).records();
    assert_eq!((third.len(), third[0].fh, third.last().copied()), (499, 6, Some(handle(2000))));
}

#[test]
fn writes_of_every_length_are_found_in_order() {
    let state = create(32);
    let lengths =
        [1, 63, 64, 65, 4096, 65_536, 65_537, (1 << 20) - 64, 1 << 20, (1 << 20) + 1, 3 << 20, 0, 10];
    let tickets: Vec<Ticket> =
        lengths.iter().enumerate().map(|(n, len)| append(&state, n as u64, 10, &bytes(*len, n))).collect();
    let found: Vec<Logged> = again(&state).iter().collect();
    assert_eq!(found.len(), lengths.len());
    for (n, got) in found.iter().enumerate() {
        assert_eq!(got.written, written(n as u64, 10));
        assert_eq!(got.data, bytes(lengths[n], n), "write {n}");
        assert_eq!(got.ticket, tickets[n]);
    }
    let kept = [4, 9];
    let released = tickets.into_iter().enumerate().filter(|(n, _)| !kept.contains(n)).map(|(_, t)| t);
    state.release(released);
    let left: Vec<u64> = again(&state).iter().map(|w| w.written.ino).collect();
    assert_eq!(left, kept.map(|n| n as u64));
}

#[test]
fn a_full_log_has_room_again_when_it_is_released_by_this_process_or_the_next() {
    let state = create(16);
    let fill = |state: &State| {
        let mut tickets = Vec::new();
        while let Some(room) = state.room(1 << 20) {
            tickets.push(state.append(room, &written(1, 0), &[IoSlice::new(&bytes(1 << 20, 3))]));
        }
        tickets
    };
    let first = fill(&state);
    assert!(first.len() >= 13, "{}", first.len());
    assert!(state.room(1 << 20).is_none());
    state.release(first);
    let second = fill(&state);
    let next = again(&state);
    assert!(next.room(1 << 20).is_none());
    next.release(next.iter().map(|w| w.ticket).collect::<Vec<_>>());
    assert_eq!(again(&next).iter().count(), 0);
    let third = fill(&next);
    assert!(third.len() >= second.len() - 2, "{} after {}", third.len(), second.len());
}

#[test]
fn released_memory_is_given_back() {
    let state = create(64);
    let memory = || {
        let file = std::fs::File::from(state.fd().try_clone_to_owned().unwrap());
        std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap()) * 512
    };
    let tickets: Vec<Ticket> = (0..48).map(|n| append(&state, n, 0, &bytes(1 << 20, 5))).collect();
    assert!(memory() >= 48 * MIB);
    state.release(tickets);
    assert!(memory() <= 16 * MIB, "{}", memory());
    // A trickle of small writes that stay does not keep what large ones leave.
    let mut kept = Vec::new();
    for n in 0..200 {
        let large = append(&state, n, 0, &bytes(1 << 20, 6));
        kept.push(append(&state, n, 0, &bytes(100, 7)));
        state.release([large]);
    }
    assert!(memory() <= 16 * MIB, "{}", memory());
    state.release(kept);
    assert_eq!(state.iter().count(), 0);
}

#[test]
fn what_users_write_is_never_taken_for_a_record() {
    let state = create(8);
    // A write whose content is a whole valid write of another file, at every place where a header could be.
    let victim = append(&state, 1, 0, &bytes(100, 1));
    let memory = std::fs::File::from(state.fd().try_clone_to_owned().unwrap());
    let mut header = [0_u8; 64];
    let base = 36864 + (1 << 20) * 64 + 16_384 * 640;
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut header, base).unwrap();
    if header == [0; 64] {
        // Segments are taken from either end.
        let end = memory.metadata().unwrap().len();
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut header, end - MIB).unwrap();
    }
    assert_ne!(header, [0; 64], "the header was found");
    state.release([victim]);
    let forged: Vec<u8> = header.iter().copied().cycle().take(60_000).collect();
    for _ in 0..3 {
        let ticket = append(&state, 2, 0, &forged);
        state.release([ticket]);
        let one = append(&state, 3, 0, &[1]);
        let _room = state.room(40).unwrap();
        let found: Vec<u64> = again(&state).iter().map(|w| w.written.ino).collect();
        assert_eq!(found, [3]);
        state.release([one]);
    }
}

#[test]
fn how_far_directories_were_listed_is_found_again() {
    let state = create(1);
    let place = |n: u64| Place { offset: n, cursor: n * 3, name: bytes((n % 256) as usize, n as usize) };
    for fh in 0..20_000 {
        state.listed(fh, &place(fh));
    }
    for n in [300, 301, 302] {
        state.listed(7, &place(n));
    }
    state.remove(8);
    let next = again(&state);
    assert_eq!(next.places(6), [place(6)]);
    assert_eq!(next.places(7), [place(302), place(301)]);
    assert_eq!(next.places(8), []);
    assert_eq!(next.places(19_999), [], "more directories than are kept");
    next.listed(30_000, &place(1));
    next.listed(7, &place(303));
    assert_eq!(again(&next).places(30_000), [place(1)]);
    assert_eq!(again(&next).places(7), [place(303), place(302)]);
}

#[test]
fn requests_that_appended_are_known_when_they_are_sent_again() {
    let state = create(8);
    let append = |n: u64| {
        let room = state.room(10).unwrap();
        let written = Written { append: true, unique: n * 2, ..written(1, 0) };
        state.append(room, &written, &[IoSlice::new(&bytes(10, 1))])
    };
    for n in 1..5000 {
        state.release([append(n)]);
    }
    let left = append(5000);
    state.moved(&left, 99);
    let next = again(&state);
    let known = next.appended();
    assert!((1000..=5000).all(|n| known.contains(&(n * 2))));
    assert!(!known.contains(&1) && known.len() <= 4096);
    assert_eq!(next.iter().map(|w| w.written.slice).collect::<Vec<_>>(), [99]);
}

/// `cargo test -p ciderfs-handover --test state -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn how_fast_the_log_is() {
    for (len, kept) in [(4096, 16), (65_536, 64), (131_072, 256), (1 << 20, 4), (1 << 20, 64)] {
        let state = create(300);
        let data = bytes(len, 1);
        let mut tickets = std::collections::VecDeque::new();
        let began = std::time::Instant::now();
        let mut done = 0_u64;
        while done < 4 << 30 {
            let room = state.room(len).unwrap();
            tickets.push_back(state.append(room, &written(1, 0), &[IoSlice::new(&data)]));
            if tickets.len() > kept {
                state.release(tickets.pop_front());
            }
            done += len as u64;
        }
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{len} bytes, {kept} in the log: {:.2} GB/s, {:.2} us",
            done as f64 / seconds / 1e9,
            seconds * 1e6 / (done / len as u64) as f64
        );
    }
}
