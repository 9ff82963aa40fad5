//! Who may read the files of the disk cache, whose directories it takes, and what it leaves to others.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use super::support::*;
use crate::{BlockConfig, CacheMode, Eviction, ReadHint};

/// The tests run as root; this is somebody else.
const STRANGER: u32 = 12_345;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o777
}

fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(umask.trim(), 8).unwrap()
}

/// Can somebody else do this to a file?
fn stranger(program: &str, path: &Path) -> bool {
    let ran = Command::new("sh").args(["-c", program, "sh"]).arg(path).uid(STRANGER).gid(STRANGER).output();
    ran.unwrap().status.success()
}

#[tokio::test]
async fn cached_blocks_have_the_mode_that_is_set() {
    let top = tempfile::tempdir().unwrap();
    std::fs::set_permissions(top.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let volume = Volume::new(3).await;
    let place = top.path().join("uuid");
    let with = |mode: &str| BlockConfig { cache_mode: mode.parse().unwrap(), ..cached(BLOCK, &place) };
    for (i, (text, file, dir, pass)) in
        [("0600", 0o600, 0o700, 0o700), ("0666", 0o644, 0o755, 0o711)].into_iter().enumerate()
    {
        let blocks = volume.open(with(text));
        assert_eq!(blocks.stats().cache_blocks as usize, i, "what is there is used");
        let before = files(&place);
        volume.read(&blocks, i as u32).await;
        let new: Vec<_> = files(&place).into_iter().filter(|f| !before.contains(f)).collect();
        let [new] = new.as_slice() else { panic!("{new:?}") };
        assert_eq!(mode(new), file & !umask(), "{text}");
        assert_eq!(stranger("cat \"$1\"", new), file & !umask() & 0o004 > 0, "{text}");
        assert!(!stranger("echo >> \"$1\"", new) && !stranger("rm -f \"$1\"", new), "{text}");
        let root = place.join("ciderfs");
        for d in [root.clone(), root.join("blocks"), new.parent().unwrap().to_owned()] {
            assert_eq!(mode(&d), dir, "{text}: {d:?}");
        }
        assert_eq!(mode(&place), pass, "others may pass through, not look around");
        // What is not for others stays so.
        closed(blocks).await;
        assert_eq!(mode(&root.join("tmp")), 0o700);
        for f in ["lock", "index.snap"] {
            assert_eq!(mode(&root.join(f)), 0o600, "{f}");
        }
    }
    // Directories are closed again by a mount that says so; what was cached before is used.
    let blocks = volume.open(with("0600"));
    assert_eq!((volume.cached(&blocks), mode(&place.join("ciderfs"))), (all(0..2), 0o700));
    assert!(files(&place).iter().all(|file| !stranger("cat \"$1\"", file)));
    closed(blocks).await;
    // Parents that are made are for the owner.
    let deep = BlockConfig { cache_dirs: vec![top.path().join("parent/uuid")], ..with("0644") };
    closed(volume.open(deep)).await;
    assert_eq!(mode(&top.path().join("parent")), 0o700);
}

#[tokio::test]
async fn a_cache_for_many_readers_still_has_one_owner() {
    let top = tempfile::tempdir().unwrap();
    let volume = Volume::new(1).await;
    let elsewhere = top.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let hostile = |name: &str, what: &str| -> PathBuf {
        let place = top.path().join(name);
        let root = place.join("ciderfs");
        std::fs::create_dir(&place).unwrap();
        match what {
            "link" => symlink(&elsewhere, &root).unwrap(),
            "parent" => chown(&place, Some(STRANGER), None).unwrap(),
            below => {
                let dir = root.join(below);
                std::fs::create_dir_all(&dir).unwrap();
                chown(dir, Some(STRANGER), None).unwrap();
            }
        }
        place
    };
    let cache_mode = CacheMode::new(0o644).unwrap();
    for what in ["link", "parent", "", "blocks", "blocks/7f", "tmp"] {
        // A `tmp` is made anew, whoever owns it.
        let refused = what != "tmp";
        let place = hostile(&format!("of-{}", what.replace('/', "-")), what);
        let blocks = volume.open(BlockConfig { cache_mode, ..cached(BLOCK, &place) });
        assert_eq!(blocks.inner.disk.dirs().is_empty(), refused, "{what}");
        expect(&blocks, 1, &volume.data, ReadHint::Random).await;
        if what == "parent" {
            assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
        }
        closed(blocks).await;
    }
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
}

/// A small file system, until it is dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(options: &std::ffi::CStr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        rustix::mount::mount("none", dir.path(), "tmpfs", MountFlags::empty(), options).unwrap();
        Self(dir)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[tokio::test]
async fn a_share_of_the_inodes_stays_free() {
    let volume = Volume::new(60).await;
    // The cache's own directories are 260; blocks have room for some 36 more of 1200, and for all the bytes there are.
    let fs = Tmpfs::new(c"size=1g,nr_inodes=1200");
    let cfg = BlockConfig { free_space_ratio: 0.75, ..cached(BLOCK, fs.0.path()) };
    let free = || rustix::fs::statvfs(fs.0.path()).unwrap().f_favail;
    for eviction in [Eviction::S3Fifo, Eviction::Lru, Eviction::TwoRandom] {
        let blocks = volume.open(BlockConfig { cache_eviction: eviction, ..cfg.clone() });
        for indx in 0..60 {
            volume.read(&blocks, indx).await;
        }
        until("900 inodes are free", || free() >= 900).await;
        let cached = blocks.stats().cache_blocks;
        assert!((20..=40).contains(&cached), "{cached}");
        closed(blocks).await;
    }
}

#[tokio::test]
async fn a_cache_goes_on_when_its_disk_has_room_again() {
    let volume = Volume::new(3).await;
    let fs = Tmpfs::new(c"size=64m");
    let filler = fs.0.path().join("filler");
    std::fs::write(&filler, vec![1; 40 << 20]).unwrap();
    let blocks = volume.open(BlockConfig { free_space_ratio: 0.5, ..cached(BLOCK, fs.0.path()) });
    volume.read(&blocks, 0).await;
    assert_eq!(volume.cached(&blocks), all(0..0));
    std::fs::remove_file(filler).unwrap();
    let began = Instant::now();
    while volume.cached(&blocks).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing is cached");
        tokio::time::sleep(Duration::from_millis(20)).await;
        volume.read(&blocks, 0).await;
    }
    assert_eq!(volume.cached(&blocks), all(0..1));
    closed(blocks).await;
}
