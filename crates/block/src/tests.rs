//! Tests of the whole block layer over an object store in memory.

mod budget;
mod cache;
mod cache_files;
mod cache_rules;
mod model;
mod reads;
mod support;
mod writes;
