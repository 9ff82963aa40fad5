//! Files and directories as a process sees them, independent of the kernel's protocol.
//!
//! Data that was written through the mount is visible to its readers at once; it is in the object store and in the
//! metadata when `fsync` or `close` returns.
#![forbid(unsafe_code)]

mod content;
mod io;
mod kernel;
mod names;
mod stat;
mod tools;
mod vfs;

pub use io::locks::LockRequest;
pub use io::remover::BlockRemover;
pub use io::resume::Resumed;
pub use kernel::stale::{Growth, Stale};
pub use names::dir::DirItem;
pub use tools::access_log::AccessLog;
pub use tools::labels::{LabelError, custom_labels};
pub use tools::metrics::Metrics;
pub use vfs::{Entry, OpenCache, Opened, Vfs, VfsConfig};

#[cfg(test)]
mod tests;
