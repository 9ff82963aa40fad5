//! Flags and times of inodes through the mount: `chattr`, access times, times far away, what `stat` tells.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ciderfs_testkit::official::Official;
use rustix::fs::{AtFlags, CWD, StatxFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, statx, utimensat};
use support::client::sh;
use support::{Engine, Volume};

on_engines!(
    immutable_and_append_only_forbid_what_ext4_forbids,
    flags_are_shared_with_the_official_client,
    access_times_follow_the_mode,
    times_are_exact_and_survive_a_remount,
);

/// Calls as root and their outcome on ext4: a flag on `f` or on the directory `d`, the call, `ok` or the errno.
const SCRIPT: &str = r#"
import errno, fcntl, os, subprocess, sys
def flag(path, change): subprocess.run(['chattr', change, path], check=True)
def attempt(what, call):
    try:
        r = call()
        if isinstance(r, int) and r > 2 and what.startswith('open'): os.close(r)
        print(what, 'ok')
    except OSError as e:
        print(what, errno.errorcode[e.errno])
def check(change):
    os.makedirs('d/sub'); os.mkdir('e')
    for name in ('d/f', 'e/g'): open(name, 'w').write('content')
    w = os.open('d/f', os.O_RDWR); a = os.open('d/f', os.O_WRONLY | os.O_APPEND)
    print('---', change, 'on a file'); flag('d/f', '+' + change)
    print(subprocess.run(['lsattr', 'd/f'], capture_output=True, text=True).stdout.replace('e', '-'))
    attempt('open r', lambda: os.open('d/f', os.O_RDONLY))
    attempt('open w', lambda: os.open('d/f', os.O_WRONLY))
    attempt('open a', lambda: os.open('d/f', os.O_WRONLY | os.O_APPEND))
    attempt('open rt', lambda: os.open('d/f', os.O_RDONLY | os.O_TRUNC))
    attempt('open at', lambda: os.open('d/f', os.O_WRONLY | os.O_APPEND | os.O_TRUNC))
    if change == 'i':
        attempt('write', lambda: os.write(w, b'x'))
        attempt('append', lambda: os.write(a, b'x'))
    attempt('truncate', lambda: os.truncate('d/f', 3))
    attempt('ftruncate', lambda: os.ftruncate(w, 3))
    attempt('chmod', lambda: os.chmod('d/f', 0o600))
    attempt('fchmod', lambda: os.fchmod(w, 0o600))
    attempt('chown', lambda: os.chown('d/f', 1, 1))
    attempt('touch', lambda: os.utime('d/f'))
    attempt('utimes', lambda: os.utime('d/f', (1, 1)))
    attempt('setxattr', lambda: os.setxattr('d/f', 'user.a', b'1'))
    attempt('link', lambda: os.link('d/f', 'e/l'))
    attempt('rename', lambda: os.rename('d/f', 'e/l'))
    attempt('over it', lambda: os.rename('e/g', 'd/f'))
    attempt('unlink', lambda: os.unlink('d/f'))
    attempt('fallocate', lambda: os.posix_fallocate(w, 0, 100))
    os.close(w); os.close(a)
    flag('d/f', '-' + change)
    attempt('write after', lambda: open('d/f', 'a').write('x'))
    print('---', change, 'on a directory'); flag('d', '+' + change)
    attempt('create', lambda: open('d/new', 'w').close())
    attempt('open there', lambda: os.open('d/f', os.O_WRONLY))
    attempt('mkdir', lambda: os.mkdir('d/newdir'))
    attempt('symlink', lambda: os.symlink('x', 'd/newlink'))
    attempt('link into', lambda: os.link('e/g', 'd/l'))
    attempt('rename into', lambda: os.rename('e/g', 'd/g'))
    attempt('rename in it', lambda: os.rename('d/f', 'd/f2'))
    attempt('unlink', lambda: os.unlink('d/f'))
    attempt('rmdir in it', lambda: os.rmdir('d/sub'))
    attempt('rmdir it', lambda: os.rmdir('d'))
    attempt('move it', lambda: os.rename('d', 'e/d'))
    attempt('chmod in it', lambda: os.chmod('d/f', 0o640))
    attempt('chmod it', lambda: os.chmod('d', 0o700))
    attempt('touch it', lambda: os.utime('d'))
    attempt('write in it', lambda: open('d/f', 'w').write('y'))
    flag('d', '-' + change)
    subprocess.run(['rm', '-r', 'd', 'e'], check=True)
for change in ('i', 'a'): check(change)
"#;

/// What the script says on ext4 (Linux 6.18); other file systems of the machine may know no flags.
const EXT4: &str = include_str!("support/flags-ext4.txt");

