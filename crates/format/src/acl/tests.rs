use proptest::prelude::*;

use super::*;
use crate::testing::hex;

fn e(id: u32, perm: u16) -> AclEntry {
    AclEntry { id, perm }
}

fn rule(perms: [u16; 4], users: &[AclEntry], groups: &[AclEntry]) -> AclRule {
    let [owner, group, mask, other] = perms;
    AclRule { owner, group, mask, other, named_users: users.into(), named_groups: groups.into() }
}

/// `acl` 1 and 2, the rule and its SQL columns: `docs/format/acls-and-xattrs.md#examples`.
#[test]
fn captured() {
    let cases = [
        (
            "0006 0004 0006 0004 00000001 000003e8 0006 00000001 000007d0 0004",
            rule([6, 4, 6, 4], &[e(1000, 6)], &[e(2000, 4)]),
        ),
        ("0007 0005 0007 0005 00000001 000003e8 0007 00000000", rule([7, 5, 7, 5], &[e(1000, 7)], &[])),
        (
            "0006 0004 0007 0004 00000001 000003e9 0006 00000001 00000037 0005",
            rule([6, 4, 7, 4], &[e(1001, 6)], &[e(55, 5)]),
        ),
    ];
    for (raw, want) in &cases {
        assert_eq!(AclRule::decode(&hex(raw)).unwrap(), *want);
        assert_eq!(want.encode(), hex(raw));
    }
    assert_eq!(encode_entries(&cases[2].1.named_users), hex("000003e90006"));
    assert_eq!(encode_entries(&cases[2].1.named_groups), hex("000000370005"));
    assert_eq!(decode_entries(&hex("000003e90006")).unwrap(), [e(1001, 6)]);
    assert_eq!(decode_entries(&[]).unwrap(), []);
}

#[test]
fn damaged_records() {
    let good = rule([6, 4, 6, 4], &[e(1000, 6)], &[e(2000, 4)]).encode();
    for n in 0..good.len() {
        assert!(AclRule::decode(&good[..n]).is_err());
    }
    assert!(AclRule::decode(&[&good[..], &[0]].concat()).is_err());
    // A count that would need 24 GiB.
    assert!(AclRule::decode(&hex("0006 0004 0006 0004 ffffffff 0000")).is_err());
    assert!(decode_entries(&[0; 7]).is_err());
}

#[cfg(target_endian = "little")]
#[test]
fn wire_form() {
    let raw = hex("02000000 0100 0600 ffffffff 0200 0600 e8030000 0400 0400 ffffffff 0800 0400 d0070000 \
         1000 0600 ffffffff 2000 0400 ffffffff");
    let r = rule([6, 4, 6, 4], &[e(1000, 6)], &[e(2000, 4)]);
    assert_eq!(AclRule::from_xattr(&raw).unwrap(), r);
    assert_eq!(r.to_xattr(), raw);
    assert!(AclRule::from_xattr(&raw[..4]).unwrap().is_empty());

    let bad = |s: &str| AclRule::from_xattr(&hex(s)).unwrap_err();
    assert_eq!(bad(""), AclSyntax::Header);
    assert_eq!(bad("010000"), AclSyntax::Header);
    assert_eq!(bad("01000000"), AclSyntax::Header);
    assert_eq!(bad("02000000 0100"), AclSyntax::Header);
    assert_eq!(bad("02000000 0300 0600 ffffffff"), AclSyntax::Tag(3));
    assert_eq!(bad("02000000 0100 0800 ffffffff"), AclSyntax::Permission(8));
    assert_eq!(bad("02000000 0100 0600 ffffffff 0100 0600 ffffffff"), AclSyntax::Duplicate(1));
    assert_eq!(
        bad("02000000 0100 0600 ffffffff 0200 0600 e8030000 0400 0400 ffffffff 2000 0400 ffffffff"),
        AclSyntax::NoMask
    );
}

#[test]
fn setting() {
    // setfacl -m u:1000:rw- on a 0644 file.
    let r = rule([6, 4, 6, 4], &[e(1000, 6)], &[]);
    assert_eq!(
        set(r.clone(), AclKind::Access, 0o4644, false),
        AclChange { rule: Some(r.clone()), mode: 0o4664 }
    );
    // Default rules leave the mode alone.
    assert_eq!(
        set(r.clone(), AclKind::Default, 0o2755, false),
        AclChange { rule: Some(r.clone()), mode: 0o2755 }
    );
    assert_eq!(set(r.clone(), AclKind::Default, 0o2755, true).mode, 0o755);
    // Missing base entries come from the mode.
    let sparse = AclRule { owner: UNDEFINED, group: UNDEFINED, other: UNDEFINED, ..r };
    assert_eq!(
        set(sparse, AclKind::Access, 0o751, false).rule.unwrap().encode()[..8],
        hex("0007 0005 0006 0001")
    );
    // Minimal access rules become plain mode bits, minimal default rules are kept.
    let minimal = rule([7, 5, UNDEFINED, 1], &[], &[]);
    assert_eq!(set(minimal.clone(), AclKind::Access, 0o1600, false), AclChange { rule: None, mode: 0o1751 });
    assert_eq!(set(minimal.clone(), AclKind::Default, 0o700, false).rule, Some(minimal));
    assert_eq!(set(AclRule::EMPTY, AclKind::Access, 0o2664, true), AclChange { rule: None, mode: 0o664 });
}

