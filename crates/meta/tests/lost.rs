//! Lost requests and replies at chosen moments, and foreign commits between a belief and its use.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::acl::{AclEntry, AclRule, XATTR_ACCESS};
use ciderfs_format::settings::Settings;
use ciderfs_format::{FileType, Ino, Slice, SliceId, Time};
use ciderfs_meta::memory::{FaultPlan, MemoryStore};
use ciderfs_meta::store::{Commit, Counter, Guard, Read, Scan, Store, Value, Write};
use ciderfs_meta::{Caller, Errno, Meta, MetaConfig, NewNode, NewSlice, Result, SetAttr, XattrSet};

const ROOT: Ino = Ino::ROOT;
const LOST_REPLY: FaultPlan = FaultPlan { pass: 0, unavailable: 0, lost_reply: 1, lost_request: 0 };
const LOST_REQUEST: FaultPlan = FaultPlan { pass: 0, unavailable: 0, lost_reply: 0, lost_request: 1 };

async fn volume() -> (Arc<MemoryStore>, Settings) {
    let store = Arc::new(MemoryStore::new());
    let mut settings = Settings::new("lost", "5f1c3a86-0000-4000-8000-000000000001", "file", "/nowhere/");
    settings.trash_days = 0;
    Meta::write_settings(store.as_ref(), &settings, None).await.unwrap();
    (store, settings)
}

async fn client(store: &Arc<MemoryStore>) -> Arc<Meta> {
    let cfg = MetaConfig { heartbeat: Duration::ZERO, ..MetaConfig::default() };
    Meta::load(Arc::clone(store) as Arc<dyn Store>, cfg).await.unwrap()
}

async fn create(m: &Meta, name: &str, kind: FileType) -> Result<Ino> {
    let target: &[u8] = if kind == FileType::Symlink { b"t" } else { b"" };
    let new = NewNode { kind, mode: 0o755, umask: 0, rdev: 0, target };
    m.create(&Caller::root(), ROOT, name.as_bytes(), &new).await.map(|(ino, _)| ino)
}

async fn put(m: &Arc<Meta>, ino: Ino, id: u64) -> Result<()> {
    let new = NewSlice::at(0, Slice { pos: 0, id: SliceId(id), size: 10, off: 0, len: 10 });
    m.write(ino, &[new], Time { sec: 1, nsec: 0 }).await.map(|_| ())
}

fn errno<T: std::fmt::Debug>(r: Result<T>) -> Errno {
    r.unwrap_err().errno()
}

/// Each operation succeeds once, whether its request or its reply was lost.
#[tokio::test]
async fn every_operation_happens_once() {
    let root = Caller::root();
    for plan in [LOST_REPLY, LOST_REQUEST] {
        let (store, _) = volume().await;
        let m = client(&store).await;
        // Numbers are in stock, so that the fault meets the operation itself.
        create(&m, "first", FileType::File).await.unwrap();
        let id = m.new_slice_id().await.unwrap();
        let arm = || store.set_fault(plan);

        arm();
        let f = create(&m, "f", FileType::File).await.unwrap();
        arm();
        let d = create(&m, "d", FileType::Directory).await.unwrap();
        assert_eq!(m.getattr(ROOT).await.unwrap().nlink, 3);
        arm();
        put(&m, f, id.0).await.unwrap();
        assert_eq!(m.read_raw_chunk(f, 0).await.unwrap().len(), 1);
        arm();
        assert_eq!(m.link(&root, f, d, b"g").await.unwrap().nlink, 2);
        assert_eq!(m.getattr(f).await.unwrap().nlink, 2);
        arm();
        assert_eq!(m.rename(&root, d, b"g", ROOT, b"h", 0).await.unwrap().replaced, None);
        arm();
        assert_eq!(m.truncate(&root, f, 5, true).await.unwrap().attr.length, 5);
        arm();
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        assert_eq!(m.setattr(&root, f, &set).await.unwrap().attr.mode, 0o600);
        arm();
        assert!(!m.unlink(&root, ROOT, b"f").await.unwrap().last);
        assert_eq!(m.getattr(f).await.unwrap().nlink, 1);
        arm();
        assert!(m.unlink(&root, ROOT, b"h").await.unwrap().last);
        arm();
        assert_eq!(m.rmdir(&root, ROOT, b"d").await.unwrap().ino, d);
        assert_eq!(m.getattr(ROOT).await.unwrap().nlink, 2);
        let stat = m.statfs().await.unwrap();
        assert_eq!((stat.used_inodes, stat.used_space), (1, 4096));
        assert_eq!(store.scan(&Scan::Delfiles(i64::MAX >> 1), 10).await.unwrap().len(), 1);
    }
}

