//! S3 and what speaks its protocol (`s3`, `minio`; `spec/data-path.md` 3.5).

mod address;
mod answers;
mod bound;
mod bucket;
mod client;
mod error;
mod inspect;
mod keys;
mod named;
mod outgoing;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use address::Address;
pub(crate) use bound::Manner;
pub use inspect::Greeting;
pub(crate) use inspect::{delete_many, greet};
pub(crate) use keys::Credentials;
pub(crate) use named::named;
pub(crate) use store::S3Store;
