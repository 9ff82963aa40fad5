//! The namespace of a volume: every operation, written once.
//!
//! An operation is a pure function from what is known of a few records to guarded writes (see [`txn`]); the engine
//! behind [`store::Store`] only stores records and checks guards. POSIX rules live here and nowhere else.

pub mod error;
pub mod memory;
pub mod store;
pub mod types;

pub use error::{Errno, Error, Result};
pub use types::*;
