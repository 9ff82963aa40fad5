//! The regions of OVHcloud are listed twice: for the tests, and for the NixOS module, which no Rust reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

use ciderfs_testkit::s3::OVH_REGIONS;

/// The names on the left of the module's list, which is what follows `in`.
fn of_the_module() -> BTreeSet<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/nixos/modules/lib/ovh-regions.nix");
    let text = std::fs::read_to_string(&file).unwrap();
    let (_, list) = text.split_once("\nin\n{\n").expect("the list follows `in`");
    let (list, _) = list.split_once("\n}").expect("the list ends");
    let mut names = BTreeSet::new();
    for line in list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, value) = line.split_once(" = ").unwrap_or_else(|| panic!("not understood: {line}"));
        assert!(value.ends_with(';'), "not understood: {line}");
        assert!(names.insert(name.trim_matches('"').to_owned()), "{name} is there twice");
    }
    names
}

#[test]
fn module_and_tests_know_the_same_regions_of_ovhcloud() {
    let module = of_the_module();
    let tests: BTreeSet<String> = OVH_REGIONS.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tests.len(), OVH_REGIONS.len(), "a region is there twice");
    let missing =
        |all: &BTreeSet<String>, from: &BTreeSet<String>| all.difference(from).cloned().collect::<Vec<_>>();
    assert_eq!(missing(&module, &tests), [""; 0], "OVH_REGIONS of crates/testkit lacks these");
    assert_eq!(missing(&tests, &module), [""; 0], "deploy/nixos/modules/lib/ovh-regions.nix lacks these");
}
