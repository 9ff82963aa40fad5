//! Operations on ranges of files, nameless files, durable writes: beside a local file system and the official client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use ciderfs_testkit::official::Official;
use support::client::{PATIENCE, run_within, sh, wait_for};
use support::{Engine, Volume, noise};

/// What the scripts share: calls that say which error they met.
const PRELUDE: &str = include_str!("data_ops/prelude.py");

on_engines!(
    ranges_behave_as_in_a_local_file,
    special_bits_go_when_the_content_changes,
    a_copy_by_cp_stores_nothing,
    what_was_synced_survives_the_client,
    the_greatest_file,
    a_descriptor_that_becomes_direct_and_back_while_it_is_written_to,
    a_full_volume_refuses_the_write,
    what_eight_writers_of_a_full_volume_were_promised_arrives,
    both_clients_punch_and_copy,
    copies_while_the_official_client_compacts,
);

/// Runs a script in a directory; what it printed.
#[track_caller]
fn python(dir: &Path, script: &str, args: &[&str]) -> String {
    let script = format!("{PRELUDE}\n{script}");
    let mut command = Command::new("python3");
    command.args(["-c", &script]).args(args).current_dir(dir);
    let ran = run_within(&mut command, PATIENCE);
    assert_eq!(ran.code, 0, "in {}:\n{}{}", dir.display(), ran.stdout, ran.stderr);
    ran.stdout
}

