//! The namespace of a volume: every operation, written once.
//!
//! An operation is a pure function from what is known of a few records to guarded writes (see `txn`); the engine
//! behind [`store::Store`] only stores records and checks guards. POSIX rules live here and nowhere else.
#![forbid(unsafe_code)]

mod acl;
mod beliefs;
mod charges;
mod deletion;
mod departed;
pub mod error;
mod figure;
mod holds;
mod ids;
mod interfaces;
mod jobs;
mod known;
mod ledger;
mod liveness;
mod locks;
mod lost;
pub mod memory;
mod observe;
mod open;
mod ops;
mod proof;
mod run;
mod seen;
mod session;
mod setup;
pub mod store;
#[cfg(feature = "suite")]
pub mod suite;
mod txn;
pub mod types;
mod volume;
mod xattrs;

pub use departed::set_unrecorded;
pub use error::{Errno, Error, Result};
pub use holds::HeldDir;
pub use ledger::{Claim, ClaimPlaces, Hold};
pub use locks::{Holder, Lock, LockCaller};
pub use observe::{Happened, Observer};
pub use ops::clone::{CloneOptions, CloneProgress};
pub use ops::inspect::{Holdings, Locks, TreeUsage};
pub use ops::quota::QuotaCheck;
pub use ops::xattr::{XATTR_NAME_MAX, XATTR_VALUE_MAX, XATTRS_MAX};
pub use seen::SeenNames;
pub use types::*;
pub use volume::{AtimeMode, Clock, Meta, MetaConfig, MetaCounters, SettingsHook, SliceRemover, SystemClock};
