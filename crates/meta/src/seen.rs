//! Names that were met in a directory.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

/// Tells names that were met before, by fingerprints of 128 bits: a walk of a million entries remembers some 32 MiB.
#[derive(Default)]
pub struct SeenNames {
    keys: (RandomState, RandomState),
    names: HashSet<u128>,
}

impl SeenNames {
    /// False if the name was there before.
    pub fn insert(&mut self, name: &[u8]) -> bool {
        let (high, low) = (self.keys.0.hash_one(name), self.keys.1.hash_one(name));
        self.names.insert(u128::from(high) << 64 | u128::from(low))
    }
}
