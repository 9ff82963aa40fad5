//! The S3 driver against the strict test server in the profile of OVHcloud.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciderfs_object::layers::{Limited, Limits, Retried};
use ciderfs_object::{ObjectError, ObjectStore, StoreConfig, bucket_warnings, open, prepare, probe};
use ciderfs_testkit::s3::{Faults, OVH_REGIONS, Op, Policy, Profile, S3Options, S3Server};
use futures_util::stream::{self, StreamExt as _};

const BUCKET: &str = "volume";
/// The address of [`as_a_process_of_its_own`].
const ADDRESS: &str = "TEST_ADDRESS";

async fn server(profile: Profile) -> S3Server {
    let buckets = vec![BUCKET.to_owned(), "my.volume".to_owned()];
    let server = S3Server::start(S3Options { buckets, ..S3Options::default() }).await.unwrap();
    server.control().behave_as(Some(profile));
    server
}

fn config(server: &S3Server, query: &str) -> StoreConfig {
    StoreConfig {
        storage: "s3".to_owned(),
        bucket: server.bucket_url(BUCKET) + query,
        access_key: server.access_key.clone(),
        secret_key: server.secret_key.as_str().into(),
        ..StoreConfig::default()
    }
}

fn store(server: &S3Server, query: &str) -> Arc<dyn ObjectStore> {
    open(&config(server, query)).unwrap()
}

/// Everything that a volume asks for.
async fn use_it(store: &dyn ObjectStore) -> Result<(), ObjectError> {
    prepare(store, "vol", 1).await?;
    probe(store, "vol", 1).await?;
    store.put("a/b", Bytes::from_static(b"hello")).await?;
    assert_eq!(store.get_whole("a/b", 100).await?, "hello");
    assert_eq!(store.get("a/b", Some(1..3)).await?, "el");
    assert_eq!(store.head("a/b").await?.size, 5);
    assert_eq!(store.list("a/", "", 10).await?.len(), 1);
    store.delete("a/b").await?;
    store.create_bucket("a/b").await
}

/// Uses the store of an address; that it can be reached is the environment's part.
#[tokio::test]
async fn as_a_process_of_its_own() {
    let Ok(bucket) = std::env::var(ADDRESS) else { return };
    let cfg = StoreConfig { storage: "s3".to_owned(), bucket, ..StoreConfig::default() };
    let store = open(&cfg).unwrap();
    use_it(store.as_ref()).await.unwrap();
    println!("all done");
}

/// The addresses as users write them, host names and regions included: the server is the proxy of a process of its own.
#[tokio::test]
async fn every_region_in_both_styles() {
    for region in OVH_REGIONS {
        let server = server(Profile::ovhcloud(region)).await;
        let host = format!("s3.{region}.io.cloud.ovh.net");
        for (address, vhost) in [
            (format!("http://{host}/{BUCKET}"), "0"),
            (format!("http://{BUCKET}.{host}"), "1"),
            (format!("http://my.volume.{host}"), "1"),
        ] {
            let program = std::env::current_exe().unwrap();
            let mut command = tokio::process::Command::new(program);
            command
                .args(["--exact", "as_a_process_of_its_own", "--nocapture"])
                .env_clear()
                .env(ADDRESS, &address)
                .env("http_proxy", server.endpoint())
                .env("JFS_S3_VHOST_STYLE", vhost)
                .env("AWS_ACCESS_KEY_ID", &server.access_key)
                .env("AWS_SECRET_ACCESS_KEY", &server.secret_key);
            let output = command.output().await.unwrap();
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success() && text.contains("all done"), "{address}: {text}");
            let seen = server.control().requests();
            // The region was right from the start.
            assert!(seen.iter().all(|r| r.status < 400 || r.status == 409), "{address}: {seen:?}");
            assert!(seen.iter().any(|r| r.op == Op::Put) && !seen.is_empty(), "{address}");
            let bucket = if address.contains("my.") { "/my.volume/" } else { "/volume/" };
            assert!(
                seen.iter().filter(|r| r.op == Op::Put).all(|r| r.path.starts_with(bucket)),
                "{address}: {seen:?}"
            );
            server.control().clear();
        }
    }
}

