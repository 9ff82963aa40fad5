//! Files and directories as a process sees them, independent of the kernel's protocol.
//!
//! Data that was written through the mount is visible to its readers at once; it is in the object store and in the
//! metadata when `fsync` or `close` returns.
//!
//! Three books are kept of what others may change or cache (`docs/technical/coherence.md`):
//!
//! * **content**, what this process believes to be committed, as of a moment (`content::believed`, `content::views`);
//! * **buffer**, what is written here and not committed, painted over content for every reader (`content::buffer`);
//! * **kernel view**, what the kernel may still hold (`kernel`).
//!
//! Which calls must a new operation make? One: when its commit has ended, well or not, `Vfs::done` with what it has changed
//! (`closing`). Content, buffer and kernel view follow from that. An operation that only reads takes a `Moment` before it asks the engine,
//! and offers what it has got as of that moment.
//!
//! The wings: `content` (both books of open files), `kernel` (the third), `io` (handles, reading, writing, locks), `names` (names and
//! directories), `stat` (attributes and all that `stat` tells), `tools` (virtual files and figures).
#![forbid(unsafe_code)]

mod aging;
mod closing;
mod content;
mod io;
mod kernel;
mod names;
mod stat;
mod tools;
mod vfs;

pub use io::locks::LockRequest;
pub use io::remover::BlockRemover;
pub use io::request::{WriteRequest, Writer};
pub use io::resume::Resumed;
pub use kernel::{Growth, Kernel, Stale};
pub use names::dir::DirItem;
pub use stat::whole::Stat;
pub use tools::access_log::AccessLog;
pub use tools::labels::{LabelError, custom_labels};
pub use tools::metrics::Metrics;
pub use vfs::{Entry, OpenCache, Opened, Vfs, VfsConfig};

#[cfg(test)]
mod tests;
