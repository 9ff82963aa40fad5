//! Bytes that hold their share of the memory budget for as long as they live.

use bytes::Bytes;

use crate::budget::Permit;

struct Covered {
    data: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for Covered {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// Ties a permit to bytes that somebody else allocated.
pub(crate) fn covered(data: Bytes, permit: Permit) -> Bytes {
    Bytes::from_owner(Covered { data, _permit: permit })
}
