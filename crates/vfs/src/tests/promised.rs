//! What was accepted has room: whatever one client does, no commit of its data is refused, and nothing stays claimed.
//! `CIDERFS_SEED=N` repeats a failed run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use ciderfs_format::{Attr, Ino};
use ciderfs_meta::store::{Commit, Counter, Outcome, QuotaKey, Read, Store, StoreError, Value};
use ciderfs_meta::{Caller, Errno, SetAttr};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::support::*;

use crate::error::{Error, Result};

/// What the volume may hold, in bytes.
const CAPACITY: usize = 1_200 * KIB;
/// What the directory `q` and the user 7 may hold.
const QUOTA: usize = 500 * KIB;
const USER: u32 = 7;
const WRITERS: usize = 8;

/// An engine whose requests take a random number of turns of the scheduler, before they are made and after: answers come in
/// any order.
struct Jittery {
    inner: Arc<dyn Store>,
    rng: Mutex<SmallRng>,
}

impl Jittery {
    async fn wait(&self) {
        let turns = self.rng.lock().random_range(0..12);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

#[async_trait]
impl Store for Jittery {
    ciderfs_meta::forward_store! {
        |self| self.inner =>
            engine, lists_in_order, describe, list_dir, allocate, claim, scan, create_schema, now,
            memory, turns
    }

    async fn read(&self, reads: &[Read]) -> Result<Vec<Value>, StoreError> {
        self.wait().await;
        let result = self.inner.read(reads).await;
        self.wait().await;
        result
    }

    async fn commit(&self, commit: &Commit) -> Result<Outcome, StoreError> {
        self.wait().await;
        let result = self.inner.commit(commit).await;
        self.wait().await;
        result
    }
}

/// A client of a small volume with quotas.
struct Full {
    w: World,
    c: Client,
    /// The root and a directory with a quota.
    dirs: [Ino; 2],
    refused: AtomicUsize,
}

impl Full {
    async fn new(seed: u64, jitter: bool) -> Arc<Self> {
        let w = World::with((seed % 2) as u32, |s| s.capacity = CAPACITY as u64).await;
        let inner = Arc::clone(&w.meta) as Arc<dyn Store>;
        let rng = Mutex::new(SmallRng::seed_from_u64(seed));
        let c = w.client_on(if jitter { Arc::new(Jittery { inner, rng }) } else { inner }).await;
        let q = c.vfs.create(&Caller::root(), Ino::ROOT, b"q", &dir_node()).await.unwrap().ino;
        // Every other run has quotas, too.
        if seed % 4 >= 2 {
            for key in [QuotaKey::Dir(q), QuotaKey::User(USER)] {
                c.meta.set_quota(key, Some(QUOTA as i64), None).await.unwrap();
            }
        }
        Arc::new(Self { w, c, dirs: [Ino::ROOT, q], refused: AtomicUsize::new(0) })
    }

    /// Bytes that the engine counts.
    async fn used(&self) -> u64 {
        match self.w.meta.read(&[Read::Counter(Counter::UsedSpace)]).await.unwrap()[..] {
            [Value::Int(n)] => n as u64,
            ref other => panic!("{other:?}"),
        }
    }

    /// There may be no room; nothing else may go wrong.
    fn may_be_refused<T>(&self, what: &str, r: Result<T>) -> Option<T> {
        match r {
            Ok(v) => Some(v),
            Err(Error::Posix(Errno::ENOSPC | Errno::EDQUOT)) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                None
            }
            Err(e) => panic!("{what}: {e}"),
        }
    }

    async fn attr(&self, ino: Ino) -> Attr {
        self.c.vfs.getattr(ino).await.unwrap()
    }
}

/// A file that somebody writes.
struct Writer {
    name: Vec<u8>,
    dir: usize,
    ino: Ino,
    fh: u64,
}

impl Writer {
    async fn make(f: &Full, name: String, dir: usize) -> Option<Self> {
        let flags = RW | libc::O_CREAT | libc::O_EXCL;
        let name = name.into_bytes();
        let made = f.c.vfs.create_open(&Caller::root(), f.dirs[dir], &name, 0o644, 0, flags).await;
        let (entry, opened) = f.may_be_refused("create", made)?;
        Some(Self { name, dir, ino: entry.ino, fh: opened.fh })
    }

