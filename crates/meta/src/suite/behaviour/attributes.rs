//! Attributes, times, permission checks.

use std::time::Duration;

use ciderfs_format::{FileType, Ino, Time};

use crate::error::Errno;
use crate::suite::Engine;
use crate::suite::world::*;
use crate::types::Caller;
use crate::{MetaConfig, OpenFlags, SetAttr, SetTime};

/// A change of nothing.
const SAME: SetAttr =
    SetAttr { mode: None, uid: None, gid: None, atime: None, mtime: None, ctime: None, flags: None };

/// Modes, and who may change them.
pub async fn chmod(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.chown(f, 1000, 1000).await;
    let set = |mode| SetAttr { mode: Some(mode), ..SAME };
    let before = c.stat(f).await;
    let a = c.meta.setattr(&user(1000, 1000), f, &set(0o4711)).await.unwrap().attr;
    assert_eq!(a, c.stat(f).await);
    assert_eq!((a.mode, a.mtime), (0o4711, before.mtime));
    assert!(a.ctime > before.ctime);
    assert_eq!(errno(c.meta.setattr(&user(1001, 1000), f, &set(0o600)).await), Errno::EPERM);
    assert_eq!(c.meta.setattr(&root(), f, &set(0o6777)).await.unwrap().attr.mode, 0o6777);
    // The set-group-ID bit is for members of the group.
    c.chown(f, 1000, 50).await;
    assert_eq!(c.meta.setattr(&user(1000, 1000), f, &set(0o2755)).await.unwrap().attr.mode, 0o755);
    let member = Caller { groups: vec![50], ..user(1000, 1000) };
    assert_eq!(c.meta.setattr(&member, f, &set(0o2755)).await.unwrap().attr.mode, 0o2755);
    assert_eq!(errno(c.meta.setattr(&root(), Ino(999_999), &set(0)).await), Errno::ENOENT);
    // Another client sees it and changes what it is now, whatever it believed.
    let other = w.client().await;
    assert_eq!(other.stat(f).await.mode, 0o2755);
    c.chmod(f, 0o600).await;
    let both = SetAttr { uid: Some(7), ..SAME };
    let a = other.meta.setattr(&root(), f, &both).await.unwrap().attr;
    assert_eq!((a.mode, a.uid), (0o600, 7));
    w.check().await;
}

/// What may be told of a directory without asking, and what may not.
pub async fn directories_just_changed(engine: Engine) {
    let w = World::new(engine).await;
    let (c, other) = (w.client().await, w.client().await);
    let minute = Duration::from_secs(60);
    let d = c.dir(ROOT, "d").await;
    let told = async |ino| c.meta.getattr_within(ino, minute).await.map(|(a, _)| a);
    // What another client did before our change is in it.
    c.stat(d).await;
    other.dir(d, "theirs").await;
    for change in 0..6 {
        match change {
            0 => drop(c.file(d, "f").await),
            1 => drop(c.dir(d, "e").await),
            2 => drop(c.rename((d, "f"), (ROOT, "g")).await.unwrap()),
            3 => drop(c.unlink(ROOT, "g").await.unwrap()),
            4 => drop(c.rmdir(d, "e").await.unwrap()),
            _ => c.chmod(d, 0o700).await,
        }
        assert_eq!(c.turns(told(d)).await, 0, "change {change}");
        assert_eq!(told(d).await.unwrap(), other.stat(d).await, "change {change}");
    }
    // Nothing is told to those who may believe nothing.
    assert_eq!(c.turns(c.meta.getattr_within(d, Duration::ZERO)).await, 1);
    // What has been seen since is not forgotten again.
    other.chmod(d, 0o711).await;
    assert_eq!(c.stat(d).await.mode, 0o711);
    assert_eq!(told(d).await.unwrap().mode, 0o711);
    // Files change without us; a directory that is gone is gone.
    let f = c.file(d, "f").await;
    assert_eq!(c.turns(told(f)).await, 1);
    let e = c.dir(d, "e").await;
    c.file(e, "x").await;
    c.unlink(e, "x").await.unwrap();
    c.rmdir(d, "e").await.unwrap();
    assert_eq!(errno(told(e).await), Errno::ENOENT);
    w.check().await;
}

