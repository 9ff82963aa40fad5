//! Comparing directory trees, and counting what they use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::Hasher as _;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Bytes that look random, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        out.extend_from_slice(&x.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Everything about a file that two clients must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: (i64, i64),
    nlink: u64,
    rdev: u64,
    inode: u64,
    target: Option<PathBuf>,
    content: Option<u64>,
    listing: Option<Vec<Vec<u8>>>,
}

/// A tree by path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree(pub BTreeMap<PathBuf, Node>);

/// Names that exist in the root of a mount only to be looked at.
fn is_virtual(name: &[u8]) -> bool {
    matches!(name, b".stats" | b".config" | b".accesslog" | b".control" | b".trash")
}

impl Tree {
    /// Reads a tree, contents included, without the virtual files of a mount's root.
    #[track_caller]
    pub fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.add(root, Path::new("."));
        tree
    }

    /// Without inode numbers, for comparing with a copy.
    pub fn without_inodes(mut self) -> Self {
        for node in self.0.values_mut() {
            node.inode = 0;
            if node.listing.is_some() {
                // Sizes and link counts of directories are each file system's own affair.
                (node.size, node.nlink) = (0, 0);
            }
        }
        self
    }

    #[track_caller]
    fn add(&mut self, root: &Path, path: &Path) {
        let full = root.join(path);
        let m = fs::symlink_metadata(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()));
        let kind = m.file_type();
        let mut node = Node {
            mode: m.mode(),
            uid: m.uid(),
            gid: m.gid(),
            size: m.size(),
            mtime: (m.mtime(), m.mtime_nsec()),
            nlink: m.nlink(),
            rdev: if kind.is_block_device() || kind.is_char_device() { m.rdev() } else { 0 },
            inode: m.ino(),
            target: None,
            content: None,
            listing: None,
        };
        if kind.is_symlink() {
            node.target = Some(fs::read_link(&full).unwrap());
        } else if kind.is_file() {
            node.content = Some(digest(&full, m.size()));
        } else if kind.is_dir() {
            let mut names: Vec<Vec<u8>> = fs::read_dir(&full)
                .unwrap_or_else(|e| panic!("{}: {e}", full.display()))
                .map(|e| e.unwrap().file_name().as_bytes().to_vec())
                .filter(|name| path != Path::new(".") || !is_virtual(name))
                .collect();
            names.sort();
            for name in &names {
                self.add(root, &path.join(std::ffi::OsStr::from_bytes(name)));
            }
            node.listing = Some(names);
        }
        self.0.insert(path.to_owned(), node);
    }
}

/// Digest of a file's content, which must be as long as its attributes say.
#[track_caller]
fn digest(path: &Path, size: u64) -> u64 {
    let mut file = fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut hasher = std::hash::DefaultHasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let n = file.read(&mut buffer).unwrap_or_else(|e| panic!("reading {}: {e}", path.display()));
        if n == 0 {
            break;
        }
        // Byte by byte semantics: how reads were cut must not matter.
        buffer[..n].iter().for_each(|b| hasher.write_u8(*b));
        total += n as u64;
    }
    assert_eq!(total, size, "bytes read from {}", path.display());
    hasher.finish()
}

/// Fails with the differences.
#[track_caller]
pub fn assert_same(what: &str, expected: &Tree, found: &Tree) {
    let paths: BTreeSet<&PathBuf> = expected.0.keys().chain(found.0.keys()).collect();
    let mut differences = Vec::new();
    for path in paths {
        let (a, b) = (expected.0.get(path), found.0.get(path));
        if a != b {
            differences.push(format!("{}:\n  expected {a:?}\n  found    {b:?}", path.display()));
        }
    }
    let n = differences.len();
    differences.truncate(10);
    assert!(n == 0, "{what}: {n} differences\n{}", differences.join("\n"));
}

/// Space and inodes used by everything below a mount's root, its trash included: lengths rounded up to pages, one page for
/// whatever has no data, the root and the trash itself free.
#[track_caller]
pub fn walk_usage(root: &Path) -> (u64, u64) {
    let mut seen = BTreeSet::new();
    let mut used = (0, 0);
    walk(root, true, true, &mut seen, &mut used);
    let trash = root.join(".trash");
    if let Ok(hours) = fs::read_dir(&trash) {
        for hour in hours {
            walk(&hour.unwrap().path(), false, false, &mut seen, &mut used);
        }
    }
    used
}

#[track_caller]
fn walk(path: &Path, free: bool, is_root: bool, seen: &mut BTreeSet<u64>, used: &mut (u64, u64)) {
    let m = match fs::symlink_metadata(path) {
        Ok(m) => m,
        Err(e) => panic!("{}: {e}", path.display()),
    };
    if !free && seen.insert(m.ino()) {
        let length = if m.is_file() { m.size().max(1) } else { 1 };
        used.0 += length.div_ceil(4096) * 4096;
        used.1 += 1;
    }
    if m.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if !(is_root && is_virtual(entry.file_name().as_bytes())) {
                walk(&entry.path(), false, false, seen, used);
            }
        }
    }
}
