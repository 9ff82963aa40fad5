//! Layers around a store, one job each.

mod encrypt;
#[cfg(any(test, feature = "faulty"))]
mod faulty;
mod gate;
mod limit;
mod meter;
mod paced;
mod prefix;
mod replace;
mod retry;
mod shard;

pub use encrypt::{Cipher, Encrypted, EnvelopeCipher};
#[cfg(any(test, feature = "faulty"))]
pub use faulty::{Faults, Faulty};
pub use limit::{Limited, Limits};
pub use meter::{Metered, Request};
pub use paced::Paced;
pub use prefix::Prefixed;
pub use replace::Replaceable;
pub use retry::Retried;
pub use shard::Sharded;
