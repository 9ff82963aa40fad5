//! Hard links and symbolic links.

use bytes::Bytes;
use ciderfs_format::{Attr, Edge, Ino, SessionId, align4k};

use super::rules::check_new_name;
use crate::error::{Errno, Result};
use crate::holds::is_only_in_trash;
use crate::proof::Proof;
use crate::store::{AttrMask, AttrPatch, Read, StoreError, Value, Write};
use crate::types::Caller;
use crate::volume::Meta;

impl Meta {
    /// Gives a node that is not a directory another name. Returns its attributes.
    ///
    /// # Errors
    /// `EPERM` (a directory, a flag, the trash), `EEXIST`, `ENOENT`, `ENOTDIR`, `EMLINK`, `EACCES`, `EROFS`.
    pub async fn link(&self, c: &Caller, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr> {
        let _timed = self.timed("Link");
        let dir = self.real(parent);
        check_new_name(name)?;
        if dir.is_trash() || self.is_reserved(dir, name) {
            return Err(Errno::EPERM.into());
        }
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let stats = self.settings().dir_stats;
        // Made without a name by this client; whether it may get one was decided when it was opened.
        let nameless = self.sid() != SessionId::NONE && self.open.is_linkable(ino);
        let ran = self
            .run("Link", |t| {
                t.want([Read::Attr(dir), Read::Attr(ino), Read::Edge(dir, name.to_vec())])?;
                let a = t.attr(ino, AttrMask::ALL)?;
                let p = t.attr(dir, AttrMask::IDENTITY)?;
                if a.is_dir() {
                    return Err(Errno::EPERM.into());
                }
                self.check_receiving_dir(t, c, &p)?;
                super::rules::check_flags(&a, true)?;
                // Only the superuser takes something out of the trash, by whatever call, and whether it still fills or not.
                if c.uid != 0 && is_only_in_trash(t, ino, &a) {
                    return Err(Errno::EPERM.into());
                }
                if t.edge(dir, name)?.is_some() {
                    return Err(Errno::EEXIST.into());
                }
                if a.nlink == 0 && !nameless {
                    return Err(Errno::ENOENT.into());
                }
                if a.nlink == u32::MAX {
                    return Err(Errno::EMLINK.into());
                }
                let edge = Edge { kind: a.kind, ino };
                t.proof(Proof::Edge(dir, name.to_vec(), edge));
                t.write(Write::PutEdge(dir, name.to_vec(), edge));
                let parent = if a.nlink == 0 {
                    t.write(Write::DelSustained(self.sid(), ino));
                    dir
                } else {
                    if a.parent.0 != 0 {
                        t.write(Write::AddParent(ino, a.parent, 1));
                    }
                    t.write(Write::AddParent(ino, dir, 1));
                    Ino(0)
                };
                let patch = AttrPatch {
                    nlink: 1,
                    ctime: Some(t.now),
                    parent: Some(parent).filter(|p| *p != a.parent),
                    ..AttrPatch::default()
                };
                let mut after = a.clone();
                patch.apply(&mut after);
                t.write(Write::PatchAttr(ino, patch));
                self.touch_dir(t, dir, &p, 0);
                let (length, space) =
                    if a.is_file() { (a.length as i64, align4k(a.length) as i64) } else { (0, 4096) };
                t.dir_stat(stats, dir, length, space, 1);
                Ok(after)
            })
            .await?;
        if nameless {
            self.open.linked(ino);
        }
        Ok(ran.value)
    }

    /// Target of a symbolic link.
    ///
    /// # Errors
    /// `EINVAL` for anything else, `ENOENT`, `EIO` if the target is lost.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let _timed = self.timed("ReadLink");
        let values = self.read(&[Read::Symlink(ino)]).await?;
        match values.into_iter().next() {
            Some(Value::Bytes(Some(target))) if !target.is_empty() => Ok(target),
            Some(Value::Bytes(_)) => {
                let a = self.getattr(ino).await?;
                let is_link = a.kind == ciderfs_format::FileType::Symlink;
                Err(if is_link { Errno::EIO } else { Errno::EINVAL }.into())
            }
            _ => Err(StoreError::another_question().into()),
        }
    }
}
