//! Renaming with flags: entries that change places, whiteouts.

use ciderfs_format::{FileType, Ino};

use crate::error::Errno;
use crate::ops::rename::{EXCHANGE, NOREPLACE, WHITEOUT};
use crate::suite::Engine;
use crate::suite::world::*;

/// Every kind with every kind, within and across directories: entries, parents, link counts, times; nothing is removed.
pub async fn exchange_of_all_kinds(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let (a, b) = (c.dir(ROOT, "a").await, c.dir(ROOT, "b").await);
    for from in (1..=7).filter_map(FileType::from_u8) {
        for to in (1..=7).filter_map(FileType::from_u8) {
            for (sdir, ddir) in [(a, b), (a, a)] {
                let x = c.make(sdir, "x", from).await.unwrap();
                let y = c.make(ddir, "y", to).await.unwrap();
                let before = (c.nlink(a).await + c.nlink(b).await, c.stat(x).await, c.stat(y).await);
                c.rename_with(EXCHANGE, (sdir, "x"), (ddir, "y")).await.unwrap();
                assert_eq!(
                    (c.find(sdir, "x").await.unwrap(), c.find(ddir, "y").await.unwrap()),
                    (y, x),
                    "{from:?} and {to:?}"
                );
                let after = (c.stat(x).await, c.stat(y).await);
                assert_eq!((after.0.parent, after.1.parent), (ddir, sdir));
                assert!(after.0.ctime > before.1.ctime && after.1.ctime == after.0.ctime);
                assert_eq!((after.0.mtime, after.0.nlink), (before.1.mtime, before.1.nlink));
                for dir in [sdir, ddir] {
                    let stat = c.stat(dir).await;
                    assert_eq!((stat.mtime, stat.ctime), (after.0.ctime, after.0.ctime));
                }
                assert_eq!(c.nlink(a).await + c.nlink(b).await, before.0);
                if sdir != ddir {
                    let want = |kind| 2 + u32::from(kind == FileType::Directory);
                    assert_eq!((c.nlink(a).await, c.nlink(b).await), (want(to), want(from)));
                }
                for (dir, name, ino) in [(sdir, "x", y), (ddir, "y", x)] {
                    let is_dir = c.stat(ino).await.is_dir();
                    if is_dir { c.rmdir(dir, name).await } else { c.unlink(dir, name).await }.unwrap();
                }
            }
        }
    }
    w.check().await;
}

/// Names that are missing, the same, hard links of one file; flags that do not go together.
pub async fn exchange_refused(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let (d, f) = (c.dir(ROOT, "d").await, c.file(ROOT, "f").await);
    c.link(f, d, "g").await.unwrap();
    assert_eq!(errno(c.rename_with(EXCHANGE, (ROOT, "f"), (d, "none")).await), Errno::ENOENT);
    assert_eq!(errno(c.rename_with(EXCHANGE, (d, "none"), (ROOT, "f")).await), Errno::ENOENT);
    let before = (c.stat(f).await, c.stat(d).await, c.stat(ROOT).await);
    c.rename_with(EXCHANGE, (ROOT, "f"), (ROOT, "f")).await.unwrap();
    c.rename_with(EXCHANGE, (ROOT, "f"), (d, "g")).await.unwrap();
    assert_eq!((c.stat(f).await, c.stat(d).await, c.stat(ROOT).await), before, "nothing happens");
    for flags in [EXCHANGE | NOREPLACE, EXCHANGE | WHITEOUT] {
        assert_eq!(errno(c.rename_with(flags, (ROOT, "f"), (d, "g")).await), Errno::EINVAL);
    }
    // A hard-linked file changes places: its parents follow.
    c.file(d, "h").await;
    c.rename_with(EXCHANGE, (ROOT, "f"), (d, "h")).await.unwrap();
    w.check().await;
    assert_eq!(c.nlink(f).await, 2);
    // Nothing gets into the trash this way, or out of it.
    c.unlink(d, "g").await.unwrap();
    let hour = c.meta.lookup(&root(), Ino::TRASH, c.ls(Ino::TRASH).await[0].as_bytes()).await.unwrap().0;
    let trashed = c.ls(hour).await.remove(0);
    for (from, to) in [((hour, trashed.as_str()), (d, "h")), ((d, "h"), (hour, trashed.as_str()))] {
        assert_eq!(errno(c.rename_with(EXCHANGE, from, to).await), Errno::EPERM);
    }
    // Neither side may lie in another's sticky directory.
    let sticky = c.dir(ROOT, "sticky").await;
    c.chmod(sticky, 0o1777).await;
    let open = c.dir(ROOT, "open").await;
    c.chmod(open, 0o777).await;
    c.file(sticky, "s").await;
    c.file(open, "o").await;
    for ((sdir, sname), (ddir, dname)) in [((sticky, "s"), (open, "o")), ((open, "o"), (sticky, "s"))] {
        let moved =
            c.meta.rename(&user(8, 8), sdir, sname.as_bytes(), ddir, dname.as_bytes(), EXCHANGE).await;
        assert_eq!(errno(moved), Errno::EPERM);
    }
    w.check().await;
}

