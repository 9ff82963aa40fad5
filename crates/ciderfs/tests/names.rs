//! Names: renaming with flags, long names and paths, many entries, nodes that are no files, nodes whose name is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use ciderfs_testkit::official::Official;
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use rustix::io::Errno;
use support::client::{sh, wait_for};
use support::tree::Tree;
use support::{Engine, Volume, assert_same};

on_engines!(
    renames_exchange_and_leave_whiteouts,
    names_and_paths_of_the_greatest_length,
    a_tree_of_a_thousand_levels_is_removed,
    thousands_of_entries_are_listed_while_they_are_removed,
    a_listing_ends_while_entries_are_renamed,
    a_listing_goes_back_to_where_it_was,
    devices_pipes_and_sockets,
    removed_nodes_are_still_seen_by_who_holds_them,
    a_file_removed_by_another_mount_keeps_its_attributes,
    a_directory_removed_by_another_mount_is_its_holders,
    what_another_mount_has_put_into_the_trash_is_its_holders,
    the_trash_gives_back_only_to_root,
    names_in_the_trash_are_no_links,
);

/// Path, type and mode, links, device number of everything in a tree.
fn shape(root: &Path) -> Vec<String> {
    let mut out = BTreeMap::new();
    let mut open = vec![PathBuf::from(".")];
    while let Some(path) = open.pop() {
        let m = fs::symlink_metadata(root.join(&path)).unwrap();
        let device = if m.file_type().is_char_device() { m.rdev() } else { 0 };
        out.insert(path.clone(), format!("{path:?} {:o} {} links, device {device}", m.mode(), m.nlink()));
        if m.is_dir() && path != Path::new("./.trash") {
            let names = fs::read_dir(root.join(&path)).unwrap().map(|e| e.unwrap().file_name());
            open.extend(
                names.filter(|n| !matches!(n.as_bytes(), b".stats" | b".config")).map(|n| path.join(n)),
            );
        }
    }
    // The root's own mode is the volume's.
    out.remove(Path::new("."));
    out.into_values().collect()
}

fn renames_exchange_and_leave_whiteouts(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let script = |root: &Path| {
        let at = |name: &str| root.join(name);
        fs::create_dir_all(at("a/sub/deep")).unwrap();
        fs::create_dir(at("b")).unwrap();
        fs::write(at("a/f"), "f").unwrap();
        fs::write(at("b/g"), "g").unwrap();
        fs::hard_link(at("b/g"), at("b/g2")).unwrap();
        let mut out = Vec::new();
        let (noreplace, exchange, whiteout) =
            (RenameFlags::NOREPLACE, RenameFlags::EXCHANGE, RenameFlags::WHITEOUT);
        for (flags, from, to) in [
            (exchange, "a/f", "b/g"),
            (exchange, "a/sub", "b/g"),
            (exchange, "b/g", "a/sub/deep"),
            (exchange, "b/g", "a/sub/none"),
            (exchange, "none", "b"),
            (exchange, "b", "none"),
            (exchange, "a", "b/g/deep"),
            (exchange, "b/g", "b"),
            (exchange, "a/f", "a/f"),
            (exchange, "b/g2", "a/f"),
            (exchange, "a", "b"),
            (noreplace, "a", "b"),
            (noreplace, "a/f", "a/none"),
            (whiteout, "a/g2", "b/moved"),
            (whiteout, "a/none", "b/f"),
            (noreplace | whiteout, "b/moved", "b/again"),
            (noreplace | whiteout, "b/again", "b/moved"),
            (whiteout, "a/g/deep/f", "a/g/deep/sub"),
            (exchange | noreplace, "b/again", "a"),
            (exchange | whiteout, "b/again", "a"),
        ] {
            let done: Result<(), Errno> = renameat_with(CWD, at(from), CWD, at(to), flags);
            out.push(format!("{flags:?} {from} {to}: {done:?}"));
        }
        out.extend(shape(root));
        out
    };
    // A file system in memory knows all of these on every kernel.
    let local = tempfile::tempdir_in("/dev/shm").unwrap();
    let script_log = script(mount.path());
    assert_eq!(script_log, script(local.path()), "ours and the local file system's");
    let whiteouts = shape(mount.path()).iter().filter(|l| l.contains(" 20000 1 links, device 0")).count();
    assert_eq!(whiteouts, 3, "{:#?}", script_log);
    // The official client sees the same, exchanges too, and we see that.
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    let theirs = official.mount(&volume.meta, &volume.new_path(), &[]).unwrap_or_else(|e| panic!("{e:#}"));
    assert_same("the official client", &Tree::read(mount.path()), &Tree::read(theirs.path()));
    let (from, to) = (theirs.path().join("a"), theirs.path().join("b/again"));
    renameat_with(CWD, from, CWD, to, RenameFlags::EXCHANGE).unwrap();
    wait_for("the other's exchange", || mount.join("b/again").is_dir() && !mount.join("a").is_dir());
    assert_same("our client", &Tree::read(theirs.path()), &Tree::read(mount.path()));
    theirs.unmount().unwrap_or_else(|e| panic!("{e:#}"));
    mount.unmount();
    volume.check();
}

