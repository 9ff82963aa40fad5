//! Files that are opened as they are remembered (`--open-cache`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_format::{Ino, Time};
use ciderfs_meta::{Caller, Errno, SetAttr, SetTime};

use super::support::*;
use crate::kernel::looks::LARGEFILE;

const LONG: Duration = Duration::from_secs(1000);
const CHUNK: usize = 64 * MIB;
const EXEC: i32 = 0x20;

/// A file of two chunks, closed.
async fn made(a: &Client, name: &str) -> (Ino, Vec<u8>) {
    let (ino, fh) = a.create(name).await;
    let data = pattern(1, 8192);
    a.write(fh, 0, &data).await;
    a.write(fh, CHUNK, &data).await;
    a.close(fh).await.unwrap();
    (ino, data)
}

/// Opens, reads the beginning and closes. Returns that, and whether the kernel keeps its pages.
async fn peek(c: &Client, ino: Ino) -> (Vec<u8>, bool) {
    let opened = c.vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.unwrap();
    let data = c.read(opened.fh, 0, 8192).await;
    c.close(opened.fh).await.unwrap();
    (data, opened.keep_cache)
}

async fn write_over(a: &Client, ino: Ino, data: &[u8]) {
    let fh = a.open(ino).await;
    a.write(fh, 0, data).await;
    a.close(fh).await.unwrap();
}

#[tokio::test]
async fn a_warm_file_is_opened_without_the_engine() {
    const OPENS: u64 = 1000;
    let mut turns = Vec::new();
    for valid in [Duration::ZERO, LONG] {
        let w = World::new(1).await;
        let a = w.client().await;
        let (ino, data) = made(&a, "f").await;
        let b = w.client_remembering(valid).await;
        let once = async || {
            let fh = b.vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.unwrap().fh;
            assert_eq!(
                b.vfs.getattr_within(ino, Duration::from_secs(1)).await.unwrap().0.length,
                8192 + CHUNK as u64
            );
            assert_eq!(b.read(fh, 0, 8192).await, data);
            assert_eq!(b.read(fh, CHUNK, 9000).await, data);
            b.close(fh).await.unwrap();
            assert_eq!(b.vfs.getattr_within(ino, Duration::from_secs(1)).await.unwrap().0.mode, 0o644);
        };
        once().await;
        let before = w.meta.counts().turns;
        for _ in 0..OPENS {
            once().await;
        }
        turns.push(w.meta.counts().turns - before);
    }
    // An open with the first chunk, the second chunk, two times attributes.
    assert_eq!(turns, [4 * OPENS, 0]);
}

#[tokio::test]
async fn what_others_change_is_seen_in_time() {
    const VALID: Duration = Duration::from_millis(300);
    let w = World::new(1).await;
    let (a, b) = (w.client().await, w.client_remembering(VALID).await);
    let (ino, _) = made(&a, "f").await;
    for round in 2..6 {
        let (old, _) = peek(&b, ino).await;
        let length = b.length(ino).await;
        let new = pattern(round, 8192);
        let fh = a.open(ino).await;
        a.write(fh, 0, &new).await;
        a.truncate(ino, fh, length + 1).await;
        a.close(fh).await.unwrap();
        let changed = Instant::now();
        let mut from_memory = 0;
        loop {
            let late = changed.elapsed() >= VALID;
            let (told, age) = b.vfs.getattr_within(ino, LONG).await.unwrap();
            let (seen, kept) = peek(&b, ino).await;
            if seen == new {
                assert!(!kept);
                assert_eq!(b.length(ino).await, length + 1);
                break;
            }
            assert!(seen == old && !late, "not after {VALID:?}");
            // The kernel does not believe for longer what is told from memory.
            assert!(told.length as usize > length || LONG - age <= VALID);
            from_memory += 1;
        }
        assert!(from_memory > 0);
    }
}

