//! What programs expect of files and directories, on real mounts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use support::client::{sh, wait_for};
use support::tree::Tree;
use support::{Engine, Volume, assert_same, noise};

const MIB: usize = 1 << 20;

on_engines!(
    files_and_directories_survive_a_remount,
    hard_links_share_an_inode,
    an_unlinked_file_lives_until_it_is_closed,
    holes_read_as_zeros_far_beyond_four_gibibytes,
    a_file_over_several_chunks_is_overwritten_across_them,
    processes_append_without_losing_a_line,
    shared_mappings_reach_the_file,
    random_writes_and_truncations_match_a_local_file,
    a_listing_of_ten_thousand_entries_under_change,
    a_listing_that_goes_on_takes_nothing_back,
    permissions_hold_for_other_users,
    renames_replace_and_refuse,
    a_running_program_cannot_be_emptied,
);

fn files_and_directories_survive_a_remount(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    let at = |name: &str| mount.join(name);
    fs::create_dir_all(at("a/b/c")).unwrap();
    fs::write(at("a/small"), b"hello").unwrap();
    fs::write(at("a/b/empty"), b"").unwrap();
    fs::write(at("a/b/c/big"), noise(1, 9 * MIB + 17)).unwrap();
    symlink("../small", at("a/b/link")).unwrap();
    symlink("nowhere/at/all", at("dangling")).unwrap();
    fs::write(at("N\u{e4}me mit \u{201e}Zeichen\u{201c}\n"), b"x").unwrap();
    fs::write(at(&"n".repeat(255)), b"longest").unwrap();
    assert_eq!(fs::write(at(&"n".repeat(256)), b"").unwrap_err().raw_os_error(), Some(36));
    fs::set_permissions(at("a/small"), Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::chown(at("a/b/empty"), Some(1234), Some(4321)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    File::open(at("a/small")).unwrap().set_modified(time).unwrap();
    sh(mount.path(), "mkfifo fifo; mknod null c 1 3; mknod disk b 7 9");
    assert_eq!(fs::read(at("a/b/link")).unwrap(), b"hello");
    assert_eq!(fs::metadata(at("dangling")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::remove_dir(at("a")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    assert_eq!(fs::metadata(at("a")).unwrap().nlink(), 3);
    let before = Tree::read(mount.path());
    mount.unmount();
    let mount = volume.mount(&[]);
    assert_same("after a remount", &before, &Tree::read(mount.path()));
    sh(mount.path(), "rm -r a dangling fifo disk N* n*");
    assert_eq!(Tree::read(mount.path()).0.len(), 1);
    mount.unmount();
    volume.check();
}

fn hard_links_share_an_inode(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let at = |name: &str| mount.join(name);
    fs::write(at("one"), b"1").unwrap();
    fs::create_dir(at("d")).unwrap();
    fs::hard_link(at("one"), at("d/two")).unwrap();
    fs::hard_link(at("d/two"), at("three")).unwrap();
    fs::write(at("three"), b"changed").unwrap();
    let (a, b) = (fs::metadata(at("one")).unwrap(), fs::metadata(at("d/two")).unwrap());
    assert_eq!((a.ino(), a.nlink(), a.len()), (b.ino(), 3, 7));
    assert_eq!(fs::read(at("d/two")).unwrap(), b"changed");
    assert_eq!(fs::hard_link(at("d"), at("dir")).unwrap_err().kind(), ErrorKind::PermissionDenied);
    fs::remove_file(at("one")).unwrap();
    fs::rename(at("three"), at("d/two")).unwrap();
    assert!(at("three").exists(), "renaming a link over another link of the same file does nothing");
    fs::remove_file(at("three")).unwrap();
    assert_eq!(fs::metadata(at("d/two")).unwrap().nlink(), 1);
    assert_eq!(fs::read(at("d/two")).unwrap(), b"changed");
    mount.unmount();
    volume.check();
}

fn an_unlinked_file_lives_until_it_is_closed(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let data = noise(2, 5 * MIB);
    let mut open = OpenOptions::new().read(true).write(true).create_new(true).open(mount.join("f")).unwrap();
    open.write_all(&data).unwrap();
    open.sync_all().unwrap();
    fs::remove_file(mount.join("f")).unwrap();
    assert!(!mount.join("f").exists());
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    open.write_all_at(b"still here", data.len() as u64).unwrap();
    open.sync_all().unwrap();
    let mut all = Vec::new();
    open.seek(SeekFrom::Start(0)).unwrap();
    open.read_to_end(&mut all).unwrap();
    assert!(all[..data.len()] == data && &all[data.len()..] == b"still here");
    // Replaced by a rename, it lives on as well.
    fs::write(mount.join("old"), b"old").unwrap();
    let old = File::open(mount.join("old")).unwrap();
    fs::write(mount.join("new"), b"new").unwrap();
    fs::rename(mount.join("new"), mount.join("old")).unwrap();
    let mut text = [0; 3];
    old.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(&text, b"old");
    drop((open, old));
    wait_for("the data to be freed", || volume.used() == (4096, 1));
    mount.unmount();
    volume.check();
}

fn holes_read_as_zeros_far_beyond_four_gibibytes(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(mount.join("sparse")).unwrap();
    let far = (5 << 30) + 12_345;
    file.write_all_at(b"far", far).unwrap();
    file.write_all_at(b"near", 4096).unwrap();
    file.set_len(far + 100).unwrap();
    drop(file);
    mount.unmount();
    let mount = volume.mount(&[]);
    let file = File::open(mount.join("sparse")).unwrap();
    assert_eq!(file.metadata().unwrap().len(), far + 100);
    let mut buffer = vec![1; 8192];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert!(buffer[..4096].iter().all(|b| *b == 0) && &buffer[4096..4100] == b"near");
    assert!(buffer[4100..].iter().all(|b| *b == 0));
    let mut tail = Vec::new();
    let mut reader = file;
    reader.seek(SeekFrom::Start(far - 50)).unwrap();
    reader.read_to_end(&mut tail).unwrap();
    drop(reader);
    assert_eq!(tail.len(), 150);
    assert!(&tail[50..53] == b"far" && tail[..50].iter().chain(&tail[53..]).all(|b| *b == 0));
    // Cutting and growing again leaves no old bytes behind.
    let file = OpenOptions::new().write(true).open(mount.join("sparse")).unwrap();
    file.set_len(4098).unwrap();
    file.set_len(10_000).unwrap();
    let bytes = fs::read(mount.join("sparse")).unwrap();
    assert!(bytes.len() == 10_000 && &bytes[4096..4100] == b"ne\0\0");
    drop(file);
    mount.unmount();
    volume.check();
}

fn a_file_over_several_chunks_is_overwritten_across_them(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    let mut expected = noise(3, 67 * MIB);
    fs::write(mount.join("big"), &expected).unwrap();
    let patch = noise(4, 3 * MIB + 5);
    let file = OpenOptions::new().write(true).open(mount.join("big")).unwrap();
    for at in [62 * MIB + 99, MIB - 1, 64 * MIB - 1] {
        let n = patch.len().min(expected.len() - at);
        file.write_all_at(&patch[..n], at as u64).unwrap();
        expected[at..at + n].copy_from_slice(&patch[..n]);
    }
    file.sync_all().unwrap();
    assert!(fs::read(mount.join("big")).unwrap() == expected);
    drop(file);
    mount.unmount();
    let mount = volume.mount(&[]);
    assert!(fs::read(mount.join("big")).unwrap() == expected, "after a remount");
    mount.unmount();
    volume.check();
}

fn processes_append_without_losing_a_line(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    let script = "for i in $(seq 200); do echo \"$0 line $i\"; done >> log";
    let children: Vec<_> = (0..4)
        .map(|n| {
            Command::new("sh")
                .args(["-ec", script, &n.to_string()])
                .current_dir(mount.path())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let text = fs::read_to_string(mount.join("log")).unwrap();
    let lines: BTreeSet<&str> = text.lines().collect();
    assert_eq!((text.lines().count(), lines.len()), (800, 800));
    mount.unmount();
    volume.check();
}

fn shared_mappings_reach_the_file(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    let script = r#"
import mmap, os
fd = os.open("mapped", os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20)
m[5:10] = b"hello"
m[(1 << 20) - 3:] = b"end"
m.flush()
assert os.pread(fd, 5, 5) == b"hello"
os.pwrite(fd, b"J", 5)
assert m[5:10] == b"Jello", m[5:10]
m[100:104] = b"late"
m.close()
os.close(fd)
"#;
    let status = Command::new("python3").args(["-c", script]).current_dir(mount.path()).status().unwrap();
    assert!(status.success());
    mount.unmount();
    let mount = volume.mount(&[]);
    let bytes = fs::read(mount.join("mapped")).unwrap();
    assert_eq!(
        (&bytes[5..10], &bytes[100..104], &bytes[MIB - 3..]),
        (&b"Jello"[..], &b"late"[..], &b"end"[..])
    );
    mount.unmount();
    volume.check();
}

fn random_writes_and_truncations_match_a_local_file(engine: Engine) {
    let volume = Volume::new(engine, &["--block-size=64K", "--trash-days=0"]);
    let mut mount = volume.mount(&[]);
    let mut expected: Vec<u8> = Vec::new();
    let mut x = 0x1234_5678_9abc_def1_u64;
    let mut random = |below: u64| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x % below
    };
    let open = |mount: &support::Mount| {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(mount.join("f")).unwrap()
    };
    let mut file = open(&mount);
    for step in 0..600_u64 {
        match random(20) {
            0..=9 => {
                let (at, len) = (random(900_000) as usize, 1 + random(150_000) as usize);
                let data = noise(step + 10, len);
                file.write_all_at(&data, at as u64).unwrap();
                if expected.len() < at + len {
                    expected.resize(at + len, 0);
                }
                expected[at..at + len].copy_from_slice(&data);
            }
            10..=14 => {
                let (at, len) = (random(1_000_000) as usize, random(200_000) as usize);
                let mut got = vec![0; len];
                let n = file.read_at(&mut got, at as u64).unwrap();
                let want = &expected[at.min(expected.len())..(at + len).min(expected.len())];
                assert!(got[..n] == *want, "step {step}: {n} bytes at {at}, expected {}", want.len());
            }
            15 | 16 => {
                let len = random(1_000_000) as usize;
                file.set_len(len as u64).unwrap();
                expected.resize(len, 0);
            }
            17 => file.sync_all().unwrap(),
            18 => file = open(&mount),
            _ => assert_eq!(file.metadata().unwrap().len(), expected.len() as u64, "step {step}"),
        }
        if step % 200 == 199 {
            drop(file);
            mount.unmount();
            mount = volume.mount(&[]);
            assert!(fs::read(mount.join("f")).unwrap() == expected, "after a remount at step {step}");
            file = open(&mount);
        }
    }
    drop(file);
    mount.unmount();
    volume.check();
}

/// A listing gives attributes along with the names. What it has fetched before a change must not arrive after it: a mapping would
/// lose what lies behind the old length.
fn a_listing_that_goes_on_takes_nothing_back(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    let script = r#"
import mmap, os, time
os.mkdir("d")
for n in range(600):
    with open("d/f%04d" % n, "wb") as f:
        f.write(b"0123456789")
order = [e.name for e in os.scandir("d")]
def begin():
    time.sleep(1.1)  # until the kernel's own copies are too old
    listing = os.scandir("d")
    os.stat(next(listing).path)
    return listing
def same(path, what, deed):
    listing = begin()
    deed(path)
    before = os.stat(path)
    list(listing)
    after = os.stat(path)
    assert before == after, (what, before, after)
same("d/" + order[-2], "mode", lambda p: os.chmod(p, 0o600))
same("d/" + order[-5], "length", lambda p: os.truncate(p, 5000))
same("d/" + order[-9], "times", lambda p: os.utime(p, (1, 1)))
same("d/" + order[-13], "owner", lambda p: os.chown(p, 5, 5))
same("d/" + order[-17], "links", lambda p: os.link(p, "elsewhere"))
same("d/" + order[-21], "ctime", lambda p: os.setxattr(p, "user.x", b"y"))
same("d/" + order[-25], "written", lambda p: open(p, "wb").write(b"longer than before"))

path = "d/" + order[-40]
listing = begin()
os.truncate(path, 1 << 20)
fd = os.open(path, os.O_RDWR)
m = mmap.mmap(fd, 1 << 20)
m[500000:500005] = b"bytes"
list(listing)
assert m[500000:500005] == b"bytes", m[500000:500005]
m.flush()
m.close()
assert os.pread(fd, 5, 500000) == b"bytes"
os.close(fd)
assert os.stat(path).st_size == 1 << 20
"#;
    let status = Command::new("python3").args(["-c", script]).current_dir(mount.path()).status().unwrap();
    assert!(status.success());
    mount.unmount();
    volume.check();
}

fn a_listing_of_ten_thousand_entries_under_change(engine: Engine) {
    const ENTRIES: usize = 10_000;
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let dir = mount.join("d");
    fs::create_dir(&dir).unwrap();
    let dir: &Path = &dir;
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for i in (part..ENTRIES).step_by(4) {
                    File::create(dir.join(format!("stay{i:05}"))).unwrap();
                }
            });
        }
    });
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                let path = dir.join(format!("come-and-go{i}"));
                File::create(&path).unwrap();
                fs::remove_file(&path).unwrap();
            }
        });
        for _ in 0..3 {
            let mut seen: BTreeMap<String, u32> = BTreeMap::new();
            for entry in fs::read_dir(dir).unwrap() {
                *seen.entry(entry.unwrap().file_name().into_string().unwrap()).or_default() += 1;
            }
            let twice: Vec<_> = seen.iter().filter(|(_, n)| **n > 1).collect();
            assert!(twice.is_empty(), "listed twice: {twice:?}");
            let stayed = seen.keys().filter(|n| n.starts_with("stay")).count();
            assert_eq!(stayed, ENTRIES, "entries that were there all the time");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    fs::remove_dir_all(dir).unwrap();
    assert_eq!(
        fs::read_dir(mount.path()).unwrap().filter(|e| e.as_ref().unwrap().file_name() == "d").count(),
        0
    );
    mount.unmount();
    volume.check();
}

