//! Calls at random.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, FileType, IFlags, OFlags, RenameFlags, XattrFlags};

use crate::calls::{Call, Time, Unnamed};
use crate::support::random::Rng;
use crate::users::USERS;

/// Few names, so that calls meet.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Directories below one another.
const DEPTH_MAX: u64 = 3;
/// Targets of symbolic links, relative to wherever the link is.
const TARGETS: [&str; 9] = ["a", "b", "../a", "../b/c", "c/d", ".", "..", "nowhere", "e"];
const XATTRS: [&str; 7] =
    ["user.a", "user.b", "trusted.t", "security.s", "bogus.x", "user.", "system.unknown"];
pub const ACCESS_ACL: &str = "system.posix_acl_access";
pub const DEFAULT_ACL: &str = "system.posix_acl_default";

/// Families of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Open,
    Write,
    Read,
    Mkdir,
    Mknod,
    Symlink,
    Link,
    Rename,
    RenameFlags,
    Unlink,
    Rmdir,
    Chmod,
    Chown,
    Utimens,
    Truncate,
    Look,
    Access,
    Xattr,
    Acl,
    Chattr,
    Tmpfile,
    Unnamed,
}

/// How often each family is called.
pub const ALL: &[(u64, Kind)] = &[
    (12, Kind::Open),
    (8, Kind::Write),
    (3, Kind::Read),
    (9, Kind::Mkdir),
    (3, Kind::Mknod),
    (4, Kind::Symlink),
    (5, Kind::Link),
    (10, Kind::Rename),
    (6, Kind::RenameFlags),
    (5, Kind::Unlink),
    (4, Kind::Rmdir),
    (10, Kind::Chmod),
    (7, Kind::Chown),
    (5, Kind::Utimens),
    (4, Kind::Truncate),
    (6, Kind::Look),
    (4, Kind::Access),
    (8, Kind::Xattr),
    (8, Kind::Acl),
    (2, Kind::Chattr),
    (3, Kind::Tmpfile),
    (3, Kind::Unnamed),
];

/// Makes calls.
pub struct Source {
    pub rng: Rng,
    kinds: Vec<(u64, Kind)>,
    /// Paths that exist, or did a few calls ago.
    made: Vec<PathBuf>,
    /// Those that are directories.
    dirs: Vec<PathBuf>,
}

impl Source {
    pub fn new(rng: Rng, kinds: Vec<(u64, Kind)>) -> Self {
        Self { rng, kinds, made: Vec::new(), dirs: Vec::new() }
    }

    /// Learns which paths there are.
    pub fn learn(&mut self, root: &Path) {
        self.made.clear();
        self.dirs.clear();
        self.list(root, Path::new(""));
    }

