//! Ways to the engine and the objects on which requests and replies take a drawn time, and what kind of run it is.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ciderfs_format::Ino;
use ciderfs_meta::memory::MemoryStore;
use ciderfs_meta::store::{Commit, DirCursor, DirEntry, Outcome, Read, Store, StoreError, Value};
use ciderfs_object::{Meta as ObjectMeta, ObjectStore, Result as ObjectResult};
use rand::RngExt as _;

/// Draws a number below `n`.
pub fn draw(n: u64) -> u64 {
    ciderfs_rt::replay::draw(|rng| rng.random_range(0..n)).unwrap_or(0)
}

/// Is it one of so many?
pub fn one_in(n: u64) -> bool {
    draw(n) == 0
}

/// What kind of run it is. What one hides another one shows: an old length is seen by who believes it for long, and an old answer
/// where many come and go.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// How long the kernels believe names and attributes.
    pub valid: Duration,
    /// How long files may be opened again without asking.
    pub open_cache: Duration,
    /// May files that are busy be read past the pages?
    pub mixes_direct: bool,
    /// Programs of each mount.
    pub programs: u64,
    /// The longest pause of a program in milliseconds.
    pub pause: u64,
    /// So many of a hundred messages are slow.
    pub slow: u64,
    /// The engine loses replies.
    pub loses: bool,
}

thread_local! {
    static PROFILE: Cell<Profile> = const { Cell::new(Profile {
        valid: Duration::ZERO,
        open_cache: Duration::ZERO,
        mixes_direct: true,
        programs: 0,
        pause: 0,
        slow: 0,
        loses: false,
    }) };
}

impl Profile {
    /// Draws that of this run.
    pub fn draw() {
        let pick = |of: [u64; 4]| of[draw(4) as usize];
        let open_cache = pick([0, 0, 300, 2000]);
        PROFILE.set(Self {
            valid: Duration::from_millis(pick([100, 1000, 1000, 20_000])),
            open_cache: Duration::from_millis(open_cache),
            mixes_direct: open_cache > 0 || one_in(2),
            programs: pick([2, 2, 3, 4]),
            pause: pick([40, 80, 1500, 7000]),
            slow: pick([1, 12, 12, 25]),
            loses: one_in(4),
        });
    }

    /// How old may be what the kernel believes? Its time begins when an answer arrives, and what the answer tells may be of
    /// when it was asked for: messages to the mount, to the engine, and those of a listing that was asked for before.
    pub fn age(&self) -> Duration {
        self.valid + self.open_cache + 6 * TRAVEL_MAX
    }
}

/// What kind of run this is.
pub fn profile() -> Profile {
    PROFILE.get()
}

/// The longest time that a message is under way.
const TRAVEL_MAX: Duration = Duration::from_millis(65);

/// Waits for as long as a message may be under way: mostly short, sometimes while many others come and go.
pub async fn travel() {
    if draw(100) < profile().slow {
        let ms = draw(TRAVEL_MAX.as_millis() as u64 - 5);
        return ciderfs_rt::sleep(Duration::from_millis(5 + ms)).await;
    }
    match draw(7) {
        0..3 => {}
        3 => tokio::task::yield_now().await,
        _ => ciderfs_rt::sleep(Duration::from_millis(1 + draw(4))).await,
    }
}

/// One client's way to the engine.
pub struct Slow(pub Arc<MemoryStore>);

async fn there_and_back<T>(call: impl Future<Output = T>) -> T {
    travel().await;
    let answer = call.await;
    travel().await;
    answer
}

#[async_trait]
impl Store for Slow {
    ciderfs_meta::forward_store! {
        |self| self.0 => engine, lists_in_order, describe, allocate, claim, scan, create_schema, now, memory, turns
    }

    async fn read(&self, reads: &[Read]) -> Result<Vec<Value>, StoreError> {
        trace(|| format!("read {reads:?}"));
        there_and_back(self.0.read(reads)).await
    }

    async fn commit(&self, commit: &Commit) -> Result<Outcome, StoreError> {
        trace(|| format!("commit {commit:?}"));
        let done = there_and_back(self.0.commit(commit)).await;
        if profile().loses && matches!(done, Ok(Outcome::Done(_))) && one_in(20) {
            return Err(StoreError::Ambiguous("the reply was lost".to_owned().into()));
        }
        done
    }

    async fn list_dir(
        &self,
        dir: Ino,
        cursor: &DirCursor,
        limit: usize,
        attrs: bool,
    ) -> Result<(Vec<DirEntry>, DirCursor), StoreError> {
        there_and_back(self.0.list_dir(dir, cursor, limit, attrs)).await
    }
}

/// The way to the objects.
#[derive(Debug)]
pub struct SlowObjects(pub Arc<ciderfs_object::MemoryStore>);

#[async_trait]
impl ObjectStore for SlowObjects {
    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> ObjectResult<()> {
        trace(|| format!("put {key}"));
        there_and_back(self.0.put_in_tier(key, body, tier)).await
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> ObjectResult<Bytes> {
        trace(|| format!("get {key} {range:?}"));
        there_and_back(self.0.get(key, range)).await
    }

    async fn head(&self, key: &str) -> ObjectResult<ObjectMeta> {
        self.0.head(key).await
    }

    async fn delete(&self, key: &str) -> ObjectResult<()> {
        trace(|| format!("delete {key}"));
        there_and_back(self.0.delete(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: &str,
        limit: usize,
    ) -> ObjectResult<Vec<ciderfs_object::Entry>> {
        self.0.list(prefix, start_after, limit).await
    }

    async fn create_bucket(&self, key: &str) -> ObjectResult<()> {
        self.0.create_bucket(key).await
    }

    fn describe(&self) -> String {
        self.0.describe()
    }

    fn supports_range(&self) -> bool {
        self.0.supports_range()
    }

    fn device(&self) -> Option<u64> {
        self.0.device()
    }
}

/// For whoever looks for what makes two runs differ.
pub fn trace(text: impl FnOnce() -> String) {
    if std::env::var_os("SIM_TRACE").is_some() {
        eprintln!("{:?} {}", ciderfs_rt::replay::elapsed().unwrap_or_default(), text());
    }
}