fn immutable_and_append_only_forbid_what_ext4_forbids(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    assert_eq!(sh(mount.path(), &format!("python3 - <<'E'\n{SCRIPT}\nE")), EXT4);
    // Only who has the capability may change these flags, and nobody may set what the volume cannot keep.
    let user = "mkdir -m 777 u; : > u/f; chown 1234 u/f
        setpriv --reuid=1234 --clear-groups chattr +i u/f 2>&1 | grep -q 'not permitted'
        setpriv --reuid=1234 --clear-groups chattr +s u/f; lsattr u/f | grep -q ^s
        chattr +d u/f 2>&1 | grep -q 'not supported'; lsattr u/f | grep -q ^s-------";
    sh(mount.path(), user);
    mount.unmount();
    // Turned off, there are no flags; those that are set still hold.
    let mount = volume.mount(&[]);
    sh(mount.path(), "chattr +i u/f");
    mount.unmount();
    let mount = volume.mount(&["--enable-ioctl=false"]);
    sh(mount.path(), "! lsattr u/f 2>/dev/null; ! rm -f u/f 2>/dev/null; test -e u/f");
    mount.unmount();
    volume.check();
}

fn flags_are_shared_with_the_official_client(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=1"]);
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    let ours = volume.mount(&["--attr-cache=0", "--entry-cache=0", "--dir-entry-cache=0"]);
    let path = volume.new_path();
    let cache = ["--enable-ioctl", "--attr-cache=0", "--entry-cache=0", "--dir-entry-cache=0"];
    let theirs = official.mount(&volume.meta, &path, &cache).unwrap_or_else(|e| panic!("{e:#}"));
    let attributes = |root: &Path, name: &str| {
        let out = sh(root, &format!("lsattr -d {name}"));
        out.split(' ').next().unwrap().replace('-', "")
    };
    for (from, to) in [(ours.path(), theirs.path()), (theirs.path(), ours.path())] {
        sh(from, "mkdir d; : > d/f");
        for (flag, name) in [("i", "d"), ("a", "d/f"), ("i", "d/f"), ("a", "d")] {
            sh(from, &format!("chattr +{flag} {name}"));
            assert_eq!(attributes(to, name), flag);
            sh(to, &format!("! rm -rf {name} 2>/dev/null; test -e {name}; chattr -{flag} {name}"));
            assert_eq!(attributes(from, name), "");
        }
        // What skips the trash is gone for both, and so are its children.
        sh(from, "chattr +s d; mkdir d/sub; : > d/sub/g");
        assert_eq!(attributes(to, "d/sub/g"), "s");
        sh(to, "rm -r d/sub d/f; rmdir d");
    }
    let hours = fs::read_dir(ours.join(".trash")).unwrap();
    let trashed: usize = hours.map(|h| fs::read_dir(h.unwrap().path()).unwrap().count()).sum();
    assert_eq!(trashed, 2, "in the trash lies only what was there before the flag");
    theirs.unmount().unwrap_or_else(|e| panic!("{e:#}"));
    ours.unmount();
    volume.check();
}

fn access_times_follow_the_mode(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    for (flags, changes) in [
        (&["--atime-mode=noatime"][..], [false, false]),
        (&["--atime-mode=relatime"], [true, false]),
        (&["-o", "strictatime"], [true, true]),
        (&["-o", "nodiratime"], [true, false]),
        (&[], [false, false]),
    ] {
        let mount = volume.mount(flags);
        sh(mount.path(), "rm -rf d; mkdir d; echo content > d/f; ln -s f d/l");
        for name in ["d", "d/f", "d/l"] {
            let path = mount.join(name);
            let atime = || {
                let m = fs::symlink_metadata(&path).unwrap();
                (m.atime(), m.atime_nsec())
            };
            for (n, expected) in changes.into_iter().enumerate() {
                // Pages and targets that the kernel has kept are read without us.
                fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
                let before = atime();
                match name {
                    "d" => assert_eq!(fs::read_dir(&path).unwrap().count(), 2),
                    "d/f" => assert_eq!(fs::read(&path).unwrap(), b"content\n"),
                    _ => assert_eq!(fs::read_link(&path).unwrap(), Path::new("f")),
                }
                let expected = expected && !(name == "d" && flags.contains(&"nodiratime"));
                assert_eq!(atime() > before, expected, "{flags:?} {name}, read {n}");
            }
        }
        let f = mount.join("d/f");
        // Content that the kernel has kept is read without us, but not opened.
        for _ in 0..2 {
            let before = fs::metadata(&f).unwrap();
            fs::read(&f).unwrap();
            let after = fs::metadata(&f).unwrap();
            let changed = (after.atime(), after.atime_nsec()) > (before.atime(), before.atime_nsec());
            assert_eq!(changed, changes[1], "{flags:?}, kept by the kernel");
        }
        // What was set by hand stays, whatever was read before.
        fs::read(&f).unwrap();
        let set = Timestamps {
            last_access: Timespec { tv_sec: 77, tv_nsec: 7 },
            last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        };
        utimensat(CWD, &f, &set, AtFlags::empty()).unwrap();
        assert_eq!(fs::metadata(&f).unwrap().atime(), 77);
        let stay = fs::metadata(mount.join("d")).unwrap();
        mount.unmount();
        // It has been stored.
        let mount = volume.mount(&[]);
        let now = fs::metadata(mount.join("d")).unwrap();
        assert_eq!((now.atime(), now.atime_nsec()), (stay.atime(), stay.atime_nsec()));
        assert_eq!(fs::metadata(mount.join("d/f")).unwrap().atime(), 77);
        mount.unmount();
    }
    volume.check();
}

