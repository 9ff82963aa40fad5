//! What this process knows of the content of files: committed (content) and not committed yet (buffer).

pub(crate) mod catch_up;
pub(crate) mod file;
pub(crate) mod files;
pub(crate) mod pending;
pub(crate) mod recent;
pub(crate) mod remembered;
pub(crate) mod room;
