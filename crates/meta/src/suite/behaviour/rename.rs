//! Renaming: what may replace what, loops, times, links, races.

use std::sync::Arc;

use ciderfs_format::{FileType, Ino};
use parking_lot::Mutex;

use crate::error::Errno;
use crate::ops::rename::{EXCHANGE, NOREPLACE};
use crate::store::QuotaKey;
use crate::suite::Engine;
use crate::suite::flaky::When;
use crate::suite::world::*;

/// Moving a file and a directory: entries, parents, link counts, times.
pub async fn rename_moves(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (a, b) = (c.dir(ROOT, "a").await, c.dir(ROOT, "b").await);
    let f = c.file(a, "f").await;
    let s = c.dir(a, "s").await;
    c.file(s, "inside").await;
    let before = c.stat(f).await;
    assert_eq!(c.rename((a, "f"), (b, "g")).await.unwrap(), None);
    let after = c.stat(f).await;
    assert_eq!((after.parent, after.mtime, after.nlink), (b, before.mtime, 1));
    assert!(after.ctime > before.ctime);
    assert_eq!((c.stat(a).await.mtime, c.stat(b).await.mtime), (after.ctime, after.ctime));
    assert_eq!(errno(c.find(a, "f").await), Errno::ENOENT);
    assert_eq!(c.find(b, "g").await.unwrap(), f);
    w.check().await;
    assert_eq!((c.nlink(a).await, c.nlink(b).await), (3, 2));
    c.rename((a, "s"), (b, "s")).await.unwrap();
    assert_eq!((c.nlink(a).await, c.nlink(b).await), (2, 3));
    assert_eq!(c.find(s, "..").await.unwrap(), b);
    // Within one directory.
    c.rename((b, "s"), (b, "t")).await.unwrap();
    assert_eq!((c.nlink(b).await, c.ls(b).await), (3, vec!["g".to_owned(), "t".to_owned()]));
    w.check().await;
    // To itself: nothing happens, not even to the times.
    let before = (c.stat(b).await, c.stat(f).await);
    assert_eq!(c.rename((b, "g"), (b, "g")).await.unwrap(), None);
    assert_eq!((c.stat(b).await, c.stat(f).await), before);
    assert_eq!(errno(c.rename((b, "none"), (b, "none")).await), Errno::ENOENT);
    assert_eq!(errno(c.rename((b, "none"), (a, "x")).await), Errno::ENOENT);
}

/// Every kind over every kind.
pub async fn rename_replaces(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (a, b) = (c.dir(ROOT, "a").await, c.dir(ROOT, "b").await);
    for from in (1..=7).filter_map(FileType::from_u8) {
        for to in (1..=7).filter_map(FileType::from_u8) {
            for (sdir, ddir) in [(a, b), (a, a)] {
                let source = c.make(sdir, "s", from).await.unwrap();
                let target = c.make(ddir, "t", to).await.unwrap();
                let moved = c.rename((sdir, "s"), (ddir, "t")).await;
                match (from == FileType::Directory, to == FileType::Directory) {
                    (true, false) => assert_eq!(errno(moved), Errno::ENOTDIR),
                    (false, true) => assert_eq!(errno(moved), Errno::EISDIR),
                    _ => {
                        let removed = moved.unwrap().unwrap();
                        assert_eq!((removed.ino, removed.last), (target, true));
                        assert!(c.gone(target).await);
                        assert_eq!(c.find(ddir, "t").await.unwrap(), source);
                        assert_eq!(errno(c.find(sdir, "s").await), Errno::ENOENT);
                    }
                }
                for (dir, name) in [(sdir, "s"), (ddir, "t")] {
                    if let Ok(ino) = c.find(dir, name).await {
                        let is_dir = c.stat(ino).await.is_dir();
                        let gone = if is_dir { c.rmdir(dir, name).await } else { c.unlink(dir, name).await };
                        gone.unwrap();
                    }
                }
                assert_eq!((c.nlink(a).await, c.nlink(b).await), (2, 2), "{from:?} over {to:?}");
            }
        }
    }
    w.check().await;
    // A directory that is not empty is not replaced.
    let (s, t) = (c.dir(a, "s").await, c.dir(b, "t").await);
    let f = c.file(t, "f").await;
    assert_eq!(errno(c.rename((a, "s"), (b, "t")).await), Errno::ENOTEMPTY);
    c.rename((t, "f"), (s, "f")).await.unwrap();
    c.rename((a, "s"), (b, "t")).await.unwrap();
    assert_eq!((c.find(s, "f").await.unwrap(), c.find(b, "t").await.unwrap()), (f, s));
    // NOREPLACE.
    c.file(a, "x").await;
    for to in [(b, "t"), (a, "x")] {
        let refused = c.meta.rename(&root(), a, b"x", to.0, to.1.as_bytes(), 1).await;
        assert_eq!(errno(refused), Errno::EEXIST);
    }
    c.meta.rename(&root(), a, b"x", b, b"y", 1).await.unwrap();
    for flags in [8, 3, 6, 7, 0x20] {
        assert_eq!(errno(c.meta.rename(&root(), b, b"y", b, b"z", flags).await), Errno::EINVAL);
    }
    w.check().await;
}

