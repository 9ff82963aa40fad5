//! Processes of a mount that are killed at any moment, one after the other, over SQLite and a directory of objects: the next one
//! has everything that was acknowledged, and the request that was not answered is sent to it again, as the kernel does.
#![allow(clippy::disallowed_methods, reason = "tests run on real clocks and threads")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_block::{BlockConfig, BlockStore};
use ciderfs_format::lock::{F_WRLCK, LockRecord};
use ciderfs_format::{Ino, SessionId, Settings};
use ciderfs_handover::State;
use ciderfs_meta::store::Store;
use ciderfs_meta::{Caller, Lock, Meta, MetaConfig, SetAttr};
use ciderfs_meta_sql::{Options, SqliteStore};
use ciderfs_vfs::{LockRequest, Metrics, OpenCache, Vfs, VfsConfig};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Operations in all; the last process comes to the end of them.
const OPS: u64 = 1500;
const FILES: usize = 3;
/// Times that a process is killed.
const KILLS: u64 = 25;

/// What a process notes for the next one, and for the test.
mod diary {
    /// How many operations were acknowledged.
    pub(super) const DONE: u64 = 0;
    /// Handles of a file: for reading and writing, for appending.
    pub(super) const HANDLES: u64 = 64;
}

fn word(diary: &File, at: u64) -> u64 {
    let mut raw = [0; 8];
    diary.read_exact_at(&mut raw, at).unwrap();
    u64::from_le_bytes(raw)
}

fn note(diary: &File, at: u64, value: u64) {
    diary.write_all_at(&value.to_le_bytes(), at).unwrap();
}

async fn store(dir: &Path) -> Arc<dyn Store> {
    let url = format!("sqlite3://{}", dir.join("meta.db").display());
    Arc::new(SqliteStore::open(&url, Options::default()).unwrap())
}

async fn mount(dir: &Path, state: Option<Arc<State>>, resume: bool) -> (Arc<Vfs>, Arc<Meta>) {
    let meta = Meta::load(store(dir).await, MetaConfig::default()).await.unwrap();
    let lives = match (&state, resume) {
        (Some(state), true) => meta.take_over_session(SessionId(state.sid())).await.unwrap(),
        _ => meta.start_session().await.map(|()| true).unwrap(),
    };
    assert!(lives);
    let objects = Arc::new(ciderfs_object::FileStore::new(dir.join("objects")));
    let blocks = BlockConfig { block_size: 64 << 10, buffer_size: 64 << 20, ..BlockConfig::default() };
    let blocks = BlockStore::new(objects, blocks).unwrap();
    let cfg = VfsConfig {
        max_readahead: None,
        hide_internal: false,
        prefix_internal: false,
        sort_dir: false,
        attr_valid: Duration::from_secs(1),
        open_cache: OpenCache::default(),
        config_json: serde_json::Value::Null,
        metrics: Arc::new(Metrics::new(HashMap::new()).unwrap()),
        handover: state,
    };
    let vfs = Vfs::new(Arc::clone(&meta), blocks, cfg);
    if resume {
        let found = vfs.resume(lives).await.unwrap();
        assert_eq!((found.lost_handles, found.lost_writes), (0, 0));
    }
    (vfs, meta)
}

/// What an operation does to a file.
enum Op {
    Write(usize, Vec<u8>),
    Append(Vec<u8>),
    Truncate(usize),
    Zero(usize, usize),
    Sync,
}

/// The operation of that number: the same in every process. `len`: of the file.
fn op(number: u64, len: usize) -> Op {
    let mut rng = StdRng::seed_from_u64(number);
    let data = |rng: &mut StdRng| {
        let n: usize = if rng.random() { rng.random_range(1..200_000) } else { rng.random_range(1..3000) };
        let (a, b) = (rng.random::<u8>(), rng.random_range(1..200_usize));
        (0..n).map(|i| (i / b) as u8 ^ a).collect()
    };
    match rng.random_range(0..20) {
        0 => Op::Truncate(rng.random_range(0..len + 10_000)),
        1 => Op::Zero(rng.random_range(0..len + 1000), rng.random_range(1..50_000)),
        2 => Op::Sync,
        3..9 => Op::Append(data(&mut rng)),
        _ => {
            let at = rng.random_range(0..len + 10_000);
            Op::Write(at, data(&mut rng))
        }
    }
}

