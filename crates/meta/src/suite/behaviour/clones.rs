//! Clones: complete when they are seen, sharing data, nothing left of what was not completed.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ciderfs_format::{Attr, FileType, Ino};

use super::lifetime::until;
use crate::error::Errno;
use crate::store::{QuotaKey, Read, Scan, Scanned, Value, Write};
use crate::suite::Engine;
use crate::suite::flaky::{Flaky, When};
use crate::suite::world::*;
use crate::types::{Caller, NewNode};
use crate::{CloneOptions, CloneProgress, Result, XattrSet};

const PRESERVE: CloneOptions =
    CloneOptions { preserve: true, umask: 0o022, at_once: 4, without_xattrs: None };
const PLAIN: CloneOptions = CloneOptions { preserve: false, ..PRESERVE };

async fn clone_as(
    c: &Client,
    who: &Caller,
    from: Ino,
    (dir, name): (Ino, &str),
    how: &CloneOptions,
) -> Result<Ino> {
    c.meta.clone_tree(who, from, dir, name.as_bytes(), how, &Arc::default()).await
}

async fn cloned(c: &Client, from: Ino, name: &str) -> Result<Ino> {
    clone_as(c, &root(), from, (ROOT, name), &PRESERVE).await
}

/// A tree with a little of everything, and how many nodes it has.
async fn tree(c: &Client, name: &str) -> (Ino, u64) {
    let top = c.dir(ROOT, name).await;
    let sub = c.dir(top, "sub").await;
    let f = c.file(top, "f").await;
    c.put(f, 0, 0, 5000).await;
    c.put(f, 0, 100, 100).await;
    c.put(f, 3, 0, 7).await;
    c.chmod(f, 0o640).await;
    c.chown(f, 7, 8).await;
    c.chown(sub, 9, 9).await;
    c.meta.set_xattr(&root(), f, b"user.a", Bytes::from_static(b"v"), XattrSet::default()).await.unwrap();
    c.meta
        .set_xattr(&root(), sub, b"trusted.b", Bytes::from_static(b"w"), XattrSet::default())
        .await
        .unwrap();
    c.make(top, "l", FileType::Symlink).await.unwrap();
    c.make(sub, "p", FileType::Fifo).await.unwrap();
    c.make(sub, "d", FileType::CharDevice).await.unwrap();
    c.link(f, sub, "g").await.unwrap();
    for n in 0..2 {
        let dir = c.dir(sub, &format!("d{n}")).await;
        for m in 0..22 {
            let file = c.file(dir, &format!("file{m}")).await;
            c.put(file, 0, 0, 10).await;
        }
    }
    (top, 7 + 2 + 44)
}

/// What a tree looks like, by path. `times` and owners, or only what no options change.
async fn shape(c: &Client, top: Ino, all: bool) -> Vec<String> {
    let (mut out, mut open) = (Vec::new(), vec![(String::new(), top)]);
    while let Some((path, ino)) = open.pop() {
        let a = c.stat(ino).await;
        let reads: Vec<Read> =
            [Read::Symlink(ino)].into_iter().chain((0..5).map(|indx| Read::Slices(ino, indx))).collect();
        let content = c.meta.read(&reads).await.unwrap();
        let mut names = c.meta.list_xattrs(&root(), ino).await.unwrap();
        names.sort();
        let kept = (a.uid, a.gid, a.mode, a.atime, a.mtime, a.ctime);
        let links = if a.is_dir() || all { a.nlink } else { 1 };
        let kept = all.then_some(kept);
        out.push(format!(
            "{path} {:?} {links} {} {} {kept:?} {names:?} {content:?}",
            a.kind, a.length, a.rdev
        ));
        if a.is_dir() {
            for name in c.ls(ino).await {
                let below = c.find(ino, &name).await.unwrap();
                open.push((format!("{path}/{name}"), below));
            }
        }
    }
    out.sort();
    out
}

async fn nothing_is_detached(w: &World) {
    assert_eq!(w.store.scan(&Scan::Detached(i64::MAX >> 1), 10).await.unwrap(), []);
}

