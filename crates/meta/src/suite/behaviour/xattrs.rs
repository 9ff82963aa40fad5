//! Extended attributes.

use std::time::Duration;

use bytes::Bytes;
use ciderfs_format::attr::flags;
use ciderfs_format::{FileType, Ino};

use crate::error::Errno;
use crate::store::{DirCursor, Read, Value, Write};
use crate::suite::Engine;
use crate::suite::world::*;
use crate::types::{Caller, XattrSet};
use crate::{MetaConfig, OpenFlags, Result, SetAttr, XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTRS_MAX};

const ANY: XattrSet = XattrSet { create: false, replace: false, clear_setgid: false };
const CREATE: XattrSet = XattrSet { create: true, ..ANY };
const REPLACE: XattrSet = XattrSet { replace: true, ..ANY };
const BOTH: XattrSet = XattrSet { create: true, replace: true, ..ANY };

impl Client {
    async fn put_xattr(&self, who: &Caller, ino: Ino, name: &str, value: &str, set: XattrSet) -> Result<()> {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.meta.set_xattr(who, ino, name.as_bytes(), value, set).await.map(|_| ())
    }

    async fn xattr(&self, ino: Ino, name: &str) -> Result<String> {
        let value = self.meta.get_xattr(&root(), ino, name.as_bytes()).await?;
        Ok(String::from_utf8_lossy(&value).into_owned())
    }

    async fn xattrs(&self, who: &Caller, ino: Ino) -> Vec<String> {
        let names = self.meta.list_xattrs(who, ino).await.unwrap();
        names.iter().map(|n| String::from_utf8_lossy(n).into_owned()).collect()
    }

    async fn drop_xattr(&self, ino: Ino, name: &str) -> Result<()> {
        self.meta.remove_xattr(&root(), ino, name.as_bytes()).await
    }

    /// Turns that something takes.
    pub(super) async fn turns<T>(&self, work: impl Future<Output = T>) -> u64 {
        let before = self.meta.counters().turns;
        work.await;
        self.meta.counters().turns - before
    }
}

/// Setting, reading, listing and removing; each change advances ctime in the same commit.
pub async fn xattr_values(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let other = w.client().await;
    let f = c.file(ROOT, "f").await;
    assert_eq!(c.xattrs(&root(), f).await, [""; 0]);
    assert_eq!(errno(c.xattr(f, "user.a").await), Errno::ENODATA);
    for (name, value) in [("user.b", "2"), ("user.a", ""), ("trusted.t", "x"), ("security.ima", "y")] {
        let before = c.stat(f).await;
        c.put_xattr(&root(), f, name, value, ANY).await.unwrap();
        let after = other.stat(f).await;
        assert!(after.ctime > before.ctime && after.mtime == before.mtime, "{name}");
        assert_eq!(other.xattr(f, name).await.unwrap(), value);
    }
    assert_eq!(other.xattrs(&root(), f).await, ["security.ima", "trusted.t", "user.a", "user.b"]);
    assert_eq!(other.xattrs(&user(1, 1), f).await, ["security.ima", "user.a", "user.b"]);
    other.put_xattr(&root(), f, "user.a", "new", ANY).await.unwrap();
    assert_eq!(c.xattr(f, "user.a").await.unwrap(), "new");
    let before = c.stat(f).await;
    c.drop_xattr(f, "user.a").await.unwrap();
    assert!(c.stat(f).await.ctime > before.ctime);
    assert_eq!(errno(other.xattr(f, "user.a").await), Errno::ENODATA);
    assert_eq!(errno(c.drop_xattr(f, "user.a").await), Errno::ENODATA);
    assert_eq!(errno(other.drop_xattr(f, "user.a").await), Errno::ENODATA);
    // Long names and values, and names that are no text.
    let long = format!("user.{}", "n".repeat(XATTR_NAME_MAX - 5));
    c.put_xattr(&root(), f, &long, &"v".repeat(XATTR_VALUE_MAX), ANY).await.unwrap();
    assert_eq!(c.xattr(f, &long).await.unwrap().len(), XATTR_VALUE_MAX);
    let long = format!("{long}n");
    assert_eq!(errno(c.put_xattr(&root(), f, &long, "", ANY).await), Errno::ERANGE);
    assert_eq!(errno(c.xattr(f, &long).await), Errno::ERANGE);
    let big = "v".repeat(XATTR_VALUE_MAX + 1);
    assert_eq!(errno(c.put_xattr(&root(), f, "user.big", &big, ANY).await), Errno::E2BIG);
    c.meta.set_xattr(&root(), f, b"user.\xff\x01", Bytes::from_static(b"\0\xff"), ANY).await.unwrap();
    assert_eq!(&other.meta.get_xattr(&root(), f, b"user.\xff\x01").await.unwrap()[..], b"\0\xff");
    assert_eq!(other.meta.list_xattrs(&root(), f).await.unwrap().last().unwrap(), b"user.\xff\x01");
    w.check().await;
}

