//! What this process knows of the content of files: committed (content) and not committed yet (buffer).

mod believed;
mod buffer;
pub(crate) mod catch_up;
mod failures;
pub(crate) mod file;
pub(crate) mod files;
pub(crate) mod moment;
pub(crate) mod pending;
pub(crate) mod recent;
pub(crate) mod remembered;
pub(crate) mod room;
pub(crate) mod state;
mod views;