fn times_are_exact_and_survive_a_remount(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let seconds = [
        0,
        -1,
        1,
        -86_400,
        i64::from(i32::MIN) - 1,
        i64::from(i32::MAX) + 1,
        i64::from(u32::MAX) + 1,
        9_223_372_036,
        9_223_372_037,
        -9_223_372_037,
        253_402_300_800,
        -62_135_596_801,
    ];
    let nanos = [0, 1, 999, 1000, 123_456_789, 999_999_999];
    let mut expected = Vec::new();
    for (n, sec) in seconds.into_iter().enumerate() {
        for (kind, nsec) in nanos.into_iter().enumerate() {
            let name = format!("{n}-{kind}");
            let path = mount.join(&name);
            match kind % 3 {
                0 => fs::write(&path, "x").unwrap(),
                1 => fs::create_dir(&path).unwrap(),
                _ => std::os::unix::fs::symlink("x", &path).unwrap(),
            }
            let times = Timestamps {
                last_access: Timespec { tv_sec: sec, tv_nsec: nsec },
                last_modification: Timespec { tv_sec: -sec, tv_nsec: 999_999_999 - nsec },
            };
            utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            expected.push((name, (sec, nsec, -sec, 999_999_999 - nsec)));
        }
    }
    let check = |root: &Path| {
        for (name, want) in &expected {
            let m = fs::symlink_metadata(root.join(name)).unwrap();
            assert_eq!((m.atime(), m.atime_nsec(), m.mtime(), m.mtime_nsec()), *want, "{name}");
        }
    };
    check(mount.path());
    mount.unmount();
    let mount = volume.mount(&[]);
    check(mount.path());
    // Now, and leaving alone.
    let f = mount.join("f");
    File::create(&f).unwrap();
    let old = Timespec { tv_sec: 5, tv_nsec: 5 };
    let special = |nsec| Timespec { tv_sec: 0, tv_nsec: nsec };
    let set = |last_access, last_modification| {
        let times = Timestamps { last_access, last_modification };
        utimensat(CWD, &f, &times, AtFlags::empty()).unwrap();
        let m = fs::metadata(&f).unwrap();
        (m.atime(), m.mtime(), m.ctime())
    };
    set(old, old);
    let (a, m, c) = set(special(UTIME_NOW), special(UTIME_OMIT));
    assert_eq!((a >= c - 1, a <= c, m), (true, true, 5));
    let (a, m, _) = set(old, special(UTIME_NOW));
    assert_eq!((a, m > 1_000_000_000), (5, true));
    let before = fs::metadata(&f).unwrap();
    set(special(UTIME_OMIT), special(UTIME_OMIT));
    let after = fs::metadata(&f).unwrap();
    assert_eq!((after.ctime(), after.ctime_nsec()), (before.ctime(), before.ctime_nsec()));
    // A directory's times tell of every change at once.
    let d = mount.join("d");
    fs::create_dir(&d).unwrap();
    let stamp = || {
        let m = fs::metadata(&d).unwrap();
        assert_eq!((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec()));
        (m.mtime(), m.mtime_nsec())
    };
    let mut last = stamp();
    for change in ["x", "mv", "ln", "rm", "mkdir", "rmdir", "ln -s", "exchange"] {
        match change {
            "x" => drop(File::create(d.join("x")).unwrap()),
            "mv" => fs::rename(d.join("x"), d.join("y")).unwrap(),
            "ln" => fs::hard_link(d.join("y"), d.join("z")).unwrap(),
            "rm" => fs::remove_file(d.join("z")).unwrap(),
            "mkdir" => fs::create_dir(d.join("s")).unwrap(),
            "rmdir" => fs::remove_dir(d.join("s")).unwrap(),
            "ln -s" => std::os::unix::fs::symlink("t", d.join("l")).unwrap(),
            _ => {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, d.join("l"), CWD, d.join("y"), flags).unwrap();
            }
        }
        let now = stamp();
        assert!(now > last, "{change}");
        last = now;
    }
    // No birth time is made up.
    let x = statx(CWD, &f, AtFlags::empty(), StatxFlags::BASIC_STATS | StatxFlags::BTIME).unwrap();
    assert_eq!(x.stx_mask & StatxFlags::BTIME.bits(), 0);
    mount.unmount();
    volume.check();
}
