//! Servers that refuse commands, that are not ready yet, and replicas.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_format::settings::Settings;
use ciderfs_format::{FileType, Ino, SessionId};
use ciderfs_meta::store::{Commit, Counter, Guard, Job, Read, Scan, Store, StoreError, Write};
use ciderfs_meta::{Meta, MetaConfig};
use ciderfs_meta_redis::{Options, RedisStore};
use ciderfs_testkit::redis::RedisServer;
use common::{attr, documented_rights, open, put, server, user};

fn patient(seconds: u64) -> Options {
    Options { patience: Duration::from_secs(seconds), ..Options::default() }
}

async fn refused(url: &str) -> String {
    let e = RedisStore::open(url, patient(30)).await.err().unwrap();
    assert!(matches!(e, StoreError::Fatal(_)), "{e:?}");
    let text = e.to_string();
    assert!(!text.contains("s3cret"), "{text}");
    text
}

/// Every kind of call, each of which must be answered without a refusal.
async fn use_all(store: &dyn Store) {
    let settings = Settings::new("rights", "5f1c3a86-0000-4000-8000-000000000009", "file", "/nowhere/");
    Meta::write_settings(store, &settings, None).await.unwrap();
    for counter in [Counter::NextInode, Counter::NextChunk] {
        store.allocate(counter, 10).await.unwrap();
    }
    for scan in [
        Scan::Sessions,
        Scan::Sustained(SessionId(1)),
        Scan::Delfiles(i64::MAX >> 1),
        Scan::DeadSlices,
        Scan::DelayedSlices,
        Scan::Locked(SessionId(1)),
        Scan::Chunks(Ino(2)),
        Scan::DirQuotas,
        Scan::OwnerQuotas,
    ] {
        store.scan(&scan, 10).await.unwrap_or_else(|e| panic!("{scan:?}: {e}"));
    }
    store.claim(Job::CleanupTrash, 1_700_000_000, 10).await.unwrap();
    for ino in [1, 2] {
        for dir in [Ino(ino), Ino::TRASH] {
            store.list_dir(dir, &Default::default(), 10, true).await.unwrap();
        }
    }
    store.commit(&put(2)).await.unwrap();
    for ino in [3, 4] {
        let guards = vec![Guard::DirEmpty(Ino(ino)), Guard::Session(SessionId(1))];
        store.commit(&Commit { guards, writes: vec![Write::TellAttr(Ino(ino))] }).await.unwrap();
    }
    assert!(matches!(store.read(&[Read::Attr(Ino(2))]).await.unwrap()[..], [_]));
}

/// What is documented is enough to enter; `suite.rs` does everything else with these rights.
#[tokio::test]
async fn the_documented_rights_are_enough() {
    let rule = documented_rights();
    assert!(rule.iter().any(|w| w == "+evalsha") && rule.iter().any(|w| w == "~*"), "{rule:?}");
    for db in [0, 3] {
        let redis = server(&[]);
        let url = user(&redis, db, &rule);
        let store = RedisStore::open(&url, Options::default()).await.unwrap();
        use_all(&store).await;
    }
}

/// Also where a script runs it: in the words of the administrator's remedy, and never with the password.
#[tokio::test]
async fn a_needed_command_that_is_refused_is_named() {
    let redis = server(&[]);
    let names = ["evalsha", "eval", "set", "get", "hset", "del"];
    for name in names {
        let url = user(&redis, 0, &["~*", "+@all", &format!("-{name}")]);
        let store = RedisStore::open(&url, Options::default()).await.unwrap();
        let settings = Settings::new("rights", "5f1c3a86-0000-4000-8000-000000000009", "file", "/nowhere/");
        redis.command(&["SCRIPT", "FLUSH"]).unwrap();
        redis.command(&["FLUSHALL"]).unwrap();
        let written = Meta::write_settings(&store, &settings, None).await;
        let e = match written {
            Err(e) => e.to_string(),
            Ok(()) => {
                let edge = ciderfs_format::Edge { kind: FileType::File, ino: Ino(2) };
                let writes = vec![Write::PutEdge(Ino(1), b"a".to_vec(), edge), Write::DelAttr(Ino(9))];
                store.commit(&Commit { guards: Vec::new(), writes }).await.unwrap_err().to_string()
            }
        };
        assert!(e.contains(&name.to_uppercase()) && e.contains(&format!("+{name}")), "{name}: {e}");
        assert!(!e.contains("s3cret"), "{e}");
    }
    // Keys.
    let url = user(&redis, 0, &["~nothing*", "+@all"]);
    let store = RedisStore::open(&url, Options::default()).await.unwrap();
    let e = store.commit(&put(2)).await.unwrap_err().to_string();
    assert!(e.contains("~*") && !e.contains("s3cret"), "{e}");
    // While entering.
    let url = user(&redis, 2, &["~*", "+@all", "-select"]);
    let store = RedisStore::open(&url, Options::default()).await.unwrap();
    let e = store.commit(&put(2)).await.unwrap_err();
    assert!(matches!(&e, StoreError::Fatal(text) if text.contains("+select")), "{e:?}");
    redis.command(&["ACL", "SETUSER", "ciderfs", "reset", "on", ">other"]).unwrap();
    let e = refused(&format!("redis://ciderfs:s3cret@127.0.0.1:{}/1", redis.port())).await;
    assert!(e.contains("META_PASSWORD"), "{e}");
}

