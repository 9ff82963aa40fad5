//! The trash: moving in, taking out, expiry.

use ciderfs_format::attr::flags;
use ciderfs_format::{FileType, Ino};

use crate::error::Errno;
use crate::suite::Engine;
use crate::suite::world::*;
use crate::{OpenFlags, SetAttr};

/// The hourly directories.
async fn hours(c: &Client) -> Vec<Ino> {
    let mut out = Vec::new();
    for name in c.ls(Ino::TRASH).await {
        out.push(c.find(Ino::TRASH, &name).await.unwrap());
    }
    out
}

/// What is removed lies in the trash, unchanged but for its place.
pub async fn trash_keeps(engine: Engine) {
    let w = World::with_trash(engine).await;
    let (c, other) = (w.client().await, w.client().await);
    let d = c.dir(ROOT, "d").await;
    let f = c.file(d, "f").await;
    let slice = c.put(f, 0, 0, 5000).await;
    let before = c.stat(f).await;
    let used = c.meta.statfs().await.unwrap();
    let removed = c.unlink(d, "f").await.unwrap();
    assert_eq!((removed.ino, removed.last), (f, false));
    let hour = hours(&c).await[0];
    assert_eq!(c.ls(hour).await, [format!("{d}-{f}-f")]);
    let a = c.stat(f).await;
    assert_eq!((a.parent, a.nlink, a.length, a.mtime), (hour, 1, 5000, before.mtime));
    assert!(a.ctime > before.ctime);
    // One more inode: the hour.
    assert_eq!(c.meta.statfs().await.unwrap().used_inodes, used.used_inodes + 1);
    w.check().await;
    // Another client uses the same hour.
    other.rmdir(ROOT, "d").await.unwrap();
    assert_eq!(hours(&other).await, [hour]);
    assert_eq!(errno(other.make(d, "x", FileType::File).await), Errno::ENOENT);
    w.check().await;
    c.meta.drain_deletions().await;
    assert_eq!(w.recorder.take(), []);
    assert_eq!(c.meta.read_raw_chunk(f, 0).await.unwrap(), [slice]);
    // The next hour has its own.
    w.clock.advance(3600);
    c.file(ROOT, "g").await;
    c.unlink(ROOT, "g").await.unwrap();
    assert_eq!(hours(&c).await.len(), 2);
    w.check().await;
}

/// Victims of renames go there too.
pub async fn trash_takes_replaced(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let (f, g) = (c.file(ROOT, "f").await, c.file(ROOT, "g").await);
    let (d, e) = (c.dir(ROOT, "d").await, c.dir(ROOT, "e").await);
    let removed = c.rename((ROOT, "f"), (ROOT, "g")).await.unwrap().unwrap();
    assert_eq!((removed.ino, removed.last), (g, false));
    c.rename((ROOT, "d"), (ROOT, "e")).await.unwrap();
    let hour = hours(&c).await[0];
    let mut want = vec![format!("1-{g}-g"), format!("1-{e}-e")];
    want.sort();
    assert_eq!(c.ls(hour).await, want);
    assert_eq!((c.find(ROOT, "g").await.unwrap(), c.find(ROOT, "e").await.unwrap()), (f, d));
    w.check().await;
}

/// Hard links in the trash.
pub async fn trash_and_hard_links(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.link(f, ROOT, "g").await.unwrap();
    c.unlink(ROOT, "f").await.unwrap();
    assert_eq!(c.nlink(f).await, 2, "the trash holds a link");
    w.check().await;
    // The same name again within the hour: the twin is not kept.
    c.link(f, ROOT, "f").await.unwrap();
    assert_eq!(c.nlink(f).await, 3);
    c.unlink(ROOT, "f").await.unwrap();
    assert_eq!(c.nlink(f).await, 2);
    w.check().await;
    c.unlink(ROOT, "g").await.unwrap();
    let hour = hours(&c).await[0];
    assert_eq!(c.ls(hour).await.len(), 2);
    w.check().await;
    for name in c.ls(hour).await {
        c.unlink(hour, &name).await.unwrap();
    }
    assert!(c.gone(f).await);
    w.check().await;
    // Linked out of the trash, a file is an ordinary one again.
    let h = c.file(ROOT, "h").await;
    c.unlink(ROOT, "h").await.unwrap();
    c.link(h, ROOT, "saved").await.unwrap();
    assert_eq!((c.nlink(h).await, c.stat(h).await.parent), (2, Ino(0)));
    w.check().await;
}