    fn list(&mut self, root: &Path, dir: &Path) {
        self.dirs.push(dir.to_owned());
        let mut entries: Vec<_> = std::fs::read_dir(root.join(dir)).unwrap().map(|e| e.unwrap()).collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = dir.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                self.list(root, &path);
            }
            self.made.push(path);
        }
    }

    fn fresh(&mut self) -> PathBuf {
        let mut path = PathBuf::new();
        let parents = if self.rng.percent(90) { &self.dirs } else { &self.made };
        if !parents.is_empty() {
            path.clone_from(&parents[self.rng.below(parents.len() as u64) as usize]);
            if path.components().count() as u64 > DEPTH_MAX {
                path.pop();
            }
        }
        path.push(self.rng.pick(&NAMES));
        match self.rng.below(200) {
            0 => path.set_file_name("n".repeat(255)),
            1 => path.set_file_name("n".repeat(256)),
            2 => path.push("."),
            3 => path.push(".."),
            4 => path = format!("{}/", path.display()).into(),
            _ => {}
        }
        path
    }

    fn path(&mut self) -> PathBuf {
        if self.made.is_empty() || self.rng.percent(15) {
            return self.fresh();
        }
        let n = self.rng.below(self.made.len() as u64) as usize;
        let path = self.made[n].clone();
        match self.rng.below(100) {
            0 => format!("{}/", path.display()).into(),
            1 => path.join("."),
            2 => path.join("a"),
            _ => path,
        }
    }

    fn either(&mut self) -> PathBuf {
        if self.rng.percent(50) { self.path() } else { self.fresh() }
    }

    fn mode(&mut self) -> u32 {
        let ordinary = [0o644, 0o755, 0o700, 0o777, 0o666, 0o770, 0o750, 0o711];
        match self.rng.below(10) {
            0..=5 => self.rng.pick(&ordinary),
            6 => self.rng.below(0o10000) as u32,
            7 => 0o4755,
            8 => 0o2775,
            _ => 0o1777,
        }
    }

    fn time(&mut self) -> Time {
        match self.rng.below(6) {
            0 => Time::Omit,
            1 | 2 => Time::Now,
            3 => Time::At(-(self.rng.below(1 << 30) as i64), self.rng.below(1_000_000_000) as i64),
            _ => Time::At(self.rng.below(1 << 33) as i64, self.rng.below(1_000_000_000) as i64),
        }
    }

    fn id(&mut self, of: fn(usize) -> u32) -> Option<u32> {
        let n = self.rng.below(5) as usize;
        (n < 4).then(|| if n < 3 { of(n) } else { 1200 })
    }

    fn acl(&mut self) -> Vec<u8> {
        let mut out = 2_u32.to_le_bytes().to_vec();
        let mut add = |tag: u16, perm: u64, id: u32| {
            out.extend(tag.to_le_bytes());
            out.extend((perm as u16).to_le_bytes());
            out.extend(id.to_le_bytes());
        };
        add(1, self.rng.below(8), u32::MAX);
        let (user, group) = (self.rng.percent(50), self.rng.percent(50));
        if user {
            add(2, self.rng.below(8), USERS[1 + self.rng.below(2) as usize].uid);
        }
        add(4, self.rng.below(8), u32::MAX);
        if group {
            add(8, self.rng.below(8), self.rng.pick(&[1200, 1201, 1101]));
        }
        // Without a mask beside named entries it is malformed.
        if (user || group) && !self.rng.percent(5) || self.rng.percent(10) {
            add(16, self.rng.below(8), u32::MAX);
        }
        add(32, self.rng.below(8), u32::MAX);
        out
    }

    /// The next call.
    pub fn call(&mut self) -> Call {
        let kind = self.rng.weighted(&self.kinds);
        let follow = self.rng.percent(60);
        match kind {
            Kind::Open => {
                let mut flags = self.rng.pick(&[OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR]);
                for (percent, flag) in [
                    (70, OFlags::CREATE),
                    (25, OFlags::EXCL),
                    (15, OFlags::TRUNC),
                    (10, OFlags::NOFOLLOW),
                    (8, OFlags::DIRECTORY),
                    (5, OFlags::APPEND),
                    (2, OFlags::PATH),
                ] {
                    if self.rng.percent(percent) {
                        flags |= flag;
                    }
                }
                Call::Open { path: self.either(), flags, mode: self.mode(), write: None }
            }
            Kind::Write => {
                let mut flags = self.rng.pick(&[OFlags::WRONLY, OFlags::RDWR]);
                if self.rng.percent(30) {
                    flags |= OFlags::APPEND;
                }
                let write = Some((self.rng.below(20_000), self.rng.below(9000) as usize));
                Call::Open { path: self.path(), flags, mode: 0, write }
            }
            Kind::Read => Call::Read { path: self.path() },
            Kind::Mkdir => Call::Mkdir { path: self.fresh(), mode: self.mode() },
            Kind::Mknod => {
                let kinds =
                    [FileType::Fifo, FileType::Socket, FileType::RegularFile, FileType::CharacterDevice];
                let kind = self.rng.pick(&kinds);
                let dev = if kind == FileType::CharacterDevice { rustix::fs::makedev(1, 3) } else { 0 };
                Call::Mknod { path: self.fresh(), kind, mode: self.mode(), dev }
            }
            Kind::Symlink => Call::Symlink { target: self.rng.pick(&TARGETS).into(), path: self.fresh() },
            Kind::Link => Call::Link { old: self.path(), new: self.either(), follow: !follow },
            Kind::Rename => {
                Call::Rename { old: self.path(), new: self.either(), flags: RenameFlags::empty() }
            }
            Kind::RenameFlags => {
                let flags = self.rng.pick(&[
                    RenameFlags::NOREPLACE,
                    RenameFlags::EXCHANGE,
                    RenameFlags::EXCHANGE,
                    RenameFlags::WHITEOUT,
                    RenameFlags::NOREPLACE.union(RenameFlags::EXCHANGE),
                ]);
                Call::Rename { old: self.path(), new: self.either(), flags }
            }
            Kind::Unlink => Call::Unlink { path: self.path() },
            Kind::Rmdir => Call::Rmdir { path: self.path() },
            Kind::Chmod => Call::Chmod { path: self.path(), mode: self.mode() },
            Kind::Chown => Call::Chown {
                path: self.path(),
                uid: self.id(|n| USERS[n].uid),
                gid: self.id(|n| USERS[n].gid),
                follow,
            },
            Kind::Utimens => {
                Call::Utimens { path: self.path(), atime: self.time(), mtime: self.time(), follow }
            }
            Kind::Truncate => Call::Truncate { path: self.path(), len: self.rng.below(30_000) },
            Kind::Look => match self.rng.below(3) {
                0 => Call::Readdir { path: self.path() },
                1 => Call::Readlink { path: self.path() },
                _ => Call::Stat { path: self.path(), follow },
            },
            Kind::Access => {
                let mut mask = Access::EXISTS;
                for one in [Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK] {
                    if self.rng.percent(50) {
                        mask |= one;
                    }
                }
                Call::Access { path: self.path(), mask }
            }
            Kind::Xattr => {
                let (path, name) = (self.path(), self.rng.pick(&XATTRS));
                match self.rng.below(5) {
                    0 => Call::GetXattr { path, name, follow },
                    1 => Call::ListXattr { path, follow },
                    2 => Call::RemoveXattr { path, name, follow },
                    _ => {
                        let flags = [
                            XattrFlags::empty(),
                            XattrFlags::empty(),
                            XattrFlags::CREATE,
                            XattrFlags::REPLACE,
                        ];
                        let flags = self.rng.pick(&flags);
                        let value = crate::support::noise(self.rng.next(), self.rng.below(60) as usize);
                        Call::SetXattr { path, name, value, flags, follow }
                    }
                }
            }
            Kind::Acl => {
                let (path, name) = (self.path(), self.rng.pick(&[ACCESS_ACL, DEFAULT_ACL]));
                match self.rng.below(6) {
                    0 => Call::GetXattr { path, name, follow },
                    1 => Call::RemoveXattr { path, name, follow },
                    2 => Call::ListXattr { path, follow },
                    _ => Call::SetXattr { path, name, value: self.acl(), flags: XattrFlags::empty(), follow },
                }
            }
            Kind::Chattr => {
                let flags = self.rng.pick(&[
                    IFlags::empty(),
                    IFlags::empty(),
                    IFlags::empty(),
                    IFlags::IMMUTABLE,
                    IFlags::APPEND,
                ]);
                Call::Chattr { path: self.path(), flags }
            }
            Kind::Tmpfile => Call::Tmpfile { dir: self.path(), mode: self.mode(), link: self.fresh() },
            Kind::Unnamed => {
                let then = match self.rng.below(5) {
                    0 => Unnamed::Stat,
                    1 => Unnamed::Chmod(self.mode()),
                    2 => Unnamed::Truncate(self.rng.below(9000)),
                    3 => Unnamed::Xattr,
                    _ => Unnamed::Times,
                };
                Call::Unnamed { path: self.path(), then }
            }
        }
    }
}
