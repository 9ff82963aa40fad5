//! Locks: what two clients and their processes keep each other from, how they wait, and how locks end.

use std::future::{pending, ready};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ciderfs_format::Ino;
use ciderfs_format::lock::{F_RDLCK, F_UNLCK, F_WRLCK, LockRecord, TO_EOF};

use super::lifetime::{READ_WRITE, open, until};
use crate::error::{Errno, Error};
use crate::locks::{Lock, LockCaller};
use crate::store::{Commit, LockKind, Read, Scan, Value, Write};
use crate::suite::Engine;
use crate::suite::flaky::Flaky;
use crate::suite::world::*;
use crate::volume::MetaConfig;
use crate::{Meta, Result};

/// Tasks of each client, and locks that each of them takes, in the contended case.
const TASKS: u64 = 4;
const ROUNDS: u32 = 12;

fn range(kind: u32, start: u64, end: u64) -> Lock {
    Lock::Range(LockRecord { kind, pid: 0, start, end })
}

fn with_pid(lock: Lock, pid: u32) -> Lock {
    match lock {
        Lock::Range(r) => Lock::Range(LockRecord { pid, ..r }),
        flock => flock,
    }
}

const SHARED: Lock = Lock::Flock(Some(false));
const EXCLUSIVE: Lock = Lock::Flock(Some(true));
const UNLOCK: Lock = Lock::Flock(None);

impl Client {
    /// Asks for a lock as process `owner`, which is also the kernel's lock owner.
    async fn try_lock(&self, ino: Ino, owner: u64, lock: Lock) -> Result<()> {
        let by = LockCaller { owner, pid: owner as u32 };
        let lock = with_pid(lock, owner as u32);
        self.meta.lock(ino, by, lock, false, pending()).await.map(|_| ())
    }

    async fn wait_lock(&self, ino: Ino, owner: u64, lock: Lock) -> Result<()> {
        let by = LockCaller { owner, pid: owner as u32 };
        let lock = with_pid(lock, owner as u32);
        self.meta.lock(ino, by, lock, true, pending()).await.map(|_| ())
    }

    /// The same in a task, which waits when this returns.
    async fn waiting(&self, ino: Ino, owner: u64, lock: Lock) -> tokio::task::JoinHandle<Result<()>> {
        let me = self.clone();
        let task = tokio::spawn(async move { me.wait_lock(ino, owner, lock).await });
        until("the wait", async || self.meta.locks.waits(ino, owner)).await;
        task
    }

    /// Record locks of the whole fleet, as (owner, kind, start, end).
    async fn records(&self, ino: Ino) -> Vec<(u64, u32, u64, u64)> {
        let (_, held) = self.meta.locks(ino).await.unwrap();
        let mut out = Vec::new();
        for ((_, owner), raw) in held {
            let list = LockRecord::decode_list(&raw).unwrap();
            out.extend(list.iter().map(|l| (owner, l.kind, l.start, l.end)));
        }
        out.sort_unstable();
        out
    }
}

