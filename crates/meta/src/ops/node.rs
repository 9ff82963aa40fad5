//! The copy of one node, in a commit with others (`super::clone`).
#![deny(clippy::arithmetic_side_effects, reason = "users and damaged records control these numbers")]

use std::collections::{BTreeMap, HashMap};

use ciderfs_format::attr::flags;
use ciderfs_format::slice::chunk_count;
use ciderfs_format::{Attr, Edge, FileType, Ino};

use super::clone::CloneOptions;
use super::rules::{R, X};
use crate::error::{Errno, Result};
use crate::proof::Proof;
use crate::store::{AttrMask, AttrPatch, Read, Write};
use crate::txn::{Step, Txn};
use crate::types::Caller;
use crate::volume::Meta;

/// Lists of slices of a file in one commit that are not looked up before.
const LISTS_MAX: u32 = 8192;
/// Extended attributes that only the superuser gives, besides those whose bearers are checked where they are used.
const PRIVILEGED: [&[u8]; 2] = [b"trusted.", b"security."];
/// Where the volume keeps something about itself, on its root.
const INTERNAL: &[u8] = b"lastBackup";

/// Of very long files: as they were, and the indexes of the lists that they had afterwards.
pub(super) type Lists = HashMap<Ino, (Attr, Vec<u32>)>;

/// A node to copy.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) name: Vec<u8>,
    pub(super) from: Ino,
    /// The number of the copy.
    pub(super) copy: Ino,
}

/// A node that was copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    pub(super) from: Ino,
    pub(super) copy: Ino,
    pub(super) is_dir: bool,
    /// Bytes that it takes.
    pub(super) space: i64,
}

/// How nodes are copied, and for whom.
pub(super) struct Copying {
    pub(super) caller: Caller,
    pub(super) preserve: bool,
    pub(super) at_once: usize,
    /// Are there usage records of directories?
    pub(super) stats: bool,
    umask: u16,
    without_xattrs: Option<&'static [u8]>,
}

/// The lists of a very long file are to be looked up first, or again.
struct Look;

impl Copying {
    pub(super) fn new(c: &Caller, options: &CloneOptions, stats: bool) -> Self {
        Self {
            caller: c.clone(),
            preserve: options.preserve,
            at_once: options.at_once.max(1),
            stats,
            umask: options.umask,
            without_xattrs: options.without_xattrs,
        }
    }

    /// The owner of all copies, if it is one.
    pub(super) fn one_owner(&self) -> Option<(u32, u32)> {
        (!self.preserve).then_some((self.caller.uid, self.caller.gid))
    }

    /// Attributes of a copy. Nobody makes what a caller with the same rights could not make by hand: other people's files, programs
    /// that run as somebody else, files that nobody can remove.
    fn attr(&self, meta: &Meta, t: &mut Txn<'_>, a: &Attr, parent: Ino) -> Step<Attr> {
        let c = &self.caller;
        let mut copy = Attr { parent, nlink: if a.is_dir() { 2 } else { 1 }, ..a.clone() };
        let mut special = 0;
        if self.preserve {
            if c.uid != 0 {
                if a.uid != c.uid {
                    (copy.uid, special) = (c.uid, special | 0o4000);
                }
                if !c.in_group(a.gid) {
                    (copy.gid, special) = (c.gid, special | 0o2000);
                }
            }
        } else {
            (copy.uid, copy.gid) = (c.uid, c.gid);
            (copy.atime, copy.mtime, copy.ctime) = (t.now, t.now, t.now);
            special = if a.is_dir() { 0 } else { 0o6000 };
            if a.kind != FileType::Symlink {
                copy.mode &= !(self.umask & 0o777);
            }
        }
        copy.mode &= !special;
        if c.uid != 0 || !self.preserve {
            copy.flags &= flags::SKIP_TRASH;
        }
        copy.access_acl = meta.acl_after_chmod(t, a, copy.mode)?;
        Ok(copy)
    }

