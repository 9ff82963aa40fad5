//! Which records of a chunk a compaction merges (`docs/format/chunks-and-slices.md#compaction`).

use crate::slice::{Extent, Slice, resolve};

/// Records of one chunk that a compaction looks at.
pub const MAX_RECORDS: usize = 1000;
/// A leading record of at least this many bytes may stay as it is.
const BIG: u32 = 1 << 20;
/// So many leading records that reserve space become one.
const MANY_RESERVED: usize = 16;
/// Where they cannot because they lie apart, so many are kept; more are merged with the rest, and reserve nothing any more.
const RESERVED_MAX: usize = 64;

/// What a compaction will do to a chunk's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Leading records that stay.
    pub skipped: usize,
    /// Records after them that are replaced by one: [`Plan::reservation`], or else `(pos, new id, size, 0, size)`. The first
    /// `skipped + taken` records must be unchanged at commit.
    pub taken: usize,
    /// Position of the new slice in the chunk.
    pub pos: u32,
    /// Bytes of the new slice.
    pub size: u32,
    /// What to copy into it, in order and without gaps; pieces with id 0 are zeros.
    pub pieces: Vec<Extent>,
}

impl Plan {
    /// The record that replaces others which only reserve space: then nothing is copied.
    pub fn reservation(&self) -> Option<Slice> {
        match self.pieces[..] {
            [only] if is_reserved(&only) => Some(only),
            _ => None,
        }
    }
}

fn is_reserved(s: &Slice) -> bool {
    s.id == 0 && s.is_allocated()
}

/// Chooses what to merge among the first [`MAX_RECORDS`] records of a chunk; `None` when there is nothing to gain.
pub fn plan(list: &[Slice]) -> Option<Plan> {
    let list = list.get(..MAX_RECORDS).unwrap_or(list);
    // What is reserved stays so, as long as that does not keep the list long; later records hide what has become data. Zeros
    // below or between hide nothing.
    let zeros = list.iter().take_while(|s| s.id == 0).count();
    let reserved: Vec<Extent> = resolve(&list[..zeros]).into_iter().filter(is_reserved).collect();
    if zeros >= MANY_RESERVED
        && let Some(whole) = joined(&reserved)
    {
        let (pos, size) = (whole.pos, whole.len);
        return Some(Plan { skipped: 0, taken: zeros, pos, size, pieces: vec![whole] });
    }
    let mut skipped = if reserved.is_empty() || zeros > RESERVED_MAX { 0 } else { zeros };
    // Later lists are tails of this one, so the loop resolves at most as often as there are big leading records:
    // 64 of them fill a chunk.
    loop {
        let rest = &list[skipped..];
        if rest.len() < 2 {
            return None;
        }
        let visible = resolve(rest);
        let is_reservation = visible.iter().all(|p| p.id == 0) && visible.iter().any(is_reserved);
        if is_reservation && rest.len() <= RESERVED_MAX {
            return None;
        }
        let merged = merge(visible);
        if !stays(rest, &merged) {
            let Merged { pos, size, pieces } = merged;
            return (size > 0).then_some(Plan { skipped, taken: rest.len(), pos, size, pieces });
        }
        skipped += 1;
    }
}

struct Merged {
    pos: u32,
    size: u32,
    pieces: Vec<Extent>,
}

/// One reserved record for several that leave no gap between them.
fn joined(pieces: &[Extent]) -> Option<Slice> {
    let (first, last) = (pieces.first()?, pieces.last()?);
    let whole = pieces.windows(2).all(|p| p[0].end() == u64::from(p[1].pos));
    whole.then(|| Slice::reserved(first.pos, (last.end() - u64::from(first.pos)) as u32))
}