/// An inode has so many bytes of attributes, whoever adds them at the same time; what does not grow is always taken.
pub async fn xattr_limit(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let value = |len: usize| "v".repeat(len);
    // Many clients at once: as many as fit.
    let (clients, len) = (12, 20_000);
    let fit = XATTRS_MAX / (len + "user.00".len());
    let mut tasks = Vec::new();
    for i in 0..clients {
        let client = w.client().await;
        tasks.push(tokio::spawn(async move {
            let name = format!("user.{i:02}");
            client.put_xattr(&root(), f, &name, &"v".repeat(len), ANY).await.map_err(|e| e.errno())
        }));
    }
    let mut taken = 0;
    for t in tasks {
        match t.await.unwrap() {
            Ok(()) => taken += 1,
            Err(e) => assert_eq!(e, Errno::ENOSPC),
        }
    }
    assert_eq!(taken, fit);
    assert_eq!(c.xattrs(&root(), f).await.len(), fit);
    // To the byte.
    let left = XATTRS_MAX - fit * (len + "user.00".len()) - "user.x".len();
    assert_eq!(errno(c.put_xattr(&root(), f, "user.x", &value(left + 1), ANY).await), Errno::ENOSPC);
    c.put_xattr(&root(), f, "user.x", &value(left), ANY).await.unwrap();
    assert_eq!(errno(c.put_xattr(&root(), f, "user.y", "", ANY).await), Errno::ENOSPC);
    let (name, other) = (c.xattrs(&root(), f).await[0].clone(), w.client().await);
    assert_eq!(errno(other.put_xattr(&root(), f, &name, &value(len + 1), REPLACE).await), Errno::ENOSPC);
    other.put_xattr(&root(), f, &name, &"w".repeat(len), REPLACE).await.unwrap();
    other.put_xattr(&root(), f, &name, "", REPLACE).await.unwrap();
    c.put_xattr(&root(), f, &name, &value(len), ANY).await.unwrap();
    c.drop_xattr(f, &name).await.unwrap();
    c.put_xattr(&root(), f, "user.y", "", ANY).await.unwrap();
    // More of another client stays, and may become less.
    let note = Write::PutXattr(f, b"user.note".to_vec(), value(XATTRS_MAX).into());
    w.store.commit(&crate::store::Commit { guards: Vec::new(), writes: vec![note] }).await.unwrap();
    c.put_xattr(&root(), f, "user.x", &value(left), ANY).await.unwrap();
    assert_eq!(errno(c.put_xattr(&root(), f, "user.x", &value(left + 1), ANY).await), Errno::ENOSPC);
    c.put_xattr(&root(), f, "user.note", &value(XATTR_VALUE_MAX), ANY).await.unwrap();
    w.check().await;
}

