//! Answers that come late: what was learnt meanwhile counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use ciderfs_format::{Attr, Ino};
use ciderfs_meta::store::{Commit, Outcome, Store, StoreError};
use ciderfs_meta::{Caller, Lock, SetAttr};
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::support::*;
use crate::{DirItem, Growth, Kernel, LockRequest, Stale};

/// An engine that holds back the reply to a commit that it has made.
struct Late {
    inner: Arc<dyn Store>,
    armed: AtomicBool,
    made: Semaphore,
    go: Semaphore,
}

impl Late {
    fn new(w: &World) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(&w.meta) as Arc<dyn Store>,
            armed: AtomicBool::new(false),
            made: Semaphore::new(0),
            go: Semaphore::new(0),
        })
    }

    /// Starts work whose next commit is made, and whose reply then waits for [`Late::answer`].
    async fn hold<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.armed.store(true, Ordering::SeqCst);
        let work = tokio::spawn(work);
        self.made.acquire().await.unwrap().forget();
        work
    }

    fn answer(&self) {
        self.go.add_permits(1);
    }
}

#[async_trait]
impl Store for Late {
    ciderfs_meta::forward_store! {
        |self| self.inner =>
            engine, lists_in_order, describe, read, list_dir, allocate, claim, scan, create_schema,
            now, memory, turns
    }

    async fn commit(&self, commit: &Commit) -> Result<Outcome, StoreError> {
        let result = self.inner.commit(commit).await;
        if matches!(&result, Ok(Outcome::Done(_))) && self.armed.swap(false, Ordering::SeqCst) {
            self.made.add_permits(1);
            self.go.acquire().await.unwrap().forget();
        }
        result
    }
}

const SIZE: usize = 16 * KIB;

/// A file that `a` has written, with its handle, and one of `b`, through which some of it was read.
async fn held(a: &Client, b: &Client) -> (Ino, u64, u64) {
    let (ino, fh) = a.create("f").await;
    a.write(fh, 0, &[1; SIZE]).await;
    a.fsync(fh).await.unwrap();
    let held = b.open(ino).await;
    b.read(held, 0, 10).await;
    (ino, fh, held)
}

/// Whoever opens a file sees what another mount closed before, also while this one has a change of the same bytes under way
/// that was made before it; and the reply to that change does not bring back what it left.
#[tokio::test]
async fn a_change_that_is_overtaken_does_not_come_back() {
    const ZERO: u32 = libc::FALLOC_FL_ZERO_RANGE as u32;
    for deed in 0..4 {
        let w = World::new(1).await;
        let engine = Late::new(&w);
        let (a, b) = (w.client().await, w.client_on(Arc::clone(&engine) as Arc<dyn Store>).await);
        let (ino, fh, held) = held(&a, &b).await;
        if deed == 0 {
            b.write(held, 0, &[2; 4096]).await;
        }
        let vfs = Arc::clone(&b.vfs);
        let changing = engine
            .hold(async move {
                let root = Caller::root();
                match deed {
                    0 => vfs.fsync(held).await.map(|()| None),
                    1 => {
                        let set = SetAttr::default();
                        vfs.setattr_at(&root, ino, &set, Some(100), Some(held)).await.map(Some)
                    }
                    2 => vfs.fallocate(&root, held, ZERO, 0, 4096).await.map(|()| None),
                    _ => vfs.copy_file_range(&root, (held, 4096), (held, 0), 4096, 0).await.map(|_| None),
                }
            })
            .await;
        // It is made, and the reply on its way.
        a.write(fh, 0, &[3; 2 * SIZE]).await;
        a.close(fh).await.unwrap();
        let vfs = Arc::clone(&b.vfs);
        let opening =
            tokio::spawn(async move { vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.unwrap().fh });
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        // What is under way would hide, or undo, what the other has written.
        assert!(!opening.is_finished(), "deed {deed}");
        assert_eq!(b.length(ino).await, 2 * SIZE, "deed {deed}");
        engine.answer();
        let fresh = opening.await.unwrap();
        let told = changing.await.unwrap().unwrap();
        if let Some((attr, since)) = told {
            // What the answer tells the kernel, which takes it whatever it was told before.
            assert_eq!(b.vfs.tell_now(ino, attr, since).await.length, 2 * SIZE as u64);
        }
        assert!(b.read(fresh, 0, 2 * SIZE).await == [3; 2 * SIZE], "deed {deed}");
        assert_eq!(b.length(ino).await, 2 * SIZE, "deed {deed}");
        assert!(b.read(held, 0, 2 * SIZE).await == [3; 2 * SIZE], "deed {deed}");
    }
}