    fn keeps_xattr(&self, from: Ino, name: &[u8]) -> bool {
        let begins = |with: &[u8]| name.starts_with(with);
        !(self.without_xattrs.is_some_and(begins)
            || (self.caller.uid != 0 && PRIVILEGED.iter().any(|p| begins(p)))
            || (from == Ino::ROOT && name == INTERNAL))
    }

    /// Buffers a copy with all that it has besides a name.
    pub(super) fn put(
        &self,
        meta: &Meta,
        t: &mut Txn<'_>,
        (from, a): (Ino, &Attr),
        (copy, parent): (Ino, Ino),
        lists: &Lists,
    ) -> Step<Attr> {
        let attr = self.attr(meta, t, a, parent)?;
        for (name, value) in t.xattrs(from)? {
            if self.keeps_xattr(from, &name) {
                t.write(Write::PutXattr(copy, name, value));
            }
        }
        match a.kind {
            FileType::Symlink => {
                let target = t.symlink(from)?;
                t.write(Write::PutSymlink(copy, target));
            }
            FileType::File => share(t, (from, a), copy, lists)?,
            FileType::Directory if self.stats => {
                t.write(Write::InitDirStat(copy));
            }
            _ => {}
        }
        t.write(Write::PutAttr(copy, attr.clone()));
        t.charge(Some((attr.uid, attr.gid)), attr.charged_space() as i64, 1);
        Ok(attr)
    }

    fn check(&self, meta: &Meta, t: &mut Txn<'_>, a: &Attr) -> Step<()> {
        match a.kind {
            FileType::Directory => meta.check_access(t, &self.caller, a, R | X),
            FileType::File => meta.check_access(t, &self.caller, a, R),
            // As with `mknod`.
            FileType::BlockDevice | FileType::CharDevice if self.caller.uid != 0 => Err(Errno::EPERM.into()),
            _ => Ok(()),
        }
    }
}

/// Indexes of the lists that a file may have; a very long one must have been looked at as it is now.
fn lists_to_read(ino: Ino, a: &Attr, lists: &Lists) -> Result<Vec<u32>, Look> {
    let chunks = chunk_count(if a.is_file() { a.length } else { 0 });
    match lists.get(&ino) {
        Some((seen, found)) if AttrMask(AttrMask::LENGTH.0 | AttrMask::TIMES.0).agree(seen, a) => {
            Ok(found.clone())
        }
        None if chunks <= LISTS_MAX => Ok((0..chunks).collect()),
        _ => Err(Look),
    }
}

/// Buffers the lists of a copy. They are those of the source, verbatim, and each record is one more reference.
fn share(t: &mut Txn<'_>, (from, a): (Ino, &Attr), copy: Ino, lists: &Lists) -> Step<()> {
    let mut uses: BTreeMap<(u64, u32), i64> = BTreeMap::new();
    // The caller has looked.
    for indx in lists_to_read(from, a, lists).unwrap_or_default() {
        let list = t.slices(from, indx)?;
        if list.is_empty() {
            continue;
        }
        for slice in list.iter().filter(|s| s.id > 0) {
            let n = uses.entry((slice.id, slice.size)).or_default();
            *n = i64::saturating_add(*n, 1);
        }
        t.write(Write::AppendSlices(copy, indx, list));
    }
    for ((id, size), n) in uses {
        t.write(Write::AddSliceRef(id, size, n));
    }
    Ok(())
}

