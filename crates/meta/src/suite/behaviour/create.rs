//! Creating, looking up, linking, listing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ciderfs_format::{Attr, FileType, Ino};

use crate::error::Errno;
use crate::ids::IdPool;
use crate::store::{Commit, Counter, Scan, Scanned, Write};
use crate::suite::Engine;
use crate::suite::flaky::{Fate, When};
use crate::suite::world::*;
use crate::types::{Caller, NewNode};

/// Every kind of node: attributes of the new one, times and links of its directory.
pub async fn create_every_kind(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    for (i, kind) in (1..=7).filter_map(FileType::from_u8).enumerate() {
        let before = c.stat(ROOT).await;
        let name = format!("n{i}");
        let device = matches!(kind, FileType::BlockDevice | FileType::CharDevice);
        let new = NewNode { umask: 0o022, rdev: 0x0801, ..node(kind, 0o6777) };
        let who = Caller::kernel_checked(1000, 1001, 1);
        let (ino, a) = c.meta.create(&who, ROOT, name.as_bytes(), &new).await.unwrap();
        assert_eq!(a, c.stat(ino).await, "what create tells is what is stored");
        let mode = if kind == FileType::Symlink { 0o777 } else { 0o6755 };
        assert_eq!((a.kind, a.mode, a.uid, a.gid), (kind, mode, 1000, 1001));
        assert_eq!(a.nlink, if kind == FileType::Directory { 2 } else { 1 });
        assert_eq!((a.parent, a.rdev), (ROOT, if device { 0x0801 } else { 0 }));
        let length = match kind {
            FileType::Directory => Attr::DIR_LENGTH,
            FileType::Symlink => 6,
            _ => 0,
        };
        assert_eq!(a.length, length);
        assert!(a.atime == a.mtime && a.mtime == a.ctime && a.ctime > before.ctime);
        let after = c.stat(ROOT).await;
        assert_eq!((after.mtime, after.ctime), (a.ctime, a.ctime), "the directory changed");
        assert_eq!(after.atime, before.atime);
        assert_eq!(after.nlink - before.nlink, u32::from(kind == FileType::Directory));
        assert_eq!(c.find(ROOT, &name).await.unwrap(), ino);
        assert_eq!(errno(c.make(ROOT, &name, FileType::File).await), Errno::EEXIST);
        assert_eq!(errno(c.make(ROOT, &name, FileType::Directory).await), Errno::EEXIST);
    }
    w.check().await;
}

/// Where nothing can be created.
pub async fn create_refused(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let d = c.dir(ROOT, "d").await;
    assert_eq!(errno(c.make(f, "x", FileType::File).await), Errno::ENOTDIR);
    assert_eq!(errno(c.make(Ino(777_777), "x", FileType::File).await), Errno::ENOENT);
    c.rmdir(ROOT, "d").await.unwrap();
    assert_eq!(errno(c.make(d, "x", FileType::File).await), Errno::ENOENT, "the directory is gone");
    for name in [".", ".."] {
        assert_eq!(errno(c.make(ROOT, name, FileType::Directory).await), Errno::EEXIST);
    }
    assert_eq!(errno(c.make(ROOT, "", FileType::File).await), Errno::EINVAL);
    assert_eq!(errno(c.make(ROOT, "a/b", FileType::File).await), Errno::EINVAL);
    assert_eq!(errno(c.make(ROOT, "a\0b", FileType::File).await), Errno::EINVAL);
    assert_eq!(errno(c.make(ROOT, ".trash", FileType::Directory).await), Errno::EPERM);
    assert_eq!(errno(c.make(Ino::TRASH, "x", FileType::File).await), Errno::EPERM);
    let read_only = w.client_with(crate::MetaConfig { read_only: true, ..World::config() }).await;
    assert_eq!(errno(read_only.make(ROOT, "x", FileType::File).await), Errno::EROFS);
    w.check().await;
}

