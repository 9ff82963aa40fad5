//! Open files, sessions, and the deletion of data.

use std::time::{Duration, Instant};

use ciderfs_format::{FileType, Ino, SessionId, Settings};

use crate::error::Errno;
use crate::store::{Commit, Scan, Scanned, Write};
use crate::suite::Engine;
use crate::suite::world::*;
use crate::{MetaConfig, OpenFlags};

pub(super) const READ_WRITE: OpenFlags =
    OpenFlags { read: true, write: true, exec: false, append: false, truncate: false };

/// Waits for something that happens in the background.
pub(super) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < Duration::from_secs(30), "waiting for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn open(c: &Client, ino: Ino) {
    c.meta.open(&root(), ino, READ_WRITE).await.unwrap();
}

/// An unlinked open file lives until its last close.
pub async fn unlinked_but_open(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.mounted().await;
    let f = c.file(ROOT, "f").await;
    open(&c, f).await;
    open(&c, f).await;
    let one = c.put(f, 0, 0, 5000).await;
    let removed = c.unlink(ROOT, "f").await.unwrap();
    assert!(removed.last);
    assert_eq!(errno(c.find(ROOT, "f").await), Errno::ENOENT);
    assert_eq!(c.nlink(f).await, 0);
    assert_eq!(errno(c.link(f, ROOT, "again").await), Errno::ENOENT);
    w.check().await;
    // It can still be read, written and truncated.
    let two = c.put(f, 1, 0, 100).await;
    c.truncate(f, 4000).await.unwrap();
    let three = c.put(f, 0, 4000, 100).await;
    w.check().await;
    c.meta.close(f).await.unwrap();
    assert_eq!(c.nlink(f).await, 0, "open once more");
    c.meta.close(f).await.unwrap();
    assert!(c.gone(f).await);
    let mut want = vec![(one.id, 5000), (two.id, 100), (three.id, 100)];
    want.sort_unstable();
    let mut removed = Vec::new();
    until("the deletion of the data", async || {
        removed.extend(w.recorder.take());
        removed.len() >= 3
    })
    .await;
    removed.sort_unstable();
    assert_eq!(removed, want);
    c.meta.close_session().await.unwrap();
    w.check().await;
    assert!(w.store.scan(&Scan::Delfiles(i64::MAX >> 1), 10).await.unwrap().is_empty());
}

/// The same for a file that a rename replaces, and one that has links.
pub async fn replaced_but_open(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.mounted().await;
    let f = c.file(ROOT, "f").await;
    c.file(ROOT, "g").await;
    open(&c, f).await;
    c.rename((ROOT, "g"), (ROOT, "f")).await.unwrap();
    assert_eq!(c.nlink(f).await, 0);
    w.check().await;
    c.meta.close(f).await.unwrap();
    assert!(c.gone(f).await);
    let h = c.file(ROOT, "h").await;
    c.link(h, ROOT, "i").await.unwrap();
    open(&c, h).await;
    assert!(!c.unlink(ROOT, "h").await.unwrap().last);
    c.meta.close(h).await.unwrap();
    assert_eq!(c.nlink(h).await, 1, "it has a name");
    open(&c, h).await;
    assert!(c.unlink(ROOT, "i").await.unwrap().last);
    c.meta.close(h).await.unwrap();
    assert!(c.gone(h).await);
    c.meta.close_session().await.unwrap();
    w.check().await;
}

/// Opening and unlinking at the same time: the file is there for whoever has it open.
pub async fn open_races_unlink(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.mounted().await;
    for i in 0..30 {
        let name = format!("f{i}");
        let f = c.file(ROOT, &name).await;
        let opener = c.clone();
        let opening = tokio::spawn(async move {
            let opened = opener.meta.open(&root(), f, READ_WRITE).await;
            if opened.is_ok() {
                // The file must stay until it is closed.
                opener.put(f, 0, 0, 10).await;
                opener.stat(f).await;
                opener.meta.close(f).await.unwrap();
            }
        });
        if i % 2 == 0 {
            tokio::task::yield_now().await;
        }
        c.unlink(ROOT, &name).await.unwrap();
        opening.await.unwrap();
        assert!(c.gone(f).await);
    }
    c.meta.close_session().await.unwrap();
    w.check().await;
}

