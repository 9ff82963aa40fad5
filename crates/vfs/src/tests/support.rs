//! A volume in memory and clients of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_block::{BlockConfig, BlockStore};
use ciderfs_format::{Attr, FileType, Ino, Settings, Time};
use ciderfs_handover::State;
use ciderfs_meta::memory::MemoryStore;
use ciderfs_meta::store::Store;
use ciderfs_meta::{Caller, Errno, Meta, MetaConfig, NewNode, Result, SetAttr};
use ciderfs_object::ObjectStore;
use ciderfs_object::layers::Faulty;

use crate::{Metrics, OpenCache, Resumed, Vfs, VfsConfig};

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;
pub(super) const RW: i32 = libc::O_RDWR;

/// Attributes of a plain file.
pub(crate) fn file_attr(length: u64, time: Time) -> Attr {
    Attr {
        flags: 0,
        kind: FileType::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        atime: time,
        mtime: time,
        ctime: time,
        nlink: 1,
        length,
        rdev: 0,
        parent: Ino::ROOT,
        access_acl: 0,
        default_acl: 0,
        tier: 0,
    }
}

/// A formatted volume: metadata and objects.
pub(super) struct World {
    pub(super) meta: Arc<MemoryStore>,
    pub(super) objects: Arc<Faulty>,
    /// What is behind it.
    pub(super) stored: Arc<ciderfs_object::MemoryStore>,
    pub(super) block_size: u32,
    pub(super) buffer_size: u64,
}

impl World {
    pub(super) async fn new(trash_days: u32) -> Self {
        Self::with(trash_days, |_| {}).await
    }

    pub(super) async fn with(trash_days: u32, tweak: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new("vol", "5d2b1c9a-7d0c-4a2b-9a35-3a1f6a4d2c11", "mem", "mem");
        settings.trash_days = trash_days;
        settings.block_size_kib = 64;
        tweak(&mut settings);
        let meta = Arc::new(MemoryStore::new());
        meta.create_schema().await.unwrap();
        Meta::write_settings(meta.as_ref(), &settings, None).await.unwrap();
        let stored = Arc::new(ciderfs_object::MemoryStore::default());
        let objects = Arc::new(Faulty::new(Arc::clone(&stored) as Arc<dyn ObjectStore>, 1));
        Self { meta, objects, stored, block_size: 64 << 10, buffer_size: 64 << 20 }
    }

    /// Another mount.
    pub(super) async fn client(&self) -> Client {
        self.client_on(Arc::clone(&self.meta) as Arc<dyn Store>).await
    }

    /// Another mount, with its own way to the engine.
    pub(super) async fn client_on(&self, store: Arc<dyn Store>) -> Client {
        self.client_with(store, OpenCache::default()).await
    }

    /// A mount that leaves what it has to the next process; with `resume` it is that process.
    pub(super) async fn process(&self, state: Arc<State>, resume: bool) -> (Client, Resumed) {
        self.process_on(Arc::clone(&self.meta) as Arc<dyn Store>, state, resume).await
    }

    /// The same with its own way to the engine.
    pub(super) async fn process_on(
        &self,
        store: Arc<dyn Store>,
        state: Arc<State>,
        resume: bool,
    ) -> (Client, Resumed) {
        let cfg = MetaConfig { heartbeat: Duration::ZERO, ..MetaConfig::default() };
        let meta = Meta::load(store, cfg).await.unwrap();
        let lives = match resume {
            true => meta.take_over_session(state.sid()).await.unwrap(),
            false => meta.start_session().await.map(|()| true).unwrap(),
        };
        let client = self.client_of(meta, OpenCache::default(), Some(state));
        let found = if resume { client.vfs.resume(lives).await.unwrap() } else { Resumed::default() };
        (client, found)
    }

    /// Another mount that remembers what it has opened for so long.
    pub(super) async fn client_remembering(&self, valid: Duration) -> Client {
        let open_cache = OpenCache { valid, ..OpenCache::default() };
        self.client_with(Arc::clone(&self.meta) as Arc<dyn Store>, open_cache).await
    }

    async fn client_with(&self, store: Arc<dyn Store>, open_cache: OpenCache) -> Client {
        let cfg = MetaConfig { heartbeat: Duration::ZERO, ..MetaConfig::default() };
        let meta = Meta::load(store, cfg).await.unwrap();
        meta.start_session().await.unwrap();
        self.client_of(meta, open_cache, None)
    }