/// Ranges of processes of two clients, and what each of them costs.
pub async fn record_locks(engine: Engine) {
    let w = World::new(engine).await;
    let (a, b) = (w.mounted().await, w.mounted().await);
    let f = a.file(ROOT, "f").await;
    a.try_lock(f, 1, range(F_WRLCK, 0, 9)).await.unwrap();
    assert_eq!(
        errno(b.try_lock(f, 1, range(F_WRLCK, 9, 9)).await),
        Errno::EAGAIN,
        "same owner, other client"
    );
    assert_eq!(errno(a.try_lock(f, 2, range(F_RDLCK, 5, TO_EOF)).await), Errno::EAGAIN);
    b.try_lock(f, 1, range(F_WRLCK, 10, 19)).await.unwrap();
    a.try_lock(f, 1, range(F_RDLCK, 4, 6)).await.unwrap();
    b.try_lock(f, 7, range(F_RDLCK, 5, 5)).await.unwrap();
    assert_eq!(errno(a.try_lock(f, 1, range(F_WRLCK, 4, 6)).await), Errno::EAGAIN, "an upgrade in the way");
    let all = [(1, 0, 4, 6), (1, 1, 0, 3), (1, 1, 7, 9), (1, 1, 10, 19), (7, 0, 5, 5)];
    assert_eq!(a.records(f).await, all);
    assert_eq!(b.records(f).await, all);
    // Who is in the way is told, the process only to its own client.
    let want = LockRecord { kind: F_WRLCK, pid: 0, start: 0, end: TO_EOF };
    let found = a.meta.find_lock(f, 2, want).await.unwrap().unwrap();
    assert_eq!((found.kind, found.pid, found.start, found.end), (F_WRLCK, 1, 0, 3));
    let found = b.meta.find_lock(f, 1, LockRecord { start: 4, ..want }).await.unwrap().unwrap();
    assert_eq!((found.kind, found.start, found.end), (F_RDLCK, 4, 6));
    assert_eq!(found.pid, 0, "another machine's process");
    let own = LockRecord { start: 10, end: 19, ..want };
    assert_eq!(b.meta.find_lock(f, 1, own).await.unwrap(), None);
    let shared = LockRecord { kind: F_RDLCK, start: 4, end: 6, ..want };
    assert_eq!(a.meta.find_lock(f, 2, shared).await.unwrap(), None);
    for (c, owner) in [(&a, 1), (&b, 1), (&b, 7)] {
        c.meta.drop_locks(f, LockKind::Record, owner).await.unwrap();
    }
    assert_eq!(a.records(f).await, []);
    // Once the client knows the state: one turn each, none for what is not held.
    let whole = range(F_WRLCK, 0, TO_EOF);
    a.try_lock(f, 3, whole).await.unwrap();
    a.try_lock(f, 3, range(F_UNLCK, 0, TO_EOF)).await.unwrap();
    for (asked, turns) in
        [(whole, 1), (range(F_UNLCK, 5, 5), 1), (range(F_UNLCK, 0, TO_EOF), 1), (range(F_UNLCK, 0, 9), 0)]
    {
        assert_eq!(a.turns(a.try_lock(f, 3, asked)).await, turns, "{asked:?}");
    }
    assert_eq!(errno(a.try_lock(f, 3, range(F_WRLCK, 5, 4)).await), Errno::EINVAL);
    assert_eq!(errno(a.try_lock(Ino(99_999), 3, whole).await), Errno::ENOENT);
    let none = w.client().await;
    assert_eq!(errno(none.try_lock(f, 3, whole).await), Errno::ENOLCK, "nobody could clean up after it");
    let ro = w.client_with(MetaConfig { read_only: true, ..World::config() }).await;
    assert_eq!(errno(ro.try_lock(f, 3, range(F_RDLCK, 0, 0)).await), Errno::EROFS);
    assert_eq!(errno(ro.try_lock(f, 3, range(F_UNLCK, 0, 0)).await), Errno::EROFS);
    w.check().await;
}

