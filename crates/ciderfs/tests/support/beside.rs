//! The same command lines in a directory of ext4 and on a mount.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::UnmountFlags;
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use super::client::{PATIENCE, Ran, run_within, sh, wait_for};

/// On whose behalf a command line runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The superuser.
    Root,
    /// A user with a group of the same number, and more groups.
    User(u32, &'static [u32]),
}

/// What is known of an entry; times are compared by whether they change.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u64,
    length: Option<u64>,
}

type Times = BTreeMap<PathBuf, ((i64, i64), (i64, i64))>;

/// A directory of ext4 with extended attributes and ACLs.
pub struct Ext4 {
    path: PathBuf,
    is_mounted: bool,
    dir: TempDir,
}

impl Ext4 {
    /// In the machine's directory for temporary files if that is ext4, else in a file system of its own.
    #[track_caller]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ciderfs-ext4").tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let path = dir.path().join("fs");
        fs::create_dir(&path).unwrap();
        let is_ext4 = sh(&path, "stat -f -c %T .").trim() == "ext2/ext3";
        let works = || {
            let script = "touch t && setfattr -n user.t -v 1 t && setfacl -m u:1:r t; e=$?; rm -f t; exit $e";
            run_within(Command::new("sh").args(["-c", script]).current_dir(&path), PATIENCE).code == 0
        };
        if is_ext4 && works() {
            return Self { path, is_mounted: false, dir };
        }
        sh(dir.path(), "truncate -s 64M img && mkfs.ext4 -q img && mount -o loop,acl,user_xattr img fs");
        let ext4 = Self { path, is_mounted: true, dir };
        fs::remove_dir(ext4.path.join("lost+found")).unwrap();
        ext4
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        }
        let _ = &self.dir;
    }
}

/// Runs command lines here and there.
pub struct Beside<'a> {
    here: &'a Path,
    there: &'a Path,
    lines: usize,
}

impl<'a> Beside<'a> {
    /// `ext4` is the model of `mount`. Both are empty but for virtual files.
    pub fn new(ext4: &'a Ext4, mount: &'a Path) -> Self {
        for dir in [ext4.path(), mount] {
            fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
        }
        Self { here: ext4.path(), there: mount, lines: 0 }
    }

    /// Runs a line on both sides: output, exit code, resulting attributes, and which times advance must be the same.
    /// Returns the output.
    #[track_caller]
    pub fn line(&mut self, who: Who, line: &str) -> String {
        self.lines += 1;
        let (here, times_here) = run(self.here, who, line);
        let (there, times_there) = run(self.there, who, line);
        let said = |r: &Ran| format!("exit code {}\n{}{}", r.code, r.stdout, r.stderr);
        assert_eq!(said(&there), said(&here), "{who:?}: {line}\nleft: the mount, right: ext4");
        assert_eq!(stats(self.there), stats(self.here), "{who:?}: {line}\nleft: the mount, right: ext4");
        assert_eq!(times_there, times_here, "times after {who:?}: {line}\nleft: the mount, right: ext4");
        here.stdout
    }

    /// Runs lines as one user.
    #[track_caller]
    pub fn lines(&mut self, who: Who, lines: &[&str]) {
        for line in lines {
            self.line(who, line);
        }
    }

    /// Lines run so far.
    pub fn count(&self) -> usize {
        self.lines
    }
}

/// Runs a line. Also tells which entries, there before and after, have another mtime and ctime.
#[track_caller]
fn run(dir: &Path, who: Who, line: &str) -> (Ran, BTreeMap<PathBuf, (bool, bool)>) {
    let mut command = match who {
        Who::Root => Command::new("sh"),
        Who::User(uid, groups) => {
            let mut c = Command::new("setpriv");
            let list: Vec<String> = groups.iter().chain([&uid]).map(u32::to_string).collect();
            c.args([
                format!("--reuid={uid}"),
                format!("--regid={uid}"),
                format!("--groups={}", list.join(",")),
            ]);
            c.arg("sh");
            c
        }
    };
    // Listings in a file system's own order are sorted.
    let prelude = "acls() { find \"$@\" ! -type l | sort | getfacl -n -; }";
    command.args(["-c", &format!("{prelude}\n{line}")]).current_dir(dir).env("LC_ALL", "C");
    command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let before = times(dir);
    next_tick();
    let ran = run_within(&mut command, PATIENCE);
    let after = times(dir);
    let changed = before
        .iter()
        .filter_map(|(path, b)| after.get(path).map(|a| (path.clone(), (a.0 != b.0, a.1 != b.1))))
        .collect();
    (ran, changed)
}

/// Waits until a file system with coarse times gives another one.
fn next_tick() {
    let now = || {
        let t = clock_gettime(ClockId::RealtimeCoarse);
        (t.tv_sec, t.tv_nsec)
    };
    let start = now();
    while now() == start {
        std::thread::yield_now();
    }
}

#[track_caller]
fn times(dir: &Path) -> Times {
    let mut out = Times::new();
    walk(dir, Path::new(""), &mut |path, m| {
        out.insert(path, ((m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec())));
    });
    out
}

#[track_caller]
fn stats(dir: &Path) -> BTreeMap<PathBuf, Stat> {
    let mut out = BTreeMap::new();
    walk(dir, Path::new(""), &mut |path, m| {
        let length = (!m.is_dir()).then(|| m.size());
        let stat = Stat { mode: m.mode(), uid: m.uid(), gid: m.gid(), nlink: m.nlink(), length };
        out.insert(path, stat);
    });
    out
}

/// Everything below a directory, virtual files of a mount's root left out.
#[track_caller]
fn walk(root: &Path, at: &Path, f: &mut dyn FnMut(PathBuf, fs::Metadata)) {
    let mut entries: Vec<_> = fs::read_dir(root.join(at)).unwrap().map(|e| e.unwrap().file_name()).collect();
    entries.sort();
    for name in entries {
        let virtual_name = matches!(name.as_bytes(), b".stats" | b".config" | b".accesslog" | b".control");
        if at.as_os_str().is_empty() && virtual_name {
            continue;
        }
        let path = at.join(name);
        let m = fs::symlink_metadata(root.join(&path)).unwrap();
        let is_dir = m.is_dir();
        f(path.clone(), m);
        if is_dir {
            walk(root, &path, f);
        }
    }
}

/// Waits until something on a mount is as expected: another client's change shows when the kernel's attributes expire.
#[track_caller]
pub fn shows(what: &str, mut found: impl FnMut() -> String, want: &str) {
    let mut last = String::new();
    wait_for(&format!("{what}: {want}"), || {
        last = found();
        last == want
    });
}
