//! A process of a mount ends at any moment, and the next one goes on: nothing that was acknowledged is lost or doubled.

use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::lock::{F_RDLCK, F_UNLCK, F_WRLCK, LockRecord};
use ciderfs_format::{Ino, SessionId};
use ciderfs_handover::State;
use ciderfs_meta::store::Store;
use ciderfs_meta::{Caller, Errno, Lock, Meta, MetaConfig};
use ciderfs_object::layers::Faults;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::runtime::Runtime;

use super::support::*;
use crate::{LockRequest, Resumed};

/// One process of a mount, on threads of its own.
struct Process {
    runtime: Runtime,
    client: Client,
    state: Arc<State>,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn world() -> World {
    runtime().block_on(World::new(0))
}

impl Process {
    /// The first of a mount, with a log of so many MiB.
    fn first(w: &World, log: u64) -> Self {
        let (runtime, state) = (runtime(), Arc::new(State::create("test", log << 20).unwrap()));
        let (client, _) = runtime.block_on(w.process(Arc::clone(&state), false));
        Self { runtime, client, state }
    }

    fn run<T>(&self, f: impl Future<Output = T>) -> T {
        self.runtime.block_on(soon(f))
    }

    /// It ends here and now: nothing that it has begun goes on.
    fn kill(self) -> State {
        let fd = self.state.fd().try_clone_to_owned().unwrap();
        self.runtime.shutdown_timeout(Duration::from_secs(10));
        drop((self.client, self.state));
        State::from_fd(fd).unwrap()
    }

