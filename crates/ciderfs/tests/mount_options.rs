//! Options of mounts: who may do what and as whom, flags of the kernel, read-only mounts, sub-directories, helpers of mount(8).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::UnmountFlags;
use support::client::{PATIENCE, is_mounted, program, run, run_within, sh, wait_for};
use support::{Engine, Volume};

on_engines!(
    the_umask_can_be_replaced,
    callers_are_squashed,
    permissions_checked_here_are_those_that_the_kernel_checks,
    the_kernels_flags_are_honoured,
    a_read_only_mount_changes_nothing,
    a_subdirectory_is_a_world_of_its_own,
    a_line_of_fstab_mounts_and_remounts,
    listings_are_sorted_and_cached_and_internal_names_prefixed,
);

/// Mode, owner and group of a path.
fn owned(path: &Path) -> (u32, u32, u32) {
    let m = fs::symlink_metadata(path).unwrap();
    (m.mode() & 0o7777, m.uid(), m.gid())
}

/// Options of a mount as the kernel shows them.
fn shown(path: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = table.lines().rfind(|l| l.split(' ').nth(1) == path.to_str()).expect("the mount in the table");
    line.split(' ').nth(3).unwrap().split(',').map(str::to_owned).collect()
}

fn the_umask_can_be_replaced(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&["--umask=027"]);
    sh(mount.path(), "umask 077; mkdir a; : > b; mkfifo c; umask 0; mkdir d; : > e");
    for (name, mode) in [("a", 0o750), ("b", 0o640), ("c", 0o640), ("d", 0o750), ("e", 0o640)] {
        assert_eq!(owned(&mount.join(name)).0, mode, "{name}");
    }
    mount.unmount();
    let mount = volume.mount(&[]);
    sh(mount.path(), "umask 077; mkdir f; umask 0; mkdir g");
    assert_eq!((owned(&mount.join("f")).0, owned(&mount.join("g")).0), (0o700, 0o777));
    mount.unmount();
    for bad in ["--umask=9", "--umask=1777", "--root-squash=0:0", "--all-squash=nobody-like-this"] {
        let ran = run(&["mount", bad, &volume.meta, volume.new_path().to_str().unwrap()]);
        assert_eq!(ran.code, 1, "{bad}: {}", ran.stderr);
    }
    volume.check();
}

fn callers_are_squashed(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    sh(mount.path(), "echo secret > private; chmod 600 private; chown 5678 private; mkdir -m 755 roots");
    mount.unmount();
    // Root counts as an ordinary user, others as themselves.
    let mount = volume.mount(&["--root-squash=1234:1235"]);
    sh(
        mount.path(),
        "umask 022; : > mine; mkdir dir
        for call in 'chown 5678 mine' 'cat private' 'touch roots/f' 'chmod 777 roots'; do
            if $call 2>/dev/null; then echo $call; exit 1; fi
        done
        chmod 640 mine
        setpriv --reuid=5678 --regid=5678 --clear-groups sh -euc 'grep -q secret private; : > theirs'",
    );
    assert_eq!(owned(&mount.join("mine")), (0o640, 1234, 1235));
    assert_eq!(owned(&mount.join("dir")), (0o755, 1234, 1235));
    assert_eq!((owned(&mount.join("theirs")).1, owned(&mount.join("theirs")).2), (5678, 5678));
    assert!(shown(mount.path()).contains(&"default_permissions".to_owned()));
    mount.unmount();
    // Everybody counts as one user.
    let mount = volume.mount(&["--all-squash=1234:1235"]);
    sh(
        mount.path(),
        "echo more >> mine
        if cat private 2>/dev/null; then exit 1; fi
        setpriv --reuid=5678 --regid=5678 --clear-groups sh -euc '
            : > fifth; echo again >> mine; chmod 600 mine
            if cat private 2>/dev/null; then exit 2; fi; rm mine'",
    );
    assert_eq!((owned(&mount.join("fifth")).1, owned(&mount.join("fifth")).2), (1234, 1235));
    assert!(!shown(mount.path()).contains(&"default_permissions".to_owned()));
    mount.unmount();
    volume.check();
}

/// What users with groups may do to nodes with all kinds of modes; prints one line for each.
const MATRIX: &str = r#"
import itertools, os, shutil, sys
os.umask(0)
os.mkdir('m'); os.chmod('m', 0o777); os.chdir('m')
modes = (0o000, 0o400, 0o200, 0o100, 0o040, 0o020, 0o010, 0o004, 0o002, 0o001, 0o750, 0o555)
for mode in modes:
    name = 'd%03o' % mode
    os.mkdir(name); open(name + '/f', 'w').write('#!/bin/sh\nexit 0\n')
    os.chmod(name + '/f', mode); os.chown(name + '/f', 11, 12)
    os.mkdir(name + '/e'); os.chown(name, 11, 12); os.chmod(name, mode)
    os.mkdir('in' + name); open('in' + name + '/f', 'w').write('#!/bin/sh\nexit 0\n')
    os.chown('in' + name + '/f', 11, 12); os.chmod('in' + name + '/f', mode)