/// On a volume without room for another block, attributes do not grow. They are charged to nobody.
pub async fn xattrs_on_a_full_volume(engine: Engine) {
    let w = World::with(engine, |s| s.capacity = 1 << 20).await;
    let c = w.client().await;
    let other = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.put_xattr(&root(), f, "user.a", "12345", ANY).await.unwrap();
    let before = other.meta.statfs().await.unwrap();
    other.put_xattr(&root(), f, "user.b", &"v".repeat(60_000), ANY).await.unwrap();
    assert_eq!(other.meta.statfs().await.unwrap(), before);
    // Filled by one, noticed by the other at once.
    let mut files = Vec::new();
    while let Ok(ino) = c.make(ROOT, &format!("fill{}", files.len()), FileType::File).await {
        files.push(ino);
    }
    for client in [&other, &c] {
        let put = async |name: &str, value: &str| {
            client.put_xattr(&root(), f, name, value, ANY).await.map_err(|e| e.errno())
        };
        assert_eq!(put("user.c", "").await, Err(Errno::ENOSPC));
        assert_eq!(put("user.a", "123456").await, Err(Errno::ENOSPC));
        assert_eq!(put("user.a", "54321").await, Ok(()));
        assert_eq!(put("user.a", "1").await, Ok(()));
        assert_eq!(put("user.a", "12").await, Err(Errno::ENOSPC));
        client.drop_xattr(f, "user.a").await.unwrap();
        assert_eq!(put("user.a", "12345").await, Err(Errno::ENOSPC));
        // As soon as there is room again, also for who has been told that there is none.
        c.unlink(ROOT, &format!("fill{}", files.len() - 1)).await.unwrap();
        assert_eq!(put("user.a", "12345").await, Ok(()));
        c.make(ROOT, &format!("fill{}", files.len() - 1), FileType::File).await.unwrap();
    }
    w.check().await;
}

/// `XATTR_CREATE` and `XATTR_REPLACE`, on what this client believes and on what another one did.
pub async fn xattr_create_and_replace(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let other = w.client().await;
    let f = c.file(ROOT, "f").await;
    assert_eq!(errno(c.put_xattr(&root(), f, "user.a", "1", REPLACE).await), Errno::ENODATA);
    assert_eq!(errno(c.put_xattr(&root(), f, "user.a", "1", BOTH).await), Errno::ENODATA);
    c.put_xattr(&root(), f, "user.a", "1", CREATE).await.unwrap();
    assert_eq!(errno(c.put_xattr(&root(), f, "user.a", "2", CREATE).await), Errno::EEXIST);
    assert_eq!(errno(other.put_xattr(&root(), f, "user.a", "2", CREATE).await), Errno::EEXIST);
    assert_eq!(errno(c.put_xattr(&root(), f, "user.a", "2", BOTH).await), Errno::EEXIST);
    other.put_xattr(&root(), f, "user.a", "3", REPLACE).await.unwrap();
    assert_eq!(c.xattr(f, "user.a").await.unwrap(), "3");
    // Many clients create the same attribute: one wins.
    let mut tasks = Vec::new();
    for i in 0..8 {
        let client = w.client().await;
        tasks.push(tokio::spawn(async move {
            client.put_xattr(&root(), f, "user.race", &i.to_string(), CREATE).await.map_err(|e| e.errno())
        }));
    }
    let mut won = 0;
    for t in tasks {
        match t.await.unwrap() {
            Ok(()) => won += 1,
            Err(e) => assert_eq!(e, Errno::EEXIST),
        }
    }
    assert_eq!(won, 1);
    w.check().await;
}

