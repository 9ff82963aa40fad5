//! Several mounts of a volume.

use ciderfs_meta::Errno;

use super::support::*;

#[tokio::test]
async fn what_one_closes_the_next_open_elsewhere_sees() {
    let w = World::new(1).await;
    let (a, b) = (w.client().await, w.client().await);
    let (ino, fh) = a.create("f").await;
    let reader = b.open(ino).await;
    for round in 0..20_u64 {
        let data = pattern(round, 1 + (round as usize * 7919) % (150 * KIB));
        a.truncate(ino, fh, 0).await;
        a.write(fh, 0, &data).await;
        a.fsync(fh).await.unwrap();
        let fresh = b.open(ino).await;
        assert_eq!(b.read(fresh, 0, MIB).await, data, "round {round}");
        // The handle that was open all the time sees it too, since this mount has looked.
        assert_eq!(b.read(reader, 0, MIB).await, data, "round {round}");
        b.close(fresh).await.unwrap();
    }
}

#[tokio::test]
async fn writes_to_different_places_all_arrive() {
    let w = World::new(1).await;
    let (a, b) = (w.client().await, w.client().await);
    let (ino, fa) = a.create("f").await;
    let fb = b.open(ino).await;
    let mut want = vec![0; 40 * 10 * KIB];
    for n in 0..40 {
        let (client, fh) = if n % 2 == 0 { (&a, fa) } else { (&b, fb) };
        let data = pattern(n as u64, 10 * KIB);
        client.write(fh, n * 10 * KIB, &data).await;
        want[n * 10 * KIB..(n + 1) * 10 * KIB].copy_from_slice(&data);
        if n % 3 == 0 {
            client.fsync(fh).await.unwrap();
        }
    }
    a.close(fa).await.unwrap();
    b.close(fb).await.unwrap();
    for c in [&a, &b] {
        let fh = c.open(ino).await;
        assert_eq!(c.read(fh, 0, MIB).await, want);
    }
}

#[tokio::test]
async fn a_file_deleted_elsewhere_fails_clearly() {
    let w = World::new(0).await;
    let (a, b) = (w.client().await, w.client().await);
    let (_, fh) = a.create("f").await;
    a.write(fh, 0, b"x").await;
    a.fsync(fh).await.unwrap();
    b.unlink("f").await;
    a.write(fh, 1, b"y").await;
    assert_eq!(errno(a.fsync(fh).await), Errno::ESTALE);
    assert_eq!(errno(a.vfs.read(fh, 0, 1, false).await), Errno::ESTALE);
    a.close(fh).await.unwrap();
    until("no object is left", async || w.objects().await.is_empty()).await;
}

/// A shorter length would make the kernel drop the pages behind it, those not written back yet among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_file_never_looks_shorter_than_what_was_written() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use ciderfs_format::Ino;
    use ciderfs_meta::{Caller, SetAttr};

    const ROUNDS: usize = 400;
    let w = World::new(1).await;
    let c = Arc::new(w.client().await);
    let (ino, fh) = c.create("f").await;
    let (written, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let watch = |which: usize| {
        let (c, written, done) = (Arc::clone(&c), Arc::clone(&written), Arc::clone(&done));
        tokio::spawn(async move {
            let root = Caller::root();
            while !done.load(Ordering::Acquire) {
                let before = written.load(Ordering::Acquire);
                let seen = match which {
                    0 => c.length(ino).await,
                    1 => c.vfs.lookup(&root, Ino::ROOT, b"f").await.unwrap().attr.length as usize,
                    2 => {
                        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
                        c.vfs.setattr(&root, ino, &set, None, None).await.unwrap().length as usize
                    }
                    _ => {
                        let fresh = c.open(ino).await;
                        let end = c.read(fresh, before.saturating_sub(1), 1).await.len();
                        c.close(fresh).await.unwrap();
                        before.saturating_sub(1) + end
                    }
                };
                assert!(seen >= before, "way {which}: {seen} bytes where {before} were written");
                tokio::task::yield_now().await;
            }
        })
    };
    let watchers: Vec<_> = (0..4).map(watch).collect();
    let mut other = None;
    for n in 0..ROUNDS {
        let fh = other.unwrap_or(fh);
        c.write(fh, n * 100, &pattern(n as u64, 100)).await;
        written.store((n + 1) * 100, Ordering::Release);
        c.fsync(fh).await.unwrap();
        if n % 10 == 9 {
            // Sometimes nobody has the file open.
            c.close(fh).await.unwrap();
            other = Some(c.open(ino).await);
        }
    }
    done.store(true, Ordering::Release);
    for watcher in watchers {
        watcher.await.unwrap();
    }
}

