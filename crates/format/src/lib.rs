//! The volume format: pure data, no I/O, no clock, no randomness (but for the padding of RSA, see [`envelope`]).
//!
//! Everything that two clients must agree on byte for byte lives here: records, key and object names,
//! compression and encryption framing, the settings document. All multi-byte integers in stored values are
//! big-endian unless an item says otherwise.
#![forbid(unsafe_code)]

pub mod acl;
pub mod attr;
mod civil;
pub mod codec;
pub mod compaction;
pub mod delslice;
pub mod edge;
pub mod envelope;
mod hide;
pub mod ino;
pub mod lock;
pub mod objname;
pub mod quota;
pub mod redis_keys;
mod secret;
pub mod session;
pub mod settings;
mod shown;
pub mod slice;
#[cfg(test)]
mod testing;
pub mod trash;
pub mod version;

pub use attr::{Attr, FileType, Time};
pub use codec::Compression;
pub use edge::Edge;
pub use ino::Ino;
pub use secret::Secret;
pub use session::SessionId;
pub use settings::Settings;
pub use shown::{excerpt, is_password_cut, is_secret_name, shown, shown_address, shown_bucket};
pub use slice::{CHUNK_SIZE, Extent, Slice, SliceId};

/// A stored value that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A record has a length that no client writes.
    #[error("{what} has {got} bytes, expected {expected}")]
    Length {
        /// Which record.
        what: &'static str,
        /// The length found.
        got: usize,
        /// What would have been right, in words.
        expected: &'static str,
    },
    /// A field has a value that the format does not define.
    #[error("{what}: {detail}")]
    Invalid {
        /// Which record or field.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

/// Bytes that a length occupies in usage accounting: at least one 4 KiB unit, else rounded up to 4 KiB.
pub const fn align4k(length: u64) -> u64 {
    if length == 0 { 4096 } else { length.div_ceil(4096).saturating_mul(4096) }
}
