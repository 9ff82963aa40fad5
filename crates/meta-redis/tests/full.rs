//! A server at its `maxmemory`: what frees room works, what takes some is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::lock::LockRecord;
use ciderfs_format::settings::Settings;
use ciderfs_format::{Attr, Edge, FileType, Ino, SessionId, Slice, SliceId};
use ciderfs_meta::store::{Commit, DirCursor, LockKind, Read, Scan, Store, Value, Write};
use ciderfs_meta::{
    Caller, Errno, Lock, LockCaller, Meta, MetaConfig, NewNode, NewSlice, OpenFlags, SetAttr, SliceRemover,
    XattrSet,
};
use ciderfs_testkit::redis::RedisServer;
use common::{open, server};

const ROOT: Ino = Ino(1);

/// Objects that are always there to be removed.
struct Objects;

#[async_trait]
impl SliceRemover for Objects {
    async fn remove_slice(&self, _: SliceId, _: u32) -> Result<(), String> {
        Ok(())
    }
}

async fn client(redis: &RedisServer) -> Arc<Meta> {
    let store: Arc<dyn Store> = Arc::new(open(&redis.url_db(1)).await);
    let cfg = MetaConfig { heartbeat: Duration::from_secs(1), no_bgjob: true, ..MetaConfig::default() };
    let meta = Meta::load(store, cfg).await.unwrap();
    meta.set_slice_remover(Arc::new(Objects));
    meta.start_session().await.unwrap();
    meta
}

async fn make(m: &Arc<Meta>, dir: Ino, name: &str, kind: FileType) -> Ino {
    let node = NewNode { kind, mode: 0o755, umask: 0, rdev: 0, target: b"target" };
    m.create(&Caller::root(), dir, name.as_bytes(), &node).await.unwrap().0
}

async fn data(m: &Arc<Meta>, dir: Ino, name: &str) -> Ino {
    let ino = make(m, dir, name, FileType::File).await;
    let slice = Slice { pos: 0, id: m.new_slice_id().await.unwrap(), size: 9000, off: 0, len: 9000 };
    m.write(ino, &[NewSlice::at(0, slice)], m.now()).await.unwrap();
    ino
}

fn fill(redis: &RedisServer) {
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    assert!(redis.command(&["SET", "x", "y"]).unwrap_err().to_string().contains("OOM"));
}

