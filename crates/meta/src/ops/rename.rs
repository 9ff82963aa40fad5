//! Renaming.

use ciderfs_format::attr::flags as attr_flags;
use ciderfs_format::{Attr, Edge, FileType, Ino, align4k};

use super::remove::Fate;
use super::rules::{W, X, check_flags, check_name, check_new_name, check_sticky};
use crate::error::{Errno, Result};
use crate::open::Removing;
use crate::proof::Proof;
use crate::store::{AttrMask, AttrPatch, Read, Write};
use crate::txn::{Step, Txn};
use crate::types::{Caller, Removed, Renamed};
use crate::volume::Meta;

/// `RENAME_NOREPLACE`: an entry at the destination is an error.
pub const NOREPLACE: u32 = 1;
/// `RENAME_EXCHANGE`: both entries exist and change places.
pub const EXCHANGE: u32 = 2;
/// `RENAME_WHITEOUT`: a character device 0:0 takes the old name.
pub const WHITEOUT: u32 = 4;

/// Levels between the root and the destination of a moved directory. More than that is a loop that an older client left.
const DEPTH_MAX: usize = 10_000;

/// One side of a rename.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) dir: Ino,
    pub(super) name: &'a [u8],
}

impl Place<'_> {
    pub(super) fn edge(&self) -> Read {
        Read::Lookup(self.dir, self.name.to_vec())
    }
}

/// What a rename has replaced, and what becomes of it.
type Replaced = Option<(Ino, Fate)>;

impl Meta {
    /// Renames an entry, replacing what is at the destination.
    ///
    /// Flags: 0, [`NOREPLACE`], [`EXCHANGE`], [`WHITEOUT`], or `NOREPLACE | WHITEOUT`; others are `EINVAL`.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `ENOTDIR`, `EISDIR`, `ENOTEMPTY`, `EPERM`, `EACCES`, `EINVAL` (below itself), `ELOOP` (the
    /// destination hangs in a loop), `ENOSPC` (no room for the whiteout), `EROFS`, `ENAMETOOLONG`.
    pub async fn rename(
        &self,
        c: &Caller,
        sdir: Ino,
        sname: &[u8],
        ddir: Ino,
        dname: &[u8],
        flags: u32,
    ) -> Result<Renamed> {
        let _timed = self.timed("Rename");
        if flags & !(NOREPLACE | EXCHANGE | WHITEOUT) != 0 || (flags & EXCHANGE != 0 && flags != EXCHANGE) {
            return Err(Errno::EINVAL.into());
        }
        let src = Place { dir: self.real(sdir), name: sname };
        let dst = Place { dir: self.real(ddir), name: dname };
        check_name(sname)?;
        check_new_name(dname)?;
        if self.is_reserved(src.dir, sname) || self.is_reserved(dst.dir, dname) {
            return Err(Errno::EPERM.into());
        }
        // Entries come back out of an hourly directory of the trash, but the directory itself stays.
        if dst.dir.is_trash() || src.dir == Ino::TRASH || (src.dir.is_trash() && c.uid != 0) {
            return Err(Errno::EPERM.into());
        }
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        if flags == EXCHANGE {
            let moved = self.run("Rename", |t| self.exchange_step(t, c, src, dst)).await?.value;
            return Ok(Renamed { moved, replaced: None });
        }
        let trash = self.trash_for(dst.dir).await?;
        let mut removing = None;
        let ran =
            self.run("Rename", |t| self.rename_step(t, c, src, dst, flags, trash, &mut removing)).await?;
        let (moved, replaced) = ran.value;
        if let Some((ino, fate)) = replaced {
            self.settle(ino, fate, removing).await;
        }
        let replaced = replaced.map(|(ino, fate)| Removed { ino, last: fate.is_last() });
        Ok(Renamed { moved: moved.into_iter().collect(), replaced })
    }

    /// Directories between which the caller may move something.
    pub(super) fn check_rename_dirs(&self, t: &mut Txn<'_>, c: &Caller, sp: &Attr, dp: &Attr) -> Step<()> {
        if !sp.is_dir() || !dp.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        self.check_access(t, c, sp, W | X)?;
        if dp.in_trash() {
            return Err(Errno::ENOENT.into());
        }
        self.check_access(t, c, dp, W | X)
    }

