//! Mounts that outlive the process that serves them (`mount --supervised`).
//!
//! Two processes: the supervisor, which stays, holds the connection with the kernel and what its worker leaves behind, and does
//! nothing else; and the worker, the same program, which serves. When a worker ends, another one goes on where it was. The supervisor never
//! looks at what is mounted: it would wait for its own worker.

mod control;
pub mod custody;
mod program;
mod signals;
mod supervisor;
#[allow(unsafe_code, reason = "a lock that tells who holds it")]
mod turn;
mod upgrade;
pub mod worker;

pub use ciderfs_handover::held::HOLD;
pub use ciderfs_handover::place::find;
pub use control::ask;
pub use program::Program;
pub use supervisor::run;
pub use upgrade::ON_THE_MOUNT;

/// What begins a request for [`control`].
pub const UPGRADE: &str = "upgrade";
/// The same: what the supervisor knows of its worker.
pub const STATUS: &str = "status";