fn names_and_paths_of_the_greatest_length(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let fill = |unit: &[u8]| -> Vec<u8> { unit.iter().copied().cycle().take(255).collect() };
    let mut names: BTreeSet<Vec<u8>> =
        [&b"n"[..], "\u{e4}".as_bytes(), "\u{1f34e}".as_bytes(), b"\xff\xfe"].map(fill).into();
    names.insert((1..=255).filter(|b| *b != b'/').collect());
    names.extend([" ", "\n", "...", "-rf", "\\", "a\tb"].map(|n| n.as_bytes().to_vec()));
    let dir = mount.join("names");
    fs::create_dir(&dir).unwrap();
    for name in &names {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    let listed = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().as_bytes().to_vec());
    assert_eq!(listed.collect::<BTreeSet<_>>(), names);
    for name in &names {
        assert_eq!(&fs::read(dir.join(OsStr::from_bytes(name))).unwrap(), name);
    }
    let long = mount.join("x".repeat(256));
    for refused in [
        fs::write(&long, "").err(),
        fs::create_dir(&long).err(),
        fs::hard_link(dir.join("..."), &long).err(),
        fs::rename(dir.join("..."), &long).err(),
        fs::metadata(&long).err(),
        symlink("t", &long).err(),
    ] {
        assert_eq!(refused.unwrap().raw_os_error(), Some(36));
    }
    // A path of 4,095 bytes, and a link's target of as many.
    let mut path = mount.join("d");
    while path.as_os_str().len() < 4095 {
        fs::create_dir(&path).unwrap();
        let left = 4095 - path.as_os_str().len();
        // No component of one byte is left over for a separator alone.
        let take = if left <= 256 { left - 1 } else { (left - 3).min(255) };
        path.push("p".repeat(take));
    }
    assert_eq!(path.as_os_str().len(), 4095);
    fs::write(&path, "deep").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"deep");
    let beyond = PathBuf::from(format!("{}x", path.display()));
    assert_eq!(fs::write(beyond, "").unwrap_err().raw_os_error(), Some(36));
    for len in [1, 4094, 4095] {
        let (link, target) = (mount.join(format!("link{len}")), "t".repeat(len));
        symlink(&target, &link).unwrap();
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(&target));
        assert_eq!(fs::symlink_metadata(&link).unwrap().len(), len as u64);
    }
    sh(mount.path(), "rm -r d names link*");
    assert!(shape(mount.path()).is_empty());
    mount.unmount();
    volume.check();
}

fn a_tree_of_a_thousand_levels_is_removed(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let script = "python3 - <<'E'
import os
for i in range(1000):
    os.mkdir('d')
    os.chdir('d')
open('bottom', 'w').write('here')
path = os.getcwd()
assert path.endswith('/d' * 1000), path
os.rename('bottom', 'moved')
os.mkdir('other')
E
        mv d top; find top -name moved | wc -l; rm -r top; ls";
    assert_eq!(sh(mount.path(), script).trim(), "1");
    mount.unmount();
    volume.check();
}

