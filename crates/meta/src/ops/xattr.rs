//! Extended attributes (`docs/format/acls-and-xattrs.md#extended-attributes`), with the rules of a local file system where the
//! official client has none.

use std::sync::Arc;

use bytes::Bytes;
use ciderfs_format::acl::{AclKind, XATTR_ACCESS, XATTR_DEFAULT};
use ciderfs_format::{Attr, FileType, Ino};

use super::rules::{R, W, check_flags};
use crate::error::{Errno, Result};
use crate::proof::Proof;
use crate::store::{AttrMask, AttrPatch, Name, Read, StoreError, Value, Write};
use crate::txn::{Step, Txn};
use crate::types::{Caller, XattrSet};
use crate::volume::Meta;

/// Longest name, in bytes.
pub const XATTR_NAME_MAX: usize = 255;
/// Longest value, in bytes.
pub const XATTR_VALUE_MAX: usize = 65_536;

/// Bytes that the extended attributes of one inode may take, names and values together. ext4 has one block for them, XFS less
/// than 64 KiB for each; two of the longest values fit here. ACLs are records of their own and do not count.
pub const XATTRS_MAX: usize = 2 * XATTR_VALUE_MAX;

/// What decides who may read and write an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    User,
    Trusted,
    Security,
    Acl(AclKind),
}