/// flock between clients and their processes.
pub async fn flock_rules(engine: Engine) {
    let w = World::new(engine).await;
    let (a, b) = (w.mounted().await, w.mounted().await);
    let f = a.file(ROOT, "f").await;
    a.try_lock(f, 1, SHARED).await.unwrap();
    a.try_lock(f, 2, SHARED).await.unwrap();
    b.try_lock(f, 1, SHARED).await.unwrap();
    assert_eq!(errno(b.try_lock(f, 2, EXCLUSIVE).await), Errno::EAGAIN);
    // A conversion that fails has cost the old lock.
    assert_eq!(errno(a.try_lock(f, 1, EXCLUSIVE).await), Errno::EAGAIN);
    a.try_lock(f, 2, UNLOCK).await.unwrap();
    b.try_lock(f, 1, EXCLUSIVE).await.unwrap();
    assert_eq!(errno(a.try_lock(f, 2, SHARED).await), Errno::EAGAIN);
    b.try_lock(f, 1, SHARED).await.unwrap();
    a.try_lock(f, 2, SHARED).await.unwrap();
    // Record locks are another world.
    a.try_lock(f, 9, range(F_WRLCK, 0, TO_EOF)).await.unwrap();
    b.meta.drop_locks(f, LockKind::Flock, 1).await.unwrap();
    b.try_lock(f, 1, UNLOCK).await.unwrap();
    a.meta.drop_locks(f, LockKind::Flock, 2).await.unwrap();
    let (flocks, records) = b.meta.locks(f).await.unwrap();
    assert_eq!((flocks.len(), records.len()), (0, 1));
    // Once the client knows what others have left.
    a.try_lock(f, 5, SHARED).await.unwrap();
    let turns = a.turns(async {
        a.try_lock(f, 5, EXCLUSIVE).await.unwrap();
        a.try_lock(f, 5, UNLOCK).await.unwrap();
    });
    assert_eq!(turns.await, 2);
}

/// Waiting ends when the lock is free, on either client, in order; or when it is interrupted, without a trace.
pub async fn waiting_for_locks(engine: Engine) {
    let w = World::new(engine).await;
    let (a, b) = (w.mounted().await, w.mounted().await);
    let f = a.file(ROOT, "f").await;
    let whole = range(F_WRLCK, 0, TO_EOF);
    for (lock, unlock, kind) in
        [(whole, range(F_UNLCK, 0, TO_EOF), LockKind::Record), (EXCLUSIVE, UNLOCK, LockKind::Flock)]
    {
        a.try_lock(f, 1, lock).await.unwrap();
        let second = a.waiting(f, 2, lock).await;
        let third = a.waiting(f, 3, lock).await;
        // Within a client the lock passes on in the commit that gives it back.
        let turns = a.turns(async {
            a.try_lock(f, 1, unlock).await.unwrap();
            second.await.unwrap().unwrap();
        });
        assert_eq!(turns.await, 1, "{kind:?}");
        assert!(!third.is_finished());
        let other = b.waiting(f, 4, lock).await;
        a.meta.drop_locks(f, kind, 2).await.unwrap();
        third.await.unwrap().unwrap();
        assert!(!other.is_finished());
        a.try_lock(f, 3, unlock).await.unwrap();
        other.await.unwrap().unwrap();
        // Interrupted while it waits: at once, and the lock goes to others.
        let by = LockCaller { owner: 5, pid: 5 };
        let gone = a.meta.lock(f, by, lock, true, ready(())).await;
        assert!(matches!(gone, Err(Error::Errno(Errno::EINTR))), "{gone:?}");
        let dropped = a.waiting(f, 6, lock).await;
        dropped.abort();
        assert!(dropped.await.unwrap_err().is_cancelled());
        b.try_lock(f, 4, unlock).await.unwrap();
        b.wait_lock(f, 7, lock).await.unwrap();
        b.try_lock(f, 7, unlock).await.unwrap();
        let (flocks, records) = b.meta.locks(f).await.unwrap();
        assert_eq!((flocks.len(), records.len()), (0, 0), "{kind:?}");
    }
    // Given up in any moment, a request leaves nothing.
    for i in 0..40 {
        let me = a.clone();
        let task = tokio::spawn(async move { me.wait_lock(f, 8, range(F_WRLCK, 0, 9)).await });
        for _ in 0..i {
            tokio::task::yield_now().await;
        }
        task.abort();
        let kept = matches!(task.await, Ok(Ok(())));
        if kept {
            a.meta.drop_locks(f, LockKind::Record, 8).await.unwrap();
        }
        until("the lock to be free", async || b.try_lock(f, 9, whole).await.is_ok()).await;
        b.meta.drop_locks(f, LockKind::Record, 9).await.unwrap();
    }
    // What was held before stays.
    a.try_lock(f, 1, range(F_RDLCK, 0, 9)).await.unwrap();
    b.try_lock(f, 2, range(F_RDLCK, 5, 5)).await.unwrap();
    let upgrade = a.waiting(f, 1, range(F_WRLCK, 0, 9)).await;
    upgrade.abort();
    assert!(upgrade.await.unwrap_err().is_cancelled());
    assert_eq!(a.records(f).await, [(1, 0, 0, 9), (2, 0, 5, 5)]);
    w.check().await;
}