impl Meta {
    /// Makes copies in a directory, in one commit. `None`: they are to be made one by one, and the lists of very long files looked up
    /// before. `named_now`: the directory is one that others see.
    pub(super) async fn make_copies(
        &self,
        copying: &Copying,
        to: Ino,
        items: &[Item],
        lists: &Lists,
        named_now: bool,
    ) -> Result<Option<Vec<Made>>> {
        // What decides about content and rights.
        let mask = AttrMask::IDENTITY | AttrMask::LENGTH | AttrMask::TIMES;
        let ran = self
            .run("Clone", |t| {
                t.want([Read::Attr(to)].into_iter().chain(items.iter().map(|i| Read::Attr(i.from))))?;
                let p = t.attr(to, if named_now { AttrMask::IDENTITY } else { AttrMask::EXISTS })?;
                if named_now {
                    self.check_receiving_dir(t, &copying.caller, &p)?;
                } else if !p.is_dir() {
                    return Err(Errno::ENOTDIR.into());
                }
                let mut found = Vec::with_capacity(items.len());
                for item in items {
                    // A file without a name is gone, and only waits for its last close.
                    let a = t.attr_opt(item.from, mask)?.filter(|a| a.nlink > 0);
                    found.extend(a.map(|a| (item, a)));
                }
                // Each may need a new rule, and a commit stores one.
                if found.len() > 1 && !copying.preserve && found.iter().any(|(_, a)| a.access_acl != 0) {
                    return Ok(None);
                }
                let mut reads = Vec::new();
                for (item, a) in &found {
                    copying.check(self, t, a)?;
                    reads.push(Read::XattrNames(item.from));
                    if a.kind == FileType::Symlink {
                        reads.push(Read::Symlink(item.from));
                    }
                    let Ok(indexes) = lists_to_read(item.from, a, lists) else { return Ok(None) };
                    reads.extend(indexes.into_iter().map(|indx| Read::Slices(item.from, indx)));
                }
                t.want(reads)?;
                let (mut made, mut subdirs) = (Vec::with_capacity(found.len()), 0_i32);
                for (item, a) in &found {
                    t.require_free(item.copy)?;
                    t.require_no_edge(to, &item.name)?;
                    let attr = copying.put(self, t, (item.from, a), (item.copy, to), lists)?;
                    t.write(Write::PutEdge(to, item.name.clone(), Edge { kind: a.kind, ino: item.copy }));
                    let (length, space) =
                        (if a.is_file() { a.length as i64 } else { 0 }, attr.charged_space() as i64);
                    t.dir_stat(copying.stats, to, length, space, 1);
                    subdirs = subdirs.saturating_add(i32::from(a.is_dir()));
                    made.push(Made { from: item.from, copy: item.copy, is_dir: a.is_dir(), space });
                }
                let Some(first) = made.first() else { return Ok(Some(made)) };
                t.proof(Proof::Made(first.copy));
                let times = named_now.then_some(t.now);
                let patch = AttrPatch { nlink: subdirs, mtime: times, ctime: times, ..AttrPatch::default() };
                if !patch.is_empty() {
                    t.write(Write::PatchAttr(to, patch));
                }
                Ok(Some(made))
            })
            .await?;
        Ok(ran.value)
    }

    /// Gives a copy another name.
    pub(super) async fn link_copy(&self, copying: &Copying, to: Ino, name: &[u8], edge: Edge) -> Result<()> {
        self.run("Clone", |t| {
            t.want([Read::Attr(to), Read::Attr(edge.ino), Read::Edge(to, name.to_vec())])?;
            t.attr(to, AttrMask::EXISTS)?;
            let a = t.attr(edge.ino, AttrMask::NLINK | AttrMask::PARENT | AttrMask::LENGTH)?;
            if t.edge(to, name)?.is_some() {
                return Err(Errno::EEXIST.into());
            }
            t.proof(Proof::Edge(to, name.to_vec(), edge));
            t.write(Write::PutEdge(to, name.to_vec(), edge));
            if a.parent.0 != 0 {
                t.write(Write::AddParent(edge.ino, a.parent, 1));
            }
            t.write(Write::AddParent(edge.ino, to, 1));
            let patch = AttrPatch { nlink: 1, parent: Some(Ino(0)), ..AttrPatch::default() };
            t.write(Write::PatchAttr(edge.ino, patch));
            let length = if a.is_file() { a.length as i64 } else { 0 };
            t.dir_stat(copying.stats, to, length, a.charged_space() as i64, 1);
            Ok(())
        })
        .await?;
        Ok(())
    }
}