fn thousands_of_entries_are_listed_while_they_are_removed(engine: Engine) {
    const ENTRIES: usize = 4_000;
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let dir = mount.join("many");
    fs::create_dir(&dir).unwrap();
    std::thread::scope(|s| {
        for t in 0..4 {
            let dir = &dir;
            s.spawn(move || {
                (t..ENTRIES).step_by(4).for_each(|i| drop(File::create(dir.join(format!("{i:05}")))))
            });
        }
    });
    // Every entry that stays is listed once, while every other one goes away.
    let (mut listed, mut removed) = (BTreeSet::new(), 0);
    for (n, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(listed.insert(name.clone()), "{name} is listed twice");
        if n % 2 == 0 {
            fs::remove_file(dir.join(name)).unwrap();
            removed += 1;
        }
    }
    assert_eq!(listed.len(), ENTRIES);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), ENTRIES - removed);
    sh(mount.path(), "rm -rf many; test ! -e many");
    mount.unmount();
    volume.check();
}

fn a_listing_ends_while_entries_are_renamed(engine: Engine) {
    const STAY: usize = 1500;
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let dir = mount.join("d");
    fs::create_dir(&dir).unwrap();
    for i in 0..STAY {
        File::create(dir.join(format!("stay{i}"))).unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        for prefix in ["a", "t", "z"] {
            let (dir, done) = (&dir, &done);
            s.spawn(move || {
                let name = |n: u64| dir.join(format!("{prefix}{n:09}"));
                File::create(name(0)).unwrap();
                let mut n = 0;
                // Always to a greater name, where a listing in order of names has still to pass.
                while !done.load(Ordering::Acquire) {
                    fs::rename(name(n), name(n + 1)).unwrap();
                    n += 1;
                }
            });
        }
        for _ in 0..8 {
            let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
            let stayed = names.iter().filter(|n| n.as_bytes().starts_with(b"stay"));
            let unique: BTreeSet<_> = stayed.clone().collect();
            assert_eq!((stayed.count(), unique.len()), (STAY, STAY));
        }
        done.store(true, Ordering::Release);
    });
    mount.unmount();
    volume.check();
}

fn a_listing_goes_back_to_where_it_was(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    // Through the C library, for telldir and seekdir. Going back after removals skips nothing that is still there.
    let script = r#"python3 - <<'E'
import ctypes, os
class Dirent(ctypes.Structure):
    _fields_ = [('ino', ctypes.c_uint64), ('off', ctypes.c_int64), ('reclen', ctypes.c_uint16),
                ('type', ctypes.c_uint8), ('name', ctypes.c_char * 256)]
libc = ctypes.CDLL(None)
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.POINTER(Dirent)
for f in (libc.readdir, libc.telldir, libc.rewinddir, libc.closedir): f.argtypes = [ctypes.c_void_p]
libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
os.mkdir('d')
for i in range(3000): open('d/%04d' % i, 'w').close()
d = libc.opendir(b'd')
def read(n=10**9):
    out = []
    while len(out) < n:
        at = libc.telldir(d)
        e = libc.readdir(d)
        if not e: break
        out.append((at, e.contents.name))
    return out
everything = read()
assert len(everything) == len(set(n for _, n in everything)) == 3002, len(everything)
for k in (2999, 0, 1, 2, 1000, 1001, 1700, 3001, 5):
    libc.seekdir(d, everything[k][0])
    assert read(3)[0][1] == everything[k][1], k
libc.seekdir(d, everything[100][0])
assert read(1)[0][1] == everything[100][1]
for at, name in everything[200:1100]:
    os.remove(b'd/' + name)
libc.seekdir(d, everything[1500][0])
rest = [n for _, n in read()]
assert rest == [n for _, n in everything[1500:]], (len(rest), rest[:3])
libc.rewinddir(d)
again = [n for _, n in read()]
assert len(again) == 2102 and not set(again) & set(n for _, n in everything[200:1100])
open('d/new', 'w').close()
libc.rewinddir(d)
assert b'new' in [n for _, n in read()]
libc.closedir(d)
E"#;
    sh(mount.path(), script);
    mount.unmount();
    volume.check();
}

