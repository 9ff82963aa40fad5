//! Looking up, creating and removing names.

use bytes::Bytes;
use ciderfs_format::attr::flags;
use ciderfs_format::edge::SYMLINK_MAX;
use ciderfs_format::{Attr, Edge, FileType, Ino};

use super::remove::Fate;
use super::rights::Ways;
use super::rules::{W, X, check_name, check_new_name, check_sticky};
use crate::error::{Errno, Result};
use crate::proof::Proof;
use crate::store::{AttrMask, DirEntry, Read, StoreError, Value, Write};
use crate::txn::{Step, Txn};
use crate::types::{Caller, NewNode, Removed};
use crate::volume::{Meta, synthetic_dir};

impl Meta {
    /// Finds an entry. `.` and `..` work; `.trash` in the root is the trash.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES`, `ENAMETOOLONG`.
    pub async fn lookup(&self, c: &Caller, parent: Ino, name: &[u8]) -> Result<(Ino, Attr)> {
        let _timed = self.timed("Lookup");
        let dir = self.real(parent);
        match name {
            b"." => return Ok((parent, self.getattr(parent).await?)),
            b".." => {
                let up = self.parent_of(parent).await?;
                return Ok((up, self.getattr(up).await?));
            }
            _ if self.is_reserved(dir, name) => return Ok((Ino::TRASH, self.getattr(Ino::TRASH).await?)),
            _ => check_name(name)?,
        }
        let mut reads = vec![Read::Lookup(dir, name.to_vec())];
        // A change in this directory is likely to follow a lookup: have its attributes at hand then, in the same turn.
        if c.check || self.beliefs.attr(dir).is_none() {
            reads.push(Read::Attr(dir));
        }
        let began = self.known_xattrs.begin();
        let mut values = self.read(&reads).await?.into_iter();
        let (Some(Value::Lookup(found)), dir_value) = (values.next(), values.next()) else {
            return Err(StoreError::another_question().into());
        };
        if let Some(Value::Attr(attr)) = dir_value {
            self.beliefs.set_attr(dir, attr.clone());
            if let Some(a) = attr {
                if !a.is_dir() {
                    return Err(Errno::ENOTDIR.into());
                }
                self.permit(c, &a, X).await?;
            }
        }
        if let Some((edge, attr)) = found.as_ref().filter(|_| dir.is_trash_hour() && c.uid != 0) {
            let mut shown = vec![DirEntry { name: name.to_vec(), edge: *edge, attr: attr.clone() }];
            Ways::new(self, c).retain_shown(&mut shown).await?;
            if shown.is_empty() {
                return Err(Errno::ENOENT.into());
            }
        }
        self.beliefs.set_edge(dir, name, found.as_ref().map(|(e, _)| *e));
        match found {
            None => Err(Errno::ENOENT.into()),
            Some((edge, attr)) => {
                self.holds.found(dir, std::iter::once(edge.ino));
                self.beliefs.set_attr(edge.ino, attr.clone());
                if let Some(a) = attr.as_ref().filter(|_| self.has_acls()) {
                    self.known_xattrs.learn_acls(edge.ino, a, began);
                }
                // A damaged entry shows its type, so that it can be seen and removed.
                let attr = attr.unwrap_or_else(|| Attr {
                    kind: edge.kind,
                    mode: 0,
                    nlink: 0,
                    ..synthetic_dir(edge.ino)
                });
                Ok((edge.ino, attr))
            }
        }
    }

    /// The directory above; the presented root is its own parent.
    pub async fn parent_of(&self, dir: Ino) -> Result<Ino> {
        if self.is_root(dir) || dir == Ino::TRASH {
            return Ok(Ino::ROOT);
        }
        let parent = self.getattr(dir).await?.parent;
        Ok(if parent == self.root || parent.0 == 0 { Ino::ROOT } else { parent })
    }