/// What is asked for comfort may be refused, or have another name.
#[tokio::test]
async fn a_server_that_tells_nothing_is_used() {
    let comfort = ["info", "config", "client", "memory", "command", "role", "ping", "cluster", "time"];
    let redis = server(&[]);
    let mut rules = vec!["~*".to_owned(), "+@all".to_owned()];
    rules.extend(comfort.iter().map(|c| format!("-{c}")));
    let store = RedisStore::open(&user(&redis, 1, &rules), Options::default()).await.unwrap();
    use_all(&store).await;
    let renamed: Vec<String> = comfort.iter().map(|c| format!("rename-command {c} \"\"")).collect();
    let renamed: Vec<&str> = renamed.iter().map(String::as_str).filter(|c| !c.contains(" ping ")).collect();
    let redis = server(&renamed);
    use_all(&open(&redis.url_db(1)).await).await;
    let redis = server(&["rename-command EVALSHA hidden"]);
    let e = open(&redis.url()).await.commit(&put(2)).await.unwrap_err();
    assert!(matches!(&e, StoreError::Fatal(text) if text.contains("EVALSHA")), "{e:?}");
}

fn replica_of(redis: &RedisServer, more: &[&str]) -> RedisServer {
    let line = format!("replicaof 127.0.0.1 {}", redis.port());
    let mut config = vec![line.as_str()];
    config.extend(more);
    let replica = server(&config);
    let start = Instant::now();
    while !replica.command(&["INFO", "replication"]).unwrap().contains("master_link_status:up") {
        assert!(start.elapsed() < Duration::from_secs(60), "the replica does not follow");
        std::thread::sleep(Duration::from_millis(20));
    }
    replica
}