/// What goes to the end of a file is there once, and where the answer says, also where another client has moved the end.
#[tokio::test]
async fn appends_happen_once() {
    for plan in [LOST_REPLY, LOST_REQUEST] {
        let (store, _) = volume().await;
        let (a, b) = (client(&store).await, client(&store).await);
        let f = create(&a, "f", FileType::File).await.unwrap();
        put(&a, f, a.new_slice_id().await.unwrap().0).await.unwrap();
        let mut end = 10;
        assert_eq!(b.getattr(f).await.unwrap().length, end);
        for round in 1..4 {
            for (m, len) in [(&a, round * 100), (&b, round * 100 + 50)] {
                let id = m.new_slice_id().await.unwrap();
                let new = NewSlice::at_end(Slice { pos: 0, id, size: len, off: 0, len });
                store.set_fault(plan);
                let written = m.write(f, &[new], Time { sec: 1, nsec: 0 }).await.unwrap();
                assert_eq!(written.offsets, [end]);
                end += u64::from(len);
                assert_eq!((written.changed.attr.length, a.getattr(f).await.unwrap().length), (end, end));
                let list = a.read_raw_chunk(f, 0).await.unwrap();
                assert_eq!(list.iter().filter(|s| s.id == id).count(), 1);
            }
        }
    }
}

/// A removal whose request was lost is not taken for done because another client moved the entry away; the file and its data
/// live on under the new name.
#[tokio::test]
async fn lost_removal_of_what_another_moved() {
    let root = Caller::root();
    let (store, _) = volume().await;
    let (a, b) = (client(&store).await, client(&store).await);
    let f = create(&a, "f", FileType::File).await.unwrap();
    let d = create(&a, "d", FileType::Directory).await.unwrap();
    let victim = create(&a, "victim", FileType::File).await.unwrap();
    for ino in [f, victim] {
        put(&a, ino, a.new_slice_id().await.unwrap().0).await.unwrap();
    }
    for name in ["f", "d", "victim"] {
        let moved = format!("moved-{name}");
        b.rename(&root, ROOT, name.as_bytes(), ROOT, moved.as_bytes(), 0).await.unwrap();
    }
    store.set_fault(LOST_REQUEST);
    assert_eq!(errno(a.unlink(&root, ROOT, b"f").await), Errno::ENOENT);
    store.set_fault(LOST_REQUEST);
    assert_eq!(errno(a.rmdir(&root, ROOT, b"d").await), Errno::ENOENT);
    // A rename whose victim another client had moved away.
    let source = create(&a, "source", FileType::File).await.unwrap();
    store.set_fault(LOST_REQUEST);
    a.rename(&root, ROOT, b"source", ROOT, b"victim", 0).await.unwrap();
    a.drain_deletions().await;
    for (name, ino) in [("moved-f", f), ("moved-d", d), ("moved-victim", victim), ("victim", source)] {
        assert_eq!(b.lookup(&root, ROOT, name.as_bytes()).await.unwrap().0, ino);
    }
    for ino in [f, victim] {
        assert_eq!(b.read_raw_chunk(ino, 0).await.unwrap().len(), 1, "the data is there");
    }
}

/// A rename whose request was lost is not taken for done because the destination is another link to the same file.
#[tokio::test]
async fn lost_rename_onto_another_link() {
    let root = Caller::root();
    let (store, _) = volume().await;
    let (a, b) = (client(&store).await, client(&store).await);
    let f = create(&a, "f", FileType::File).await.unwrap();
    assert_eq!(errno(a.lookup(&root, ROOT, b"g").await), Errno::ENOENT);
    b.link(&root, f, ROOT, b"g").await.unwrap();
    store.set_fault(LOST_REQUEST);
    assert_eq!(errno(a.rename(&root, ROOT, b"f", ROOT, b"g", 1).await), Errno::EEXIST);
    assert_eq!(b.lookup(&root, ROOT, b"f").await.unwrap().0, f);
}

/// A directory between belief and commit: another client moves an ancestor of the destination below the source.
#[tokio::test]
async fn loop_closed_between_belief_and_commit() {
    let root = Caller::root();
    let (store, _) = volume().await;
    let (a, b) = (client(&store).await, client(&store).await);
    let (x, y) = (
        create(&a, "x", FileType::Directory).await.unwrap(),
        create(&a, "y", FileType::Directory).await.unwrap(),
    );
    let new = NewNode { kind: FileType::Directory, mode: 0o755, umask: 0, rdev: 0, target: b"" };
    let (deep, _) = a.create(&root, y, b"deep", &new).await.unwrap();
    b.rename(&root, ROOT, b"y", x, b"y", 0).await.unwrap();
    // All that `a` knows says that this is fine.
    assert_eq!(errno(a.rename(&root, ROOT, b"x", deep, b"x", 0).await), Errno::EINVAL);
    // The same with the foreign move in the very last moment.
    b.rename(&root, x, b"y", ROOT, b"y", 0).await.unwrap();
    let (mut moved, _) = (a.getattr(y).await.unwrap(), a.getattr(x).await.unwrap());
    moved.parent = x;
    let edge = ciderfs_format::Edge { kind: FileType::Directory, ino: y };
    let foreign = Commit {
        guards: vec![Guard::Edge { dir: ROOT, name: b"y".to_vec(), expect: Some(edge) }],
        writes: vec![
            Write::DelEdge(ROOT, b"y".to_vec()),
            Write::PutEdge(x, b"y".to_vec(), edge),
            Write::PutAttr(y, moved),
        ],
    };
    a.lookup(&root, ROOT, b"x").await.unwrap();
    a.lookup(&root, y, b"deep").await.unwrap();
    store.before_next_commit(move || foreign);
    assert_eq!(errno(a.rename(&root, ROOT, b"x", deep, b"x", 0).await), Errno::EINVAL);
    assert_eq!(store.counts().conflicts, 2);
}