/// Namespaces, kinds of inodes, permissions, flags.
pub async fn xattr_permissions(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    let put = async |who: &Caller, ino, name: &str| {
        c.put_xattr(who, ino, name, "v", ANY).await.map_err(|e| e.errno())
    };
    for name in ["a", "user", "system.x", "os2.x", "system.posix_acl_access", "system.posix_acl_default"] {
        assert_eq!(put(&root(), f, name).await, Err(Errno::EOPNOTSUPP), "{name}");
        assert_eq!(errno(c.xattr(f, name).await), Errno::EOPNOTSUPP, "{name}");
        assert_eq!(errno(c.drop_xattr(f, name).await), Errno::EOPNOTSUPP, "{name}");
    }
    for name in ["user.", "trusted.", "security."] {
        assert_eq!(put(&root(), f, name).await, Err(Errno::EINVAL), "{name}");
    }
    // Everything but files and directories takes only what the superuser says.
    let d = c.dir(ROOT, "d").await;
    put(&root(), d, "user.a").await.unwrap();
    for kind in [FileType::Symlink, FileType::Fifo, FileType::Socket, FileType::CharDevice] {
        let n = c.make(d, &format!("{kind:?}"), kind).await.unwrap();
        assert_eq!(put(&root(), n, "user.a").await, Err(Errno::EPERM), "{kind:?}");
        put(&root(), n, "trusted.a").await.unwrap();
        put(&root(), n, "security.a").await.unwrap();
        assert_eq!(errno(c.xattr(n, "user.a").await), Errno::ENODATA);
    }
    // Users.
    c.chown(f, 1, 1).await;
    c.chmod(f, 0o640).await;
    put(&user(1, 1), f, "user.a").await.unwrap();
    let get = async |who: &Caller, name: &str| {
        c.meta.get_xattr(who, f, name.as_bytes()).await.map_err(|e| e.errno())
    };
    get(&user(2, 1), "user.a").await.unwrap();
    assert_eq!(get(&user(2, 2), "user.a").await, Err(Errno::EACCES));
    assert_eq!(put(&user(2, 1), f, "user.a").await, Err(Errno::EACCES));
    for name in ["trusted.a", "security.a"] {
        put(&root(), f, name).await.unwrap();
        assert_eq!(put(&user(1, 1), f, name).await, Err(Errno::EPERM));
    }
    assert_eq!(get(&user(1, 1), "trusted.a").await, Err(Errno::ENODATA));
    get(&user(2, 2), "security.a").await.unwrap();
    c.chmod(d, 0o1777).await;
    assert_eq!(put(&user(1, 1), d, "user.a").await, Err(Errno::EPERM));
    c.chmod(d, 0o777).await;
    put(&user(1, 1), d, "user.a").await.unwrap();
    // Flags.
    for flag in [flags::IMMUTABLE, flags::APPEND] {
        let set = |f| SetAttr { flags: Some(f), ..SetAttr::default() };
        c.meta.setattr(&root(), f, &set(flag)).await.unwrap();
        for name in ["user.a", "trusted.a", "security.a"] {
            assert_eq!(put(&root(), f, name).await, Err(Errno::EPERM));
            assert_eq!(errno(c.drop_xattr(f, name).await), Errno::EPERM);
        }
        c.meta.setattr(&root(), f, &set(0)).await.unwrap();
    }
    let read_only = w.client_with(MetaConfig { read_only: true, ..World::config() }).await;
    assert_eq!(errno(read_only.put_xattr(&root(), f, "user.a", "", ANY).await), Errno::EROFS);
    assert_eq!(errno(read_only.drop_xattr(f, "user.a").await), Errno::EROFS);
    assert_eq!(read_only.xattr(f, "user.a").await.unwrap(), "v");
    w.check().await;
}

