//! Volumes, mounts and comparisons for the end-to-end tests, which run the real program on real kernel mounts.
#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

pub mod agent;
pub mod beside;
pub mod client;
pub mod random;
pub mod tree;
pub mod volume;

pub use client::{Mount, Ran, run, wait_for};
pub use tree::{Tree, assert_same, noise};
pub use volume::{Engine, Volume};

/// Makes a test of each function for each metadata engine.
#[macro_export]
macro_rules! on_engines {
    ($($name:ident),* $(,)?) => {
        mod sqlite { $(#[test] fn $name() { super::$name(super::support::Engine::Sqlite); })* }
        mod redis { $(#[test] fn $name() { super::$name(super::support::Engine::Redis); })* }
    };
}
