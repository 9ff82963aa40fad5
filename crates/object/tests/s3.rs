//! The S3 driver against real HTTP servers that check signatures: the test kit's own and `s3s-fs`.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciderfs_object::layers::{Limited, Limits, Prefixed, Retried};
use ciderfs_object::{Entry, ObjectError, ObjectStore, StoreConfig, has_other_objects, open, prepare, probe};
use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use ciderfs_testkit::s3::{Faults, Op, Policy, S3Options, S3Server, Scripted};
use ciderfs_testkit::{require, s3fs};

const BUCKET: &str = "volume";

fn options() -> S3Options {
    S3Options { buckets: vec![BUCKET.to_owned()], ..S3Options::default() }
}

async fn server() -> S3Server {
    S3Server::start(options()).await.unwrap()
}

fn config(server: &S3Server) -> StoreConfig {
    StoreConfig {
        storage: "s3".to_owned(),
        bucket: server.bucket_url(BUCKET),
        access_key: server.access_key.clone(),
        secret_key: server.secret_key.as_str().into(),
        ..StoreConfig::default()
    }
}

fn store(server: &S3Server) -> Arc<dyn ObjectStore> {
    open(&config(server)).unwrap()
}

fn keys(page: Vec<Entry>) -> Vec<String> {
    page.into_iter().map(|e| e.key).collect()
}

async fn behaves(store: &dyn ObjectStore) {
    // Some say so, some take it for another's; `prepare` asks only if there is none.
    if let Err(e) = store.create_bucket("k").await {
        assert!(e.to_string().contains("BucketAlreadyExists"), "{e}");
    }
    prepare(store, "vol", 1).await.unwrap();
    probe(store, "vol", 1).await.unwrap();
    assert!(!has_other_objects(store).await.unwrap());
    assert!(matches!(store.get("a/b", None).await, Err(ObjectError::NotFound(_))));
    assert!(matches!(store.get("a/b", Some(0..1)).await, Err(ObjectError::NotFound(_))));
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
    assert_eq!(store.get("a/b", Some(11..20)).await.unwrap(), "");
    assert_eq!(store.get("a/b", Some(500..600)).await.unwrap(), "");
    assert_eq!(store.get("a/b", Some(3..3)).await.unwrap(), "");
    let meta = store.head("z").await.unwrap();
    assert_eq!(meta.size, 9);
    assert!(meta.mtime.unwrap().elapsed().unwrap_or_default() < Duration::from_secs(60));
    store.put("z", Bytes::from_static(b"new")).await.unwrap();
    assert_eq!(store.get("z", None).await.unwrap(), "new");
    assert_eq!(keys(store.list("", "", 100).await.unwrap()), ["a-b", "a/b", "a/b0", "a/c/d", "z"]);
    assert_eq!(keys(store.list("", "a/b", 2).await.unwrap()), ["a/b0", "a/c/d"]);
    assert_eq!(keys(store.list("a/", "", 100).await.unwrap()), ["a/b", "a/b0", "a/c/d"]);
    assert_eq!(keys(store.list("a/b", "", 100).await.unwrap()), ["a/b", "a/b0"]);
    assert_eq!(keys(store.list("nothing/", "", 100).await.unwrap()), [""; 0]);
    assert_eq!(store.list("z", "", 1).await.unwrap()[0].size, 3);
    assert!(has_other_objects(store).await.unwrap());
    store.delete("a/b").await.unwrap();
    assert!(matches!(store.get("a/b", None).await, Err(ObjectError::NotFound(_))));
    // A whole block, larger than any buffer on the way.
    let block: Vec<u8> = (0..4_u32 << 20).map(|i| (i % 253) as u8).collect();
    store.put("block", Bytes::from(block.clone())).await.unwrap();
    assert!(store.get("block", None).await.unwrap() == block);
    assert!(store.get("block", Some(1_000_000..3_000_000)).await.unwrap() == block[1_000_000..3_000_000]);
    store.put("empty", Bytes::new()).await.unwrap();
    assert_eq!(store.get("empty", None).await.unwrap(), "");
    assert_eq!(store.head("empty").await.unwrap().size, 0);
}