/// A tree, a file and the root are cloned; the copies outlive their source, and its data goes with the last of them.
pub async fn clones_are_copies(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (top, nodes) = tree(&c, "t").await;
    let want = shape(&c, top, true).await;
    let progress = Arc::new(CloneProgress::default());
    let copy = c.meta.clone_tree(&root(), top, ROOT, b"u", &PRESERVE, &progress).await.unwrap();
    assert_eq!(c.find(ROOT, "u").await.unwrap(), copy);
    assert_eq!([&progress.done, &progress.total].map(|n| n.load(Ordering::Relaxed)), [nodes, nodes]);
    assert_eq!(shape(&c, copy, true).await, want);
    assert_eq!(c.nlink(ROOT).await, 4);
    nothing_is_detached(&w).await;
    w.check().await;
    // A clone of a clone, and below itself.
    let again = clone_as(&c, &root(), copy, (copy, "again"), &PRESERVE).await.unwrap();
    assert_eq!(shape(&c, again, true).await, want);
    // A file, and a link, which none of their other names follow.
    let f = c.find(top, "f").await.unwrap();
    let one = cloned(&c, f, "one").await.unwrap();
    assert_eq!(c.nlink(one).await, 1);
    let l = c.find(top, "l").await.unwrap();
    let link = cloned(&c, l, "link").await.unwrap();
    assert_eq!(c.meta.readlink(link).await.unwrap(), c.meta.readlink(l).await.unwrap());
    w.check().await;
    // The source goes, and nothing is lost; then all the others.
    for name in ["t", "u"] {
        let dir = c.find(ROOT, name).await.unwrap();
        c.meta
            .empty_dir(dir, ciderfs_rt::Instant::now() + std::time::Duration::from_secs(60), false)
            .await
            .unwrap();
        c.rmdir(ROOT, name).await.unwrap();
        c.meta.drain_deletions().await;
        w.check().await;
        if name == "t" {
            assert_eq!(w.recorder.take(), [], "the clones use it");
            assert_eq!(shape(&c, again, true).await, want);
        }
    }
    assert_eq!(w.recorder.take().len(), 44, "but for the file that was cloned alone");
    c.unlink(ROOT, "one").await.unwrap();
    c.meta.drain_deletions().await;
    assert_eq!(w.recorder.take().len(), 3);
    w.check().await;
}

/// What is not preserved is as if the caller had made it now; what makes programs run as others is nobody's to copy.
pub async fn clones_belong_to_the_caller(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (top, _) = tree(&c, "t").await;
    let f = c.find(top, "f").await.unwrap();
    c.chmod(f, 0o6777).await;
    let before = c.meta.clock.now();
    let copy = clone_as(&c, &root(), top, (ROOT, "plain"), &PLAIN).await.unwrap();
    assert_eq!(shape(&c, copy, false).await, shape(&c, top, false).await);
    let [g, h] = [(copy, "f"), (c.find(copy, "sub").await.unwrap(), "g")];
    let (g, h) = (c.find(g.0, g.1).await.unwrap(), c.find(h.0, h.1).await.unwrap());
    assert_ne!(g, h, "names of one file are files of their own");
    let a = c.stat(g).await;
    assert_eq!((a.uid, a.gid, a.mode, a.nlink), (0, 0, 0o755, 1));
    assert!([a.atime, a.mtime, a.ctime].iter().all(|t| *t >= before), "{a:?}");
    // A user cannot give away, nor run as somebody else.
    let alice = user(1000, 1000);
    let home = c.dir(ROOT, "home").await;
    c.chown(home, 1000, 1000).await;
    let kept = clone_as(&c, &alice, f, (home, "kept"), &PRESERVE).await.unwrap();
    let a = c.stat(kept).await;
    assert_eq!((a.uid, a.gid, a.mode), (1000, 1000, 0o777));
    assert_eq!(a.mtime, c.stat(f).await.mtime);
    w.check().await;
}

