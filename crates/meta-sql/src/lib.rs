//! SQLite driver of the metadata [`Store`](ciderfs_meta::store::Store): the tables of `docs/format/sql-tables.md#tables`, byte for
//! byte as the official client writes them, so that both can use one file at the same time.
//!
//! One writer thread drains a queue and commits several calls in one SQL transaction (group commit); answers go out
//! after `COMMIT`, and by default after the disk has it. Reader threads answer reads on read-only connections of their
//! own, each call from one snapshot. Nothing blocks the async runtime.
#![forbid(unsafe_code)]

mod address;
mod codec;
mod error;
mod names;
mod queue;
mod quota;
mod read;
mod reader;
mod scan;
mod schema;
mod statements;
mod store;
mod task;
mod write;
mod writer;

pub use address::Address;
pub use store::{Options, SqliteStore};
