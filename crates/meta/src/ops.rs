//! The operations, one file per family.

pub(crate) mod account;
mod acl;
mod atime;
mod attributes;
mod claims;
pub(crate) mod clone;
mod copy;
mod data;
mod detached;
mod exchange;
mod fallocate;
pub(crate) mod inspect;
mod link;
mod listing;
pub(crate) mod locks;
pub(crate) mod moving;
mod namespace;
mod node;
mod placing;
pub(crate) mod quota;
mod remove;
pub(crate) mod rename;
mod rights;
mod rules;
mod tmpfile;
mod trash;
pub(crate) mod xattr;