/// Owners and groups.
pub async fn chown(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let own = |uid, gid| SetAttr { uid, gid, ..SAME };
    let m = &c.meta;
    let a = m.setattr(&root(), f, &own(Some(1000), Some(1000))).await.unwrap().attr;
    assert_eq!((a.uid, a.gid), (1000, 1000));
    let owner = Caller { groups: vec![50], ..user(1000, 1000) };
    assert_eq!(m.setattr(&owner, f, &own(None, Some(50))).await.unwrap().attr.gid, 50);
    assert_eq!(errno(m.setattr(&owner, f, &own(None, Some(51))).await), Errno::EPERM);
    assert_eq!(errno(m.setattr(&owner, f, &own(Some(1001), None)).await), Errno::EPERM);
    assert_eq!(errno(m.setattr(&user(1001, 50), f, &own(None, Some(50))).await), Errno::EPERM);
    m.setattr(&owner, f, &own(Some(1000), Some(50))).await.unwrap();
    // Programs lose their special bits, directories keep them.
    c.chmod(f, 0o6755).await;
    assert_eq!(m.setattr(&owner, f, &own(None, Some(1000))).await.unwrap().attr.mode, 0o755);
    c.chmod(f, 0o6755).await;
    assert_eq!(m.setattr(&root(), f, &own(Some(5), None)).await.unwrap().attr.mode, 0o755);
    let d = c.dir(ROOT, "d").await;
    c.chmod(d, 0o6777).await;
    assert_eq!(m.setattr(&root(), d, &own(Some(5), Some(5))).await.unwrap().attr.mode, 0o6777);
    w.check().await;
}

/// Setting times.
pub async fn utimes(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.chown(f, 1000, 1000).await;
    c.chmod(f, 0o622).await;
    let m = &c.meta;
    let old = Time { sec: -77, nsec: 999_999_999 };
    let at = SetAttr { atime: Some(SetTime::At(old)), mtime: Some(SetTime::At(old)), ..SAME };
    let before = c.stat(f).await;
    let a = m.setattr(&user(1000, 1000), f, &at).await.unwrap().attr;
    assert_eq!((a.atime, a.mtime), (old, old));
    assert!(a.ctime > before.ctime);
    assert_eq!(c.stat(f).await, a);
    // Who may only write may only set the present.
    let now = SetAttr { atime: Some(SetTime::Now), mtime: Some(SetTime::Now), ..SAME };
    assert_eq!(errno(m.setattr(&user(1001, 1001), f, &at).await), Errno::EPERM);
    let a = m.setattr(&user(1001, 1001), f, &now).await.unwrap().attr;
    assert!(a.atime == a.mtime && a.mtime == a.ctime && a.mtime > before.ctime);
    c.chmod(f, 0o644).await;
    assert_eq!(errno(m.setattr(&user(1001, 1001), f, &now).await), Errno::EACCES);
    // One at a time.
    let one = SetAttr { mtime: Some(SetTime::At(old)), ..SAME };
    let b = m.setattr(&root(), f, &one).await.unwrap().attr;
    assert_eq!((b.atime, b.mtime), (a.atime, old));
    w.check().await;
}

/// Permission bits for owner, group, others and the superuser.
pub async fn access(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.chown(f, 1, 2).await;
    c.chmod(f, 0o640).await;
    let m = &c.meta;
    let group = Caller { groups: vec![9, 2], ..user(5, 5) };
    for (who, allowed) in [(user(1, 9), 6), (user(5, 2), 4), (group, 4), (user(5, 5), 0), (root(), 6)] {
        for mask in 0..8 {
            let granted = m.access(&who, f, mask).await;
            assert_eq!(granted.is_ok(), mask & !allowed == 0, "{who:?} {mask}: {granted:?}");
            if let Err(e) = granted {
                assert_eq!(e.errno(), Errno::EACCES);
            }
        }
    }
    c.chmod(f, 0o001).await;
    m.access(&root(), f, 7).await.unwrap();
    // The owner's bits count for the owner, even if others may more.
    c.chmod(f, 0o077).await;
    assert_eq!(errno(m.access(&user(1, 2), f, 4).await), Errno::EACCES);
    assert_eq!(errno(m.access(&root(), Ino(999_999), 0).await), Errno::ENOENT);
    let read_only = w.client_with(MetaConfig { read_only: true, ..World::config() }).await;
    assert_eq!(errno(read_only.meta.access(&root(), f, 2).await), Errno::EROFS);
    read_only.meta.access(&root(), f, 4).await.unwrap();
}