/// The end of a session releases what it kept.
pub async fn session_ends(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.mounted().await;
    let sid = c.meta.sid();
    assert!(sid > SessionId::NONE);
    let f = c.file(ROOT, "f").await;
    let slice = c.put(f, 0, 0, 10).await;
    open(&c, f).await;
    c.unlink(ROOT, "f").await.unwrap();
    let locks = vec![
        Write::PutFlock(ROOT, (sid, 1), Some(true)),
        Write::PutPlock(ROOT, (sid, 2), Some(vec![0; 24].into())),
        Write::PutFlock(ROOT, (SessionId(sid.0 + 1), 1), Some(true)),
    ];
    w.store.commit(&Commit { guards: Vec::new(), writes: locks }).await.unwrap();
    assert_eq!(c.meta.sessions().await.unwrap().iter().map(|r| r.sid).collect::<Vec<_>>(), [sid]);
    c.meta.close_session().await.unwrap();
    assert!(c.gone(f).await);
    assert!(c.meta.sessions().await.unwrap().is_empty());
    assert_eq!(w.recorder.take(), [(slice.id, 10)]);
    assert!(w.store.scan(&Scan::Locked(sid), 10).await.unwrap().is_empty());
    assert_eq!(w.store.scan(&Scan::Locked(SessionId(sid.0 + 1)), 10).await.unwrap(), [Scanned::Ino(ROOT)]);
    w.check().await;
    // Session numbers are not used again.
    let d = w.mounted().await;
    assert!(d.meta.sid() > sid);
    d.meta.close_session().await.unwrap();
}

/// A client that went away is cleaned up after by another, and only then.
pub async fn stale_session(engine: Engine) {
    let w = World::new(engine).await;
    let cfg = MetaConfig { heartbeat: Duration::from_secs(1200), ..World::config() };
    let lost = w.client_with(cfg.clone()).await;
    lost.meta.start_session().await.unwrap();
    let f = lost.file(ROOT, "f").await;
    let slice = lost.put(f, 0, 0, 10).await;
    open(&lost, f).await;
    lost.unlink(ROOT, "f").await.unwrap();
    let alive = w.client_with(cfg.clone()).await;
    alive.meta.start_session().await.unwrap();
    alive.meta.clean_stale_sessions().await.unwrap();
    assert_eq!(alive.nlink(f).await, 0, "not stale yet");
    w.clock.advance(1200 * 5 + 10);
    let witness = w.client_with(cfg).await;
    witness.meta.start_session().await.unwrap();
    witness.meta.clean_stale_sessions().await.unwrap();
    let left: Vec<SessionId> = witness.meta.sessions().await.unwrap().iter().map(|r| r.sid).collect();
    assert_eq!(left, [witness.meta.sid()], "both old sessions are over");
    assert!(witness.gone(f).await);
    let mut removed = Vec::new();
    until("the deletion of the data", async || {
        removed.extend(w.recorder.take());
        !removed.is_empty()
    })
    .await;
    assert_eq!(removed, [(slice.id, 10)]);
    w.check().await;
    // The lost one comes back and closes a file that is gone.
    lost.meta.close(f).await.unwrap();
    for c in [lost, alive, witness] {
        c.meta.close_session().await.unwrap();
    }
    w.check().await;
}

