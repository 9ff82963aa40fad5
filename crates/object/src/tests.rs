use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::layers::{
    Cipher, Encrypted, Faults, Faulty, Limited, Limits, Metered, Paced, Prefixed, Replaceable, Request,
    Retried, Sharded,
};
use crate::{FileStore, MemoryStore, ObjectError, ObjectStore, StoreConfig, has_other_objects, open, probe};

/// What every store must do.
async fn behaves(store: &dyn ObjectStore) {
    store.create_bucket("k").await.unwrap();
    probe(store, "vol", 1).await.unwrap();
    assert!(!has_other_objects(store).await.unwrap());
    assert!(matches!(store.get("a/b", None).await, Err(ObjectError::NotFound(_))));
    assert!(matches!(store.head("a/b").await, Err(ObjectError::NotFound(_))));
    store.delete("a/b").await.unwrap();
    assert!(store.put_new("a/b", Bytes::from_static(b"first")).await.unwrap());
    assert!(!store.put_new("a/b", Bytes::from_static(b"second")).await.unwrap());
    assert_eq!(store.get("a/b", None).await.unwrap(), "first");
    for key in ["a/b", "a/b0", "a-b", "a/c/d", "z"] {
        store.put(key, Bytes::from(format!("body of {key}"))).await.unwrap();
    }
    assert_eq!(store.get("a/b", None).await.unwrap(), "body of a/b");
    assert_eq!(store.get("a/b", Some(5..7)).await.unwrap(), "of");
    assert_eq!(store.get("a/b", Some(8..99)).await.unwrap(), "a/b");
    assert_eq!(store.head("z").await.unwrap().size, 9);
    store.put("z", Bytes::from_static(b"new")).await.unwrap();
    assert_eq!(store.get("z", None).await.unwrap(), "new");
    let keys = |page: Vec<crate::Entry>| page.into_iter().map(|e| e.key).collect::<Vec<_>>();
    assert_eq!(keys(store.list("", "", 100).await.unwrap()), ["a-b", "a/b", "a/b0", "a/c/d", "z"]);
    assert_eq!(keys(store.list("", "a/b", 2).await.unwrap()), ["a/b0", "a/c/d"]);
    assert_eq!(keys(store.list("a/", "", 100).await.unwrap()), ["a/b", "a/b0", "a/c/d"]);
    assert!(has_other_objects(store).await.unwrap());
    store.delete("a/b").await.unwrap();
    assert!(matches!(store.get("a/b", None).await, Err(ObjectError::NotFound(_))));
}

#[tokio::test]
async fn file_store_behaves() {
    let dir = tempfile::tempdir().unwrap();
    behaves(&FileStore::new(dir.path().join("bucket"))).await;
}

#[tokio::test]
async fn memory_store_behaves() {
    behaves(&MemoryStore::default()).await;
}

#[tokio::test]
async fn prefixed_and_sharded_stores_behave() {
    let dir = tempfile::tempdir().unwrap();
    let inner: Arc<dyn ObjectStore> = Arc::new(FileStore::new(dir.path()));
    behaves(&Prefixed::new(inner.clone(), "vol")).await;
    assert!(dir.path().join("vol/a/c/d").exists());
    let shards = (0..4).map(|_| Arc::new(MemoryStore::default()) as Arc<dyn ObjectStore>).collect();
    behaves(&Sharded::new(shards)).await;
}

#[tokio::test]
async fn file_store_stays_below_its_directory_and_ignores_leftovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path().join("bucket"));
    store.create_bucket("k").await.unwrap();
    for key in ["../outside", "a/../../outside", "/outside", "a//b", "a/", "", "."] {
        assert!(store.put(key, Bytes::new()).await.is_err(), "{key}");
        assert!(store.get(key, None).await.is_err(), "{key}");
    }
    std::fs::write(dir.path().join("bucket/.jfs.x.tmp.1"), b"torn").unwrap();
    assert_eq!(store.list("", "", 10).await.unwrap(), []);
}

#[tokio::test]
async fn file_store_lists_through_links_and_makes_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileStore::new(dir.path().join("not/yet/there"));
    store.put("chunks/0/1/1_0_4", Bytes::from_static(b"data")).await.unwrap();
    std::os::unix::fs::symlink(
        dir.path().join("not/yet/there/chunks"),
        dir.path().join("not/yet/there/link"),
    )
    .unwrap();
    let keys: Vec<_> = store.list("", "", 10).await.unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["chunks/0/1/1_0_4", "link/0/1/1_0_4"]);
    assert_eq!(std::fs::read_dir(dir.path().join("not/yet/there/chunks/0/1")).unwrap().count(), 1);
}