#[tokio::test]
async fn behaves_on_our_server() {
    let server = server().await;
    behaves(store(&server).as_ref()).await;
    let prefixed = Prefixed::new(store(&server), "vol");
    prefixed.put("k", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(keys(prefixed.list("", "", 10).await.unwrap()), ["k"]);
    // As minio, which parses the address in another way.
    let minio = StoreConfig { storage: "minio".to_owned(), ..config(&server) };
    assert_eq!(open(&minio).unwrap().get("vol/k", None).await.unwrap(), "x");
}

#[tokio::test]
async fn behaves_on_s3s_fs() {
    let dir = tempfile::tempdir().unwrap();
    let server = s3fs::start(dir.path(), options()).unwrap();
    behaves(store(&server).as_ref()).await;
}

#[tokio::test]
async fn requests_are_one_per_call_and_unsigned_in_their_payload() {
    let server = server().await;
    let store = store(&server);
    store.put("k", Bytes::from_static(b"hello")).await.unwrap();
    store.get("k", None).await.unwrap();
    store.get("k", Some(1..3)).await.unwrap();
    store.delete("k").await.unwrap();
    let seen = server.control().requests();
    let ops: Vec<_> = seen.iter().map(|r| (r.op, r.range.as_deref())).collect();
    assert_eq!(ops, [(Op::Put, None), (Op::Get, None), (Op::Get, Some("bytes=1-2")), (Op::Delete, None)]);
    assert!(seen.iter().all(|r| r.payload_hash.as_deref() == Some("UNSIGNED-PAYLOAD")), "{seen:?}");
    assert_eq!((seen[0].received, seen[2].sent), (5, 2));
}

#[tokio::test]
async fn listings_of_many_pages_are_complete_and_in_order() {
    let server = server().await;
    let store = store(&server);
    let all: Vec<String> = (0..2300).map(|n| format!("chunks/0/{:04}", n)).collect();
    for key in &all {
        store.put(key, Bytes::from_static(b"x")).await.unwrap();
    }
    assert_eq!(keys(store.list("chunks/", "", 5000).await.unwrap()), all);
    assert_eq!(keys(store.list("chunks/", &all[1199], 50).await.unwrap()), all[1200..1250]);
}

#[tokio::test]
async fn a_missing_bucket_is_named_and_can_be_made() {
    let server = S3Server::start(S3Options::default()).await.unwrap();
    let store = store(&server);
    for e in [
        store.put("k", Bytes::from_static(b"x")).await.unwrap_err(),
        store.get("k", None).await.unwrap_err(),
        store.list("", "", 1).await.unwrap_err(),
    ] {
        assert!(matches!(e, ObjectError::NoBucket(_)), "{e}");
        assert!(e.to_string().contains(BUCKET) && !e.is_retryable(), "{e}");
    }
    store.create_bucket("k").await.unwrap();
    probe(store.as_ref(), "vol", 1).await.unwrap();
}

#[tokio::test]
async fn wrong_keys_are_denied_with_the_remedy() {
    let server = server().await;
    let secret = open(&StoreConfig { secret_key: "wrong".into(), ..config(&server) }).unwrap();
    let access = open(&StoreConfig { access_key: "nobody".to_owned(), ..config(&server) }).unwrap();
    let anonymous = open(&StoreConfig { access_key: "anonymous".to_owned(), ..config(&server) }).unwrap();
    for (store, remedy) in [(&secret, "--secret-key"), (&access, "--access-key"), (&anonymous, "keys")] {
        for e in [
            store.put("k", Bytes::from_static(b"x")).await.unwrap_err(),
            store.list("", "", 1).await.unwrap_err(),
            store.create_bucket("k").await.unwrap_err(),
        ] {
            assert!(matches!(e, ObjectError::AccessDenied(_)), "{e}");
            assert!(e.to_string().contains(remedy) && !e.is_retryable(), "{e}");
        }
        let e = store.head("k").await.unwrap_err();
        assert!(matches!(e, ObjectError::AccessDenied(_)), "{e}");
    }
}

#[tokio::test]
async fn an_unreachable_endpoint_is_named() {
    let mut server = server().await;
    let store = store(&server);
    server.stop();
    let e = store.get("k", None).await.unwrap_err();
    assert!(matches!(e, ObjectError::Unreachable(_)) && e.is_retryable(), "{e:?}");
    assert!(e.to_string().contains("refused") && e.to_string().contains("127.0.0.1"), "{e}");
    let e = store.create_bucket("k").await.unwrap_err();
    assert!(matches!(e, ObjectError::Unreachable(_)), "{e:?}");
    let nowhere = StoreConfig { bucket: "http://no-such-host.invalid/b".to_owned(), ..config(&server) };
    let e = open(&nowhere).unwrap().get("k", None).await.unwrap_err();
    assert!(matches!(e, ObjectError::Unreachable(_)) && e.to_string().contains("host name"), "{e}");
    // TLS spoken to a port without.
    server.restart().unwrap();
    let tls = StoreConfig { bucket: server.bucket_url(BUCKET).replace("http:", "https:"), ..config(&server) };
    let e = open(&tls).unwrap().get("k", None).await.unwrap_err();
    assert!(matches!(e, ObjectError::Unreachable(_)) && e.to_string().contains("http://"), "{e}");
}

#[tokio::test]
async fn drivers_try_once_and_say_what_happened() {
    let server = server().await;
    let store = store(&server);
    store.put("k", Bytes::from_static(b"hello")).await.unwrap();
    server.control().clear();
    for (status, retryable) in [(500, true), (503, true), (403, false)] {
        server.control().set(Faults { fail_next: 1, status, ..Faults::default() });
        let e = store.get("k", None).await.unwrap_err();
        let fits = match status {
            500 => matches!(e, ObjectError::Server(_)),
            503 => matches!(e, ObjectError::Throttled(_)),
            _ => matches!(e, ObjectError::AccessDenied(_)),
        };
        assert!(fits && e.is_retryable() == retryable, "{status}: {e:?}");
    }
    server.control().set(Faults { lose_reply_next: 1, ..Faults::default() });
    let e = store.put("k", Bytes::from_static(b"other")).await.unwrap_err();
    assert!(matches!(e, ObjectError::Server(_)), "{e:?}");
    assert_eq!((server.control().count(Op::Get), server.control().count(Op::Put)), (3, 1));
    // It was done, though.
    assert_eq!(store.get("k", None).await.unwrap(), "other");
}

#[tokio::test]
async fn damaged_and_torn_bodies_are_noticed() {
    let server = server().await;
    let store = store(&server);
    store.put("k", Bytes::from(vec![7; 100_000])).await.unwrap();
    server.control().set(Faults { corrupt_next: 1, ..Faults::default() });
    let e = store.get("k", None).await.unwrap_err();
    assert!(matches!(e, ObjectError::Corrupt(..)) && e.is_retryable(), "{e:?}");
    for range in [None, Some(10..90_000)] {
        server.control().set(Faults { truncate_next: 1, ..Faults::default() });
        let e = store.get("k", range).await.unwrap_err();
        assert!(matches!(e, ObjectError::Server(_)), "{e:?}");
    }
    assert_eq!(store.get("k", None).await.unwrap().len(), 100_000);
    // As the official client: no checksums if the address says so.
    let url = format!("{}?disable-checksum=true", server.bucket_url(BUCKET));
    let trusting = open(&StoreConfig { bucket: url, ..config(&server) }).unwrap();
    server.control().set(Faults { corrupt_next: 1, ..Faults::default() });
    assert_eq!(trusting.get("k", None).await.unwrap().len(), 100_000);
    trusting.put("plain", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(store.get("plain", None).await.unwrap(), "x");
}

#[tokio::test]
async fn a_store_that_never_answers_meets_the_deadline() {
    let server = server().await;
    let limits = Limits {
        get_timeout: Duration::from_millis(200),
        put_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let store = Limited::new(store(&server), limits);
    server.control().set(Faults { hang_next: 4, ..Faults::default() });
    let start = Instant::now();
    assert_eq!(store.get("k", None).await, Err(ObjectError::Timeout(limits.get_timeout)));
    assert_eq!(store.put("k", Bytes::new()).await, Err(ObjectError::Timeout(limits.put_timeout)));
    assert_eq!(store.delete("k").await, Err(ObjectError::Timeout(limits.put_timeout)));
    assert_eq!(store.list("", "", 1).await, Err(ObjectError::Timeout(limits.get_timeout)));
    assert!(start.elapsed() < Duration::from_secs(10));
    // Connections that hang do not stand in the way of later requests.
    store.put("k", Bytes::new()).await.unwrap();
}

#[tokio::test]
async fn retries_are_counted_and_end() {
    let server = server().await;
    let store = Retried::new(store(&server), 3);
    server.control().set(Faults { fail_next: 2, ..Faults::default() });
    store.put("k", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(server.control().count(Op::Put), 3);
    server.control().set(Faults { fail_next: 100, ..Faults::default() });
    let e = store.get("k", None).await.unwrap_err();
    assert!(matches!(e, ObjectError::Server(_)), "{e:?}");
    assert_eq!(server.control().count(Op::Get), 4);
    // What repetition cannot cure is tried once.
    server.control().set(Faults { fail_next: 100, status: 403, ..Faults::default() });
    server.control().clear();
    assert!(store.get("k", None).await.is_err());
    server.control().set(Faults::default());
    assert!(matches!(store.get("absent", None).await, Err(ObjectError::NotFound(_))));
    assert_eq!(server.control().count(Op::Get), 2);
}

#[tokio::test]
async fn a_restart_of_the_store_is_survived() {
    let mut server = server().await;
    let store: Arc<dyn ObjectStore> = Arc::new(Retried::new(store(&server), 10));
    store.put("before", Bytes::from_static(b"x")).await.unwrap();
    server.stop();
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.put("during", Bytes::from_static(b"y")).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.restart().unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(store.get("before", None).await.unwrap(), "x");
    assert_eq!(store.get("during", None).await.unwrap(), "y");
}

#[tokio::test]
async fn shards_are_buckets_by_the_hash_of_the_full_key() {
    let buckets: Vec<String> = (0..3).map(|n| format!("shard-{n}")).collect();
    let server = S3Server::start(S3Options { buckets, ..S3Options::default() }).await.unwrap();
    let sharded =
        open(&StoreConfig { bucket: server.bucket_url("shard-%d"), shards: 3, ..config(&server) }).unwrap();
    let store = Prefixed::new(sharded, "vol");
    let names: Vec<String> = (0..30).map(|n| format!("chunks/0/0/{n:02}_0_5")).collect();
    for name in &names {
        store.put(name, Bytes::from_static(b"hello")).await.unwrap();
        let full = format!("vol/{name}");
        let shard = ciderfs_format::objname::shard_of(&full, 3);
        let path = format!("/shard-{shard}/{full}");
        assert_eq!(server.control().requests().last().unwrap().path, path);
    }
    assert_eq!(keys(store.list("", "", 100).await.unwrap()), names);
    assert_eq!(keys(store.list("chunks/", &names[9], 7).await.unwrap()), names[10..17]);
}

/// A TLS server that does not speak HTTP is enough to see which certificates are accepted.
#[tokio::test]
async fn certificates_are_checked_and_authorities_can_be_added() {
    let Some(tls) = require(RedisServer::start(RedisOptions { tls: true, ..RedisOptions::default() })) else {
        return;
    };
    let get = async |query: &str| {
        let cfg = StoreConfig {
            storage: "s3".to_owned(),
            bucket: format!("https://127.0.0.1:{}/b{query}", tls.port()),
            access_key: "a".to_owned(),
            secret_key: "s".into(),
            ..StoreConfig::default()
        };
        open(&cfg).unwrap().get("k", None).await.unwrap_err()
    };
    let e = get("").await;
    assert!(matches!(e, ObjectError::Unreachable(_)) && e.to_string().contains("ca-certs"), "{e}");
    for query in
        [format!("?ca-certs={}", tls.ca_file().display()), "?tls-insecure-skip-verify=true".to_owned()]
    {
        let e = get(&query).await;
        assert!(matches!(e, ObjectError::Server(_)) && !e.to_string().contains("certificate"), "{e}");
    }
    let cfg = StoreConfig {
        storage: "s3".to_owned(),
        bucket: "https://127.0.0.1:1/b?ca-certs=/nowhere".to_owned(),
        ..StoreConfig::default()
    };
    assert!(open(&cfg).unwrap_err().to_string().contains("/nowhere"));
}

fn volume(server: &S3Server) -> Prefixed {
    Prefixed::new(store(server), "vol")
}

fn below() -> Policy {
    Policy { only_below: Some(format!("{BUCKET}/vol/")), deny: Vec::new() }
}

/// A key with put, get, list and delete on one prefix is enough: nothing is asked about the bucket.
#[tokio::test]
async fn a_key_for_one_prefix_is_enough() {
    let server = server().await;
    server.control().restrict(below());
    prepare(&volume(&server), "vol", 1).await.unwrap();
    probe(&volume(&server), "vol", 1).await.unwrap();
    assert!(!has_other_objects(&volume(&server)).await.unwrap());
    let seen = server.control().requests();
    assert!(seen.iter().all(|r| r.status < 400), "{seen:?}");
    for op in [Op::CreateBucket, Op::Head, Op::Other] {
        assert_eq!(server.control().count(op), 0, "{op:?}");
    }
    // Another prefix is out of reach, and the text says which right is missing.
    let e = prepare(&Prefixed::new(store(&server), "other"), "other", 1).await.unwrap_err();
    assert!(e.to_string().contains(&format!("s3:PutObject on {BUCKET}/other/*")), "{e}");
}

#[tokio::test]
async fn every_missing_right_is_named() {
    let server = server().await;
    for (deny, rights) in [
        (vec![Op::Put], vec!["s3:PutObject on volume/vol/*"]),
        (vec![Op::Get], vec!["s3:GetObject on volume/vol/*"]),
        (vec![Op::Delete], vec!["s3:DeleteObject on volume/vol/*", "stays behind"]),
        (vec![Op::Get, Op::Delete], vec!["s3:GetObject on volume/vol/*", "s3:DeleteObject on volume/vol/*"]),
    ] {
        server.control().restrict(Policy { deny, ..below() });
        let e = prepare(&volume(&server), "vol", 1).await.unwrap_err();
        assert!(matches!(e, ObjectError::AccessDenied(_)), "{e}");
        for right in rights {
            assert!(e.to_string().contains(right) && e.to_string().contains("volume at http://127"), "{e}");
        }
    }
    // Nothing that serves files lists; whoever needs a listing is told.
    server.control().restrict(Policy { deny: vec![Op::List], ..below() });
    probe(&volume(&server), "vol", 1).await.unwrap();
    let e = has_other_objects(&volume(&server)).await.unwrap_err();
    assert!(e.to_string().contains("s3:ListBucket on volume with the prefix \"vol/\""), "{e}");
    assert_eq!(server.control().count(Op::CreateBucket), 0);
}

#[tokio::test]
async fn a_bucket_is_created_only_if_it_is_missing() {
    let server = S3Server::start(S3Options::default()).await.unwrap();
    server.control().restrict(Policy { deny: vec![Op::CreateBucket], ..Policy::default() });
    let e = prepare(&volume(&server), "vol", 1).await.unwrap_err().to_string();
    for part in ["CreateBucket", "does not exist", "s3:CreateBucket on volume", "create the bucket"] {
        assert!(e.contains(part), "{e}");
    }
    server.control().restrict(Policy::default());
    // The new bucket is not known everywhere at once, and another request for it is under way.
    server.control().prescribe(vec![
        Scripted { times: 1, ..Scripted::always(Op::CreateBucket, 409, "OperationAborted") },
        Scripted { times: 3, ..Scripted::always(Op::Put, 404, "NoSuchBucket") },
    ]);
    prepare(&volume(&server), "vol", 1).await.unwrap();
    assert_eq!(server.control().count(Op::CreateBucket), 3);
    server.control().clear();
    prepare(&volume(&server), "vol", 1).await.unwrap();
    assert_eq!(server.control().count(Op::CreateBucket), 0);
    // Shards are tried one by one, and only what is missing is made.
    let bucket = format!("{BUCKET}%d");
    let server = S3Server::start(S3Options {
        buckets: vec![bucket.replace("%d", "0"), bucket.replace("%d", "2")],
        ..S3Options::default()
    })
    .await
    .unwrap();
    let shards = StoreConfig { bucket: server.bucket_url(&bucket), shards: 4, ..config(&server) };
    prepare(&Prefixed::new(open(&shards).unwrap(), "vol"), "vol", 4).await.unwrap();
    let made: Vec<_> = server
        .control()
        .requests()
        .into_iter()
        .filter(|r| r.op == Op::CreateBucket)
        .map(|r| r.path)
        .collect();
    assert_eq!(made, ["/volume1", "/volume3"]);
}

/// Whatever a store answers, the text names the call, the bucket and what to do.
#[tokio::test]
async fn every_answer_of_a_store_becomes_a_text() {
    let server = server().await;
    let prepared = |script: Vec<Scripted>| {
        server.control().prescribe(script);
        let volume = volume(&server);
        async move { prepare(&volume, "vol", 1).await.unwrap_err().to_string() }
    };
    for (status, code, want) in [
        (403, "AccessDenied", "s3:PutObject on volume/vol/*"),
        (403, "", "s3:PutObject on volume/vol/*"),
        (403, "InvalidAccessKeyId", "--access-key"),
        (403, "SignatureDoesNotMatch", "--secret-key"),
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "InvalidRegion", "AWS_REGION"),
        (400, "InvalidBucketName", "address"),
        (405, "MethodNotAllowed", "S3 service"),
        (409, "OperationAborted", "try again"),
        (411, "MissingContentLength", "Content-Length"),
        (411, "", "Content-Length"),
        (501, "NotImplemented", "S3 service"),
        (501, "", "S3 service"),
        (503, "SlowDown", "overloaded"),
    ] {
        let text = prepared(vec![Scripted::always(Op::Put, status, code)]).await;
        for part in [want, "PutObject", "bucket volume at http://127.0.0.1"] {
            assert!(text.contains(part), "{status} {code}: {text}");
        }
    }
    let malformed = Scripted {
        region: Some("eu-west-3"),
        ..Scripted::always(Op::Put, 400, "AuthorizationHeaderMalformed")
    };
    let text = prepared(vec![malformed]).await;
    assert!(text.contains("AWS_REGION=eu-west-3") && text.contains("PutObject"), "{text}");
    let moved = |op| Scripted {
        region: Some("eu-west-3"),
        elements: "<Endpoint>volume.s3.eu-west-3.example</Endpoint>",
        ..Scripted::always(op, 301, "PermanentRedirect")
    };
    let text = prepared(vec![moved(Op::Put), moved(Op::Get)]).await;
    for part in ["PutObject", "at volume.s3.eu-west-3.example", "AWS_REGION=eu-west-3"] {
        assert!(text.contains(part), "{text}");
    }
    for (status, code, want) in [
        (403, "AccessDenied", "s3:CreateBucket on volume"),
        (409, "BucketAlreadyExists", "another account"),
        (400, "TooManyBuckets", "one that exists"),
        (400, "IllegalLocationConstraintException", "AWS_REGION"),
        (501, "NotImplemented", "S3 service"),
    ] {
        let script = [
            Scripted::always(Op::Put, 404, "NoSuchBucket"),
            Scripted::always(Op::CreateBucket, status, code),
        ];
        let text = prepared(script.to_vec()).await;
        for part in [want, "CreateBucket", "bucket volume at http://127.0.0.1"] {
            assert!(text.contains(part), "{status} {code}: {text}");
        }
    }
}

/// Stores repeat what they were sent, and the session token is part of every request.
#[tokio::test]
async fn what_a_store_repeats_shows_no_secret() {
    const TOKEN: &str = "planted/session+token==";
    let server = server().await;
    let cfg =
        StoreConfig { session_token: TOKEN.into(), secret_key: "planted-secret".into(), ..config(&server) };
    let store = open(&cfg).unwrap();
    for op in [Op::Put, Op::CreateBucket] {
        let repeated = Scripted {
            elements: "<Message>of planted/session+token== and planted-secret</Message>",
            ..Scripted::always(op, 400, "Odd")
        };
        server.control().prescribe(vec![repeated]);
        let e = match op {
            Op::Put => store.put("k", Bytes::new()).await.unwrap_err(),
            _ => store.create_bucket("k").await.unwrap_err(),
        };
        let text = format!("{e} {e:?}");
        assert!(text.contains("**** and ****") || op == Op::CreateBucket, "{text}");
        assert!(!text.contains("planted"), "{text}");
    }
}

#[tokio::test]
async fn of_many_who_store_a_new_object_at_once_one_does() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn ObjectStore> = Arc::new(ciderfs_object::FileStore::new(dir.path()));
    for store in [store(&server), files] {
        for round in 0..10 {
            let key = format!("vol/{round}");
            let put = |i: u32| {
                let (store, key) = (Arc::clone(&store), key.clone());
                async move { store.put_new(&key, Bytes::from(i.to_string())).await.unwrap() }
            };
            let all = futures_util::future::join_all((0..8).map(put)).await;
            let first = all.iter().position(|new| *new).unwrap();
            assert_eq!(all.iter().filter(|new| **new).count(), 1, "round {round}: {all:?}");
            assert_eq!(store.get(&key, None).await.unwrap(), first.to_string());
        }
    }
    let e = store(&server).put_new("x", Bytes::new()).await;
    assert!(e.unwrap(), "an empty object is one, too");
}
