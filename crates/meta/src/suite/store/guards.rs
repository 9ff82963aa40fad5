//! Guards: what holds, what fails, and that a failed one stops everything.

use bytes::Bytes;
use ciderfs_format::{Attr, FileType, Ino, SessionId, Slice, SliceId};

use super::*;
use crate::store::{AttrMask, AttrPatch, Counter};

fn slice(id: u64) -> Slice {
    Slice { pos: 0, id: SliceId(id), size: 10, off: 0, len: 10 }
}

/// Records for the guards below.
async fn furnish(s: &dyn Store) {
    let writes = vec![
        Write::PutAttr(Ino(7), attr(FileType::File)),
        Write::PutEdge(Ino(1), b"a".to_vec(), file(7)),
        Write::AppendSlices(Ino(7), 0, vec![slice(1), slice(2)]),
        Write::PutXattr(Ino(7), b"user.a".to_vec(), "v".into()),
        Write::AddCounter(Counter::UsedSpace, 42),
        Write::PutSetting("{}".into()),
        Write::PutSession(SessionId(3), 100, "{}".into()),
    ];
    write(s, writes).await;
}

fn edge(name: &str, expect: Option<Edge>) -> Guard {
    Guard::Edge { dir: Ino(1), name: name.into(), expect }
}

fn attr_guard(expect: Option<Attr>, mask: AttrMask) -> Guard {
    Guard::Attr { ino: Ino(7), expect, mask }
}

fn prefix(prefix: &[Slice]) -> Guard {
    Guard::SlicesPrefix { ino: Ino(7), indx: 0, prefix: prefix.to_vec() }
}

fn list(list: &[Slice]) -> Guard {
    Guard::Slices { ino: Ino(7), indx: 0, list: list.to_vec() }
}

fn xattr(name: &str, expect: Option<&'static str>) -> Guard {
    Guard::Xattr { ino: Ino(7), name: name.into(), expect: expect.map(Bytes::from) }
}

fn there(name: &str) -> Guard {
    Guard::XattrExists { ino: Ino(7), name: name.into() }
}

fn xattr_room(name: &str, len: u64, most: u64) -> Guard {
    Guard::XattrRoom { ino: Ino(7), name: name.into(), len, most }
}

/// Attributes that differ from [`attr`] in the fields of one mask.
fn changed() -> [(AttrMask, Attr); 6] {
    let a = attr(FileType::File);
    [
        (AttrMask::IDENTITY, Attr { mode: 0o600, ..a.clone() }),
        (AttrMask::NLINK, Attr { nlink: 4, ..a.clone() }),
        (AttrMask::LENGTH, Attr { length: 1, ..a.clone() }),
        (AttrMask::TIMES, Attr { mtime: time(77), ..a.clone() }),
        (AttrMask::PARENT, Attr { parent: Ino(77), ..a.clone() }),
        (AttrMask::CTIME, Attr { ctime: time(77), ..a }),
    ]
}