impl Namespace {
    /// `EOPNOTSUPP` for a name in none of the namespaces.
    fn of(name: &[u8]) -> Result<Self, Errno> {
        if name.is_empty() || name.len() > XATTR_NAME_MAX {
            return Err(Errno::ERANGE);
        }
        let prefixes =
            [(&b"user."[..], Self::User), (b"trusted.", Self::Trusted), (b"security.", Self::Security)];
        for (prefix, namespace) in prefixes {
            match name.strip_prefix(prefix) {
                Some([]) => return Err(Errno::EINVAL),
                Some(_) => return Ok(namespace),
                None => {}
            }
        }
        match name {
            n if n == XATTR_ACCESS.as_bytes() => Ok(Self::Acl(AclKind::Access)),
            n if n == XATTR_DEFAULT.as_bytes() => Ok(Self::Acl(AclKind::Default)),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

impl Meta {
    /// Sets an extended attribute; the ACL names set an ACL, which returns attributes of which mode and ACLs are current.
    /// `set.clear_setgid` matters for an access ACL only.
    ///
    /// # Errors
    /// `EOPNOTSUPP` (unknown namespace, ACLs off), `EEXIST` and `ENODATA` (`set`), `ERANGE` (name), `E2BIG` (value), `EINVAL`
    /// (not an ACL), `ENOSPC` (more than [`XATTRS_MAX`], or more on a full volume), `EPERM` (a flag, not the owner, `user.` on something else than a file or directory), `EACCES`, `ENOENT`,
    /// `EROFS`.
    pub async fn set_xattr(
        &self,
        c: &Caller,
        ino: Ino,
        name: &[u8],
        value: Bytes,
        set: XattrSet,
    ) -> Result<Option<Attr>> {
        let _timed = self.timed("SetXattr");
        let namespace = Namespace::of(name)?;
        if value.len() > XATTR_VALUE_MAX {
            return Err(Errno::E2BIG.into());
        }
        if let Namespace::Acl(kind) = namespace {
            return self.set_acl(c, ino, kind, Some(&value), set.clear_setgid).await.map(Some);
        }
        let change = |t: &mut Txn<'_>, ino| {
            match (set.create, set.replace) {
                (true, true) => {
                    // Not both can be had; a local file system looks for what is to be replaced first.
                    let there = t.xattr(ino, name)?.is_some();
                    return Err(if there { Errno::EEXIST } else { Errno::ENODATA }.into());
                }
                (true, false) => t.require_xattr(ino, name, false, Errno::EEXIST)?,
                (false, true) => t.require_xattr(ino, name, true, Errno::ENODATA)?,
                (false, false) => {}
            }
            self.require_room_for_xattr(t, ino, name, &value)?;
            t.write(Write::PutXattr(ino, name.to_vec(), value.clone()));
            Ok(())
        };
        match self.change_xattr(c, ino, namespace, change).await {
            Err(e) if e.errno() == Errno::ENOENT => {
                self.check_changing_departed(c, ino, namespace).await?;
                self.set_departed_xattr(ino, name, Some(value), set)?;
            }
            other => other?,
        }
        Ok(None)
    }

    /// Removes an extended attribute or an ACL. An ACL that is not there is no error.
    ///
    /// # Errors
    /// `ENODATA`, else like [`Meta::set_xattr`].
    pub async fn remove_xattr(&self, c: &Caller, ino: Ino, name: &[u8]) -> Result<()> {
        let _timed = self.timed("RemoveXattr");
        let namespace = Namespace::of(name)?;
        if let Namespace::Acl(kind) = namespace {
            return self.set_acl(c, ino, kind, None, false).await.map(|_| ());
        }
        let change = |t: &mut Txn<'_>, ino| {
            t.require_xattr(ino, name, true, Errno::ENODATA)?;
            t.write(Write::DelXattr(ino, name.to_vec()));
            Ok(())
        };
        match self.change_xattr(c, ino, namespace, change).await {
            Err(e) if e.errno() == Errno::ENOENT => {
                self.check_changing_departed(c, ino, namespace).await?;
                self.set_departed_xattr(ino, name, None, XattrSet::default())
            }
            other => other,
        }
    }

    /// The value of an extended attribute or ACL.
    ///
    /// # Errors
    /// `ENODATA`, `EOPNOTSUPP` (unknown namespace, ACLs off), `ERANGE` (name), `EACCES`, `ENOENT`.
    pub async fn get_xattr(&self, c: &Caller, ino: Ino, name: &[u8]) -> Result<Bytes> {
        let _timed = self.timed("GetXattr");
        let namespace = Namespace::of(name)?;
        if let Namespace::Acl(kind) = namespace {
            return self.get_acl(ino, kind).await;
        }
        let real = self.real(ino);
        // The kernel and tools ask for these about every file; few have any.
        let often = namespace == Namespace::Security && self.known_xattrs.is_on();
        if often && self.known_xattrs.names(real).is_some_and(|names| names.iter().all(|n| n != name)) {
            return self.departed_xattr(real, name).ok_or_else(|| Errno::ENODATA.into());
        }
        let mut reads = vec![Read::Xattr(real, name.to_vec())];
        if c.check {
            reads.push(Read::Attr(real));
        }
        let mut values = if often {
            self.read_and_names(real, reads).await?.0
        } else {
            self.read(&reads).await?.into_iter()
        };
        let Some(Value::Bytes(value)) = values.next() else {
            return Err(StoreError::another_question().into());
        };
        if let Some(Value::Attr(attr)) = values.next() {
            let attr = attr.or_else(|| self.departed(real)).ok_or(Errno::ENOENT)?;
            self.check_reading(c, &attr, namespace).await?;
        }
        value.or_else(|| self.departed_xattr(real, name)).ok_or_else(|| Errno::ENODATA.into())
    }

    /// Answers to `reads`, and, in the same turn, the names of an inode and of those that are likely to be asked about next.
    async fn read_and_names(
        &self,
        real: Ino,
        mut reads: Vec<Read>,
    ) -> Result<(std::vec::IntoIter<Value>, Arc<[Name]>)> {
        let asked = reads.len();
        let inodes = self.known_xattrs.ahead(real);
        reads.extend(inodes.iter().map(|i| Read::XattrNames(*i)));
        let began = self.known_xattrs.begin();
        let mut values = self.read(&reads).await?;
        let mut own = None;
        for (ino, value) in inodes.iter().zip(values.drain(asked..)) {
            let Value::Names(names) = value else { return Err(StoreError::another_question().into()) };
            self.known_xattrs.learn_names(*ino, &names, began);
            own.get_or_insert_with(|| Arc::from(names));
        }
        Ok((values.into_iter(), own.ok_or_else(StoreError::another_question)?))
    }

    /// Names of the extended attributes and ACLs that the caller may see, sorted.
    ///
    /// # Errors
    /// `ENOENT`.
    pub async fn list_xattrs(&self, c: &Caller, ino: Ino) -> Result<Vec<Name>> {
        let _timed = self.timed("ListXattr");
        let real = self.real(ino);
        let (names, acls) = match self.xattr_names(real).await {
            Err(e) if e.errno() == Errno::ENOENT && self.departed(real).is_some() => (Arc::from([]), (0, 0)),
            other => other?,
        };
        let since = self.departed_xattrs(real);
        let mut out: Vec<Name> = Vec::with_capacity(names.len() + 2);
        if acls.0 != 0 {
            out.push(XATTR_ACCESS.as_bytes().to_vec());
        }
        if acls.1 != 0 {
            out.push(XATTR_DEFAULT.as_bytes().to_vec());
        }
        // Names without a namespace are other clients' own notes.
        out.extend(
            names
                .iter()
                .chain(&since)
                .filter(|n| match Namespace::of(n) {
                    Ok(Namespace::User | Namespace::Security) => true,
                    Ok(Namespace::Trusted) => c.uid == 0,
                    Ok(Namespace::Acl(_)) | Err(_) => false,
                })
                .cloned(),
        );
        out.sort_unstable();
        Ok(out)
    }

    /// Stored names and ACL ids, believed if they are fresh.
    async fn xattr_names(&self, real: Ino) -> Result<(Arc<[Name]>, (u32, u32))> {
        let acls = if self.has_acls() { self.known_xattrs.acls(real) } else { Some((0, 0)) };
        if let (Some(names), Some(acls)) = (self.known_xattrs.names(real), acls) {
            return Ok((names, acls));
        }
        let began = self.known_xattrs.begin();
        let (mut values, names) = self.read_and_names(real, vec![Read::Attr(real)]).await?;
        let Some(Value::Attr(attr)) = values.next() else {
            return Err(StoreError::another_question().into());
        };
        let acls = match attr {
            Some(a) => {
                self.beliefs.set_attr(real, Some(a.clone()));
                self.known_xattrs.learn_acls(real, &a, began);
                if self.has_acls() { (a.access_acl, a.default_acl) } else { (0, 0) }
            }
            None if real == Ino::ROOT || real == Ino::TRASH => (0, 0),
            None => return Err(Errno::ENOENT.into()),
        };
        Ok((names, acls))
    }

    /// Runs a change of an attribute: it advances the inode's ctime, needs the inode to exist, and its permission.
    async fn change_xattr(
        &self,
        c: &Caller,
        ino: Ino,
        namespace: Namespace,
        change: impl Fn(&mut Txn<'_>, Ino) -> Step<()> + Send + Sync,
    ) -> Result<()> {
        let real = self.real(ino);
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let ran = self
            .run("SetXattr", |t| {
                t.want([Read::Attr(real)])?;
                let a = t.attr(real, AttrMask::IDENTITY)?;
                if self.keeps(t, real, &a) {
                    return Err(Errno::EPERM.into());
                }
                self.check_changing(t, c, &a, namespace)?;
                change(t, real)?;
                let patch = AttrPatch { ctime: Some(t.now), ..AttrPatch::default() };
                t.write(Write::PatchAttr(real, patch));
                t.proof(Proof::Ctime(real, t.now));
                Ok(())
            })
            .await;
        self.known_xattrs.forget(real);
        ran.map(|r| r.value)
    }

    /// Extended attributes are charged to nobody, as the official client has it. So that they are no way around a limit, an
    /// inode has so many bytes of them, and on a volume without room for another block they do not grow.
    fn require_room_for_xattr(&self, t: &mut Txn<'_>, ino: Ino, name: &[u8], value: &Bytes) -> Step<()> {
        let len = value.len() as u64;
        let most = if self.require_free_block(t) { XATTRS_MAX as u64 } else { 0 };
        t.require_xattr_room(ino, name, len, most)
    }

    /// May the caller change attributes of a namespace?
    fn check_changing(&self, t: &mut Txn<'_>, c: &Caller, a: &Attr, namespace: Namespace) -> Step<()> {
        if needs_write(c, a, namespace)? { self.check_access(t, c, a, W) } else { Ok(()) }
    }

    /// [`Meta::check_changing`] for a node that has no record any more.
    async fn check_changing_departed(&self, c: &Caller, ino: Ino, namespace: Namespace) -> Result<()> {
        let a = self.departed(ino).ok_or(Errno::ENOENT)?;
        if needs_write(c, &a, namespace)? { self.permit(c, &a, W).await } else { Ok(()) }
    }

    async fn check_reading(&self, c: &Caller, a: &Attr, namespace: Namespace) -> Result<()> {
        match namespace {
            Namespace::User if !takes_user(a) => Err(Errno::ENODATA.into()),
            Namespace::User => self.permit(c, a, R).await,
            Namespace::Trusted if c.check && c.uid != 0 => Err(Errno::ENODATA.into()),
            _ => Ok(()),
        }
    }
}

/// Does changing attributes of a namespace take write permission? What depends on the inode alone is checked here, for every
/// caller.
fn needs_write(c: &Caller, a: &Attr, namespace: Namespace) -> Result<bool> {
    check_flags(a, true)?;
    match namespace {
        Namespace::User if !takes_user(a) => Err(Errno::EPERM.into()),
        // In a directory that others share only its owner sets them.
        Namespace::User if c.check && a.is_dir() && a.mode & 0o1000 != 0 && c.uid != 0 && c.uid != a.uid => {
            Err(Errno::EPERM.into())
        }
        Namespace::User => Ok(true),
        _ if c.check && c.uid != 0 => Err(Errno::EPERM.into()),
        _ => Ok(false),
    }
}

/// Only regular files and directories have `user.` attributes: anybody may write to other things, whatever their mode.
fn takes_user(a: &Attr) -> bool {
    matches!(a.kind, FileType::File | FileType::Directory)
}
