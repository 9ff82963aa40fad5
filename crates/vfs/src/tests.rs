//! The data path over stores in memory: content, errors, sharing, memory.
#![allow(clippy::disallowed_methods, reason = "tests run on real clocks and threads")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed assertion is the product"
)]

mod appends;
mod compaction;
mod content;
mod control;
mod errors;
mod hostile;
mod listing;
mod model;
mod open_cache;
mod overtaken;
mod promised;
mod ranges;
mod resume;
mod room;
mod sharing;
pub(crate) mod support;
mod tiers;
mod trees;
mod unordered;