/// A heartbeat moves the expiry and brings a forgotten session back.
pub async fn heartbeat(engine: Engine) {
    let w = World::new(engine).await;
    let cfg = MetaConfig { heartbeat: Duration::from_millis(20), ..World::config() };
    let c = w.client_with(cfg).await;
    c.meta.start_session().await.unwrap();
    let row = async || c.meta.sessions().await.unwrap().into_iter().next();
    let first = row().await.unwrap();
    let info: serde_json::Value = serde_json::from_slice(&first.info).unwrap();
    assert_eq!(info["ProcessID"], std::process::id());
    w.clock.advance(1000);
    until("a heartbeat", async || row().await.is_some_and(|r| r.expire >= first.expire + 1000)).await;
    let gone = Commit { guards: Vec::new(), writes: vec![Write::DelSession(first.sid)] };
    w.store.commit(&gone).await.unwrap();
    until("the session to be back", async || row().await.is_some_and(|r| r.sid == first.sid)).await;
    // Changed settings arrive.
    let mut changed = w.settings.clone();
    changed.capacity = 1 << 40;
    crate::Meta::write_settings(w.store.as_ref(), &changed, Some(&w.settings)).await.unwrap();
    until("the new settings", async || c.meta.settings().capacity == 1 << 40).await;
    assert!(c.meta.fatal().borrow().is_none());
    // Another volume in its place stops the mount.
    let mut other = changed.clone();
    other.uuid = "5f1c3a86-0000-4000-8000-000000000002".into();
    crate::Meta::write_settings(w.store.as_ref(), &other, Some(&changed)).await.unwrap();
    until("the mount to stop", async || c.meta.fatal().borrow().is_some()).await;
    c.meta.close_session().await.unwrap();
    // So does what it would have refused at its start.
    let d = w.client_with(MetaConfig { heartbeat: Duration::from_millis(20), ..World::config() }).await;
    d.meta.start_session().await.unwrap();
    let logged = Settings { change_log: true, ..other.clone() };
    crate::Meta::write_settings(w.store.as_ref(), &logged, Some(&other)).await.unwrap();
    until("the mount to stop", async || d.meta.fatal().borrow().is_some()).await;
    d.meta.close_session().await.unwrap();
}

/// Data that could not be deleted is deleted later by whoever does the hourly jobs.
pub async fn deletion_is_resumed(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    // Objects cannot be deleted now.
    w.recorder.refuse(true);
    let f = c.file(ROOT, "f").await;
    let one = c.put(f, 0, 0, 10).await;
    c.unlink(ROOT, "f").await.unwrap();
    c.meta.drain_deletions().await;
    assert_eq!(w.store.scan(&Scan::DeadSlices, 10).await.unwrap(), [Scanned::Slice(one.id, 10)]);
    // A client that dies before it has dropped the lists.
    let g = c.file(ROOT, "g").await;
    let two = c.put(g, 2, 0, 20).await;
    c.unlink(ROOT, "g").await.unwrap();
    drop(c);
    w.recorder.refuse(false);
    let d = w.client().await;
    d.meta.run_hourly_jobs().await.unwrap();
    assert_eq!(w.recorder.take(), [(one.id, 10)], "a young record is left to its own client");
    assert!(w.store.scan(&Scan::DeadSlices, 10).await.unwrap().is_empty());
    w.clock.advance(2 * 3600);
    d.meta.run_hourly_jobs().await.unwrap();
    assert_eq!(w.recorder.take(), [(two.id, 20)]);
    assert!(w.store.scan(&Scan::Delfiles(i64::MAX >> 1), 10).await.unwrap().is_empty());
    w.check().await;
}

/// A client whose clock was days ahead has done the hourly work, and deleted files, before its clock was set.
pub async fn hourly_jobs_after_a_clock_ahead(engine: Engine) {
    const AHEAD: i64 = 3 * 86_400;
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    w.clock.advance(AHEAD);
    c.meta.run_hourly_jobs().await.unwrap();
    w.clock.advance(-AHEAD);
    let f = c.file(ROOT, "f").await;
    let slice = c.put(f, 0, 0, 10).await;
    c.unlink(ROOT, "f").await.unwrap();
    w.clock.advance(30 * 3600);
    c.meta.run_hourly_jobs().await.unwrap();
    assert_eq!(w.recorder.take(), [(slice.id, 10)], "the trash has expired");
    w.check().await;
}

/// A slice that several records use is deleted with the last of them.
pub async fn shared_slices(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let s = c.fresh(0, 100).await;
    let other = ciderfs_format::Slice { pos: 200, off: 50, len: 50, ..s };
    let appends = [crate::NewSlice::at(0, s), crate::NewSlice::at(0, other), crate::NewSlice::at(1, s)];
    c.meta.write(f, &appends, ciderfs_format::Time { sec: 1, nsec: 0 }).await.unwrap();
    w.check().await;
    c.truncate(f, 300).await.unwrap();
    c.meta.drain_deletions().await;
    assert_eq!(w.recorder.take(), []);
    w.check().await;
    c.unlink(ROOT, "f").await.unwrap();
    c.meta.drain_deletions().await;
    assert_eq!(w.recorder.take(), [(s.id, 100)]);
    w.check().await;
}

