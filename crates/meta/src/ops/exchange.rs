//! Two entries change places; a renamed entry leaves a whiteout behind.

use ciderfs_format::{Attr, Edge, FileType, Ino};

use super::rename::{Place, check_no_loop, check_rename};
use super::rules::W;
use crate::error::Errno;
use crate::proof::Proof;
use crate::store::{AttrMask, Read, Write};
use crate::txn::{Step, Txn};
use crate::types::{Caller, NewNode};
use crate::volume::Meta;

/// What a layered file system takes for "deleted": a character device 0:0 that nobody may use.
const WHITEOUT_NODE: NewNode<'static> =
    NewNode { kind: FileType::CharDevice, mode: 0, umask: 0, rdev: 0, target: b"" };

impl Meta {
    /// `RENAME_EXCHANGE`. Nothing is removed, so nothing goes to the trash, and nothing may come from there.
    pub(super) fn exchange_step(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        src: Place<'_>,
        dst: Place<'_>,
    ) -> Step<Vec<Ino>> {
        if src.dir.is_trash() {
            return Err(Errno::EPERM.into());
        }
        t.want([Read::Attr(src.dir), Read::Attr(dst.dir), src.edge(), dst.edge()])?;
        let se = t.edge(src.dir, src.name)?.ok_or(Errno::ENOENT)?;
        let de = t.edge(dst.dir, dst.name)?.ok_or(Errno::ENOENT)?;
        if se.ino == de.ino {
            return Ok(Vec::new());
        }
        t.want([Read::Attr(se.ino), Read::Attr(de.ino)])?;
        let sp = t.attr(src.dir, AttrMask::IDENTITY)?;
        let dp = t.attr(dst.dir, AttrMask::IDENTITY)?;
        let sa = t.attr(se.ino, AttrMask::IDENTITY | AttrMask::LENGTH)?;
        let da = t.attr(de.ino, AttrMask::IDENTITY | AttrMask::LENGTH)?;
        self.check_rename_dirs(t, c, &sp, &dp)?;
        self.check_rename_dirs(t, c, &dp, &sp)?;
        check_rename(c, &sp, (dst.dir, &dp), (se.ino, &sa))?;
        check_rename(c, &dp, (src.dir, &sp), (de.ino, &da))?;
        if src.dir != dst.dir {
            // Each of the two is moved, so neither may get below itself.
            if sa.is_dir() {
                self.check_access(t, c, &sa, W)?;
                check_no_loop(t, se.ino, &dp)?;
            }
            if da.is_dir() {
                self.check_access(t, c, &da, W)?;
                check_no_loop(t, de.ino, &sp)?;
            }
        }
        self.move_trees(t, &[(src.dir, dst.dir, se, &sa), (dst.dir, src.dir, de, &da)])?;
        let [a, b] = [(src, se), (dst, de)].map(|(at, e)| (at.dir, at.name.to_vec(), e.ino));
        t.proof(Proof::Exchanged(a, b, t.now));
        self.move_entry(t, (src.dir, dst), se, &sa);
        self.move_entry(t, (dst.dir, src), de, &da);
        if src.dir == dst.dir {
            self.touch_dir(t, src.dir, &sp, 0);
        } else {
            let came = i32::from(sa.is_dir()) - i32::from(da.is_dir());
            self.touch_dir(t, src.dir, &sp, -came);
            self.touch_dir(t, dst.dir, &dp, came);
        }
        Ok(vec![se.ino, de.ino])
    }

    /// Buffers the whiteout at the place that an entry leaves. Anybody may make one: it is no device that could be used.
    pub(super) fn put_whiteout(&self, t: &mut Txn<'_>, c: &Caller, at: Place<'_>, dir: &Attr) -> Step<()> {
        let ino = t.new_inode()?;
        let attr = self.new_attr(t, c, (at.dir, dir), &WHITEOUT_NODE)?;
        let owner = Some((attr.uid, attr.gid));
        t.write(Write::PutAttr(ino, attr));
        let edge = Edge { kind: FileType::CharDevice, ino };
        t.write(Write::PutEdge(at.dir, at.name.to_vec(), edge));
        t.charge(owner, 4096, 1);
        t.dir_stat(self.settings().dir_stats, at.dir, 0, 4096, 1);
        Ok(())
    }
}