fn devices_pipes_and_sockets(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&["-o", "dev"]);
    let numbers = [(0, 0), (1, 3), (255, 255), (256, 256), (4095, 1_048_575), (8, 65_537)];
    for (kind, letter) in [(FileType::CharacterDevice, "c"), (FileType::BlockDevice, "b")] {
        for (major, minor) in numbers {
            let path = mount.join(format!("{letter}{major}-{minor}"));
            mknodat(CWD, &path, kind, Mode::from(0o640), rustix::fs::makedev(major, minor)).unwrap();
        }
    }
    let check = |root: &Path| {
        for (major, minor) in numbers {
            for letter in ["c", "b"] {
                let m = fs::symlink_metadata(root.join(format!("{letter}{major}-{minor}"))).unwrap();
                let found = (rustix::fs::major(m.rdev()), rustix::fs::minor(m.rdev()));
                assert_eq!(found, (major, minor));
                let kind = m.file_type();
                assert!(if letter == "c" { kind.is_char_device() } else { kind.is_block_device() });
                assert_eq!((m.mode() & 0o7777, m.len()), (0o640 & !umask(), 0));
            }
        }
    };
    check(mount.path());
    // The device works where the mount says so.
    fs::write(mount.join("c1-3"), "into nothing").unwrap();
    assert_eq!(fs::read(mount.join("c1-3")).unwrap(), b"");
    sh(
        mount.path(),
        "mkfifo pipe; (echo through the pipe > pipe) & cat pipe | grep -qx 'through the pipe'; wait",
    );
    let socket = mount.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    std::thread::scope(|s| {
        s.spawn(|| UnixStream::connect(&socket).unwrap().write_all(b"hello").unwrap());
        let mut got = String::new();
        listener.accept().unwrap().0.read_to_string(&mut got).unwrap();
        assert_eq!(got, "hello");
    });
    assert_eq!(UnixListener::bind(&socket).unwrap_err().raw_os_error(), Some(98));
    drop(listener);
    mount.unmount();
    let official = Official::locate().unwrap_or_else(|e| panic!("{e:#}"));
    let theirs = official.mount(&volume.meta, &volume.new_path(), &[]).unwrap_or_else(|e| panic!("{e:#}"));
    check(theirs.path());
    theirs.unmount().unwrap_or_else(|e| panic!("{e:#}"));
    // By default devices are dead.
    let mount = volume.mount(&[]);
    assert_eq!(fs::write(mount.join("c1-3"), "").unwrap_err().raw_os_error(), Some(13));
    mount.unmount();
    volume.check();
}

/// The umask of this process.
fn umask() -> u32 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(line.trim(), 8).unwrap()
}