    /// It ends, and the next one takes over.
    fn next(self, w: &World) -> (Self, Resumed) {
        let (state, runtime) = (Arc::new(self.kill()), runtime());
        let (client, found) = runtime.block_on(w.process(Arc::clone(&state), true));
        (Self { runtime, client, state }, found)
    }
}

/// What another mount sees of a file.
fn elsewhere(w: &World, name: &str) -> Vec<u8> {
    runtime().block_on(async {
        let c = w.client().await;
        let e = c.vfs.lookup(&Caller::root(), Ino::ROOT, name.as_bytes()).await.unwrap();
        let fh = c.open(e.ino).await;
        c.read(fh, 0, e.attr.length as usize + 1).await
    })
}

#[test]
fn what_was_written_is_there_and_survives_fsync() {
    let w = world();
    let p = Process::first(&w, 64);
    let mut want = vec![0; 900 * KIB];
    let (_, fh) = p.run(p.client.create("a"));
    p.run(async {
        // Holes, overlaps, blocks that are stored already and some that are not.
        for (n, (at, len)) in
            [(300 * KIB, 200 * KIB), (310 * KIB, 10), (290 * KIB, 20 * KIB), (899 * KIB, KIB), (300 * KIB, 5)]
                .into_iter()
                .enumerate()
        {
            let data = pattern(n as u64, len);
            p.client.write(fh, at, &data).await;
            want[at..at + len].copy_from_slice(&data);
        }
    });
    let (p, found) = p.next(&w);
    assert_eq!((found.handles, found.writes, found.lost_writes), (1, 5, 0));
    assert!(p.run(p.client.read(fh, 0, MIB)) == want);
    p.run(p.client.fsync(fh)).unwrap();
    assert!(elsewhere(&w, "a") == want);
    assert_eq!(p.state.iter().count(), 0, "what is committed leaves the log");
    // And once more, of what comes after.
    p.run(p.client.write(fh, 10, b"later"));
    want[10..15].copy_from_slice(b"later");
    let (p, found) = p.next(&w);
    assert_eq!(found.writes, 1);
    let new = p.run(p.client.create("b")).1;
    assert!(new > fh, "numbers of handles are used once");
    p.run(p.client.close(fh)).unwrap();
    assert!(elsewhere(&w, "a") == want);
    assert_eq!(errno(p.run(p.client.try_read(fh, 0, 1))), Errno::EBADF);
    assert_eq!(p.state.records().len(), 1);
}

#[test]
fn a_truncation_is_not_undone() {
    let w = world();
    let p = Process::first(&w, 64);
    let (ino, fh) = p.run(p.client.create("a"));
    p.run(async {
        p.client.write(fh, 0, &pattern(1, 100 * KIB)).await;
        p.client.truncate(ino, fh, 10).await;
        p.client.write(fh, 50, b"after").await;
    });
    let (p, found) = p.next(&w);
    assert_eq!(found.writes, 1);
    let mut want = pattern(1, 10);
    want.resize(50, 0);
    want.extend(b"after");
    assert_eq!(p.run(p.client.read(fh, 0, MIB)), want);
    p.run(p.client.close(fh)).unwrap();
    assert_eq!(elsewhere(&w, "a"), want);
}

/// The memory as it is now.
fn copy_of(memory: std::os::fd::OwnedFd) -> State {
    use std::os::unix::fs::FileExt as _;
    let copy = State::create("test", 64 << 20).unwrap();
    let (from, to) =
        (std::fs::File::from(memory), std::fs::File::from(copy.fd().try_clone_to_owned().unwrap()));
    let mut at = 0;
    let mut page = vec![0; MIB];
    while let n @ 1.. = from.read_at(&mut page, at).unwrap() {
        if page[..n].iter().any(|b| *b != 0) {
            to.write_all_at(&page[..n], at).unwrap();
        }
        at += n as u64;
    }
    State::from_fd(to.into()).unwrap()
}

#[test]
fn appends_go_on_behind_each_other_and_are_made_once() {
    let w = world();
    let p = Process::first(&w, 64);
    let (ino, fh) = p.run(p.client.create("a"));
    let appender =
        p.run(p.client.vfs.open(&Caller::root(), ino, libc::O_WRONLY | libc::O_APPEND)).unwrap().fh;
    p.run(async {
        p.client.write(fh, 0, b"head ").await;
        p.client.vfs.append_once(appender, 5, b"one ", 77).await.unwrap();
        p.client.fsync(fh).await.unwrap();
        p.client.vfs.append_once(appender, 9, b"two ", 78).await.unwrap();
    });
    // The commit is made, and the process ends before it notes that.
    let before = p.state.fd().try_clone_to_owned().unwrap();
    let then = copy_of(before);
    p.run(p.client.fsync(fh)).unwrap();
    assert_eq!(p.kill().iter().count(), 0);
    assert_eq!(then.iter().count(), 1);
    let (state, runtime) = (Arc::new(then), runtime());
    let (client, found) = runtime.block_on(w.process(Arc::clone(&state), true));
    assert_eq!(found.writes, 0, "it was committed");
    assert!(client.vfs.has_appended(77) && client.vfs.has_appended(78) && !client.vfs.has_appended(79));
    runtime.block_on(async {
        client.vfs.append(appender, 13, b"three ").await.unwrap();
    });
    let (p, found) = Process { runtime, client, state }.next(&w);
    assert_eq!(found.writes, 1);
    p.run(p.client.close(appender)).unwrap();
    assert_eq!(elsewhere(&w, "a"), b"head one two three ");
}

#[test]
fn a_removed_file_is_kept_until_its_last_close() {
    let w = world();
    let p = Process::first(&w, 64);
    let (ino, fh) = p.run(p.client.create("a"));
    p.run(async {
        p.client.write(fh, 0, b"kept").await;
        p.client.unlink("a").await;
        p.client.write(fh, 4, b" and more").await;
    });
    let other = p.run(p.client.open(ino));
    let (p, _) = p.next(&w);
    assert_eq!(p.run(p.client.read(fh, 0, 100)), b"kept and more");
    p.run(p.client.close(fh)).unwrap();
    let (p, _) = p.next(&w);
    assert_eq!(p.run(p.client.read(other, 0, 100)), b"kept and more");
    p.run(p.client.close(other)).unwrap();
    let c = runtime().block_on(async { w.client().await.meta.getattr(ino).await });
    assert_eq!(errno(c), Errno::ENOENT);
}

#[test]
fn a_file_without_a_name_may_still_get_one() {
    let w = world();
    let p = Process::first(&w, 64);
    let root = Caller::root();
    let made = p.run(p.client.vfs.create_nameless(&root, Ino::ROOT, 0o600, 0, libc::O_RDWR));
    let (entry, opened) = made.unwrap();
    p.run(p.client.write(opened.fh, 0, b"content"));
    let (p, _) = p.next(&w);
    p.run(p.client.vfs.link(&root, entry.ino, Ino::ROOT, b"named")).unwrap();
    p.run(p.client.close(opened.fh)).unwrap();
    assert_eq!(elsewhere(&w, "named"), b"content");
}

fn lock(fh: u64, owner: u64, lock: Lock) -> LockRequest {
    LockRequest { fh, owner, pid: 1, lock }
}

fn range(kind: u32, start: u64, end: u64) -> Lock {
    Lock::Range(LockRecord { kind, pid: 1, start, end })
}

#[test]
fn locks_are_held_by_the_same_owners() {
    let w = world();
    let p = Process::first(&w, 64);
    let never = std::future::pending::<()>;
    let (ino, fh) = p.run(p.client.create("a"));
    p.run(async {
        let vfs = &p.client.vfs;
        vfs.lock(lock(fh, 5, Lock::Flock(Some(true))), false, never()).await.unwrap();
        vfs.lock(lock(fh, 6, range(F_WRLCK, 0, 99)), false, never()).await.unwrap();
        vfs.lock(lock(fh, 6, range(F_UNLCK, 50, 99)), false, never()).await.unwrap();
        vfs.lock(lock(fh, 7, range(F_RDLCK, 200, 300)), false, never()).await.unwrap();
        vfs.lock(lock(fh, 7, range(F_UNLCK, 0, 1000)), false, never()).await.unwrap();
    });
    let sid = p.client.meta.sid();
    let (p, _) = p.next(&w);
    assert_eq!(p.client.meta.sid(), sid);
    let elsewhere = runtime();
    let c = elsewhere.block_on(w.client());
    let other = elsewhere.block_on(c.open(ino));
    let ask = |what: Lock| elsewhere.block_on(c.vfs.lock(lock(other, 9, what), false, never()));
    assert_eq!(errno(ask(Lock::Flock(Some(false)))), Errno::EAGAIN);
    assert_eq!(errno(ask(range(F_WRLCK, 40, 60))), Errno::EAGAIN);
    ask(range(F_WRLCK, 50, 500)).unwrap();
    p.run(p.client.write(fh, 0, b"under the lock"));
    p.run(p.client.fsync(fh)).unwrap();
    // Given back by a process that has not taken them.
    p.run(p.client.vfs.lock(lock(fh, 6, range(F_UNLCK, 0, 10)), false, never())).unwrap();
    ask(range(F_WRLCK, 0, 10)).unwrap();
    assert_eq!(errno(ask(range(F_WRLCK, 0, 20))), Errno::EAGAIN);
    let (p, _) = p.next(&w);
    p.run(p.client.vfs.close_descriptor(fh, 6)).unwrap();
    ask(range(F_WRLCK, 0, 100)).unwrap();
    assert_eq!(errno(ask(Lock::Flock(Some(false)))), Errno::EAGAIN);
    let (p, _) = p.next(&w);
    p.run(p.client.vfs.release(fh));
    ask(Lock::Flock(Some(true))).unwrap();
}

#[test]
fn a_session_that_was_declared_dead_has_lost_locks_and_removed_files() {
    let w = world();
    let p = Process::first(&w, 64);
    let never = std::future::pending::<()>;
    let (ino, locked) = p.run(p.client.create("locked"));
    let (_, plain) = p.run(p.client.create("plain"));
    let (_, removed) = p.run(p.client.create("removed"));
    p.run(async {
        p.client.vfs.lock(lock(locked, 5, Lock::Flock(Some(true))), false, never()).await.unwrap();
        p.client.write(locked, 0, b"under a lock").await;
        p.client.write(plain, 0, b"without").await;
        p.client.write(removed, 0, b"gone").await;
        p.client.unlink("removed").await;
    });
    let state = Arc::new(p.kill());
    let elsewhere_rt = runtime();
    elsewhere_rt.block_on(async {
        let c = w.client().await;
        let other = c.open(ino).await;
        let asked = c.vfs.lock(lock(other, 9, Lock::Flock(Some(true))), false, never()).await;
        assert_eq!(errno(asked), Errno::EAGAIN);
        // What a client does that finds a dead session.
        let cfg = MetaConfig { heartbeat: Duration::ZERO, ..MetaConfig::default() };
        let cleaner = Meta::load(Arc::clone(&w.meta) as Arc<dyn Store>, cfg).await.unwrap();
        assert!(cleaner.take_over_session(SessionId(state.sid())).await.unwrap());
        cleaner.close_session().await.unwrap();
        c.vfs.lock(lock(other, 9, Lock::Flock(Some(true))), false, never()).await.unwrap();
        c.write(other, 0, b"by the other").await;
        c.fsync(other).await.unwrap();
    });
    let runtime = runtime();
    let (client, found) = runtime.block_on(w.process(Arc::clone(&state), true));
    assert_eq!((found.handles, found.lost_handles), (2, 1));
    runtime.block_on(async {
        assert_eq!(errno(client.fsync(locked).await), Errno::EIO);
        assert_eq!(errno(client.vfs.write(locked, 0, b"no").await), Errno::EIO);
        assert_eq!(client.read(locked, 0, 100).await, b"by the other");
        client.fsync(plain).await.unwrap();
        assert_eq!(errno(client.try_read(removed, 0, 10).await), Errno::ESTALE);
        assert_eq!(errno(client.vfs.write(removed, 0, b"no").await), Errno::ESTALE);
        assert_eq!(errno(client.fsync(removed).await), Errno::ESTALE);
        client.close(removed).await.unwrap();
    });
    assert_eq!(elsewhere(&w, "plain"), b"without");
    assert_eq!(elsewhere(&w, "locked"), b"by the other");
}

#[test]
fn errors_that_nobody_was_told_are_told_by_the_next_process() {
    let w = world();
    let p = Process::first(&w, 64);
    let (ino, fh) = p.run(p.client.create("a"));
    let (other, third) = p.run(async { (p.client.open(ino).await, p.client.open(ino).await) });
    p.run(async {
        w.objects.set(Faults { only: vec!["PUT"], fail_rate: 1.0, ..Faults::default() });
        p.client.write(fh, 0, &pattern(1, 100 * KIB)).await;
        assert_eq!(errno(p.client.fsync(fh).await), Errno::EIO);
        w.objects.set(Faults::default());
    });
    let (p, found) = p.next(&w);
    assert_eq!(found.writes, 0, "what was lost and told so is not made again");
    p.run(p.client.fsync(fh)).unwrap();
    assert_eq!(errno(p.run(p.client.fsync(other))), Errno::EIO);
    p.run(p.client.fsync(other)).unwrap();
    let (p, _) = p.next(&w);
    p.run(p.client.fsync(other)).unwrap();
    assert_eq!(errno(p.run(p.client.close(third))), Errno::EIO);
}

#[test]
fn writing_goes_on_when_the_log_is_full() {
    let mut w = world();
    w.buffer_size = 256 << 20;
    let p = Process::first(&w, 8);
    let (_, fh) = p.run(p.client.create("a"));
    let (_, small) = p.run(p.client.create("b"));
    w.objects.set(Faults { only: vec!["PUT"], latency: Duration::from_millis(2), ..Faults::default() });
    let data = pattern(1, MIB);
    p.run(async {
        for n in 0..40 {
            p.client.write(fh, n * MIB, &data).await;
            p.client.write(small, n * 100, &data[..100]).await;
        }
        // One that the log cannot hold at all is stored before it is answered.
        p.client.write(fh, 40 * MIB, &pattern(2, 12 * MIB)).await;
    });
    let (p, found) = p.next(&w);
    assert!(found.bytes < 8 << 20, "{found:?}");
    assert_eq!((found.handles, found.lost_writes), (2, 0));
    p.run(p.client.fsync(fh)).unwrap();
    let got = elsewhere(&w, "a");
    assert_eq!(got.len(), 52 * MIB);
    assert!((0..40).all(|n| got[n * MIB..(n + 1) * MIB] == data) && got[40 * MIB..] == pattern(2, 12 * MIB));
}

#[test]
fn a_process_that_is_replaced_leaves_everything_to_the_next() {
    let w = world();
    let p = Process::first(&w, 64);
    let (_, fh) = p.run(p.client.create("a"));
    p.run(p.client.write(fh, 0, b"before"));
    p.run(async {
        p.client.vfs.suspend().await;
        p.client.meta.leave_session().await;
    });
    assert_eq!(elsewhere(&w, "a"), b"before");
    let (p, found) = p.next(&w);
    assert_eq!((found.handles, found.writes), (1, 0));
    p.run(p.client.write(fh, 6, b", after"));
    p.run(p.client.close(fh)).unwrap();
    assert_eq!(elsewhere(&w, "a"), b"before, after");
    let sessions = p.run(p.client.meta.sessions()).unwrap();
    assert!(sessions.iter().any(|s| s.sid == p.client.meta.sid()));
}

/// Random operations, and an end of the process at a random moment, against files in memory.
#[test]
fn many_schedules() {
    for seed in 0..40 {
        schedule(seed);
    }
}

fn schedule(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let w = world();
    let mut p = Process::first(&w, 16);
    let mut files: Vec<(String, Ino, u64, u64, Vec<u8>)> = Vec::new();
    for n in 0..3 {
        let name = format!("f{n}");
        let (ino, fh) = p.run(p.client.create(&name));
        let flags = libc::O_WRONLY | libc::O_APPEND;
        let appender = p.run(p.client.vfs.open(&Caller::root(), ino, flags)).unwrap().fh;
        files.push((name, ino, fh, appender, Vec::new()));
    }
    for _ in 0..4 {
        w.objects.set(Faults {
            only: vec!["PUT"],
            latency: Duration::from_millis(rng.random_range(0..20)),
            ..Faults::default()
        });
        for _ in 0..rng.random_range(1..25) {
            let n = rng.random_range(0..files.len());
            let (_, ino, fh, appender, want) = &mut files[n];
            let data = pattern(rng.random(), if rng.random() { rng.random_range(1..300 * KIB) } else { 700 });
            match rng.random_range(0..12) {
                0 => {
                    let to = rng.random_range(0..want.len() + 100_000);
                    p.run(p.client.truncate(*ino, *fh, to));
                    want.resize(to, 0);
                }
                1 => p.run(p.client.fsync(*fh)).unwrap(),
                2 => {
                    let vfs = &p.client.vfs;
                    let len = rng.random_range(1..200_000);
                    let at = rng.random_range(0..want.len() as u64 + 1000);
                    p.run(vfs.fallocate(&Caller::root(), *fh, libc::FALLOC_FL_ZERO_RANGE as u32, at, len))
                        .unwrap();
                    want.resize(want.len().max((at + len) as usize), 0);
                    want[at as usize..(at + len) as usize].fill(0);
                }
                3..=5 => {
                    let end = want.len() as u64;
                    p.run(p.client.vfs.append(*appender, end, &data)).unwrap();
                    want.extend(&data);
                }
                _ => {
                    let at = rng.random_range(0..want.len() + 50_000);
                    p.run(p.client.write(*fh, at, &data));
                    want.resize(want.len().max(at + data.len()), 0);
                    want[at..at + data.len()].copy_from_slice(&data);
                }
            }
            if rng.random_range(0..8) == 0 {
                std::thread::sleep(Duration::from_millis(rng.random_range(0..30)));
            }
            if rng.random_range(0..6) == 0 {
                let file = p.client.vfs.files.get(*ino).unwrap();
                p.run(async { p.client.vfs.flush_in_background(&file) });
            }
        }
        let found;
        (p, found) = p.next(&w);
        assert_eq!((found.handles, found.lost_writes), (6, 0), "seed {seed}");
        for (name, _, fh, _, want) in &files {
            let got = p.run(p.client.read(*fh, 0, want.len() + 1));
            assert!(got == *want, "seed {seed}, {name}: {} bytes, {} expected", got.len(), want.len());
        }
    }
    w.objects.set(Faults::default());
    for (name, _, fh, appender, want) in &files {
        p.run(p.client.close(*appender)).unwrap();
        p.run(p.client.close(*fh)).unwrap();
        assert!(elsewhere(&w, name) == *want, "seed {seed}, {name}: elsewhere");
    }
    assert_eq!((p.state.iter().count(), p.state.records().len()), (0, 0));
}

/// The next names of an open directory, from an offset, so many at a time; and the offset behind them.
pub(super) async fn list(c: &Client, fh: u64, offset: u64, count: usize) -> (Vec<String>, u64) {
    let (mut names, mut end) = (Vec::new(), offset);
    let mut take = |item: crate::DirItem<'_>| {
        if names.len() == count {
            return true;
        }
        names.push(String::from_utf8(item.name.to_vec()).unwrap());
        end = item.next_offset;
        false
    };
    c.vfs.readdir(fh, offset, true, &mut take).await.unwrap();
    (names, end)
}