    /// One step; `other` is another open file.
    async fn step(&mut self, f: &Full, rng: &mut SmallRng, other: u64) {
        let (c, root) = (&f.c, Caller::root());
        let length = f.attr(self.ino).await.length as usize;
        let data = pattern(rng.random(), rng.random_range(1..40_000));
        match rng.random_range(0..100) {
            // Mostly as programs do it: ten thousand bytes after the other.
            0..35 => {
                let wrote = c.vfs.write(self.fh, length as u64, &data[..data.len().min(10_000)]).await;
                f.may_be_refused("write", wrote);
            }
            35..50 => {
                let wrote = c.vfs.append(self.fh, length as u64, &data).await;
                f.may_be_refused("append", wrote);
            }
            50..58 => {
                let off = rng.random_range(0..=length + 20_000) as u64;
                f.may_be_refused("write", c.vfs.write(self.fh, off, &data).await);
            }
            58..64 => c.fsync(self.fh).await.unwrap(),
            64..70 => {
                let size = rng.random_range(0..=length + 9_000) as u64;
                let set = SetAttr::default();
                let cut = c.vfs.setattr(&root, self.ino, &set, Some(size), Some(self.fh)).await;
                f.may_be_refused("truncate", cut);
            }
            70..75 => {
                let off = rng.random_range(0..=length + 9_000) as u64;
                let mode = [0, libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_ZERO_RANGE][rng.random_range(0..3)];
                let done = c.vfs.fallocate(&root, self.fh, mode as u32, off, data.len() as u64).await;
                f.may_be_refused("fallocate", done);
            }
            75..80 if other != self.fh => {
                let (from, to) = ((other, 0), (self.fh, length as u64));
                f.may_be_refused("copy", c.vfs.copy_file_range(&root, from, to, 30_000, 0).await);
            }
            80..85 => {
                let uid = Some(if rng.random_bool(0.5) { USER } else { 0 });
                let set = SetAttr { uid, ..SetAttr::default() };
                c.vfs.setattr(&root, self.ino, &set, None, None).await.unwrap();
            }
            85..89 => {
                let to = 1 - self.dir;
                let (from, to_name) = ((f.dirs[self.dir], &self.name[..]), (f.dirs[to], &self.name[..]));
                if f.may_be_refused("rename", c.vfs.rename(&root, from, to_name, 0).await).is_some() {
                    self.dir = to;
                }
            }
            89..93 => {
                // Two names for a while.
                let name = [&self.name[..], b"'"].concat();
                let dir = f.dirs[rng.random_range(0..2)];
                if f.may_be_refused("link", c.vfs.link(&root, self.ino, dir, &name).await).is_some() {
                    let off = f.attr(self.ino).await.length;
                    f.may_be_refused("write", c.vfs.write(self.fh, off, &data).await);
                    c.vfs.unlink(&root, dir, &name).await.unwrap();
                }
            }
            93..97 => {
                let name = [&self.name[..], b"+"].concat();
                let dir = f.dirs[rng.random_range(0..2)];
                if f.may_be_refused("mkdir", c.vfs.create(&root, dir, &name, &dir_node()).await).is_some() {
                    c.vfs.rmdir(&root, dir, &name).await.unwrap();
                }
            }
            _ => {
                // Emptied and written again.
                f.may_be_refused("write", c.vfs.write(self.fh, 0, &data).await);
                c.truncate(self.ino, self.fh, 0).await;
                f.may_be_refused("write", c.vfs.write(self.fh, 0, &data).await);
            }
        }
    }

    /// All that was accepted can be committed.
    async fn end(self, f: &Full, keep: bool) {
        f.c.close(self.fh).await.unwrap();
        if !keep {
            f.c.vfs.unlink(&Caller::root(), f.dirs[self.dir], &self.name).await.unwrap();
        }
    }
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("CIDERFS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..count).collect(),
    }
}

/// One after the other, with several files: every byte is counted exactly once, at every step.
#[tokio::test]
async fn used_and_claimed_never_exceed_the_limit() {
    let mut refused = 0;
    for seed in seeds(24) {
        println!("seed {seed}");
        let f = Full::new(seed, false).await;
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut files: Vec<Writer> = Vec::new();
        for step in 0..400 {
            if files.len() < 4 || rng.random_bool(0.03) {
                let dir = rng.random_range(0..2);
                files.extend(Writer::make(&f, format!("f{step}"), dir).await);
            }
            if files.is_empty() {
                continue;
            }
            let (at, other) = (rng.random_range(0..files.len()), rng.random_range(0..files.len()));
            let other = files[other].fh;
            files[at].step(&f, &mut rng, other).await;
            let (used, claimed) = (f.used().await, f.c.meta.claimed_room());
            assert!(used + claimed <= CAPACITY as u64, "step {step}: {used} used, {claimed} claimed");
            if rng.random_bool(0.04) {
                let keep = rng.random_bool(0.2);
                files.swap_remove(at).end(&f, keep).await;
            }
        }
        for file in files {
            file.end(&f, true).await;
        }
        assert_eq!(f.c.meta.claimed_room(), 0);
        refused += f.refused.load(Ordering::Relaxed);
    }
    assert!(refused > 100, "the volume was full {refused} times");
}

/// Many at a time, over an engine whose answers come in any order.
#[tokio::test]
async fn what_many_writers_were_promised_is_there() {
    let mut refused = 0;
    for seed in seeds(24) {
        println!("seed {seed}");
        let f = Full::new(seed, true).await;
        let writers = (0..WRITERS).map(|n| {
            let f = Arc::clone(&f);
            tokio::spawn(async move {
                let mut rng = SmallRng::seed_from_u64(seed * 1000 + n as u64);
                let mut kept = 0;
                for round in 0..6 {
                    let dir = rng.random_range(0..2);
                    let Some(mut file) = Writer::make(&f, format!("w{n}_{round}"), dir).await else {
                        continue;
                    };
                    for _ in 0..rng.random_range(5..40) {
                        let own = file.fh;
                        file.step(&f, &mut rng, own).await;
                    }
                    let keep = kept < 2 && rng.random_bool(0.5);
                    kept += usize::from(keep);
                    file.end(&f, keep).await;
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            soon(writer).await.unwrap();
        }
        assert_eq!(f.c.meta.claimed_room(), 0);
        assert!(f.used().await <= CAPACITY as u64);
        refused += f.refused.load(Ordering::Relaxed);
        // Nothing is counted twice for good: the last byte can be used.
        let left = CAPACITY - f.used().await as usize;
        if left > 0 {
            // An empty file takes as much as one of a block.
            let (_, fh) = f.c.create("last").await;
            f.c.write(fh, 0, &pattern(seed, left)).await;
            f.c.close(fh).await.unwrap();
            assert_eq!(f.used().await, CAPACITY as u64);
        }
    }
    assert!(refused > 100, "the volume was full {refused} times");
}
