//! Names and directories.

pub(crate) mod dir;
pub(crate) mod listing;
pub(crate) mod namespace;
