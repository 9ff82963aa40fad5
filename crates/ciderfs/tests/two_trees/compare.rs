//! Looking at both trees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, RenameFlags, Stat};
use rustix::io::Errno;

use crate::calls::{Call, Time, describe};

/// What is seen of a path, itself and what it leads to.
pub type Seen = BTreeMap<(PathBuf, bool), Result<Stat, Errno>>;

/// Attributes of the paths of a call and of their directories, as root sees them.
pub fn look(root: &Path, call: &Call) -> Seen {
    let mut seen = Seen::new();
    for path in call.paths() {
        let parent = path.parent().unwrap_or(Path::new(""));
        for (path, follow) in [(path, false), (path, true), (parent, true)] {
            let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
            seen.insert((path.to_owned(), follow), rustix::fs::statat(CWD, root.join(path), flags));
        }
    }
    seen
}

/// What a call did, in words that must be the same for both trees: the attributes after it, and which times changed.
pub fn effects(call: &Call, done: bool, before: &Seen, after: &Seen) -> BTreeMap<(PathBuf, bool), String> {
    // ext4 puts the whiteout in place before it knows that the target cannot be replaced, takes it away again, and leaves the
    // directory's times changed by a rename that has failed. We do not.
    let failed_whiteout =
        !done && matches!(call, Call::Rename { flags, .. } if flags.contains(RenameFlags::WHITEOUT));
    after
        .iter()
        .map(|(key, now)| {
            let text = match (before.get(key), now) {
                (_, Err(e)) => format!("{e:?}"),
                (Some(Ok(was)), Ok(now)) if was.st_ino == now.st_ino && !failed_whiteout => {
                    let modified = (was.st_mtime, was.st_mtime_nsec) != (now.st_mtime, now.st_mtime_nsec);
                    let changed = (was.st_ctime, was.st_ctime_nsec) != (now.st_ctime, now.st_ctime_nsec);
                    format!("{}, mtime changed: {modified}, ctime changed: {changed}", describe(now))
                }
                (_, Ok(now)) => describe(now),
            };
            let exact = match (call, now) {
                (Call::Utimens { path, atime, mtime, follow }, Ok(s))
                    if done && *path == key.0 && *follow == key.1 =>
                {
                    let show = |t: &Time, sec: i64, nsec: u64| match t {
                        Time::At(..) => format!("{sec}.{nsec:09}"),
                        _ => "-".to_owned(),
                    };
                    format!(
                        ", atime {}, mtime {}",
                        show(atime, s.st_atime, s.st_atime_nsec),
                        show(mtime, s.st_mtime, s.st_mtime_nsec)
                    )
                }
                _ => String::new(),
            };
            (key.clone(), text + &exact)
        })
        .collect()
}

/// Everything in a tree, by path.
pub fn whole(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut out = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    walk(root, Path::new(""), &mut first_names, &mut out);
    out
}

fn walk(
    root: &Path,
    path: &Path,
    first_names: &mut BTreeMap<u64, PathBuf>,
    out: &mut BTreeMap<PathBuf, String>,
) {
    let full = root.join(path);
    let s = rustix::fs::statat(CWD, &full, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let m = fs::symlink_metadata(&full).unwrap();
    let mut text = describe(&s);
    let same = first_names.entry(m.ino()).or_insert_with(|| path.to_owned());
    text += &format!(", first name {}", same.display());
    if m.is_symlink() {
        text += &format!(" -> {}", fs::read_link(&full).unwrap().display());
    }
    if m.is_file() {
        text += &format!(", content {:?}", Call::Read { path: path.to_owned() }.run(root));
    }
    let names = Call::ListXattr { path: path.to_owned(), follow: false }.run(root);
    if let Ok(names) = &names {
        for name in names.split_whitespace() {
            let mut value = vec![0; 4096];
            let n = rustix::fs::lgetxattr(&full, name, &mut value[..]).unwrap();
            text += &format!(", {name} {:02x?}", &value[..n]);
        }
    }
    out.insert(path.to_owned(), text);
    if m.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&full).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            walk(root, &path.join(name), first_names, out);
        }
    }
}

/// Lines in which two trees differ.
pub fn differences<K: Ord + std::fmt::Debug>(
    local: &BTreeMap<K, String>,
    mounted: &BTreeMap<K, String>,
) -> Vec<String> {
    let keys: std::collections::BTreeSet<&K> = local.keys().chain(mounted.keys()).collect();
    keys.into_iter()
        .filter(|k| local.get(*k) != mounted.get(*k))
        .map(|k| format!("{k:?}\n  ext4  {:?}\n  mount {:?}", local.get(k), mounted.get(k)))
        .collect()
}
