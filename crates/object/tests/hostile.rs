//! The S3 driver against stores that are broken, are something else, or mean harm: each answer has an end in time and in memory,
//! and no request counts as done that the store has not confirmed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "hostile/cases.rs"]
mod cases;
#[path = "hostile/http.rs"]
mod http;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciderfs_object::layers::{Limited, Limits, Retried};
use ciderfs_object::{ObjectError, ObjectStore, StoreConfig, open};
use ciderfs_testkit::hostile::{Hostile, Request, Step};

use cases::{Case, Expect};

/// Deadline of an attempt.
const DEADLINE: Duration = Duration::from_millis(700);
/// Attempts beyond the first.
const RETRIES: u32 = 1;
/// How long a request may take: its attempts, the pause between, and a slow machine.
const TIME: Duration = Duration::from_secs(8);
/// How much the process may grow, in bytes: what is read of an answer, twice over, and the buffers of the connection.
const MEMORY: u64 = 24 << 20;
/// Characters of the longest error.
const TEXT: usize = 2000;
/// Behaviours, at least.
const MANY: usize = 30;

/// One at a time, because the memory of the process is measured.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// An object of at most 8 KiB.
    Get,
    /// Bytes 1000 to 2000.
    Part,
    Put,
    Head,
    Delete,
    /// What is below `a/`.
    List,
    Create,
}

fn store(server: &Hostile) -> Arc<dyn ObjectStore> {
    let cfg = StoreConfig {
        storage: "s3".to_owned(),
        bucket: format!("{}/volume", server.endpoint()),
        access_key: "key".to_owned(),
        secret_key: "secret".into(),
        ..StoreConfig::default()
    };
    let limits = Limits { get_timeout: DEADLINE, put_timeout: DEADLINE, ..Limits::default() };
    let limited: Arc<dyn ObjectStore> = Arc::new(Limited::new(open(&cfg).unwrap(), limits));
    Arc::new(Retried::new(limited, RETRIES))
}

/// The answer in words: a body, keys, or nothing.
async fn ask(store: &dyn ObjectStore, ask: Ask) -> Result<Vec<u8>, ObjectError> {
    let key = "a/object";
    match ask {
        Ask::Get => store.get_whole(key, 8 << 10).await.map(Vec::from),
        Ask::Part => store.get(key, Some(1000..2000)).await.map(Vec::from),
        Ask::Put => store.put(key, Bytes::from(http::body())).await.map(|()| Vec::new()),
        Ask::Head => store.head(key).await.map(|m| m.size.to_string().into_bytes()),
        Ask::Delete => store.delete(key).await.map(|()| Vec::new()),
        Ask::List => {
            let page = store.list("a/", "", 5000).await?;
            Ok(page.into_iter().map(|e| format!("{} {}\n", e.key, e.size)).collect::<String>().into())
        }
        Ask::Create => store.create_bucket(key).await.map(|()| Vec::new()),
    }
}

fn kind(e: &ObjectError) -> String {
    format!("{e:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Asks, and holds the answer to its limits.
async fn within_limits(name: &str, server: &Hostile, what: Ask) -> Result<Vec<u8>, ObjectError> {
    // The peak begins anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS");
    let began = Instant::now();
    let store = store(server);
    let Ok(result) = tokio::time::timeout(TIME, ask(store.as_ref(), what)).await else {
        panic!("{name}, {what:?}: no end after {TIME:?}");
    };
    let grown = memory("VmHWM").saturating_sub(before);
    assert!(grown < MEMORY, "{name}, {what:?}: {grown} bytes of memory, {} sent", server.sent());
    if let Err(e) = &result {
        let text = e.to_string();
        assert!(text.chars().count() < TEXT, "{name}, {what:?}: {} characters", text.chars().count());
        assert!(!text.contains(char::is_control), "{name}, {what:?}: {text:?}");
    }
    eprintln!("{name}, {what:?}: {:?}, {grown} bytes, {:?}", result.as_ref().map(Vec::len), began.elapsed());
    result
}

async fn check(case: &Case) {
    let server = Hostile::start(case.script.clone()).await.unwrap();
    let result = within_limits(&case.name, &server, case.ask).await;
    match (&case.expect, &result) {
        (Expect::Done(body), Ok(found)) => {
            assert!(found == body, "{}: {:?}", case.name, String::from_utf8_lossy(found));
        }
        (Expect::Fails(kinds, text), Err(e)) => {
            assert!(kinds.contains(&kind(e).as_str()), "{}: {e:?}", case.name);
            assert!(e.to_string().contains(text), "{}: {e}", case.name);
        }
        _ => panic!("{}, {:?}: {result:?}", case.name, case.ask),
    }
    // Nothing goes where an answer points to, and what cannot get better is not repeated.
    let most =
        if result.as_ref().is_err_and(|e| !e.is_retryable()) { case.requests } else { 1 + RETRIES as usize };
    if case.requests > 0 {
        let seen = server.requests().len();
        assert!(seen <= most.max(case.requests), "{}: {seen} requests", case.name);
    }
}

async fn check_all(cases: Vec<Case>) {
    for case in &cases {
        let _turn = TURN.lock().await;
        check(case).await;
    }
}

#[tokio::test]
async fn reads_of_whole_objects() {
    check_all(cases::gets()).await;
}

#[tokio::test]
async fn reads_of_parts() {
    check_all(cases::parts()).await;
}

#[tokio::test]
async fn writes() {
    check_all(cases::puts()).await;
}

#[tokio::test]
async fn removals_and_looks() {
    check_all(cases::others()).await;
}

#[tokio::test]
async fn listings() {
    check_all(cases::lists()).await;
}

#[tokio::test]
async fn redirects_are_told_and_not_followed() {
    check_all(cases::redirects()).await;
}

/// Whatever a store answers to whatever request, a PUT is done only where that answer confirms it.
#[tokio::test]
async fn no_put_is_done_unless_the_store_says_so() {
    let mut cases: Vec<Case> =
        [cases::gets(), cases::parts(), cases::puts(), cases::others(), cases::lists()].concat();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    cases.dedup_by(|a, b| a.name == b.name);
    assert!(cases.len() >= MANY, "{} behaviours", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let _turn = TURN.lock().await;
        let server = Hostile::start(case.script.clone()).await.unwrap();
        let result = within_limits(&case.name, &server, Ask::Put).await;
        if result.is_ok() != case.confirms {
            wrong.push((case.name, result));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// An answer of one connection does not become that of the next request.
#[tokio::test]
async fn an_answer_with_too_much_is_not_taken_for_the_next() {
    let _turn = TURN.lock().await;
    let script = |r: &Request| match r.number {
        // What follows the body looks like an answer.
        0 => vec![Step::Send([http::whole(&http::body()), http::whole(&[7; 5000])].concat())],
        _ => vec![Step::Send(http::whole(&[9; 5000]))],
    };
    let server = Hostile::start(Arc::new(script)).await.unwrap();
    let store = store(&server);
    assert_eq!(ask(store.as_ref(), Ask::Get).await.unwrap(), http::body());
    assert_eq!(ask(store.as_ref(), Ask::Get).await.unwrap(), [9; 5000]);
}