/// What may be done in the trash and with what lies there.
pub async fn trash_restrictions(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.chown(f, 1, 1).await;
    c.unlink(ROOT, "f").await.unwrap();
    let hour = hours(&c).await[0];
    let hour_name = c.ls(Ino::TRASH).await[0].clone();
    let name = c.ls(hour).await[0].clone();
    assert_eq!(c.find(hour, &name).await.unwrap(), f);
    let m = &c.meta;
    let open = OpenFlags { write: true, ..OpenFlags::default() };
    assert_eq!(errno(m.open(&root(), f, open).await), Errno::EPERM);
    m.open(&root(), f, OpenFlags { read: true, ..OpenFlags::default() }).await.unwrap();
    m.close(f).await.unwrap();
    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    assert_eq!(errno(m.setattr(&root(), f, &set).await), Errno::EPERM);
    assert_eq!(errno(m.truncate(&root(), f, 5, false).await), Errno::EPERM);
    assert_eq!(errno(m.unlink(&user(1, 1), hour, name.as_bytes()).await), Errno::EPERM);
    assert_eq!(errno(m.rename(&user(1, 1), hour, name.as_bytes(), ROOT, b"f", 0).await), Errno::EPERM);
    assert_eq!(errno(c.make(hour, "x", FileType::File).await), Errno::EPERM);
    assert_eq!(errno(c.rmdir(Ino::TRASH, &hour_name).await), Errno::EPERM);
    assert_eq!(errno(c.rename((Ino::TRASH, &hour_name), (ROOT, "hour")).await), Errno::EPERM);
    c.file(ROOT, "g").await;
    assert_eq!(errno(c.rename((ROOT, "g"), (hour, "g")).await), Errno::EPERM);
    // The superuser takes it out.
    c.rename((hour, &name), (ROOT, "f")).await.unwrap();
    assert_eq!((c.find(ROOT, "f").await.unwrap(), c.stat(f).await.parent), (f, ROOT));
    c.meta.setattr(&root(), f, &set).await.unwrap();
    w.check().await;
    // A directory too.
    let d = c.dir(ROOT, "d").await;
    c.rmdir(ROOT, "d").await.unwrap();
    w.check().await;
    c.rename((hour, &format!("1-{d}-d")), (ROOT, "d")).await.unwrap();
    c.file(d, "inside").await;
    w.check().await;
}

/// Who holds a node since before it was removed, by whomever, changes it as before; others do not, nor those who came through
/// the trash.
pub async fn trash_and_those_who_hold(engine: Engine) {
    let w = World::with_trash(engine).await;
    let (c, other) = (w.client().await, w.client().await);
    let (read, write) =
        (OpenFlags { read: true, ..OpenFlags::default() }, OpenFlags { write: true, ..OpenFlags::default() });
    let set = SetAttr { mode: Some(0o700), ..SetAttr::default() };
    let (f, d) = (c.file(ROOT, "f").await, c.dir(ROOT, "d").await);
    c.meta.open(&root(), f, read).await.unwrap();
    let held = c.meta.hold_dir(d).await.unwrap();
    assert!(held.is_some());
    other.unlink(ROOT, "f").await.unwrap();
    other.rmdir(ROOT, "d").await.unwrap();
    let hour = hours(&c).await[0];
    for client in [&c, &other] {
        // Both come through the trash now.
        for name in client.ls(hour).await {
            client.find(hour, &name).await.unwrap();
        }
    }
    c.meta.setattr(&root(), f, &set).await.unwrap();
    c.meta.setattr(&root(), d, &set).await.unwrap();
    c.meta.truncate(&root(), f, 5, false).await.unwrap();
    c.meta.open(&root(), f, write).await.unwrap();
    c.meta.close(f).await.unwrap();
    assert_eq!((c.stat(f).await.mode, c.stat(d).await.mode, c.stat(f).await.length), (0o700, 0o700, 5));
    other.meta.open(&root(), f, read).await.unwrap();
    assert!(other.meta.hold_dir(d).await.unwrap().is_none());
    for ino in [f, d] {
        assert_eq!(errno(other.meta.setattr(&root(), ino, &set).await), Errno::EPERM);
    }
    assert_eq!(errno(other.meta.open(&root(), f, write).await), Errno::EPERM);
    assert_eq!(errno(other.meta.truncate(&root(), f, 0, false).await), Errno::EPERM);
    other.meta.close(f).await.unwrap();
    // Who opens it again before that holds it too.
    let again = c.meta.hold_dir(d).await.unwrap();
    drop(held);
    c.meta.setattr(&root(), d, &set).await.unwrap();
    // Nobody holds them any more.
    c.meta.close(f).await.unwrap();
    drop(again);
    for ino in [f, d] {
        assert_eq!(errno(c.meta.setattr(&root(), ino, &set).await), Errno::EPERM);
    }
    w.check().await;
    // A node removed here is its holder's until somebody finds it in the trash: not every descriptor is known.
    let g = c.dir(ROOT, "g").await;
    c.rmdir(ROOT, "g").await.unwrap();
    c.meta.setattr(&root(), g, &set).await.unwrap();
    c.find(hour, &format!("1-{g}-g")).await.unwrap();
    assert_eq!(errno(c.meta.setattr(&root(), g, &set).await), Errno::EPERM);
    // A file with several names, opened for reading, for which nobody asks where they are: the way to it tells.
    let h = c.file(ROOT, "h").await;
    c.link(h, ROOT, "h2").await.unwrap();
    c.meta.open(&root(), h, read).await.unwrap();
    other.unlink(ROOT, "h").await.unwrap();
    other.unlink(ROOT, "h2").await.unwrap();
    for client in [&c, &other] {
        client.find(hour, &format!("1-{h}-h")).await.unwrap();
    }
    other.meta.open(&root(), h, read).await.unwrap();
    c.meta.setattr(&root(), h, &set).await.unwrap();
    assert_eq!(errno(other.meta.setattr(&root(), h, &set).await), Errno::EPERM);
    other.meta.close(h).await.unwrap();
    c.meta.close(h).await.unwrap();
    w.check().await;
}

