//! A volume with clients, for tests of operations.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use ciderfs_format::settings::Settings;
use ciderfs_format::{Attr, FileType, Ino, Slice, Time};
use parking_lot::Mutex;

use super::Engine;
use super::check::check;
use super::flaky::Flaky;
use crate::error::Errno;
use crate::store::{DirCursor, Store};
use crate::types::{Caller, NewNode, NewSlice, Removed, Written};
use crate::volume::{Clock, Meta, MetaConfig, SliceRemover};
use crate::{Result, SetAttr};

/// A clock that the test moves; every look at it moves it by a microsecond, so that times are told apart.
pub(super) struct TestClock(AtomicI64);

impl TestClock {
    /// Microseconds of the start: in 2033, later than anything that the machine's clock says, in the middle of an hour.
    const START: i64 = 2_000_001_600_000_000;

    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(Self::START)))
    }

    pub(super) fn advance(&self, seconds: i64) {
        self.advance_millis(seconds * 1000);
    }

    pub(super) fn advance_millis(&self, millis: i64) {
        self.0.fetch_add(millis * 1000, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Time {
        let micros = self.0.fetch_add(1, Ordering::SeqCst);
        Time { sec: micros / 1_000_000, nsec: (micros % 1_000_000) as u32 * 1000 }
    }

    fn steady(&self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.load(Ordering::SeqCst).unsigned_abs())
    }

    fn is_the_engines(&self) -> bool {
        true
    }
}

/// Remembers which slices were to be deleted, and can refuse.
#[derive(Default)]
pub(super) struct Recorder {
    removed: Mutex<BTreeSet<(u64, u32)>>,
    refuse: Mutex<bool>,
}

impl Recorder {
    /// What was removed since the last call.
    pub(super) fn take(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut *self.removed.lock()).into_iter().collect()
    }

    pub(super) fn refuse(&self, refuse: bool) {
        *self.refuse.lock() = refuse;
    }
}

#[async_trait]
impl SliceRemover for Recorder {
    async fn remove_slice(&self, id: u64, size: u32) -> std::result::Result<(), String> {
        if *self.refuse.lock() {
            return Err("the object store is away".into());
        }
        assert!(self.removed.lock().insert((id, size)), "slice {id} deleted twice");
        Ok(())
    }
}

/// A formatted volume.
pub(super) struct World {
    pub(super) engine: Engine,
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<TestClock>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) settings: Settings,
}

impl World {
    /// A volume with default settings but without trash.
    pub(super) async fn new(engine: Engine) -> Self {
        Self::with(engine, |_| {}).await
    }

    /// A volume with the trash on.
    pub(super) async fn with_trash(engine: Engine) -> Self {
        Self::with(engine, |s| s.trash_days = 1).await
    }

    pub(super) async fn with(engine: Engine, tweak: impl FnOnce(&mut Settings)) -> Self {
        let mut settings =
            Settings::new("suite", "5f1c3a86-0000-4000-8000-000000000001", "file", "/nowhere/");
        settings.trash_days = 0;
        tweak(&mut settings);
        let store = engine.open().await;
        Meta::write_settings(store.as_ref(), &settings, None).await.unwrap();
        Self { engine, store, clock: TestClock::new(), recorder: Arc::default(), settings }
    }

    pub(super) fn config() -> MetaConfig {
        MetaConfig {
            heartbeat: std::time::Duration::ZERO,
            no_bgjob: true,
            retry_patience: std::time::Duration::from_secs(20),
            ..MetaConfig::default()
        }
    }

    /// A client without a session: nothing happens behind its back.
    pub(super) async fn client(&self) -> Client {
        self.client_with(Self::config()).await
    }

    pub(super) async fn client_with(&self, cfg: MetaConfig) -> Client {
        Client::over(self.engine.open().await, self, cfg).await
    }

    /// A client, and what lies between it and the engine.
    pub(super) async fn client_behind(&self, seed: u64) -> (Arc<Flaky>, Client) {
        let between = Flaky::new(self.engine.open().await, seed);
        let store = Arc::clone(&between) as Arc<dyn Store>;
        (between, Client::over(store, self, Self::config()).await)
    }

    /// A client with a session.
    pub(super) async fn mounted(&self) -> Client {
        let c = self.client().await;
        c.meta.start_session().await.unwrap();
        c
    }

    /// Sessions that tell the others for whose locks they wait.
    pub(super) async fn told_waits(&self) -> usize {
        let told = self.store.read(&[crate::store::Read::Plocks(crate::locks::WAITS)]).await.unwrap();
        let [crate::store::Value::Plocks(told)] = &told[..] else { panic!("{told:?}") };
        told.len()
    }

    /// Checks every record of the volume against every other.
    pub(super) async fn check(&self) {
        check(self.store.as_ref()).await;
    }
}

/// A client and shorthands for what tests do all the time, as the superuser.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) meta: Arc<Meta>,
}

/// The root directory.
pub(super) const ROOT: Ino = Ino::ROOT;

/// A caller whose permissions are checked.
pub(super) fn user(uid: u32, gid: u32) -> Caller {
    Caller { uid, gid, groups: Vec::new(), pid: 1, check: true }
}

pub(super) fn root() -> Caller {
    Caller { check: true, ..Caller::root() }
}

