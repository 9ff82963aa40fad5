//! Object stores: one trait, back ends behind it, and layers around it.
//!
//! The stack of a volume, outermost first: metering, retries, limits and deadlines, encryption, the volume's prefix, sharding, the
//! back end (`docs/format/objects.md#order-of-stages`).
#![forbid(unsafe_code)]

mod bandwidth;
mod buffers;
mod direct;
pub mod error;
mod file;
pub mod layers;
mod memory;
mod open;
mod probe;
mod s3;
mod service;
mod storages;
mod store;

pub use bandwidth::Bandwidth;
pub use buffers::{Buffer, Buffers};
pub use direct::{Bounce, NewFiles};
pub use error::{ObjectError, Result};
pub use file::FileStore;
pub use memory::MemoryStore;
pub use open::{
    StoreConfig, bucket_warnings, delete_many, greet, has_checksums, has_classes, named_bucket, names_region,
    open, service, takes_region,
};
pub use probe::{Trial, has_other_objects, prepare, probe, try_rights, try_tier};
pub use s3::Greeting;
pub use storages::{STORAGES, Storage, Way, storage_named};
pub use store::{Entry, MAX_OBJECT, Meta, ObjectStore};

#[cfg(test)]
mod tests;