/// Who only reads may use a replica; who writes is told at once, also where the replica tells little of itself.
#[tokio::test]
async fn a_replica_is_recognised_at_once() {
    let redis = server(&["repl-diskless-sync-delay 0"]);
    open(&redis.url_db(1)).await.commit(&put(2)).await.unwrap();
    let replica = replica_of(&redis, &[]);
    let begun = Instant::now();
    let e = RedisStore::open(&replica.url_db(1), patient(60)).await.err().unwrap();
    let master = format!("127.0.0.1:{}", redis.port());
    assert!(matches!(&e, StoreError::Fatal(t) if t.contains("replica") && t.contains(&master)), "{e:?}");
    let reading = Options { read_only: true, ..patient(60) };
    let store = RedisStore::open(&replica.url_db(1), reading).await.unwrap();
    assert_eq!(
        store.read(&[Read::Attr(Ino(2))]).await.unwrap(),
        [ciderfs_meta::store::Value::Attr(Some(attr(Ino(1))))]
    );
    for less in [&["-info"][..], &["-info", "-role"]] {
        let rules: Vec<&str> = ["~*", "+@all"].iter().chain(less).copied().collect();
        let e = RedisStore::open(&user(&replica, 1, &rules), patient(60)).await.err().unwrap();
        assert!(matches!(&e, StoreError::Fatal(t) if t.contains("replica")), "{less:?}: {e:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// A server for one script of answers: the first connections get these, all later ones go to a real server.
fn in_front_of(redis: &RedisServer, answers: Vec<&'static str>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let to = redis.port();
    std::thread::spawn(move || {
        let mut answers = answers.into_iter();
        for client in listener.incoming() {
            let mut client = client.unwrap();
            match answers.next() {
                Some("reset") => drop(client),
                Some(answer) => {
                    let mut buffer = [0; 4096];
                    std::thread::spawn(move || {
                        while let Ok(1..) = client.read(&mut buffer) {
                            // One for each command.
                            let sent = buffer.iter().filter(|b| **b == b'*').count().max(1);
                            buffer.fill(0);
                            if client.write_all(answer.repeat(sent).as_bytes()).is_err() {
                                return;
                            }
                        }
                    });
                }
                None => {
                    let server = std::net::TcpStream::connect(("127.0.0.1", to)).unwrap();
                    for (mut from, mut into) in
                        [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                    {
                        std::thread::spawn(move || std::io::copy(&mut from, &mut into));
                    }
                }
            }
        }
    });
    port
}

/// Answers that pass are waited for, whichever command of a new connection they come to: a volume without a password in database
/// 0, one in another database, one with a password.
#[tokio::test]
async fn passing_answers_while_connecting_are_waited_for() {
    let answers = [
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
        "-ERR max number of clients reached\r\n",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        "-CLUSTERDOWN The cluster is down\r\n",
        "reset",
    ];
    let redis = server(&[]);
    user(&redis, 0, &["~*", "+@all"]);
    for (login, db) in [("", 0), ("", 4), ("ciderfs:s3cret@", 0), ("ciderfs:s3cret@", 4)] {
        let port = in_front_of(&redis, answers.to_vec());
        let url = format!("redis://{login}127.0.0.1:{port}/{db}");
        let store = RedisStore::open(&url, patient(60)).await.unwrap();
        store.commit(&put(2)).await.unwrap();
        // And as an error that the caller repeats, when a connection is lost later.
        for answer in answers {
            let port = in_front_of(&redis, vec![]);
            drop(store_of(port, login, db).await);
            let port = in_front_of(&redis, vec![answer]);
            let e =
                RedisStore::open(&format!("redis://{login}127.0.0.1:{port}/{db}"), Options::default()).await;
            let e = e.err().unwrap();
            assert!(matches!(e, StoreError::Unavailable(_)), "{answer}: {e:?}");
        }
    }
}

async fn store_of(port: u16, login: &str, db: u32) -> RedisStore {
    open(&format!("redis://{login}127.0.0.1:{port}/{db}")).await
}

/// The real server that is loading, has no room for another client, or is busy.
#[tokio::test]
async fn a_real_server_that_is_not_ready_is_waited_for() {
    let redis = server(&["maxclients 10", "busy-reply-threshold 100"]);
    // Others have all connections.
    let mut others: Vec<std::net::TcpStream> = Vec::new();
    while redis.command(&["PING"]).is_ok() {
        others.push(std::net::TcpStream::connect(("127.0.0.1", redis.port())).unwrap());
    }
    let url = redis.url_db(2);
    let e = RedisStore::open(&url, Options::default()).await.err().unwrap();
    assert!(matches!(e, StoreError::Unavailable(_)), "{e:?}");
    let opening = tokio::spawn(async move { RedisStore::open(&url, patient(60)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!opening.is_finished());
    drop(others);
    let store = Arc::new(opening.await.unwrap().unwrap());
    // Somebody's long script, while a connection has to be made.
    let port = redis.port();
    let script = std::thread::spawn(move || {
        let mut other =
            redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap().get_connection().unwrap();
        let text = "local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < 3 do end";
        redis::cmd("EVAL").arg(text).arg(0).exec(&mut other).unwrap();
    });
    let start = Instant::now();
    while !redis.command(&["PING"]).is_err_and(|e| e.to_string().contains("BUSY")) {
        assert!(start.elapsed() < Duration::from_secs(3), "the server is not busy");
    }
    let meta_url = redis.url_db(2);
    let e = RedisStore::open(&meta_url, Options::default()).await.err().unwrap();
    assert!(matches!(e, StoreError::Unavailable(_)), "{e:?}");
    let e = store.commit(&put(2)).await.unwrap_err();
    assert!(matches!(e, StoreError::Unavailable(_)), "{e:?}");
    RedisStore::open(&meta_url, patient(60)).await.unwrap().commit(&put(2)).await.unwrap();
    script.join().unwrap();
}

/// A mount in use waits while its server says that it is a replica, as in a failover.
#[tokio::test]
async fn a_failover_is_waited_for() {
    let redis = server(&[]);
    let store: Arc<dyn Store> = Arc::new(open(&redis.url_db(1)).await);
    let settings = Settings::new("rights", "5f1c3a86-0000-4000-8000-000000000009", "file", "/nowhere/");
    Meta::write_settings(store.as_ref(), &settings, None).await.unwrap();
    let meta =
        Meta::load(store, MetaConfig { heartbeat: Duration::ZERO, ..MetaConfig::default() }).await.unwrap();
    // A master that is not there: this one stays without any.
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    let starting = {
        let meta = Arc::clone(&meta);
        tokio::spawn(async move { meta.start_session().await })
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!starting.is_finished());
    redis.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    starting.await.unwrap().unwrap();
    meta.close_session().await.unwrap();
}
