//! Flags of `mount` and `config` that the official client has, too: each has its effect on a real mount.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ciderfs_testkit::official::Official;
use support::client::{Mount, run, succeed, wait_for};
use support::{Engine, Volume, noise};

/// Writes and syncs a file.
fn store(path: impl AsRef<Path>, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
}

/// Blocks in a disk cache.
fn cached(dir: &Path) -> Vec<PathBuf> {
    let (mut dirs, mut blocks) = (vec![dir.to_owned()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.components().any(|part| part.as_os_str() == "blocks") {
                blocks.push(path);
            }
        }
    }
    blocks
}

/// A figure of a mount.
fn figure(mount: &Mount, name: &str) -> f64 {
    let stats = fs::read_to_string(mount.join(".stats")).unwrap();
    let line = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {stats}")).trim().parse().unwrap()
}

#[test]
fn the_disk_cache_has_items_a_mode_a_policy_and_an_expiry() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    let cache = volume.dir.path().join("cache");
    fs::DirBuilder::new().mode(0o755).create(&cache).unwrap();
    let dir = format!("--cache-dir={}", cache.display());
    let mount = volume.mount(&[]);
    for n in 0..8 {
        store(mount.join(format!("f{n}")), &noise(n, 10_000));
    }
    mount.unmount();
    let mount = volume.mount(&[
        &dir,
        "--free-space-ratio=0",
        "--cache-items=3",
        "--cache-mode=0640",
        "--cache-eviction=lru",
    ]);
    for n in 0..8 {
        assert_eq!(fs::read(mount.join(format!("f{n}"))).unwrap(), noise(n, 10_000));
    }
    wait_for("three blocks in the cache", || cached(&cache).len() == 3);
    for block in cached(&cache) {
        let (file, above) = (block.metadata().unwrap(), block.parent().unwrap().metadata().unwrap());
        assert_eq!((file.mode() & 0o777, above.mode() & 0o777), (0o640, 0o750), "{block:?}");
    }
    mount.unmount();
    // The policy that keeps what is there takes nothing new.
    let before = cached(&cache);
    let mount = volume.mount(&[&dir, "--free-space-ratio=0", "--cache-items=3", "--cache-eviction=none"]);
    store(mount.join("new"), &noise(9, 10_000));
    assert_eq!(fs::read(mount.join("f0")).unwrap(), noise(0, 10_000));
    mount.unmount();
    let same = |mut a: Vec<PathBuf>, mut b: Vec<PathBuf>| {
        a.sort();
        b.sort();
        a == b
    };
    assert!(same(before, cached(&cache)));
    let mount = volume.mount(&[&dir, "--cache-expire=1s"]);
    wait_for("an empty cache", || cached(&cache).is_empty());
    mount.unmount();
    // What the disk must keep free is more than there is.
    let mount = volume.mount(&[&dir, "--free-space-ratio=1"]);
    store(mount.join("last"), &noise(10, 10_000));
    wait_for("a word about it", || mount.log().contains("less than 100% of its disk is free"));
    assert!(cached(&cache).is_empty());
    mount.unmount();
    volume.check();
}

#[test]
fn clients_of_other_versions_are_kept_out() {
    let volume = Volume::new(Engine::Redis, &[]);
    let refused = |flag: &str, why: &str| {
        let ran = run(&["config", &volume.meta, flag]);
        assert!(ran.code == 1 && ran.stderr.contains(why), "{flag}: {ran:?}");
    };
    refused("--min-client-version=soon", "1.3.0");
    refused("--min-client-version=9.0.0", "--force");
    refused("--max-client-version=1.0.0", "--force");
    succeed(&["config", &volume.meta, "--min-client-version=1.4.0", "--max-client-version=2.0.0"]);
    volume.mount(&[]).unmount();
    let official = Official::locate().unwrap();
    let shown = official.status(&volume.meta).unwrap();
    assert_eq!(shown["Setting"]["MinClientVersion"], "1.4.0");
    succeed(&["config", &volume.meta, "--min-client-version=9.0.0", "--force"]);
    let ran = run(&["mount", &volume.meta, volume.new_path().to_str().unwrap(), "--metrics="]);
    assert!(ran.code != 0 && ran.stderr.contains("9.0.0"), "{ran:?}");
    assert!(official.status(&volume.meta).is_err());
}

#[test]
fn huge_pages_are_off_where_that_is_asked_for() {
    let volume = Volume::new(Engine::Sqlite, &[]);
    for (flags, enabled) in [(&[][..], "1"), (&["--disable-transparent-hugepage"][..], "0")] {
        let mount = volume.mount(flags);
        let status = fs::read_to_string(format!("/proc/{}/status", mount.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("THP_enabled:"));
        assert_eq!(line.map(str::trim), Some(enabled));
        assert!(figure(&mount, "juicefs_uptime") >= 0.0);
        mount.unmount();
    }
}