/// What an operation makes of a file.
fn apply(op: &Op, file: &mut Vec<u8>) {
    match op {
        Op::Write(at, data) => {
            file.resize(file.len().max(at + data.len()), 0);
            file[*at..at + data.len()].copy_from_slice(data);
        }
        Op::Append(data) => file.extend(data),
        Op::Truncate(to) => file.resize(*to, 0),
        Op::Zero(at, len) => {
            file.resize(file.len().max(at + len), 0);
            file[*at..at + len].fill(0);
        }
        Op::Sync => {}
    }
}

fn file_of(number: u64) -> usize {
    (number * 7 % 11) as usize % FILES
}

/// The process of the mount: it works until it is killed, or done.
#[test]
#[ignore = "run by the other test"]
fn child() {
    let fd = |name: &str| {
        let n: i32 = std::env::var(name).unwrap().parse().unwrap();
        // SAFETY: the parent has left it to this process.
        unsafe { OwnedFd::from_raw_fd(n) }
    };
    let (state, diary) = (Arc::new(State::from_fd(fd("STATE")).unwrap()), File::from(fd("DIARY")));
    let dir = PathBuf::from(std::env::var("DIR").unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work(&dir, state, &diary));
}

async fn work(dir: &Path, state: Arc<State>, diary: &File) {
    let root = Caller::root();
    let resume = word(diary, diary::HANDLES) != 0;
    let (vfs, meta) = mount(dir, Some(state), resume).await;
    let mut handles = Vec::new();
    for n in 0..FILES as u64 {
        let at = diary::HANDLES + n * 24;
        if !resume {
            let name = format!("f{n}");
            let flags = libc::O_RDWR | libc::O_CREAT;
            let (e, opened) =
                vfs.create_open(&root, Ino::ROOT, name.as_bytes(), 0o644, 0, flags).await.unwrap();
            let appender = vfs.open(&root, e.ino, libc::O_WRONLY | libc::O_APPEND).await.unwrap();
            let lock = Lock::Range(LockRecord { kind: F_WRLCK, pid: 1, start: 0, end: 99 });
            let request = LockRequest { fh: opened.fh, owner: n + 1, pid: 1, lock };
            vfs.lock(request, false, std::future::pending()).await.unwrap();
            if n == 0 {
                // One that has no name any more.
                vfs.unlink(&root, Ino::ROOT, name.as_bytes()).await.unwrap();
            }
            note(diary, at + 8, appender.fh);
            note(diary, at + 16, e.ino.0);
            note(diary, at, opened.fh);
        }
        handles.push((word(diary, at), word(diary, at + 8), Ino(word(diary, at + 16))));
    }
    let done = word(diary, diary::DONE);
    let mut files = vec![Vec::new(); FILES];
    for number in 0..done {
        let file = &mut files[file_of(number)];
        apply(&op(number, file.len()), file);
    }
    for number in done..=OPS {
        let n = file_of(number);
        let (fh, appender, ino) = handles[n];
        if number == done {
            // All files but that of the request which was not answered are as they were told to be.
            for (m, (fh, _, _)) in handles.iter().enumerate().filter(|(m, _)| *m != n) {
                compare(&vfs, *fh, &files[m], number).await;
            }
        }
        if number == OPS {
            break;
        }
        let op = op(number, files[n].len());
        match &op {
            Op::Write(at, data) => _ = vfs.write(fh, *at as u64, data).await.unwrap(),
            // Sent again, it may have been done.
            Op::Append(_) if number == done && vfs.has_appended(number + 1) => {}
            Op::Append(data) => {
                let end = files[n].len() as u64;
                vfs.append_once(appender, end, data, number + 1).await.unwrap();
            }
            Op::Truncate(to) => {
                vfs.setattr(&root, ino, &SetAttr::default(), Some(*to as u64), Some(fh)).await.unwrap();
            }
            Op::Zero(at, len) => {
                let zero = libc::FALLOC_FL_ZERO_RANGE as u32;
                vfs.fallocate(&root, fh, zero, *at as u64, *len as u64).await.unwrap();
            }
            Op::Sync => vfs.fsync(fh).await.unwrap(),
        }
        apply(&op, &mut files[n]);
        if number == done {
            compare(&vfs, fh, &files[n], number).await;
        }
        note(diary, diary::DONE, number + 1);
    }
    for (n, (fh, appender, ino)) in handles.into_iter().enumerate() {
        compare(&vfs, fh, &files[n], OPS).await;
        vfs.close_descriptor(appender, 0).await.unwrap();
        vfs.release(appender).await;
        assert!(meta.has_lock(ino, ciderfs_meta::store::LockKind::Record, n as u64 + 1));
        vfs.close_descriptor(fh, n as u64 + 1).await.unwrap();
        vfs.release(fh).await;
    }
    vfs.shutdown().await;
    meta.close_session().await.unwrap();
    std::fs::write(dir.join("f1"), &files[1]).unwrap();
    std::fs::write(dir.join("f2"), &files[2]).unwrap();
}

