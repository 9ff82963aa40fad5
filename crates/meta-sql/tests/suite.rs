//! The suite of every metadata engine over SQLite files.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ciderfs_meta::store::Store;
use ciderfs_meta::suite::Engine;
use ciderfs_meta_sql::{Options, SqliteStore};

async fn engine() -> Engine {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite3://{}?_sync=off", dir.path().join("v.db").display());
    Engine::new(dir, move || {
        let url = url.clone();
        async move { Arc::new(SqliteStore::open(&url, Options::default()).unwrap()) as Arc<dyn Store> }
    })
}

ciderfs_meta::suite!(engine);