/// What the caller may not read, or may not put there, is not cloned, and nothing is left of it.
pub async fn clones_refused(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let (top, _) = tree(&c, "t").await;
    let alice = user(1000, 1000);
    let home = c.dir(ROOT, "home").await;
    c.chown(home, 1000, 1000).await;
    let to_home = async |from, name: &'static str| clone_as(&c, &alice, from, (home, name), &PLAIN).await;
    // A device; then a file, a directory below, one above.
    assert_eq!(errno(to_home(top, "no").await), Errno::EACCES, "the file has mode 640");
    let (sub, f) = (c.find(top, "sub").await.unwrap(), c.find(top, "f").await.unwrap());
    c.chmod(f, 0o644).await;
    assert_eq!(errno(to_home(top, "no").await), Errno::EPERM, "a device");
    c.unlink(sub, "d").await.unwrap();
    let d0 = c.find(sub, "d0").await.unwrap();
    c.chmod(d0, 0o711).await;
    assert_eq!(errno(to_home(top, "no").await), Errno::EACCES, "a directory that is not listed");
    c.chmod(d0, 0o755).await;
    c.chmod(top, 0o700).await;
    assert_eq!(errno(to_home(f, "no").await), Errno::EACCES, "by its number alone");
    // Nor are those counted who are in what the caller may not list, or cannot put there.
    let counted = Arc::<CloneProgress>::default();
    for (mode, dir) in [(0o711, home), (0o755, top)] {
        c.chmod(top, mode).await;
        let made = c.meta.clone_tree(&alice, top, dir, b"no", &PLAIN, &counted).await;
        assert_eq!(errno(made), Errno::EACCES);
        assert_eq!(counted.total.load(Ordering::Relaxed), 0);
    }
    assert_eq!(errno(clone_as(&c, &alice, f, (top, "no"), &PLAIN).await), Errno::EACCES);
    assert_eq!(errno(to_home(Ino(999_999), "no").await), Errno::ENOENT);
    to_home(top, "yes").await.unwrap();
    assert_eq!(errno(to_home(top, "yes").await), Errno::EEXIST);
    assert_eq!(errno(to_home(f, "yes").await), Errno::EEXIST);
    assert_eq!(errno(clone_as(&c, &root(), f, (f, "no"), &PLAIN).await), Errno::ENOTDIR);
    assert_eq!(errno(clone_as(&c, &root(), Ino::TRASH, (ROOT, "no"), &PLAIN).await), Errno::EPERM);
    assert_eq!(errno(clone_as(&c, &root(), f, (Ino::TRASH, "no"), &PLAIN).await), Errno::EPERM);
    assert_eq!(errno(clone_as(&c, &root(), f, (ROOT, ".trash"), &PLAIN).await), Errno::EPERM);
    assert_eq!(c.ls(home).await, ["yes"]);
    nothing_is_detached(&w).await;
    w.check().await;
    // No room: neither below a quota, which is told at once, nor for the owner, nor in the volume.
    let small = c.dir(ROOT, "small").await;
    c.meta.set_quota(QuotaKey::Dir(small), None, Some(20)).await.unwrap();
    c.meta.reload_quotas().await.unwrap();
    let into = async |name| clone_as(&c, &root(), top, (small, name), &PRESERVE).await;
    let turns = c.meta.counters().commits;
    assert_eq!(errno(into("no").await), Errno::EDQUOT);
    assert_eq!(c.meta.counters().commits, turns, "nothing was begun");
    c.meta.set_quota(QuotaKey::Dir(small), None, Some(200)).await.unwrap();
    c.meta.reload_quotas().await.unwrap();
    into("yes").await.unwrap();
    c.meta.set_quota(QuotaKey::User(9), None, Some(2)).await.unwrap();
    c.meta.reload_quotas().await.unwrap();
    assert_eq!(errno(cloned(&c, top, "no").await), Errno::EDQUOT);
    assert_eq!(c.ls(small).await, ["yes"]);
    nothing_is_detached(&w).await;
    w.check().await;
}

/// Removes a tree for good.
async fn remove(c: &Client, name: &str) {
    let dir = c.find(ROOT, name).await.unwrap();
    let end = ciderfs_rt::Instant::now() + std::time::Duration::from_secs(60);
    c.meta.empty_dir(dir, end, true).await.unwrap();
    c.rmdir(ROOT, name).await.unwrap();
}

/// A reader sees nothing of a clone, or all of it, whenever it looks.
pub async fn clones_appear_whole(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (top, _) = tree(&c, "t").await;
    let want = shape(&c, top, true).await;
    let (between, builder) = w.client_behind(1).await;
    let mut looks = 0;
    for call in 0.. {
        let (looker, want) = (c.clone(), want.clone());
        between.at(When::Call(call), async move {
            match looker.find(ROOT, "u").await {
                Ok(made) => assert_eq!(shape(&looker, made, true).await, want),
                Err(e) => assert_eq!(e.errno(), Errno::ENOENT),
            }
        });
        cloned(&builder, top, "u").await.unwrap();
        if between.give_up().await {
            break;
        }
        looks += 1;
        remove(&c, "u").await;
    }
    assert!(looks > 5, "{looks}");
    c.meta.drain_deletions().await;
    nothing_is_detached(&w).await;
    w.check().await;
}

