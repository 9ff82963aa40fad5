use proptest::prelude::*;

use super::*;
use crate::testing::hex;

fn time(sec: i64, nsec: u32) -> Time {
    Time { sec, nsec }
}

fn dir(mode: u16, t: Time) -> Attr {
    Attr {
        flags: 0,
        kind: FileType::Directory,
        mode,
        uid: 0,
        gid: 0,
        atime: t,
        mtime: t,
        ctime: t,
        nlink: 2,
        length: Attr::DIR_LENGTH,
        rdev: 0,
        parent: Ino::ROOT,
        access_acl: 0,
        default_acl: 0,
        tier: 0,
    }
}

const BORN: &str =
    "00000000 00000000 000000006b02b810 00000000 000000006b02b810 00000000 000000006b02b810 00000000";

/// The records of `docs/format/inodes-and-attributes.md#examples`, both ways.
#[test]
fn captured() {
    let born = time(0x6b02_b810, 0);
    let t = time(1_795_340_362, 412_395_255);
    let cases = [
        (format!("00 21ff {BORN} 00000002 0000000000001000 00000000 0000000000000001 00"), dir(0o777, born)),
        (format!("00 216d {BORN} 00000002 0000000000001000 00000000 0000000000000001 00"), dir(0o555, born)),
        (
            "00 21ed 00000000 00000000 000000006b02b84a 1894a6f7 000000006b02b84a 1894a6f7 000000006b02b84a \
             1894a6f7 00000002 0000000000001000 00000000 0000000000000001 00"
                .into(),
            dir(0o755, t),
        ),
        (
            "00 11a4 00000000 00000000 000000006b02b84b 04c1b28d 000000006b02b84b 04c8651b 000000006b02b861 \
             28089f9a 00000002 0000000000000005 00000000 0000000000000000 00"
                .into(),
            Attr {
                kind: FileType::File,
                atime: time(0x6b02_b84b, 0x04c1_b28d),
                mtime: time(0x6b02_b84b, 0x04c8_651b),
                ctime: time(0x6b02_b861, 0x2808_9f9a),
                length: 5,
                parent: Ino(0),
                ..dir(0o644, t)
            },
        ),
        (
            "00 31ff 00000000 00000000 000000006b02b860 1eed3243 000000006b02b860 1eed3243 000000006b02b860 \
             1eed3243 00000001 000000000000000b 00000000 0000000000000001 00"
                .into(),
            Attr {
                kind: FileType::Symlink,
                nlink: 1,
                length: 11,
                ..dir(0o777, time(0x6b02_b860, 0x1eed_3243))
            },
        ),
        (
            format!("00 61a4 {BORN} 00000001 0000000000000000 12f103d1 0000000000000001 00"),
            Attr { kind: FileType::CharDevice, nlink: 1, length: 0, rdev: 0x12f1_03d1, ..dir(0o644, born) },
        ),
        (
            format!(
                "00 11a4 {BORN} 00000001 0000000000000000 00000000 0000000000000001 00000001 00000000 00"
            ),
            Attr { kind: FileType::File, nlink: 1, length: 0, access_acl: 1, ..dir(0o644, born) },
        ),
        (
            format!(
                "00 21ed {BORN} 00000002 0000000000001000 00000000 0000000000000001 00000000 00000002 00"
            ),
            Attr { default_acl: 2, ..dir(0o755, born) },
        ),
        (
            format!("00 21ed {BORN} 00000002 0000000000001000 00000000 0000000000000001 01 00"),
            Attr { tier: 1, ..dir(0o755, born) },
        ),
        (
            format!(
                "20 21ed {BORN} 00000002 0000000000001000 00000000 0000000000000001 00000000 00000002 01 00"
            ),
            Attr { default_acl: 2, tier: 1, flags: flags::SKIP_TRASH, ..dir(0o755, born) },
        ),
    ];
    for (raw, attr) in cases {
        let raw = hex(&raw);
        assert_eq!(Attr::decode(&raw).unwrap(), attr);
        assert_eq!(attr.encode(), raw);
        assert!([72, 73, 80, 81].contains(&raw.len()));
    }
    // `docs/format/inodes-and-attributes.md#fields`.
    let kind = |type_mode: &str| {
        Attr::decode(&hex(&format!("00 {type_mode} {BORN} 00000001 0000000000000000 00000000"))).unwrap().kind
    };
    assert_eq!(
        (kind("41a4"), kind("71ed"), kind("51a4")),
        (FileType::Fifo, FileType::Socket, FileType::BlockDevice)
    );
}

#[test]
fn old_and_damaged_records() {
    let full = dir(0o755, time(1, 2)).encode();
    // Without parent, and without the pad byte.
    assert_eq!(Attr::decode(&full[..63]).unwrap().parent, Ino(0));
    assert_eq!(Attr::decode(&full[..71]).unwrap().parent, Ino(1));
    for n in 0..63 {
        assert!(Attr::decode(&full[..n]).is_err());
    }
    for kind in [0_u8, 8, 15] {
        let mut bad = full.clone();
        bad[1] = kind << 4;
        assert!(Attr::decode(&bad).is_err());
    }
}

#[test]
fn modes() {
    for n in 0..=u8::MAX {
        if let Some(kind) = FileType::from_u8(n) {
            assert_eq!(kind as u8, n);
            assert_eq!(FileType::from_mode(kind.mode_bits() | 0o7777), Some(kind));
        } else {
            assert!(n == 0 || n > 7);
        }
    }
    assert_eq!(FileType::from_mode(0o644), Some(FileType::File));
    assert_eq!(FileType::from_mode(0o160_000), None);
    let attr = dir(0o1777, Time::default());
    assert_eq!(attr.st_mode(), 0o041_777);
    assert_eq!(attr.charged_space(), 4096);
    let file = Attr { kind: FileType::File, length: 4097, ..attr };
    assert_eq!(file.charged_space(), 8192);
    assert!(Attr { parent: Ino(Ino::TRASH.0 + 1), ..file }.in_trash());
}

proptest! {
    #[test]
    fn round_trip(
        small: [u8; 2], mode in 0u16..0o10000, kind in 1u8..8, words: [u32; 6], longs: [u64; 2], secs: [i64; 3], nsecs: [u32; 3],
    ) {
        let attr = Attr {
            flags: small[0],
            kind: FileType::from_u8(kind).unwrap(),
            mode,
            uid: words[0],
            gid: words[1],
            atime: time(secs[0], nsecs[0] % 1_000_000_000),
            mtime: time(secs[1], nsecs[1] % 1_000_000_000),
            ctime: time(secs[2], nsecs[2] % 1_000_000_000),
            nlink: words[2],
            length: longs[0] % (Attr::LENGTH_MAX + 1),
            rdev: words[3],
            parent: Ino(longs[1]),
            access_acl: words[4],
            default_acl: words[5] % 2,
            tier: small[1] % 4,
        };
        let raw = attr.encode();
        prop_assert_eq!(raw.last(), Some(&0));
        prop_assert_eq!(Attr::decode(&raw).unwrap(), attr);
    }

    #[test]
    fn any_bytes(raw in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = Attr::decode(&raw);
    }
}
