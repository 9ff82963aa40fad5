//! Servers for the tests of the Redis driver.
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ciderfs_format::{Attr, FileType, Ino, Time};
use ciderfs_meta::store::{Commit, Store, StoreError, Write};
use ciderfs_meta_redis::{Options, RedisStore};
use ciderfs_testkit::redis::{RedisOptions, RedisServer};

/// A server; a machine without Redis is an error.
pub fn server(config: &[&str]) -> RedisServer {
    let config = config.iter().map(|&line| line.to_owned()).collect();
    RedisServer::start(RedisOptions { config, ..RedisOptions::default() }).unwrap()
}

/// What `docs/redis.md` tells an administrator to grant.
pub fn documented_rights() -> Vec<String> {
    let text = include_str!("../../../../docs/redis.md");
    let start = text.find("ACL SETUSER ciderfs").expect("the rule");
    let rule = text[start..].split("```").next().unwrap();
    rule.split_whitespace().skip(3).filter(|w| *w != "\\" && !w.starts_with('>')).map(str::to_owned).collect()
}

/// A user with these rules and the password `s3cret`; the address that names it.
pub fn user<S: AsRef<str>>(redis: &RedisServer, db: u32, rules: &[S]) -> String {
    let mut command = vec!["ACL", "SETUSER", "ciderfs", "reset", "on", ">s3cret"];
    command.extend(rules.iter().map(AsRef::as_ref));
    redis.command(&command).unwrap();
    format!("redis://ciderfs:s3cret@127.0.0.1:{}/{db}", redis.port())
}

pub async fn open(url: &str) -> RedisStore {
    RedisStore::open(url, Options::default()).await.unwrap()
}

pub fn attr(parent: Ino) -> Attr {
    let t = Time { sec: 1_795_000_000, nsec: 5 };
    Attr {
        flags: 0,
        kind: FileType::File,
        mode: 0o644,
        uid: 1,
        gid: 2,
        atime: t,
        mtime: t,
        ctime: t,
        nlink: 1,
        length: 0,
        rdev: 0,
        parent,
        access_acl: 0,
        default_acl: 0,
        tier: 0,
    }
}

pub fn put(ino: u64) -> Commit {
    Commit { guards: Vec::new(), writes: vec![Write::PutAttr(Ino(ino), attr(Ino(1)))] }
}

/// Repeats a call until the server can answer.
pub async fn until_available<T>(
    store: &dyn Store,
    call: impl AsyncFn(&dyn Store) -> Result<T, StoreError>,
) -> T {
    let start = Instant::now();
    loop {
        match call(store).await {
            Ok(v) => return v,
            Err(StoreError::Unavailable(_) | StoreError::Ambiguous(_))
                if start.elapsed() < Duration::from_secs(60) =>
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// A port in front of a server that can lose answers.
pub struct Proxy {
    pub port: u16,
    lose: Arc<AtomicBool>,
}

impl Proxy {
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let lose = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&lose);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (from, into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || pump(from, into, None));
                let flag = Arc::clone(&flag);
                std::thread::spawn(move || pump(server, client, Some(flag)));
            }
        });
        Self { port, lose }
    }

    /// The next answer of the server is lost and its connection cut.
    pub fn lose_next_answer(&self) {
        self.lose.store(true, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut into: TcpStream, lose: Option<Arc<AtomicBool>>) {
    let mut buffer = [0; 64 << 10];
    while let Ok(n) = from.read(&mut buffer) {
        let lost = n > 0 && lose.as_ref().is_some_and(|l| l.swap(false, Ordering::SeqCst));
        if n == 0 || lost || into.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = into.shutdown(Shutdown::Both);
}