async fn compare(vfs: &Arc<Vfs>, fh: u64, want: &[u8], number: u64) {
    let mut got = Vec::new();
    while let piece = vfs.read(fh, got.len() as u64, 1 << 20, true).await.unwrap().concat()
        && !piece.is_empty()
    {
        got.extend(piece);
    }
    if got != want {
        let at = got.iter().zip(want).position(|(a, b)| a != b);
        panic!(
            "before operation {number}: {} bytes, {} expected, first other byte {at:?}",
            got.len(),
            want.len()
        );
    }
}

fn start(dir: &Path, state: &State, diary: &File) -> Child {
    // SAFETY: duplicates of descriptors, without close-on-exec, closed below.
    let fds =
        [state.fd().as_raw_fd(), diary.as_raw_fd()].map(|fd| unsafe { libc::fcntl(fd, libc::F_DUPFD, 200) });
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env("STATE", fds[0].to_string())
        .env("DIARY", fds[1].to_string())
        .env("DIR", dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    for fd in fds {
        // SAFETY: made above; the child has its own.
        unsafe { libc::close(fd) };
    }
    child
}

#[test]
fn processes_that_are_killed_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let store = store(dir.path()).await;
        store.create_schema().await.unwrap();
        let mut settings = Settings::new("vol", "5d2b1c9a-7d0c-4a2b-9a35-3a1f6a4d2c11", "file", "objects");
        settings.block_size_kib = 64;
        settings.trash_days = 0;
        Meta::write_settings(store.as_ref(), &settings, None).await.unwrap();
    });
    let state = State::create("killed", 32 << 20).unwrap();
    // SAFETY: a new descriptor.
    let diary = unsafe { File::from_raw_fd(libc::memfd_create(c"diary".as_ptr(), libc::MFD_CLOEXEC)) };
    diary.set_len(4096).unwrap();
    let mut rng = StdRng::seed_from_u64(14);
    let mut kills = 0;
    loop {
        let began = word(&diary, diary::DONE);
        let mut child = start(dir.path(), &state, &diary);
        let goal = began + rng.random_range(1..OPS / KILLS);
        let started = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if kills < KILLS && word(&diary, diary::DONE) >= goal.max(1) {
                break None;
            }
            assert!(started.elapsed() < Duration::from_secs(120), "no progress");
            std::thread::sleep(Duration::from_micros(200));
        };
        if let Some(status) = ended {
            assert!(status.success(), "after {kills} kills and {} operations", word(&diary, diary::DONE));
            break;
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..5000)));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(kills >= 10, "{kills}");
    assert_eq!((state.iter().count(), word(&diary, diary::DONE)), (0, OPS));
    // Another mount, of which nothing was handed over, finds the same.
    runtime.block_on(async {
        let (vfs, meta) = mount(dir.path(), None, false).await;
        assert_eq!(meta.sessions().await.unwrap().len(), 1);
        assert!(vfs.lookup(&Caller::root(), Ino::ROOT, b"f0").await.is_err());
        assert!(
            meta.getattr(Ino(word(&diary, diary::HANDLES + 16))).await.is_err(),
            "removed with its last close"
        );
        for name in ["f1", "f2"] {
            let e = vfs.lookup(&Caller::root(), Ino::ROOT, name.as_bytes()).await.unwrap();
            let fh = vfs.open(&Caller::root(), e.ino, libc::O_RDONLY).await.unwrap().fh;
            compare(&vfs, fh, &std::fs::read(dir.path().join(name)).unwrap(), OPS).await;
        }
        vfs.shutdown().await;
        meta.close_session().await.unwrap();
    });
}
