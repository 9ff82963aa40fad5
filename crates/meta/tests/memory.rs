//! The suite over the in-memory engine.

use std::sync::Arc;

use ciderfs_meta::memory::MemoryStore;
use ciderfs_meta::store::Store;
use ciderfs_meta::suite::Engine;

async fn engine() -> Engine {
    let store = Arc::new(MemoryStore::new());
    Engine::new((), move || {
        let store: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        async move { store }
    })
}

ciderfs_meta::suite!(engine);

mod pairs {
    use ciderfs_meta::suite::model;

    #[tokio::test]
    async fn without_trash() {
        model::pairs().await;
    }

    #[tokio::test]
    async fn with_trash() {
        model::pairs_with_trash().await;
    }

    #[tokio::test]
    async fn with_a_lost_reply() {
        model::pairs_with_a_lost_reply().await;
    }
}
