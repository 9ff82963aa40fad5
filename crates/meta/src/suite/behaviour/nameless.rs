//! Files without a name, and their first name.

use ciderfs_format::FileType;

use crate::error::Errno;
use crate::store::{Counter, Read, Scan, Value};
use crate::suite::Engine;
use crate::suite::world::*;

async fn inodes(w: &World) -> Value {
    w.store.read(&[Read::Counter(Counter::TotalInodes)]).await.unwrap().remove(0)
}

/// A nameless file goes with its last close, and with its session.
pub async fn nameless(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.mounted().await;
    let d = c.dir(ROOT, "d").await;
    c.chmod(d, 0o777).await;
    let before = c.stat(d).await;
    let (f, attr) = c.meta.create_nameless(&user(5, 6), d, 0o640, 0o022).await.unwrap();
    assert_eq!((attr.nlink, attr.mode, attr.uid, attr.gid), (0, 0o640, 5, 6));
    assert_eq!(attr, c.stat(f).await);
    assert_eq!(c.stat(d).await, before, "nothing happened to the directory");
    assert_eq!(c.ls(d).await, Vec::<String>::new());
    assert_eq!(inodes(&w).await, Value::Int(2));
    let slice = c.put(f, 0, 0, 10_000).await;
    w.check().await;
    c.meta.close(f).await.unwrap();
    assert!(c.gone(f).await);
    c.meta.drain_deletions().await;
    assert_eq!(w.recorder.take(), [(slice.id, 10_000)]);
    assert_eq!(inodes(&w).await, Value::Int(1));
    w.check().await;
    // The client dies.
    let (g, _) = c.meta.create_nameless(&root(), ROOT, 0o600, 0).await.unwrap();
    let slice = c.put(g, 0, 0, 100).await;
    c.meta.close_session().await.unwrap();
    assert!(c.gone(g).await);
    assert_eq!(w.recorder.take(), [(slice.id, 100)]);
    w.check().await;
    // Who may not: no session, no directory, no permission.
    let late = w.client().await;
    let refused = async |c: &Client, who, dir| errno(c.meta.create_nameless(&who, dir, 0o600, 0).await);
    assert_eq!(refused(&late, root(), ROOT).await, Errno::EOPNOTSUPP);
    let c = w.mounted().await;
    let h = c.file(ROOT, "h").await;
    assert_eq!(refused(&c, root(), h).await, Errno::ENOTDIR);
    c.chmod(d, 0o755).await;
    assert_eq!(refused(&c, user(5, 6), d).await, Errno::EACCES);
    c.rmdir(ROOT, "d").await.unwrap();
    assert_eq!(refused(&c, root(), d).await, Errno::ENOENT);
    c.meta.close_session().await.unwrap();
    w.check().await;
}

/// A nameless file gets a name while it is open, and is a file like any other then.
pub async fn nameless_linked(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.mounted().await;
    let (d, e) = (c.dir(ROOT, "d").await, c.dir(ROOT, "e").await);
    let (f, _) = c.meta.create_nameless(&root(), d, 0o600, 0).await.unwrap();
    c.put(f, 0, 0, 10_000).await;
    let other = w.mounted().await;
    assert_eq!(errno(other.link(f, e, "x").await), Errno::ENOENT, "it is not theirs");
    let a = c.link(f, e, "x").await.unwrap();
    assert_eq!((a.nlink, a.parent, a.clone()), (1, e, c.stat(f).await));
    assert_eq!(w.store.scan(&Scan::Sustained(c.meta.sid()), 10).await.unwrap(), []);
    w.check().await;
    c.link(f, d, "y").await.unwrap();
    w.check().await;
    c.unlink(e, "x").await.unwrap();
    c.meta.close(f).await.unwrap();
    assert_eq!((c.nlink(f).await, c.find(d, "y").await.unwrap()), (1, f));
    w.check().await;
    c.unlink(d, "y").await.unwrap();
    assert!(c.gone(f).await);
    w.check().await;
    // Named and removed again while it is open: it stays open, and gets no second first name.
    let (g, _) = c.meta.create_nameless(&root(), d, 0o600, 0).await.unwrap();
    c.link(g, d, "g").await.unwrap();
    assert!(c.unlink(d, "g").await.unwrap().last);
    assert_eq!(c.nlink(g).await, 0);
    assert_eq!(errno(c.link(g, d, "g").await), Errno::ENOENT);
    w.check().await;
    c.meta.close(g).await.unwrap();
    assert!(c.gone(g).await);
    // A name that is taken; then its session ends, and the file that got a name stays.
    let (h, _) = c.meta.create_nameless(&root(), d, 0o600, 0).await.unwrap();
    c.make(d, "taken", FileType::Fifo).await.unwrap();
    assert_eq!(errno(c.link(h, d, "taken").await), Errno::EEXIST);
    c.link(h, d, "h").await.unwrap();
    c.meta.close_session().await.unwrap();
    assert_eq!(other.find(d, "h").await.unwrap(), h);
    other.meta.close_session().await.unwrap();
    w.check().await;
}
