//! Blocks by key: upload, download, memory and disk cache, and the memory budget of all block-sized buffers.
//!
//! A slice of `size` bytes is stored as objects of `block_size` bytes (`docs/format/objects.md#blocks`). This crate knows ids,
//! indexes and bytes; which slices make up a file is known above, how objects are encrypted, retried and named in the
//! bucket is known below.
//!
//! **Peak memory** of the block layer: `buffer_size`, plus a sixteenth of it (at most 8 MiB) of idle buffers, plus one
//! request per kind that is larger than its reserve (see [`budget`]), plus about 80 bytes per block in the disk
//! cache, 120 if blocks expire.
#![forbid(unsafe_code)]

mod backend;
pub mod budget;
mod config;
mod covered;
mod cpu;
mod disk;
mod download;
mod error;
mod eviction;
mod flight;
mod inner;
mod key;
mod memory;
mod mode;
mod observe;
mod ranges;
mod read;
mod stats;
mod store;
#[cfg(test)]
mod tests;
mod upload;

pub use ciderfs_object::{Buffer, Buffers};

pub use budget::{Budget, BudgetKind, Permit};
pub use config::{BlockConfig, MAX_BLOCK_SIZE, MIN_BLOCK_SIZE, MIN_BUFFER_SIZE, ReadHint};
pub use disk::way::check_cache_owner;
pub use error::BlockError;
pub use eviction::Eviction;
pub use mode::CacheMode;
pub use observe::{CacheObserver, CacheUse};
pub use read::SlicePart;
pub use stats::BlockStats;
pub use store::BlockStore;