/// A writer that waits is not passed over for ever by readers that come later.
pub async fn readers_let_a_writer_go_first(engine: Engine) {
    let w = World::new(engine).await;
    let a = w.mounted().await;
    let f = a.file(ROOT, "f").await;
    let read = range(F_RDLCK, 0, 9);
    a.try_lock(f, 1, read).await.unwrap();
    let writer = a.waiting(f, 2, range(F_WRLCK, 0, 9)).await;
    let late = a.waiting(f, 3, read).await;
    // One that does not wait gets it all the same, and so does one that others may be waiting for.
    a.try_lock(f, 4, read).await.unwrap();
    a.meta.drop_locks(f, LockKind::Record, 4).await.unwrap();
    a.wait_lock(f, 1, range(F_RDLCK, 5, 19)).await.unwrap();
    a.meta.drop_locks(f, LockKind::Record, 1).await.unwrap();
    writer.await.unwrap().unwrap();
    assert!(!late.is_finished());
    a.meta.drop_locks(f, LockKind::Record, 2).await.unwrap();
    late.await.unwrap().unwrap();
}

/// Who would wait for ever is told.
pub async fn deadlocks(engine: Engine) {
    let w = World::new(engine).await;
    let (a, b) = (w.mounted().await, w.mounted().await);
    let (f, g) = (a.file(ROOT, "f").await, a.file(ROOT, "g").await);
    let one = |start| range(F_WRLCK, start, start);
    // Three processes, two files.
    a.try_lock(f, 1, one(1)).await.unwrap();
    a.try_lock(f, 2, one(2)).await.unwrap();
    a.try_lock(g, 3, one(3)).await.unwrap();
    let first = a.waiting(f, 1, one(2)).await;
    let second = a.waiting(g, 2, one(3)).await;
    assert_eq!(errno(a.wait_lock(f, 3, one(1)).await), Errno::EDEADLK);
    assert_eq!(errno(a.try_lock(f, 3, one(1)).await), Errno::EAGAIN, "only who waits is in a circle");
    a.meta.drop_locks(g, LockKind::Record, 3).await.unwrap();
    second.await.unwrap().unwrap();
    a.meta.drop_locks(f, LockKind::Record, 2).await.unwrap();
    first.await.unwrap().unwrap();
    a.meta.drop_locks(f, LockKind::Record, 1).await.unwrap();
    a.meta.drop_locks(g, LockKind::Record, 2).await.unwrap();
    // Two readers that both want to write.
    a.try_lock(f, 1, range(F_RDLCK, 0, 9)).await.unwrap();
    a.try_lock(f, 2, range(F_RDLCK, 0, 9)).await.unwrap();
    let upgrade = a.waiting(f, 1, range(F_WRLCK, 0, 9)).await;
    assert_eq!(errno(a.wait_lock(f, 2, range(F_WRLCK, 0, 9)).await), Errno::EDEADLK);
    a.meta.drop_locks(f, LockKind::Record, 2).await.unwrap();
    upgrade.await.unwrap().unwrap();
    // A long wait for another client is none.
    b.waiting(f, 5, one(5)).await.abort();
    a.meta.drop_locks(f, LockKind::Record, 1).await.unwrap();
    // flock knows no circles; its conversions cannot block each other.
    a.try_lock(f, 1, SHARED).await.unwrap();
    a.try_lock(f, 2, SHARED).await.unwrap();
    let convert = a.waiting(f, 1, EXCLUSIVE).await;
    a.wait_lock(f, 2, EXCLUSIVE).await.unwrap();
    a.try_lock(f, 2, UNLOCK).await.unwrap();
    convert.await.unwrap().unwrap();
}

