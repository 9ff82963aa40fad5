//! Files and directories as a process sees them, independent of the kernel's protocol.
//!
//! Data that was written through the mount is visible to its readers at once; it is in the object store and in the
//! metadata when `fsync` or `close` returns.
#![forbid(unsafe_code)]

mod access_log;
mod allocated;
mod atime;
mod attributes;
mod carry;
mod catch_up;
mod compact;
mod control;
mod dir;
mod extents;
mod file;
mod files;
mod handles;
mod info;
mod internal;
mod labels;
mod links;
mod listing;
mod locks;
mod metrics;
mod namespace;
mod open;
mod pages;
mod pending;
mod protect;
mod ranges;
mod read;
mod readahead;
mod recent;
mod remembered;
mod remover;
mod resume;
mod room;
mod stale;
mod vfs;
mod write;
mod xattr;

pub use access_log::AccessLog;
pub use dir::DirItem;
pub use labels::{LabelError, custom_labels};
pub use locks::LockRequest;
pub use metrics::Metrics;
pub use remover::BlockRemover;
pub use resume::Resumed;
pub use stale::{Growth, Stale};
pub use vfs::{Entry, OpenCache, Opened, Vfs, VfsConfig};

#[cfg(test)]
mod tests;
