use proptest::prelude::*;

use super::*;
use crate::testing::hex;

/// Entries of `docs/format/inodes-and-attributes.md#examples`.
#[test]
fn captured() {
    let cases = [
        ("01 0000000000000002", FileType::File, Ino(2)),
        ("02 7fffffff10000001", FileType::Directory, Ino(Ino::TRASH.0 + 1)),
        ("01 0000000000000007", FileType::File, Ino(7)),
    ];
    for (raw, kind, ino) in cases {
        let edge = Edge { kind, ino };
        assert_eq!(Edge::decode(&hex(raw)).unwrap(), edge);
        assert_eq!(edge.encode()[..], hex(raw));
    }
    assert!(Edge::decode(&hex("00 0000000000000007")).is_err());
    assert!(Edge::decode(&hex("08 0000000000000007")).is_err());
}

#[test]
fn trash_names() {
    assert_eq!(trash_entry_name(Ino(1), Ino(7), b"x2"), b"1-7-x2");
    assert_eq!(trash_entry_name(Ino(2), Ino(10), b"del1"), b"2-10-del1");
    assert_eq!(trash_entry_parent(b"2-10-del1"), Some(Ino(2)));
    for odd in [&b""[..], b"-1-x", b"x-1-y", b"12", b"+1-2-x", b"99999999999999999999-1-x", b"\xff-1-x"] {
        assert_eq!(trash_entry_parent(odd), None, "{odd:?}");
    }
    // Cut at bytes, even inside a character.
    let long = trash_entry_name(Ino(1), Ino(2), "ä".repeat(127).as_bytes());
    assert_eq!(long.len(), NAME_MAX);
    assert!(long.starts_with(b"1-2-") && std::str::from_utf8(&long).is_err());
}

proptest! {
    #[test]
    fn any_bytes(raw in prop::collection::vec(any::<u8>(), 0..12)) {
        if let Ok(edge) = Edge::decode(&raw) {
            prop_assert_eq!(&edge.encode()[..], &raw[..]);
        }
    }
}
