//! Attributes, entries, links, extended attributes, parents.

use bytes::Bytes;
use ciderfs_format::{Attr, Edge, FileType, Ino, Time};

use super::*;
use crate::store::AttrPatch;

/// Every field of every kind of inode comes back as it was stored.
pub async fn attributes(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(read(s, Read::Attr(Ino(7))).await, Value::Attr(None));
    let kinds = (1..=7).filter_map(FileType::from_u8);
    for (i, kind) in kinds.enumerate() {
        let ino = Ino(10 + i as u64);
        let a = attr(kind);
        assert_eq!(write_one(s, Write::PutAttr(ino, a.clone())).await, Output::None);
        assert_eq!(read(s, Read::Attr(ino)).await, Value::Attr(Some(a)));
    }
    let odd = [
        Attr { atime: Time { sec: -5, nsec: 999_999_999 }, mtime: Time::default(), ..attr(FileType::File) },
        Attr { uid: u32::MAX, gid: u32::MAX, nlink: u32::MAX, rdev: u32::MAX, ..attr(FileType::CharDevice) },
        Attr { tier: 3, ..attr(FileType::File) },
        Attr { access_acl: 7, default_acl: 8, ..attr(FileType::Directory) },
        Attr { access_acl: 7, default_acl: 0, tier: 2, parent: Ino(0), ..attr(FileType::Directory) },
        Attr { parent: Ino(Ino::TRASH.0 + 3), length: 0, mode: 0, flags: 0, ..attr(FileType::File) },
        Attr { length: (1 << 57) - 1, mode: 0o7777, flags: 0xff, ..attr(FileType::File) },
    ];
    for a in odd {
        let put = vec![Write::PutAttr(Ino(7), a.clone()), Write::TellAttr(Ino(7)), Write::TellAttr(Ino(999))];
        let told = [Output::None, Output::Attr(Some(a.clone())), Output::Attr(None)];
        assert_eq!(write(s, put).await, told);
        assert_eq!(read(s, Read::Attr(Ino(7))).await, Value::Attr(Some(a)));
    }
    // The trash has the highest numbers.
    let trash = Ino(Ino::TRASH.0 + 1);
    write(s, vec![Write::PutAttr(trash, attr(FileType::Directory)), Write::DelAttr(Ino(7))]).await;
    assert_eq!(read(s, Read::Attr(trash)).await, Value::Attr(Some(attr(FileType::Directory))));
    assert_eq!(read(s, Read::Attr(Ino(7))).await, Value::Attr(None));
    // Removing what is not there is no error.
    write(s, vec![Write::DelAttr(Ino(7))]).await;
}

/// A patch changes what it names and nothing else.
pub async fn attribute_patches(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let none = AttrPatch::default();
    let patches = [
        none.clone(),
        AttrPatch { flags: Some(2), ..none.clone() },
        AttrPatch { mode: Some(0o640), ..none.clone() },
        AttrPatch { uid: Some(0), gid: Some(u32::MAX), ..none.clone() },
        AttrPatch { atime: Some(time(10)), ..none.clone() },
        AttrPatch { mtime: Some(Time { sec: -1, nsec: 1 }), ..none.clone() },
        AttrPatch { ctime: Some(Time { sec: 0, nsec: 0 }), ..none.clone() },
        AttrPatch { nlink: 2, ..none.clone() },
        AttrPatch { nlink: -3, ..none.clone() },
        AttrPatch { length: Some(0), ..none.clone() },
        AttrPatch { length: Some(1 << 50), ..none.clone() },
        AttrPatch { parent: Some(Ino(0)), ..none.clone() },
        AttrPatch { parent: Some(Ino(Ino::TRASH.0 + 9)), ..none.clone() },
        AttrPatch { tail: Some((1, 2, 3)), ..none.clone() },
        AttrPatch { tail: Some((0, 0, 0)), ..none.clone() },
        AttrPatch {
            flags: Some(0),
            mode: Some(0o7777),
            uid: Some(1),
            gid: Some(2),
            atime: Some(time(20)),
            mtime: Some(time(21)),
            ctime: Some(time(22)),
            nlink: 1,
            length: Some(99),
            parent: Some(Ino(17)),
            tail: Some((9, 8, 1)),
        },
    ];
    for start in
        [attr(FileType::File), Attr { access_acl: 4, default_acl: 5, tier: 1, ..attr(FileType::Directory) }]
    {
        for p in &patches {
            write(s, vec![Write::PutAttr(Ino(7), start.clone())]).await;
            let mut want = start.clone();
            p.apply(&mut want);
            let told = write_one(s, Write::PatchAttr(Ino(7), p.clone())).await;
            assert_eq!(told, Output::Attr(Some(want.clone())), "{p:?}");
            assert_eq!(read(s, Read::Attr(Ino(7))).await, Value::Attr(Some(want)), "{p:?}");
        }
    }
    // Several patches of one commit add up.
    let patch = |nlink| Write::PatchAttr(Ino(7), AttrPatch { nlink, ..AttrPatch::default() });
    write(s, vec![Write::PutAttr(Ino(7), attr(FileType::File)), patch(2), patch(-1)]).await;
    let want = Attr { nlink: 4, ..attr(FileType::File) };
    assert_eq!(read(s, Read::Attr(Ino(7))).await, Value::Attr(Some(want)));
    // A missing inode stays missing.
    assert_eq!(write_one(s, Write::PatchAttr(Ino(8), patches[15].clone())).await, Output::Attr(None));
    assert_eq!(read(s, Read::Attr(Ino(8))).await, Value::Attr(None));
}