/// Replies and requests are lost: each node is there once, and so is each reference.
pub async fn clones_with_lost_replies(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (top, _) = tree(&c, "t").await;
    let want = shape(&c, top, true).await;
    let f = c.find(top, "f").await.unwrap();
    for seed in 0..4 {
        let (between, builder) = w.client_behind(seed).await;
        between.set_faults(150);
        let made = cloned(&builder, top, "u").await.unwrap();
        clone_as(&builder, &root(), f, (ROOT, "v"), &PRESERVE).await.unwrap();
        between.set_faults(0);
        between.give_up().await;
        assert_eq!(shape(&c, made, true).await, want);
        remove(&c, "u").await;
        c.unlink(ROOT, "v").await.unwrap();
        c.meta.drain_deletions().await;
        nothing_is_detached(&w).await;
        w.check().await;
    }
    assert_eq!(w.recorder.take(), []);
}

/// Somebody changes the source meanwhile: each file is as it was at one moment, and everything is counted.
pub async fn clones_of_what_changes(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (between, builder) = w.client_behind(2).await;
    let mut changed = 0;
    for call in 0.. {
        let (top, _) = tree(&c, "t").await;
        let other = c.clone();
        between.at(When::Call(call), async move {
            let (f, sub) = (other.find(top, "f").await.unwrap(), other.find(top, "sub").await.unwrap());
            // The file is written to, cut, written to again, and goes; others move.
            other.put(f, 0, 0, 6000).await;
            other.truncate(f, 50).await.unwrap();
            other.put(f, 0, 0, 9000).await;
            other.unlink(top, "f").await.unwrap();
            let d0 = other.find(sub, "d0").await.unwrap();
            for n in 0..20 {
                other.unlink(d0, &format!("file{n}")).await.unwrap();
            }
            other.rename((d0, "file20"), (sub, "moved")).await.unwrap();
            other.rename((sub, "d1"), (top, "d1")).await.unwrap();
            other.dir(sub, "new").await;
            other.meta.drain_deletions().await;
        });
        let made = cloned(&builder, top, "u").await.unwrap();
        if between.give_up().await {
            break;
        }
        changed += 1;
        // The file was the old one, the new one, or gone.
        if let Ok(f) = c.find(made, "f").await {
            let length = c.stat(f).await.length;
            let old = 3 * ciderfs_format::CHUNK_SIZE + 7;
            assert!([old, old.max(9000), 50, 9000].contains(&length), "{length}");
        }
        remove(&c, "t").await;
        c.meta.drain_deletions().await;
        w.check().await;
        remove(&c, "u").await;
        c.meta.drain_deletions().await;
        w.recorder.take();
    }
    assert!(changed > 5, "{changed}");
    nothing_is_detached(&w).await;
}

/// Somebody compacts the source meanwhile, which no attribute tells: a copy has the old lists or the new ones, and what it has
/// stays when the source goes.
pub async fn clones_of_what_is_compacted(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (between, builder) = w.client_behind(6).await;
    let (mut old_ones, mut new_ones) = (0, 0);
    for call in 0.. {
        let (top, _) = tree(&c, "t").await;
        let d0 = c.find(c.find(top, "sub").await.unwrap(), "d0").await.unwrap();
        // A file of several names, and one that shares its commit with others.
        let mut lists = Vec::new();
        for (name, ino) in [("f", c.find(top, "f").await), ("file3", c.find(d0, "file3").await)] {
            let ino = ino.unwrap();
            c.put(ino, 0, 50, 20).await;
            let old = c.meta.read_raw_chunk(ino, 0).await.unwrap();
            lists.push((name, ino, old, c.fresh(0, c.stat(ino).await.length.min(5000) as u32).await));
        }
        let (other, compacted) = (c.clone(), lists.clone());
        between.at(When::Call(call), async move {
            for (_, ino, old, new) in compacted {
                let before = other.stat(ino).await;
                assert!(other.meta.commit_compaction(ino, 0, &old, 0, new).await.unwrap());
                assert_eq!(other.stat(ino).await, before);
            }
            other.meta.drain_deletions().await;
        });
        let made = cloned(&builder, top, "u").await.unwrap();
        let in_time = !between.give_up().await;
        let copied = c.find(c.find(made, "sub").await.unwrap(), "d0").await.unwrap();
        let copies = [c.find(made, "f").await.unwrap(), c.find(copied, "file3").await.unwrap()];
        let mut removed = w.recorder.take();
        w.check().await;
        remove(&c, "t").await;
        c.meta.drain_deletions().await;
        w.check().await;
        removed.extend(w.recorder.take());
        for ((name, _, old, new), copy) in lists.iter().zip(copies) {
            let list = c.meta.read_raw_chunk(copy, 0).await.unwrap();
            assert!(list == *old || list == [*new], "{name}: {list:?}");
            (old_ones, new_ones) =
                (old_ones + usize::from(list == *old), new_ones + usize::from(list == [*new]));
            let lost: Vec<_> = list.iter().filter(|s| removed.contains(&(s.id, s.size))).collect();
            assert!(lost.is_empty(), "{name} has lost {lost:?}");
            if in_time {
                let gone = if list == *old { std::slice::from_ref(new) } else { &old[..] };
                assert!(gone.iter().all(|s| removed.contains(&(s.id, s.size))), "{name}: {gone:?} is left");
            }
        }
        remove(&c, "u").await;
        c.meta.drain_deletions().await;
        w.check().await;
        w.recorder.take();
        if !in_time {
            break;
        }
    }
    assert!(old_ones > 3 && new_ones > 3, "{old_ones} {new_ones}");
    nothing_is_detached(&w).await;
}