#[test]
fn a_listing_goes_on_where_it_was() {
    let w = world();
    let p = Process::first(&w, 8);
    let mut all: std::collections::BTreeSet<String> = (0..2500).map(|n| format!("f{n}")).collect();
    p.run(async {
        for name in &all {
            let fh = p.client.create(name).await.1;
            p.client.vfs.release(fh).await;
        }
    });
    let dir = |p: &Process| p.run(p.client.vfs.opendir(&Caller::root(), Ino::ROOT)).unwrap();
    let (plain, removing) = (dir(&p), dir(&p));
    let special = 2 + p.client.vfs.virtual_names().count() + usize::from(p.client.meta.shows_trash());
    let mut seen = std::collections::BTreeSet::new();
    let (names, mut at) = p.run(list(&p.client, plain, 0, 1200 + special));
    seen.extend(names.into_iter().skip(special));
    // What is listed here is removed at once, as by `rm -r`.
    let (names, mut from) = p.run(list(&p.client, removing, 0, 700 + special));
    p.run(async {
        for name in &names[special..] {
            p.client.unlink(name).await;
            all.remove(name);
        }
    });
    let (p, found) = p.next(&w);
    assert_eq!(found.handles, 2);
    loop {
        let (names, end) = p.run(list(&p.client, removing, from, 400));
        if names.is_empty() {
            break;
        }
        // The answer is lost, and asked for again of the next process.
        from = end;
        p.run(async {
            for name in &names {
                p.client.unlink(name).await;
                all.remove(name);
            }
        });
    }
    assert!(all.is_empty(), "{} names were passed over", all.len());
    while let (names, end) = p.run(list(&p.client, plain, at, 500))
        && !names.is_empty()
    {
        assert!(names.iter().all(|name| seen.insert(name.clone())), "given twice");
        at = end;
    }
    p.client.vfs.releasedir(plain);
    p.client.vfs.releasedir(removing);
    assert_eq!(p.state.records(), []);
}

#[test]
fn an_answer_of_a_listing_that_was_lost_is_given_again() {
    let w = world();
    let p = Process::first(&w, 8);
    p.run(async {
        for n in 0..50 {
            let fh = p.client.create(&format!("f{n:02}")).await.1;
            p.client.vfs.release(fh).await;
        }
    });
    let dir = p.run(p.client.vfs.opendir(&Caller::root(), Ino::ROOT)).unwrap();
    let (_, at) = p.run(list(&p.client, dir, 0, 20));
    let (lost, _) = p.run(list(&p.client, dir, at, 10));
    let (p, _) = p.next(&w);
    let (again, at) = p.run(list(&p.client, dir, at, 10));
    assert_eq!(again, lost);
    let (rest, _) = p.run(list(&p.client, dir, at, 100));
    assert_eq!(rest.last().unwrap(), "f49");
    assert!(again.iter().all(|name| !rest.contains(name)));
}
