use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::testing::golden_plain;

const ALL: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

#[test]
fn names() {
    for c in ALL {
        assert_eq!(c.name().parse(), Ok(c));
        assert_eq!(c.name().to_uppercase().parse(), Ok(c));
    }
    assert_eq!("".parse(), Ok(Compression::None));
    assert_eq!("gzip".parse::<Compression>(), Err(CodecError::Unknown("gzip".into())));
}

/// Blocks written by the official client.
#[test]
fn golden() {
    let cases: [(&str, &[u8]); 7] = [
        ("lz4-1_0_1000", include_bytes!("../../testdata/objects/lz4-1_0_1000")),
        ("lz4-2_0_256", include_bytes!("../../testdata/objects/lz4-2_0_256")),
        ("lz4-3_0_1", include_bytes!("../../testdata/objects/lz4-3_0_1")),
        ("lz4-4_1_4464", include_bytes!("../../testdata/objects/lz4-4_1_4464")),
        ("zstd-1_0_1000", include_bytes!("../../testdata/objects/zstd-1_0_1000")),
        ("zstd-2_0_256", include_bytes!("../../testdata/objects/zstd-2_0_256")),
        ("zstd-3_0_1", include_bytes!("../../testdata/objects/zstd-3_0_1")),
    ];
    for (name, stored) in cases {
        let (algorithm, block) = name.split_once('-').unwrap();
        let codec: Compression = algorithm.parse().unwrap();
        let plain = golden_plain(block);
        assert_eq!(codec.decompress(stored, plain.len()).unwrap(), plain, "{name}");
        assert!(stored.len() <= codec.bound(plain.len()), "{name}");
        // A wrong idea of the length is noticed.
        assert!(codec.decompress(stored, plain.len() + 1).is_err(), "{name}");
        assert!(codec.decompress(stored, plain.len() - 1).is_err(), "{name}");
    }
    // The smallest frame is always the same.
    assert_eq!(Compression::Zstd.compress(b"x").unwrap(), cases[6].1);
    assert_eq!(Compression::Lz4.compress(b"x").unwrap(), cases[2].1);
}

/// 28 B5 2F FD, content size present, no checksum, no dictionary.
#[test]
fn zstd_frame() {
    for len in [0_usize, 1, 255, 256, 65536, 70000, 4 << 20] {
        let stored = Compression::Zstd.compress(&vec![7; len]).unwrap();
        assert_eq!(stored[..4], [0x28, 0xB5, 0x2F, 0xFD]);
        let descriptor = stored[4];
        assert_eq!(descriptor & 0b111, 0, "checksum or dictionary");
        assert!(descriptor >> 6 != 0 || descriptor & 0x20 != 0, "no content size");
    }
}

/// What other writers may legally produce.
#[test]
fn zstd_variants() {
    let plain = golden_plain("4_1_4464");
    let frame = |part: &[u8], f: &dyn Fn(&mut zstd::Encoder<'_, Vec<u8>>)| {
        let mut e = zstd::Encoder::new(Vec::new(), 5).unwrap();
        f(&mut e);
        e.write_all(part).unwrap();
        e.finish().unwrap()
    };
    let unsized_frame = |part: &[u8]| frame(part, &|e| e.include_contentsize(false).unwrap());
    let checked = frame(&plain, &|e| e.include_checksum(true).unwrap());
    let two = [unsized_frame(&plain[..1000]), Compression::Zstd.compress(&plain[1000..]).unwrap()].concat();
    let skippable = [&[0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &unsized_frame(&plain)].concat();
    for stored in [&checked, &unsized_frame(&plain), &two, &skippable] {
        assert_eq!(Compression::Zstd.decompress(stored, plain.len()).unwrap(), plain);
    }
    let garbage = [&checked[..], &[0]].concat();
    assert!(matches!(Compression::Zstd.decompress(&garbage, plain.len()), Err(CodecError::Corrupt { .. })));
    assert!(Compression::Zstd.decompress(&plain, plain.len()).is_err());
}

#[test]
fn bounds() {
    assert_eq!(Compression::Lz4.bound(1 << 20), (1 << 20) + 4112 + 16);
    assert_eq!(Compression::Zstd.bound(1), 1 + 63);
    assert_eq!(Compression::Zstd.bound(131_072), 131_072 + 512);
    for c in ALL {
        assert!(c.work_bound(1000) >= c.bound(1000));
        let need = c.work_bound(10);
        assert_eq!(
            c.compress_into(&[1; 10], &mut vec![0; need - 1]),
            Err(CodecError::Buffer { got: need - 1, need })
        );
    }
}

#[test]
fn plain_blocks() {
    let none = Compression::None;
    assert_eq!(none.decompress(b"abcd", 3).unwrap(), b"abc");
    assert_eq!(none.decompress(b"ab", 3), Err(CodecError::Length { got: 2, expected: 3 }));
}

/// Incompressible and repetitive data of many lengths stays within what official readers take.
#[test]
fn grown_blocks_stay_in_bounds() {
    let mut noise = Vec::new();
    let mut x = 1_u64;
    while noise.len() < 1 << 20 {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.extend_from_slice(&x.to_be_bytes()[..4]);
    }
    for len in [0, 1, 2, 11, 12, 13, 64, 254, 255, 256, 510, 4095, 65535, 65536, 131_071, 131_072, 1 << 20] {
        for codec in ALL {
            let stored = codec.compress(&noise[..len]).unwrap();
            assert!(stored.len() <= codec.bound(len), "{codec:?} {len}");
            assert_eq!(codec.decompress(&stored, len).unwrap(), &noise[..len]);
        }
    }
}

fn block() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        prop::collection::vec(0u8..4, 0..3000),
        (any::<u8>(), 0usize..5000).prop_map(|(b, n)| vec![b; n]),
    ]
}

proptest! {
    #[test]
    fn round_trip(plain in block()) {
        for codec in ALL {
            let stored = codec.compress(&plain).unwrap();
            prop_assert!(stored.len() <= codec.bound(plain.len()));
            prop_assert_eq!(codec.decompress(&stored, plain.len()).unwrap(), &plain[..]);
        }
    }

    /// Damaged blocks give errors or other bytes of the right length, never a panic or a short block.
    #[test]
    fn damage(plain in block(), cut: prop::sample::Index, flip: prop::sample::Index, bit in 0u8..8) {
        for codec in ALL {
            let stored = codec.compress(&plain).unwrap();
            if stored.is_empty() {
                continue;
            }
            let at = cut.index(stored.len());
            if codec.is_none() || codec == Compression::Zstd {
                prop_assert!(codec.decompress(&stored[..at], plain.len()).is_err() || plain.is_empty());
            } else {
                let _ = codec.decompress(&stored[..at], plain.len());
            }
            let mut bad = stored.clone();
            bad[flip.index(stored.len())] ^= 1 << bit;
            if let Ok(out) = codec.decompress(&bad, plain.len()) {
                prop_assert_eq!(out.len(), plain.len());
            }
        }
    }

    #[test]
    fn garbage(stored: Vec<u8>, len in 0usize..3000) {
        for codec in ALL {
            let _ = codec.decompress(&stored, len);
        }
    }
}
