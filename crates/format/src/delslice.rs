//! Lists of slices whose removal is delayed (`docs/format/chunks-and-slices.md#delayed-slices`).

use crate::FormatError;

/// A slice to be dereferenced later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DelayedSlice {
    /// Slice id, never 0.
    pub id: u64,
    /// Stored length of the slice.
    pub size: u32,
}

impl DelayedSlice {
    /// Stored length of an entry.
    pub const RECORD: usize = 12;

    /// The 12 stored bytes.
    pub fn encode(&self) -> [u8; Self::RECORD] {
        let mut out = [0; Self::RECORD];
        out[..8].copy_from_slice(&self.id.to_be_bytes());
        out[8..].copy_from_slice(&self.size.to_be_bytes());
        out
    }

    /// Concatenates entries.
    pub fn encode_list(list: &[Self]) -> Vec<u8> {
        list.iter().flat_map(Self::encode).collect()
    }

    /// Decodes a concatenation of entries.
    pub fn decode_list(raw: &[u8]) -> Result<Vec<Self>, FormatError> {
        let (records, rest) = raw.as_chunks::<{ Self::RECORD }>();
        if !rest.is_empty() {
            return Err(FormatError::Length {
                what: "delayed slice list",
                got: raw.len(),
                expected: "a multiple of 12",
            });
        }
        Ok(records
            .iter()
            .map(|&[a, b, c, d, e, f, g, h, s @ ..]| Self {
                id: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
                size: u32::from_be_bytes(s),
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn captured() {
        // `delSlices` 11_1795340435 of `docs/format/chunks-and-slices.md#delayed-slices`.
        let raw = [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0xc8];
        let list = [DelayedSlice { id: 7, size: 1000 }, DelayedSlice { id: 8, size: 200 }];
        assert_eq!(DelayedSlice::decode_list(&raw).unwrap(), list);
        assert_eq!(DelayedSlice::encode_list(&list), raw);
    }

    proptest! {
        #[test]
        fn any_bytes(raw: Vec<u8>) {
            match DelayedSlice::decode_list(&raw) {
                Ok(list) => prop_assert_eq!(DelayedSlice::encode_list(&list), raw),
                Err(_) => prop_assert!(raw.len() % 12 != 0),
            }
        }
    }
}