/// Builds a clone and dies at a call. False: it was not called that often.
fn killed_at(w: &World, call: usize, from: Ino) -> bool {
    std::thread::scope(|s| {
        let killed = s.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let killed = runtime.block_on(async {
                let (between, builder) = w.client_behind(3).await;
                let (tell, told) = tokio::sync::oneshot::channel();
                between.at(When::Call(call), async move {
                    tell.send(()).unwrap();
                    std::future::pending::<()>().await;
                });
                tokio::select! {
                    biased;
                    _ = told => true,
                    made = cloned(&builder, from, "u") => { made.unwrap(); false }
                }
            });
            // What it would do at its end is not done.
            runtime.shutdown_background();
            killed
        });
        killed.join().unwrap()
    })
}

/// A clone whose client was killed is not seen, and is removed after a day.
pub async fn clones_killed(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (top, _) = tree(&c, "t").await;
    let f = c.find(top, "f").await.unwrap();
    let flags =
        crate::SetAttr { flags: Some(ciderfs_format::attr::flags::IMMUTABLE), ..crate::SetAttr::default() };
    let sub = c.find(top, "sub").await.unwrap();
    for protected in [f, sub] {
        c.meta.setattr(&root(), protected, &flags).await.unwrap();
    }
    let mut left = 0;
    for call in 0.. {
        let killed = killed_at(&w, call, top);
        // The last call but one may have given the name.
        if c.find(ROOT, "u").await.is_ok() {
            nothing_is_detached(&w).await;
            remove(&c, "u").await;
        }
        left += w.store.scan(&Scan::Detached(i64::MAX >> 1), 10).await.unwrap().len();
        w.clock.advance(23 * 3600);
        c.meta.run_hourly_jobs().await.unwrap();
        w.clock.advance(2 * 3600);
        c.meta.run_hourly_jobs().await.unwrap();
        nothing_is_detached(&w).await;
        if !killed {
            break;
        }
    }
    w.check().await;
    assert!(left > 3, "{left}");
    assert_eq!(w.recorder.take(), []);
}

/// A clone that takes long is marked again, until somebody takes it for abandoned.
pub async fn clones_that_take_long(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (top, _) = tree(&c, "t").await;
    let want = shape(&c, top, true).await;
    // More than the time between two marks passes, at each call.
    let (between, builder) = w.client_behind(5).await;
    for call in 0.. {
        let clock = Arc::clone(&w.clock);
        between.at(When::Call(call), async move { clock.advance(400) });
        let made = cloned(&builder, top, "u").await.unwrap();
        if between.give_up().await {
            break;
        }
        assert_eq!(shape(&c, made, true).await, want);
        remove(&c, "u").await;
    }
    remove(&c, "u").await;
    nothing_is_detached(&w).await;
    let marked_before = async |at: i64| w.store.scan(&Scan::Detached(at), 10).await.unwrap();
    let mut unfinished = Vec::new();
    for call in 0.. {
        assert!(killed_at(&w, call, top), "no tree was begun");
        unfinished = marked_before(i64::MAX >> 1).await;
        if !unfinished.is_empty() {
            break;
        }
    }
    let [Scanned::Ino(made)] = unfinished[..] else { panic!("{unfinished:?}") };
    w.clock.advance(400);
    let before = c.meta.clock.now().sec;
    assert_eq!(marked_before(before).await, [Scanned::Ino(made)]);
    w.clock.advance(400);
    c.meta.mark_detached(made).await.unwrap();
    assert_eq!(marked_before(before).await, [], "it was marked again");
    assert_eq!(marked_before(i64::MAX >> 1).await, [Scanned::Ino(made)]);
    assert!(c.meta.disown(made, |parent| parent.0 == 0).await.unwrap());
    assert_eq!(errno(c.meta.mark_detached(made).await), Errno::ENOENT);
    w.clock.advance(25 * 3600);
    c.meta.run_hourly_jobs().await.unwrap();
    nothing_is_detached(&w).await;
    w.check().await;
}

