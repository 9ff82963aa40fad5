//! The SQLite file itself: full disks, read-only use, foreign and damaged files, what the official client leaves in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::{Ino, Slice, SliceId};
use ciderfs_meta::store::{Commit, Counter, Outcome, Output, Read, Store, StoreError, Value, Write};
use ciderfs_meta_sql::{Options, SqliteStore};
use common::{agreed, name, open, step, steps, url};
use rusqlite::Connection;

/// A full file refuses with `NoSpace`, and what was refused did not happen; what was acknowledged did.
#[tokio::test]
async fn full() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.db");
    open(&url(&path)).create_schema().await.unwrap();
    let store = Arc::new(open(&format!("{}?_sync=off&_max_page_count=90", url(&path))));
    let mut refused = 0;
    for round in 0..10 {
        // Many at once share a transaction; some are large, so that the small ones around them are tried too.
        let mut tasks = Vec::new();
        for i in 0..30_u64 {
            let store = Arc::clone(&store);
            let ino = Ino(1000 + round * 100 + i);
            tasks.push(tokio::spawn(async move {
                let size = if i % 7 == 3 { 30_000 } else { 10 };
                let writes = vec![
                    Write::PutSymlink(ino, vec![b'x'; size].into()),
                    Write::AddCounter(Counter::UsedSpace, size as i64),
                ];
                (ino, size, store.commit(&Commit { guards: Vec::new(), writes }).await)
            }));
        }
        for t in tasks {
            let (ino, size, outcome) = t.await.unwrap();
            let found = store.read(&[Read::Symlink(ino)]).await.unwrap().remove(0);
            match outcome {
                Ok(Outcome::Done(out)) => {
                    assert_eq!(found, Value::Bytes(Some(vec![b'x'; size].into())));
                    assert!(matches!(out[1], Output::Int(_)));
                }
                Err(StoreError::NoSpace(text)) => {
                    assert!(text.contains("space"), "{text}");
                    assert_eq!(found, Value::Bytes(None));
                    refused += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(refused > 0);
    drop(store);
    // With room again everything works, and the sum is that of what is there.
    let store = open(&url(&path));
    let conn = Connection::open(&path).unwrap();
    let sum: i64 =
        conn.query_row("SELECT coalesce(sum(length(target)),0) FROM jfs_symlink", [], |r| r.get(0)).unwrap();
    let used = store.read(&[Read::Counter(Counter::UsedSpace)]).await.unwrap().remove(0);
    assert_eq!(used, Value::Int(sum));
    steps(&store, 3, |_| {}).await;
    assert_eq!(agreed(&store).await, 3);
}

/// A call that cannot be carried out takes none of its neighbours with it.
#[tokio::test]
async fn one_bad_call_among_many() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&format!("{}?_sync=off", url(&dir.path().join("v.db")))));
    store.create_schema().await.unwrap();
    let mut tasks = Vec::new();
    for i in 0..40_u64 {
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move {
            // A rule that is cut short cannot be stored.
            let rule = vec![0; if i % 5 == 0 { 7 } else { 16 }];
            let writes =
                vec![Write::PutSymlink(Ino(i + 10), "x".into()), Write::PutAcl(i as u32 + 1, rule.into())];
            (i, store.commit(&Commit { guards: Vec::new(), writes }).await)
        }));
    }
    for t in tasks {
        let (i, outcome) = t.await.unwrap();
        assert_eq!(outcome.is_ok(), i % 5 != 0, "{i}: {outcome:?}");
        let there = store.read(&[Read::Symlink(Ino(i + 10))]).await.unwrap().remove(0) != Value::Bytes(None);
        assert_eq!(there, i % 5 != 0, "half of a refused call was written");
    }
}

#[tokio::test]
async fn read_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.db");
    let missing = SqliteStore::open(&url(&path), Options { read_only: true, ..Options::default() });
    assert!(matches!(missing.err(), Some(StoreError::Fatal(t)) if t.contains("does not exist")));
    assert!(!path.exists(), "nothing is created");
    let writer = open(&url(&path));
    writer.create_schema().await.unwrap();
    steps(&writer, 3, |_| {}).await;
    let by_option =
        SqliteStore::open(&url(&path), Options { read_only: true, ..Options::default() }).unwrap();
    let by_address = open(&format!("{}?mode=ro", url(&path)));
    for s in [&by_option, &by_address] {
        assert_eq!(agreed(s).await, 3);
        for refused in [
            s.commit(&step(3)).await.err(),
            s.allocate(Counter::NextInode, 1).await.err(),
            s.create_schema().await.err(),
        ] {
            assert!(matches!(refused, Some(StoreError::Fatal(t)) if t.contains("read-only")));
        }
    }
    // It sees what others write.
    steps(&writer, 2, |_| {}).await;
    assert_eq!(agreed(&by_option).await, 5);
    drop(writer);
    assert_eq!(agreed(&by_address).await, 5);
}

fn refusal(url: &str) -> String {
    match SqliteStore::open(url, Options::default()) {
        Err(StoreError::Fatal(text)) => text.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{url} was opened"),
    }
}