/// A node of a kind.
pub(super) fn node(kind: FileType, mode: u16) -> NewNode<'static> {
    let target = if kind == FileType::Symlink { &b"target"[..] } else { b"" };
    NewNode { kind, mode, umask: 0, rdev: 0, target }
}

impl Client {
    pub(super) async fn over(store: Arc<dyn Store>, world: &World, cfg: MetaConfig) -> Self {
        let clock = Arc::clone(&world.clock);
        let meta = Meta::load_with_clock(store, cfg, clock).await.unwrap();
        meta.set_slice_remover(Arc::clone(&world.recorder) as Arc<dyn SliceRemover>);
        Self { meta }
    }

    pub(super) async fn make(&self, dir: Ino, name: &str, kind: FileType) -> Result<Ino> {
        let made = self.meta.create(&root(), dir, name.as_bytes(), &node(kind, 0o755)).await;
        made.map(|(ino, _)| ino)
    }

    pub(super) async fn file(&self, dir: Ino, name: &str) -> Ino {
        self.make(dir, name, FileType::File).await.unwrap()
    }

    pub(super) async fn dir(&self, dir: Ino, name: &str) -> Ino {
        self.make(dir, name, FileType::Directory).await.unwrap()
    }

    pub(super) async fn find(&self, dir: Ino, name: &str) -> Result<Ino> {
        self.meta.lookup(&root(), dir, name.as_bytes()).await.map(|(ino, _)| ino)
    }

    pub(super) async fn stat(&self, ino: Ino) -> Attr {
        self.meta.getattr(ino).await.unwrap()
    }

    pub(super) async fn nlink(&self, ino: Ino) -> u32 {
        self.stat(ino).await.nlink
    }

    pub(super) async fn gone(&self, ino: Ino) -> bool {
        matches!(self.meta.getattr(ino).await, Err(e) if e.errno() == Errno::ENOENT)
    }

    pub(super) async fn link(&self, ino: Ino, dir: Ino, name: &str) -> Result<Attr> {
        self.meta.link(&root(), ino, dir, name.as_bytes()).await
    }

    pub(super) async fn unlink(&self, dir: Ino, name: &str) -> Result<Removed> {
        self.meta.unlink(&root(), dir, name.as_bytes()).await
    }

    pub(super) async fn rmdir(&self, dir: Ino, name: &str) -> Result<Removed> {
        self.meta.rmdir(&root(), dir, name.as_bytes()).await
    }

    pub(super) async fn rename(&self, from: (Ino, &str), to: (Ino, &str)) -> Result<Option<Removed>> {
        self.meta
            .rename(&root(), from.0, from.1.as_bytes(), to.0, to.1.as_bytes(), 0)
            .await
            .map(|r| r.replaced)
    }

    pub(super) async fn rename_with(&self, flags: u32, from: (Ino, &str), to: (Ino, &str)) -> Result<()> {
        self.meta.rename(&root(), from.0, from.1.as_bytes(), to.0, to.1.as_bytes(), flags).await.map(drop)
    }

    pub(super) async fn chmod(&self, ino: Ino, mode: u16) {
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        self.meta.setattr(&root(), ino, &set).await.unwrap();
    }

    pub(super) async fn chown(&self, ino: Ino, uid: u32, gid: u32) {
        let set = SetAttr { uid: Some(uid), gid: Some(gid), ..SetAttr::default() };
        self.meta.setattr(&root(), ino, &set).await.unwrap();
    }

    pub(super) async fn truncate(&self, ino: Ino, length: u64) -> Result<Attr> {
        Ok(self.meta.truncate(&root(), ino, length, true).await?.attr)
    }

    /// Appends one fresh slice of `len` bytes at `pos` of a chunk and returns it.
    pub(super) async fn put(&self, ino: Ino, indx: u32, pos: u32, len: u32) -> Slice {
        let slice = self.fresh(pos, len).await;
        self.append(ino, indx, vec![slice]).await.unwrap();
        slice
    }

    pub(super) async fn fresh(&self, pos: u32, len: u32) -> Slice {
        Slice { pos, id: self.meta.new_slice_id().await.unwrap(), size: len, off: 0, len }
    }

    pub(super) async fn append(&self, ino: Ino, indx: u32, slices: Vec<Slice>) -> Result<Written> {
        let mtime = self.meta.clock.now();
        let new: Vec<NewSlice> = slices.into_iter().map(|s| NewSlice::at(indx, s)).collect();
        self.meta.write(ino, &new, mtime).await
    }

    /// Names of a directory, sorted.
    pub(super) async fn ls(&self, dir: Ino) -> Vec<String> {
        let mut names = BTreeSet::new();
        let mut cursor = DirCursor::Start;
        while cursor != DirCursor::End {
            let page = self.meta.list_dir(&root(), dir, &cursor, 1000, false).await.unwrap();
            names.extend(page.entries.into_iter().map(|e| String::from_utf8_lossy(&e.name).into_owned()));
            cursor = page.next;
        }
        names.into_iter().collect()
    }
}

/// The errno of a failure.
#[track_caller]
pub(super) fn errno<T: std::fmt::Debug>(result: Result<T>) -> Errno {
    match result {
        Err(e) => e.errno(),
        Ok(v) => panic!("expected an error, got {v:?}"),
    }
}