/// Whatever is asked for first learns the region, and nothing is refused after that.
#[tokio::test]
async fn a_wrong_region_costs_one_request() {
    let server = server(Profile::ovhcloud("eu-west-par")).await;
    for query in ["", "?region=gra", "?region=EU-WEST-PAR"] {
        store(&server, "?region=eu-west-par").put("k", Bytes::from_static(b"x")).await.unwrap();
        for first in 0..6 {
            let store = store(&server, query);
            server.control().clear();
            match first {
                0 => store.put("k", Bytes::from_static(b"x")).await.unwrap(),
                1 => assert_eq!(store.get_whole("k", 9).await.unwrap(), "x"),
                2 => assert_eq!(store.get("k", Some(0..1)).await.unwrap(), "x"),
                3 => assert_eq!(store.head("k").await.unwrap().size, 1),
                4 => assert_eq!(store.list("", "", 9).await.unwrap().len(), 1),
                _ => store.delete("other").await.unwrap(),
            }
            let refused =
                |server: &S3Server| server.control().requests().iter().filter(|r| r.status == 400).count();
            // A HEAD has no body that could name the region: it is asked for.
            assert_eq!(refused(&server), if first == 3 { 2 } else { 1 }, "{query}, {first}");
            server.control().clear();
            use_it(store.as_ref()).await.unwrap();
            assert_eq!(refused(&server), 0, "{query}, {first}");
        }
    }
    // One that changes its mind is not followed for ever.
    let moved = store(&server, "?region=gra");
    moved.put("k", Bytes::new()).await.unwrap();
    server.control().behave_as(Some(Profile::ovhcloud("sbg")));
    server.control().clear();
    let e = moved.put("k", Bytes::new()).await.unwrap_err();
    assert!(matches!(&e, ObjectError::Config(text) if text.contains("AWS_REGION=sbg")), "{e}");
    assert_eq!(server.control().count(Op::Put), 1);
}

#[tokio::test]
async fn an_expired_token_is_told() {
    let token = "expired/token+0123456789";
    let profile = Profile { expired_token: Some(token.to_owned()), ..Profile::ovhcloud("gra") };
    let server = server(profile).await;
    let cfg = StoreConfig { session_token: token.into(), ..config(&server, "?region=gra") };
    let store = open(&cfg).unwrap();
    for e in [
        store.put("k", Bytes::new()).await.unwrap_err(),
        store.get("k", Some(0..1)).await.unwrap_err(),
        store.list("", "", 1).await.unwrap_err(),
        store.create_bucket("k").await.unwrap_err(),
    ] {
        let text = e.to_string();
        assert!(matches!(e, ObjectError::AccessDenied(_)) && !e.is_retryable(), "{text}");
        assert!(text.contains("session token has expired") && text.contains("--session-token"), "{text}");
        assert!(!text.contains("expired/token"), "{text}");
    }
}

#[tokio::test]
async fn a_clock_that_differs_is_told_with_by_how_much() {
    let ahead = Duration::from_secs(40 * 60);
    let server = server(Profile { clock_ahead: ahead, ..Profile::ovhcloud("gra") }).await;
    let store = store(&server, "?region=gra");
    for e in [store.put("k", Bytes::new()).await.unwrap_err(), store.get("k", None).await.unwrap_err()] {
        let text = e.to_string();
        assert!(matches!(e, ObjectError::AccessDenied(_)) && !e.is_retryable(), "{text}");
        assert!(text.contains("the clock here is 40 minutes behind the store's"), "{text}");
        assert!(text.contains("correct the time here"), "{text}");
    }
    // As far as the service allows it does not matter.
    let near = Profile { clock_ahead: Duration::from_secs(10 * 60), ..Profile::ovhcloud("gra") };
    server.control().behave_as(Some(near));
    use_it(store.as_ref()).await.unwrap();
}

#[tokio::test]
async fn buckets_that_keep_what_is_deleted_are_told() {
    let server = server(Profile::ovhcloud("gra")).await;
    let cfg = config(&server, "");
    assert_eq!(bucket_warnings(&cfg).await.unwrap(), [""; 0]);
    for (versioned, locked, told) in [
        (true, false, vec!["versioning"]),
        (false, true, vec!["object lock"]),
        (true, true, vec!["versioning", "object lock"]),
    ] {
        server.control().behave_as(Some(Profile { versioned, locked, ..Profile::ovhcloud("gra") }));
        for query in ["?region=gra", ""] {
            let warnings = bucket_warnings(&config(&server, query)).await.unwrap();
            assert_eq!(warnings.len(), told.len(), "{warnings:?}");
            for (text, what) in warnings.iter().zip(&told) {
                assert!(text.contains(what) && text.contains("bucket volume at http://127"), "{text}");
            }
        }
    }
    // Whoever may not ask is not told, and neither is one whose store does not know the question.
    server.control().restrict(Policy { only_below: Some("volume/vol/".to_owned()), deny: Vec::new() });
    assert_eq!(bucket_warnings(&cfg).await.unwrap(), [""; 0]);
    server.control().restrict(Policy::default());
    server.control().behave_as(None);
    assert_eq!(bucket_warnings(&cfg).await.unwrap(), [""; 0]);
    let file =
        StoreConfig { storage: "file".to_owned(), bucket: "/nowhere/".to_owned(), ..StoreConfig::default() };
    assert_eq!(bucket_warnings(&file).await.unwrap(), [""; 0]);
}

