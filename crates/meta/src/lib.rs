//! The namespace of a volume: every operation, written once.
pub mod store;
