//! Quota and directory statistics records (`docs/format/quotas.md#limits`, `docs/format/quotas.md#key-value-engines`).

use crate::FormatError;

/// Limits of a quota. 0 and −1 mean no limit; −1 for both also means that only usage is tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuotaLimits {
    /// Bytes.
    pub max_space: i64,
    /// Inodes.
    pub max_inodes: i64,
}

/// A quota of the KV engines: limits and usage in one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// The limits.
    pub limits: QuotaLimits,
    /// Bytes used.
    pub used_space: i64,
    /// Inodes used.
    pub used_inodes: i64,
}

/// Usage of a directory's direct children, as the KV engines store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DirStat {
    /// Sum of the lengths of files.
    pub length: i64,
    /// Bytes charged.
    pub space: i64,
    /// Entries.
    pub inodes: i64,
}

impl QuotaLimits {
    /// Usage is tracked, nothing is limited.
    pub const UNLIMITED: Self = Self { max_space: -1, max_inodes: -1 };

    /// The 16 bytes of the Redis record.
    pub fn encode(&self) -> [u8; 16] {
        join([self.max_space, self.max_inodes])
    }

    /// Decodes the Redis record.
    pub fn decode(raw: &[u8]) -> Result<Self, FormatError> {
        let [max_space, max_inodes] = split(raw, "quota record", "16")?;
        Ok(Self { max_space, max_inodes })
    }

    /// Would this usage break a limit?
    pub fn exceeded_by(&self, space: i64, inodes: i64) -> bool {
        (self.max_space > 0 && space > self.max_space) || (self.max_inodes > 0 && inodes > self.max_inodes)
    }
}

impl Quota {
    /// The 32 bytes of the KV record.
    pub fn encode(&self) -> [u8; 32] {
        join([self.limits.max_space, self.limits.max_inodes, self.used_space, self.used_inodes])
    }

    /// Decodes the KV record.
    pub fn decode(raw: &[u8]) -> Result<Self, FormatError> {
        let [max_space, max_inodes, used_space, used_inodes] = split(raw, "quota record", "32")?;
        Ok(Self { limits: QuotaLimits { max_space, max_inodes }, used_space, used_inodes })
    }
}

impl DirStat {
    /// The 24 bytes of the KV record.
    pub fn encode(&self) -> [u8; 24] {
        join([self.length, self.space, self.inodes])
    }

    /// Decodes the KV record.
    pub fn decode(raw: &[u8]) -> Result<Self, FormatError> {
        let [length, space, inodes] = split(raw, "directory statistics", "24")?;
        Ok(Self { length, space, inodes })
    }
}

fn join<const N: usize, const BYTES: usize>(numbers: [i64; N]) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    for (place, n) in out.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
        *place = n.to_be_bytes();
    }
    out
}

fn split<const N: usize>(
    raw: &[u8],
    what: &'static str,
    expected: &'static str,
) -> Result<[i64; N], FormatError> {
    if raw.len() != N * 8 {
        return Err(FormatError::Length { what, got: raw.len(), expected });
    }
    let mut out = [0; N];
    for (n, bytes) in out.iter_mut().zip(raw.as_chunks::<8>().0) {
        *n = i64::from_be_bytes(*bytes);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::hex;

    #[test]
    fn captured() {
        let raw = hex("0000000040000000 0000000000000005");
        let q = QuotaLimits { max_space: 1 << 30, max_inodes: 5 };
        assert_eq!(QuotaLimits::decode(&raw).unwrap(), q);
        assert_eq!(q.encode()[..], raw);
        assert_eq!(QuotaLimits::UNLIMITED.encode(), [0xff; 16]);

        let raw = hex("ffffffffffffffff ffffffffffffffff 0000000000001000 0000000000000001");
        let q = Quota { limits: QuotaLimits::UNLIMITED, used_space: 4096, used_inodes: 1 };
        assert_eq!(Quota::decode(&raw).unwrap(), q);
        assert_eq!(q.encode()[..], raw);
        let raw = hex("0000000040000000 ffffffffffffffff 0000000000000000 0000000000000000");
        assert_eq!(Quota::decode(&raw).unwrap().limits, QuotaLimits { max_space: 1 << 30, max_inodes: -1 });

        let raw = hex("000000001d001400 000000001d008000 0000000000000009");
        let s = DirStat { length: 0x1d00_1400, space: 0x1d00_8000, inodes: 9 };
        assert_eq!(DirStat::decode(&raw).unwrap(), s);
        assert_eq!(s.encode()[..], raw);
    }

    #[test]
    fn limits() {
        let q = QuotaLimits { max_space: 100, max_inodes: 0 };
        assert!(!q.exceeded_by(100, 1_000_000));
        assert!(q.exceeded_by(101, 0));
        assert!(!QuotaLimits::UNLIMITED.exceeded_by(i64::MAX, i64::MAX));
        assert!(QuotaLimits { max_space: -1, max_inodes: 5 }.exceeded_by(0, 6));
    }

    proptest! {
        #[test]
        fn any_bytes(raw in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(q) = QuotaLimits::decode(&raw) {
                prop_assert_eq!(&q.encode()[..], &raw[..]);
            }
            if let Ok(q) = Quota::decode(&raw) {
                prop_assert_eq!(&q.encode()[..], &raw[..]);
            }
            if let Ok(q) = DirStat::decode(&raw) {
                prop_assert_eq!(&q.encode()[..], &raw[..]);
            }
        }
    }
}
