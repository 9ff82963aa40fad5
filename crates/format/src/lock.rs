//! Advisory locks: records of `fcntl` ranges and the rules of `flock` (`docs/format/sessions-and-locks.md#fcntl`).

use crate::FormatError;

/// Number of a read lock in records; the same as Linux's.
pub const F_RDLCK: u32 = 0;
/// Number of a write lock in records.
pub const F_WRLCK: u32 = 1;
/// Asks for unlocking; never stored.
pub const F_UNLCK: u32 = 2;
/// Inclusive end of a range that reaches to the end of any file.
pub const TO_EOF: u64 = 0x7FFF_FFFF_FFFF_FFFF;
/// Value of a shared `flock`.
pub const FLOCK_SHARED: u8 = b'R';
/// Value of an exclusive `flock`.
pub const FLOCK_EXCLUSIVE: u8 = b'W';

/// A locked range of one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockRecord {
    /// [`F_RDLCK`] or [`F_WRLCK`]. Anything else in a stored record is treated like a write lock.
    pub kind: u32,
    /// Process that took it.
    pub pid: u32,
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive.
    pub end: u64,
}

impl LockRecord {
    /// Stored length of a record.
    pub const RECORD: usize = 24;

    /// The 24 stored bytes.
    pub fn encode(&self) -> [u8; Self::RECORD] {
        let mut out = [0; Self::RECORD];
        out[..4].copy_from_slice(&self.kind.to_be_bytes());
        out[4..8].copy_from_slice(&self.pid.to_be_bytes());
        out[8..16].copy_from_slice(&self.start.to_be_bytes());
        out[16..].copy_from_slice(&self.end.to_be_bytes());
        out
    }

    fn decode(raw: &[u8; Self::RECORD]) -> Self {
        let u32_at = |i: usize| u32::from_be_bytes([raw[i], raw[i + 1], raw[i + 2], raw[i + 3]]);
        let u64_at = |i: usize| (u64::from(u32_at(i)) << 32) | u64::from(u32_at(i + 4));
        Self { kind: u32_at(0), pid: u32_at(4), start: u64_at(8), end: u64_at(16) }
    }

    /// Concatenates the records of one owner.
    pub fn encode_list(list: &[Self]) -> Vec<u8> {
        list.iter().flat_map(Self::encode).collect()
    }

    /// Decodes the records of one owner.
    pub fn decode_list(raw: &[u8]) -> Result<Vec<Self>, FormatError> {
        let (records, rest) = raw.as_chunks::<{ Self::RECORD }>();
        if !rest.is_empty() {
            return Err(FormatError::Length {
                what: "lock list",
                got: raw.len(),
                expected: "a multiple of 24",
            });
        }
        Ok(records.iter().map(Self::decode).collect())
    }

    /// Do two locks of **different** owners exclude each other?
    pub fn conflicts(&self, other: &Self) -> bool {
        self.start <= other.end
            && other.start <= self.end
            && (self.kind != F_RDLCK || other.kind != F_RDLCK)
            && self.kind != F_UNLCK
            && other.kind != F_UNLCK
    }
}

/// The first record of another owner that stands in the way of `want`.
pub fn find_conflict<'a>(held: &'a [LockRecord], want: &LockRecord) -> Option<&'a LockRecord> {
    held.iter().find(|l| l.conflicts(want))
}

/// One owner's records after it locks or (with [`F_UNLCK`]) unlocks the range of `change`: sorted, without overlaps,
/// neighbours of the same kind and process merged. Nothing left means that the field is to be removed.
pub fn update(held: &[LockRecord], change: LockRecord) -> Vec<LockRecord> {
    let mut out = Vec::with_capacity(held.len() + 2);
    for &l in held {
        if l.kind == F_UNLCK || l.start > l.end {
            continue;
        }
        if change.start > change.end || l.end < change.start || l.start > change.end {
            out.push(l);
            continue;
        }
        if l.start < change.start {
            out.push(LockRecord { end: change.start - 1, ..l });
        }
        if l.end > change.end {
            out.push(LockRecord { start: change.end + 1, ..l });
        }
    }
    if change.kind != F_UNLCK && change.start <= change.end {
        out.push(change);
    }
    out.sort_by_key(|l| l.start);
    out.dedup_by(|next, last| {
        let joined =
            last.end.checked_add(1) == Some(next.start) && (last.kind, last.pid) == (next.kind, next.pid);
        if joined {
            last.end = next.end;
        }
        joined
    });
    out
}