    /// Returns the node that has moved, and what was replaced.
    #[allow(clippy::too_many_arguments)]
    fn rename_step(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        src: Place<'_>,
        dst: Place<'_>,
        flags: u32,
        trash: Option<Ino>,
        removing: &mut Option<Removing>,
    ) -> Step<(Option<Ino>, Replaced)> {
        t.want([Read::Attr(src.dir), Read::Attr(dst.dir), src.edge(), dst.edge()])?;
        let se = t.edge(src.dir, src.name)?.ok_or(Errno::ENOENT)?;
        if src.dir == dst.dir && src.name == dst.name {
            return if flags & NOREPLACE != 0 { Err(Errno::EEXIST.into()) } else { Ok((None, None)) };
        }
        let de = t.edge(dst.dir, dst.name)?;
        if let Some(de) = de {
            if flags & NOREPLACE != 0 {
                return Err(Errno::EEXIST.into());
            }
            if de.ino == se.ino {
                return Ok((None, None));
            }
            check_kinds(se, de)?;
        }
        let sp = t.attr(src.dir, AttrMask::IDENTITY)?;
        let dp = t.attr(dst.dir, AttrMask::IDENTITY)?;
        let sa = t.attr(se.ino, AttrMask::IDENTITY | AttrMask::LENGTH)?;
        self.check_rename_dirs(t, c, &sp, &dp)?;
        check_rename(c, &sp, (dst.dir, &dp), (se.ino, &sa))?;
        if de.is_some() {
            // An append-only directory loses no entry.
            check_flags(&dp, true)?;
        }
        if sa.is_dir() && src.dir != dst.dir {
            // Its `..` changes.
            self.check_access(t, c, &sa, W)?;
            check_no_loop(t, se.ino, &dp)?;
        }
        self.move_trees(t, &[(src.dir, dst.dir, se, &sa)])?;

        let [from, to] = [src, dst].map(|at| (at.dir, at.name.to_vec()));
        t.proof(Proof::Moved(from, to, se, t.now));
        if flags & WHITEOUT != 0 {
            self.put_whiteout(t, c, src, &sp)?;
        } else {
            t.write(Write::DelEdge(src.dir, src.name.to_vec()));
        }
        let mut replaced = None;
        let mut dst_nlink = 0;
        if let Some(de) = de {
            let fate = if de.kind == FileType::Directory {
                dst_nlink -= 1;
                match self.remove_dir(t, c, (dst.dir, &dp), dst.name, de, trash)? {
                    true => Fate::Gone { length: None },
                    false => Fate::Trashed,
                }
            } else {
                self.remove_leaf(t, c, (dst.dir, &dp), dst.name, de, trash, removing)?
            };
            replaced = Some((de.ino, fate));
        }
        self.move_entry(t, (src.dir, dst), se, &sa);
        if src.dir == dst.dir {
            self.touch_dir(t, dst.dir, &dp, dst_nlink);
        } else {
            let moved_dir = i32::from(sa.is_dir());
            self.touch_dir(t, src.dir, &sp, -moved_dir);
            self.touch_dir(t, dst.dir, &dp, dst_nlink + moved_dir);
        }
        Ok((Some(se.ino), replaced))
    }

    /// Buffers what changes for a node that gets another name: the new entry, parent, ctime, usage of the directories.
    pub(super) fn move_entry(&self, t: &mut Txn<'_>, (from, to): (Ino, Place<'_>), e: Edge, a: &Attr) {
        t.write(Write::PutEdge(to.dir, to.name.to_vec(), e));
        let mut patch = AttrPatch { ctime: Some(t.now), ..AttrPatch::default() };
        if a.parent.0 != 0 {
            patch.parent = Some(to.dir).filter(|d| *d != a.parent);
        } else if from != to.dir {
            t.write(Write::AddParent(e.ino, to.dir, 1));
            t.write(Write::AddParent(e.ino, from, -1));
        }
        t.write(Write::PatchAttr(e.ino, patch));
        self.move_stats(t, (from, to.dir), a);
    }

    /// Moves the usage of an entry from one directory's record to another's.
    fn move_stats(&self, t: &mut Txn<'_>, (from, to): (Ino, Ino), a: &Attr) {
        if from == to {
            return;
        }
        let stats = self.settings().dir_stats;
        let (length, space) =
            if a.is_file() { (a.length as i64, align4k(a.length) as i64) } else { (0, 4096) };
        t.dir_stat(stats, from, -length, -space, -1);
        t.dir_stat(stats, to, length, space, 1);
    }
}

fn check_kinds(source: Edge, target: Edge) -> Result<(), Errno> {
    match (source.kind == FileType::Directory, target.kind == FileType::Directory) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

pub(super) fn check_rename(
    c: &Caller,
    sp: &Attr,
    (ddir, dp): (Ino, &Attr),
    (ino, sa): (Ino, &Attr),
) -> Result<(), Errno> {
    if ino == ddir {
        return Err(Errno::EINVAL);
    }
    check_flags(sp, true)?;
    check_flags(dp, false)?;
    if sa.flags & (attr_flags::IMMUTABLE | attr_flags::APPEND) != 0 {
        return Err(Errno::EPERM);
    }
    check_sticky(c, sp, sa)
}

/// `EINVAL` if the directory `moved` is an ancestor of the destination, whose attributes are `dp`.
///
/// Every step upwards is guarded: another client that moves an ancestor at the same time makes the commit fail, so two
/// moves can never close a loop together.
pub(super) fn check_no_loop(t: &mut Txn<'_>, moved: Ino, dp: &Attr) -> Step<()> {
    let mut at = dp.parent;
    for _ in 0..DEPTH_MAX {
        if at == moved {
            return Err(Errno::EINVAL.into());
        }
        if at == Ino::ROOT || at.is_trash() || at.0 == 0 {
            return Ok(());
        }
        match t.attr_opt(at, AttrMask::IDENTITY)? {
            Some(a) => at = a.parent,
            None => return Ok(()),
        }
    }
    Err(Errno::ELOOP.into())
}
