//! Every way to reach a server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::error::Error as _;
use std::process::{Child, Command, Stdio};

use ciderfs_format::Ino;
use ciderfs_meta::store::{Counter, Outcome, Read, Store, StoreError, Value};
use ciderfs_meta_redis::{Options, RedisStore};
use ciderfs_testkit::redis::{RedisOptions, RedisServer};
use common::{attr, open, put, server, until_available};

async fn works(store: &dyn Store) {
    assert!(matches!(store.commit(&put(7)).await.unwrap(), Outcome::Done(_)));
    assert_eq!(store.read(&[Read::Attr(Ino(7))]).await.unwrap(), [Value::Attr(Some(attr(Ino(1))))]);
    let inodes = store.allocate(Counter::NextInode, 1024).await.unwrap();
    assert_eq!(inodes, 2..1025);
}

#[tokio::test]
async fn password_tls_socket_and_database() {
    let secret =
        RedisServer::start(RedisOptions { password: Some("s3cret".into()), ..Default::default() }).unwrap();
    works(&open(&secret.url_db(3)).await).await;
    assert!(secret.command(&["INFO", "keyspace"]).unwrap().contains("db3:keys="));
    let wrong = format!("redis://:nonsense@127.0.0.1:{}", secret.port());
    for url in [wrong, format!("redis://127.0.0.1:{}", secret.port())] {
        let e = RedisStore::open(&url, Options::default()).await.err().unwrap();
        let text = e.to_string();
        assert!(matches!(e, StoreError::Fatal(_)) && text.contains("META_PASSWORD"), "{text}");
        assert!(!text.contains("nonsense"), "{text}");
    }

    let tls = RedisServer::start(RedisOptions { tls: true, ..Default::default() }).unwrap();
    works(&open(&format!("{}?tls-ca-cert-file={}", tls.url(), tls.ca_file().display())).await).await;
    // The system does not know the authority.
    assert!(RedisStore::open(&tls.url(), Options::default()).await.is_err());
    let trusting = open(&format!("{}?insecure-skip-verify=1", tls.url())).await;
    assert!(matches!(trusting.read(&[Read::Attr(Ino(7))]).await.unwrap()[..], [Value::Attr(Some(_))]));

    let unix = RedisServer::start(RedisOptions { unix_only: true, ..Default::default() }).unwrap();
    works(&open(&unix.url_db(2)).await).await;
}

#[tokio::test]
async fn nobody_answers() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let e = RedisStore::open(&format!("redis://127.0.0.1:{port}"), Options::default()).await.err().unwrap();
    assert!(matches!(e, StoreError::Unavailable(_)), "{e:?}");
    let said = "Connection refused (os error 111); is Redis running there, and can this machine reach it?";
    assert_eq!(e.to_string(), format!("127.0.0.1:{port}: {said}"));
    let driver = e.source().and_then(|e| e.downcast_ref::<redis::RedisError>());
    assert!(driver.is_some_and(redis::RedisError::is_connection_refusal), "{driver:?}");
    // A server that accepts and then says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("redis://127.0.0.1:{port}?dial_timeout=300ms&read-timeout=300ms");
    let e = RedisStore::open(&url, Options::default()).await.err().unwrap();
    assert!(matches!(e, StoreError::Unavailable(_)), "{e:?}");
}

#[tokio::test]
async fn warns_and_repairs_the_eviction_policy() {
    let redis = server(&["maxmemory-policy allkeys-lru"]);
    open(&redis.url()).await;
    assert!(redis.command(&["CONFIG", "GET", "maxmemory-policy"]).unwrap().contains("noeviction"));
}

#[tokio::test]
async fn cluster() {
    let nodes: Vec<RedisServer> =
        (0..2).map(|_| server(&["cluster-enabled yes", "cluster-node-timeout 2000"])).collect();
    nodes[0].command(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]).unwrap();
    nodes[1].command(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]).unwrap();
    nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &nodes[1].port().to_string()]).unwrap();
    let known = |n: &RedisServer| {
        let info = n.command(&["CLUSTER", "INFO"]).unwrap();
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
    };
    let start = std::time::Instant::now();
    while !nodes.iter().all(known) {
        assert!(start.elapsed().as_secs() < 60, "the cluster does not form");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // Volumes whose slots lie on either node, reached through either: one address probed, one that says cluster.
    let mut owners = std::collections::BTreeSet::new();
    for db in 0..8 {
        let slot: u32 =
            nodes[0].command(&["CLUSTER", "KEYSLOT", &format!("{{{db}}}")]).unwrap().parse().unwrap();
        let owner = usize::from(slot > 8191);
        owners.insert(owner);
        works(&open(&nodes[0].url_db(db)).await).await;
        let both = format!("redis://127.0.0.1:{},127.0.0.1:{}/{db}", nodes[1].port(), nodes[0].port());
        let store = open(&both).await;
        assert!(matches!(store.read(&[Read::Attr(Ino(7))]).await.unwrap()[..], [Value::Attr(Some(_))]));
        assert_eq!(nodes[owner].command(&["EXISTS", &format!("{{{db}}}i7")]).unwrap(), "1");
    }
    assert_eq!(owners.len(), 2);
}

struct Sentinel {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sentinel(master: u16) -> Sentinel {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = dir.path().join("sentinel.conf");
    let lines = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nlogfile {}\nsentinel monitor mine 127.0.0.1 {master} 1\n\
         sentinel down-after-milliseconds mine 500\nsentinel failover-timeout mine 3000\n",
        dir.path().display(),
        dir.path().join("sentinel.log").display(),
    );
    std::fs::write(&file, lines).unwrap();
    let mut run = Command::new("redis-server");
    run.arg(&file).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = run.spawn().unwrap();
    Sentinel { child, port, _dir: dir }
}

#[tokio::test]
async fn sentinel_failover() {
    let mut master = server(&[]);
    let replica = server(&[&format!("replicaof 127.0.0.1 {}", master.port())]);
    let guard = sentinel(master.port());
    let url = format!("redis://mine,127.0.0.1:{}/0", guard.port);
    let start = std::time::Instant::now();
    let store = loop {
        match RedisStore::open(&url, Options::default()).await {
            Ok(store) => break store,
            Err(e) => assert!(start.elapsed().as_secs() < 60, "{e}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    works(&store).await;
    let synced = || replica.command(&["EXISTS", "i7"]).unwrap() == "1";
    let seen = || {
        let mut ask = Command::new("redis-cli");
        ask.args(["-p", &guard.port.to_string(), "SENTINEL", "replicas", "mine"]);
        String::from_utf8_lossy(&ask.output().unwrap().stdout).contains(&replica.port().to_string())
    };
    while !synced() || !seen() {
        assert!(start.elapsed().as_secs() < 60, "the replica does not follow");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    master.kill();
    until_available(&store, async |s| s.commit(&put(8)).await).await;
    assert_eq!(replica.command(&["EXISTS", "i8"]).unwrap(), "1");
    let found = store.read(&[Read::Attr(Ino(7))]).await.unwrap();
    assert_eq!(found, [Value::Attr(Some(attr(Ino(1))))]);
}