fn removed_nodes_are_still_seen_by_who_holds_them(engine: Engine) {
    let script = "import os
top = os.getcwd()
os.mkdir('c'); os.chdir('c'); os.rmdir('../c')
os.chmod('.', 0o710); s = os.stat('.'); print(oct(s.st_mode), s.st_nlink); os.chdir(top)
os.mkdir('d'); d = os.open('d', os.O_RDONLY); os.chdir('d'); os.rmdir('../d')
print(os.fstat(d).st_nlink, os.stat('.').st_nlink, os.listdir(d))
for f in (os.getcwd, lambda: open('x', 'w'), lambda: os.mkdir('y'), lambda: os.stat('x')):
    try: print(f())
    except OSError as e: print(e.strerror)
os.fchmod(d, 0o701); os.utime(d, ns=(5, 7)); s = os.fstat(d)
print(oct(s.st_mode), s.st_atime_ns, s.st_mtime_ns)
def xattrs(fd):
    for f in (lambda: os.setxattr(fd, 'user.a', b'1', os.XATTR_CREATE), lambda: os.setxattr(fd, 'user.a', b'2'),
            lambda: os.setxattr(fd, 'user.a', b'', os.XATTR_CREATE), lambda: os.setxattr(fd, 'user.b', b'', os.XATTR_REPLACE),
            lambda: os.setxattr(fd, 'trusted.b', b'3'), lambda: os.getxattr(fd, 'user.a'), lambda: os.getxattr(fd, 'user.none'),
            lambda: os.removexattr(fd, 'user.none'), lambda: len(os.listxattr(fd)), lambda: sorted(n for n in os.listxattr(fd) if n != 'security.selinux'),
            lambda: os.removexattr(fd, 'user.a'), lambda: os.getxattr(fd, 'user.a'), lambda: os.setxattr(fd, 'system.x', b'')):
        try: print(f())
        except OSError as e: print(e.strerror)
xattrs(d)
os.chdir(top)
f = os.open('f', os.O_RDWR | os.O_CREAT, 0o644); os.write(f, b'before')
os.remove('f')
g = os.open('over', os.O_RDWR | os.O_CREAT, 0o600); os.write(g, b'target')
open('new', 'w').close(); os.rename('new', 'over')
os.mkdir('e'); e = os.open('e', os.O_RDONLY); os.mkdir('e2'); os.rename('e2', 'e'); os.rmdir('e')
os.fchmod(e, 0o710); os.fchown(e, 3, 4); s = os.fstat(e)
print(oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink); xattrs(e)
for fd in (f, g):
    again = os.open(f'/proc/self/fd/{fd}', os.O_RDWR); os.pwrite(again, b'BE', 0); os.posix_fallocate(again, 0, 20); os.close(again)
    os.truncate(f'/proc/self/fd/{fd}', 5); os.chmod(f'/proc/self/fd/{fd}', 0o777)
    os.fchmod(fd, 0o640); os.utime(fd, ns=(5, 7)); os.fchown(fd, 3, 4)
    os.ftruncate(fd, 3); os.pwrite(fd, b'after', 10); os.fsync(fd)
    s = os.fstat(fd)
    print(oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, s.st_size, s.st_atime_ns)
    print(os.pread(fd, 100, 0))
    xattrs(fd)
print(sorted(n for n in os.listdir('.') if not n.startswith('.')))";
    let run = |root: &Path| sh(root, &format!("python3 - <<'E'\n{script}\nE"));
    let local = tempfile::tempdir().unwrap();
    let want = run(local.path());
    for trash in ["--trash-days=0", "--trash-days=1"] {
        let volume = Volume::new(engine, &[trash]);
        let mount = volume.mount(&[]);
        assert_eq!(run(mount.path()), want, "ours, with {trash}, and the local file system's");
        mount.unmount();
        volume.check();
    }
}

fn a_file_removed_by_another_mount_keeps_its_attributes(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let (a, b) = (volume.mount(&[]), volume.mount(&[]));
    let file = File::create(a.join("f")).unwrap();
    (&file).write_all(b"content").unwrap();
    file.sync_all().unwrap();
    wait_for("the file to be seen", || b.join("f").exists());
    fs::remove_file(b.join("f")).unwrap();
    // There is nothing behind it any more but what this mount remembers.
    wait_for("the removal to be seen", || file.metadata().unwrap().nlink() == 0);
    let seen = file.metadata().unwrap();
    assert_eq!((seen.len(), seen.is_file()), (7, true));
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    rustix::fs::fsetxattr(&file, "user.note", b"value", rustix::fs::XattrFlags::CREATE).unwrap();
    let mut value = [0; 16];
    let missing = rustix::fs::fgetxattr(&file, "user.other", &mut value);
    assert_eq!(missing, Err(rustix::io::Errno::NODATA));
    let n = rustix::fs::fgetxattr(&file, "user.note", &mut value).unwrap();
    assert_eq!(&value[..n], b"value");
    wait_for("the name to be gone", || !a.join("f").exists());
    drop(file);
    a.unmount();
    b.unmount();
    volume.check_but_for_pending();
}