/// What is told of a file can be read, whoever asks in whatever way.
#[tokio::test]
async fn a_length_that_is_told_can_be_read() {
    let root = Caller::root();
    for way in 0..3 {
        let w = World::new(1).await;
        let (a, b) = (w.client().await, w.client().await);
        let (ino, fh) = a.create("f").await;
        a.write(fh, 0, &[1; 10]).await;
        a.fsync(fh).await.unwrap();
        let held = b.open(ino).await;
        assert_eq!(b.read(held, 0, SIZE).await.len(), 10);
        a.write(fh, 10, &[2; 5000]).await;
        a.fsync(fh).await.unwrap();
        let told = match way {
            0 => b.vfs.getattr(ino).await.unwrap().length as usize,
            1 => b.vfs.lookup(&root, Ino::ROOT, b"f").await.unwrap().attr.length as usize,
            _ => {
                let listing = b.vfs.opendir(&root, Ino::ROOT).await.unwrap();
                list(&b, listing, 0, 100, "f").await.1.unwrap().0
            }
        };
        assert_eq!(told, 5010);
        assert_eq!(b.read(held, 0, SIZE).await.len(), told, "way {way}");
    }
}

/// What was being fetched when a greater length was told does not take that back.
#[tokio::test]
async fn a_length_that_is_told_stays_until_it_is_known() {
    let w = World::new(1).await;
    let b = w.client().await;
    let (ino, fh) = b.create("f").await;
    b.write(fh, 0, &[1; 10]).await;
    b.fsync(fh).await.unwrap();
    let file = b.vfs.files.get(ino).unwrap();
    let old = file.attr();
    let asked = file.as_of();
    file.forget_content();
    let fetches = file.as_of();
    let mut new = Attr { length: 5010, ..old.clone() };
    (new.mtime.sec, new.ctime.sec) = (old.mtime.sec + 1, old.ctime.sec + 1);
    assert_eq!(file.tell(&new, asked).length, 5010);
    assert!(!file.learn(&old, fetches), "it was asked for before");
    assert!(file.learn(&new, file.as_of()));
    assert_eq!(file.attr().length, 5010);
}

/// The reply to an own change does not take back either what was told while it was under way.
#[tokio::test]
async fn an_own_change_does_not_take_back_what_was_told() {
    const PUNCH: u32 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
    let w = World::new(1).await;
    let engine = Late::new(&w);
    let (a, b) = (w.client().await, w.client_on(Arc::clone(&engine) as Arc<dyn Store>).await);
    let (ino, fh, held) = held(&a, &b).await;
    let vfs = Arc::clone(&b.vfs);
    let punching =
        engine.hold(async move { vfs.fallocate(&Caller::root(), held, PUNCH, 0, 4096).await }).await;
    a.write(fh, SIZE, &[3; SIZE]).await;
    a.close(fh).await.unwrap();
    assert_eq!(b.length(ino).await, 2 * SIZE);
    engine.answer();
    punching.await.unwrap().unwrap();
    assert!(b.read(held, SIZE, SIZE).await == [3; SIZE]);
}