/// Visible content without the holes around it.
fn merge(mut pieces: Vec<Extent>) -> Merged {
    let leading = pieces.iter().take_while(|p| p.id == 0).count().min(pieces.len().saturating_sub(1));
    pieces.drain(..leading);
    while pieces.len() > 1 && pieces.last().is_some_and(|p| p.id == 0) {
        pieces.pop();
    }
    if let [only] = &mut pieces[..]
        && only.id == 0
    {
        *only = Slice::zeros(only.pos, 1);
    }
    Merged { pos: pieces.first().map_or(0, |p| p.pos), size: pieces.iter().map(|p| p.len).sum(), pieces }
}

/// Is the first record big, untouched by the others and worth keeping?
fn stays(list: &[Slice], merged: &Merged) -> bool {
    let Some((first, later)) = list.split_first() else { return false };
    first.id > 0
        && first.len >= BIG
        && u64::from(first.len) * 5 >= u64::from(merged.size)
        && merged.pieces.first() == Some(first)
        && !later.contains(first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(pos: u32, id: u64, len: u32) -> Slice {
        Slice { pos, id, size: len, off: 0, len }
    }

    /// The three cases proven against the official client (`docs/format/chunks-and-slices.md#compaction`).
    #[test]
    fn proven_cases() {
        const MIB: u32 = 1 << 20;
        let mut list = vec![write(0, 1, 2 * MIB)];
        list.extend((0..6).map(|i| write(2 * MIB + i * 1000, 2 + u64::from(i), 1000)));
        let p = plan(&list).unwrap();
        assert_eq!((p.skipped, p.taken, p.pos, p.size), (1, 6, 2 * MIB, 6000));

        let mut list = vec![write(0, 1, 2 * MIB)];
        list.extend((0..6).map(|i| write(i * 5000, 2 + u64::from(i), 1000)));
        let p = plan(&list).unwrap();
        assert_eq!((p.skipped, p.taken, p.pos, p.size), (0, 7, 0, 2 * MIB));

        let list: Vec<_> = (0..6).map(|i| write(i * 5_000_000, 1 + u64::from(i), 1000)).collect();
        let p = plan(&list).unwrap();
        assert_eq!((p.skipped, p.taken, p.pos, p.size), (0, 6, 0, 25_001_000));
    }

    /// The records resolved in `docs/format/chunks-and-slices.md#resolving-a-chunk`.
    #[test]
    fn captured() {
        let list = [write(0, 7, 1000), write(500, 8, 200), write(100_000, 9, 10), write(600, 10, 1000)];
        let p = plan(&list).unwrap();
        assert_eq!((p.skipped, p.taken, p.pos, p.size), (0, 4, 0, 0x186aa));
    }

    #[test]
    fn reserved_space_stays() {
        const MIB: u32 = 1 << 20;
        let steps = |n: u32| (0..n).map(|i| Slice::reserved(i * 4096, 4096)).collect::<Vec<_>>();
        assert_eq!(plan(&steps(5)), None);
        assert_eq!(plan(&[Slice::zeros(0, 100), Slice::reserved(0, 50)]), None);
        let p = plan(&steps(40)).unwrap();
        assert_eq!((p.skipped, p.taken, p.reservation()), (0, 40, Some(Slice::reserved(0, 40 * 4096))));
        let mut grown = steps(40);
        grown.insert(0, Slice::zeros(0, 64 * MIB));
        assert_eq!(plan(&grown).unwrap().reservation(), Some(Slice::reserved(0, 40 * 4096)));
        let apart = |n: u32| (0..n).map(|i| Slice::reserved(i * 8192, 4096)).collect::<Vec<_>>();
        assert_eq!(plan(&apart(40)), None);
        // Too many of those, whatever follows, do not stay for ever.
        let p = plan(&apart(1000)).unwrap();
        assert_eq!((p.taken, p.size, p.reservation()), (1000, 1, None));
        let mut list = apart(100);
        list.extend([write(0, 1, 100), write(200, 2, 100)]);
        let p = plan(&list).unwrap();
        assert_eq!((p.skipped, p.taken, p.pos, p.size), (0, 102, 0, 300));
        // What is written into it is merged as ever, and big records behind it stay.
        let mut list = vec![Slice::reserved(0, 64 * MIB), write(0, 1, 2 * MIB)];
        list.extend((0..6).map(|i| write(2 * MIB + i * 1000, 2 + u64::from(i), 1000)));
        let p = plan(&list).unwrap();
        assert_eq!((p.skipped, p.taken, p.pos, p.size, p.reservation()), (2, 6, 2 * MIB, 6000, None));
    }

    #[test]
    fn nothing_to_do() {
        assert_eq!(plan(&[]), None);
        assert_eq!(plan(&[write(0, 1, 10)]), None);
        assert_eq!(plan(&[write(0, 1, 2 << 20), write(2 << 20, 2, 100)]), None);
        // Only records of no length.
        assert_eq!(plan(&[write(0, 1, 0), write(5, 2, 0)]), None);
        // Identical copies of a big record are not kept.
        let twice = [write(0, 1, 2 << 20), write(0, 1, 2 << 20)];
        assert_eq!(plan(&twice).unwrap().taken, 2);
    }

    #[test]
    fn holes() {
        let list = [write(0, 1, 100), Slice::zeros(0, 100), write(200, 2, 10), Slice::zeros(205, 50)];
        let p = plan(&list).unwrap();
        assert_eq!((p.pos, p.size), (200, 5));
        // All holes: one byte of zeros takes the place of everything.
        let p = plan(&[write(50, 1, 100), Slice::zeros(0, 1000)]).unwrap();
        assert_eq!((p.pos, p.size, p.pieces.len()), (0, 1, 1));
    }

    #[test]
    fn at_most_a_thousand() {
        let list: Vec<_> = (0..1500).map(|i| write(i, u64::from(i) + 1, 1)).collect();
        assert_eq!(plan(&list).unwrap().taken, MAX_RECORDS);
    }

    /// Paints a chunk whose bytes name their slice and offset.
    fn paint(list: &[Slice], unit: u32, cells: usize) -> Vec<(u64, u32)> {
        let mut out = vec![(0, 0); cells];
        for s in list {
            for i in 0..s.len / unit {
                let value = if s.id == 0 { (0, 0) } else { (s.id, s.off + i * unit) };
                out[(s.pos / unit + i) as usize] = value;
            }
        }
        out
    }

    proptest! {
        /// After the commit the chunk shows the same bytes, also with records that were appended meanwhile.
        #[test]
        fn content_stays(
            records in prop::collection::vec((0u32..40, 0u64..6, 1u32..24, 0u32..8), 0..12),
            appended in prop::collection::vec((0u32..40, 10u64..12, 1u32..24), 0..3),
        ) {
            // A unit of 256 KiB makes big records likely.
            const UNIT: u32 = 256 << 10;
            let list: Vec<_> = records
                .iter()
                .map(|&(pos, id, len, off)| Slice {
                    pos: pos * UNIT, id, size: 64 << 20, off: off * UNIT, len: len * UNIT,
                })
                .collect();
            if let Some(p) = plan(&list) {
                prop_assert!(p.taken >= 2 && p.skipped + p.taken == list.len());
                let mut at = p.pos;
                for piece in &p.pieces {
                    prop_assert_eq!(piece.pos, at);
                    at += piece.len;
                }
                prop_assert_eq!(at - p.pos, p.size);

                let tail: Vec<_> = appended.iter().map(|&(pos, id, len)| write(pos * UNIT, id, len * UNIT)).collect();
                let mut after = list[..p.skipped].to_vec();
                after.extend(&p.pieces);
                after.extend(&tail);
                let mut before = list.clone();
                before.extend(&tail);
                prop_assert_eq!(paint(&before, UNIT, 64), paint(&after, UNIT, 64));
            }
        }
    }
}