os.mkdir('sticky'); os.chmod('sticky', 0o1777)
for n, u in (('a', 11), ('b', 21)): open('sticky/' + n, 'w'); os.chown('sticky/' + n, u, u)
calls = [
    ('lookup', lambda d: os.stat(d + '/f')), ('list', lambda d: os.listdir(d)),
    ('create', lambda d: open(d + '/new', 'w').close()), ('mkdir', lambda d: os.mkdir(d + '/newdir')),
    ('symlink', lambda d: os.symlink('x', d + '/newlink')),
    ('rename', lambda d: os.rename(d + '/f', d + '/g')),
    ('move', lambda d: os.rename(d + '/e', 'moved')), ('moveback', lambda d: os.path.lexists('moved') and os.rename('moved', d + '/e')),
    ('back', lambda d: os.rename(d + '/g', d + '/f')),
    ('unlink', lambda d: os.unlink(d + '/new')), ('rmdir', lambda d: os.rmdir(d + '/newdir')),
    ('read', lambda d: open('in' + d + '/f').read()), ('write', lambda d: open('in' + d + '/f', 'a').close()),
    ('truncate', lambda d: os.truncate('in' + d + '/f', 18)), ('chmod', lambda d: os.chmod('in' + d + '/f', os.stat('in' + d + '/f').st_mode & 0o7777)),
    ('touch', lambda d: os.utime('in' + d + '/f')), ('utimes', lambda d: os.utime('in' + d + '/f', (1, 1))),
    ('chgrp', lambda d: os.chown('in' + d + '/f', -1, 12)), ('chown', lambda d: os.chown('in' + d + '/f', 21, -1)),
    ('access', lambda d: print([os.access('in' + d + '/f', m) for m in (4, 2, 1)], end=' ')),
    ('chdir', lambda d: (os.chdir(d), os.chdir('..'))),
]
for uid, gid, groups in ((11, 11, []), (21, 12, []), (21, 21, [5, 12, 7]), (21, 21, [5]), (0, 0, [])):
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setgroups(groups); os.setgid(gid); os.setuid(uid)
        for mode in modes:
            d = 'd%03o' % mode
            for name, call in calls:
                try: call(d); print(uid, gid, groups, d, name, 'ok')
                except OSError as e: print(uid, gid, groups, d, name, e.errno)
        for n in ('a', 'b'):
            try: os.rename('sticky/' + n, 'sticky/c'); os.rename('sticky/c', 'sticky/' + n); print('sticky', n)
            except OSError as e: print('sticky', n, e.errno)
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(pid, 0)
    for mode in modes:
        for name in ('new', 'newlink', 'link'):
            try: os.unlink('d%03o/%s' % (mode, name))
            except FileNotFoundError: pass
        try: os.rmdir('d%03o/newdir' % mode)
        except FileNotFoundError: pass
        os.chown('ind%03o/f' % mode, 11, 12); os.chmod('ind%03o/f' % mode, mode)
os.chdir('..'); shutil.rmtree('m')
"#;

fn permissions_checked_here_are_those_that_the_kernel_checks(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let script = format!("python3 - <<'E'\n{MATRIX}\nE");
    let mut answers = Vec::new();
    for flags in [&[][..], &["--non-default-permission"]] {
        let mount = volume.mount(flags);
        let checks = shown(mount.path()).contains(&"default_permissions".to_owned());
        assert_eq!(checks, flags.is_empty());
        answers.push(sh(mount.path(), &script));
        mount.unmount();
    }
    assert!(answers[0].lines().count() > 1000);
    let differing: Vec<_> = answers[0].lines().zip(answers[1].lines()).filter(|(a, b)| a != b).collect();
    assert!(differing.is_empty(), "the kernel's answers and ours: {differing:#?}");
    assert_eq!(answers[0].len(), answers[1].len());
    volume.check();
}