/// Neither of the two gets below itself, whichever is named first.
pub async fn exchange_below_itself(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let top = c.dir(ROOT, "top").await;
    let mut at = top;
    for depth in 0..5 {
        let below = c.dir(at, "d").await;
        let stranger = w.client().await;
        for client in [&c, &stranger] {
            let (up, down) = ((ROOT, "top"), (at, "d"));
            assert_eq!(errno(client.rename_with(EXCHANGE, up, down).await), Errno::EINVAL, "depth {depth}");
            assert_eq!(errno(client.rename_with(EXCHANGE, down, up).await), Errno::EINVAL, "depth {depth}");
        }
        at = below;
    }
    // A file with a directory above it.
    c.file(at, "f").await;
    for (from, to) in [((ROOT, "top"), (at, "f")), ((at, "f"), (ROOT, "top"))] {
        assert_eq!(errno(c.rename_with(EXCHANGE, from, to).await), Errno::EINVAL);
    }
    w.check().await;
}

/// Two clients exchange directories so that both together would close a loop: one of them loses.
pub async fn exchange_race_makes_no_loop(engine: Engine) {
    let w = World::new(engine).await;
    let clients = [w.client().await, w.client().await];
    for round in 0..12 {
        let c = &clients[0];
        let depth = 1 + round % 3;
        let (mut tops, mut bottoms) = (Vec::new(), Vec::new());
        for side in ["l", "r"] {
            let top = c.dir(ROOT, &format!("{side}{round}")).await;
            let mut bottom = top;
            for _ in 0..depth {
                bottom = c.dir(bottom, "d").await;
            }
            c.dir(bottom, "x").await;
            tops.push(top);
            bottoms.push(bottom);
        }
        for client in &clients {
            for ino in tops.iter().chain(&bottoms) {
                client.stat(*ino).await;
            }
            for side in ["l", "r"] {
                client.find(ROOT, &format!("{side}{round}")).await.unwrap();
            }
            for bottom in &bottoms {
                client.find(*bottom, "x").await.unwrap();
            }
        }
        let mut tasks = Vec::new();
        for (i, (from, to)) in [("l", bottoms[1]), ("r", bottoms[0])].into_iter().enumerate() {
            let client = clients[i].clone();
            let (a, b) = ((ROOT, format!("{from}{round}")), (to, "x"));
            tasks.push(tokio::spawn(async move {
                // One of them names the places the other way round.
                match i {
                    0 => client.rename_with(EXCHANGE, (a.0, &a.1), b).await,
                    _ => client.rename_with(EXCHANGE, b, (a.0, &a.1)).await,
                }
            }));
        }
        let mut won = 0;
        for t in tasks {
            match t.await.unwrap() {
                Ok(()) => won += 1,
                Err(e) => assert_eq!(e.errno(), Errno::EINVAL),
            }
        }
        // The second may still find something at both places that is no loop.
        assert!(won >= 1, "round {round}");
        w.check().await;
    }
}

/// The old name becomes a character device 0:0, in the same commit.
pub async fn whiteouts(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (a, b) = (c.dir(ROOT, "a").await, c.dir(ROOT, "b").await);
    let f = c.file(a, "f").await;
    let g = c.file(b, "g").await;
    let s = c.dir(a, "s").await;
    let used = c.meta.used();
    c.rename_with(WHITEOUT, (a, "f"), (b, "g")).await.unwrap();
    assert_eq!(c.find(b, "g").await.unwrap(), f);
    assert!(c.gone(g).await);
    let white = c.stat(c.find(a, "f").await.unwrap()).await;
    assert_eq!((white.kind, white.mode, white.rdev, white.nlink), (FileType::CharDevice, 0, 0, 1));
    assert_eq!((white.uid, white.parent), (0, a));
    assert_eq!(white.ctime, c.stat(f).await.ctime);
    assert_eq!(c.meta.used(), used, "one came, one went");
    w.check().await;
    // A directory, within one directory.
    c.rename_with(WHITEOUT | NOREPLACE, (a, "s"), (a, "t")).await.unwrap();
    assert_eq!((c.find(a, "t").await.unwrap(), c.nlink(a).await), (s, 3));
    assert_eq!(c.stat(c.find(a, "s").await.unwrap()).await.kind, FileType::CharDevice);
    w.check().await;
    // Over a whiteout, with a whiteout left.
    c.rename_with(WHITEOUT, (b, "g"), (a, "f")).await.unwrap();
    assert_eq!(c.ls(b).await, ["g"]);
    assert_eq!(errno(c.rename_with(WHITEOUT | NOREPLACE, (a, "f"), (b, "g")).await), Errno::EEXIST);
    // Nothing happens between links of one file, or to the same place.
    c.link(f, a, "f2").await.unwrap();
    c.rename_with(WHITEOUT, (a, "f"), (a, "f2")).await.unwrap();
    c.rename_with(WHITEOUT, (a, "f"), (a, "f")).await.unwrap();
    assert_eq!((c.find(a, "f").await.unwrap(), c.nlink(f).await), (f, 2));
    // It is no device that could be used: ordinary users may leave one, too.
    c.chmod(a, 0o777).await;
    c.chown(f, 7, 7).await;
    c.meta.rename(&user(7, 7), a, b"f", a, b"z", WHITEOUT).await.unwrap();
    assert_eq!(c.stat(c.find(a, "f").await.unwrap()).await.uid, 7);
    w.check().await;
}
