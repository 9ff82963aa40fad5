//! What `stat` tells, and how it is changed: attributes, blocks, links, access times, extended attributes.

pub(crate) mod allocated;
pub(crate) mod atime;
pub(crate) mod attributes;
pub(crate) mod extents;
pub(crate) mod links;
pub(crate) mod whole;
pub(crate) mod xattr;