/// Each guard on the truth lets the commit through.
pub async fn guards_hold(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    furnish(s).await;
    let a = attr(FileType::File);
    let mut right = vec![
        attr_guard(Some(a.clone()), AttrMask::ALL),
        attr_guard(
            Some(Attr { mode: 0, nlink: 99, length: 9, mtime: time(9), ..a.clone() }),
            AttrMask::EXISTS,
        ),
        attr_guard(
            Some(Attr { atime: time(77), mtime: time(77), mode: 0, ..a.clone() }),
            AttrMask::PARENT | AttrMask::CTIME,
        ),
        Guard::Attr { ino: Ino(8), expect: None, mask: AttrMask::ALL },
        Guard::Attr { ino: Ino(8), expect: None, mask: AttrMask::EXISTS },
        edge("a", Some(file(7))),
        edge("b", None),
        Guard::DirEmpty(Ino(2)),
        prefix(&[]),
        prefix(&[slice(1)]),
        prefix(&[slice(1), slice(2)]),
        Guard::SlicesPrefix { ino: Ino(7), indx: 9, prefix: Vec::new() },
        list(&[slice(1), slice(2)]),
        Guard::Slices { ino: Ino(7), indx: 9, list: Vec::new() },
        xattr("user.a", Some("v")),
        xattr("user.b", None),
        there("user.a"),
        // 7 bytes are there, of which the one of the value goes.
        xattr_room("user.a", 2, 8),
        xattr_room("user.a", 1, 0),
        xattr_room("user.a", 0, 0),
        xattr_room("user.bc", 3, 17),
        Guard::XattrRoom { ino: Ino(9), name: b"user.a".to_vec(), len: 2, most: 8 },
        Guard::Counter(Counter::UsedSpace, 42),
        Guard::Counter(Counter::NextTrash, 0),
        Guard::Setting(Some("{}".into())),
        Guard::Session(SessionId(3)),
        Guard::Parents { ino: Ino(50), expect: Vec::new() },
        Guard::Flocks { ino: Ino(7), expect: Vec::new() },
        Guard::Plocks { ino: Ino(7), expect: Vec::new() },
    ];
    // A mask compares its own fields only.
    for (mask, other) in changed() {
        let whole = match mask {
            AttrMask::PARENT => AttrMask::IDENTITY,
            AttrMask::CTIME => AttrMask::TIMES,
            other => other,
        };
        let rest = AttrMask(AttrMask::ALL.0 & !whole.0);
        right.push(attr_guard(Some(other), rest));
    }
    for g in &right {
        assert_eq!(
            s.commit(&probe(vec![g.clone()])).await.unwrap(),
            Outcome::Done(vec![Output::None]),
            "{g:?}"
        );
        assert!(probed(s).await, "{g:?}");
    }
    // All at once, without a second guard on the same attributes.
    let many = [&right[..1], &right[2..3], &right[4..23]].concat();
    assert!(matches!(s.commit(&probe(many)).await.unwrap(), Outcome::Done(_)));
    // Guards alone.
    let only = Commit { guards: right[..1].to_vec(), writes: Vec::new() };
    assert_eq!(s.commit(&only).await.unwrap(), Outcome::Done(Vec::new()));
}

/// Each guard on something untrue stops the commit and tells the truth.
pub async fn guards_fail(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    furnish(s).await;
    let a = attr(FileType::File);
    let mut wrong = vec![
        attr_guard(None, AttrMask::EXISTS),
        attr_guard(None, AttrMask::ALL),
        Guard::Attr { ino: Ino(8), expect: Some(a.clone()), mask: AttrMask::EXISTS },
        Guard::Attr { ino: Ino(8), expect: Some(a.clone()), mask: AttrMask::ALL },
        edge("a", None),
        edge("a", Some(file(8))),
        edge("a", Some(Edge { kind: FileType::Fifo, ino: Ino(7) })),
        edge("b", Some(file(7))),
        Guard::DirEmpty(Ino(1)),
        prefix(&[slice(2)]),
        prefix(&[slice(1), slice(2), slice(3)]),
        prefix(&[Slice { off: 1, ..slice(1) }]),
        list(&[slice(1)]),
        list(&[slice(2), slice(1)]),
        list(&[]),
        Guard::Slices { ino: Ino(7), indx: 9, list: vec![slice(1)] },
        xattr("user.a", None),
        xattr("user.a", Some("w")),
        xattr("user.b", Some("v")),
        there("user.b"),
        xattr_room("user.a", 2, 7),
        xattr_room("user.b", 0, 12),
        xattr_room("user.b", 1, 0),
        Guard::Counter(Counter::UsedSpace, 41),
        Guard::Counter(Counter::NextTrash, 1),
        Guard::Setting(None),
        Guard::Setting(Some("{} ".into())),
        Guard::Session(SessionId(4)),
        Guard::Parents { ino: Ino(50), expect: vec![(Ino(1), 1)] },
        Guard::Flocks { ino: Ino(7), expect: vec![((SessionId(1), 1), false)] },
        Guard::Plocks { ino: Ino(7), expect: vec![((SessionId(1), 1), "x".into())] },
    ];
    for (mask, other) in changed() {
        wrong.push(attr_guard(Some(other), mask));
    }
    // Every single field of the identity, and the nanoseconds of the times.
    let others = [
        Attr { flags: 0, ..a.clone() },
        Attr { kind: FileType::Fifo, ..a.clone() },
        Attr { mode: 0o4750, ..a.clone() },
        Attr { uid: 1, ..a.clone() },
        Attr { gid: 1, ..a.clone() },
        Attr { rdev: 1, ..a.clone() },
        Attr { parent: Ino(6), ..a.clone() },
        Attr { access_acl: 1, ..a.clone() },
        Attr { default_acl: 1, ..a.clone() },
        Attr { tier: 1, ..a.clone() },
    ];
    wrong.extend(others.map(|o| attr_guard(Some(o), AttrMask::IDENTITY)));
    let mut late = time(2);
    late.nsec += 1;
    let others =
        [Attr { atime: late, ..a.clone() }, Attr { mtime: late, ..a.clone() }, Attr { ctime: late, ..a }];
    wrong.extend(others.map(|o| attr_guard(Some(o), AttrMask::TIMES)));
    for g in wrong {
        let truth = read(s, g.read()).await;
        assert_eq!(s.commit(&probe(vec![g.clone()])).await.unwrap(), Outcome::Conflict(vec![truth]), "{g:?}");
        assert!(!probed(s).await, "{g:?}");
    }
}