fn the_kernels_flags_are_honoured(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let as_user = "cp /usr/bin/id program; chmod 4755 program
        setpriv --reuid=1234 --regid=1234 --clear-groups ./program -u";
    let mount = volume.mount(&[]);
    assert_eq!(sh(mount.path(), as_user).trim(), "1234");
    let has = |path: &Path, flag: &str| shown(path).iter().any(|o| o == flag);
    assert!(has(mount.path(), "nosuid") && has(mount.path(), "nodev") && has(mount.path(), "allow_other"));
    mount.unmount();
    let mount = volume.mount(&["-o", "suid,dev,noatime,sync"]);
    assert_eq!(sh(mount.path(), as_user).trim(), "0");
    assert!(!has(mount.path(), "nosuid") && !has(mount.path(), "nodev"));
    assert!(has(mount.path(), "noatime") && has(mount.path(), "sync"));
    mount.unmount();
    let mount = volume.mount(&["-o", "noexec,nodiratime,x-systemd.automount,_netdev,comment=here"]);
    assert!(has(mount.path(), "noexec") && has(mount.path(), "nodiratime"));
    sh(mount.path(), "if ./program 2>/dev/null; then exit 1; fi");
    mount.unmount();
    let ran = run(&["mount", "-o", "nonsense", &volume.meta, volume.new_path().to_str().unwrap()]);
    assert!(ran.code == 1 && ran.stderr.contains("nonsense"), "{}", ran.stderr);
    volume.check();
}

/// Something that changes whenever the metadata do.
fn state(volume: &Volume) -> String {
    if let Some(file) = volume.meta.strip_prefix("sqlite3://") {
        let stat = |path: &str| fs::metadata(path).map(|m| (m.len(), m.mtime(), m.mtime_nsec())).ok();
        return format!(
            "{:?} {:?}",
            fs::read(file).unwrap(),
            stat(&format!("{file}-wal")).filter(|w| w.0 > 0)
        );
    }
    let mut cli = Command::new("redis-cli");
    let said = run_within(cli.args(["-u", &volume.meta, "INFO", "persistence"]), PATIENCE).stdout;
    said.lines().find(|l| l.starts_with("rdb_changes_since_last_save")).expect("the counter").to_owned()
}