/// The kernel keeps its pages where nothing but this mount has changed the file, and only there.
#[tokio::test]
async fn pages_are_kept_over_own_changes_alone() {
    use ciderfs_meta::{Caller, SetAttr, SetTime};
    const CHUNK: usize = 64 * MIB;
    const PUNCH: u32 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
    let w = World::new(1).await;
    let (a, b) = (w.client().await, w.client().await);
    let root = Caller::root();
    let (ino, fh) = a.create("f").await;
    a.write(fh, 0, &pattern(1, 8192)).await;
    a.write(fh, CHUNK, &pattern(1, 8192)).await;
    a.fsync(fh).await.unwrap();
    // Opens, uses the handle and closes it. Were the pages kept?
    let keeps = async || {
        let opened = b.vfs.open(&root, ino, RW).await.unwrap();
        b.read(opened.fh, 0, 1).await;
        b.close(opened.fh).await.unwrap();
        opened.keep_cache
    };
    assert!(!keeps().await);
    for deed in 0..8 {
        for elsewhere in [false, true] {
            let held = b.open(ino).await;
            b.read(held, 0, 1).await;
            if elsewhere {
                a.write(fh, 0, &pattern(2 + deed, 100)).await;
                a.fsync(fh).await.unwrap();
            }
            match deed {
                0 => _ = b.read(held, CHUNK, 10).await,
                1 => {
                    b.write(held, MIB, b"mine").await;
                    b.fsync(held).await.unwrap();
                }
                2 => {
                    let mtime =
                        Some(SetTime::At(ciderfs_format::Time { sec: 5, nsec: u32::from(elsewhere) }));
                    let set = SetAttr { mtime, ..SetAttr::default() };
                    b.vfs.setattr(&root, ino, &set, None, Some(held)).await.unwrap();
                }
                3 => b.truncate(ino, held, CHUNK + 9000 + usize::from(elsewhere)).await,
                4 => b.vfs.fallocate(&root, held, PUNCH, 2 << 20, 4096).await.unwrap(),
                5 => {
                    let copied = b.vfs.copy_file_range(&root, (held, 0), (held, 3 << 20), 4096, 0).await;
                    assert_eq!(copied.unwrap(), 4096);
                }
                6 => _ = b.length(ino).await,
                _ => b.write(held, MIB, b"mine, written at the close").await,
            }
            b.close(held).await.unwrap();
            assert_eq!(keeps().await, !elsewhere, "deed {deed}, changed elsewhere: {elsewhere}");
            assert!(keeps().await, "deed {deed}");
        }
    }
    // The same where nobody has the file open.
    for elsewhere in [false, true] {
        if elsewhere {
            a.write(fh, 0, b"theirs").await;
            a.fsync(fh).await.unwrap();
        }
        let set = SetAttr { mtime: Some(SetTime::Now), ..SetAttr::default() };
        b.vfs.setattr(&root, ino, &set, None, None).await.unwrap();
        b.vfs.setattr(&root, ino, &SetAttr::default(), Some(CHUNK as u64), None).await.unwrap();
        assert_eq!(keeps().await, !elsewhere, "changed elsewhere: {elsewhere}");
        assert!(keeps().await);
    }
    // What is new has no pages.
    let (ino, fh) = b.create("new").await;
    b.write(fh, 0, b"new").await;
    b.close(fh).await.unwrap();
    assert!(b.vfs.open(&root, ino, RW).await.unwrap().keep_cache);
}
