//! `clone` and `rmr` through the channel of tools.

use std::sync::Arc;

use ciderfs_format::{FileType, Ino};
use ciderfs_meta::{Caller, Errno, NewNode, SetAttr};
use ciderfs_object::layers::Faults;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::support::*;
use crate::{Growth, Kernel, Stale};

fn user(uid: u32) -> Caller {
    Caller { uid, gid: uid, groups: Vec::new(), pid: 1, check: true }
}

/// A kernel that is told of names.
#[derive(Default)]
struct Names {
    forgotten: Mutex<Vec<(Ino, Vec<u8>)>>,
}

impl Kernel for Names {
    fn invalidate(&self, _: Ino, _: Stale) {}

    fn forget(&self, _: Ino, _: u64, _: u64) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn forget_name(&self, dir: Ino, name: &[u8]) -> BoxFuture<'static, ()> {
        self.forgotten.lock().push((dir, name.to_vec()));
        Box::pin(async {})
    }

    fn grow(&self, _: Growth) -> BoxFuture<'static, bool> {
        Box::pin(async { true })
    }
}

/// Runs a command and gives its status, and what it told last of its progress.
async fn ask(c: &Client, who: &Caller, command: u32, body: &[u8]) -> (Result<(), Errno>, (u64, u64)) {
    let entry = c.vfs.lookup(who, Ino::ROOT, b".control").await.unwrap();
    let fh = c.vfs.open(who, entry.ino, RW).await.unwrap().fh;
    let request = [&command.to_be_bytes()[..], &(body.len() as u32).to_be_bytes(), body].concat();
    c.vfs.write_control(who, fh, &request).unwrap();
    let (mut at, mut progress) = (request.len(), (0, 0));
    let mut status = None;
    until("the end of a command", async || {
        let mut said = c.read(fh, at, MIB).await;
        at += said.len();
        while said.first() == Some(&0xFE) {
            let numbers: Vec<u8> = said.drain(..17).skip(1).collect();
            let number = |at: usize| u64::from_be_bytes(numbers[at..at + 8].try_into().unwrap());
            progress = (number(0), number(8));
        }
        status = said.first().copied();
        status.is_some()
    })
    .await;
    c.vfs.release(fh).await;
    let status = status.unwrap();
    (if status == 0 { Ok(()) } else { Err(Errno(i32::from(status))) }, progress)
}

async fn clone(c: &Client, who: &Caller, from: Ino, dir: Ino, name: &str) -> Result<(), Errno> {
    let body = [
        &from.0.to_be_bytes()[..],
        &Ino::ROOT.0.to_be_bytes(),
        &dir.0.to_be_bytes(),
        &[name.len() as u8],
        name.as_bytes(),
        &0o022_u16.to_be_bytes(),
        // Older tools leave out how many at a time.
        &[2],
    ];
    ask(c, who, 1006, &body.concat()).await.0
}

async fn rmr(c: &Client, who: &Caller, dir: Ino, name: &str, flags: &[u8]) -> (Result<(), Errno>, u64) {
    let body = [&dir.0.to_be_bytes()[..], &[name.len() as u8], name.as_bytes(), flags].concat();
    let (status, (removed, _)) = ask(c, who, 1002, &body).await;
    (status, removed)
}

async fn make(c: &Client, dir: Ino, name: &str, kind: FileType) -> Ino {
    make_as(c, &Caller::root(), dir, name, kind).await
}

async fn make_as(c: &Client, who: &Caller, dir: Ino, name: &str, kind: FileType) -> Ino {
    let node = NewNode { kind, mode: 0o755, umask: 0, rdev: 0, target: b"" };
    c.vfs.create(who, dir, name.as_bytes(), &node).await.unwrap().ino
}

async fn chmod(c: &Client, ino: Ino, mode: u16) {
    let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
    c.vfs.setattr(&Caller::root(), ino, &set, None, None).await.unwrap();
}

/// Directories in directories, with files: 3 + 9 + 9 * 20 entries below the top.
async fn tree(c: &Client, name: &str) -> Ino {
    let top = make(c, Ino::ROOT, name, FileType::Directory).await;
    for d in 0..3 {
        let dir = make(c, top, &d.to_string(), FileType::Directory).await;
        for e in 0..3 {
            let dir = make(c, dir, &e.to_string(), FileType::Directory).await;
            for f in 0..20 {
                make(c, dir, &f.to_string(), FileType::File).await;
            }
        }
    }
    top
}