/// Hard-linked files: over each other, over the same inode, across directories.
pub async fn rename_hard_links(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    let (f, g) = (c.file(ROOT, "f").await, c.file(ROOT, "g").await);
    c.link(f, d, "f2").await.unwrap();
    c.link(f, ROOT, "f3").await.unwrap();
    // Two names of one inode: nothing happens.
    assert_eq!(c.rename((ROOT, "f"), (d, "f2")).await.unwrap(), None);
    assert_eq!(c.nlink(f).await, 3);
    w.check().await;
    // Moved to another directory.
    c.rename((ROOT, "f3"), (d, "f4")).await.unwrap();
    w.check().await;
    // One of several links is replaced.
    let removed = c.rename((ROOT, "g"), (d, "f2")).await.unwrap().unwrap();
    assert_eq!((removed.ino, removed.last, c.nlink(f).await), (f, false, 2));
    w.check().await;
    // A link of several replaces the last name of another.
    let removed = c.rename((ROOT, "f"), (d, "f2")).await.unwrap().unwrap();
    assert_eq!((removed.ino, removed.last, c.nlink(f).await), (g, true, 2));
    assert!(c.gone(g).await);
    w.check().await;
}

/// No directory goes below itself, at any depth.
pub async fn rename_below_itself(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let top = c.dir(ROOT, "top").await;
    let mut path = vec![top];
    for depth in 0..150 {
        let dir = c.dir(path[depth], "d").await;
        path.push(dir);
        if [0, 1, 2, 9, 149].contains(&depth) {
            // The client that made the tree knows every step; another one must find out.
            let stranger = w.client().await;
            for client in [&c, &stranger] {
                for name in ["x", "d"] {
                    let refused = client.rename((ROOT, "top"), (dir, name)).await;
                    assert_eq!(errno(refused), Errno::EINVAL, "depth {depth}");
                }
            }
            w.check().await;
        }
    }
    assert_eq!(errno(c.rename((ROOT, "top"), (top, "x")).await), Errno::EINVAL);
    // The other direction is no loop: an ancestor cannot be replaced because it is not empty.
    assert_eq!(errno(c.rename((path[3], "d"), (ROOT, "top")).await), Errno::ENOTEMPTY);
    assert_eq!(errno(c.rename((top, "d"), (ROOT, "top")).await), Errno::ENOTEMPTY);
    // Deep to high, high to a sibling's depth.
    c.rename((path[149], "d"), (ROOT, "deep")).await.unwrap();
    c.rename((ROOT, "deep"), (path[100], "deep")).await.unwrap();
    // Files may go anywhere.
    c.file(ROOT, "f").await;
    c.rename((ROOT, "f"), (path[120], "f")).await.unwrap();
    w.check().await;
}

/// Two clients move directories into each other at once: one of them loses, at any depth.
pub async fn rename_race_makes_no_loop(engine: Engine) {
    let w = World::new(engine).await;
    let clients = [w.client().await, w.client().await];
    for round in 0..12 {
        let c = &clients[0];
        let depth = round % 4;
        let mut tops = Vec::new();
        let mut bottoms = Vec::new();
        for side in ["l", "r"] {
            let top = c.dir(ROOT, &format!("{side}{round}")).await;
            let mut bottom = top;
            for _ in 0..depth {
                bottom = c.dir(bottom, "d").await;
            }
            tops.push(top);
            bottoms.push(bottom);
        }
        // Both know the whole tree, so that both commit on what they believe.
        for client in &clients {
            for ino in tops.iter().chain(&bottoms) {
                client.stat(*ino).await;
            }
            for side in ["l", "r"] {
                client.find(ROOT, &format!("{side}{round}")).await.unwrap();
            }
        }
        let mut tasks = Vec::new();
        for (i, (from, to)) in [("l", bottoms[1]), ("r", bottoms[0])].into_iter().enumerate() {
            let client = clients[i].clone();
            let name = format!("{from}{round}");
            tasks.push(tokio::spawn(async move { client.rename((ROOT, &name), (to, "in")).await }));
        }
        let mut won = 0;
        for t in tasks {
            match t.await.unwrap() {
                Ok(_) => won += 1,
                Err(e) => assert_eq!(e.errno(), Errno::EINVAL),
            }
        }
        assert_eq!(won, 1, "round {round}");
        w.check().await;
    }
}

