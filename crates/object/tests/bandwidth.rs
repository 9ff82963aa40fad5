//! Limits of the bandwidth against a real server: bytes per second over some seconds, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciderfs_format::Settings;
use ciderfs_object::layers::{Limited, Limits};
use ciderfs_object::{Bandwidth, ObjectError, ObjectStore, StoreConfig, open};
use ciderfs_testkit::s3::{Faults, Op, S3Options, S3Server};
use futures_util::future::join_all;

const BUCKET: &str = "volume";
/// Mbps of the tests: a megabyte a second.
const MBPS: u64 = 8;
const RATE: f64 = 1e6;
/// Less than any body of these tests takes.
const DEADLINE: Duration = Duration::from_secs(2);

async fn server() -> S3Server {
    S3Server::start(S3Options { buckets: vec![BUCKET.to_owned()], ..S3Options::default() }).await.unwrap()
}

fn store(server: &S3Server, bandwidth: &Arc<Bandwidth>) -> Arc<dyn ObjectStore> {
    let mut settings = Settings::new("vol", "cb17d9ba-a2e6-4b75-bb43-3b00415f41f1", "s3", "");
    settings.set_tier(Some(2), Some("GLACIER_IR"), Some("k=v")).unwrap();
    let store = open(&StoreConfig {
        storage: "s3".to_owned(),
        bucket: server.bucket_url(BUCKET),
        access_key: server.access_key.clone(),
        secret_key: server.secret_key.as_str().into(),
        tiers: settings.all_tiers(),
        bandwidth: Arc::clone(bandwidth),
        ..StoreConfig::default()
    });
    let limits = Limits { get_timeout: DEADLINE, put_timeout: DEADLINE, ..Limits::default() };
    Arc::new(Limited::new(store.unwrap(), limits))
}

fn body(n: usize) -> Bytes {
    (0..n).map(|i| (i % 251) as u8).collect::<Vec<_>>().into()
}

/// Were `bytes` moved at the rate of the limit?
fn assert_rate(bytes: usize, start: Instant) {
    let rate = bytes as f64 / start.elapsed().as_secs_f64();
    assert!((0.9 * RATE..=1.1 * RATE).contains(&rate), "{rate} bytes per second instead of {RATE}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_and_downloads_keep_their_limit_and_no_deadline_is_lost() {
    let server = server().await;
    let bandwidth = Arc::new(Bandwidth::default());
    let store = store(&server, &bandwidth);
    // Large and small ones, of two tiers.
    let sizes = [2_500_000, 1_000_000, 1_000_000, 300_000, 100_000, 100_000];
    let total: usize = sizes.iter().sum();
    bandwidth.set(MBPS, 0);
    let start = Instant::now();
    let puts = sizes.into_iter().enumerate().map(|(n, size)| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            store.put_in_tier(&format!("k{n}"), body(size), 2 * (n as u8 % 2)).await.unwrap();
            start.elapsed()
        })
    });
    let took: Vec<Duration> =
        join_all(puts.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).collect();
    assert_rate(total, start);
    // Each has got its share: the smallest are done first, the largest last, whoever came first.
    assert!(took[4].max(took[5]) < took[3] && took[3] < took[1].min(took[2]), "{took:?}");
    assert!(took[1].max(took[2]) < took[0], "{took:?}");
    let received: Vec<_> = server.control().requests();
    assert_eq!(received.iter().map(|r| r.received).sum::<u64>(), total as u64);
    assert_eq!(received.iter().filter(|r| r.storage_class.is_some()).count(), 3);

    // Reads have no limit yet.
    let start = Instant::now();
    assert!(store.get("k0", None).await.unwrap() == body(sizes[0]));
    assert!(start.elapsed().as_secs_f64() < sizes[0] as f64 / RATE);
    bandwidth.set(0, MBPS);
    let start = Instant::now();
    let gets = sizes.into_iter().enumerate().map(|(n, size)| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let key = format!("k{n}");
            let (part, whole) = (store.get(&key, Some(10_000..50_000)), store.get_whole(&key, 17 << 20));
            let (part, whole) = tokio::join!(part, whole);
            assert!(whole.unwrap() == body(size) && part.unwrap() == body(size)[10_000..50_000]);
        })
    });
    join_all(gets.collect::<Vec<_>>()).await.into_iter().for_each(Result::unwrap);
    assert_rate(total + sizes.len() * 40_000, start);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_lifted_lets_go_what_is_under_way() {
    let server = server().await;
    let bandwidth = Arc::new(Bandwidth::default());
    let store = store(&server, &bandwidth);
    // Alone it would take two minutes.
    bandwidth.set(1, 1);
    let upload = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.put("k", body(16_000_000)).await })
    };
    tokio::time::sleep(2 * DEADLINE).await;
    assert!(!upload.is_finished());
    let start = Instant::now();
    bandwidth.set(0, 0);
    upload.await.unwrap().unwrap();
    assert!(store.get_whole("k", 17 << 20).await.unwrap() == body(16_000_000));
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_hangs_or_fails_is_found_out_under_a_limit() {
    let server = server().await;
    let bandwidth = Arc::new(Bandwidth::default());
    let store = store(&server, &bandwidth);
    bandwidth.set(MBPS, MBPS);
    store.put("k", body(500_000)).await.unwrap();
    store.put("empty", body(0)).await.unwrap();
    assert_eq!(store.get("empty", None).await.unwrap(), "");
    // It takes nothing of the body: what waits in the kernel is not the limit's wait.
    server.control().set(Faults { hang_next: 1, only: vec![Op::Put], ..Faults::default() });
    assert_eq!(store.put("k", body(16 << 20)).await, Err(ObjectError::Timeout(DEADLINE)));
    server.control().set(Faults { hang_next: 1, only: vec![Op::Get], ..Faults::default() });
    assert_eq!(store.get("k", None).await, Err(ObjectError::Timeout(DEADLINE)));
    let faults = Faults { fail_next: 1, status: 503, only: vec![Op::Put], ..Faults::default() };
    server.control().set(faults);
    assert!(matches!(store.put("k", body(100_000)).await, Err(ObjectError::Throttled(_))));
    for faults in
        [Faults { truncate_next: 1, ..Faults::default() }, Faults { corrupt_next: 1, ..Faults::default() }]
    {
        server.control().set(Faults { only: vec![Op::Get], ..faults });
        assert!(store.get("k", None).await.unwrap_err().is_retryable());
    }
    let (address, key) = (server.bucket_url("none"), "k");
    let cfg = StoreConfig {
        storage: "s3".to_owned(),
        bucket: address,
        access_key: server.access_key.clone(),
        secret_key: server.secret_key.as_str().into(),
        bandwidth,
        ..StoreConfig::default()
    };
    let error = open(&cfg).unwrap().put(key, body(1000)).await.unwrap_err();
    assert!(matches!(error, ObjectError::NoBucket(_)), "{error}");
}