/// A circle through several clients ends: the youngest of its waits is given up, and only that one.
pub async fn deadlocks_between_clients(engine: Engine) {
    let w = World::new(engine).await;
    let clients = [w.mounted().await, w.mounted().await, w.mounted().await];
    let [a, b, c] = &clients;
    let f = a.file(ROOT, "f").await;
    let one = |start| range(F_WRLCK, start, start);
    a.try_lock(f, 1, one(1)).await.unwrap();
    b.try_lock(f, 1, one(2)).await.unwrap();
    c.try_lock(f, 1, one(3)).await.unwrap();
    c.try_lock(f, 2, one(4)).await.unwrap();
    // A holder of the third client waits for another one of its own, which waits for the first client: only both of its waits
    // make the circle.
    let first = a.waiting(f, 1, one(2)).await;
    let second = b.waiting(f, 1, one(4)).await;
    let third = c.waiting(f, 2, one(3)).await;
    // In nobody's circle, but waits for it.
    let outside = b.waiting(f, 7, one(1)).await;
    assert_eq!(errno(c.wait_lock(f, 1, one(1)).await), Errno::EDEADLK);
    assert!(!(first.is_finished() || second.is_finished() || third.is_finished() || outside.is_finished()));
    // The others get what they wait for as it is given back.
    c.meta.drop_locks(f, LockKind::Record, 1).await.unwrap();
    third.await.unwrap().unwrap();
    c.meta.drop_locks(f, LockKind::Record, 2).await.unwrap();
    second.await.unwrap().unwrap();
    b.meta.drop_locks(f, LockKind::Record, 1).await.unwrap();
    first.await.unwrap().unwrap();
    a.meta.drop_locks(f, LockKind::Record, 1).await.unwrap();
    outside.await.unwrap().unwrap();
    // What was told of the waits is withdrawn, also where a wait is interrupted.
    a.try_lock(f, 1, one(9)).await.unwrap();
    let waiting = c.waiting(f, 1, one(9)).await;
    until("the wait is told", async || w.told_waits().await > 0).await;
    waiting.abort();
    until("it is withdrawn", async || w.told_waits().await == 0).await;
    let waiting = c.waiting(f, 1, one(9)).await;
    until("the wait is told", async || w.told_waits().await > 0).await;
    c.meta.close_session().await.unwrap();
    assert_eq!(w.told_waits().await, 0, "it ends with the session");
    assert!(waiting.await.unwrap().is_err());
    w.check().await;
}