fn a_directory_removed_by_another_mount_is_its_holders(engine: Engine) {
    let script = "import os, sys, time
other = sys.argv[1]
def said(*calls):
    for f in calls:
        try: print(f())
        except OSError as e: print(e.strerror)
os.mkdir('d', 0o750); os.mkdir('e')
d = os.open('d', os.O_RDONLY); e = os.open('e', os.O_RDONLY)
until = time.time() + 30
while not all(os.path.exists(f'{other}/{n}') for n in 'de'): assert time.time() < until; time.sleep(0.01)
os.rmdir(other + '/d'); os.mkdir(other + '/new'); os.rename(other + '/new', other + '/e'); os.rmdir(other + '/e')
while any(os.fstat(fd).st_nlink for fd in (d, e)): assert time.time() < until; time.sleep(0.01)
while any(os.path.exists(n) for n in 'de'): assert time.time() < until; time.sleep(0.01)
s = os.fstat(d); print(oct(s.st_mode), s.st_uid, s.st_nlink)
for fd in (d, e):
    said(lambda: os.listdir(fd), lambda: os.stat('x', dir_fd=fd), lambda: os.mkdir('x', dir_fd=fd),
        lambda: os.open('x', os.O_CREAT | os.O_RDWR, dir_fd=fd), lambda: os.rename('x', 'y', src_dir_fd=fd, dst_dir_fd=fd))
    os.fchmod(fd, 0o710); os.fchown(fd, 3, 4); os.utime(fd, ns=(5, 7)); os.setxattr(fd, 'user.a', b'1')
    again = os.open(f'/proc/self/fd/{fd}', os.O_RDONLY); os.close(fd)
    dot = os.open('.', os.O_RDONLY, dir_fd=again)
    for fd in (again, dot):
        os.fchmod(fd, 0o701); s = os.fstat(fd); print(oct(s.st_mode), s.st_uid, s.st_gid, s.st_nlink, s.st_mtime_ns, os.getxattr(fd, 'user.a'))
        said(lambda: os.listdir(fd), lambda: os.fsync(fd), lambda: os.fchdir(fd), os.getcwd, lambda: os.listdir('.'))
        os.chdir('/')";
    let run =
        |root: &Path, other: &Path| sh(root, &format!("python3 - {} <<'E'\n{script}\nE", other.display()));
    let local = tempfile::tempdir().unwrap();
    let want = run(local.path(), local.path());
    for trash in ["--trash-days=0", "--trash-days=1"] {
        let volume = Volume::new(engine, &[trash]);
        let (a, b) = (volume.mount(&[]), volume.mount(&[]));
        assert_eq!(run(a.path(), b.path()), want, "ours, with {trash}, and the local file system's");
        a.unmount();
        b.unmount();
        volume.check();
    }
}

fn what_another_mount_has_put_into_the_trash_is_its_holders(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=1"]);
    let (a, b) = (volume.mount(&[]), volume.mount(&[]));
    let script = "import os, subprocess, sys, time
f = os.open('f', os.O_CREAT | os.O_RDWR, 0o600); os.write(f, b'content'); os.fsync(f)
g = os.open('g', os.O_CREAT | os.O_RDWR, 0o600)
os.mkdir('d'); d = os.open('d', os.O_RDONLY)
other = sys.argv[1]
until = time.time() + 30
while not all(os.path.exists(f'{other}/{n}') for n in 'fgd'): assert time.time() < until; time.sleep(0.01)
os.unlink(other + '/f'); open(other + '/h', 'w').close(); os.rename(other + '/h', other + '/g'); os.rmdir(other + '/d')
while any(os.fstat(fd).st_nlink for fd in (f, g, d)): assert time.time() < until; time.sleep(0.01)
for fd in (f, g, d):
    os.fchmod(fd, 0o710); os.fchown(fd, 3, 4); os.utime(fd, ns=(5, 7)); os.setxattr(fd, 'user.a', b'1')
    s = os.fstat(fd); print(oct(s.st_mode & 0o777), s.st_uid, s.st_gid, s.st_mtime_ns, os.getxattr(fd, 'user.a'))
again = os.open(f'/proc/self/fd/{f}', os.O_RDWR); os.ftruncate(again, 3); os.pwrite(again, b'more', 3); os.fsync(again)
print(os.pread(f, 100, 0))";
    let run = format!("python3 - {} <<'E'\n{script}\nE", b.path().display());
    let same = "0o710 3 4 7 b'1'\n".repeat(3);
    assert_eq!(sh(a.path(), &run), format!("{same}b'conmore'\n"));
    a.unmount();
    b.unmount();
    volume.check_but_for_pending();
}

