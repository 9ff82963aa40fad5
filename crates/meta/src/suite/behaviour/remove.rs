//! unlink and rmdir, permissions to remove.

use ciderfs_format::attr::flags;
use ciderfs_format::{FileType, Ino};

use crate::SetAttr;
use crate::error::Errno;
use crate::suite::Engine;
use crate::suite::world::*;

/// Removing names of every kind.
pub async fn unlink(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    for kind in (1..=7).filter_map(FileType::from_u8).filter(|k| *k != FileType::Directory) {
        let ino = c.make(ROOT, "x", kind).await.unwrap();
        let before = c.stat(ROOT).await;
        let removed = c.unlink(ROOT, "x").await.unwrap();
        assert_eq!((removed.ino, removed.last), (ino, true));
        assert!(c.gone(ino).await);
        let after = c.stat(ROOT).await;
        assert!(after.mtime > before.mtime && after.ctime == after.mtime && after.nlink == before.nlink);
        assert_eq!(errno(c.unlink(ROOT, "x").await), Errno::ENOENT);
    }
    let d = c.dir(ROOT, "d").await;
    let f = c.file(ROOT, "f").await;
    assert_eq!(errno(c.unlink(ROOT, "d").await), Errno::EPERM);
    assert_eq!(errno(c.unlink(f, "x").await), Errno::ENOTDIR);
    assert_eq!(errno(c.unlink(Ino(999_999), "x").await), Errno::ENOENT);
    assert_eq!(errno(c.unlink(ROOT, ".trash").await), Errno::EPERM);
    // Another client with old beliefs.
    let other = w.client().await;
    other.find(d, "late").await.unwrap_err();
    let late = c.file(d, "late").await;
    assert_eq!(other.unlink(d, "late").await.unwrap().ino, late);
    assert_eq!(errno(c.unlink(d, "late").await), Errno::ENOENT);
    // The name is free again.
    assert_ne!(c.file(d, "late").await, late);
    w.check().await;
}

/// Removing directories.
pub async fn rmdir(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    let e = c.dir(d, "e").await;
    let f = c.file(e, "f").await;
    assert_eq!((c.nlink(ROOT).await, c.nlink(d).await, c.nlink(e).await), (3, 3, 2));
    assert_eq!(errno(c.rmdir(ROOT, "d").await), Errno::ENOTEMPTY);
    assert_eq!(errno(c.rmdir(d, "e").await), Errno::ENOTEMPTY);
    assert_eq!(errno(c.rmdir(e, "f").await), Errno::ENOTDIR);
    assert_eq!(errno(c.rmdir(f, "x").await), Errno::ENOENT);
    assert_eq!(errno(c.rmdir(e, ".").await), Errno::EINVAL);
    assert_eq!(errno(c.rmdir(e, "..").await), Errno::ENOTEMPTY);
    assert_eq!(errno(c.rmdir(e, "x").await), Errno::ENOENT);
    assert_eq!(errno(c.rmdir(ROOT, ".trash").await), Errno::EPERM);
    c.unlink(e, "f").await.unwrap();
    let removed = c.rmdir(d, "e").await.unwrap();
    assert_eq!((removed.ino, removed.last), (e, true));
    assert_eq!(c.nlink(d).await, 2);
    assert!(c.gone(e).await);
    w.check().await;
    // Emptied by another client, filled by another client.
    let other = w.client().await;
    other.file(d, "late").await;
    assert_eq!(errno(c.rmdir(ROOT, "d").await), Errno::ENOTEMPTY);
    other.unlink(d, "late").await.unwrap();
    c.rmdir(ROOT, "d").await.unwrap();
    assert_eq!(
        errno(other.make(d, "x", FileType::File).await),
        Errno::ENOENT,
        "nothing grows in a removed directory"
    );
    assert_eq!(c.nlink(ROOT).await, 2);
    w.check().await;
}

/// Who has a directory open that another client removes sees it as it was last, without a link, and may change it.
pub async fn directories_removed_under_their_holders(engine: Engine) {
    let w = World::new(engine).await;
    let (c, other) = (w.client().await, w.client().await);
    let mode = |mode| SetAttr { mode: Some(mode), ..SetAttr::default() };
    let (d, e, free) = (c.dir(ROOT, "d").await, c.dir(ROOT, "e").await, c.dir(ROOT, "free").await);
    let turns = c.meta.counters().turns;
    let held = [c.meta.hold_dir(d).await.unwrap(), c.meta.hold_dir(e).await.unwrap()];
    assert!(held.iter().all(Option::is_some));
    assert_eq!(c.meta.counters().turns, turns, "to be held costs nothing");
    c.meta.setattr(&root(), d, &mode(0o711)).await.unwrap();
    for name in ["d", "e", "free"] {
        other.rmdir(ROOT, name).await.unwrap();
    }
    assert_eq!(c.meta.departed(d), None, "nobody has found that out yet");
    for ino in [d, free] {
        assert!(c.gone(ino).await);
    }
    let last = c.meta.departed(d).unwrap();
    assert_eq!((last.nlink, last.mode, last.is_dir()), (0, 0o711, true));
    assert_eq!(c.meta.departed(free), None, "nobody holds it");
    // Found out by a change.
    assert_eq!(errno(c.meta.setattr(&root(), e, &mode(0o700)).await), Errno::ENOENT);
    let changed = c.meta.set_departed(&root(), e, &mode(0o700)).unwrap().unwrap();
    assert_eq!((changed.nlink, changed.mode), (0, 0o700));
    assert_eq!(errno(c.meta.set_departed(&user(1000, 1000), e, &mode(0o777)).unwrap()), Errno::EPERM);
    c.meta.access(&root(), e, 4).await.unwrap();
    assert_eq!(errno(c.meta.access(&user(1000, 1000), e, 4).await), Errno::EACCES);
    // It is opened again, and held as long as that lasts; nothing is made in it.
    let again = c.meta.hold_dir(e).await.unwrap();
    drop(held);
    assert_eq!(c.meta.departed(e).map(|a| a.mode), Some(0o700));
    assert_eq!(errno(c.find(e, "x").await), Errno::ENOENT);
    assert_eq!(errno(c.make(e, "x", FileType::File).await), Errno::ENOENT);
    drop(again);
    w.check().await;
}