#[tokio::test]
async fn foreign_and_damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text.db");
    std::fs::write(&text, "this is no database, however long one looks at it\n".repeat(300)).unwrap();
    assert!(refusal(&url(&text)).contains("not a SQLite database"));
    assert!(refusal(&url(dir.path())).contains("directory"));
    assert!(refusal(&url(&dir.path().join("no/where.db"))).contains("does not exist"));

    // A database of somebody else is no volume, and stays as it is.
    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE cats(name TEXT)").unwrap();
    let store = open(&url(&foreign));
    assert_eq!(store.read(&[Read::Setting]).await.unwrap(), [Value::Bytes(None)]);
    match store.read(&[Read::Symlink(Ino(1))]).await {
        Err(StoreError::Fatal(text)) => assert!(text.contains("no volume"), "{text}"),
        other => panic!("{other:?}"),
    }
    let refused = store.commit(&step(0)).await;
    assert!(matches!(refused, Err(StoreError::Fatal(_))), "{refused:?}");
    let tables: i64 = Connection::open(&foreign)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_master WHERE type='table'", [], |r| r.get(0))
        .unwrap();
    assert_eq!(tables, 1);

    // Garbage in the middle of a real volume.
    let damaged = dir.path().join("damaged.db");
    let store = open(&format!("{}?_journal=DELETE", url(&damaged)));
    store.create_schema().await.unwrap();
    steps(&store, 200, |_| {}).await;
    drop(store);
    let mut raw = std::fs::read(&damaged).unwrap();
    for (i, b) in raw.iter_mut().enumerate().skip(4096 * 2) {
        *b = (i * 31 % 251) as u8;
    }
    std::fs::write(&damaged, raw).unwrap();
    let opened = SqliteStore::open(&url(&damaged), Options::default());
    let error = match &opened {
        Err(e) => e.clone(),
        Ok(store) => {
            let reads = [Read::Edge(Ino(1), name(1)), Read::Attr(Ino(1)), Read::Setting];
            store.read(&reads).await.unwrap_err()
        }
    };
    match error {
        StoreError::Corrupt(text) => assert!(text.contains("backup") || text.contains("damaged"), "{text}"),
        other => panic!("{other:?}"),
    }
}

/// What the official client's appends leave behind: text with zeros inside.
#[tokio::test]
async fn lists_stored_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.db");
    let store = open(&url(&path));
    store.create_schema().await.unwrap();
    let slice = |id| Slice { pos: 0, id, size: 10, off: 0, len: 10 };
    let append = |id| Commit {
        guards: Vec::new(),
        writes: vec![Write::NewSliceRef(id, 10), Write::AppendSlices(Ino(7), 0, vec![slice(id)])],
    };
    store.commit(&append(SliceId(1))).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other
        .execute(
            "UPDATE jfs_chunk SET slices=slices||?1 WHERE inode=7",
            [slice(SliceId(2)).encode().to_vec()],
        )
        .unwrap();
    let kind: String = other.query_row("SELECT typeof(slices) FROM jfs_chunk", [], |r| r.get(0)).unwrap();
    assert_eq!(kind, "text");
    let list = async || store.read(&[Read::Slices(Ino(7), 0)]).await.unwrap().remove(0);
    assert_eq!(list().await, Value::Slices(vec![slice(SliceId(1)), slice(SliceId(2))]));
    let Outcome::Done(out) = store.commit(&append(SliceId(3))).await.unwrap() else { panic!() };
    assert_eq!(out[1], Output::Int(3));
    assert_eq!(list().await, Value::Slices(vec![slice(SliceId(1)), slice(SliceId(2)), slice(SliceId(3))]));
}

/// A store closes while calls wait: they are answered, none hangs.
#[tokio::test]
async fn closing_answers_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("v.db");
    let store = Arc::new(open(&url(&path)));
    store.create_schema().await.unwrap();
    let calls: Vec<_> = (0..50)
        .map(|i| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let writes = vec![Write::PutSymlink(Ino(i + 10), "x".into())];
                store.commit(&Commit { guards: Vec::new(), writes }).await.is_ok()
            })
        })
        .collect();
    drop(store);
    for call in calls {
        assert!(tokio::time::timeout(Duration::from_secs(30), call).await.unwrap().unwrap());
    }
    let rows: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM jfs_symlink", [], |r| r.get(0))
        .unwrap();
    assert_eq!(rows, 50);
}

/// Slices of files are in a table, and a number of one of them is not given to another.
#[tokio::test]
async fn a_counter_of_slices_that_was_set_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("volume.db");
    let s = open(&url(&path));
    s.create_schema().await.unwrap();
    let used = s.allocate(Counter::NextChunk, 100).await.unwrap();
    // Not all in a row, and one in the middle of nowhere.
    let ids = used.clone().step_by(3).chain([250, 5000]);
    let writes = ids.clone().map(|id| Write::NewSliceRef(SliceId(id), 10)).collect();
    s.commit(&Commit { guards: Vec::new(), writes }).await.unwrap();
    let db = Connection::open(&path).unwrap();
    let set = |n: i64| db.execute("UPDATE jfs_counter SET value=?1 WHERE name='nextChunk'", [n]).unwrap();
    for back in [0, 1, 50] {
        set(back);
        for _ in 0..20 {
            let got = s.allocate(Counter::NextChunk, 10).await.unwrap();
            assert!(got.start > 0 && got.end - got.start == 10, "{got:?}");
            assert!(ids.clone().all(|id| !got.contains(&id)), "{got:?} after {back}");
        }
    }
    for bad in [-1, i64::MIN, i64::MAX] {
        set(bad);
        let e = s.allocate(Counter::NextChunk, 10).await.unwrap_err();
        assert!(matches!(&e, StoreError::Corrupt(text) if text.contains("NextChunk")), "{e:?}");
        let left: i64 =
            db.query_row("SELECT value FROM jfs_counter WHERE name='nextChunk'", [], |r| r.get(0)).unwrap();
        assert_eq!(left, bad, "it is for somebody to look at");
    }
}