    fn client_of(&self, meta: Arc<Meta>, open_cache: OpenCache, handover: Option<Arc<State>>) -> Client {
        let blocks = BlockConfig {
            block_size: self.block_size,
            buffer_size: self.buffer_size,
            ..BlockConfig::default()
        };
        let objects = Arc::clone(&self.objects) as Arc<dyn ObjectStore>;
        let blocks = BlockStore::new(objects, blocks).unwrap();
        let cfg = VfsConfig {
            max_readahead: None,
            hide_internal: false,
            prefix_internal: false,
            sort_dir: false,
            attr_valid: Duration::from_secs(1),
            open_cache,
            config_json: serde_json::Value::Null,
            metrics: Arc::new(Metrics::new(HashMap::new()).unwrap()),
            handover,
        };
        Client { vfs: Vfs::new(Arc::clone(&meta), blocks, cfg), meta }
    }

    /// Changes the settings; mounts see it at their next heartbeat, new ones at once.
    pub(super) async fn set(&self, tweak: impl FnOnce(&mut Settings)) {
        let old = Meta::read_settings(self.meta.as_ref()).await.unwrap().unwrap();
        let mut new = old.clone();
        tweak(&mut new);
        Meta::write_settings(self.meta.as_ref(), &new, Some(&old)).await.unwrap();
    }

    /// Names of the stored objects.
    pub(super) async fn objects(&self) -> Vec<String> {
        self.objects.list("", "", usize::MAX).await.unwrap().into_iter().map(|e| e.key).collect()
    }
}

/// One mount.
pub(super) struct Client {
    pub(super) vfs: Arc<Vfs>,
    pub(super) meta: Arc<Meta>,
}

impl Client {
    pub(super) async fn create(&self, name: &str) -> (Ino, u64) {
        let flags = RW | libc::O_CREAT | libc::O_EXCL;
        let made = self.vfs.create_open(&Caller::root(), Ino::ROOT, name.as_bytes(), 0o644, 0, flags).await;
        let (entry, opened) = made.unwrap();
        (entry.ino, opened.fh)
    }

    pub(super) async fn open(&self, ino: Ino) -> u64 {
        self.vfs.open(&Caller::root(), ino, RW).await.unwrap().fh
    }

    pub(super) async fn write(&self, fh: u64, off: usize, data: &[u8]) {
        assert_eq!(self.vfs.write(fh, off as u64, data).await.unwrap() as usize, data.len());
    }

    pub(super) async fn read(&self, fh: u64, off: usize, len: usize) -> Vec<u8> {
        self.try_read(fh, off, len).await.unwrap()
    }

    pub(super) async fn try_read(&self, fh: u64, off: usize, len: usize) -> Result<Vec<u8>> {
        Ok(self.vfs.read(fh, off as u64, len as u32, true).await?.concat())
    }

    pub(super) async fn fsync(&self, fh: u64) -> Result<()> {
        self.vfs.fsync(fh).await
    }

    pub(super) async fn close(&self, fh: u64) -> Result<()> {
        let result = self.vfs.close_descriptor(fh, 0).await;
        self.vfs.release(fh).await;
        result
    }

    pub(super) async fn truncate(&self, ino: Ino, fh: u64, size: usize) {
        let set = SetAttr::default();
        self.vfs.setattr(&Caller::root(), ino, &set, Some(size as u64), Some(fh)).await.unwrap();
    }

    pub(super) async fn unlink(&self, name: &str) {
        self.vfs.unlink(&Caller::root(), Ino::ROOT, name.as_bytes()).await.unwrap();
    }

    pub(super) async fn length(&self, ino: Ino) -> usize {
        self.vfs.getattr(ino).await.unwrap().length as usize
    }
}

/// A new directory.
pub(super) const fn dir_node() -> NewNode<'static> {
    NewNode { kind: FileType::Directory, mode: 0o755, umask: 0, rdev: 0, target: b"" }
}

/// Bytes that tell their seed and place.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

/// Fails loudly instead of hanging.
pub(super) async fn soon<T>(f: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), f).await.expect("no end in 120 s")
}

/// Waits for a condition.
pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: not within 60 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) fn errno<T: std::fmt::Debug>(r: Result<T>) -> Errno {
    r.unwrap_err().errno()
}