/// Entries with and without their targets.
pub async fn edges(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let key = || Read::Edge(Ino(1), b"a".to_vec());
    let lookup = || Read::Lookup(Ino(1), b"a".to_vec());
    assert_eq!(read(s, key()).await, Value::Edge(None));
    assert_eq!(read(s, lookup()).await, Value::Lookup(None));
    assert_eq!(write_one(s, Write::PutEdge(Ino(1), b"a".to_vec(), file(7))).await, Output::None);
    assert_eq!(read(s, key()).await, Value::Edge(Some(file(7))));
    assert_eq!(read(s, lookup()).await, Value::Lookup(Some((file(7), None))), "a damaged entry shows");
    write(s, vec![Write::PutAttr(Ino(7), attr(FileType::File))]).await;
    assert_eq!(read(s, lookup()).await, Value::Lookup(Some((file(7), Some(attr(FileType::File))))));
    // Replacing.
    for kind in (1..=7).filter_map(FileType::from_u8) {
        let e = Edge { kind, ino: Ino((1 << 40) + 3) };
        write(s, vec![Write::PutEdge(Ino(1), b"a".to_vec(), e)]).await;
        assert_eq!(read(s, key()).await, Value::Edge(Some(e)));
    }
    // Same name elsewhere, other name here.
    assert_eq!(read(s, Read::Edge(Ino(2), b"a".to_vec())).await, Value::Edge(None));
    assert_eq!(read(s, Read::Edge(Ino(1), b"A".to_vec())).await, Value::Edge(None));
    write(s, vec![Write::DelEdge(Ino(1), b"a".to_vec()), Write::DelEdge(Ino(1), b"b".to_vec())]).await;
    assert_eq!(read(s, key()).await, Value::Edge(None));
    // Writes apply in order.
    let moves = vec![
        Write::PutEdge(Ino(1), b"x".to_vec(), file(3)),
        Write::DelEdge(Ino(1), b"x".to_vec()),
        Write::PutEdge(Ino(1), b"x".to_vec(), file(4)),
    ];
    write(s, moves).await;
    assert_eq!(read(s, Read::Edge(Ino(1), b"x".to_vec())).await, Value::Edge(Some(file(4))));
}

/// Is a directory empty?
pub async fn directory_emptiness(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(read(s, Read::DirEmpty(Ino(1))).await, Value::Bool(true));
    write(s, vec![Write::PutEdge(Ino(1), b"a".to_vec(), file(7))]).await;
    assert_eq!(read(s, Read::DirEmpty(Ino(1))).await, Value::Bool(false));
    assert_eq!(read(s, Read::DirEmpty(Ino(10))).await, Value::Bool(true));
    write(s, vec![Write::DelEdge(Ino(1), b"a".to_vec())]).await;
    assert_eq!(read(s, Read::DirEmpty(Ino(1))).await, Value::Bool(true));
}

/// Targets of symbolic links are bytes.
pub async fn symlinks(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(read(s, Read::Symlink(Ino(7))).await, Value::Bytes(None));
    let long = vec![b'x'; 4096];
    for target in [&b"../a"[..], b"\xff\xfe\x01", &long] {
        let target = Bytes::copy_from_slice(target);
        assert_eq!(write_one(s, Write::PutSymlink(Ino(7), target.clone())).await, Output::None);
        assert_eq!(read(s, Read::Symlink(Ino(7))).await, Value::Bytes(Some(target)));
    }
    write(s, vec![Write::DelSymlink(Ino(7)), Write::DelSymlink(Ino(8))]).await;
    assert_eq!(read(s, Read::Symlink(Ino(7))).await, Value::Bytes(None));
}

