//! An object store in memory that fails on demand, and what the tests share.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::{Compression, SliceId};
use ciderfs_object::{Entry, MemoryStore, Meta, ObjectError, ObjectStore, Result};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{BlockConfig, BlockStats, BlockStore, ReadHint};

/// What goes wrong with the next request of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails.
    Error,
    /// The body is this much shorter.
    Short(usize),
    /// One byte of the body is wrong.
    Flip,
}

#[derive(Debug)]
/// Counts, holds up and fails requests.
pub struct TestStore {
    pub objects: Mutex<HashMap<String, Bytes>>,
    pub ranges: bool,
    /// Number of the file system, 0 for none.
    pub device: AtomicU64,
    pub gets: AtomicUsize,
    pub range_gets: AtomicUsize,
    pub puts: AtomicUsize,
    pub deletes: AtomicUsize,
    pub running: AtomicUsize,
    pub most_running: AtomicUsize,
    pub get_faults: Mutex<Vec<Fault>>,
    pub put_faults: Mutex<Vec<Fault>>,
    pub delete_faults: Mutex<Vec<Fault>>,
    /// Every GET takes one permit; taken away by tests that want to hold them up.
    pub gate: Semaphore,
}

impl TestStore {
    pub fn new() -> Arc<Self> {
        Self::with_ranges(true)
    }

    pub fn with_ranges(ranges: bool) -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::default(),
            ranges,
            device: AtomicU64::new(0),
            gets: AtomicUsize::new(0),
            range_gets: AtomicUsize::new(0),
            puts: AtomicUsize::new(0),
            deletes: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            get_faults: Mutex::default(),
            put_faults: Mutex::default(),
            delete_faults: Mutex::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
        })
    }

    /// Holds up all GETs from now on.
    pub fn shut(&self) {
        self.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets them go on.
    pub fn open(&self) {
        self.gate.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    pub fn counts(&self) -> (usize, usize) {
        (self.gets.load(SeqCst), self.range_gets.load(SeqCst))
    }

    fn enter(&self) -> Running<'_> {
        let now = self.running.fetch_add(1, SeqCst) + 1;
        self.most_running.fetch_max(now, SeqCst);
        Running(self)
    }
}

#[derive(Debug)]
struct Running<'a>(&'a TestStore);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

fn failed(faults: &Mutex<Vec<Fault>>) -> Option<Fault> {
    faults.lock().pop()
}

fn injected() -> ObjectError {
    ObjectError::Config("injected".to_owned())
}

/// The error of a missing object, as a real store makes it.
async fn missing(key: &str) -> ObjectError {
    MemoryStore::default().get(key, None).await.unwrap_err()
}

#[async_trait]
impl ObjectStore for TestStore {
    fn supports_range(&self) -> bool {
        self.ranges
    }

    fn device(&self) -> Option<u64> {
        Some(self.device.load(SeqCst)).filter(|d| *d > 0)
    }

    async fn put_in_tier(&self, key: &str, data: Bytes, _tier: u8) -> Result<()> {
        let _running = self.enter();
        self.puts.fetch_add(1, SeqCst);
        tokio::task::yield_now().await;
        if failed(&self.put_faults).is_some() {
            return Err(injected());
        }
        self.objects.lock().insert(key.to_owned(), Bytes::copy_from_slice(&data));
        Ok(())
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let _running = self.enter();
        if range.is_some() { &self.range_gets } else { &self.gets }.fetch_add(1, SeqCst);
        let _open = self.gate.acquire().await;
        tokio::task::yield_now().await;
        let fault = failed(&self.get_faults);
        if fault == Some(Fault::Error) {
            return Err(injected());
        }
        let object = self.objects.lock().get(key).cloned();
        let Some(object) = object else { return Err(missing(key).await) };
        let mut body = match range {
            Some(r) => object[r.start as usize..(r.end as usize).min(object.len())].to_vec(),
            None => object.to_vec(),
        };
        match fault {
            Some(Fault::Short(n)) => body.truncate(body.len().saturating_sub(n)),
            Some(Fault::Flip) => body[0] ^= 0xff,
            _ => {}
        }
        Ok(body.into())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let _running = self.enter();
        self.deletes.fetch_add(1, SeqCst);
        tokio::task::yield_now().await;
        if failed(&self.delete_faults).is_some() {
            return Err(injected());
        }
        let object = self.objects.lock().remove(key);
        if object.is_some() { Ok(()) } else { Err(missing(key).await) }
    }

    async fn head(&self, _: &str) -> Result<Meta> {
        unreachable!()
    }

    async fn list(&self, _: &str, _: &str, _: usize) -> Result<Vec<Entry>> {
        unreachable!()
    }

    async fn create_bucket(&self, _key: &str) -> Result<()> {
        unreachable!()
    }

