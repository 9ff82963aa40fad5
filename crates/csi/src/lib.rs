//! The Container Storage Interface (CSI 1.x): what Kubernetes asks of a storage, answered with directories of a volume.
//!
//! * [`proto`]: the protocol.
//! * [`server`]: serves it on a Unix socket.
//! * [`identity`]: who we are.
//! * [`controller`]: volumes and snapshots, made and removed in the metadata; nothing is mounted for it.
//! * [`node`]: volumes for the pods of one machine.
//! * [`registration`]: makes kubelet know it.
//! * [`locks`]: one operation at a time for each volume.
//! * [`ids`]: names of volumes and snapshots.
//! * [`secrets`]: what a Secret says.
//! * [`capability`]: what volumes can be.
//! * [`engine`]: the metadata that secrets lead to.
//! * [`pattern`]: what directories are called.
//! * [`volumes`], [`snapshots`]: directories with marks; [`create`] makes them.
//! * [`copy`], [`sweep`]: whole trees.
#![forbid(unsafe_code)]

mod authority;
pub mod capability;
pub mod controller;
pub mod copy;
pub mod create;
pub mod engine;
pub mod identity;
pub mod ids;
pub mod locks;
pub mod node;
mod paging;
pub mod pattern;
pub mod proto;
pub mod registration;
pub mod secrets;
pub mod server;
pub mod snapshots;
pub mod sweep;
pub mod volumes;

/// The answers of [`Formatter`] are of this version.
pub use tonic;

pub use node::{NodeConfig, NodeService};
pub use server::{DEFAULT_NAME, Driver, Formatter, Mode, serve, serve_with};
