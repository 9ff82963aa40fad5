//! What happens to a node whose name goes away: trash, another link, sustained, or gone.

use ciderfs_format::attr::flags;
use ciderfs_format::edge::trash_entry_name;
use ciderfs_format::{Attr, Edge, FileType, Ino, SessionId, align4k};

use super::rules::check_sticky;
use crate::error::{Errno, Result};
use crate::open::Removing;
use crate::proof::Proof;
use crate::store::{AttrMask, AttrPatch, Read, Write};
use crate::txn::{Step, Txn};
use crate::types::Caller;
use crate::volume::Meta;

/// What became of a node whose name was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It lies in the trash.
    Trashed,
    /// It has other links.
    Linked,
    /// It is open here and goes with its last close.
    Sustained,
    /// It is gone; of a regular file, this many bytes of data are to be deleted.
    Gone { length: Option<u64> },
}

impl Fate {
    pub(crate) fn is_last(self) -> bool {
        matches!(self, Self::Sustained | Self::Gone { .. })
    }
}

impl Meta {
    /// Buffers the removal of a link to a non-directory whose entry is being removed or replaced.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn remove_leaf(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        (dir, p): (Ino, &Attr),
        name: &[u8],
        e: Edge,
        trash: Option<Ino>,
        removing: &mut Option<Removing>,
    ) -> Step<Fate> {
        let stats = self.settings().dir_stats;
        let Some(a) = t.attr_opt(e.ino, AttrMask::IDENTITY | AttrMask::NLINK | AttrMask::LENGTH)? else {
            // A damaged entry: dropping the name is all there is to do.
            t.dir_stat(stats, dir, 0, -4096, -1);
            return Ok(Fate::Linked);
        };
        check_sticky(c, p, &a)?;
        if a.flags & (flags::IMMUTABLE | flags::APPEND) != 0 {
            return Err(Errno::EPERM.into());
        }
        let length = if a.is_file() { a.length as i64 } else { 0 };
        let space = if a.is_file() { align4k(a.length) as i64 } else { 4096 };
        t.dir_stat(stats, dir, -length, -space, -1);

        if let Some(hour) = trash.filter(|_| a.flags & flags::SKIP_TRASH == 0) {
            let twin = a.nlink > 1 && {
                let trash_name = trash_entry_name(dir, e.ino, name);
                t.want([Read::Edge(hour, trash_name.clone())])?;
                t.edge(hour, &trash_name)?.is_some()
            };
            if !twin {
                self.move_to_trash(t, (dir, name), e, &a, hour);
                return Ok(Fate::Trashed);
            }
        }
        if a.nlink > 1 {
            let patch = AttrPatch { nlink: -1, ctime: Some(t.now), ..AttrPatch::default() };
            t.write(Write::PatchAttr(e.ino, patch));
            if a.parent.0 == 0 {
                t.write(Write::AddParent(e.ino, dir, -1));
            }
            return Ok(Fate::Linked);
        }
        if a.parent.0 == 0 {
            t.write(Write::DelParents(e.ino));
        }
        if a.kind == FileType::File {
            if removing.as_ref().is_none_or(|r| r.ino() != e.ino) {
                *removing = Some(self.open.removing(e.ino));
            }
            if self.sid() != SessionId::NONE && removing.as_ref().is_some_and(|r| r.is_open) {
                // The link count is guarded, so the addition ends at 0 exactly.
                let patch =
                    AttrPatch { nlink: -(a.nlink as i32), ctime: Some(t.now), ..AttrPatch::default() };
                t.write(Write::PatchAttr(e.ino, patch));
                t.write(Write::PutSustained(self.sid(), e.ino));
                return Ok(Fate::Sustained);
            }
        }
        Ok(Fate::Gone { length: self.drop_node(t, e.ino, &a) })
    }

    /// Buffers the end of a node without names. Returns the length of a file whose data is to be deleted.
    pub(crate) fn drop_node(&self, t: &mut Txn<'_>, ino: Ino, a: &Attr) -> Option<u64> {
        self.departed.remember(ino, a, t.now);
        t.write(Write::DelAttr(ino));
        t.write(Write::DelXattrs(ino));
        t.charge(Some((a.uid, a.gid)), -(a.charged_space() as i64), -1);
        match a.kind {
            FileType::File => {
                t.write(Write::PutDelfile(ino, a.length, self.fleet_now()));
                Some(a.length)
            }
            FileType::Symlink => {
                t.write(Write::DelSymlink(ino));
                None
            }
            _ => None,
        }
    }

    /// Buffers the move of a node into an hourly trash directory; its old entry is removed by the caller.
    pub(crate) fn move_to_trash(
        &self,
        t: &mut Txn<'_>,
        (dir, name): (Ino, &[u8]),
        e: Edge,
        a: &Attr,
        hour: Ino,
    ) {
        self.holds.leaves(e.ino);
        let mut patch = AttrPatch { ctime: Some(t.now), ..AttrPatch::default() };
        if a.parent.0 == 0 {
            t.write(Write::AddParent(e.ino, hour, 1));
            t.write(Write::AddParent(e.ino, dir, -1));
        } else {
            patch.parent = Some(hour);
        }
        t.write(Write::PatchAttr(e.ino, patch));
        t.write(Write::PutEdge(hour, trash_entry_name(dir, e.ino, name), e));
        let length = if a.is_file() { a.length as i64 } else { 0 };
        let space = if a.is_file() { align4k(a.length) as i64 } else { 4096 };
        t.dir_stat(self.settings().dir_stats, hour, length, space, 1);
    }

    /// Ends an inode that was unlinked while open. An inode that is already gone is no error.
    pub(crate) async fn remove_sustained(&self, sid: SessionId, ino: Ino) -> Result<()> {
        let ran = self
            .run("Remove", |t| {
                t.want([Read::Attr(ino)])?;
                t.write(Write::DelSustained(sid, ino));
                match t.attr_opt(ino, AttrMask::NLINK | AttrMask::LENGTH | AttrMask::IDENTITY)? {
                    Some(a) if a.nlink == 0 => {
                        t.proof(Proof::Gone(ino));
                        Ok(self.drop_node(t, ino, &a))
                    }
                    // Gone already, or linked again by somebody: only the registration goes.
                    _ => {
                        t.proof(Proof::Gone(ino));
                        Ok(None)
                    }
                }
            })
            .await?;
        if let Some(length) = ran.value {
            self.deletions.push(ino, length);
        }
        Ok(())
    }
}
