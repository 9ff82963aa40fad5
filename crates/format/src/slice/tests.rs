use proptest::prelude::*;

use super::*;
use crate::testing::hex;

fn record(pos: u32, id: u64, size: u32, off: u32, len: u32) -> Slice {
    Slice { pos, id, size, off, len }
}

/// Records of `docs/format/chunks-and-slices.md#examples`.
#[test]
fn captured() {
    let cases = [
        ("00000000 0000000000000001 00000005 00000000 00000005", record(0, 1, 5, 0, 5)),
        ("000002bc 0000000000000000 00000000 00000000 000183ee", Slice::zeros(700, 99_310)),
        (
            "03fffca0 000000000000000c 002dc6c0 000003e8 00000360",
            record(67_108_000, 12, 3_000_000, 1000, 864),
        ),
        ("00000000 000000000000000c 002dc6c0 00000748 001e8120", record(0, 12, 3_000_000, 1864, 1_999_136)),
        ("00000000 000000000000000b 000186aa 00000000 000186aa", record(0, 11, 100_010, 0, 100_010)),
        ("00000032 0000000000000003 00000064 00000000 00000064", record(50, 3, 100, 0, 100)),
        ("00000014 0000000000000000 00000000 00000000 03ffffec", Slice::zeros(20, (64 << 20) - 20)),
    ];
    for (raw, want) in cases {
        assert_eq!(Slice::decode(&hex(raw)).unwrap(), want);
        assert_eq!(want.encode()[..], hex(raw));
    }
    let raw = hex(&cases.map(|c| c.0).concat());
    let list = cases.map(|c| c.1);
    assert_eq!(Slice::decode_list(&raw).unwrap(), list);
    assert_eq!(Slice::encode_list(&list), raw);
    assert!(Slice::decode_list(&raw[1..]).is_err());
    assert!(Slice::decode(&raw[..23]).is_err());
}

/// The example of `docs/format/chunks-and-slices.md#resolving-a-chunk`.
#[test]
fn resolved_example() {
    let list = [
        record(0, 7, 1000, 0, 1000),
        record(500, 8, 200, 0, 200),
        record(100_000, 9, 10, 0, 10),
        record(600, 10, 1000, 0, 1000),
    ];
    assert_eq!(
        resolve(&list),
        [
            record(0, 7, 1000, 0, 500),
            record(500, 8, 200, 0, 100),
            record(600, 10, 1000, 0, 1000),
            Slice::zeros(1600, 98_400),
            record(100_000, 9, 10, 0, 10),
        ]
    );
}

#[test]
fn odd_records() {
    assert_eq!(resolve(&[]), []);
    assert_eq!(resolve(&[record(5, 1, 0, 0, 0)]), []);
    // Beyond the chunk, and reaching beyond it.
    assert_eq!(resolve(&[record(1 << 26, 1, 5, 0, 5)]), []);
    let long = resolve(&[record((1 << 26) - 1, 1, 5, 0, u32::MAX)]);
    assert_eq!(long[1], record((1 << 26) - 1, 1, 5, 0, 1));
    // Zero records may carry any offset.
    let zeros = resolve(&[record(0, 0, 9, u32::MAX, 100), record(10, 3, 5, 0, 5)]);
    assert_eq!(
        zeros.iter().map(|e| (e.pos, e.id, e.len)).collect::<Vec<_>>(),
        [(0, 0, 10), (10, 3, 5), (15, 0, 85)]
    );
}

fn records() -> impl Strategy<Value = Vec<Slice>> {
    let one = (0u32..64, 0u64..5, 0u32..32, 0u32..20);
    prop::collection::vec(one.prop_map(|(pos, id, len, off)| record(pos, id, 64, off, len)), 0..20)
}

/// The bytes of a chunk, each named by slice and offset; holes are slice 0.
fn paint(list: &[Slice]) -> Vec<(u64, u32)> {
    let mut out = vec![(0, 0); 128];
    for s in list {
        for i in 0..s.len {
            out[(s.pos + i) as usize] = if s.id == 0 { (0, 0) } else { (s.id, s.off + i) };
        }
    }
    out
}

proptest! {
    #[test]
    fn like_painting(list in records()) {
        let got = resolve(&list);
        prop_assert_eq!(paint(&got), paint(&list));
        let mut at = 0;
        for e in &got {
            prop_assert_eq!(e.pos, at, "sorted, without gaps");
            prop_assert!(e.len > 0);
            at += e.len;
        }
        prop_assert_eq!(u64::from(at), list.iter().filter(|s| s.len > 0).map(Slice::end).max().unwrap_or(0));
        prop_assert_eq!(resolve(&got), got);
    }

    #[test]
    fn any_bytes(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(list) = Slice::decode_list(&raw) {
            prop_assert_eq!(Slice::encode_list(&list), &raw[..]);
        }
        let whole = &raw[..raw.len() / 24 * 24];
        let mut at = 0;
        for e in resolve(&Slice::decode_list(whole).unwrap()) {
            prop_assert_eq!(u64::from(e.pos), at);
            at = e.end();
        }
        prop_assert!(at <= CHUNK_SIZE);
    }
}