/// May a `flock` of this kind be granted while others hold these?
pub fn flock_allowed(want: u8, others: impl IntoIterator<Item = u8>) -> bool {
    others.into_iter().all(|held| want == FLOCK_SHARED && held == FLOCK_SHARED)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lock(kind: u32, pid: u32, start: u64, end: u64) -> LockRecord {
        LockRecord { kind, pid, start, end }
    }

    #[test]
    fn captured() {
        // lockp12 and the two records of `docs/format/sessions-and-locks.md#examples`.
        let raw = [0, 0, 0, 1, 0, 0, 0x76, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x32, 0, 0, 0, 0, 0, 0, 0, 0x95];
        assert_eq!(LockRecord::decode_list(&raw).unwrap(), [lock(F_WRLCK, 30224, 50, 149)]);
        assert_eq!(LockRecord::encode_list(&[lock(F_WRLCK, 30224, 50, 149)]), raw);
        let list = [lock(F_WRLCK, 0x420, 0, 9), lock(F_RDLCK, 0x420, 100, 109)];
        let raw = LockRecord::encode_list(&list);
        assert_eq!(raw.len(), 0x30);
        assert_eq!(
            raw[24..],
            [0, 0, 0, 0, 0, 0, 4, 0x20, 0, 0, 0, 0, 0, 0, 0, 0x64, 0, 0, 0, 0, 0, 0, 0, 0x6d]
        );
        assert_eq!(LockRecord::decode_list(&raw).unwrap(), list);
    }

    #[test]
    fn ranges_are_cut_and_joined() {
        let mut l = update(&[], lock(F_WRLCK, 30224, 50, 149));
        l = update(&l, lock(F_RDLCK, 30224, 200, 219));
        l = update(&l, lock(F_UNLCK, 30224, 60, 69));
        assert_eq!(l, [lock(1, 30224, 50, 59), lock(1, 30224, 70, 149), lock(0, 30224, 200, 219)]);
        assert_eq!(update(&l, lock(F_UNLCK, 1, 0, TO_EOF)), []);
    }

    #[test]
    fn edges() {
        let l = update(&[lock(0, 1, 0, TO_EOF)], lock(1, 1, 0, u64::MAX));
        assert_eq!(l, [lock(1, 1, 0, u64::MAX)]);
        // Runs that the official client leaves unmerged are merged, whatever changes.
        let l = update(&[lock(0, 1, 0, 9), lock(0, 1, 10, 19), lock(0, 1, 20, 29)], lock(F_UNLCK, 1, 50, 60));
        assert_eq!(l, [lock(0, 1, 0, 29)]);
        assert_eq!(update(&l, lock(1, 1, 9, 8)), l);
    }

    #[test]
    fn conflicts() {
        let held = [lock(0, 1, 0, 9), lock(1, 1, 10, 19)];
        assert_eq!(find_conflict(&held, &lock(0, 2, 0, 9)), None);
        assert_eq!(find_conflict(&held, &lock(0, 2, 9, 10)), Some(&held[1]));
        assert_eq!(find_conflict(&held, &lock(1, 2, 9, 9)), Some(&held[0]));
        assert_eq!(find_conflict(&held, &lock(1, 2, 20, TO_EOF)), None);
        assert_eq!(find_conflict(&held, &lock(F_UNLCK, 2, 0, TO_EOF)), None);
        assert!(flock_allowed(b'R', [b'R', b'R']) && flock_allowed(b'W', []));
        assert!(!flock_allowed(b'W', [b'R']) && !flock_allowed(b'R', [b'W']));
    }

    proptest! {
        /// Against a model that holds a lock per byte.
        #[test]
        fn like_bytes(changes in prop::collection::vec((0u32..3, 1u32..3, 0u64..32, 0u64..32), 0..20)) {
            let mut list = Vec::new();
            let mut bytes = [None; 32];
            for (kind, pid, a, b) in changes {
                let (start, end) = (a.min(b), a.max(b));
                list = update(&list, lock(kind, pid, start, end));
                for byte in &mut bytes[start as usize..=end as usize] {
                    *byte = (kind != F_UNLCK).then_some((kind, pid));
                }
                let mut painted = [None; 32];
                for l in &list {
                    for byte in &mut painted[l.start as usize..=l.end as usize] {
                        prop_assert_eq!(*byte, None);
                        *byte = Some((l.kind, l.pid));
                    }
                }
                prop_assert_eq!(painted, bytes);
                for pair in list.windows(2) {
                    prop_assert!(pair[0].end < pair[1].start);
                    let mergeable = pair[0].end + 1 == pair[1].start
                        && (pair[0].kind, pair[0].pid) == (pair[1].kind, pair[1].pid);
                    prop_assert!(!mergeable);
                }
            }
        }

        #[test]
        fn any_bytes(raw: Vec<u8>, start: u64, end: u64, kind in 0u32..4) {
            if let Ok(list) = LockRecord::decode_list(&raw) {
                prop_assert_eq!(LockRecord::encode_list(&list), raw);
                update(&list, lock(kind, 1, start, end));
                find_conflict(&list, &lock(kind, 1, start, end));
            }
        }
    }
}