/// A listing tells nothing older than another one has told.
#[tokio::test]
async fn two_listings_do_not_contradict_each_other() {
    let root = Caller::root();
    let w = World::new(1).await;
    let (a, b) = (w.client().await, w.client().await);
    let (_, fh) = a.create("f").await;
    a.write(fh, 0, &[1; 10]).await;
    a.fsync(fh).await.unwrap();
    let (first, second) =
        (b.vfs.opendir(&root, Ino::ROOT).await.unwrap(), b.vfs.opendir(&root, Ino::ROOT).await.unwrap());
    let (at, _) = list(&b, first, 0, 1, "").await;
    assert_eq!(list(&b, first, at, 100, "f").await.1, Some((10, 0o644, 1)));
    a.write(fh, 10, &[2; 5000]).await;
    a.fsync(fh).await.unwrap();
    assert_eq!(list(&b, second, 0, 100, "f").await.1, Some((5010, 0o644, 1)));
    assert_eq!(list(&b, first, at, 100, "f").await.1, None);
    // Where nothing has changed both tell.
    let third = b.vfs.opendir(&root, Ino::ROOT).await.unwrap();
    assert_eq!(list(&b, third, 0, 100, "f").await.1, Some((5010, 0o644, 1)));
    assert_eq!(list(&b, second, at, 100, "f").await.1, Some((5010, 0o644, 1)));
}

/// A commit during which nothing newer is learnt costs no turn more, and no page.
#[tokio::test]
async fn a_change_of_the_mode_during_a_commit_costs_no_pages() {
    let root = Caller::root();
    let w = World::new(1).await;
    let engine = Late::new(&w);
    let b = w.client_on(Arc::clone(&engine) as Arc<dyn Store>).await;
    let (ino, fh) = b.create("f").await;
    b.write(fh, 0, &[1; SIZE]).await;
    b.fsync(fh).await.unwrap();
    b.read(fh, 0, 10).await;
    b.write(fh, 0, &[2; 4096]).await;
    let vfs = Arc::clone(&b.vfs);
    let flush = engine.hold(async move { vfs.fsync(fh).await }).await;
    // As a compaction does that ends now.
    b.vfs.files.get(ino).unwrap().forget_content();
    let before = engine.turns();
    engine.answer();
    flush.await.unwrap().unwrap();
    assert_eq!(engine.turns(), before);
    let opened = b.vfs.open(&root, ino, libc::O_RDONLY).await.unwrap();
    assert!(opened.keep_cache && !opened.direct_io);
    assert!(b.read(opened.fh, 0, 4096).await == [2; 4096]);
}

/// What a mount changes itself does not make a file busy, also where opens see it before the mount is told that it is done.
#[tokio::test]
async fn own_changes_do_not_make_a_file_busy() {
    let root = Caller::root();
    let w = World::new(1).await;
    let engine = Late::new(&w);
    let b = w.client_on(Arc::clone(&engine) as Arc<dyn Store>).await;
    b.vfs.set_mixes_direct(true);
    let (ino, fh) = b.create("f").await;
    for n in 1..8 {
        let vfs = Arc::clone(&b.vfs);
        let set = SetAttr::default();
        let cut = engine
            .hold(async move { vfs.setattr(&Caller::root(), ino, &set, Some(n * 1000), Some(fh)).await })
            .await;
        let vfs = Arc::clone(&b.vfs);
        let opening =
            tokio::spawn(async move { vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.unwrap() });
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        engine.answer();
        cut.await.unwrap().unwrap();
        assert!(!opening.await.unwrap().direct_io);
    }
    // Another mount that does so does.
    let a = w.client().await;
    let far = a.open(ino).await;
    let mut direct = false;
    for n in 1..8 {
        a.truncate(ino, far, n * 100).await;
        direct = b.vfs.open(&root, ino, libc::O_RDONLY).await.unwrap().direct_io;
        assert!(!direct || n > 2);
    }
    assert!(direct);
    assert!(!b.vfs.open(&root, ino, RW).await.unwrap().direct_io);
}

/// Lists a directory from an offset, so many entries; what it tells of one of them.
async fn list(c: &Client, fh: u64, at: u64, most: usize, name: &str) -> (u64, Option<(usize, u16, u32)>) {
    let (mut n, mut next, mut found) = (0, at, None);
    let mut sink = |item: DirItem<'_>| {
        if n == most {
            return true;
        }
        n += 1;
        next = item.next_offset;
        if item.name == name.as_bytes() {
            found = item.attr.map(|a| (a.length as usize, a.mode, a.nlink));
        }
        false
    };
    c.vfs.readdir(fh, at, true, &mut sink).await.unwrap();
    (next, found)
}