/// More PUTs than the bucket takes: nearly all that it takes are done, and few are refused; then, all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_asks_to_slow_down_gets_what_it_takes() {
    const TIME: Duration = Duration::from_secs(8);
    let server = server(Profile::ovhcloud("gra")).await;
    let limited: Arc<dyn ObjectStore> =
        Arc::new(Limited::new(store(&server, "?region=gra"), Limits::default()));
    let store: Arc<dyn ObjectStore> = Arc::new(Retried::new(limited, 10));
    let put = |n: usize, store: &Arc<dyn ObjectStore>| {
        let store = Arc::clone(store);
        async move { store.put(&format!("k{n}"), Bytes::from_static(b"x")).await }
    };
    let began = Instant::now();
    let done = stream::iter(0..)
        .take_while(|_| std::future::ready(began.elapsed() < TIME))
        .map(|n| put(n, &store))
        .buffer_unordered(100)
        .fold(0, async |done, result| {
            result.unwrap();
            done + 1
        })
        .await;
    let took = began.elapsed().as_secs_f64();
    let refused = server.control().requests().iter().filter(|r| r.status == 503).count();
    eprintln!("{done} PUTs in {took:.1} s, {refused} refused");
    assert!(refused > 0, "the bucket took {done} PUTs in {took} s");
    assert!(refused * 5 < done, "{refused} refused, {done} done");
    assert!(done as f64 > 300.0 * took * 0.5, "{done} in {took} s");
    // GETs have a rate of their own, and a width of their own.
    server.control().clear();
    store.get_whole("k0", 9).await.unwrap();
    // Nothing holds it back any more: the width comes back.
    server.control().behave_as(Some(Profile { puts: usize::MAX, ..Profile::ovhcloud("gra") }));
    server.control().set(Faults {
        only: vec![Op::Put],
        latency: Duration::from_millis(50),
        ..Faults::default()
    });
    let began = Instant::now();
    let mut rates = Vec::new();
    while began.elapsed() < Duration::from_secs(60) {
        let round = Instant::now();
        stream::iter(0..100)
            .map(|n| put(n, &store))
            .buffer_unordered(100)
            .for_each(async |result| result.unwrap())
            .await;
        // 20 at a time would take 5 rounds of 50 ms; what was left of them takes ten times as long.
        rates.push(100.0 / round.elapsed().as_secs_f64());
        if rates.last().is_some_and(|rate| *rate > 150.0) {
            eprintln!("after {:?}: {rates:.0?}", began.elapsed());
            return;
        }
    }
    panic!("it never came back: {rates:.0?}");
}

/// A store that only asks to slow down: every caller has its answer in the time that one request takes by itself, however many wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_readers_of_a_store_that_takes_nothing_are_told_in_time() {
    const READERS: usize = 200;
    let server = server(Profile::ovhcloud("gra")).await;
    let plain = store(&server, "?region=gra");
    plain.put("k", Bytes::from_static(b"x")).await.unwrap();
    let limits = Limits { max_downloads: 20, ..Limits::default() };
    // Pauses of at most 50, 100 and 200 ms, and one hold of 2 s.
    let store: Arc<dyn ObjectStore> = Arc::new(Retried::new(Arc::new(Limited::new(plain, limits)), 3));
    server.control().set(Faults { fail_rate: 1.0, status: 503, ..Faults::default() });
    let read = |store: &Arc<dyn ObjectStore>| {
        let store = Arc::clone(store);
        async move {
            let began = Instant::now();
            (store.get_whole("k", 9).await, began.elapsed())
        }
    };
    let answers = futures_util::future::join_all((0..READERS).map(|_| read(&store))).await;
    let slowest = answers.iter().map(|(_, took)| *took).max().unwrap();
    eprintln!("the last of {READERS} readers was told after {slowest:?}");
    assert!(slowest < Duration::from_secs(6), "{slowest:?}");
    let told = answers.iter().filter(|(answer, _)| {
        let text = answer.as_ref().unwrap_err().to_string();
        text.contains("has taken no request") && text.contains("only asks to slow down")
    });
    assert!(told.count() > READERS / 2);
    // Whoever comes later has as much time as the first ones had, and an answer once there is one.
    let late = tokio::spawn(read(&store));
    while server.control().count(Op::Get) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.control().set(Faults::default());
    assert_eq!(late.await.unwrap().0.unwrap(), "x");
    assert_eq!(read(&store).await.0.unwrap(), "x");
}