/// Long names are cut in the trash; a flag bypasses it; names may collide.
pub async fn trash_names_and_bypass(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let long = "n".repeat(255);
    let f = c.file(ROOT, &long).await;
    c.unlink(ROOT, &long).await.unwrap();
    let hour = hours(&c).await[0];
    let want = format!("1-{f}-{long}");
    assert_eq!(c.ls(hour).await, [want[..255].to_owned()]);
    let d = c.dir(ROOT, "d").await;
    let set = SetAttr { flags: Some(flags::SKIP_TRASH), ..SetAttr::default() };
    c.meta.setattr(&root(), d, &set).await.unwrap();
    let (g, s) = (c.file(d, "g").await, c.dir(d, "s").await);
    let t = c.file(s, "t").await;
    assert_eq!(c.stat(t).await.flags, flags::SKIP_TRASH, "inherited");
    assert!(c.unlink(d, "g").await.unwrap().last);
    assert!(c.unlink(s, "t").await.unwrap().last);
    assert!(c.rmdir(d, "s").await.unwrap().last);
    for ino in [g, s, t] {
        assert!(c.gone(ino).await);
    }
    assert_eq!(c.ls(hour).await.len(), 1);
    w.check().await;
}

/// Old hours are emptied and removed, young ones stay.
pub async fn trash_expires(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let mut slices = Vec::new();
    for i in 0..5 {
        let name = format!("f{i}");
        let f = c.file(ROOT, &name).await;
        slices.push((c.put(f, 0, 0, 100 + i).await.id, 100 + i));
        c.unlink(ROOT, &name).await.unwrap();
    }
    c.dir(ROOT, "d").await;
    c.rmdir(ROOT, "d").await.unwrap();
    w.clock.advance(30 * 3600);
    c.file(ROOT, "young").await;
    c.unlink(ROOT, "young").await.unwrap();
    assert_eq!(hours(&c).await.len(), 2);
    c.meta.run_hourly_jobs().await.unwrap();
    assert_eq!(hours(&c).await.len(), 1);
    assert_eq!(w.recorder.take(), slices);
    w.check().await;
    // Not claimed again within the hour.
    w.clock.advance(100);
    c.meta.run_hourly_jobs().await.unwrap();
    w.check().await;
}

/// Many clients fill a new hour at once: one directory.
pub async fn trash_contended(engine: Engine) {
    let w = World::with_trash(engine).await;
    let mut tasks = Vec::new();
    for t in 0..4 {
        let c = w.client().await;
        tasks.push(tokio::spawn(async move {
            for i in 0..5 {
                let name = format!("{t}-{i}");
                c.file(ROOT, &name).await;
                c.unlink(ROOT, &name).await.unwrap();
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
    let c = w.client().await;
    let hours = hours(&c).await;
    assert_eq!(hours.len(), 1);
    assert_eq!(c.ls(hours[0]).await.len(), 20);
    w.check().await;
}
