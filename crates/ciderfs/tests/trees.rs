//! `clone` and `rmr`: our tools and the official client's, each on mounts of both; and what is left of a clone that nobody completes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use ciderfs_format::{Ino, Time};
use ciderfs_meta::{Caller, Clock, CloneOptions, CloneProgress, Meta, MetaConfig, SystemClock};
use ciderfs_testkit::official::Official;
use ciderfs_volume::{Engine as Opening, Purpose};
use support::client::{PATIENCE, Ran, program, run_within};
use support::tree::Tree;
use support::{Engine, Volume, assert_same, noise};

on_engines!(both_tools_work_on_both_mounts, others_than_root, official_cleans_up_what_was_abandoned);

/// A tree with everything that a clone keeps, and names that need care.
fn fill(top: &Path) {
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::write(top.join("a/blocks"), noise(1, (9 << 20) + 77)).unwrap();
    let file = OpenOptions::new().write(true).open(top.join("a/blocks")).unwrap();
    file.write_all_at(&noise(2, 100_000), 4_000_000).unwrap();
    file.set_len(9 << 20).unwrap();
    fs::write(top.join("empty"), b"").unwrap();
    symlink("a/blocks", top.join("soft")).unwrap();
    for n in 0..150 {
        fs::write(top.join(format!("a/b/{n}")), noise(n, 10 + n as usize)).unwrap();
    }
    let sparse = fs::File::create(top.join("sparse")).unwrap();
    sparse.write_all_at(b"over the first chunk", (64 << 20) - 10).unwrap();
    fs::set_permissions(top.join("a/b"), Permissions::from_mode(0o2751)).unwrap();
    fs::set_permissions(top.join("a/blocks"), Permissions::from_mode(0o640)).unwrap();
    chown(top.join("a/blocks"), Some(1000), Some(1001)).unwrap();
    rustix::fs::setxattr(top.join("a"), "user.note", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
}

fn tool(official: Option<&Official>) -> Command {
    official.map_or_else(program, |o| Command::new(o.exe()))
}

#[track_caller]
fn works(command: &mut Command) -> Ran {
    let ran = run_within(command, PATIENCE);
    assert_eq!(ran.code, 0, "{command:?}\n{}{}", ran.stdout, ran.stderr);
    ran
}

#[track_caller]
fn refused(command: &mut Command, why: &str) {
    let ran = run_within(command, PATIENCE);
    assert!(ran.code != 0 && ran.stderr.contains(why), "{command:?}\n{}{}", ran.stdout, ran.stderr);
}

/// What tools do on a mount; the clones are left.
fn clone_with_both(root: &Path, whose: &str, official: &Official) {
    let source = root.join("source");
    let want = Tree::read(&source).without_inodes();
    for (name, tool_of) in [("ours", None), ("theirs", Some(official))] {
        let kept = root.join(format!("{whose}-{name}"));
        works(tool(tool_of).args(["clone", "-p"]).arg(&source).arg(&kept));
        assert_same("a clone", &want, &Tree::read(&kept).without_inodes());
        let mut note = [0; 8];
        let read = rustix::fs::getxattr(kept.join("a"), "user.note", &mut note[..]).unwrap();
        assert_eq!(&note[..read], b"kept");
        // A file, by whoever asks.
        let one = root.join(format!("{whose}-{name}-file"));
        works(tool(tool_of).arg("clone").arg(source.join("a/blocks")).arg(&one));
        assert!(fs::read(&one).unwrap() == fs::read(source.join("a/blocks")).unwrap());
        let node = fs::metadata(&one).unwrap();
        assert_eq!((node.uid(), node.gid(), node.mode() & 0o777), (0, 0, 0o640));
        assert_ne!(
            run_within(tool(tool_of).arg("clone").arg(&source).arg(&kept), PATIENCE).code,
            0,
            "it is there"
        );
        // What a link leads to, and nothing below itself.
        let led = root.join("led");
        works(tool(tool_of).arg("clone").arg(source.join("soft")).arg(&led));
        assert!(fs::symlink_metadata(&led).unwrap().is_file());
        fs::remove_file(&led).unwrap();
        assert_ne!(
            run_within(tool(tool_of).arg("clone").arg(&source).arg(source.join("a/x")), PATIENCE).code,
            0
        );
        // Past the trash, and with it.
        let gone = root.join("gone");
        works(tool(tool_of).arg("clone").arg(&source).arg(&gone));
        works(tool(tool_of).args(["rmr", "--skip-trash"]).arg(&gone));
        assert!(!gone.exists());
        works(tool(tool_of).arg("clone").arg(&source).arg(&gone));
        works(tool(tool_of).arg("rmr").arg(&gone).arg(&one));
        assert!(!gone.exists() && !one.exists());
    }
}

/// Our commands on our mount and on the official client's, and the official client's on both; each sees what the other one made.
fn both_tools_work_on_both_mounts(engine: Engine) {
    let official = Official::locate().unwrap();
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let ours = volume.mount(&[]);
    fs::create_dir(ours.join("source")).unwrap();
    fill(&ours.join("source"));
    clone_with_both(ours.path(), "on-ours", &official);
    fs::create_dir(ours.join("within")).unwrap();
    let said = works(program().args(["clone", "--json"]).arg(ours.join("source")).arg(ours.join("within/")));
    assert_eq!(said.stdout.trim(), r#"{"Cloned":157}"#, "in a directory that is there");
    ours.unmount();
    // What the official client has made is ours to read, and the other way round; its mount takes commands of both, too.
    let theirs = official.mount(&volume.meta, &volume.new_path(), &["--enable-xattr"]).unwrap();
    let want = Tree::read(&theirs.path().join("source")).without_inodes();
    for name in ["on-ours-ours", "on-ours-theirs"] {
        assert_same("made on our mount", &want, &Tree::read(&theirs.path().join(name)).without_inodes());
    }
    clone_with_both(theirs.path(), "on-theirs", &official);
    // Its statistics follow every second.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    theirs.unmount().unwrap();
    let ours = volume.mount(&[]);
    for name in ["on-theirs-ours", "on-theirs-theirs"] {
        assert_same("made on its mount", &want, &Tree::read(&ours.join(name)).without_inodes());
    }
    // All but one go, and nothing of that one.
    fs::remove_dir_all(ours.join("source")).unwrap();
    for name in ["on-ours-theirs", "on-theirs-ours", "on-theirs-theirs", "within"] {
        works(program().arg("rmr").arg(ours.join(name)));
    }
    assert_same("the last one", &want, &Tree::read(&ours.join("on-ours-ours")).without_inodes());
    ours.unmount();
    volume.repair_statistics(&official);
    // It may have ended before the data of all that it removed was gone.
    volume.check_but_for_pending();
}

/// Users clone what they may read, and remove what they may remove; what cannot be done is said.
fn others_than_root(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    fs::create_dir(mount.join("source")).unwrap();
    fill(&mount.join("source"));
    fs::create_dir(mount.join("home")).unwrap();
    chown(mount.join("home"), Some(1000), Some(1000)).unwrap();
    let as_user = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=1000", "--regid=1000", "--clear-groups"]).arg(program().get_program());
        command
    };
    let (source, copy) = (mount.join("source"), mount.join("home/copy"));
    fs::set_permissions(source.join("a/b"), Permissions::from_mode(0o755)).unwrap();
    chown(source.join("a/blocks"), Some(1001), Some(1001)).unwrap();
    refused(as_user().arg("clone").arg(&source).arg(&copy), "Permission denied");
    assert!(!copy.exists());
    chown(source.join("a/blocks"), Some(1000), Some(1001)).unwrap();
    works(as_user().arg("clone").arg(&source).arg(&copy));
    let node = fs::metadata(copy.join("a/b/7")).unwrap();
    assert_eq!((node.uid(), node.gid()), (1000, 1000));
    refused(as_user().arg("rmr").arg(&source), "Permission denied");
    refused(as_user().args(["rmr", "--skip-trash"]).arg(&copy), "only root");
    works(as_user().arg("rmr").arg(&copy));
    assert!(!copy.exists());
    refused(program().arg("clone").arg(&source).arg(&source), "is there already");
    refused(program().arg("clone").arg(&source).arg(volume.dir.path().join("x")), "not on the same mount");
    let plain = volume.dir.path().join("plain");
    fs::write(&plain, b"elsewhere").unwrap();
    refused(program().arg("clone").arg(&plain).arg(volume.dir.path().join("x")), "not on a mounted volume");
    refused(program().arg("rmr").arg(mount.path()), "is a mount point");
    refused(program().arg("rmr").arg(volume.dir.path()), "not on a mounted volume");
    mount.unmount();
    volume.check();
}

/// A clock of the day before yesterday.
struct Slow;

impl Clock for Slow {
    fn now(&self) -> Time {
        let now = SystemClock.now();
        Time { sec: now.sec - 2 * 86_400, ..now }
    }
}

/// Begins a clone, and stops amid it without a word.
fn begin_clone(address: &str, name: &[u8]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = Opening { address: address.as_ref(), password: None };
        let store = engine.open(Purpose::Change).await.unwrap();
        let cfg = MetaConfig { no_bgjob: true, ..MetaConfig::default() };
        let meta = Meta::load_with_clock(store, cfg, Arc::new(Slow)).await.unwrap();
        let (root, progress) = (Caller::root(), Arc::<CloneProgress>::default());
        let (from, _) = meta.lookup(&root, Ino::ROOT, name).await.unwrap();
        let how = CloneOptions { preserve: true, umask: 0, at_once: 1, without_xattrs: None };
        let mut work = Box::pin(meta.clone_tree(&root, from, Ino::ROOT, b"never", &how, &progress));
        let stopped = std::future::poll_fn(|cx| {
            if progress.done.load(Ordering::Relaxed) > 100 {
                return Poll::Ready(true);
            }
            work.as_mut().poll(cx).map(|_| false)
        });
        assert!(stopped.await, "the clone was completed");
        // What it does when it is dropped is not done either.
        std::mem::forget(work);
    });
    runtime.shutdown_background();
}

/// A clone that nobody completes, as one that was killed leaves it, is removed by the official client's `gc`, which gives back its slices.
fn official_cleans_up_what_was_abandoned(engine: Engine) {
    let official = Official::locate().unwrap();
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    fs::create_dir(mount.join("source")).unwrap();
    fill(&mount.join("source"));
    let want = Tree::read(&mount.join("source"));
    mount.unmount();
    let used = volume.used();
    begin_clone(&volume.meta, b"source");
    assert_ne!(volume.used(), used);
    official.gc(&volume.meta, &["--delete"]).unwrap();
    assert_eq!(volume.used(), used);
    let mount = volume.mount(&[]);
    assert_same("the source", &want, &Tree::read(&mount.join("source")));
    mount.unmount();
    volume.repair_statistics(&official);
    volume.check();
}