    /// Creates a node: file, directory, symbolic link, device, FIFO or socket.
    ///
    /// # Errors
    /// `EEXIST` (look the entry up to learn what is there), `ENOENT`, `ENOTDIR`, `EPERM`, `EACCES`, `ENOSPC`, `EROFS`,
    /// `EINVAL`, `ENAMETOOLONG`.
    pub async fn create(
        &self,
        c: &Caller,
        parent: Ino,
        name: &[u8],
        node: &NewNode<'_>,
    ) -> Result<(Ino, Attr)> {
        let _timed = self.timed("Mknod");
        let dir = self.real(parent);
        check_new_name(name)?;
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        if dir.is_trash() || self.is_reserved(dir, name) {
            return Err(Errno::EPERM.into());
        }
        if node.kind == FileType::Symlink {
            if node.target.is_empty() || node.target.contains(&0) {
                return Err(Errno::EINVAL.into());
            }
            if node.target.len() > SYMLINK_MAX {
                return Err(Errno::ENAMETOOLONG.into());
            }
        }
        let stats = self.settings().dir_stats;
        let began = self.known_xattrs.begin();
        let ran = self
            .run("Mknod", |t| {
                t.want([Read::Attr(dir), Read::Edge(dir, name.to_vec())])?;
                let p = t.attr(dir, AttrMask::IDENTITY)?;
                self.check_receiving_dir(t, c, &p)?;
                if t.edge(dir, name)?.is_some() {
                    return Err(Errno::EEXIST.into());
                }
                let attr = self.new_attr(t, c, (dir, &p), node)?;
                let ino = t.new_inode()?;
                t.proof(Proof::Made(ino));
                t.write(Write::PutAttr(ino, attr.clone()));
                t.write(Write::PutEdge(dir, name.to_vec(), Edge { kind: node.kind, ino }));
                match node.kind {
                    FileType::Symlink => {
                        t.write(Write::PutSymlink(ino, Bytes::copy_from_slice(node.target)));
                    }
                    FileType::Directory if stats => {
                        t.write(Write::InitDirStat(ino));
                    }
                    _ => {}
                }
                self.touch_dir(t, dir, &p, i32::from(attr.is_dir()));
                t.charge(Some((attr.uid, attr.gid)), 4096, 1);
                t.dir_stat(stats, dir, 0, 4096, 1);
                Ok((ino, attr))
            })
            .await?;
        let (ino, attr) = ran.value;
        self.known_xattrs.learn_names(ino, &[], began);
        self.known_xattrs.learn_acls(ino, &attr, began);
        Ok((ino, attr))
    }

    /// Removes a name of something that is not a directory.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EPERM` (a directory, a flag, the trash), `EACCES`, `EROFS`.
    pub async fn unlink(&self, c: &Caller, parent: Ino, name: &[u8]) -> Result<Removed> {
        let _timed = self.timed("Unlink");
        let dir = self.real(parent);
        check_name(name)?;
        if self.is_reserved(dir, name) || (dir.is_trash() && c.uid != 0) {
            return Err(Errno::EPERM.into());
        }
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let trash = self.trash_for(dir).await?;
        self.unlink_into(c, dir, name, trash).await
    }

    /// [`Meta::unlink`] for good, whether the volume has a trash or not.
    ///
    /// # Errors
    /// As [`Meta::unlink`]; `EPERM` for others than the superuser.
    pub async fn unlink_past_trash(&self, c: &Caller, parent: Ino, name: &[u8]) -> Result<Removed> {
        let dir = self.check_past_trash(c, parent, name)?;
        self.unlink_into(c, dir, name, None).await
    }

    /// [`Meta::rmdir`] for good.
    ///
    /// # Errors
    /// As [`Meta::rmdir`]; `EPERM` for others than the superuser.
    pub async fn rmdir_past_trash(&self, c: &Caller, parent: Ino, name: &[u8]) -> Result<Removed> {
        let dir = self.check_past_trash(c, parent, name)?;
        self.rmdir_into(c, dir, name, None).await
    }

    fn check_past_trash(&self, c: &Caller, parent: Ino, name: &[u8]) -> Result<Ino> {
        let dir = self.real(parent);
        check_name(name)?;
        if c.uid != 0 || self.is_reserved(dir, name) || dir == Ino::TRASH {
            return Err(Errno::EPERM.into());
        }
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        Ok(dir)
    }

