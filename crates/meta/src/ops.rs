//! The operations, one file per family.

mod atime;
mod attributes;
mod data;
mod exchange;
pub(crate) mod inspect;
mod link;
mod listing;
mod namespace;
mod remove;
pub(crate) mod rename;
mod rules;
mod trash;