/// What was written and is not stored yet is part of a clone; the kernel is told of the name.
#[tokio::test]
async fn clones_hold_what_was_written() {
    let w = World::new(1).await;
    let c = w.client().await;
    let kernel = Arc::<Names>::default();
    c.vfs.set_kernel(kernel.clone());
    let root = Caller::root();
    let (ino, fh) = c.create("a").await;
    c.write(fh, 0, &pattern(1, 100 * KIB)).await;
    clone(&c, &root, ino, Ino::ROOT, "b").await.unwrap();
    let copy = c.vfs.lookup(&root, Ino::ROOT, b"b").await.unwrap();
    let read = c.open(copy.ino).await;
    assert_eq!(c.read(read, 0, MIB).await, pattern(1, 100 * KIB));
    let dir = make(&c, Ino::ROOT, "d", FileType::Directory).await;
    let made = c.vfs.create_open(&root, dir, b"f", 0o644, 0, RW).await.unwrap();
    c.write(made.1.fh, 0, b"dirty").await;
    clone(&c, &root, dir, Ino::ROOT, "e").await.unwrap();
    let e = c.vfs.lookup(&root, Ino::ROOT, b"e").await.unwrap().ino;
    assert_eq!(c.vfs.lookup(&root, e, b"f").await.unwrap().attr.length, 5);
    assert_eq!(*kernel.forgotten.lock(), [(Ino::ROOT, b"b".to_vec()), (Ino::ROOT, b"e".to_vec())]);
    // Writing to one of them leaves the other one as it is.
    c.write(read, 0, b"other").await;
    assert_eq!(c.read(fh, 0, MIB).await, pattern(1, 100 * KIB));
    for (from, dir, name, why) in [
        (ino, Ino::ROOT, "b", Errno::EEXIST),
        (ino, Ino::ROOT, ".config", Errno::EPERM),
        (c.vfs.lookup(&root, Ino::ROOT, b".stats").await.unwrap().ino, Ino::ROOT, "c", Errno::EPERM),
        (Ino(12_345), Ino::ROOT, "c", Errno::ENOENT),
    ] {
        assert_eq!(clone(&c, &root, from, dir, name).await, Err(why), "{name}");
    }
    assert_eq!(ask(&c, &root, 1006, &[0; 27]).await.0, Err(Errno::EINVAL), "cut short");
    for fh in [fh, read, made.1.fh] {
        c.close(fh).await.unwrap();
    }
}

/// A tree goes into the trash, or past it; who may not remove something keeps it.
#[tokio::test]
async fn trees_are_removed() {
    let w = World::new(1).await;
    let c = w.client().await;
    let root = Caller::root();
    let there = async |name: &str| c.vfs.lookup(&root, Ino::ROOT, name.as_bytes()).await.is_ok();
    let in_trash = async || {
        let usage = c.meta.tree_usage(&root, Ino::TRASH, true, &|_| ()).await.unwrap();
        usage.files
    };
    tree(&c, "a").await;
    assert_eq!(rmr(&c, &root, Ino::ROOT, "a", &[]).await, (Ok(()), 193));
    assert!(!there("a").await);
    assert_eq!(in_trash().await, 180);
    tree(&c, "a").await;
    assert_eq!(rmr(&c, &root, Ino::ROOT, "a", &[1, 8]).await, (Ok(()), 193));
    assert_eq!(in_trash().await, 180);
    make(&c, Ino::ROOT, "f", FileType::File).await;
    assert_eq!(rmr(&c, &root, Ino::ROOT, "f", &[0]).await, (Ok(()), 1));
    assert_eq!(rmr(&c, &root, Ino::ROOT, "f", &[0]).await.0, Err(Errno::ENOENT));
    assert_eq!(rmr(&c, &root, Ino::ROOT, ".trash", &[1]).await.0, Err(Errno::EPERM));
    assert_eq!(rmr(&c, &root, Ino::ROOT, ".stats", &[0]).await.0, Err(Errno::ENOENT));
    assert_eq!(rmr(&c, &root, Ino::ROOT, "..", &[0]).await.0, Err(Errno::EINVAL));
    // Others than root.
    let top = tree(&c, "a").await;
    let alice = user(1000);
    assert_eq!(rmr(&c, &alice, Ino::ROOT, "a", &[]).await.0, Err(Errno::EACCES));
    assert_eq!(rmr(&c, &alice, Ino::ROOT, "a", &[1]).await.0, Err(Errno::EPERM), "past the trash");
    chmod(&c, top, 0o700).await;
    let inner = c.vfs.lookup(&root, top, b"0").await.unwrap().ino;
    chmod(&c, inner, 0o777).await;
    assert_eq!(rmr(&c, &alice, inner, "0", &[]).await.0, Err(Errno::EACCES), "nobody walks there");
    assert_eq!(clone(&c, &alice, inner, inner, "copy").await, Err(Errno::EACCES), "nor to clone");
    assert_eq!(rmr(&c, &root, Ino::ROOT, "a", &[]).await, (Ok(()), 193));
}

