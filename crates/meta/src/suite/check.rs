//! The whole volume checked against itself: every inode number ever handed out is looked at.

use std::collections::{BTreeMap, BTreeSet};

use ciderfs_format::{Attr, FileType, Ino, SliceId, align4k};

use crate::store::{Counter, DirCursor, DirEntry, DirStat, QuotaKey, Read, Scan, Scanned, Store, Value};

/// Reads per call.
const BATCH: usize = 2000;

/// What a volume holds.
#[derive(Default)]
struct Volume {
    nodes: BTreeMap<Ino, Attr>,
    dirs: BTreeMap<Ino, Vec<DirEntry>>,
    /// Where the entries of an inode are.
    links: BTreeMap<Ino, Vec<Ino>>,
    sustained: BTreeSet<Ino>,
    delfiles: BTreeSet<Ino>,
}

/// Panics if the volume contradicts itself.
pub(super) async fn check(s: &dyn Store) {
    let v = load(s).await;
    v.check_links();
    v.check_reachable();
    v.check_usage(s).await;
    v.check_quotas(s).await;
    v.check_belongings(s).await;
    v.check_slices(s).await;
}

async fn values(s: &dyn Store, reads: &[Read]) -> Vec<Value> {
    let mut out = Vec::new();
    for batch in reads.chunks(BATCH) {
        out.extend(s.read(batch).await.unwrap());
    }
    out
}

async fn int(s: &dyn Store, c: Counter) -> i64 {
    match s.read(&[Read::Counter(c)]).await.unwrap().remove(0) {
        Value::Int(n) => n,
        other => panic!("{other:?}"),
    }
}

/// Every inode number that may be in use.
async fn numbers(s: &dyn Store) -> Vec<Ino> {
    let end = s.allocate(Counter::NextInode, 1).await.unwrap().start;
    let hours = int(s, Counter::NextTrash).await as u64;
    (1..end).chain(Ino::TRASH.0..=Ino::TRASH.0 + hours).map(Ino).collect()
}

async fn load(s: &dyn Store) -> Volume {
    let mut v = Volume::default();
    let all = numbers(s).await;
    let reads: Vec<Read> = all.iter().map(|i| Read::Attr(*i)).collect();
    for (ino, value) in all.iter().zip(values(s, &reads).await) {
        if let Value::Attr(Some(a)) = value {
            v.nodes.insert(*ino, a);
        }
    }
    let reads: Vec<Read> = all.iter().map(|i| Read::DirEmpty(*i)).collect();
    for (ino, value) in all.iter().zip(values(s, &reads).await) {
        let is_dir = v.nodes.get(ino).is_some_and(Attr::is_dir);
        assert!(is_dir || value == Value::Bool(true), "inode {ino} has entries but is no directory");
        if is_dir {
            let entries = list(s, *ino).await;
            for e in &entries {
                v.links.entry(e.edge.ino).or_default().push(*ino);
            }
            v.dirs.insert(*ino, entries);
        }
    }
    for session in s.scan(&Scan::Sessions, usize::MAX).await.unwrap() {
        let Scanned::Session(sid, ..) = session else { panic!("{session:?}") };
        for item in s.scan(&Scan::Sustained(sid), usize::MAX).await.unwrap() {
            let Scanned::Ino(ino) = item else { panic!("{item:?}") };
            v.sustained.insert(ino);
        }
    }
    for item in s.scan(&Scan::Delfiles(i64::MAX >> 1), usize::MAX).await.unwrap() {
        let Scanned::Delfile(ino, ..) = item else { panic!("{item:?}") };
        v.delfiles.insert(ino);
    }
    v
}

async fn list(s: &dyn Store, dir: Ino) -> Vec<DirEntry> {
    let mut out = BTreeMap::new();
    let mut cursor = DirCursor::Start;
    while cursor != DirCursor::End {
        let (page, next) = s.list_dir(dir, &cursor, 1000, false).await.unwrap();
        out.extend(page.into_iter().map(|e| (e.name.clone(), e)));
        cursor = next;
    }
    out.into_values().collect()
}

