//! S3 and what speaks its protocol (`s3`, `minio`; `docs/format/objects.md#objects-in-s3`).

mod address;
mod answers;
mod bound;
mod bucket;
mod client;
mod dialect;
mod error;
mod inspect;
mod keys;
mod named;
mod outgoing;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use address::{Address, Parts, bad, process_env, split};
pub(crate) use bound::Manner;
pub(crate) use client::client_for;
pub(crate) use dialect::Dialect;
pub(crate) use error::{causes, from_transport, status_of, transport};
pub use inspect::Greeting;
pub(crate) use inspect::{delete_many, greet};
pub(crate) use keys::Credentials;
pub(crate) use named::named;
pub(crate) use store::S3Store;