/// Permissions and what may not be touched.
pub async fn rename_refused(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (a, f) = (c.dir(ROOT, "a").await, c.file(ROOT, "f").await);
    assert_eq!(errno(c.rename((ROOT, "f"), (f, "x")).await), Errno::ENOTDIR);
    assert_eq!(errno(c.rename((ROOT, "f"), (Ino(999_999), "x")).await), Errno::ENOENT);
    assert_eq!(errno(c.rename((f, "x"), (ROOT, "x")).await), Errno::ENOENT);
    assert_eq!(errno(c.rename((ROOT, "f"), (ROOT, ".trash")).await), Errno::EPERM);
    assert_eq!(errno(c.rename((ROOT, ".trash"), (ROOT, "t")).await), Errno::EPERM);
    assert_eq!(errno(c.rename((ROOT, "f"), (Ino::TRASH, "t")).await), Errno::EPERM);
    assert_eq!(errno(c.rename((ROOT, "f"), (a, "..")).await), Errno::EEXIST);
    // A directory in a foreign sticky directory may not leave it.
    let sticky = c.dir(ROOT, "sticky").await;
    c.chmod(sticky, 0o1777).await;
    let open = c.dir(ROOT, "open").await;
    c.chmod(open, 0o777).await;
    let s = c.dir(sticky, "s").await;
    c.chown(s, 7, 7).await;
    let moved = c.meta.rename(&user(8, 8), sticky, b"s", open, b"s", 0).await;
    assert_eq!(errno(moved), Errno::EPERM);
    c.meta.rename(&user(7, 7), sticky, b"s", open, b"s", 0).await.unwrap();
    // The destination was removed by somebody else.
    let other = w.client().await;
    other.stat(a).await;
    c.rmdir(ROOT, "a").await.unwrap();
    assert_eq!(errno(other.rename((ROOT, "f"), (a, "x")).await), Errno::ENOENT);
    w.check().await;
}

/// Many clients move one file around; it is always in exactly one place.
pub async fn rename_contended(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let dirs: Arc<Vec<Ino>> =
        Arc::new(vec![c.dir(ROOT, "a").await, c.dir(ROOT, "b").await, c.dir(ROOT, "c").await]);
    let f = c.file(dirs[0], "f").await;
    let mut tasks = Vec::new();
    for t in 0..3 {
        let (client, dirs) = (w.client().await, Arc::clone(&dirs));
        tasks.push(tokio::spawn(async move {
            let mut done = 0;
            for i in 0..30 {
                let (from, to) = (dirs[(t + i) % 3], dirs[(t + 2 * i + 1) % 3]);
                match client.rename((from, "f"), (to, "f")).await {
                    Ok(_) => done += 1,
                    Err(e) => assert_eq!(e.errno(), Errno::ENOENT),
                }
            }
            done
        }));
    }
    let mut done = 0;
    for t in tasks {
        done += t.await.unwrap();
    }
    assert!(done > 0);
    let mut places = 0;
    for dir in dirs.iter() {
        places += c.ls(*dir).await.len();
    }
    assert_eq!((places, c.nlink(f).await), (1, 1));
    w.check().await;
}

/// Two clients give the same file the same new name, one before each call of the other: one does it, the other finds the
/// file gone. Neither sees the name before and the file after.
pub async fn rename_of_the_same(engine: Engine) {
    let w = World::new(engine).await;
    let (plain, other) = (w.client().await, w.client().await);
    // What is replaced is given back to the quota above, which takes looks at every directory on the way.
    plain.meta.set_quota(QuotaKey::Dir(ROOT), Some(1 << 40), None).await.unwrap();
    other.meta.reload_quotas().await.unwrap();
    let top = plain.dir(ROOT, "top").await;
    for (flags, replaces) in [(0, true), (0, false), (NOREPLACE, false), (EXCHANGE, true)] {
        let mut call = 0;
        loop {
            let dir = plain.dir(top, &format!("{flags}{replaces}{call}")).await;
            let f = plain.file(dir, "f").await;
            if replaces {
                plain.file(dir, "g").await;
            }
            let (between, c) = w.client_behind(1).await;
            c.meta.reload_quotas().await.unwrap();
            // What a client knows of one name may be older than what it knows of the other.
            _ = c.find(dir, "g").await;
            let (o, outcome) = (other.clone(), Arc::new(Mutex::new(None)));
            let told = Arc::clone(&outcome);
            between.at(When::Call(call), async move {
                *told.lock() = Some(o.rename_with(0, (dir, "f"), (dir, "g")).await.map_err(|e| e.errno()));
            });
            let mine = c.rename_with(flags, (dir, "f"), (dir, "g")).await.map_err(|e| e.errno());
            let late = between.give_up().await;
            let others = outcome.lock().take();
            let context =
                format!("flags {flags}, replaces {replaces}, before call {call}: {mine:?}, {others:?}");
            if late {
                assert_eq!(mine, Ok(()), "{context}");
                break;
            }
            assert_eq!(others, Some(Ok(())), "{context}");
            assert_eq!(mine, Err(Errno::ENOENT), "{context}");
            assert_eq!(c.find(dir, "g").await.unwrap(), f);
            call += 1;
        }
        assert!(call > 0, "flags {flags}");
    }
    w.check().await;
}