/// Names of 255 bytes are the longest, in every operation that takes one.
pub async fn long_names(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (fits, long) = ("x".repeat(255), "x".repeat(256));
    let other = "y".repeat(255);
    let f = c.file(ROOT, &fits).await;
    assert_eq!(c.find(ROOT, &fits).await.unwrap(), f);
    c.link(f, ROOT, &other).await.unwrap();
    c.rename((ROOT, &other), (ROOT, &"z".repeat(255))).await.unwrap();
    assert_eq!(errno(c.make(ROOT, &long, FileType::File).await), Errno::ENAMETOOLONG);
    assert_eq!(errno(c.find(ROOT, &long).await), Errno::ENAMETOOLONG);
    assert_eq!(errno(c.link(f, ROOT, &long).await), Errno::ENAMETOOLONG);
    assert_eq!(errno(c.unlink(ROOT, &long).await), Errno::ENAMETOOLONG);
    assert_eq!(errno(c.rmdir(ROOT, &long).await), Errno::ENAMETOOLONG);
    assert_eq!(errno(c.rename((ROOT, &fits), (ROOT, &long)).await), Errno::ENAMETOOLONG);
    assert_eq!(errno(c.rename((ROOT, &long), (ROOT, "a")).await), Errno::ENAMETOOLONG);
    c.unlink(ROOT, &fits).await.unwrap();
    // Names are bytes.
    let odd: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
    let new = node(FileType::File, 0o644);
    let (ino, _) = c.meta.create(&root(), ROOT, &odd, &new).await.unwrap();
    assert_eq!(c.meta.lookup(&root(), ROOT, &odd).await.unwrap().0, ino);
    c.meta.unlink(&root(), ROOT, &odd).await.unwrap();
    w.check().await;
}

/// Lookups of what is there, what is not, dots, and through what is no directory.
pub async fn lookup(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    let e = c.dir(d, "e").await;
    let f = c.file(e, "f").await;
    assert_eq!(c.find(ROOT, "d").await.unwrap(), d);
    assert_eq!(c.find(e, "f").await.unwrap(), f);
    assert_eq!(errno(c.find(ROOT, "x").await), Errno::ENOENT);
    assert_eq!(errno(c.find(f, "x").await), Errno::ENOTDIR);
    assert_eq!(errno(c.find(Ino(999_999), "x").await), Errno::ENOENT);
    assert_eq!(c.find(e, ".").await.unwrap(), e);
    assert_eq!(c.find(e, "..").await.unwrap(), d);
    assert_eq!(c.find(d, "..").await.unwrap(), ROOT);
    assert_eq!(c.find(ROOT, "..").await.unwrap(), ROOT);
    assert_eq!(c.find(ROOT, ".trash").await.unwrap(), Ino::TRASH);
    // A client that believed otherwise learns.
    let other = w.client().await;
    assert_eq!(errno(other.find(ROOT, "new").await), Errno::ENOENT);
    let new = c.file(ROOT, "new").await;
    assert_eq!(other.find(ROOT, "new").await.unwrap(), new);
    assert_eq!(errno(other.make(ROOT, "new", FileType::File).await), Errno::EEXIST);
    c.unlink(ROOT, "new").await.unwrap();
    let again = other.file(ROOT, "new").await;
    assert_eq!(c.find(ROOT, "new").await.unwrap(), again);
    w.check().await;
}

/// Symbolic links.
pub async fn symbolic_links(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let make = async |name: &str, target: &[u8]| {
        let new = NewNode { target, ..node(FileType::Symlink, 0o644) };
        c.meta.create(&root(), ROOT, name.as_bytes(), &new).await
    };
    let long = vec![b'x'; 4096];
    for (i, target) in [&b"a"[..], b"\xff../\xfe", &long].into_iter().enumerate() {
        let (ino, a) = make(&format!("l{i}"), target).await.unwrap();
        assert_eq!((a.length, a.mode, a.nlink), (target.len() as u64, 0o777, 1));
        assert_eq!(c.meta.readlink(ino).await.unwrap(), Bytes::copy_from_slice(target));
    }
    assert_eq!(errno(make("bad", &[b'x'; 4097]).await), Errno::ENAMETOOLONG);
    assert_eq!(errno(make("bad", b"").await), Errno::EINVAL);
    let f = c.file(ROOT, "f").await;
    assert_eq!(errno(c.meta.readlink(f).await), Errno::EINVAL);
    assert_eq!(errno(c.meta.readlink(Ino(999_999)).await), Errno::ENOENT);
    // Hard links to symbolic links, and their end.
    let l = c.find(ROOT, "l0").await.unwrap();
    c.link(l, ROOT, "hard").await.unwrap();
    c.unlink(ROOT, "l0").await.unwrap();
    assert_eq!(c.meta.readlink(l).await.unwrap(), "a");
    c.unlink(ROOT, "hard").await.unwrap();
    assert_eq!(errno(c.meta.readlink(l).await), Errno::ENOENT);
    w.check().await;
}

