//! The suite of every metadata engine over SQLite files.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ciderfs_meta::store::Store;
use ciderfs_meta::suite::Engine;
use ciderfs_meta_sql::{Options, SqliteStore};

async fn engine() -> Engine {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite3://{}?_sync=off", dir.path().join("v.db").display());
    let file = dir.path().join("v.db");
    let engine = Engine::new(dir, move || {
        let url = url.clone();
        async move { Arc::new(SqliteStore::open(&url, Options::default()).unwrap()) as Arc<dyn Store> }
    });
    engine.with_raw(move |words| run(&file, words).map_err(|e| e.to_string()))
}

/// Runs a statement with blobs for its parameters, on a connection of its own.
fn run(file: &Path, words: &[&[u8]]) -> rusqlite::Result<()> {
    let conn = rusqlite::Connection::open(file)?;
    conn.busy_timeout(Duration::from_secs(10))?;
    let statement = String::from_utf8_lossy(words[0]);
    conn.execute(&statement, rusqlite::params_from_iter(&words[1..])).map(drop)
}

ciderfs_meta::suite!(engine);