#[test]
fn inheriting() {
    let minimal = rule([7, 5, UNDEFINED, 0], &[], &[]);
    assert_eq!(minimal.inherit(0o4666), Inherited { access: None, mode: 0o4640 });
    let full = rule([7, 5, 7, 5], &[e(1000, 7)], &[]);
    let got = full.inherit(0o640);
    assert_eq!(got.mode, 0o640);
    assert_eq!(got.access.unwrap(), rule([6, 5, 4, 0], &[e(1000, 7)], &[]));
}

#[test]
fn permission() {
    let r = rule([7, 5, 4, 1], &[e(10, 7), e(11, 0)], &[e(20, 6), e(21, 0)]);
    let may = |uid, gids: &[u32], wanted| r.permits(&Caller { uid, gids }, 1, 2, wanted);
    assert!(may(1, &[], 7));
    // Named users are bounded by the mask and never fall through to groups.
    assert!(may(10, &[], 4) && !may(10, &[], 6) && !may(11, &[20], 4));
    // Groups: any that grants wins, any match without a grant denies even if others may.
    assert!(may(5, &[2], 4) && !may(5, &[2], 1) && may(5, &[21, 20], 4) && !may(5, &[21], 1));
    assert!(may(5, &[9], 1) && !may(5, &[9], 4));
}

fn perm() -> impl Strategy<Value = u16> {
    prop_oneof![3 => 0u16..8, 1 => Just(UNDEFINED)]
}

fn entries() -> impl Strategy<Value = Vec<AclEntry>> {
    prop::collection::vec((0u32..6, 0u16..8).prop_map(|(id, perm)| e(id, perm)), 0..4)
}

fn any_rule() -> impl Strategy<Value = AclRule> {
    ([perm(), perm(), perm(), perm()], entries(), entries()).prop_map(|(p, u, g)| rule(p, &u, &g))
}

/// Rules as they can be stored for access: all defined.
fn access_rule() -> impl Strategy<Value = AclRule> {
    ([0u16..8, 0u16..8, 0u16..8, 0u16..8], entries(), entries()).prop_map(|(p, u, g)| rule(p, &u, &g))
}

proptest! {
    #[test]
    fn record_round_trip(r in any_rule()) {
        prop_assert_eq!(AclRule::decode(&r.encode()).unwrap(), r);
    }

    #[test]
    fn wire_round_trip(r in access_rule()) {
        prop_assert_eq!(AclRule::from_xattr(&r.to_xattr()).unwrap(), r);
    }

    #[test]
    fn any_bytes(raw: Vec<u8>) {
        if let Ok(r) = AclRule::decode(&raw) {
            prop_assert_eq!(r.encode(), &raw[..]);
        }
        if let Ok(list) = decode_entries(&raw) {
            prop_assert_eq!(encode_entries(&list), &raw[..]);
        }
        let _ = AclRule::from_xattr(&raw);
        let _ = AclRule::from_xattr(&[&[2, 0, 0, 0], &raw[..raw.len() / 8 * 8]].concat());
    }

    /// chmod and the mode bits are two sides of the same rule.
    #[test]
    fn chmod_algebra(r in access_rule(), mode in 0u16..0o10000) {
        let after = r.with_mode(mode);
        prop_assert_eq!(after.mode_bits(), mode & 0o777);
        prop_assert_eq!(after.with_mode(r.mode_bits()), r.clone());
        prop_assert_eq!(r.with_mode(r.mode_bits()), r);
    }

    #[test]
    fn setting_algebra(r in any_rule(), mode in 0u16..0o10000) {
        let done = set(r.clone(), AclKind::Access, mode, false);
        prop_assert_eq!(done.mode & 0o7000, mode & 0o7000);
        if let Some(stored) = &done.rule {
            prop_assert!(!stored.is_minimal());
            prop_assert_eq!(stored.mode_bits(), done.mode & 0o777);
            prop_assert_eq!(set(stored.clone(), AclKind::Access, done.mode, false), done);
        }
    }

    /// A child never gets more than the requested mode or the default rule allow.
    #[test]
    fn inheritance_narrows(r in access_rule(), mode in 0u16..0o10000) {
        let got = r.inherit(mode);
        prop_assert_eq!(got.mode & !mode, 0);
        prop_assert_eq!(got.mode & 0o777 & !r.mode_bits(), 0);
        if let Some(access) = got.access {
            prop_assert_eq!(access.mode_bits(), got.mode & 0o777);
        }
    }

    /// More is granted when less is asked for, and nobody but the owner exceeds mask or other.
    #[test]
    fn permission_algebra(r in access_rule(), uid in 0u32..6, gids in prop::collection::vec(0u32..6, 0..3), wanted in 0u16..8) {
        let caller = Caller { uid, gids: &gids };
        if r.permits(&caller, 0, 0, wanted) {
            for less in 0..8 {
                prop_assert!(r.permits(&caller, 0, 0, wanted & less));
            }
            if uid != 0 {
                prop_assert_eq!(wanted & !(r.mask | r.other), 0);
            }
        }
    }
}