/// Attributes live as long as their inode: in the trash, with hard links, and unlinked while open. They never outlive it.
pub async fn xattr_lifetime(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.mounted().await;
    let open = OpenFlags { read: true, write: true, ..OpenFlags::default() };
    let f = c.file(ROOT, "f").await;
    c.put_xattr(&root(), f, "user.a", "1", ANY).await.unwrap();
    c.meta.open(&root(), f, open).await.unwrap();
    c.unlink(ROOT, "f").await.unwrap();
    assert_eq!(c.xattr(f, "user.a").await.unwrap(), "1");
    c.put_xattr(&root(), f, "user.b", "2", CREATE).await.unwrap();
    c.drop_xattr(f, "user.a").await.unwrap();
    assert_eq!(c.xattrs(&root(), f).await, ["user.b"]);
    w.check().await;
    c.meta.close(f).await.unwrap();
    assert!(c.gone(f).await);
    // No orphan, whatever a client still believes; who removed it has attributes of its own, for those who still hold it.
    for _ in 0..2 {
        c.put_xattr(&root(), f, "user.b", "2", ANY).await.unwrap();
        assert_eq!(c.xattrs(&root(), f).await, ["user.b"]);
    }
    assert_eq!(errno(c.put_xattr(&root(), f, "user.c", &"x".repeat((1 << 16) + 1), ANY).await), Errno::E2BIG);
    for name in ["user.c", "user.d"] {
        let room = name == "user.c";
        assert_eq!(c.put_xattr(&root(), f, name, &"x".repeat(65_500), ANY).await.is_ok(), room, "bounded");
    }
    c.drop_xattr(f, "user.b").await.unwrap();
    assert_eq!(errno(c.drop_xattr(f, "user.b").await), Errno::ENODATA);
    let other = w.client().await;
    let g = c.file(ROOT, "g").await;
    assert_eq!(other.find(ROOT, "g").await.unwrap(), g);
    c.put_xattr(&root(), g, "user.a", "1", ANY).await.unwrap();
    c.link(g, ROOT, "h").await.unwrap();
    c.unlink(ROOT, "g").await.unwrap();
    assert_eq!(c.xattr(g, "user.a").await.unwrap(), "1");
    c.unlink(ROOT, "h").await.unwrap();
    assert_eq!(errno(other.put_xattr(&root(), g, "user.b", "2", ANY).await), Errno::ENOENT);
    let d = c.dir(ROOT, "d").await;
    c.put_xattr(&root(), d, "user.a", "1", ANY).await.unwrap();
    c.rmdir(ROOT, "d").await.unwrap();
    for ino in [f, g, d] {
        assert_eq!(w.store.read(&[Read::XattrNames(ino)]).await.unwrap(), [Value::Names(Vec::new())]);
    }
    c.meta.close_session().await.unwrap();
    w.check().await;
}

/// Attributes of what lies in the trash.
pub async fn xattrs_in_the_trash(engine: Engine) {
    let w = World::with_trash(engine).await;
    let c = w.client().await;
    let f = c.file(ROOT, "f").await;
    c.put_xattr(&root(), f, "user.a", "1", ANY).await.unwrap();
    c.unlink(ROOT, "f").await.unwrap();
    assert_eq!(c.xattr(f, "user.a").await.unwrap(), "1");
    c.put_xattr(&root(), f, "user.b", "1", ANY).await.unwrap();
    assert_eq!(c.xattrs(&root(), f).await, ["user.a", "user.b"]);
    w.check().await;
}

/// Notes of other clients without a namespace are not shown.
pub async fn xattrs_of_other_clients(engine: Engine) {
    let w = World::new(engine).await;
    let c = w.client().await;
    let note = Write::PutXattr(ROOT, b"lastBackup".to_vec(), "2033-05-18T03:33:20Z".into());
    w.store.commit(&crate::store::Commit { guards: Vec::new(), writes: vec![note] }).await.unwrap();
    c.put_xattr(&root(), ROOT, "user.a", "1", ANY).await.unwrap();
    assert_eq!(c.xattrs(&root(), ROOT).await, ["user.a"]);
    assert_eq!(errno(c.xattr(ROOT, "lastBackup").await), Errno::EOPNOTSUPP);
}