#[tokio::test]
async fn own_changes_are_seen_at_once() {
    const PUNCH: u32 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
    let w = World::new(1).await;
    let (c, a) = (w.client_remembering(LONG).await, w.client().await);
    let root = Caller::root();
    for deed in 0..9 {
        let (ino, data) = made(&c, &format!("f{deed}")).await;
        let (other, _) = made(&c, &format!("g{deed}")).await;
        for held in [true, false] {
            let fh = c.vfs.open(&root, ino, libc::O_RDONLY).await.unwrap().fh;
            c.read(fh, 0, 10).await;
            if !held {
                c.close(fh).await.unwrap();
            }
            peek(&c, ino).await;
            match deed {
                0 => write_over(&c, ino, &pattern(7 + u64::from(held), 8192)).await,
                1 => {
                    let set = SetAttr { mode: Some(0o600 + u16::from(held)), ..SetAttr::default() };
                    c.vfs.setattr(&root, ino, &set, None, None).await.unwrap();
                }
                2 => {
                    _ = c
                        .vfs
                        .setattr(&root, ino, &SetAttr::default(), Some(5 + u64::from(held)), None)
                        .await
                        .unwrap()
                }
                3 => {
                    let mtime = Some(SetTime::At(Time { sec: 5, nsec: u32::from(held) }));
                    c.vfs
                        .setattr(&root, ino, &SetAttr { mtime, ..SetAttr::default() }, None, None)
                        .await
                        .unwrap();
                }
                4 => {
                    let fh = c.open(ino).await;
                    let at = 4096 * u64::from(held);
                    c.vfs.fallocate(&root, fh, PUNCH, at, 4096).await.unwrap();
                    c.close(fh).await.unwrap();
                }
                5 => {
                    let (from, to) = (c.open(other).await, c.open(ino).await);
                    let at = 100 * u64::from(held);
                    c.vfs.copy_file_range(&root, (from, 0), (to, 10 + at), 4000, 0).await.unwrap();
                    c.close(from).await.unwrap();
                    c.close(to).await.unwrap();
                }
                6 => {
                    let name = format!("{deed}{held}");
                    _ = c.vfs.link(&root, ino, Ino::ROOT, name.as_bytes()).await.unwrap();
                }
                7 => {
                    let flags = libc::O_WRONLY | libc::O_TRUNC;
                    let fh = c.vfs.open(&root, ino, flags).await.unwrap().fh;
                    c.write(fh, 0, &data[..9 + usize::from(held)]).await;
                    c.close(fh).await.unwrap();
                }
                _ => {
                    let value = bytes::Bytes::from_static(b"v");
                    let set = ciderfs_meta::XattrSet::default();
                    c.vfs.set_xattr(&root, ino, b"user.n", value, set).await.unwrap();
                }
            }
            let truth = a.vfs.getattr(ino).await.unwrap();
            for _ in 0..2 {
                let told = c.vfs.getattr_within(ino, LONG).await.unwrap().0;
                assert_eq!(told, truth, "deed {deed}, held {held}");
                assert_eq!(peek(&c, ino).await.0, peek(&a, ino).await.0, "deed {deed}, held {held}");
            }
            if held {
                c.close(fh).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn what_was_seen_of_others_counts_at_once() {
    let w = World::new(1).await;
    let (a, b) = (w.client().await, w.client_remembering(LONG).await);
    let root = Caller::root();
    for way in 0..6 {
        for held in [true, false] {
            let name = format!("{way}{held}");
            let (ino, _) = made(&a, &name).await;
            peek(&b, ino).await;
            let fh = b.vfs.open(&root, ino, libc::O_RDONLY).await.unwrap().fh;
            b.read(fh, 0, 1).await;
            let old = peek(&b, ino).await;
            assert!(old.1, "way {way}, held {held}");
            let new = pattern(100 + 2 * way + u64::from(held), 8192);
            write_over(&a, ino, &new).await;
            assert_eq!(peek(&b, ino).await, old, "way {way}, held {held}: not seen yet");
            if !held && way != 2 {
                b.close(fh).await.unwrap();
            }
            match way {
                0 => assert_eq!(b.vfs.lookup(&root, Ino::ROOT, name.as_bytes()).await.unwrap().ino, ino),
                1 => {
                    let dir = b.vfs.opendir(&root, Ino::ROOT).await.unwrap();
                    b.vfs.readdir(dir, 0, true, &mut |_| false).await.unwrap();
                    b.vfs.releasedir(dir);
                }
                2 => {
                    // A chunk that has not been read.
                    b.read(fh, CHUNK, 100).await;
                    if !held {
                        b.close(fh).await.unwrap();
                    }
                }
                3 => assert_eq!(b.vfs.getattr(ino).await.unwrap().length, 8192 + CHUNK as u64),
                4 => {
                    let writer = b.open(ino).await;
                    b.close(writer).await.unwrap();
                }
                _ => b.vfs.access(&Caller { uid: 7, ..Caller::root() }, ino, 4).await.unwrap(),
            }
            let seen = peek(&b, ino).await;
            assert_eq!(seen.0, new, "way {way}, held {held}");
            assert!(!seen.1 || way == 4, "way {way}, held {held}: pages of the old version are kept");
            if held {
                b.close(fh).await.unwrap();
            }
            // The second chunk is not known of the new version.
            assert_eq!(peek(&b, ino).await, (new, true));
        }
    }
}

#[tokio::test]
async fn permissions_hold() {
    let w = World::new(1).await;
    let (a, b) = (w.client().await, w.client_remembering(LONG).await);
    let (ino, _) = made(&a, "f").await;
    let chmod = async |mode| {
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        a.vfs.setattr(&Caller::root(), ino, &set, None, None).await.unwrap();
    };
    let user = Caller { uid: 7, gid: 7, pid: 1, check: true, groups: Vec::new() };
    let opens = async |flags: i32| match b.vfs.open(&user, ino, flags).await {
        Ok(opened) => {
            b.close(opened.fh).await.unwrap();
            Ok(())
        }
        Err(e) => Err(e.errno()),
    };
    peek(&b, ino).await;
    chmod(0o640).await;
    assert_eq!(opens(libc::O_RDONLY).await, Ok(()), "not seen yet");
    assert_eq!(opens(libc::O_RDONLY | EXEC).await, Err(Errno::EACCES));
    assert_eq!(opens(libc::O_RDONLY).await, Err(Errno::EACCES), "the refusal was asked for");
    // What was refused is asked for each time.
    chmod(0o606).await;
    assert_eq!(opens(libc::O_RDONLY).await, Ok(()));
    chmod(0o604).await;
    assert_eq!(opens(libc::O_WRONLY).await, Err(Errno::EACCES));
    assert_eq!(opens(libc::O_RDONLY | libc::O_TRUNC).await, Err(Errno::EACCES));
    // Append-only and immutable: those who write ask.
    peek(&b, ino).await;
    let set = SetAttr { flags: Some(ciderfs_format::attr::flags::APPEND), ..SetAttr::default() };
    a.vfs.setattr(&Caller::root(), ino, &set, None, None).await.unwrap();
    let root = Caller::root();
    assert_eq!(errno(b.vfs.open(&root, ino, RW).await.map(|o| o.fh)), Errno::EPERM);
    assert_eq!(errno(b.vfs.open(&root, ino, libc::O_TRUNC).await.map(|o| o.fh)), Errno::EPERM);
    let fh = b.vfs.open(&root, ino, RW | libc::O_APPEND).await.unwrap().fh;
    b.close(fh).await.unwrap();
}

#[tokio::test]
async fn a_removed_file_stays_as_long_as_it_is_open_here() {
    let w = World::new(0).await;
    let (a, b) = (w.client().await, w.client_remembering(LONG).await);
    let (ino, data) = made(&a, "f").await;
    peek(&b, ino).await;
    let before = w.meta.counts().turns;
    let fh = b.vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.unwrap().fh;
    assert_eq!(w.meta.counts().turns, before);
    b.unlink("f").await;
    assert_eq!(b.vfs.getattr_within(ino, LONG).await.unwrap().0.nlink, 0);
    assert_eq!(b.read(fh, CHUNK, 8192).await, data);
    assert!(!w.objects().await.is_empty());
    b.close(fh).await.unwrap();
    until("no object is left", async || w.objects().await.is_empty()).await;
    assert_eq!(errno(b.vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.map(|o| o.fh)), Errno::ENOENT);
}

#[tokio::test]
async fn a_file_removed_elsewhere_is_gone_when_that_is_seen() {
    let w = World::new(0).await;
    let (a, b) = (w.client().await, w.client_remembering(LONG).await);
    let (ino, _) = made(&a, "f").await;
    peek(&b, ino).await;
    a.unlink("f").await;
    let fh = b.vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.unwrap().fh;
    // The second chunk was never read here: its list is asked for.
    assert_eq!(errno(b.try_read(fh, CHUNK, 1).await), Errno::ESTALE);
    b.close(fh).await.unwrap();
    assert_eq!(errno(b.vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.map(|o| o.fh)), Errno::ENOENT);
    assert_eq!(errno(b.vfs.getattr_within(ino, LONG).await.map(|_| ())), Errno::ENOENT);
}

/// Whoever has opened a file that is being removed can read it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn opens_and_removals_do_not_miss_each_other() {
    const FILES: usize = 200;
    let w = World::new(0).await;
    let c = Arc::new(w.client_remembering(LONG).await);
    for n in 0..FILES {
        let name = format!("f{n}");
        let (ino, fh) = c.create(&name).await;
        c.write(fh, 0, b"content").await;
        c.close(fh).await.unwrap();
        assert_eq!(peek(&c, ino).await.0, b"content");
        let begun = Arc::new(tokio::sync::Notify::new());
        let opener = {
            let (c, begun) = (Arc::clone(&c), Arc::clone(&begun));
            let caller = Caller { pid: 1 + n as u32, ..Caller::root() };
            tokio::spawn(async move {
                loop {
                    match c.vfs.open(&caller, ino, LARGEFILE).await {
                        Ok(o) => {
                            begun.notify_one();
                            // The list is asked for: it goes with the file.
                            if let Some(file) = c.vfs.files.get(ino) {
                                file.forget_content();
                            }
                            assert_eq!(c.read(o.fh, 0, 100).await, b"content", "file {n}");
                            c.close(o.fh).await.unwrap();
                        }
                        Err(e) => return assert_eq!(e.errno(), Errno::ESTALE),
                    }
                }
            })
        };
        begun.notified().await;
        c.unlink(&name).await;
        soon(opener).await.unwrap();
    }
    until("no object is left", async || w.objects().await.is_empty()).await;
}
