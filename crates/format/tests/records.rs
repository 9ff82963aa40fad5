//! Records that somebody damaged: no decoder panics, takes memory without bound, or gives what its users do not expect.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "records/decoders.rs"]
mod decoders;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use ciderfs_format::acl::{AclEntry, AclRule};
use ciderfs_format::delslice::DelayedSlice;
use ciderfs_format::lock::LockRecord;
use ciderfs_format::quota::QuotaLimits;
use ciderfs_format::session::SessionInfo;
use ciderfs_format::settings::Settings;
use ciderfs_format::{Attr, Edge, FileType, Ino, Slice, Time};
use decoders::{TARGETS, every_decoder};
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

/// Numbers that look random and are the same in each run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    /// Bytes changed, doubled, cut or put in.
    fn mutated(&mut self, sound: &[u8]) -> Vec<u8> {
        let mut raw = sound.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(raw.len() + 1);
            match self.below(5) {
                0 => raw.truncate(at),
                1 => raw.insert(at, self.below(256) as u8),
                2 => raw.extend_from_within(at..),
                _ if at == raw.len() => raw.push(0xff),
                3 => raw[at] ^= 1 << self.below(8),
                _ => raw[at] = self.below(256) as u8,
            }
        }
        raw
    }
}

/// Inputs that a target begins with, which it takes.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let files = |dir: &str| -> Vec<Vec<u8>> {
        let mut paths: Vec<_> =
            fs::read_dir(testdata.join(dir)).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        paths.iter().map(|path| fs::read(path).unwrap()).collect()
    };
    match target {
        "blocks" => files("objects"),
        "private_keys" => files("keys"),
        "settings" => files("settings"),
        "versions" => vec![b"1.4.2+2025-01-01.abcdef".to_vec(), b"1.5.0-dev".to_vec()],
        "names" => vec![
            b"chunks/0/7/7000_1_4194304".to_vec(),
            b"meta/dump-2026-01-02-030405.json.gz".to_vec(),
            b"2026-01-02-03".to_vec(),
        ],
        "shown" => vec![b"redis://user:password@host:6379/1?password=x".to_vec()],
        _ => sound(),
    }
}

/// What fuzzing does, in short: inputs of a corpus and mutations of them, the same in each run.
#[test]
fn every_target_on_its_corpus_and_mutations_of_it() {
    let mut numbers = Numbers(15);
    for (name, target) in TARGETS {
        // An RSA key is checked for each input, or used.
        let rounds = if matches!(name, "private_keys" | "blocks") { 20 } else { 400 };
        for sound in corpus(name) {
            target(&sound);
            for _ in 0..rounds {
                target(&numbers.mutated(&sound));
            }
        }
    }
}

/// Names of files in a directory, without what comes after the dot.
fn names_in(dir: &Path) -> BTreeSet<String> {
    let stem = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_string_lossy().into_owned();
    fs::read_dir(dir).unwrap().map(|entry| stem(entry.unwrap())).collect()
}

/// cargo-fuzz finds targets by the sections of its manifest, and each of them calls the function of its name.
#[test]
fn every_target_has_a_fuzz_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    for name in &names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let text = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(text.contains(&format!("decoders::{name}(raw)")), "{name}");
    }
    let mut found = names_in(&fuzz.join("fuzz_targets"));
    assert!(found.remove("records"), "the target of all decoders");
    assert_eq!(found, names);
}

/// Functions of the sources that decode, as they are called.
fn decoders_of(text: &str) -> Vec<String> {
    let verbs = ["decode", "parse", "from_xattr", "load", "open", "decompress", "decrypt"];
    let (mut found, mut owner) = (Vec::new(), String::new());
    for line in text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")) {
        if let Some(rest) = line.strip_prefix("impl ") {
            owner = rest.split([' ', '<']).next().unwrap_or_default().to_owned();
        } else if line.starts_with('}') {
            owner.clear();
        }
        let Some(rest) = line.trim_start().strip_prefix("pub fn ") else { continue };
        let name = rest.split(['(', '<']).next().unwrap_or_default();
        if verbs.iter().any(|verb| name == *verb || name.starts_with(&format!("{verb}_"))) {
            let is_method = rest.contains("self");
            found.push(match () {
                () if owner.is_empty() => format!("{name}("),
                () if is_method => format!(".{name}("),
                () => format!("{owner}::{name}"),
            });
        }
    }
    found
}

#[test]
fn every_decoder_of_the_crate_has_a_target() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut dirs, mut count) = (vec![src], 0);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_stem().is_some_and(|stem| stem != "tests") {
                for call in decoders_of(&fs::read_to_string(&path).unwrap()) {
                    count += 1;
                    assert!(
                        include_str!("records/decoders.rs").contains(&call),
                        "{call} of {}",
                        path.display()
                    );
                }
            }
        }
    }
    assert!(count > 20, "{count}");
    assert_eq!(
        decoders_of("impl A {\n    pub fn decode(raw: &[u8]) {}\n}\npub fn parse_b(t: &str) {}"),
        ["A::decode", "parse_b("]
    );
}