/// Hard links: counts, parents, times, refusals.
pub async fn hard_links(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (d, f) = (c.dir(ROOT, "d").await, c.file(ROOT, "f").await);
    let before = c.stat(f).await;
    let dir_before = c.stat(d).await;
    let a = c.link(f, d, "g").await.unwrap();
    assert_eq!((a.nlink, a.parent), (2, Ino(0)));
    assert_eq!(a, c.stat(f).await);
    assert!(a.ctime > before.ctime && a.mtime == before.mtime);
    assert!(c.stat(d).await.mtime > dir_before.mtime);
    assert_eq!(c.link(f, ROOT, "h").await.unwrap().nlink, 3);
    assert_eq!(c.find(d, "g").await.unwrap(), f);
    w.check().await;
    assert_eq!(errno(c.link(f, d, "g").await), Errno::EEXIST);
    assert_eq!(errno(c.link(f, d, ".").await), Errno::EEXIST);
    assert_eq!(errno(c.link(d, ROOT, "x").await), Errno::EPERM);
    assert_eq!(errno(c.link(f, f, "x").await), Errno::ENOTDIR);
    assert_eq!(errno(c.link(Ino(999_999), ROOT, "x").await), Errno::ENOENT);
    assert_eq!(errno(c.link(f, Ino(999_999), "x").await), Errno::ENOENT);
    assert_eq!(errno(c.link(f, Ino::TRASH, "x").await), Errno::EPERM);
    // A link that another client removed.
    let other = w.client().await;
    other.stat(f).await;
    let removed = c.unlink(ROOT, "f").await.unwrap();
    assert_eq!((removed.ino, removed.last), (f, false));
    assert_eq!(other.link(f, ROOT, "i").await.unwrap().nlink, 3);
    for (dir, name) in [(d, "g"), (ROOT, "h")] {
        assert!(!c.unlink(dir, name).await.unwrap().last);
    }
    assert_eq!(c.nlink(f).await, 1);
    w.check().await;
    assert!(c.unlink(ROOT, "i").await.unwrap().last);
    assert!(c.gone(f).await);
    assert_eq!(errno(other.link(f, ROOT, "late").await), Errno::ENOENT, "it is gone");
    w.check().await;
}

