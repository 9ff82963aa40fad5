//! Records that somebody damaged: no decoder panics, takes memory without bound, or gives what its users do not expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "records/decoders.rs"]
mod decoders;

use ciderfs_format::acl::{AclEntry, AclRule};
use ciderfs_format::delslice::DelayedSlice;
use ciderfs_format::lock::LockRecord;
use ciderfs_format::quota::QuotaLimits;
use ciderfs_format::session::SessionInfo;
use ciderfs_format::settings::Settings;
use ciderfs_format::{Attr, Edge, FileType, Ino, Slice, Time};
use decoders::every_decoder;
use proptest::prelude::*;

/// Numbers at which arithmetic ends.
const ENDS: [u64; 10] =
    [0, 1, 1 << 26, u32::MAX as u64, 1 << 32, 1 << 57, 1 << 62, i64::MAX as u64, 1 << 63, u64::MAX];

/// One sound record of each kind.
fn sound() -> Vec<Vec<u8>> {
    let t = Time { sec: 1_795_340_435, nsec: 5 };
    let attr = Attr {
        flags: 0,
        kind: FileType::File,
        mode: 0o644,
        uid: 1,
        gid: 2,
        atime: t,
        mtime: t,
        ctime: t,
        nlink: 1,
        length: 1 << 30,
        rdev: 0,
        parent: Ino(7),
        access_acl: 1,
        default_acl: 0,
        tier: 1,
    };
    let slices: Vec<Slice> =
        (0..5).map(|i| Slice { pos: i * 1000, id: 7, size: 5000, off: i, len: 2000 }).collect();
    let entry = AclEntry { id: 7, perm: 6 };
    let rule = AclRule {
        owner: 6,
        group: 4,
        mask: 6,
        other: 0,
        named_users: vec![entry],
        named_groups: vec![entry],
    };
    let settings = Settings::new("v", "5f1c3a86-0000-4000-8000-000000000001", "file", "/x/");
    vec![
        attr.encode(),
        Edge { kind: FileType::Directory, ino: Ino(9) }.encode().to_vec(),
        Slice::encode_list(&slices),
        DelayedSlice::encode_list(&[DelayedSlice { id: 7, size: 5000 }]),
        LockRecord::encode_list(&[LockRecord { kind: 1, pid: 2, start: 3, end: 9 }; 3]),
        QuotaLimits { max_space: 1 << 30, max_inodes: 5 }.encode().to_vec(),
        rule.encode(),
        rule.to_xattr(),
        SessionInfo { version: "1.4.2".into(), ..SessionInfo::default() }.encode().unwrap(),
        settings.to_json().unwrap().into_bytes(),
        b"k7_5000".to_vec(),
        b"123:5000".to_vec(),
        b"1_D4AA9D3EF1D58DA5".to_vec(),
        b"c7_3".to_vec(),
    ]
}

/// Every prefix of a record, and every number in it at each of its ends.
#[test]
fn sound_records_cut_and_with_numbers_at_their_ends() {
    for record in sound() {
        for n in 0..=record.len() {
            every_decoder(&record[..n]);
        }
        for width in [1, 2, 4, 8] {
            for at in 0..record.len().saturating_sub(width - 1) {
                for n in ENDS {
                    let mut bad = record.clone();
                    bad[at..at + width].copy_from_slice(&n.to_be_bytes()[8 - width..]);
                    every_decoder(&bad);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes(raw in prop::collection::vec(any::<u8>(), 0..400)) {
        every_decoder(&raw);
    }

    /// Lists of records of the right size, with many numbers at their ends.
    #[test]
    fn any_numbers(words in prop::collection::vec(prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), Just(1 << 26), 0u32..100], 0..120)) {
        every_decoder(&words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>());
    }

    /// Sound records with some bytes changed and others behind.
    #[test]
    fn changed(which in 0usize..14, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), more in prop::collection::vec(any::<u8>(), 0..30)) {
        let mut raw = sound().swap_remove(which);
        for (at, byte) in changes {
            let at = at.index(raw.len());
            raw[at] = byte;
        }
        every_decoder(&raw);
        raw.extend(more);
        every_decoder(&raw);
    }
}

/// Counts that a record claims are never allocated before they are there.
#[test]
fn counts_are_not_believed() {
    let mut rule = vec![0; 8];
    rule.extend([0xff; 4]);
    every_decoder(&rule);
    every_decoder(&[0xff; 24 * 1000]);
    every_decoder(&[b'['; 100_000]);
}
