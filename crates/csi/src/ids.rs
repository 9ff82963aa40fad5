//! Names of volumes and snapshots.

/// Longest name or id that the interface allows, in bytes.
pub const ID_MAX: usize = 128;