/// One turn each; and what the kernel asks for beside writing costs none.
pub async fn xattr_turns(engine: Engine) {
    let w = World::new(engine).await;
    let cfg = MetaConfig { xattr_valid: Duration::from_secs(3600), ..World::config() };
    let c = w.client_with(cfg).await;
    let f = c.file(ROOT, "f").await;
    let get = async |name: &[u8]| c.meta.get_xattr(&root(), f, name).await;
    assert_eq!(c.turns(get(b"security.capability")).await, 0, "a new file has none");
    assert_eq!(c.turns(c.xattrs(&root(), f)).await, 0);
    assert_eq!(c.turns(c.put_xattr(&root(), f, "user.a", "1", CREATE)).await, 1);
    assert_eq!(c.turns(c.put_xattr(&root(), f, "user.a", "1", REPLACE)).await, 1);
    assert_eq!(c.turns(c.put_xattr(&root(), f, "user.a", "1", ANY)).await, 1);
    assert_eq!(c.turns(c.xattr(f, "user.a")).await, 1);
    assert_eq!(c.turns(c.xattrs(&root(), f)).await, 1);
    assert_eq!(c.turns(c.drop_xattr(f, "user.a")).await, 1);
    // An open for writing brings along what the kernel asks next.
    let how = OpenFlags { write: true, ..OpenFlags::default() };
    assert_eq!(c.turns(c.meta.open(&root(), f, how)).await, 1);
    assert_eq!(c.turns(get(b"security.capability")).await, 0);
    // What this client sets it sees at once.
    c.put_xattr(&root(), f, "security.capability", "cap", ANY).await.unwrap();
    assert_eq!(&get(b"security.capability").await.unwrap()[..], b"cap");
    c.drop_xattr(f, "security.capability").await.unwrap();
    assert_eq!(errno(get(b"security.capability").await), Errno::ENODATA);
    c.meta.close(f).await.unwrap();
    // Without a time to believe anything, everything is asked for.
    let strict = w.client().await;
    let who = root();
    for _ in 0..2 {
        let work = strict.meta.get_xattr(&who, f, b"security.capability");
        assert_eq!(strict.turns(work).await, 1);
    }
}

/// Programs that ask about every entry of a listing, one after the other, share turns; what they are told is true.
pub async fn xattr_turns_of_a_listing(engine: Engine) {
    let w = World::new(engine).await;
    let cfg = MetaConfig { xattr_valid: Duration::from_secs(3600), ..World::config() };
    let c = w.client().await;
    let d = c.dir(ROOT, "d").await;
    for i in 0..200 {
        let f = c.file(d, &format!("f{i}")).await;
        if i % 50 == 7 {
            c.put_xattr(&root(), f, "security.selinux", &i.to_string(), ANY).await.unwrap();
        }
    }
    let reader = w.client_with(cfg).await;
    let page = reader.meta.list_dir(&root(), d, &DirCursor::Start, 1000, true).await.unwrap();
    assert_eq!(page.entries.len(), 200);
    let mut labels = 0;
    let walk = async {
        for e in &page.entries {
            match reader.xattr(e.edge.ino, "security.selinux").await {
                Ok(label) => {
                    assert_eq!(e.name, format!("f{label}").as_bytes());
                    labels += 1;
                }
                Err(e) => assert_eq!(e.errno(), Errno::ENODATA),
            }
            assert_eq!(errno(reader.xattr(e.edge.ino, "security.capability").await), Errno::ENODATA);
            reader.xattrs(&root(), e.edge.ino).await;
        }
    };
    // Windows of 1, 4, 16, 64 and 128, and the four values.
    assert!(reader.turns(walk).await <= 9);
    assert_eq!(labels, 4);
    // What this client changes meanwhile it sees.
    let (a, b) = (page.entries[3].edge.ino, page.entries[150].edge.ino);
    for ino in [a, b] {
        reader.put_xattr(&root(), ino, "security.x", "1", ANY).await.unwrap();
        assert_eq!(reader.xattr(ino, "security.x").await.unwrap(), "1");
        assert!(reader.xattrs(&root(), ino).await.contains(&"security.x".to_owned()));
    }
    w.check().await;
}