/// Runs a script on the mount and in a directory beside it; both must say the same.
#[track_caller]
fn compare(volume: &Volume, mount: &Path, script: &str, args: &[&str]) {
    let local = tempfile::tempdir_in(volume.dir.path()).unwrap();
    sh(volume.dir.path(), &format!("chmod 777 {} {}", local.path().display(), mount.display()));
    let expected = python(local.path(), script, args);
    let found = python(mount, script, args);
    assert!(expected.lines().count() > 5, "{expected}");
    for (e, f) in expected.lines().zip(found.lines()) {
        assert_eq!(f, e, "mount, local file system");
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

/// Objects of the volume.
fn objects(volume: &Volume) -> usize {
    sh(volume.dir.path(), "find objects -type f | wc -l").trim().parse().unwrap()
}

fn ranges_behave_as_in_a_local_file(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    for script in [
        include_str!("data_ops/allocate.py"),
        include_str!("data_ops/seek.py"),
        include_str!("data_ops/copy.py"),
        include_str!("data_ops/nameless.py"),
        include_str!("data_ops/direct.py"),
    ] {
        compare(&volume, mount.path(), script, &[]);
    }
    sh(mount.path(), "rm -rf *");
    wait_for("everything to be gone", || volume.used() == (0, 0));
    mount.unmount();
    volume.check();
    assert_eq!(objects(&volume), 1, "only the volume's own mark is left");
}

fn special_bits_go_when_the_content_changes(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    for uid in ["1000", "0"] {
        compare(&volume, mount.path(), include_str!("data_ops/special_bits.py"), &[uid]);
    }
    mount.unmount();
}

fn a_copy_by_cp_stores_nothing(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let data = noise(1, (70 << 20) + 12_345);
    fs::write(mount.join("big"), &data).unwrap();
    sh(mount.path(), "printf x > sparse; truncate -s 200M sparse; printf y >> sparse");
    let stored = objects(&volume);
    sh(mount.path(), "cp big copy; cp --reflink=auto big auto; cp copy again; mv again moved");
    assert_eq!(objects(&volume), stored, "objects of the copies");
    // Of sparse files this cp copies the data by hand, in blocks.
    sh(mount.path(), "cp sparse thin");
    // The kernel offers no FUSE file system to clone.
    let mut clone = Command::new("cp");
    clone.args(["--reflink=always", "big", "clone"]).current_dir(mount.path());
    let ran = run_within(&mut clone, PATIENCE);
    assert!(ran.code != 0 && ran.stderr.contains("Operation not supported"), "{}", ran.stderr);
    sh(mount.path(), "rm big copy clone; rm -f again");
    for name in ["auto", "moved"] {
        assert!(fs::read(mount.join(name)).unwrap() == data, "{name}");
    }
    assert_eq!(
        sh(mount.path(), "cmp sparse thin && stat -c %b,%s sparse thin"),
        "9,209715201\n9,209715201\n"
    );
    sh(mount.path(), "rm auto");
    mount.unmount();
    let mount = volume.mount(&[]);
    assert!(fs::read(mount.join("moved")).unwrap() == data);
    mount.unmount();
    volume.check();
    let mount = volume.mount(&[]);
    sh(mount.path(), "rm moved sparse thin");
    wait_for("the objects to be gone", || objects(&volume) == 1);
    mount.unmount();
    volume.check();
}

fn what_was_synced_survives_the_client(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&["--heartbeat=1"]);
    let script = format!("{PRELUDE}\n{}", include_str!("data_ops/synced.py"));
    let mut child = Command::new("python3")
        .args(["-c", &script])
        .current_dir(mount.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "synced\n");
    mount.kill();
    // It holds files of the dead mount.
    drop(child.stdin.take());
    child.wait().unwrap();
    let mount = volume.mount(&["--heartbeat=1"]);
    let content = |name: &str| fs::read(mount.join(name)).unwrap();
    assert_eq!(content("sync"), b"first second");
    assert_eq!(content("dsync"), b"data");
    assert!(content("direct").iter().all(|b| *b == b'd') && content("direct").len() == 8192);
    assert_eq!(&content("mapped")[4090..4100], b"\0\0\0\0\0\0page");
    assert_eq!(content("fsynced"), b"copied");
    // The nameless file goes with its session.
    wait_for("the nameless file's space to be free", || volume.used().1 == 6);
    mount.unmount();
    volume.check();
}

fn a_descriptor_that_becomes_direct_and_back_while_it_is_written_to(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    assert_eq!(python(mount.path(), include_str!("data_ops/toggled.py"), &[]), "done\n");
    mount.unmount();
    volume.check();
}

fn the_greatest_file(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let said = python(mount.path(), include_str!("data_ops/greatest.py"), &[]);
    assert_eq!(said, "done\n");
    mount.unmount();
    let mount = volume.mount(&[]);
    assert_eq!(
        sh(mount.path(), "stat -c %s,%b greatest; tail -c 4 greatest | od -An -c"),
        "144115188075855871,8\n  \\0   e   n   d\n"
    );
    sh(mount.path(), "rm greatest twin");
    wait_for("the objects to be gone", || objects(&volume) == 1);
    mount.unmount();
    volume.check();
}

fn a_full_volume_refuses_the_write(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0", "--capacity=1"]);
    let mount = volume.mount(&[]);
    let said = python(mount.path(), include_str!("data_ops/full.py"), &[]);
    assert_eq!(said, "done\n");
    mount.unmount();
    volume.check();
}

fn what_eight_writers_of_a_full_volume_were_promised_arrives(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0", "--capacity=16M"]);
    let mount = volume.mount(&[]);
    let said = python(mount.path(), include_str!("data_ops/full_writers.py"), &[]);
    assert_eq!(said, "done\n");
    mount.unmount();
    volume.check();
}

fn official() -> Official {
    Official::locate().unwrap_or_else(|e| panic!("{e:#}"))
}

/// Each client works on files of its own and on those of the other; both see the same, and leave nothing behind.
fn both_clients_punch_and_copy(engine: Engine) {
    let official = official();
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let script = include_str!("data_ops/both.py");
    let ours = volume.mount(&[]);
    let made = python(ours.path(), script, &["make", "ours"]);
    let seen = python(ours.path(), script, &["look", ""]);
    ours.unmount();
    let theirs = official.mount(&volume.meta, &volume.new_path(), &[]).unwrap();
    assert_eq!(python(theirs.path(), script, &["look", ""]), seen, "made by us");
    assert_eq!(python(theirs.path(), script, &["make", "theirs"]), made, "what both clients answer");
    python(theirs.path(), script, &["alter", "ours"]);
    let seen = python(theirs.path(), script, &["look", ""]);
    // It writes the statistics of directories every second.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    theirs.unmount().unwrap();
    let ours = volume.mount(&[]);
    assert_eq!(python(ours.path(), script, &["look", ""]), seen, "made and altered by the official client");
    python(ours.path(), script, &["alter", "theirs"]);
    ours.unmount();
    let _ = official.fsck(&volume.meta, &["--path", "/", "--recursive", "--sync-dir-stat", "--repair"]);
    volume.check();
    let ours = volume.mount(&[]);
    sh(ours.path(), "rm -rf *");
    wait_for("the objects to be gone", || objects(&volume) == 1);
    ours.unmount();
    volume.check();
}

/// Copies of a file that the official client compacts all the time, its old slices deleted at once.
fn copies_while_the_official_client_compacts(engine: Engine) {
    const COPIES: usize = 12;
    let official = official();
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let ours = volume.mount(&[]);
    let theirs = official.mount(&volume.meta, &volume.new_path(), &[]).unwrap();
    let mut want = noise(1, 3 << 20);
    fs::write(ours.join("f"), &want).unwrap();
    let compacted = theirs.path().join("f").display().to_string();
    let stop = &std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let compactor = scope.spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Acquire) {
                let _ = official.run(["compact", &compacted]);
            }
        });
        for n in 0..COPIES {
            let mut file = fs::OpenOptions::new().append(true).open(ours.join("f")).unwrap();
            for i in 0..5 {
                let more = noise((n * 5 + i) as u64, 10_000);
                file.write_all(&more).unwrap();
                file.sync_all().unwrap();
                want.extend(more);
            }
            sh(ours.path(), &format!("cp f copy{n}"));
            assert!(fs::read(ours.join(format!("copy{n}"))).unwrap() == want, "copy {n}");
        }
        stop.store(true, std::sync::atomic::Ordering::Release);
        compactor.join().unwrap();
    });
    std::thread::sleep(std::time::Duration::from_millis(1500));
    theirs.unmount().unwrap();
    sh(ours.path(), "rm f copy0");
    ours.unmount();
    let ours = volume.mount(&[]);
    let last = fs::read(ours.join(format!("copy{}", COPIES - 1))).unwrap();
    assert!(last == want);
    for n in 1..COPIES {
        let copy = fs::read(ours.join(format!("copy{n}"))).unwrap();
        assert!(copy == want[..copy.len()] && copy.len() == (3 << 20) + (n + 1) * 50_000, "copy {n}");
    }
    ours.unmount();
    volume.check();
}