/// While the engine is away, operations wait; when it stays away they fail.
#[tokio::test]
async fn patience() {
    let (store, _) = volume().await;
    let m = client(&store).await;
    create(&m, "first", FileType::File).await.unwrap();
    store.set_fault(FaultPlan { unavailable: 5, ..FaultPlan::default() });
    create(&m, "f", FileType::File).await.unwrap();
    assert!(m.counters().retries >= 5);
    let cfg = MetaConfig { retry_patience: Duration::from_millis(30), ..MetaConfig::default() };
    let hasty = Meta::load(Arc::clone(&store) as Arc<dyn Store>, cfg).await.unwrap();
    store.set_fault(FaultPlan { unavailable: u32::MAX, ..FaultPlan::default() });
    assert_eq!(errno(hasty.getattr(ROOT).await), Errno::EIO);
    assert_eq!(errno(hasty.rmdir(&Caller::root(), ROOT, b"f").await), Errno::EIO);
    store.set_fault(FaultPlan::default());
    hasty.getattr(ROOT).await.unwrap();
}

/// A compaction whose outcome is unknown never makes its caller delete objects in use.
#[tokio::test]
async fn compaction_with_lost_replies() {
    let (store, _) = volume().await;
    let m = client(&store).await;
    for (plan, pass) in [(LOST_REPLY, 0), (LOST_REQUEST, 0), (LOST_REPLY, 1)] {
        let name = format!("f{}{pass}", plan.lost_reply);
        let f = create(&m, &name, FileType::File).await.unwrap();
        for _ in 0..3 {
            put(&m, f, m.new_slice_id().await.unwrap().0).await.unwrap();
        }
        let raw = m.read_raw_chunk(f, 0).await.unwrap();
        let new = Slice { pos: 0, id: m.new_slice_id().await.unwrap(), size: 10, off: 0, len: 10 };
        store.set_fault(FaultPlan { pass, ..plan });
        assert!(m.commit_compaction(f, 0, &raw, 0, new).await.unwrap());
        store.set_fault(FaultPlan::default());
        assert_eq!(m.read_raw_chunk(f, 0).await.unwrap(), [new]);
    }
}

/// Extended attributes and ACLs change once, and a rule is stored once.
#[tokio::test]
async fn every_attribute_is_set_once() {
    const CREATE: XattrSet = XattrSet { create: true, replace: false, clear_setgid: false };
    const REPLACE: XattrSet = XattrSet { create: false, replace: true, clear_setgid: false };
    let root = Caller::root();
    for plan in [LOST_REPLY, LOST_REQUEST] {
        let store = Arc::new(MemoryStore::new());
        let mut settings = Settings::new("lost", "5f1c3a86-0000-4000-8000-000000000001", "file", "/nowhere/");
        settings.enable_acl = true;
        Meta::write_settings(store.as_ref(), &settings, None).await.unwrap();
        let m = client(&store).await;
        let f = create(&m, "f", FileType::File).await.unwrap();
        let arm = || store.set_fault(plan);
        let name = b"user.a";
        arm();
        m.set_xattr(&root, f, name, "1".into(), CREATE).await.unwrap();
        arm();
        m.set_xattr(&root, f, name, "2".into(), REPLACE).await.unwrap();
        assert_eq!(&m.get_xattr(&root, f, name).await.unwrap()[..], b"2");
        arm();
        m.remove_xattr(&root, f, name).await.unwrap();
        assert_eq!(errno(m.get_xattr(&root, f, name).await), Errno::ENODATA);
        let rule = AclRule {
            owner: 6,
            group: 4,
            mask: 6,
            other: 4,
            named_users: vec![AclEntry { id: 7, perm: 6 }],
            named_groups: Vec::new(),
        };
        let acl = XATTR_ACCESS.as_bytes();
        arm();
        m.set_xattr(&root, f, acl, rule.to_xattr().into(), XattrSet::default()).await.unwrap();
        assert_eq!(m.get_xattr(&root, f, acl).await.unwrap(), rule.to_xattr());
        let g = create(&m, "g", FileType::File).await.unwrap();
        m.set_xattr(&root, g, acl, rule.to_xattr().into(), XattrSet::default()).await.unwrap();
        let count = store.read(&[Read::Counter(Counter::AclMaxId)]).await.unwrap();
        assert_eq!(count, [Value::Int(1)], "{plan:?}");
    }
}
