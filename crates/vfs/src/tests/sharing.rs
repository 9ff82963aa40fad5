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
    assert_eq!(errno(a.fsync(fh).await), Errno::EBADF);
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
