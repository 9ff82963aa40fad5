//! Tests of the operations of [`crate::Meta`] over a store.

mod acls;
mod attributes;
mod clones;
mod create;
mod data;
mod exchange;
mod flags;
mod lifetime;
mod locks;
mod nameless;
mod quotas;
mod ranges;
mod remove;
mod rename;
mod rights;
mod trash;
mod usage;
mod xattrs;

pub use acls::*;
pub use attributes::*;
pub use clones::*;
pub use create::*;
pub use data::*;
pub use exchange::*;
pub use flags::*;
pub use lifetime::*;
pub use locks::*;
pub use nameless::*;
pub use quotas::*;
pub use ranges::*;
pub use remove::*;
pub use rename::*;
pub use rights::*;
pub use trash::*;
pub use usage::*;
pub use xattrs::*;