/// A client without a session keeps nothing: an unlinked open file is gone.
pub async fn unlink_without_session(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    open(&c, f).await;
    assert!(c.unlink(ROOT, "f").await.unwrap().last);
    assert!(c.gone(f).await);
    c.meta.close(f).await.unwrap();
    // Somebody else's open file goes too: there is no open tracking between clients.
    let (a, b) = (w.mounted().await, w.mounted().await);
    let g = a.make(ROOT, "g", FileType::File).await.unwrap();
    open(&a, g).await;
    b.unlink(ROOT, "g").await.unwrap();
    assert!(a.gone(g).await);
    a.meta.close(g).await.unwrap();
    for c in [a, b] {
        c.meta.close_session().await.unwrap();
    }
    w.check().await;
}

/// A read-only client registers nothing and changes nothing.
pub async fn read_only_client(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.put(f, 0, 0, 10).await;
    let before = w.store.read(&[crate::store::Read::Attr(ROOT)]).await.unwrap();
    let cfg = MetaConfig { read_only: true, heartbeat: Duration::from_millis(10), ..World::config() };
    let r = w.client_with(cfg).await;
    r.meta.start_session().await.unwrap();
    assert_eq!(r.meta.sid(), SessionId::NONE);
    assert!(r.meta.sessions().await.unwrap().is_empty());
    assert_eq!(r.find(ROOT, "f").await.unwrap(), f);
    assert_eq!(r.meta.read_raw_chunk(f, 0).await.unwrap().len(), 1);
    let how = OpenFlags { read: true, ..OpenFlags::default() };
    r.meta.open(&root(), f, how).await.unwrap();
    r.meta.close(f).await.unwrap();
    for refused in [
        errno(r.link(f, ROOT, "g").await),
        errno(r.unlink(ROOT, "f").await),
        errno(r.rmdir(ROOT, "f").await),
        errno(r.rename((ROOT, "f"), (ROOT, "g")).await),
        errno(r.truncate(f, 0).await),
        errno(r.meta.setattr(&root(), f, &crate::SetAttr::default()).await),
        errno(r.meta.new_slice_id().await),
        errno(r.append(f, 0, vec![ciderfs_format::Slice::zeros(0, 1)]).await),
    ] {
        assert_eq!(refused, Errno::EROFS);
    }
    r.meta.close_session().await.unwrap();
    assert_eq!(w.store.read(&[crate::store::Read::Attr(ROOT)]).await.unwrap(), before);
    w.check().await;
}

/// Several clients find the same work to do: each piece is done once.
pub async fn jobs_contended(engine: Engine) {
    let w = World::with_trash(engine).await;
    let mut want = Vec::new();
    {
        let c = w.client().await;
        for i in 0..10 {
            let name = format!("f{i}");
            let f = c.file(ROOT, &name).await;
            let old = [c.put(f, 0, 0, 100).await, c.put(f, 0, 100, 100).await];
            let new = c.fresh(0, 200).await;
            assert!(c.meta.commit_compaction(f, 0, &old, 0, new).await.unwrap());
            want.extend(old.map(|s| (s.id, s.size)));
            if i % 2 == 0 {
                c.unlink(ROOT, &name).await.unwrap();
                want.push((new.id, new.size));
            }
        }
    }
    want.sort_unstable();
    w.clock.advance(40 * 3600);
    for _ in 0..2 {
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let c = w.client().await;
            tasks.push(tokio::spawn(async move { c.meta.run_hourly_jobs().await }));
        }
        for t in tasks {
            t.await.unwrap().unwrap();
        }
        w.check().await;
        w.clock.advance(2 * 3600);
    }
    assert_eq!(w.recorder.take(), want);
    assert_eq!(w.client().await.ls(ROOT).await.len(), 5);
}
