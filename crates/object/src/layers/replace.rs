//! A store that can be exchanged while it is in use: settings change, mounts stay.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;

use crate::forward::forward;
use crate::store::ObjectStore;

/// Passes requests to the store of the moment. Requests that are under way end with the one that they began with.
#[derive(Debug)]
pub struct Replaceable(RwLock<Arc<dyn ObjectStore>>);

impl Replaceable {
    /// Around a first store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(RwLock::new(store))
    }

    /// Takes another store for the requests to come. It must hold the same objects.
    pub fn replace(&self, store: Arc<dyn ObjectStore>) {
        *self.0.write() = store;
    }

    fn now(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.0.read())
    }
}

#[async_trait]
impl ObjectStore for Replaceable {
    forward! {
        |self| self.now() =>
            put_in_tier, put_new, get, get_whole, head, delete, list, create_bucket, describe, supports_range, device
    }
}