async fn what_frees_room_works(trash_days: u32) {
    let redis = server(&[]);
    let store = open(&redis.url_db(1)).await;
    let mut settings = Settings::new("full", "5f1c3a86-0000-4000-8000-000000000009", "file", "/nowhere/");
    settings.trash_days = trash_days;
    Meta::write_settings(&store, &settings, None).await.unwrap();
    let m = client(&redis).await;
    let c = Caller::root();
    let d = make(&m, ROOT, "d", FileType::Directory).await;
    for name in ["unlinked", "over", "under", "open", "linked", "keeps"] {
        data(&m, d, name).await;
    }
    let short = data(&m, d, "short").await;
    let linked = m.lookup(&c, d, b"linked").await.unwrap().0;
    m.link(&c, linked, d, b"second").await.unwrap();
    make(&m, d, "link", FileType::Symlink).await;
    make(&m, d, "dir", FileType::Directory).await;
    m.set_xattr(&c, short, b"user.a", Bytes::from_static(b"value"), XattrSet::default()).await.unwrap();
    let by = LockCaller { owner: 7, pid: 1 };
    let write = |start, end, kind| Lock::Range(LockRecord { kind, pid: 1, start, end });
    let ever = || std::future::pending();
    m.lock(short, by, write(0, 99, 1), false, ever()).await.unwrap();
    m.lock(short, by, Lock::Flock(Some(true)), false, ever()).await.unwrap();
    let held = m.lookup(&c, d, b"open").await.unwrap().0;
    m.open(&c, held, OpenFlags { read: true, ..OpenFlags::default() }).await.unwrap();
    // Another client goes away with a lock and an open file.
    let lost = client(&redis).await;
    lost.lock(linked, by, Lock::Flock(Some(true)), false, ever()).await.unwrap();
    fill(&redis);

    let node = NewNode { kind: FileType::File, mode: 0o755, umask: 0, rdev: 0, target: b"" };
    let full = |e: ciderfs_meta::Error| assert_eq!(e.errno(), Errno::ENOSPC, "{e}");
    full(m.create(&c, d, b"more", &node).await.unwrap_err());
    full(m.link(&c, short, d, b"third").await.unwrap_err());
    full(m.set_xattr(&c, short, b"user.b", Bytes::from_static(b"v"), XattrSet::default()).await.unwrap_err());
    let slice = Slice { pos: 0, id: m.new_slice_id().await.unwrap(), size: 9, off: 0, len: 9 };
    full(m.write(short, &[NewSlice::at_end(slice)], m.now()).await.unwrap_err());

    m.unlink(&c, d, b"unlinked").await.unwrap();
    m.unlink(&c, d, b"second").await.unwrap();
    m.unlink(&c, d, b"link").await.unwrap();
    m.rmdir(&c, d, b"dir").await.unwrap();
    m.rename(&c, d, b"under", d, b"over", 0).await.unwrap();
    m.rename(&c, d, b"keeps", ROOT, b"kept", 0).await.unwrap();
    m.truncate(&c, short, 100, true).await.unwrap();
    m.truncate(&c, short, 0, true).await.unwrap();
    m.remove_xattr(&c, short, b"user.a").await.unwrap();
    let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    m.setattr(&c, short, &mode).await.unwrap();
    // Half of a lock is given back, then all.
    m.lock(short, by, write(40, 50, 2), false, ever()).await.unwrap();
    m.drop_locks(short, LockKind::Record, 7).await.unwrap();
    m.lock(short, by, Lock::Flock(None), false, ever()).await.unwrap();
    // Removed while it is open, then closed.
    m.unlink(&c, d, b"open").await.unwrap();
    m.close(held).await.unwrap();
    // A heartbeat, and the end of a session with locks.
    let row = async || m.sessions().await.unwrap().into_iter().find(|s| s.sid == m.sid()).unwrap();
    let before = row().await.expire;
    let start = std::time::Instant::now();
    while row().await.expire == before {
        assert!(start.elapsed() < Duration::from_secs(20), "no heartbeat");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sid = lost.sid();
    lost.close_session().await.unwrap();
    m.drain_deletions().await;
    m.run_hourly_jobs().await.unwrap();
    assert_eq!(store.scan(&Scan::Locked(sid), 9).await.unwrap(), []);
    for left in [Scan::DeadSlices, Scan::Delfiles(i64::MAX >> 1)] {
        assert_eq!(store.scan(&left, 9).await.unwrap(), [], "{left:?}");
    }
    // A new client can come to remove things.
    let late = client(&redis).await;
    late.unlink(&c, d, b"short").await.unwrap();
    late.close_session().await.unwrap();
    m.close_session().await.unwrap();
    let left: Vec<SessionId> = m.sessions().await.unwrap().iter().map(|s| s.sid).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn what_frees_room_works_on_a_full_server() {
    what_frees_room_works(0).await;
}

/// The first removal of an hour has to make the trash's directory.
#[tokio::test]
async fn what_frees_room_works_on_a_full_server_with_the_trash() {
    what_frees_room_works(1).await;
}

/// A large hour of the trash: the server answers a listing that begins anew with pages of nothing where much was removed.
#[tokio::test]
async fn a_large_hour_of_the_trash_expires_whole() {
    const ENTRIES: u64 = 24_000;
    let redis = server(&[]);
    let store = open(&redis.url_db(1)).await;
    let mut settings = Settings::new("large", "5f1c3a86-0000-4000-8000-000000000010", "file", "/nowhere/");
    settings.trash_days = 1;
    Meta::write_settings(&store, &settings, None).await.unwrap();
    let m = client(&redis).await;
    // An hour long ago, with links to one file.
    let (hour, file) = (Ino(Ino::TRASH.0 + 1), make(&m, ROOT, "f", FileType::File).await);
    let attr = m.getattr(file).await.unwrap();
    let dir = Attr { kind: FileType::Directory, parent: Ino::TRASH, ..attr.clone() };
    let to_hour = Edge { kind: FileType::Directory, ino: hour };
    let mut writes =
        vec![Write::PutEdge(Ino::TRASH, b"2020-01-01-10".to_vec(), to_hour), Write::PutAttr(hour, dir)];
    for n in 0..ENTRIES {
        let ino = Ino(1_000_000 + n);
        writes.push(Write::PutEdge(
            hour,
            format!("1-{ino}-f{n}").into_bytes(),
            Edge { kind: FileType::File, ino },
        ));
        writes.push(Write::PutAttr(ino, Attr { parent: hour, ..attr.clone() }));
    }
    for part in writes.chunks(2000) {
        store.commit(&Commit { guards: Vec::new(), writes: part.to_vec() }).await.unwrap();
    }
    m.run_hourly_jobs().await.unwrap();
    let (left, _) = store.list_dir(Ino::TRASH, &DirCursor::Start, 10, false).await.unwrap();
    assert_eq!(left, []);
    assert_eq!(store.read(&[Read::DirEmpty(hour)]).await.unwrap(), [Value::Bool(true)]);
}
