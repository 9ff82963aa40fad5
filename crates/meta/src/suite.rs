//! Tests that any [`Store`] must pass, and tests of every operation over it.
//!
//! A driver runs all of them from one file in its `tests/`:
//!
//! ```ignore
//! async fn engine() -> ciderfs_meta::suite::Engine { /* an empty engine */ }
//! ciderfs_meta::suite!(engine);
//! ```
//!
//! `store` holds an engine to the contract of [`crate::store`]; `behaviour` holds [`crate::Meta`] to POSIX and to the
//! volume format; `model` runs random operations against a reference.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assertion is the product"
)]

use std::any::Any;
use std::pin::Pin;
use std::sync::Arc;

use crate::store::Store;

pub mod store;

type Opening = Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send>>;

/// An empty engine and the means to open it, as often as there are clients.
pub struct Engine {
    open: Box<dyn Fn() -> Opening + Send + Sync>,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Engine {
    /// `guard` keeps the engine alive (a server, a directory); `open` gives another, independent handle to it.
    pub fn new<F, Fut>(guard: impl Any + Send + Sync, open: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Arc<dyn Store>> + Send + 'static,
    {
        Self { open: Box::new(move || Box::pin(open())), _guard: Box::new(guard) }
    }

    /// A handle to the engine.
    pub async fn open(&self) -> Arc<dyn Store> {
        (self.open)().await
    }
}

/// One `#[tokio::test]` per case of the suite. The argument names an `async fn() -> Engine` in the same module.
#[macro_export]
macro_rules! suite {
    ($make:ident) => {
        $crate::__suite! { $make
            store {
                attributes attribute_patches edges directory_emptiness symlinks xattrs parents chunks
                replaced_chunks taken_chunks slice_references delayed_slices counters allocation claims settings
                sessions sustained deleted_files dir_stats acls flocks plocks
                guards_hold guards_fail nothing_written_after_a_failed_guard truths_in_order
                listing listing_pages listing_under_change odd_names big_values
                two_handles concurrent_increments concurrent_allocations concurrent_claims consistent_reads
                schema_twice
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __suite {
    ($make:ident $($group:ident { $($case:ident)* })*) => {
        $(mod $group {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    $crate::suite::$group::$case(super::$make().await).await;
                }
            )*
        })*
    };
}