/// Opening.
pub async fn open_checks(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.chown(f, 1, 1).await;
    c.chmod(f, 0o640).await;
    let m = &c.meta;
    let how = |read, write| OpenFlags { read, write, ..OpenFlags::default() };
    m.open(&user(1, 1), f, how(true, true)).await.unwrap();
    m.open(&user(2, 1), f, how(true, false)).await.unwrap();
    assert_eq!(errno(m.open(&user(2, 1), f, how(true, true)).await), Errno::EACCES);
    assert_eq!(errno(m.open(&user(2, 2), f, how(true, false)).await), Errno::EACCES);
    assert_eq!(
        errno(m.open(&user(2, 1), f, OpenFlags { truncate: true, ..how(true, false) }).await),
        Errno::EACCES
    );
    assert_eq!(errno(m.open(&root(), Ino(999_999), how(true, false)).await), Errno::ENOENT);
    m.close(f).await.unwrap();
    m.close(f).await.unwrap();
    let flag = |bits| SetAttr { flags: Some(bits), ..SAME };
    m.setattr(&root(), f, &flag(ciderfs_format::attr::flags::APPEND)).await.unwrap();
    assert_eq!(errno(m.open(&root(), f, how(false, true)).await), Errno::EPERM);
    m.open(&root(), f, OpenFlags { append: true, ..how(false, true) }).await.unwrap();
    m.close(f).await.unwrap();
    m.setattr(&root(), f, &flag(ciderfs_format::attr::flags::IMMUTABLE)).await.unwrap();
    assert_eq!(errno(m.open(&root(), f, how(false, true)).await), Errno::EPERM);
    m.open(&root(), f, how(true, false)).await.unwrap();
    m.close(f).await.unwrap();
    let read_only = w.client_with(MetaConfig { read_only: true, ..World::config() }).await;
    assert_eq!(errno(read_only.meta.open(&root(), f, how(false, true)).await), Errno::EROFS);
}

/// A directory's times are spared for a while if the client is told so, unless its link count changes.
pub async fn directory_times_spared(engine: Engine) {
    let w = World::new(engine).await;
    let cfg = MetaConfig { skip_dir_mtime: Duration::from_secs(100), ..World::config() };
    let c = w.client_with(cfg).await;
    let d = c.dir(ROOT, "d").await;
    let before = c.stat(d).await;
    c.file(d, "a").await;
    assert_eq!(c.stat(d).await, before);
    c.dir(d, "s").await;
    let after = c.stat(d).await;
    assert!(after.mtime > before.mtime && after.nlink == 3);
    c.unlink(d, "a").await.unwrap();
    assert_eq!(c.stat(d).await, after);
    w.clock.advance(200);
    c.file(d, "b").await;
    assert!(c.stat(d).await.mtime > after.mtime);
    w.check().await;
}

/// The link count of a directory that many clients change at once.
pub async fn link_counts_under_contention(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    let mut tasks = Vec::new();
    for t in 0..4 {
        let client = w.client().await;
        tasks.push(tokio::spawn(async move {
            for i in 0..15 {
                let name = format!("{t}-{i}");
                let kind = if i % 3 == 0 { FileType::File } else { FileType::Directory };
                client.make(d, &name, kind).await.unwrap();
                if i % 3 == 1 {
                    client.rmdir(d, &name).await.unwrap();
                }
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
    assert_eq!(c.nlink(d).await, 2 + 4 * 5);
    w.check().await;
}