/// Turns every bit over.
struct Inverse;

impl Cipher for Inverse {
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, String> {
        Ok(plain.iter().map(|b| !b).chain([0]).collect())
    }

    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, String> {
        let (last, sealed) = sealed.split_last().ok_or("empty")?;
        if *last == 0 { Ok(sealed.iter().map(|b| !b).collect()) } else { Err("not ours".to_owned()) }
    }

    fn overhead(&self) -> u64 {
        1
    }
}

#[tokio::test]
async fn encrypted_store_keeps_only_ciphertext_and_cuts_ranges_itself() {
    let inner = Arc::new(MemoryStore::default());
    let store = Encrypted::new(inner.clone(), Arc::new(Inverse));
    store.put("k", Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(inner.get("k", None).await.unwrap(), [!b'h', !b'e', !b'l', !b'l', !b'o', 0].as_slice());
    assert_eq!(store.get("k", None).await.unwrap(), "hello");
    assert_eq!(store.get("k", Some(1..3)).await.unwrap(), "el");
    assert_eq!(store.get("k", Some(3..9)).await.unwrap(), "lo");
    assert_eq!(store.get("k", Some(7..9)).await.unwrap(), "");
    assert!(!store.supports_range());
    inner.put("k", Bytes::from_static(b"foreign")).await.unwrap();
    assert!(matches!(store.get("k", None).await, Err(ObjectError::Corrupt(..))));
    probe(&store, "vol", 1).await.unwrap();
}

#[tokio::test]
async fn every_layer_passes_the_tier_on() {
    let shards: Vec<Arc<MemoryStore>> = (0..2).map(|_| Arc::default()).collect();
    let sharded = Sharded::new(shards.iter().map(|s| s.clone() as Arc<dyn ObjectStore>).collect());
    let mut store: Arc<dyn ObjectStore> = Arc::new(Prefixed::new(Arc::new(sharded), "vol"));
    store = Arc::new(Paced::new(store, Arc::default()));
    store = Arc::new(Faulty::new(store, 1));
    store = Arc::new(Metered::new(store, Arc::new(|_: Request<'_>| ())));
    store = Arc::new(Limited::new(store, Limits::default()));
    store = Arc::new(Retried::new(store, 0));
    store = Arc::new(Encrypted::new(store, Arc::new(Inverse)));
    store = Arc::new(Replaceable::new(store));
    for tier in 0..4 {
        store.put_in_tier(&format!("k{tier}"), Bytes::from_static(b"x"), tier).await.unwrap();
    }
    store.put("other", Bytes::from_static(b"x")).await.unwrap();
    let tier = |key: &str| shards.iter().find_map(|s| s.tier_of(&format!("vol/{key}")));
    assert_eq!(["k0", "k1", "k2", "k3", "other"].map(tier), [0, 1, 2, 3, 0].map(Some));
}

#[tokio::test(start_paused = true)]
async fn requests_at_a_time_are_limited_by_kind() {
    let gauge: Arc<(AtomicUsize, AtomicUsize)> = Arc::default();
    let slow = Faulty::new(Arc::new(MemoryStore::default()), 1);
    slow.set(Faults { latency: Duration::from_millis(100), ..Faults::default() });
    let limits = Limits { max_uploads: 3, max_downloads: 5, ..Limits::default() };
    let store = Arc::new(Limited::new(Arc::new(slow), limits));
    let start = tokio::time::Instant::now();
    let puts = (0..9).map(|n| {
        let (store, gauge) = (store.clone(), gauge.clone());
        tokio::spawn(async move {
            store.put(&format!("k{n}"), Bytes::new()).await.unwrap();
            gauge.0.fetch_add(1, Ordering::Relaxed);
        })
    });
    let gets = (0..10).map(|_| {
        let (store, gauge) = (store.clone(), gauge.clone());
        tokio::spawn(async move {
            let _ = store.get("k0", None).await;
            gauge.1.fetch_add(1, Ordering::Relaxed);
        })
    });
    let all: Vec<_> = puts.chain(gets).collect();
    // In the middle of the second round: one round of each is done.
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!((gauge.0.load(Ordering::Relaxed), gauge.1.load(Ordering::Relaxed)), (3, 5));
    for task in all {
        task.await.unwrap();
    }
    // 9 PUTs by 3, each 100 ms; the 10 GETs by 5 went on beside them.
    assert_eq!(start.elapsed().as_millis() / 100, 3);
}

#[tokio::test(start_paused = true)]
async fn every_attempt_has_its_deadline_and_every_retry_its_end() {
    let seen: Arc<parking_lot::Mutex<Vec<(&'static str, bool)>>> = Arc::default();
    let faulty = Arc::new(Faulty::new(Arc::new(MemoryStore::default()), 1));
    let limited: Arc<dyn ObjectStore> = Arc::new(Limited::new(faulty.clone(), Limits::default()));
    let log = seen.clone();
    let observer = move |r: Request<'_>| log.lock().push((r.method, r.error.is_some()));
    let store = Retried::new(Arc::new(Metered::new(limited, Arc::new(observer))), 2);
    faulty.set(Faults { hang_rate: 1.0, only: vec!["GET"], ..Faults::default() });
    let start = tokio::time::Instant::now();
    assert_eq!(store.get("k", None).await, Err(ObjectError::Timeout(Duration::from_secs(60))));
    assert_eq!(start.elapsed().as_secs(), 180);
    // Done, although it was reported as failed: doing it again is harmless.
    faulty.set(Faults { lose_reply_rate: 1.0, only: vec!["PUT"], ..Faults::default() });
    assert!(matches!(store.put("k", Bytes::from_static(b"x")).await, Err(ObjectError::Server(_))));
    assert_eq!(store.get("k", None).await.unwrap(), "x");
    let seen = seen.lock();
    assert_eq!(seen.iter().filter(|r| **r == ("GET", true)).count(), 3);
    assert_eq!(seen.iter().filter(|r| **r == ("PUT", true)).count(), 3);
    assert_eq!(seen.last(), Some(&("GET", false)));
}

/// Takes every third request and asks the others to slow down; or takes none.
#[derive(Debug, Default)]
struct Grudging {
    inner: MemoryStore,
    asked: AtomicUsize,
    takes_none: bool,
}

#[async_trait::async_trait]
impl ObjectStore for Grudging {
    crate::forward::forward! { |self| self.inner => get, head, delete, list, create_bucket, supports_range, device }

    async fn put_in_tier(&self, key: &str, body: Bytes, tier: u8) -> Result<(), ObjectError> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if self.takes_none || !self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(3) {
            return Err(ObjectError::Throttled("please".to_owned()));
        }
        // Longer than a request waits in vain.
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.inner.put_in_tier(key, body, tier).await
    }

    fn describe(&self) -> String {
        "grudging".to_owned()
    }
}

async fn put_many(store: Grudging, retries: u32) -> (Vec<Result<(), ObjectError>>, Duration) {
    let began = tokio::time::Instant::now();
    let limited: Arc<dyn ObjectStore> = Arc::new(Limited::new(Arc::new(store), Limits::default()));
    let store = Arc::new(Retried::new(limited, retries));
    let puts = (0..200).map(|n| {
        let store = Arc::clone(&store);
        async move { store.put(&format!("k{n}"), Bytes::new()).await }
    });
    let done = futures_util::future::join_all(puts).await;
    (done, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn who_waits_behind_work_that_moves_is_not_failed() {
    let (done, took) = put_many(Grudging::default(), 40).await;
    // Far longer than any of them would wait for a store that takes nothing.
    assert!(took > Duration::from_secs(900), "{took:?}");
    assert_eq!(done.iter().filter(|done| done.is_err()).count(), 0, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_nothing_is_not_waited_for_longer_than_by_one() {
    let (done, took) = put_many(Grudging { takes_none: true, ..Grudging::default() }, 10).await;
    assert!(done.iter().all(Result::is_err));
    assert!((30..90).contains(&took.as_secs()), "{took:?}");
    let refusing = done.iter().filter(|done| matches!(done, Err(ObjectError::Refusing(_)))).count();
    assert!(refusing > 100, "{refusing}");
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    let text = |cfg: StoreConfig| open(&cfg).unwrap_err().to_string();
    let cfg = |storage: &str, bucket: &str, shards| StoreConfig {
        storage: storage.to_owned(),
        bucket: bucket.to_owned(),
        shards,
        ..StoreConfig::default()
    };
    assert!(text(cfg("nothing", "b", 0)).contains("file, s3, minio"));
    assert!(text(cfg("s3", "http://h/b", 4)).contains("%d"));
    assert!(text(cfg("file", "/x/%d/", 257)).contains("256"));
    assert!(text(cfg("minio", "http://h:9000", 0)).contains("bucket"));
    assert!(text(cfg("s3", "http://h:9000/b%d", 1)).contains("--shards"));
    let secret =
        StoreConfig { access_key: "a".into(), secret_key: "hush".into(), ..cfg("s3", "http://h/b", 0) };
    assert!(!format!("{secret:?} {:?}", open(&secret).unwrap()).contains("hush"));
}
