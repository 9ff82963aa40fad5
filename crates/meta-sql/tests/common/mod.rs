//! What the tests of SQLite files share.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::Path;

use ciderfs_format::{Edge, FileType, Ino, Slice};
use ciderfs_meta::store::{
    Commit, Counter, DirCursor, Guard, Outcome, Read, Store, StoreError, Value, Write,
};
use ciderfs_meta_sql::{Options, SqliteStore};

pub fn open(url: &str) -> SqliteStore {
    SqliteStore::open(url, Options::default()).unwrap()
}

pub fn url(path: &Path) -> String {
    format!("sqlite3://{}", path.display())
}

pub fn edge(ino: u64) -> Edge {
    Edge { kind: FileType::File, ino: Ino(ino) }
}

pub fn name(i: u64) -> Vec<u8> {
    format!("n{i:08}").into_bytes()
}

/// One more entry and one more in the counter, on what they are now.
pub fn step(known: i64) -> Commit {
    let at = known as u64;
    Commit {
        guards: vec![
            Guard::Counter(Counter::TotalInodes, known),
            Guard::Edge { dir: Ino(1), name: name(at), expect: None },
        ],
        writes: vec![
            Write::PutEdge(Ino(1), name(at), edge(at + 2)),
            Write::AppendSlices(Ino(7), 0, vec![Slice::zeros(at as u32, 1)]),
            Write::AddCounter(Counter::TotalInodes, 1),
        ],
    }
}

pub async fn counter(s: &dyn Store) -> i64 {
    match s.read(&[Read::Counter(Counter::TotalInodes)]).await.unwrap()[0] {
        Value::Int(n) => n,
        ref other => panic!("{other:?}"),
    }
}

/// Makes `n` steps against whoever else makes some, telling each.
pub async fn steps(s: &dyn Store, n: u64, mut tell: impl FnMut(i64)) {
    let mut known = counter(s).await;
    let mut done = 0;
    while done < n {
        match s.commit(&step(known)).await {
            Ok(Outcome::Done(_)) => {
                tell(known);
                known += 1;
                done += 1;
            }
            Ok(Outcome::Conflict(truth)) => {
                let Value::Int(n) = truth[0] else { panic!("{truth:?}") };
                known = n;
            }
            Err(StoreError::Unavailable(_)) => {}
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// Entries, list and counter agree; returns their number.
pub async fn agreed(s: &dyn Store) -> i64 {
    let n = counter(s).await;
    let mut cursor = DirCursor::Start;
    let mut names = Vec::new();
    while cursor != DirCursor::End {
        let (page, next) = s.list_dir(Ino(1), &cursor, 1000, false).await.unwrap();
        names.extend(page.into_iter().map(|e| e.name));
        cursor = next;
    }
    assert_eq!(names, (0..n as u64).map(name).collect::<Vec<_>>());
    let Value::Slices(list) = s.read(&[Read::Slices(Ino(7), 0)]).await.unwrap().remove(0) else { panic!() };
    assert_eq!(list.len() as i64, n);
    n
}