impl Volume {
    /// Link counts, parents, types.
    fn check_links(&self) {
        for (dir, entries) in &self.dirs {
            for e in entries {
                let name = e.name.escape_ascii();
                let Some(a) = self.nodes.get(&e.edge.ino) else {
                    panic!("entry {name} of {dir} points to {}, which does not exist", e.edge.ino)
                };
                assert_eq!(a.kind, e.edge.kind, "type of entry {name} of {dir}");
            }
        }
        for (ino, a) in &self.nodes {
            let places = self.links.get(ino).map_or(&[][..], Vec::as_slice);
            if matches!(*ino, Ino::ROOT | Ino::TRASH) {
                assert!(places.is_empty(), "an entry points to {ino}");
            } else if a.is_dir() {
                assert_eq!(places.len(), 1, "entries of directory {ino}: {places:?}");
                assert_eq!(a.parent, places[0], "parent of directory {ino}");
            } else {
                assert_eq!(a.nlink as usize, places.len(), "links of inode {ino}: {places:?}, {a:?}");
                if places.is_empty() {
                    assert!(self.sustained.contains(ino), "inode {ino} has no name: {a:?}");
                } else if a.parent.0 != 0 {
                    assert_eq!([a.parent], places, "parent of inode {ino}");
                }
            }
            if a.is_dir() && !ino.is_trash() {
                let subdirs = self.dirs[ino].iter().filter(|e| e.edge.kind == FileType::Directory).count();
                assert_eq!(a.nlink as usize, 2 + subdirs, "link count of directory {ino}");
            }
        }
        for ino in &self.sustained {
            let nlink = self.nodes.get(ino).map(|a| a.nlink);
            assert_eq!(nlink, Some(0), "sustained inode {ino}");
        }
        for ino in &self.delfiles {
            assert!(!self.nodes.contains_key(ino), "inode {ino} lives and is to be deleted");
        }
    }

    /// Every directory hangs on the root or the trash: no loops apart from the tree.
    fn check_reachable(&self) {
        let mut seen = BTreeSet::new();
        let mut stack = vec![Ino::ROOT, Ino::TRASH];
        while let Some(dir) = stack.pop() {
            assert!(seen.insert(dir), "directory {dir} is reached twice");
            let subdirs = self.dirs.get(&dir).into_iter().flatten();
            stack.extend(subdirs.filter(|e| e.edge.kind == FileType::Directory).map(|e| e.edge.ino));
        }
        for dir in self.dirs.keys() {
            assert!(seen.contains(dir), "directory {dir} cannot be reached from the root");
        }
    }

    /// Usage under quotas of directories; of users and groups, where it is counted.
    async fn check_quotas(&self, s: &dyn Store) {
        for item in s.scan(&Scan::DirQuotas, usize::MAX).await.unwrap() {
            let Scanned::Quota(QuotaKey::Dir(top), q) = item else { panic!("{item:?}") };
            assert!(self.dirs.contains_key(&top), "a quota of {top}, no directory");
            let (mut space, mut inodes, mut stack) = (0, 0, vec![top]);
            while let Some(dir) = stack.pop() {
                for e in &self.dirs[&dir] {
                    space += self.nodes[&e.edge.ino].charged_space() as i64;
                    inodes += 1;
                    stack.extend((e.edge.kind == FileType::Directory).then_some(e.edge.ino));
                }
            }
            assert_eq!((q.used_space, q.used_inodes), (space, inodes), "usage below directory {top}");
        }
        let settings = crate::Meta::read_settings(s).await.unwrap();
        if !settings.is_some_and(|s| s.user_group_quota) {
            return;
        }
        let mut owned: BTreeMap<QuotaKey, (i64, i64)> = BTreeMap::new();
        for (_, a) in self.nodes.iter().filter(|(i, _)| **i != Ino::ROOT && !i.is_trash()) {
            for key in [QuotaKey::User(a.uid), QuotaKey::Group(a.gid)] {
                let sum = owned.entry(key).or_default();
                *sum = (sum.0 + a.charged_space() as i64, sum.1 + 1);
            }
        }
        for item in s.scan(&Scan::OwnerQuotas, usize::MAX).await.unwrap() {
            let Scanned::Quota(key, q) = item else { panic!("{item:?}") };
            let found = owned.remove(&key).unwrap_or_default();
            assert_eq!((q.used_space, q.used_inodes), found, "usage of {key:?}");
        }
        assert!(owned.is_empty(), "not counted: {owned:?}");
    }

