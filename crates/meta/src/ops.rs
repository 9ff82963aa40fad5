//! The operations, one file per family.

mod account;
mod acl;
mod atime;
mod attributes;
mod copy;
mod data;
mod exchange;
mod fallocate;
pub(crate) mod inspect;
mod link;
mod listing;
mod namespace;
mod remove;
pub(crate) mod rename;
mod rules;
mod tmpfile;
mod trash;
pub(crate) mod xattr;