    /// [`Meta::unlink`] after its first checks; without a place in the trash it is for good.
    pub(crate) async fn unlink_into(
        &self,
        c: &Caller,
        dir: Ino,
        name: &[u8],
        trash: Option<Ino>,
    ) -> Result<Removed> {
        let mut removing = None;
        let ran = self
            .run("Unlink", |t| {
                t.want([Read::Attr(dir), Read::Lookup(dir, name.to_vec())])?;
                let p = t.attr(dir, AttrMask::IDENTITY)?;
                self.check_losing_dir(t, c, &p)?;
                let e = t.edge(dir, name)?.ok_or(Errno::ENOENT)?;
                if e.kind == FileType::Directory {
                    return Err(Errno::EPERM.into());
                }
                t.proof(Proof::Removed(dir, name.to_vec(), e.ino, t.now));
                t.write(Write::DelEdge(dir, name.to_vec()));
                let fate = self.remove_leaf(t, c, (dir, &p), name, e, trash, &mut removing)?;
                self.touch_dir(t, dir, &p, 0);
                Ok((e.ino, fate))
            })
            .await?;
        let (ino, fate) = ran.value;
        self.settle(ino, fate, removing).await;
        Ok(Removed { ino, last: fate.is_last() })
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `ENOTEMPTY`, `ENOTDIR`, `ENOENT`, `EINVAL` (`.`), `EPERM`, `EACCES`, `EROFS`.
    pub async fn rmdir(&self, c: &Caller, parent: Ino, name: &[u8]) -> Result<Removed> {
        let _timed = self.timed("Rmdir");
        let dir = self.real(parent);
        match name {
            b"." => return Err(Errno::EINVAL.into()),
            b".." => return Err(Errno::ENOTEMPTY.into()),
            _ => check_name(name)?,
        }
        if self.is_reserved(dir, name) || dir == Ino::TRASH || (dir.is_trash() && c.uid != 0) {
            return Err(Errno::EPERM.into());
        }
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let trash = self.trash_for(dir).await?;
        self.rmdir_into(c, dir, name, trash).await
    }

    /// [`Meta::rmdir`] after its first checks; also removes hourly trash directories.
    pub(crate) async fn rmdir_into(
        &self,
        c: &Caller,
        dir: Ino,
        name: &[u8],
        trash: Option<Ino>,
    ) -> Result<Removed> {
        let ran = self
            .run("Rmdir", |t| {
                t.want([Read::Attr(dir), Read::Lookup(dir, name.to_vec())])?;
                let p = t.attr(dir, AttrMask::IDENTITY)?;
                let e = t.edge(dir, name)?.ok_or(Errno::ENOENT)?;
                if e.kind != FileType::Directory {
                    return Err(Errno::ENOTDIR.into());
                }
                self.check_losing_dir(t, c, &p)?;
                t.proof(Proof::Removed(dir, name.to_vec(), e.ino, t.now));
                t.write(Write::DelEdge(dir, name.to_vec()));
                let last = self.remove_dir(t, c, (dir, &p), name, e, trash)?;
                self.touch_dir(t, dir, &p, -1);
                Ok(Removed { ino: e.ino, last })
            })
            .await?;
        Ok(ran.value)
    }

    /// Does what follows a removal: data of a file that is gone is deleted in the background, an open one is kept.
    pub(crate) async fn settle(&self, ino: Ino, fate: Fate, removing: Option<crate::open::Removing>) {
        match fate {
            Fate::Gone { length: Some(length) } => self.deletions.push(ino, length),
            Fate::Sustained if removing.as_ref().is_some_and(crate::open::Removing::sustained) => {
                drop(removing);
                if let Err(e) = self.remove_sustained(self.sid(), ino).await {
                    tracing::warn!("inode {ino}: cannot remove it after its last close: {e}");
                }
            }
            _ => {}
        }
    }
}

impl Meta {
    /// Attributes of a new node: ownership, inheritance from the parent, times.
    pub(crate) fn new_attr(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        (dir, p): (Ino, &Attr),
        node: &NewNode<'_>,
    ) -> Step<Attr> {
        let is_dir = node.kind == FileType::Directory;
        let (mut mode, access_acl, default_acl) = self.inherited(t, p, node.kind, node.mode, node.umask)?;
        let mut gid = c.gid;
        if p.mode & 0o2000 != 0 {
            gid = p.gid;
            if is_dir {
                mode |= 0o2000;
            } else if mode & 0o2010 == 0o2010 && c.check && c.uid != 0 && !c.in_group(p.gid) {
                mode &= !0o2000;
            }
        }
        let device = matches!(node.kind, FileType::BlockDevice | FileType::CharDevice);
        Ok(Attr {
            flags: p.flags & flags::SKIP_TRASH,
            kind: node.kind,
            mode,
            uid: c.uid,
            gid,
            atime: t.now,
            mtime: t.now,
            ctime: t.now,
            nlink: if is_dir { 2 } else { 1 },
            length: match node.kind {
                FileType::Directory => Attr::DIR_LENGTH,
                FileType::Symlink => node.target.len() as u64,
                _ => 0,
            },
            rdev: if device { node.rdev } else { 0 },
            parent: dir,
            access_acl,
            default_acl,
            tier: p.tier,
        })
    }

    /// The parts of removing a directory that rmdir and a replacing rename share: permission, emptiness, the node itself. Returns
    /// whether the node is gone (else it went to the trash).
    pub(crate) fn remove_dir(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        (dir, p): (Ino, &Attr),
        name: &[u8],
        e: Edge,
        trash: Option<Ino>,
    ) -> Step<bool> {
        t.require_empty(e.ino)?;
        let stats = self.settings().dir_stats;
        t.write(Write::DelDirStat(e.ino));
        t.dir_stat(stats, dir, 0, -4096, -1);
        let Some(a) = t.attr_opt(e.ino, AttrMask::IDENTITY)? else { return Ok(true) };
        check_sticky(c, p, &a)?;
        if a.flags & (flags::IMMUTABLE | flags::APPEND) != 0 {
            return Err(Errno::EPERM.into());
        }
        self.check_access(t, c, p, W | X)?;
        match trash.filter(|_| a.flags & flags::SKIP_TRASH == 0) {
            Some(hour) => {
                self.move_to_trash(t, (dir, name), e, &a, hour);
                Ok(false)
            }
            None => {
                self.departed.remember(e.ino, &a, t.now);
                t.write(Write::DelAttr(e.ino));
                t.write(Write::DelXattrs(e.ino));
                let owner = Some((a.uid, a.gid)).filter(|_| !e.ino.is_trash());
                t.charge(owner, -4096, -1);
                Ok(true)
            }
        }
    }
}
