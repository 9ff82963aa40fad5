//! Several processes on one SQLite file, and one that is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::error::Error as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ciderfs_meta::store::{Outcome, Store, StoreError};
use ciderfs_meta_sql::SqliteStore;
use common::{agreed, counter, open, step, steps, url};
use rusqlite::Connection;

/// Tells the child process what to do: number of steps, address.
const CHILD: &str = "CIDERFS_TEST_CHILD";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The other process of the tests below: makes steps and tells them.
#[test]
#[ignore = "started by other tests"]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (n, url) = task.split_once(' ').unwrap();
    let store = open(url);
    let n = n.parse().unwrap();
    runtime().block_on(steps(&store, n, |at| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "done {at}").unwrap();
        out.flush().unwrap();
    }));
}

fn start_child(n: u64, url: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(CHILD, format!("{n} {url}"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn two_processes() {
    for journal in ["WAL", "DELETE"] {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("{}?_sync=off&_journal={journal}", url(&dir.path().join("v.db")));
        let store = open(&url);
        store.create_schema().await.unwrap();
        let mut child = start_child(100, &url);
        steps(&store, 100, |_| {}).await;
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert!(status.success());
        assert_eq!(agreed(&store).await, 200, "{journal}");
    }
}

#[tokio::test]
async fn two_processes_create_the_same_file() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("{}?_sync=off", url(&dir.path().join("v.db")));
        let openers = (0..4).map(|_| {
            let url = url.clone();
            std::thread::spawn(move || {
                let store = open(&url);
                runtime().block_on(store.create_schema()).unwrap();
                store
            })
        });
        let stores: Vec<SqliteStore> =
            openers.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect();
        for s in &stores {
            steps(s, 5, |_| {}).await;
        }
        assert_eq!(agreed(&stores[0]).await, 20);
    }
}

/// A foreign lock is waited for, and reported when it stays.
#[tokio::test]
async fn locked_by_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.db");
    let store = Arc::new(open(&url(&path)));
    store.create_schema().await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit(&step(0)).await }
    });
    // Reads need no lock.
    assert_eq!(counter(store.as_ref()).await, 0);
    assert!(!waiting.is_finished());
    other.execute_batch("COMMIT").unwrap();
    assert!(matches!(waiting.await.unwrap(), Ok(Outcome::Done(_))));
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let hasty = open(&format!("{}?_timeout=50", url(&path)));
    match hasty.commit(&step(1)).await {
        Err(e @ StoreError::Unavailable(_)) => {
            let said = "is locked by another process; a larger _timeout in the address waits longer";
            assert_eq!(e.to_string(), format!("{} {said}", path.display()));
            let driver = e.source().and_then(|e| e.downcast_ref::<rusqlite::Error>());
            let code = driver.and_then(rusqlite::Error::sqlite_error_code);
            assert_eq!(code, Some(rusqlite::ErrorCode::DatabaseBusy), "{e:?}");
        }
        other => panic!("{other:?}"),
    }
    other.execute_batch("ROLLBACK").unwrap();
    steps(&hasty, 1, |_| {}).await;
    assert_eq!(agreed(store.as_ref()).await, 2);
}

/// A writer that is killed leaves whole commits, among them all that it told of.
#[tokio::test]
async fn killed_in_the_middle() {
    for journal in ["WAL", "DELETE"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.db");
        let url = format!("{}?_journal={journal}", url(&path));
        open(&url).create_schema().await.unwrap();
        let mut before = 0;
        for round in 0..6 {
            let mut child = start_child(u64::MAX, &url);
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            // Somewhere in the middle of its work, a little later every time.
            let mut told = before;
            while told < before + 3 + round * 5 {
                let line = lines.next().unwrap().unwrap();
                if let Some(at) = line.strip_prefix("done ") {
                    told = at.parse::<i64>().unwrap() + 1;
                }
            }
            child.kill().unwrap();
            child.wait().unwrap();
            for line in lines.map_while(Result::ok) {
                if let Some(at) = line.strip_prefix("done ").and_then(|n| n.parse::<i64>().ok()) {
                    told = at + 1;
                }
            }
            let store = open(&url);
            let n = agreed(&store).await;
            assert!(n >= told, "{journal}: {told} were acknowledged, {n} are there");
            before = n;
        }
        let check: String =
            Connection::open(&path).unwrap().query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
        assert_eq!(check, "ok");
    }
}