fn the_trash_gives_back_only_to_root(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=1"]);
    let mount = volume.mount(&[]);
    sh(
        mount.path(),
        r#"mkdir -m 777 d; echo one > d/f; echo two > d/g; mkdir d/s; chown -R 1234 d
rm d/f d/g; rmdir d/s
hour=$(echo .trash/*); cd $hour
f=$(echo *-f); g=$(echo *-g); s=$(echo *-s)
as() { python3 -c "import os, sys
os.setgid(1234); os.setuid(1234)
try: getattr(os, sys.argv[1])(*sys.argv[2:]); print('done')
except OSError as e: print(e.errno)" "$@"; }
case $(as rename $f ../../d/f) in 1|13) ;; *) exit 1;; esac
case $(as remove $f) in 1|13) ;; *) exit 2;; esac
for forbidden in "mv ../../d x" "touch x" "chmod 700 $f" "mv ../../$hour ../../d" "rmdir ../../$hour"; do
    if $forbidden 2>/dev/null; then echo "$forbidden"; exit 3; fi
done
if (echo more >> $f) 2>/dev/null; then exit 4; fi
grep -qx one $f
mv $f ../../d/f; mv $s ../../d/s; ln $g ../../d/g
cd ../../d; grep -qx one f; grep -qx two g; test -d s
test "$(stat -c %u:%h s)" = "$(stat -c %u .):2"; echo more >> f; rm -r f g s; test -z "$(ls)"
"#,
    );
    mount.unmount();
    volume.check_but_for_pending();
}

fn names_in_the_trash_are_no_links(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=1"]);
    let (mount, other) = (volume.mount(&[]), volume.mount(&[]));
    let at = |name: &str| mount.join(name);
    let links = |name: &str| fs::metadata(at(name)).unwrap().nlink();
    fs::write(at("a"), "x").unwrap();
    for name in ["b", "c", "d"] {
        fs::hard_link(at("a"), at(name)).unwrap();
    }
    let open = File::open(at("a")).unwrap();
    assert_eq!(links("b"), 4);
    fs::remove_file(at("d")).unwrap();
    assert_eq!((links("a"), links("c"), open.metadata().unwrap().nlink()), (3, 3, 3));
    fs::write(at("e"), "another").unwrap();
    fs::rename(at("e"), at("c")).unwrap();
    assert_eq!((links("a"), links("c")), (2, 1));
    fs::hard_link(at("a"), at("f")).unwrap();
    assert_eq!((links("a"), links("f")), (3, 3));
    wait_for("the other mount to see it", || {
        fs::metadata(other.join("f")).is_ok_and(|m| m.nlink() == 3) && !other.join("d").exists()
    });
    // Listings tell the same as `stat`.
    let listed = "find . -path ./.trash -prune -o -type f -printf '%f %n\\n' | grep '^[a-f] ' | sort";
    for root in [mount.path(), other.path()] {
        assert_eq!(sh(root, listed), "a 3\nb 3\nc 1\nf 3\n");
    }
    for name in ["a", "b", "f"] {
        fs::remove_file(at(name)).unwrap();
    }
    assert_eq!(open.metadata().unwrap().nlink(), 0, "to those who hold it open it is deleted");
    drop(open);
    // In the trash itself it has the names that it has there, and one of them comes back alone.
    sh(mount.path(), "cd .trash/*; test $(stat -c %h *-b) = 5; mv *-b ../../b");
    assert_eq!(links("b"), 1);
    assert_eq!(fs::read_to_string(at("b")).unwrap(), "x");
    mount.unmount();
    other.unmount();
    volume.check();
}