fn a_read_only_mount_changes_nothing(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let mount = volume.mount(&[]);
    sh(
        mount.path(),
        "mkdir d; echo text > d/f; ln -s f d/l; mkfifo p; setfattr -n user.a -v 1 d/f; rm -f gone",
    );
    mount.unmount();
    let before = state(&volume);
    for flags in [&["--read-only"][..], &["-o", "ro", "--atime-mode=strictatime"]] {
        let mount = volume.mount(flags);
        assert!(shown(mount.path()).contains(&"ro".to_owned()));
        sh(
            mount.path(),
            "for call in 'touch new' 'mkdir new' 'ln -s x new' 'ln d/f new' 'mkfifo new' 'mknod new c 1 3' 'mv d/f new' \
                'rm -f d/f' 'rmdir d' 'chmod 600 d/f' 'chown 1 d/f' 'touch d/f' 'truncate -s 1 d/f' \
                'setfattr -n user.b -v 1 d/f' 'setfattr -x user.a d/f' 'chattr +i d/f' \
                'dd of=d/f conv=notrunc if=/dev/zero count=1 status=none'; do
                if said=$($call 2>&1); then echo \"$call worked\"; exit 1; fi
                case $said in *ead-only*) ;; *) echo \"$call: $said\"; exit 2;; esac
            done
            grep -q text d/f; test $(readlink d/l) = f; ls d > /dev/null; test ! -w d/f; getfattr -d d/f > /dev/null",
        );
        let status = support::client::succeed(&["status", &volume.meta]).stdout;
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert!(status["Sessions"].as_array().is_none_or(Vec::is_empty), "{status}");
        mount.unmount();
        assert!(state(&volume) == before, "{flags:?}: the metadata have changed");
    }
    let missing = volume.new_path();
    let ran = run(&["mount", "--read-only", "--subdir=none", &volume.meta, missing.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(state(&volume) == before, "a mount that failed has changed the metadata");
    volume.check();
}

fn a_subdirectory_is_a_world_of_its_own(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=1"]);
    let whole = volume.mount(&[]);
    sh(whole.path(), "echo outside > file; mkdir -p a/b; echo inside > a/b/f");
    let part = volume.mount(&["--subdir=/a/b"]);
    assert_eq!(fs::metadata(part.path()).unwrap().ino(), 1);
    sh(
        part.path(),
        "test \"$(ls -A | grep -v '^[.]stats$' | grep -v '^[.]config$')\" = f
        test ! -e .trash; test ! -e file
        mkdir .trash; echo mine > .trash/x; rm -r .trash
        ln -s ../../file escape; test ! -e escape
        mkdir -p x/y; cd x/y; cd ../../..; test ! -e file || exit 3",
    );
    // What leaves the sub-directory takes its time to be seen here, and stays out of reach.
    sh(part.path(), "mkdir x/z; echo more > new; rm f; df . > /dev/null; stat -f . > /dev/null");
    assert_eq!(fs::read_to_string(whole.join("a/b/new")).unwrap(), "more\n");
    assert!(fs::read_dir(whole.join(".trash")).unwrap().count() > 0);
    // A missing one is made.
    let made = volume.mount(&["--subdir=made/on/the/way"]);
    fs::write(made.join("f"), "x").unwrap();
    assert!(fs::rename(made.join("f"), part.join("f")).unwrap_err().raw_os_error() == Some(18));
    made.unmount();
    wait_for("the new directory", || whole.join("made/on/the/way/f").exists());
    let refused = run(&["mount", "--subdir=file", &volume.meta, volume.new_path().to_str().unwrap()]);
    assert!(refused.code == 1 && refused.stderr.contains("not a directory"), "{}", refused.stderr);
    part.unmount();
    whole.unmount();
    volume.check_but_for_pending();
}

/// A mount that was made by a helper in the background.
struct Detached(PathBuf);

impl Drop for Detached {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn a_line_of_fstab_mounts_and_remounts(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let helper = volume.dir.path().join("mount.ciderfs");
    symlink(program().get_program(), &helper).unwrap();
    let (path, log) = (volume.new_path(), volume.dir.path().join("log"));
    let options = format!(
        "rw,_netdev,nofail,noauto,x-systemd.requires=network.target,nosuid,noatime,cache-dir={},log={},metrics=,umask=077",
        volume.dir.path().join("cache").display(),
        log.display()
    );
    let call = |words: &[&str]| {
        let ran = run_within(Command::new(&helper).args(words), PATIENCE);
        (ran.code, ran.stderr)
    };
    let at = path.to_str().unwrap();
    assert_eq!(call(&[&volume.meta, at, "-s", "-o", &options]).0, 0, "{:?}", fs::read_to_string(&log));
    let _mounted = Detached(path.clone());
    assert!(is_mounted(&path) && shown(&path).contains(&"noatime".to_owned()));
    sh(&path, "echo text > f; mkdir d");
    assert_eq!(owned(&path.join("d")).0, 0o700);
    let set = |words: &str| call(&[&format!("JuiceFS:{}", support::volume::NAME), at, "-o", words]);
    // Not while somebody writes.
    let open = fs::OpenOptions::new().append(true).open(path.join("f")).unwrap();
    let (code, said) = set("remount,ro");
    assert!(code != 0 && said.contains("open for writing"), "{said}");
    drop(open);
    wait_for("the file to be closed", || set("rw,nosuid,remount,ro").0 == 0);
    assert!(shown(&path).contains(&"ro".to_owned()));
    assert_eq!(fs::write(path.join("g"), "").unwrap_err().raw_os_error(), Some(30));
    assert_eq!(set("remount,rw,noexec"), (0, String::new()));
    assert!(shown(&path).contains(&"noexec".to_owned()) && shown(&path).contains(&"nosuid".to_owned()));
    fs::write(path.join("g"), "x").unwrap();
    support::client::succeed(&["umount", at]);
    wait_for("the unmount", || !is_mounted(&path));
    // One that is served read-only does not become writable.
    let mount = volume.mount(&["--read-only"]);
    let (code, said) = call(&["x", mount.path().to_str().unwrap(), "-o", "remount,rw"]);
    assert!(code != 0 && said.contains("served read-only"), "{said}");
    mount.unmount();
    volume.check();
}

fn listings_are_sorted_and_cached_and_internal_names_prefixed(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=1"]);
    let mount = volume.mount(&["--sort-dir", "--readdir-cache", "--prefix-internal"]);
    let dir = mount.join("d");
    fs::create_dir(&dir).unwrap();
    let mut names: Vec<String> = (0..1200).map(|i| format!("{:x}", i * 7919 % 100_003)).collect();
    for name in &names {
        fs::write(dir.join(name), "").unwrap();
    }
    let list = || -> Vec<String> {
        fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    };
    names.sort();
    assert_eq!(list(), names);
    fs::remove_file(dir.join(&names[7])).unwrap();
    names.remove(7);
    assert_eq!(list(), names);
    sh(
        mount.path(),
        "test -r .jfs.stats; test -r .jfs.config; test -d .jfs.trash; test ! -e .stats; test ! -e .trash
        echo plain > .stats; mkdir .trash; rm -r .stats .trash
        ls -A | grep -q '^[.]jfs[.]trash$'; if rm .jfs.stats 2>/dev/null; then exit 1; fi
        test $(ls .jfs.trash/* | wc -l) -ge 1",
    );
    mount.unmount();
    let mount = volume.mount(&["--hide-internal"]);
    sh(mount.path(), "test $(ls -A) = d; test -r .stats");
    mount.unmount();
    volume.check_but_for_pending();
}
