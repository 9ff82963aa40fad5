//! What the kernel may still hold.

pub(crate) mod pages;
pub(crate) mod stale;
