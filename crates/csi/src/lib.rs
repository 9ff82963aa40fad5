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
#![forbid(unsafe_code)]

pub mod controller;
pub mod identity;
pub mod ids;
pub mod locks;
pub mod node;
pub mod proto;
pub mod registration;
pub mod server;

pub use node::{NodeConfig, NodeService};
pub use server::{DEFAULT_NAME, Driver, Mode, serve, serve_with};