/// A listing that goes on tells nothing of an inode that is older than what this mount has done to it, or told of it, since.
#[tokio::test]
async fn a_listing_does_not_tell_what_is_out_of_date() {
    let root = Caller::root();
    for deed in 0..9 {
        let w = World::new(1).await;
        let (a, b) = (w.client().await, w.client().await);
        let (ino, fh) = a.create("f").await;
        a.write(fh, 0, &[1; 10]).await;
        a.fsync(fh).await.unwrap();
        a.create("g").await;
        let dir = a.vfs.create(&root, Ino::ROOT, b"d", &dir_node()).await.unwrap().ino;
        let listing = b.vfs.opendir(&root, Ino::ROOT).await.unwrap();
        // The first entry fetches all.
        let (at, _) = list(&b, listing, 0, 1, "").await;
        let fixed = list(&b, listing, at, 100, "f").await;
        assert_eq!(fixed.1, Some((10, 0o644, 1)), "nothing has happened");
        let mode = SetAttr { mode: Some(0o600), ..SetAttr::default() };
        match deed {
            0 => _ = b.vfs.setattr(&root, ino, &mode, None, None).await.unwrap(),
            1 => _ = b.vfs.setattr(&root, ino, &SetAttr::default(), Some(500), None).await.unwrap(),
            2 => {
                let held = b.open(ino).await;
                b.vfs.setattr(&root, ino, &mode, None, Some(held)).await.unwrap();
            }
            3 => _ = b.vfs.link(&root, ino, dir, b"too").await.unwrap(),
            4 => {
                let held = b.open(ino).await;
                b.write(held, 0, &[2; 5000]).await;
                b.close(held).await.unwrap();
            }
            5 => {
                // By another mount, but an open here has seen it.
                a.write(fh, 0, &[2; 5000]).await;
                a.close(fh).await.unwrap();
                b.open(ino).await;
            }
            6 => {
                a.write(fh, 0, &[2; 5000]).await;
                a.close(fh).await.unwrap();
                assert_eq!(b.length(ino).await, 5000);
            }
            7 => {
                a.write(fh, 0, &[2; 5000]).await;
                a.close(fh).await.unwrap();
                b.vfs.lookup(&root, Ino::ROOT, b"f").await.unwrap();
            }
            _ => {
                b.vfs.set_xattr(&root, ino, b"user.x", "y".into(), Default::default()).await.unwrap();
            }
        }
        let now = b.vfs.getattr(ino).await.unwrap();
        let now = (now.length as usize, now.mode, now.nlink);
        let (_, told) = list(&b, listing, at, 100, "f").await;
        assert!(
            told.is_none() || (told == Some(now) && deed != 8),
            "deed {deed}: told {told:?}, really {now:?}"
        );
        // Others are still told along with their names.
        assert_eq!(list(&b, listing, at, 100, "g").await.1, Some((0, 0o644, 1)), "deed {deed}");
        b.vfs.releasedir(listing);
    }
}

/// The kernel has dropped nothing for an open that it gave up.
#[tokio::test]
async fn an_open_that_is_given_up_drops_no_pages() {
    let w = World::new(1).await;
    let (a, b) = (w.client().await, w.client().await);
    let (ino, fh) = a.create("f").await;
    a.write(fh, 0, &[1; SIZE]).await;
    a.fsync(fh).await.unwrap();
    let keeps = async || {
        let opened = b.vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.unwrap();
        b.read(opened.fh, 0, 10).await;
        b.close(opened.fh).await.unwrap();
        opened.keep_cache
    };
    assert!(!keeps().await && keeps().await);
    a.write(fh, 0, &[2; SIZE]).await;
    a.close(fh).await.unwrap();
    let given_up = b.vfs.open(&Caller::root(), ino, libc::O_RDONLY).await.unwrap();
    b.vfs.release(given_up.fh).await;
    assert!(!keeps().await && keeps().await);
}

