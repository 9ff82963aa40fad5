//! The suite of every metadata engine over Redis servers, with the rights that `docs/redis.md` asks for and no others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;

use ciderfs_meta::store::Store;
use ciderfs_meta::suite::Engine;
use ciderfs_meta_redis::{Options, RedisStore};
use ciderfs_testkit::redis::{RedisOptions, RedisServer};

async fn engine() -> Engine {
    let server = RedisServer::start(RedisOptions::default()).unwrap();
    let url = common::user(&server, 0, &common::documented_rights());
    let server = Arc::new(server);
    let raw = Arc::clone(&server);
    let engine = Engine::new(server, move || {
        let url = url.clone();
        async move { Arc::new(RedisStore::open(&url, Options::default()).await.unwrap()) as Arc<dyn Store> }
    });
    engine.with_raw(move |words| raw.command_bytes(words).map(drop).map_err(|e| e.to_string()))
}

ciderfs_meta::suite!(engine);
