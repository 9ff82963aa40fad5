//! The operations, one file per family.

mod attributes;
mod data;
pub(crate) mod inspect;
mod link;
mod listing;
mod namespace;
mod remove;
mod rename;
mod rules;
mod trash;