/// Who may remove and rename in a sticky directory, and without permission.
pub async fn permission_to_remove(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    c.chmod(d, 0o1777).await;
    c.chown(d, 1, 1).await;
    let own = c.file(d, "own").await;
    c.chown(own, 2, 2).await;
    let foreign = c.file(d, "foreign").await;
    c.chown(foreign, 3, 3).await;
    let sub = c.dir(d, "sub").await;
    c.chown(sub, 3, 3).await;
    let (owner, two) = (user(1, 1), user(2, 2));
    let m = &c.meta;
    assert_eq!(errno(m.unlink(&two, d, b"foreign").await), Errno::EPERM);
    assert_eq!(errno(m.rmdir(&two, d, b"sub").await), Errno::EPERM);
    assert_eq!(errno(m.rename(&two, d, b"foreign", d, b"x", 0).await), Errno::EPERM);
    assert_eq!(
        errno(m.rename(&two, d, b"own", d, b"foreign", 0).await),
        Errno::EPERM,
        "the victim is foreign"
    );
    m.rename(&two, d, b"own", d, b"mine", 0).await.unwrap();
    m.unlink(&two, d, b"mine").await.unwrap();
    m.unlink(&owner, d, b"foreign").await.unwrap();
    m.rmdir(&owner, d, b"sub").await.unwrap();
    // Without write permission on the directory.
    let closed = c.dir(ROOT, "closed").await;
    c.file(closed, "f").await;
    c.dir(closed, "s").await;
    for mode in [0o755, 0o766] {
        c.chmod(closed, mode).await;
        assert_eq!(errno(m.unlink(&two, closed, b"f").await), Errno::EACCES);
        assert_eq!(errno(m.rmdir(&two, closed, b"s").await), Errno::EACCES);
        assert_eq!(errno(m.rename(&two, closed, b"f", d, b"f", 0).await), Errno::EACCES);
        let new = node(FileType::File, 0o644);
        assert_eq!(errno(m.create(&two, closed, b"n", &new).await), Errno::EACCES);
        assert_eq!(errno(m.rename(&two, d, b"none", closed, b"f", 0).await), Errno::ENOENT);
    }
    c.chmod(closed, 0o766).await;
    assert_eq!(errno(m.lookup(&two, closed, b"f").await), Errno::EACCES, "search permission");
    c.chmod(closed, 0o711).await;
    m.lookup(&two, closed, b"f").await.unwrap();
    let start = crate::store::DirCursor::Start;
    assert_eq!(errno(m.list_dir(&two, closed, &start, 10, false).await), Errno::EACCES);
    w.check().await;
}

/// Immutable and append-only inodes.
pub async fn immutable_and_append_only(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    let f = c.file(d, "f").await;
    c.dir(d, "s").await;
    let flag = async |ino, bits| {
        let set = SetAttr { flags: Some(bits), ..SetAttr::default() };
        c.meta.setattr(&root(), ino, &set).await.unwrap();
    };
    for bits in [flags::IMMUTABLE, flags::APPEND] {
        flag(f, bits).await;
        assert_eq!(errno(c.unlink(d, "f").await), Errno::EPERM);
        assert_eq!(errno(c.rename((d, "f"), (ROOT, "g")).await), Errno::EPERM);
        assert_eq!(errno(c.link(f, ROOT, "g").await), Errno::EPERM);
        assert_eq!(errno(c.truncate(f, 5).await), Errno::EPERM);
        let set = SetAttr { mode: Some(0), ..SetAttr::default() };
        assert_eq!(errno(c.meta.setattr(&root(), f, &set).await), Errno::EPERM);
        c.file(ROOT, "over").await;
        assert_eq!(errno(c.rename((ROOT, "over"), (d, "f")).await), Errno::EPERM);
        c.unlink(ROOT, "over").await.unwrap();
        flag(f, 0).await;
        flag(d, bits).await;
        assert_eq!(errno(c.unlink(d, "f").await), Errno::EPERM);
        assert_eq!(errno(c.rmdir(d, "s").await), Errno::EPERM);
        assert_eq!(errno(c.rename((d, "f"), (ROOT, "g")).await), Errno::EPERM);
        assert_eq!(errno(c.rmdir(ROOT, "d").await), Errno::EPERM);
        let made = c.make(d, "new", FileType::File).await;
        if bits == flags::IMMUTABLE {
            assert_eq!(errno(made), Errno::EPERM);
        } else {
            made.unwrap();
            flag(d, 0).await;
            c.unlink(d, "new").await.unwrap();
        }
        flag(d, 0).await;
    }
    w.check().await;
}
