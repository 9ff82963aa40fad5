//! Files by handle: opening, reading, writing, ranges, locks, and what outlives the process.

pub(crate) mod carry;
pub(crate) mod compact;
pub(crate) mod handles;
pub(crate) mod locks;
pub(crate) mod open;
pub(crate) mod protect;
pub(crate) mod ranges;
pub(crate) mod read;
pub(crate) mod readahead;
pub(crate) mod remover;
pub(crate) mod request;
pub(crate) mod resume;
pub(crate) mod write;
