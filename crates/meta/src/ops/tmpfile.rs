//! Nameless files (`O_TMPFILE`, `docs/format/sessions-and-locks.md#sustained-inodes`) and giving them a first name.
//!
//! Such a file is what an unlinked open file is to every other client: an inode without links that the session sustains. It
//! goes with its last close, or with the session.

use ciderfs_format::{Attr, FileType, Ino};

use crate::error::{Errno, Result};
use crate::proof::Proof;
use crate::store::{AttrMask, Read, Write};
use crate::types::{Caller, NewNode};
use crate::volume::Meta;

impl Meta {
    /// Creates a regular file without a name in the file system of a directory and counts it as open. [`Meta::link`] may name
    /// it as long as it stays open.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EPERM`, `EACCES`, `ENOSPC`, `EROFS`; `EOPNOTSUPP` without a session.
    pub async fn create_nameless(
        &self,
        c: &Caller,
        parent: Ino,
        mode: u16,
        umask: u16,
    ) -> Result<(Ino, Attr)> {
        let _timed = self.timed("Mknod");
        let dir = self.real(parent);
        let sid = self.sid();
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        if dir.is_trash() {
            return Err(Errno::EPERM.into());
        }
        if sid == 0 {
            // Nobody would ever remove it.
            return Err(Errno::EOPNOTSUPP.into());
        }
        let node = NewNode { kind: FileType::File, mode, umask, rdev: 0, target: b"" };
        let began = self.known_xattrs.begin();
        let ran = self
            .run("Mknod", |t| {
                t.want([Read::Attr(dir)])?;
                let p = t.attr(dir, AttrMask::IDENTITY)?;
                self.check_receiving_dir(t, c, &p)?;
                let attr = Attr { nlink: 0, ..self.new_attr(t, c, (dir, &p), &node)? };
                let ino = t.new_inode()?;
                t.write(Write::PutAttr(ino, attr.clone()));
                t.write(Write::PutSustained(sid, ino));
                t.charge(Some((attr.uid, attr.gid)), 4096, 1);
                t.proof(Proof::Made(ino));
                Ok((ino, attr))
            })
            .await?;
        let (ino, attr) = ran.value;
        self.known_xattrs.learn_names(ino, &[], began);
        self.known_xattrs.learn_acls(ino, &attr, began);
        self.open.opened_nameless(ino);
        Ok((ino, attr))
    }
}