/// One failing guard among many: nothing of the commit happens.
pub async fn nothing_written_after_a_failed_guard(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    furnish(s).await;
    let reads = [
        Read::Attr(Ino(7)),
        Read::Attr(Ino(20)),
        Read::Edge(Ino(1), b"a".to_vec()),
        Read::Edge(Ino(1), b"n".to_vec()),
        Read::Slices(Ino(7), 0),
        Read::Symlink(Ino(7)),
        Read::Xattr(Ino(7), b"user.a".to_vec()),
        Read::Counter(Counter::UsedSpace),
        Read::Setting,
        Read::Session(SessionId(3)),
        Read::DirStat(Ino(1)),
        Read::Flocks(Ino(7)),
    ];
    let before = s.read(&reads).await.unwrap();
    let writes = vec![
        Write::PutAttr(Ino(20), attr(FileType::File)),
        Write::PatchAttr(Ino(7), AttrPatch { length: Some(1), ..AttrPatch::default() }),
        Write::DelEdge(Ino(1), b"a".to_vec()),
        Write::PutEdge(Ino(1), b"n".to_vec(), file(20)),
        Write::AppendSlices(Ino(7), 0, vec![slice(3)]),
        Write::PutSymlink(Ino(7), "x".into()),
        Write::DelXattrs(Ino(7)),
        Write::AddCounter(Counter::UsedSpace, 1),
        Write::PutSetting("[]".into()),
        Write::DelSession(SessionId(3)),
        Write::InitDirStat(Ino(1)),
        Write::PutFlock(Ino(7), (SessionId(1), 1), Some(true)),
    ];
    let good = [edge("a", Some(file(7))), Guard::Counter(Counter::UsedSpace, 42), Guard::DirEmpty(Ino(2))];
    for at in 0..=good.len() {
        let mut guards = good.to_vec();
        guards.insert(at, Guard::Session(SessionId(99)));
        let outcome = s.commit(&Commit { guards, writes: writes.clone() }).await.unwrap();
        assert!(matches!(outcome, Outcome::Conflict(_)));
        assert_eq!(s.read(&reads).await.unwrap(), before);
    }
    assert!(matches!(s.commit(&Commit { guards: good.to_vec(), writes }).await.unwrap(), Outcome::Done(_)));
    assert_ne!(s.read(&reads).await.unwrap(), before);
}

/// A conflict tells the truth of every guard, those that hold too, in order.
pub async fn truths_in_order(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    furnish(s).await;
    let guards = vec![
        edge("b", None),
        attr_guard(Some(attr(FileType::File)), AttrMask::ALL),
        Guard::DirEmpty(Ino(1)),
        prefix(&[slice(9)]),
        xattr("user.a", Some("v")),
        Guard::Counter(Counter::UsedSpace, 0),
        edge("a", None),
        Guard::Session(SessionId(3)),
        Guard::Attr { ino: Ino(8), expect: None, mask: AttrMask::EXISTS },
    ];
    let want = vec![
        Value::Edge(None),
        Value::Attr(Some(attr(FileType::File))),
        Value::Bool(false),
        Value::Slices(vec![slice(1), slice(2)]),
        Value::Bytes(Some("v".into())),
        Value::Int(42),
        Value::Edge(Some(file(7))),
        Value::Bool(true),
        Value::Attr(None),
    ];
    assert_eq!(s.commit(&probe(guards)).await.unwrap(), Outcome::Conflict(want));
    // Guards are checked before the first write, not between the writes.
    let guards = vec![edge("new", None)];
    let writes =
        vec![Write::PutEdge(Ino(1), b"new".to_vec(), file(9)), Write::DelEdge(Ino(1), b"a".to_vec())];
    assert!(matches!(s.commit(&Commit { guards, writes }).await.unwrap(), Outcome::Done(_)));
}