fn permissions_hold_for_other_users(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    let root = |script: &str| sh(mount.path(), script);
    let user = |script: &str| {
        let out = Command::new("sh")
            .args(["-ec", script])
            .current_dir(mount.path())
            .uid(12_345)
            .gid(12_345)
            .output();
        out.unwrap().status.success()
    };
    root(
        "mkdir -m 755 d; echo x > d/f; chmod 600 d/f; mkdir -m 777 open; mkdir -m 1777 sticky; echo r > sticky/r",
    );
    assert!(!user("cat d/f") && !user("echo x > d/new") && !user("rm -f d/f") && !user("chmod 666 d/f"));
    assert!(user("echo mine > open/mine && cat open/mine && mv open/mine open/yours && rm open/yours"));
    assert!(!user("rm -f sticky/r") && user("echo m > sticky/m && rm sticky/m"));
    root("chgrp 12345 d/f; chmod 640 d/f");
    assert!(user("cat d/f") && !user("echo x >> d/f"));
    root("mkdir -m 711 passage; echo p > passage/p; chmod 644 passage/p");
    assert!(user("cat passage/p") && !user("ls passage"));
    // Writing takes the set-user-ID bit away; the set-group-ID bit of a directory passes its group on.
    root(
        "echo s > open/s; chown 12345:12345 open/s; chmod 6755 open/s; mkdir open/g; chgrp 77 open/g; chmod 2777 open/g",
    );
    assert!(user("echo more >> open/s && touch open/g/f && mkdir open/g/d"));
    assert_eq!(fs::metadata(mount.join("open/s")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(root("stat -c %g:%a open/g/f open/g/d"), "77:644\n77:2755\n");
    mount.unmount();
    volume.check();
}

fn renames_replace_and_refuse(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let at = |name: &str| mount.join(name);
    for dir in ["a", "a/b", "empty", "full"] {
        fs::create_dir(at(dir)).unwrap();
    }
    for file in ["f", "g", "full/x"] {
        fs::write(at(file), file).unwrap();
    }
    let errno = |from: &str, to: &str| fs::rename(at(from), at(to)).err().and_then(|e| e.raw_os_error());
    assert_eq!(errno("a", "a/b/c"), Some(22), "into itself");
    assert_eq!(errno("a", "full"), Some(39), "over a directory with entries");
    assert_eq!(errno("a", "f"), Some(20), "a directory over a file");
    assert_eq!(errno("f", "empty"), Some(21), "a file over a directory");
    assert_eq!(errno("none", "f"), Some(2));
    assert_eq!((errno("a", "empty"), errno("f", "g"), errno("g", "empty/b/g")), (None, None, None));
    assert_eq!(fs::read(at("empty/b/g")).unwrap(), b"f");
    assert_eq!(
        (fs::metadata(at("empty")).unwrap().nlink(), fs::metadata(mount.path()).unwrap().nlink()),
        (3, 4)
    );
    mount.unmount();
    volume.check();
}

fn a_running_program_cannot_be_emptied(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    let program = mount.join("program");
    fs::copy("/bin/sleep", &program).unwrap();
    let content = fs::read("/bin/sleep").unwrap();
    let truncate = || OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(&program);
    let mut running = Command::new(&program).arg("60").spawn().unwrap();
    assert_eq!(truncate().unwrap_err().raw_os_error(), Some(libc::ETXTBSY));
    let other = volume.mount(&[]);
    assert!(fs::read(other.join("program")).unwrap() == content);
    running.kill().unwrap();
    running.wait().unwrap();
    let emptied = truncate().unwrap();
    assert_eq!(emptied.metadata().unwrap().len(), 0);
    drop(emptied);
    assert_eq!(fs::read(other.join("program")).unwrap(), b"");
    other.unmount();
    mount.unmount();
    volume.check();
}