/// At most one holder at a time, whichever client and process it is.
pub async fn locks_contended(engine: Engine) {
    let w = World::new(engine).await;
    let clients = [w.mounted().await, w.mounted().await];
    let f = clients[0].file(ROOT, "f").await;
    let inside = std::sync::Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let mut tasks = Vec::new();
    for (n, c) in clients.iter().enumerate() {
        for owner in 0..TASKS {
            let (c, inside) = (c.clone(), inside.clone());
            tasks.push(tokio::spawn(async move {
                for round in 0..ROUNDS {
                    let at = u64::from(round + owner as u32 + n as u32) % 2;
                    let lock = if owner % 2 == 0 || at == 1 {
                        range(F_WRLCK, at, at)
                    } else {
                        range(F_RDLCK, at, at)
                    };
                    let write = lock == range(F_WRLCK, at, at);
                    c.wait_lock(f, owner, lock).await.unwrap();
                    let counter = &inside[at as usize];
                    // Readers count 1, a writer 1000.
                    let weight = if write { 1000 } else { 1 };
                    let before = counter.fetch_add(weight, Ordering::SeqCst);
                    assert!(if write { before == 0 } else { before < 1000 }, "{before} inside already");
                    tokio::task::yield_now().await;
                    counter.fetch_sub(weight, Ordering::SeqCst);
                    c.try_lock(f, owner, range(F_UNLCK, at, at)).await.unwrap();
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(clients[0].records(f).await, []);
    for c in &clients {
        assert!(w.store.scan(&Scan::Locked(c.meta.sid()), 10).await.unwrap().is_empty());
        assert!(!c.meta.has_lock(f, LockKind::Record, 0));
    }
    w.check().await;
}

/// Lost replies: what a client says that it holds is what the engine has.
pub async fn locks_with_lost_replies(engine: Engine) {
    let w = World::new(engine).await;
    let flaky = Flaky::new(w.engine.open().await, 7);
    let c = Client::over(flaky.clone(), &w, World::config()).await;
    c.meta.start_session().await.unwrap();
    let f = c.file(ROOT, "f").await;
    flaky.set_faults(100);
    for i in 0..60_u64 {
        let kind = if i % 3 == 0 { F_UNLCK } else { F_WRLCK };
        c.try_lock(f, i % 2, range(kind, i % 7, i % 7 + 3)).await.ok();
        c.try_lock(f, 5, if i % 4 == 3 { UNLOCK } else { EXCLUSIVE }).await.ok();
    }
    flaky.set_faults(0);
    let sid = c.meta.sid();
    for owner in [0, 1] {
        let held = c.meta.locks.records_of(f, owner);
        let Value::Plocks(all) = w.store.read(&[Read::Plocks(f)]).await.unwrap().remove(0) else { panic!() };
        let stored = all.iter().find(|(o, _)| *o == (sid, owner)).map(|(_, raw)| raw.clone());
        assert_eq!(stored.map(|raw| LockRecord::decode_list(&raw).unwrap()).unwrap_or_default(), held);
        c.meta.drop_locks(f, LockKind::Record, owner).await.unwrap();
    }
    c.meta.drop_locks(f, LockKind::Flock, 5).await.unwrap();
    assert!(w.store.scan(&Scan::Locked(sid), 10).await.unwrap().is_empty());
    w.check().await;
}

/// Locks end with the session of their client.
pub async fn locks_end_with_the_session(engine: Engine) {
    let w = World::new(engine).await;
    let cfg = MetaConfig { heartbeat: Duration::from_secs(1200), ..World::config() };
    let (a, b) = (w.client_with(cfg.clone()).await, w.client_with(cfg.clone()).await);
    for c in [&a, &b] {
        c.meta.start_session().await.unwrap();
    }
    let f = a.file(ROOT, "f").await;
    a.try_lock(f, 1, range(F_WRLCK, 0, 9)).await.unwrap();
    a.try_lock(f, 1, EXCLUSIVE).await.unwrap();
    let waiting = (b.waiting(f, 2, range(F_WRLCK, 0, 9)).await, b.waiting(f, 2, EXCLUSIVE).await);
    a.meta.close_session().await.unwrap();
    waiting.0.await.unwrap().unwrap();
    waiting.1.await.unwrap().unwrap();
    // A client that just went away is cleaned up after by another.
    w.clock.advance(1200 * 5 + 10);
    let c = w.client_with(cfg).await;
    c.meta.start_session().await.unwrap();
    assert_eq!(errno(c.try_lock(f, 3, SHARED).await), Errno::EAGAIN);
    c.meta.clean_stale_sessions().await.unwrap();
    c.try_lock(f, 3, SHARED).await.unwrap();
    c.try_lock(f, 3, range(F_RDLCK, 9, 9)).await.unwrap();
    w.check().await;
}

/// Declares a client dead, as others do: its locks go, and its row.
async fn declare_dead(w: &World, c: &Client) {
    w.clock.advance(1200 * 5 + 10);
    end_dead(w, c).await;
}

/// The same as soon as it may be done.
async fn end_dead(w: &World, c: &Client) {
    let other = w.client_with(config()).await;
    other.meta.start_session().await.unwrap();
    other.meta.clean_stale_sessions().await.unwrap();
    let rows = other.meta.sessions().await.unwrap();
    assert!(rows.iter().all(|r| r.sid != c.meta.sid()));
    other.meta.close_session().await.unwrap();
}

fn config() -> MetaConfig {
    MetaConfig { heartbeat: Duration::from_secs(1200), ..World::config() }
}

/// A client that was declared dead writes nothing under the locks that it had, whatever it hears first: from a commit, from a
/// heartbeat, or from another request.
pub async fn nothing_is_written_under_lost_locks(engine: Engine) {
    let w = World::new(engine).await;
    for case in 0..4 {
        let c = w.client_with(config()).await;
        c.meta.start_session().await.unwrap();
        let f = c.file(ROOT, &format!("f{case}")).await;
        let free = c.file(ROOT, &format!("free{case}")).await;
        open(&c, f).await;
        c.put(f, 0, 0, 10).await;
        c.try_lock(f, 1, range(F_WRLCK, 0, TO_EOF)).await.unwrap();
        c.try_lock(f, 1, EXCLUSIVE).await.unwrap();
        c.put(f, 0, 10, 10).await;
        let seen = c.meta.lock_loss(f);
        let late = c.fresh(20, 10).await;
        declare_dead(&w, &c).await;
        let write = async || {
            let append = crate::NewSlice::at(0, late);
            c.meta.write_since(seen, f, &[append], c.meta.clock.now()).await
        };
        match case {
            0 => {}
            1 => c.meta.register_again().await.unwrap(),
            2 => assert!(matches!(c.meta.check_locks(f).await, Err(Error::LockLost))),
            // It must not get new ones as if nothing had happened.
            _ => assert!(matches!(c.try_lock(f, 1, range(F_WRLCK, 0, 9)).await, Err(Error::LockLost))),
        }
        assert!(matches!(write().await, Err(Error::LockLost)), "case {case}");
        assert_eq!(c.stat(f).await.length, 20);
        assert_eq!(errno(c.truncate_if(f, seen).await), Errno::EIO);
        assert!(c.meta.lock_loss(f) > seen);
        c.put(free, 0, 0, 10).await;
        // Another process of the client may go on; this one when it has closed the file.
        c.try_lock(f, 2, range(F_WRLCK, 0, 9)).await.unwrap();
        assert!(matches!(c.try_lock(f, 1, EXCLUSIVE).await, Err(Error::LockLost)));
        assert!(matches!(c.wait_lock(f, 1, range(F_RDLCK, 20, 29)).await, Err(Error::LockLost)));
        assert!(matches!(write().await, Err(Error::LockLost)), "what was written before stays refused");
        c.meta.drop_locks(f, LockKind::Record, 2).await.unwrap();
        c.meta.drop_locks(f, LockKind::Record, 1).await.unwrap();
        c.meta.drop_locks(f, LockKind::Flock, 1).await.unwrap();
        c.meta.close(f).await.unwrap();
        c.meta.open(&root(), f, READ_WRITE).await.unwrap();
        assert_eq!(c.meta.lock_loss(f), 0);
        c.try_lock(f, 1, range(F_WRLCK, 0, TO_EOF)).await.unwrap();
        c.put(f, 0, 20, 10).await;
        assert_eq!(c.stat(f).await.length, 30);
        c.meta.close(f).await.unwrap();
        c.meta.close_session().await.unwrap();
    }
    w.check().await;
}

/// Is a write through what was open when `seen` was the last loss refused before it is taken?
async fn refuses(c: &Client, f: Ino, seen: u64) -> bool {
    let checked = c.meta.check_locks(f).await;
    assert!(matches!(checked, Ok(()) | Err(Error::LockLost)), "{checked:?}");
    checked.is_err() || c.meta.lock_loss(f) > seen
}

/// Expiry and engine's clock are whole seconds: a session that was refreshed late in one may be ended early in another.
pub async fn lost_locks_are_known_as_early_as_others_may_have_them(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client_with(config()).await;
    c.meta.start_session().await.unwrap();
    let f = c.file(ROOT, "f").await;
    open(&c, f).await;
    c.try_lock(f, 1, EXCLUSIVE).await.unwrap();
    w.clock.advance_millis(900);
    c.meta.register_again().await.unwrap();
    assert!(!refuses(&c, f, 0).await);
    w.clock.advance_millis(1200 * 5 * 1000 - 800);
    end_dead(&w, &c).await;
    assert!(refuses(&c, f, 0).await);
}

/// Whoever ends a session removes its locks before its row. A client that comes back in between finds the row.
pub async fn a_late_heartbeat_does_not_hide_lost_locks(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client_with(config()).await;
    c.meta.start_session().await.unwrap();
    let (f, kept) = (c.file(ROOT, "f").await, c.file(ROOT, "kept").await);
    for file in [f, kept] {
        open(&c, file).await;
        c.try_lock(file, 1, EXCLUSIVE).await.unwrap();
    }
    w.clock.advance(1200 * 5 + 10);
    let writes = vec![Write::PutFlock(f, (c.meta.sid(), 1), None)];
    w.store.commit(&Commit { guards: Vec::new(), writes }).await.unwrap();
    // The second one comes before it is known what the first one has looked for.
    for _ in 0..2 {
        c.meta.register_again().await.unwrap();
    }
    assert!(refuses(&c, f, 0).await);
    assert!(!refuses(&c, kept, 0).await);
    until("the lease", async || !c.meta.lease_is_over()).await;
    assert!(refuses(&c, f, 0).await);
    assert!(!refuses(&c, kept, 0).await);
}

/// Locks that are still there are not taken for lost, even if the row of the session was.
pub async fn kept_locks_survive_a_lost_row(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client_with(config()).await;
    c.meta.start_session().await.unwrap();
    let f = c.file(ROOT, "f").await;
    c.try_lock(f, 1, range(F_WRLCK, 0, 9)).await.unwrap();
    let gone = Commit { guards: Vec::new(), writes: vec![Write::DelSession(c.meta.sid())] };
    w.store.commit(&gone).await.unwrap();
    // A new lock needs a session, which registers again.
    c.try_lock(f, 2, range(F_WRLCK, 20, 29)).await.unwrap();
    assert_eq!(c.meta.sessions().await.unwrap().len(), 1);
    c.put(f, 0, 0, 10).await;
    assert_eq!(c.meta.lock_loss(f), 0);
    assert_eq!(c.records(f).await, [(1, 1, 0, 9), (2, 1, 20, 29)]);
}

/// A change of data beside locks that come and go all the time.
pub async fn writes_beside_changing_locks(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.mounted().await;
    let f = c.file(ROOT, "f").await;
    c.try_lock(f, 1, range(F_WRLCK, 0, 0)).await.unwrap();
    let locking = {
        let c = c.clone();
        tokio::spawn(async move {
            for i in 0..40 {
                c.wait_lock(f, 2, range(F_WRLCK, 1, 9)).await.unwrap();
                c.try_lock(f, 2, range(F_UNLCK, i % 3, 9)).await.unwrap();
                c.wait_lock(f, 3, EXCLUSIVE).await.unwrap();
                c.try_lock(f, 3, UNLOCK).await.unwrap();
            }
        })
    };
    for i in 0..40 {
        c.put(f, 0, i * 10, 10).await;
    }
    locking.await.unwrap();
    assert_eq!(c.stat(f).await.length, 400);
    assert_eq!(c.meta.lock_loss(f), 0);
    w.check().await;
}

impl Client {
    async fn truncate_if(&self, ino: Ino, seen: u64) -> Result<()> {
        let meta: &std::sync::Arc<Meta> = &self.meta;
        meta.truncate_since(seen, &root(), ino, 5, true).await.map(|_| ())
    }
}
