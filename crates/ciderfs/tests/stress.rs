//! stress-ng's filesystem class, which checks what it does, on real mounts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::process::Command;
use std::time::Duration;

use support::client::run_within;
use support::{Engine, Volume};

on_engines!(the_filesystem_class_verifies);

/// The class but for: `bind-mount`, `binderfs`, `eventfd`, `ioprio`, `procfs` (not about the file system they run on); `fiemap`,
/// `handle`, `verity` (requests that the kernel does not pass to FUSE); `fanotify`, `inotify`, `dnotify` (the kernel's own);
/// `getdent` (lists directories of the whole machine); `chdir`, `dup`, `io`, `lease` (other ones do the same).
const STRESSORS: &str = "access chattr chmod chown copy-file dentry dir dirdeep dirmany fallocate fcntl file-ioctl \
    filename flock fpunch fsize fstat hdd inode-flags iomix link locka lockf lockofd mknod open rename symlink \
    sync-file touch utime xattr";
/// Instances of each.
const INSTANCES: &str = "2";
/// How long each runs.
const EACH: &str = "1s";
/// How long all of them may take where there are few processors.
const LIMIT: Duration = Duration::from_secs(400);

fn the_filesystem_class_verifies(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0", "--enable-acl"]);
    let mount = volume.mount(&["--buffer-size=64", "-o", "dev,suid"]);
    let dir = mount.join("stress");
    fs::create_dir(&dir).unwrap();
    // One after the other: with all in one run, files of one are in the way of another.
    let script = format!(
        "for s in {STRESSORS}; do timeout -k 5 60 stress-ng --$s {INSTANCES} --timeout {EACH} --verify --hdd-bytes 16M --temp-path . 2>&1 \
         || echo \"$s: exit code $?\"; done"
    );
    let ran = run_within(Command::new("sh").args(["-c", &script]).current_dir(&dir), LIMIT);
    // Not every failure that it reports changes its exit code.
    let bad: Vec<&str> = ran
        .stdout
        .lines()
        .filter(|l| {
            ["fail:", "exit code", "skipp", "unsupported", "not supported", "not implemented"]
                .iter()
                .any(|w| l.contains(w))
        })
        .collect();
    assert!(bad.is_empty() && ran.code == 0, "{}\n{}", bad.join("\n"), ran.stderr);
    let passed = ran.stdout.matches("successful run completed").count();
    assert_eq!(passed, STRESSORS.split_whitespace().count(), "{}", ran.stdout);
    // The time of a stressor may end between setting such a flag and taking it back; then it leaves the file.
    Command::new("chattr").args(["-R", "-f", "-ia"]).arg(&dir).status().unwrap();
    fs::remove_dir_all(&dir).unwrap();
    mount.unmount();
    volume.check();
}