    fn describe(&self) -> String {
        "test".to_owned()
    }
}

pub const KIB: u32 = 1 << 10;
pub const MIB: u32 = 1 << 20;

/// A small volume without a disk cache.
pub fn config(block_size: u32) -> BlockConfig {
    BlockConfig { block_size, buffer_size: 32 << 20, cpu_threads: 2, ..BlockConfig::default() }
}

/// The same with a disk cache that ignores how full the machine is.
pub fn cached(block_size: u32, dir: &Path) -> BlockConfig {
    BlockConfig {
        cache_dirs: vec![dir.to_owned()],
        cache_size: 1 << 30,
        free_space_ratio: 0.0,
        ..config(block_size)
    }
}

/// Bytes that depend on the slice and the position, half of them compressible.
pub fn content(id: u64, size: u32) -> Bytes {
    let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(size as usize + 1024);
    while out.len() < size as usize {
        for _ in 0..32 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            out.extend_from_slice(&[state; 2].map(u64::to_le_bytes).concat());
        }
        out.resize(out.len() + 512, state as u8);
    }
    out.truncate(size as usize);
    out.into()
}

/// Uploads a slice block by block.
pub async fn upload(blocks: &BlockStore, id: u64, data: &Bytes) {
    let bs = blocks.block_size() as usize;
    for (indx, start) in (0..data.len()).step_by(bs).enumerate() {
        let end = (start + bs).min(data.len());
        blocks.put_block(SliceId(id), indx as u32, data.slice(start..end), 0).await.unwrap();
    }
}

/// The pieces of a read in one.
pub fn join(pieces: &[Bytes]) -> Vec<u8> {
    pieces.concat()
}

/// Reads a slice whole and compares it.
pub async fn expect(blocks: &BlockStore, id: u64, data: &Bytes, hint: ReadHint) {
    let size = data.len() as u32;
    let read = blocks.read(SliceId(id), size, 0, size, hint).await.unwrap();
    assert!(join(&read) == data[..], "slice {id} of {size} bytes differs");
}

/// Waits until something holds; fails after a long while.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok(), "never: {what}");
}

/// Fails instead of hanging.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("hangs")
}

pub const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

/// All cached block files below a cache directory.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for fan in std::fs::read_dir(dir.join("ciderfs/blocks")).unwrap() {
        for file in std::fs::read_dir(fan.unwrap().path()).unwrap() {
            out.push(file.unwrap().path());
        }
    }
    out.sort();
    out
}

/// Empties the memory cache.
pub fn forget_memory(blocks: &BlockStore) {
    use crate::budget::Reclaim as _;
    while blocks.inner.memory.reclaim() {}
}

/// Bytes of the blocks of a [`Volume`].
pub const BLOCK: u32 = 64 * KIB;

/// A slice of many blocks, in the object store.
pub struct Volume {
    pub store: Arc<TestStore>,
    pub data: Bytes,
}

impl Volume {
    pub async fn new(n: u32) -> Self {
        let (store, data) = (TestStore::new(), content(1, n * BLOCK));
        upload(&BlockStore::new(store.clone(), config(BLOCK)).unwrap(), 1, &data).await;
        Self { store, data }
    }

    pub fn open(&self, cfg: BlockConfig) -> Arc<BlockStore> {
        BlockStore::new(self.store.clone(), cfg).unwrap()
    }

    /// Reads a block and waits until the disk cache has done what it does with it.
    pub async fn read(&self, blocks: &BlockStore, indx: u32) {
        forget_memory(blocks);
        let before = blocks.stats();
        let read =
            blocks.read(SliceId(1), self.data.len() as u32, indx * BLOCK, BLOCK, ReadHint::Sequential).await;
        assert!(join(&read.unwrap()) == self.data[(indx * BLOCK) as usize..][..BLOCK as usize]);
        forget_memory(blocks);
        if blocks.stats().misses > before.misses {
            let done = |s: &BlockStats| s.cache_writes + s.cache_drops;
            until("it is written or dropped", || done(&blocks.stats()) > done(&before)).await;
            let pending = || blocks.inner.disk.dirs().iter().any(|dir| dir.is_writing());
            until("the writers are done", || !pending()).await;
        }
    }

    /// The blocks in the cache, by index.
    pub fn cached(&self, blocks: &BlockStore) -> BTreeSet<u32> {
        forget_memory(blocks);
        let size = self.data.len() as u32;
        (0..size / BLOCK).filter(|&indx| blocks.is_cached(SliceId(1), size, indx)).collect()
    }
}

/// Some indexes of blocks.
pub fn all(range: std::ops::Range<u32>) -> BTreeSet<u32> {
    range.collect()
}

/// Ends a client in good order.
pub async fn closed(blocks: Arc<BlockStore>) {
    blocks.shutdown().await;
}