/// The smallest limit: a block takes longer than a store may be silent otherwise, and the store says nothing until it has all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_may_take_longer_than_a_silence() {
    let server = server().await;
    let bandwidth = Arc::new(Bandwidth::default());
    let store = store(&server, &bandwidth);
    let block = 4 << 20;
    store.put("down", body(block)).await.unwrap();
    bandwidth.set(1, 1);
    let start = Instant::now();
    let (stored, read) = tokio::join!(store.put_in_tier("up", body(block), 2), store.get("down", None));
    stored.unwrap();
    assert!(read.unwrap() == body(block));
    // Both at an eighth of the others' limit.
    assert_rate(8 * block, start);
    bandwidth.set(0, 0);
    assert!(store.get("up", None).await.unwrap() == body(block));
}

/// A directory is not read and written piece by piece: whole bodies wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_keeps_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let bandwidth = Arc::new(Bandwidth::default());
    let cfg = StoreConfig {
        storage: "file".to_owned(),
        bucket: format!("{}/", dir.path().display()),
        bandwidth: Arc::clone(&bandwidth),
        ..StoreConfig::default()
    };
    let limits = Limits { get_timeout: DEADLINE, put_timeout: DEADLINE, ..Limits::default() };
    let store = Limited::new(open(&cfg).unwrap(), limits);
    bandwidth.set(MBPS, MBPS);
    let start = Instant::now();
    for n in 0..3 {
        store.put(&format!("k{n}"), body(1_000_000)).await.unwrap();
    }
    assert_rate(3_000_000, start);
    let start = Instant::now();
    let gets = (0..3).map(|n| {
        let store = &store;
        async move {
            let key = format!("k{n}");
            assert!(store.get(&key, None).await.unwrap() == body(1_000_000));
            assert!(store.get(&key, Some(999_990..2_000_000)).await.unwrap() == body(1_000_000)[999_990..]);
        }
    });
    join_all(gets).await;
    assert_rate(3_000_000, start);
    assert!(matches!(store.get("none", None).await, Err(ObjectError::NotFound(_))));
}
