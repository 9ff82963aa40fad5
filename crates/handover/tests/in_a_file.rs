//! A state in a file, for processes that hold no descriptor for each other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::path::{Path, PathBuf};

use ciderfs_handover::{Kind, Record, State, Written};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

const MIB: usize = 1 << 20;

/// A file system of its own, which can be full.
struct Small(tempfile::TempDir);

impl Small {
    fn new(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("none", dir.path(), "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        Self(dir)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.join("other")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

fn found(path: &Path) -> State {
    State::from_fd(File::options().read(true).write(true).open(path).unwrap().into()).unwrap()
}

fn append(state: &State, ino: u64) -> Option<ciderfs_handover::Ticket> {
    let data = vec![ino as u8; MIB];
    let room = state.room(data.len())?;
    let written = Written { ino, at: 0, append: false, slice: 7, unique: 9 };
    Some(state.append(room, &written, &[IoSlice::new(&data)]))
}

#[test]
fn a_full_file_system_is_a_full_log() {
    let small = Small::new("64M");
    let path = small.join("state");
    let state = State::create_at(&path, 300 << 20).unwrap();
    assert!(State::create_at(&path, 1).is_err(), "over what is there");
    state.set_sid(42);
    small.fill();
    // What was reserved is enough for a while; then there is no room, and nobody dies of it.
    let mut tickets = Vec::new();
    while let Some(ticket) = append(&state, tickets.len() as u64) {
        tickets.push(ticket);
    }
    assert!((4..30).contains(&tickets.len()), "{}", tickets.len());
    let mut handles = 0;
    while state
        .put(&Record { kind: Kind::File, fh: handles + 1, ino: 3, flags: 2, owner: 0, error: 0 })
        .is_ok()
    {
        handles += 1;
    }
    assert!((1000..100_000).contains(&handles), "{handles}");
    for round in 0..3 {
        let next = found(&path);
        assert_eq!((next.sid(), next.records().len() as u64), (42, handles));
        let logged: Vec<_> = next.iter().collect();
        assert_eq!(logged.len(), tickets.len(), "round {round}");
        assert!(logged.iter().all(|l| l.data == vec![l.written.ino as u8; MIB]));
        // What is given back is there for the next writes, however full the rest is.
        next.release(logged.into_iter().map(|l| l.ticket));
        next.tidy();
        small.fill();
        tickets = std::iter::from_fn(|| append(&next, 5)).collect();
        assert!(tickets.len() >= 4, "round {round}: {}", tickets.len());
    }
}

#[test]
fn without_room_there_is_none() {
    let small = Small::new("4M");
    assert!(State::create_at(&small.join("state"), 300 << 20).is_err());
    assert!(!small.join("state").exists());
}