/// Nobody gets a lock before the kernel has forgotten what it holds from before.
#[tokio::test]
async fn every_lock_waits_until_old_pages_are_forgotten() {
    let w = World::new(1).await;
    let (a, b) = (w.client().await, w.client().await);
    let (ino, fh) = a.create("f").await;
    a.write(fh, 0, &[1; SIZE]).await;
    a.fsync(fh).await.unwrap();
    let (one, two) = (b.open(ino).await, b.open(ino).await);
    let (asked, forgotten) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (began, go) = (Arc::clone(&asked), Arc::clone(&forgotten));
    b.vfs.set_kernel(Arc::new(Slow { began, go }));
    a.write(fh, 0, &[2; SIZE]).await;
    a.close(fh).await.unwrap();
    let lock = |fh, owner| {
        let vfs = Arc::clone(&b.vfs);
        let request = LockRequest { fh, owner, pid: 1, lock: Lock::Flock(Some(false)) };
        tokio::spawn(async move { vfs.lock(request, true, std::future::pending()).await })
    };
    let first = lock(one, 1);
    soon(asked.acquire()).await.unwrap().forget();
    let second = lock(two, 2);
    // The second one waits for what the first one has asked for.
    tokio::task::yield_now().await;
    assert!(!first.is_finished() && !second.is_finished());
    forgotten.close();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    until("what is forgotten to be forgotten", async || {
        let before = asked.available_permits();
        soon(lock(one, 1)).await.unwrap().unwrap();
        asked.available_permits() == before
    })
    .await;
}

/// The kernel throws an answer away that was asked for before it was told to disbelieve attributes: whoever has a lock would go by
/// an old length.
#[tokio::test]
async fn an_open_does_not_overtake_what_the_holder_of_a_lock_asks() {
    let w = World::new(1).await;
    let (a, b) = (w.client().await, w.client().await);
    let (ino, fh) = a.create("f").await;
    a.fsync(fh).await.unwrap();
    let (holder, told) = (b.open(ino).await, Arc::new(Counts::default()));
    b.vfs.set_kernel(Arc::clone(&told) as Arc<dyn Kernel>);
    let at = |told: &Counts| told.0.load(Ordering::Relaxed);
    for (n, length) in [5, 9, 3].into_iter().enumerate() {
        a.truncate(ino, fh, length).await;
        let before = at(&told);
        let request = LockRequest { fh: holder, owner: 1, pid: 1, lock: Lock::Flock(Some(true)) };
        b.vfs.lock(request, true, std::future::pending()).await.unwrap();
        let locked = at(&told);
        assert!(locked > before, "the kernel knows that the file has changed");
        let other = b.open(ino).await;
        assert_eq!(at(&told), locked, "change {n}: told once more, under the lock");
        b.close(other).await.unwrap();
        b.vfs
            .lock(LockRequest { lock: Lock::Flock(None), ..request }, true, std::future::pending())
            .await
            .unwrap();
    }
}

/// A kernel that counts what it must not believe.
#[derive(Default)]
struct Counts(AtomicU64);

impl Counts {
    fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Kernel for Counts {
    fn invalidate(&self, _: Ino, _: Stale) {
        self.count();
    }

    fn forget_name(&self, _: Ino, _: &[u8]) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn forget(&self, _: Ino, _: u64, _: u64) -> BoxFuture<'static, ()> {
        self.count();
        Box::pin(async {})
    }

    fn grow(&self, _: Growth) -> BoxFuture<'static, bool> {
        self.count();
        Box::pin(std::future::ready(true))
    }
}

/// A kernel that forgets when it is let.
struct Slow {
    began: Arc<Semaphore>,
    go: Arc<Semaphore>,
}

impl Kernel for Slow {
    fn invalidate(&self, _: Ino, _: Stale) {}

    fn forget_name(&self, _: Ino, _: &[u8]) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn forget(&self, _: Ino, _: u64, _: u64) -> BoxFuture<'static, ()> {
        let (began, go) = (Arc::clone(&self.began), Arc::clone(&self.go));
        Box::pin(async move {
            began.add_permits(1);
            drop(go.acquire().await);
        })
    }

    fn grow(&self, _: Growth) -> BoxFuture<'static, bool> {
        Box::pin(std::future::ready(false))
    }
}
