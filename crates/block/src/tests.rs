//! Tests of the whole block layer over an object store in memory.
#![allow(clippy::disallowed_methods, reason = "tests run on real clocks and threads")]

mod budget;
mod cache;
mod cache_files;
mod cache_rules;
mod model;
mod reads;
mod support;
mod writes;