/// Extended attributes: values are bytes and may be empty.
pub async fn xattrs(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    let get = |name: &str| Read::Xattr(Ino(7), name.into());
    assert_eq!(read(s, get("user.a")).await, Value::Bytes(None));
    assert_eq!(read(s, Read::XattrNames(Ino(7))).await, Value::Names(Vec::new()));
    let big = Bytes::from(vec![0xfe; 65_536]);
    for (name, value) in
        [("user.a", Bytes::from_static(b"\0\xff")), ("user.b", Bytes::new()), ("user.c", big)]
    {
        assert_eq!(write_one(s, Write::PutXattr(Ino(7), name.into(), value.clone())).await, Output::None);
        assert_eq!(read(s, get(name)).await, Value::Bytes(Some(value)));
    }
    write(s, vec![Write::PutXattr(Ino(7), "user.a".into(), "new".into())]).await;
    assert_eq!(read(s, get("user.a")).await, Value::Bytes(Some("new".into())));
    let sizes = async |ino: u64, name: &str| read(s, Read::XattrSizes(Ino(ino), name.into())).await;
    assert_eq!(sizes(7, "user.a").await, Value::XattrSizes(6 + 6 + 65_536, Some(3)));
    assert_eq!(sizes(7, "user.b").await, Value::XattrSizes(9 + 6 + 65_536, Some(0)));
    assert_eq!(sizes(7, "user.d").await, Value::XattrSizes(9 + 6 + 6 + 65_536, None));
    assert_eq!(sizes(9, "user.a").await, Value::XattrSizes(0, None));
    let Value::Names(names) = read(s, Read::XattrNames(Ino(7))).await else { panic!() };
    assert_eq!(sorted(names), [b"user.a".to_vec(), b"user.b".to_vec(), b"user.c".to_vec()]);
    write(s, vec![Write::DelXattr(Ino(7), "user.a".into()), Write::DelXattr(Ino(7), "user.x".into())]).await;
    assert_eq!(read(s, get("user.a")).await, Value::Bytes(None));
    write(s, vec![Write::PutXattr(Ino(8), "user.a".into(), "other".into()), Write::DelXattrs(Ino(7))]).await;
    assert_eq!(read(s, Read::XattrNames(Ino(7))).await, Value::Names(Vec::new()));
    assert_eq!(read(s, get("user.b")).await, Value::Bytes(None));
    assert_eq!(read(s, Read::XattrNames(Ino(8))).await, Value::Names(vec![b"user.a".to_vec()]));
}

/// Link counts per directory, of an inode with the entries that they count (some engines derive them).
pub async fn parents(engine: Engine) {
    let s = ready(&engine).await;
    let s = s.as_ref();
    assert_eq!(read(s, Read::Parents(Ino(7))).await, Value::Parents(Vec::new()));
    let add = |dir: u64, name: &str| {
        [Write::PutEdge(Ino(dir), name.into(), file(7)), Write::AddParent(Ino(7), Ino(dir), 1)]
    };
    let del = |dir: u64, name: &str| {
        [Write::DelEdge(Ino(dir), name.into()), Write::AddParent(Ino(7), Ino(dir), -1)]
    };
    write(s, [add(1, "a"), add(1, "b"), add(2, "a"), add(30, "a")].concat()).await;
    let Value::Parents(found) = read(s, Read::Parents(Ino(7))).await else { panic!() };
    assert_eq!(sorted(found), [(Ino(1), 2), (Ino(2), 1), (Ino(30), 1)]);
    write(s, [del(2, "a"), del(1, "a")].concat()).await;
    let Value::Parents(found) = read(s, Read::Parents(Ino(7))).await else { panic!() };
    assert_eq!(sorted(found), [(Ino(1), 1), (Ino(30), 1)], "counts of 0 are not told");
    let guard = |expect| Guard::Parents { ino: Ino(7), expect };
    let right = probe(vec![guard(vec![(Ino(1), 1), (Ino(30), 1)])]);
    assert!(matches!(s.commit(&right).await.unwrap(), Outcome::Done(_)));
    assert!(probed(s).await);
    let wrong = probe(vec![guard(vec![(Ino(1), 2), (Ino(30), 1)])]);
    assert!(matches!(s.commit(&wrong).await.unwrap(), Outcome::Conflict(_)));
    write(s, [del(1, "b").to_vec(), del(30, "a").to_vec(), vec![Write::DelParents(Ino(7))]].concat()).await;
    assert_eq!(read(s, Read::Parents(Ino(7))).await, Value::Parents(Vec::new()));
}