/// A user's tree that is deeper than any stack: it is removed for good, and so is what is beside it.
#[tokio::test]
async fn deep_trees_are_removed() {
    const DEPTH: u64 = 5000;
    let w = World::new(0).await;
    let c = w.client().await;
    let alice = user(1000);
    let home = make(&c, Ino::ROOT, "home", FileType::Directory).await;
    chmod(&c, home, 0o777).await;
    let mut dir = home;
    let (mut below, mut files) = (home, 0);
    for level in 0..DEPTH {
        dir = make_as(&c, &alice, dir, "d", FileType::Directory).await;
        if level % 500 == 0 {
            (below, files) = (dir, files + 1);
            make_as(&c, &alice, dir, "f", FileType::File).await;
        }
    }
    assert_eq!(rmr(&c, &alice, home, "d", &[0]).await, (Ok(()), DEPTH + files));
    assert!(c.vfs.lookup(&alice, home, b"d").await.is_err());
    assert_eq!(errno(c.vfs.getattr(below).await), Errno::ENOENT);
}

/// More directories than a page has, and than are listed or tried at a time.
#[tokio::test]
async fn wide_trees_are_removed() {
    let w = World::new(0).await;
    let c = w.client().await;
    let top = make(&c, Ino::ROOT, "a", FileType::Directory).await;
    for n in 0..1200 {
        let dir = make(&c, top, &n.to_string(), FileType::Directory).await;
        if n % 3 == 0 {
            make(&c, dir, "f", FileType::File).await;
        }
    }
    assert_eq!(rmr(&c, &Caller::root(), Ino::ROOT, "a", &[1, 3]).await, (Ok(()), 1601));
    assert!(c.vfs.lookup(&Caller::root(), Ino::ROOT, b"a").await.is_err());
}

/// What cannot be stored is not left out of a clone; who may not clone something makes nobody store anything.
#[tokio::test]
async fn clones_fail_with_what_is_not_stored() {
    let w = World::new(0).await;
    let c = w.client().await;
    let root = Caller::root();
    let dir = make(&c, Ino::ROOT, "d", FileType::Directory).await;
    let (f, opened) = c.vfs.create_open(&root, dir, b"f", 0o600, 0, RW).await.unwrap();
    chmod(&c, dir, 0o700).await;
    let home = make(&c, Ino::ROOT, "home", FileType::Directory).await;
    chmod(&c, home, 0o777).await;
    w.objects.set(Faults { only: vec!["PUT"], fail_rate: 1.0, ..Faults::default() });
    let fill = async || c.write(opened.fh, 0, &pattern(1, 100 * KIB)).await;
    for (from, name) in [(dir, "e"), (f.ino, "g")] {
        fill().await;
        assert_eq!(clone(&c, &user(1000), from, home, name).await, Err(Errno::EACCES), "{name}");
        assert_eq!(clone(&c, &root, from, home, name).await, Err(Errno::EIO), "{name}");
        assert!(c.vfs.lookup(&root, home, name.as_bytes()).await.is_err());
    }
    w.objects.set(Faults::default());
    assert_eq!(errno(c.fsync(opened.fh).await), Errno::EIO, "its writer is told as well");
    fill().await;
    clone(&c, &root, dir, home, "e").await.unwrap();
    let e = c.vfs.lookup(&root, home, b"e").await.unwrap().ino;
    let copy = c.vfs.lookup(&root, e, b"f").await.unwrap().ino;
    let read = c.open(copy).await;
    assert_eq!(c.read(read, 0, MIB).await, pattern(1, 100 * KIB));
    for fh in [read, opened.fh] {
        c.close(fh).await.unwrap();
    }
}