    /// Counters of the volume and usage records of directories.
    async fn check_usage(&self, s: &dyn Store) {
        let charged: Vec<&Attr> = self
            .nodes
            .iter()
            .filter(|(i, _)| **i != Ino::ROOT && **i != Ino::TRASH)
            .map(|(_, a)| a)
            .collect();
        let space: u64 = charged.iter().map(|a| a.charged_space()).sum();
        assert_eq!(int(s, Counter::TotalInodes).await, charged.len() as i64, "inodes of the volume");
        assert_eq!(int(s, Counter::UsedSpace).await, space as i64, "space of the volume");
        let dirs: Vec<Ino> = numbers(s).await;
        let reads: Vec<Read> = dirs.iter().map(|i| Read::DirStat(*i)).collect();
        for (dir, value) in dirs.iter().zip(values(s, &reads).await) {
            let Value::DirStat(Some(found)) = value else { continue };
            let entries = self.dirs.get(dir).unwrap_or_else(|| panic!("usage record of {dir}, no directory"));
            let mut want = DirStat::default();
            for e in entries {
                let a = &self.nodes[&e.edge.ino];
                want.inodes += 1;
                want.length += if a.is_file() { a.length as i64 } else { 0 };
                want.space += if a.is_file() { align4k(a.length) as i64 } else { 4096 };
            }
            assert_eq!(found, want, "usage record of directory {dir}");
        }
    }

    /// Symlink targets, extended attributes, parents: there for the right inodes, gone with them.
    async fn check_belongings(&self, s: &dyn Store) {
        let all = numbers(s).await;
        let reads: Vec<Read> =
            all.iter().flat_map(|i| [Read::Symlink(*i), Read::XattrNames(*i), Read::Parents(*i)]).collect();
        let found = values(s, &reads).await;
        for (ino, v) in all.iter().zip(found.chunks(3)) {
            let a = self.nodes.get(ino);
            let is_link = a.is_some_and(|a| a.kind == FileType::Symlink);
            assert_eq!(v[0] != Value::Bytes(None), is_link, "target of {ino}: {a:?}");
            assert!(
                a.is_some() || v[1] == Value::Names(Vec::new()),
                "extended attributes of {ino}: {:?}",
                v[1]
            );
            let Value::Parents(parents) = &v[2] else { panic!("{:?}", v[2]) };
            match a {
                Some(a) if a.parent.0 == 0 && a.nlink > 0 => {
                    let mut want: BTreeMap<Ino, i64> = BTreeMap::new();
                    for dir in &self.links[ino] {
                        *want.entry(*dir).or_default() += 1;
                    }
                    let found: BTreeMap<Ino, i64> = parents.iter().copied().collect();
                    assert_eq!(found, want, "parents of {ino}");
                }
                Some(_) => {}
                None => assert_eq!(parents, &[], "parents of {ino}, which does not exist"),
            }
        }
    }

    /// Slices in lists, waiting after a compaction, and their references.
    async fn check_slices(&self, s: &dyn Store) {
        let mut uses: BTreeMap<(SliceId, u32), i64> = BTreeMap::new();
        // A scan for each file that has data; for everything else the first chunks tell enough and can be asked for together.
        let files = self.nodes.iter().filter(|(_, a)| a.is_file());
        let (empty, filled): (Vec<_>, Vec<_>) = files.partition(|(_, a)| a.length == 0);
        let filled: BTreeSet<Ino> =
            filled.into_iter().map(|(i, _)| *i).chain(self.delfiles.iter().copied()).collect();
        let empty: BTreeSet<Ino> = empty.into_iter().map(|(i, _)| *i).collect();
        let first = |ino: Ino| (0..3).map(move |indx| Read::Slices(ino, indx));
        let mut lists: Vec<Read> = empty.iter().copied().flat_map(first).collect();
        for ino in &filled {
            for item in s.scan(&Scan::Chunks(*ino), usize::MAX).await.unwrap() {
                let Scanned::Chunk(indx) = item else { panic!("{item:?}") };
                lists.push(Read::Slices(*ino, indx));
            }
        }
        for value in values(s, &lists).await {
            let Value::Slices(list) = value else { panic!("{value:?}") };
            for slice in list.iter().filter(|s| s.id.is_data()) {
                *uses.entry((slice.id, slice.size)).or_default() += 1;
            }
        }
        let others = numbers(s).await.into_iter().filter(|i| !filled.contains(i) && !empty.contains(i));
        let reads: Vec<Read> = others.flat_map(first).collect();
        for (read, value) in reads.iter().zip(values(s, &reads).await) {
            assert_eq!(value, Value::Slices(Vec::new()), "a list that belongs to nobody: {read:?}");
        }
        for item in s.scan(&Scan::DelayedSlices, usize::MAX).await.unwrap() {
            let Scanned::Delayed(_, _, list) = item else { panic!("{item:?}") };
            for slice in list {
                *uses.entry(slice).or_default() += 1;
            }
        }
        let reads: Vec<Read> = uses.keys().map(|(id, size)| Read::SliceRefs(*id, *size)).collect();
        for ((slice, n), value) in uses.iter().zip(values(s, &reads).await) {
            assert_eq!(value, Value::Int(*n), "references of slice {slice:?}");
        }
    }
}
