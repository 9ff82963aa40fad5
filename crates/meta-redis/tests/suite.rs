//! The suite of every metadata engine over Redis servers.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ciderfs_meta::store::Store;
use ciderfs_meta::suite::Engine;
use ciderfs_meta_redis::{Options, RedisStore};
use ciderfs_testkit::redis::{RedisOptions, RedisServer};

async fn engine() -> Engine {
    let server = RedisServer::start(RedisOptions::default()).unwrap();
    let url = server.url();
    Engine::new(server, move || {
        let url = url.clone();
        async move { Arc::new(RedisStore::open(&url, Options::default()).await.unwrap()) as Arc<dyn Store> }
    })
}

ciderfs_meta::suite!(engine);
