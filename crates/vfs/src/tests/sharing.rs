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

/// A name that another mount gives to other files faster than the kernel can follow. It looks once more where it meets
/// `ESTALE`; what that look has found counts.
mod replaced_names {
    use ciderfs_format::{Attr, Ino};
    use ciderfs_meta::{Caller, SetAttr};

    use super::*;

    /// As the kernel flags an open by path.
    const LARGEFILE: i32 =
        if cfg!(any(target_arch = "aarch64", target_arch = "arm")) { 0o400_000 } else { 0o100_000 };

    fn thread(pid: u32) -> Caller {
        Caller { pid, ..Caller::root() }
    }

    /// Another file takes the name.
    async fn replace(a: &Client, content: &[u8]) -> Ino {
        let (ino, fh) = a.create("new").await;
        a.write(fh, 0, content).await;
        a.close(fh).await.unwrap();
        a.vfs.rename(&Caller::root(), (Ino::ROOT, b"new"), (Ino::ROOT, b"f"), 0).await.unwrap();
        ino
    }

    async fn found(b: &Client, c: &Caller) -> (Ino, Attr) {
        let entry = b.vfs.lookup(c, Ino::ROOT, b"f").await.unwrap();
        (entry.ino, entry.attr)
    }

    #[tokio::test]
    async fn are_opened_as_they_were_found() {
        for trash_days in [0, 1] {
            for flags in [libc::O_RDONLY, RW, libc::O_WRONLY | libc::O_TRUNC] {
                let w = World::new(trash_days).await;
                let (a, b) = (w.client().await, w.client().await);
                let flags = flags | LARGEFILE;
                let (one, two) = (thread(1), thread(2));
                let first = replace(&a, b"first").await;
                assert_eq!(found(&b, &one).await.0, first);
                let second = replace(&a, b"second").await;
                assert_eq!(errno(b.vfs.open(&one, first, flags).await), Errno::ESTALE);
                assert_eq!(found(&b, &one).await, (second, b.vfs.getattr(second).await.unwrap()));
                let third = replace(&a, b"the third").await;
                // Another thread has not looked.
                assert_eq!(errno(b.vfs.open(&two, second, flags).await), Errno::ESTALE);
                let opened = b.vfs.open(&one, second, flags).await.unwrap();
                let attr = b.vfs.getattr(second).await.unwrap();
                assert_eq!(b.vfs.links(second, &attr), 0);
                if trash_days == 0 {
                    if flags & libc::O_TRUNC == 0 {
                        assert_eq!(attr.length, 6);
                        assert_eq!(errno(b.vfs.read(opened.fh, 0, 10, true).await), Errno::ESTALE);
                    }
                } else if flags & libc::O_TRUNC == 0 {
                    assert_eq!(b.read(opened.fh, 0, 10).await, b"second");
                } else {
                    assert_eq!(attr.length, 0);
                }
                b.vfs.release(opened.fh).await;
                // Done once, it has to look again.
                assert_eq!(errno(b.vfs.open(&one, second, flags).await), Errno::ESTALE);
                assert_eq!(found(&b, &one).await.0, third);
                let opened = b.vfs.open(&one, third, flags).await.unwrap();
                b.vfs.release(opened.fh).await;
            }
        }
    }

    #[tokio::test]
    async fn are_changed_as_they_were_found() {
        let w = World::new(0).await;
        let (a, b) = (w.client().await, w.client().await);
        let one = thread(1);
        let first = replace(&a, b"first").await;
        replace(&a, b"second").await;
        assert!(!b.vfs.met_gone(&one, first), "it has not looked");
        let (second, attr) = found(&b, &one).await;
        replace(&a, b"third").await;
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        assert_eq!(errno(b.vfs.setattr(&one, second, &set, None, None).await), Errno::ENOENT);
        assert!(b.vfs.met_gone(&one, second));
        let told = b.vfs.setattr(&one, second, &set, None, None).await.unwrap();
        assert_eq!((told.mode, told.nlink, told.length), (0o600, 0, attr.length));
    }

    #[tokio::test]
    async fn permissions_of_the_file_before_do_not_count() {
        let w = World::new(1).await;
        let (a, b) = (w.client().await, w.client().await);
        let user = Caller { uid: 7, gid: 7, pid: 1, check: true, groups: Vec::new() };
        let closed = replace(&a, b"closed").await;
        let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        a.vfs.setattr(&Caller::root(), closed, &set, None, None).await.unwrap();
        let open = replace(&a, b"open").await;
        assert_eq!(errno(b.vfs.open(&user, closed, LARGEFILE).await), Errno::ESTALE);
        assert_eq!(found(&b, &user).await.0, open);
        assert!(b.vfs.open(&user, open, LARGEFILE).await.is_ok());
        // By its own name in the trash it is refused the second time as well.
        let (one, write) = (thread(2), RW | LARGEFILE);
        assert_eq!(errno(b.vfs.open(&one, closed, write).await), Errno::ESTALE);
        assert_eq!(errno(b.vfs.open(&one, closed, write).await), Errno::EPERM);
    }

    #[tokio::test]
    async fn who_finds_no_name_any_more_looks_again_the_next_time() {
        let w = World::new(1).await;
        let (a, b) = (w.client().await, w.client().await);
        let (one, write) = (thread(1), RW | LARGEFILE);
        let ino = replace(&a, b"removed").await;
        a.vfs.unlink(&Caller::root(), Ino::ROOT, b"f").await.unwrap();
        assert_eq!(errno(b.vfs.open(&one, ino, write).await), Errno::ESTALE);
        assert_eq!(errno(b.vfs.lookup(&one, Ino::ROOT, b"f").await), Errno::ENOENT);
        // The kernel was given the name once more by a lookup that began before.
        assert_eq!(errno(b.vfs.open(&one, ino, write).await), Errno::ESTALE);
    }

    #[tokio::test]
    async fn a_file_that_is_open_here_is_opened_again_through_its_descriptor() {
        let w = World::new(0).await;
        let (a, b) = (w.client().await, w.client().await);
        let ino = replace(&a, b"held").await;
        let held = b.open(ino).await;
        replace(&a, b"other").await;
        assert_eq!(errno(b.vfs.open(&thread(1), ino, LARGEFILE).await), Errno::ESTALE);
        let again = b.vfs.open(&thread(1), ino, LARGEFILE).await.unwrap();
        for fh in [held, again.fh] {
            b.vfs.release(fh).await;
        }
    }
}