/// Somebody takes a clone for abandoned while it is built: it is refused, and all of it goes. One that is dropped goes at once.
pub async fn clones_abandoned(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let (top, _) = tree(&c, "t").await;
    let mut refused = 0;
    let (between, builder) = w.client_behind(4).await;
    for call in 0.. {
        let other = c.clone();
        between.at(When::Call(call), async move { other.meta.clean_detached(i64::MAX >> 2).await.unwrap() });
        let made = cloned(&builder, top, "u").await;
        if between.give_up().await {
            break;
        }
        match made {
            Ok(_) => remove(&c, "u").await,
            Err(e) => {
                assert_eq!(e.errno(), Errno::ENOENT);
                refused += 1;
            }
        }
        c.meta.clean_detached(i64::MAX >> 2).await.unwrap();
        nothing_is_detached(&w).await;
    }
    w.check().await;
    assert!(refused > 3, "{refused}");
    remove(&c, "u").await;
    for call in [3, 6, 9] {
        stopped_at(&between, &builder, call, top).await;
        until("the end of what was dropped", async || {
            w.store.scan(&Scan::Detached(i64::MAX >> 1), 10).await.unwrap().is_empty()
        })
        .await;
    }
    w.check().await;
    assert_eq!(w.recorder.take(), []);
}

/// A clone whose future is dropped at a call.
async fn stopped_at(between: &Arc<Flaky>, builder: &Client, call: usize, from: Ino) {
    let (tell, told) = tokio::sync::oneshot::channel();
    between.at(When::Call(call), async move { tell.send(()).unwrap() });
    tokio::select! {
        biased;
        _ = told => {}
        _ = cloned(builder, from, "u") => panic!("it was to be stopped"),
    }
}

/// What the official client leaves: the parent is noted from the beginning, and the tree may be there in spite of its mark.
pub async fn clones_of_others(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let home = c.dir(ROOT, "home").await;
    c.meta.set_quota(QuotaKey::Dir(home), None, Some(1000)).await.unwrap();
    let (top, _) = tree(&c, "t").await;
    clone_as(&c, &root(), top, (home, "there"), &PRESERVE).await.unwrap();
    let there = c.find(home, "there").await.unwrap();
    let attr = Attr { parent: home, ..c.stat(there).await };
    let made =
        c.meta.create(&Caller::root(), ROOT, b"loose", &node(FileType::Directory, 0o755)).await.unwrap();
    let file = NewNode { kind: FileType::File, mode: 0o644, umask: 0, rdev: 0, target: b"" };
    let (f, _) = c.meta.create(&Caller::root(), made.0, b"f", &file).await.unwrap();
    let slice = c.put(f, 0, 0, 100).await;
    // As the official client leaves it when it dies.
    let writes = vec![
        Write::PutAttr(made.0, Attr { parent: home, ..made.1 }),
        Write::DelEdge(ROOT, b"loose".to_vec()),
        Write::PatchAttr(ROOT, crate::store::AttrPatch { nlink: -1, ..Default::default() }),
        Write::AddDirStat(ROOT, crate::store::DirStat { length: 0, space: -4096, inodes: -1 }),
        Write::PutAttr(there, attr),
        Write::PutDetached(made.0, 1),
        Write::PutDetached(there, 1),
        Write::PutDetached(Ino(123_456), 1),
    ];
    let commit = crate::store::Commit { guards: Vec::new(), writes };
    w.store.commit(&commit).await.unwrap();
    let d = w.client().await;
    d.meta.run_hourly_jobs().await.unwrap();
    nothing_is_detached(&w).await;
    assert!(d.gone(made.0).await && d.gone(f).await);
    assert_eq!(d.find(home, "there").await.unwrap(), there);
    assert_eq!(w.recorder.take(), [(slice.id, slice.size)]);
    w.check().await;
    let [Value::Attr(Some(_))] = &w.store.read(&[Read::Attr(there)]).await.unwrap()[..] else { panic!() };
}