/// A directory of 10 000 entries, listed while it is being emptied.
pub async fn ten_thousand_entries(engine: Engine) {
    const N: usize = 10_000;
    let w = World::new(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    let tasks = (0..8).map(|t| {
        let c = c.clone();
        tokio::spawn(async move {
            for i in (t..N).step_by(8) {
                c.file(d, &format!("f{i:05}")).await;
            }
        })
    });
    for t in tasks.collect::<Vec<_>>() {
        t.await.unwrap();
    }
    let names = c.ls(d).await;
    assert_eq!(names.len(), N);
    assert!(names.iter().enumerate().all(|(i, n)| *n == format!("f{i:05}")));
    let page = c.meta.list_dir(&root(), d, &crate::store::DirCursor::Start, 100, true).await.unwrap();
    assert!(page.entries.iter().all(|e| e.attr.as_ref().is_some_and(|a| a.is_file())));
    assert_eq!(errno(c.rmdir(ROOT, "d").await), Errno::ENOTEMPTY);
    w.check().await;
    for name in names.iter().step_by(100) {
        c.unlink(d, name).await.unwrap();
    }
    assert_eq!(c.ls(d).await.len(), N - N / 100);
    w.check().await;
}

/// New nodes below a set-group-ID directory.
pub async fn set_group_id_directories(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    c.chown(d, 0, 500).await;
    c.chmod(d, 0o2777).await;
    let who = user(1000, 1000);
    let make = async |name: &str, kind, mode| {
        c.meta.create(&who, d, name.as_bytes(), &node(kind, mode)).await.unwrap().1
    };
    let f = make("f", FileType::File, 0o644).await;
    assert_eq!((f.uid, f.gid, f.mode), (1000, 500, 0o644));
    let sub = make("sub", FileType::Directory, 0o755).await;
    assert_eq!((sub.gid, sub.mode), (500, 0o2755), "directories inherit the bit");
    let program = make("p", FileType::File, 0o2755).await;
    assert_eq!((program.gid, program.mode), (500, 0o755), "not a member of the group");
    let member = Caller { groups: vec![500], ..user(1000, 1000) };
    let new = node(FileType::File, 0o2755);
    let (_, a) = c.meta.create(&member, d, b"q", &new).await.unwrap();
    assert_eq!((a.gid, a.mode), (500, 0o2755));
    let plain = c.dir(ROOT, "plain").await;
    c.chmod(plain, 0o777).await;
    let (_, a) = c.meta.create(&who, plain, b"f", &node(FileType::File, 0o644)).await.unwrap();
    assert_eq!(a.gid, 1000);
    w.check().await;
}

/// A sub-directory presented as the root.
pub async fn subdirectory_as_root(engine: Engine) {
    let w = World::new(engine).await;
    let whole = w.client().await;
    let cfg = crate::MetaConfig { subdir: Some("/a/b/".into()), ..World::config() };
    let c = w.client_with(cfg.clone()).await;
    let a = whole.find(ROOT, "a").await.unwrap();
    let b = whole.find(a, "b").await.unwrap();
    let f = c.file(ROOT, "f").await;
    assert_eq!(whole.find(b, "f").await.unwrap(), f);
    assert_eq!(c.find(ROOT, "..").await.unwrap(), ROOT);
    assert_eq!(c.stat(ROOT).await, whole.stat(b).await);
    let d = c.dir(ROOT, "d").await;
    assert_eq!(c.find(d, "..").await.unwrap(), ROOT);
    c.rename((ROOT, "f"), (d, "g")).await.unwrap();
    c.rename((d, "g"), (ROOT, "f")).await.unwrap();
    c.rmdir(ROOT, "d").await.unwrap();
    assert_eq!(c.ls(ROOT).await, ["f"]);
    assert!(!c.meta.shows_trash());
    // Again, when everything exists.
    let again = w.client_with(cfg).await;
    assert_eq!(again.ls(ROOT).await, ["f"]);
    let bad = crate::MetaConfig { subdir: Some("a/b/f".into()), ..World::config() };
    let refused = crate::Meta::load(w.engine.open().await, bad).await;
    assert!(refused.is_err());
    // One that must be there is not made.
    let existing = |subdir: &str| crate::MetaConfig {
        subdir: Some(subdir.into()),
        existing_subdir: true,
        ..World::config()
    };
    let refused = crate::Meta::load(w.engine.open().await, existing("a/gone")).await;
    assert!(refused.is_err_and(|e| e.to_string().contains("no directory gone")));
    assert_eq!(whole.ls(a).await, ["b"]);
    assert_eq!(w.client_with(existing("a/b")).await.ls(ROOT).await, ["f"]);
    w.check().await;
}

/// A creation whose reply was lost has happened, although another client has put something else in its place before that
/// could be found out.
pub async fn creation_with_a_lost_reply(engine: Engine) {
    let w = World::new(engine).await;
    let other = w.client().await;
    let (between, c) = w.client_behind(1).await;
    for kind in [FileType::File, FileType::Directory, FileType::Symlink] {
        let (name, moved) = (format!("{kind:?}"), format!("moved {kind:?}"));
        between.lose_next(Fate::Made);
        let (o, from, to) = (other.clone(), name.clone(), moved.clone());
        between.at(When::Committed, async move {
            o.rename((ROOT, &from), (ROOT, &to)).await.unwrap();
            o.file(ROOT, &from).await;
        });
        let made = c.make(ROOT, &name, kind).await.unwrap();
        assert!(!between.give_up().await);
        assert_eq!(c.find(ROOT, &moved).await.unwrap(), made);
        assert_ne!(c.find(ROOT, &name).await.unwrap(), made);
    }
    w.check().await;
    // What another client has removed meanwhile is made once more, with another number: the data of the first goes its way.
    let (o, first) = (other.clone(), Arc::new(AtomicU64::new(0)));
    let told = Arc::clone(&first);
    between.lose_next(Fate::Made);
    between.at(When::Committed, async move {
        told.store(o.find(ROOT, "f").await.unwrap().0, Ordering::SeqCst);
        o.unlink(ROOT, "f").await.unwrap();
    });
    let again = c.file(ROOT, "f").await;
    assert!(first.load(Ordering::SeqCst) != 0 && first.load(Ordering::SeqCst) != again.0);
    w.check().await;
}

/// Where a counter is set back under a client, it hands out no number twice.
pub async fn numbers_set_back(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let mut seen = HashSet::new();
    for back in [0, -1000, -1, -900] {
        let writes = [Counter::NextInode, Counter::NextChunk].map(|c| Write::AddCounter(c, back));
        w.store.commit(&Commit { guards: Vec::new(), writes: writes.into() }).await.unwrap();
        for _ in 0..9000 {
            assert!(seen.insert((Counter::NextInode, c.meta.inodes.next().await.unwrap())), "after {back}");
            assert!(seen.insert((Counter::NextChunk, c.meta.new_slice_id().await.unwrap())), "after {back}");
        }
    }
    // One that was set back far is told. The stock is one that asks for more with its last number, so that no refill in the
    // background fails and is begun again before anybody needs it.
    let few = IdPool::new(Arc::clone(&w.store), Counter::NextInode, 10);
    for _ in 0..100 {
        assert!(seen.insert((Counter::NextInode, few.next().await.unwrap())));
    }
    let far = vec![Write::AddCounter(Counter::NextInode, -1000)];
    w.store.commit(&Commit { guards: Vec::new(), writes: far }).await.unwrap();
    let mut told = 0;
    for _ in 0..200 {
        match few.next().await {
            Ok(n) => assert!(seen.insert((Counter::NextInode, n))),
            Err(e) => {
                assert!(e.to_string().contains("NextInode was set back"), "{e}");
                told += 1;
            }
        }
    }
    assert!(told > 0);
    w.check().await;
}

/// A creation that was lost and arrives late, whatever another client does with what it made: one call makes one node.
pub async fn creation_that_arrives_late(engine: Engine) {
    let w = World::new(engine).await;
    let other = w.client().await;
    let (between, c) = w.client_behind(1).await;
    c.meta.start_session().await.unwrap();
    let mut number = 0;
    for late in 0..4 {
        for moved in 0..5 {
            number += 1;
            let dir = c.dir(ROOT, &format!("d{number}")).await;
            c.file(dir, "warm").await;
            between.lose_next(Fate::Late(late));
            // One call later than the commit itself.
            let o = other.clone();
            between.at(When::Call(1 + moved), async move {
                _ = o.rename((dir, "f"), (dir, "moved")).await;
            });
            let f = c.file(dir, "f").await;
            between.give_up().await;
            c.stat(ROOT).await;
            let names = c.ls(dir).await;
            assert_eq!(names.len(), 2, "late by {late}, moved before call {moved}: {names:?}");
            let name = names.iter().find(|n| *n != "warm").unwrap();
            assert_eq!(
                c.find(dir, name)
                    .await
                    .unwrap_or_else(|e| panic!("late by {late}, moved before call {moved}: {names:?}: {e}")),
                f
            );
        }
        // What arrives after the next attempt has been made, no guard of it can see: it goes with the session.
        if late > 2 {
            continue;
        }
        between.lose_next(Fate::Late(late));
        let (g, _) = c.meta.create_nameless(&root(), ROOT, 0o600, 0).await.unwrap();
        let open = w.store.scan(&Scan::Sustained(c.meta.sid()), 10).await.unwrap();
        assert_eq!(open, [Scanned::Ino(g)], "late by {late}");
        c.meta.close(g).await.unwrap();
    }
    c.meta.close_session().await.unwrap();
    w.check().await;
}
