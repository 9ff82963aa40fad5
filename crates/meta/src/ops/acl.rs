//! POSIX ACLs: setting, reading, inheriting, deciding (`docs/format/acls-and-xattrs.md#setting`).

use std::sync::Arc;

use bytes::Bytes;
use ciderfs_format::acl::{self, AclKind, AclRule};
use ciderfs_format::{Attr, FileType, Ino};

use super::rules::{check_access, check_flags, needs_rule};
use crate::error::{Errno, Result};
use crate::proof::Proof;
use crate::store::{AttrMask, AttrPatch, Counter, Read, StoreError, Write};
use crate::txn::{Step, Txn};
use crate::types::Caller;
use crate::volume::Meta;

/// Rules of other clients that are looked at before a new one is stored. Of more than that the newest are.
const LOOKED_AT_MAX: u32 = 256;

impl Meta {
    /// Were ACLs on when the volume was opened? The kernel is told once, so a change needs another mount.
    pub fn has_acls(&self) -> bool {
        self.acls
    }

    /// Sets an ACL from the value of its extended attribute; `None` and the value without entries remove it. Returns the
    /// inode's attributes.
    ///
    /// # Errors
    /// `EOPNOTSUPP` (ACLs off, a symbolic link), `EINVAL` (not an ACL), `EACCES` (a default ACL for something else than a
    /// directory), `EPERM` (not the owner, a flag), `ENOENT`, `EROFS`.
    pub async fn set_acl(
        &self,
        c: &Caller,
        ino: Ino,
        kind: AclKind,
        value: Option<&[u8]>,
        clear_setgid: bool,
    ) -> Result<Attr> {
        let _timed = self.timed("SetFacl");
        let real = self.real(ino);
        if !self.has_acls() {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let rule = match value {
            Some(raw) => AclRule::from_xattr(raw).map_err(|_| Errno::EINVAL)?,
            None => AclRule::EMPTY,
        };
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let ran = self
            .run("SetFacl", |t| {
                t.want([Read::Attr(real)])?;
                let a = t.attr(real, AttrMask::IDENTITY)?;
                self.set_acl_step(t, c, (real, &a), kind, &rule, clear_setgid)
            })
            .await;
        self.known_xattrs.forget(real);
        ran.map(|r| r.value)
    }

    fn set_acl_step(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        (ino, a): (Ino, &Attr),
        kind: AclKind,
        rule: &AclRule,
        clear_setgid: bool,
    ) -> Step<Attr> {
        if a.kind == FileType::Symlink {
            return Err(Errno::EOPNOTSUPP.into());
        }
        if self.keeps(t, ino, a) {
            return Err(Errno::EPERM.into());
        }
        check_flags(a, true)?;
        if c.uid != 0 && c.uid != a.uid {
            return Err(Errno::EPERM.into());
        }
        if kind == AclKind::Default && !a.is_dir() {
            return if rule.is_empty() { Ok(a.clone()) } else { Err(Errno::EACCES.into()) };
        }
        let foreign = clear_setgid || (c.check && c.uid != 0 && !c.in_group(a.gid));
        let clear = kind == AclKind::Access && !rule.is_empty() && foreign;
        let change = acl::set(rule.clone(), kind, a.mode, clear);
        let id = match &change.rule {
            Some(rule) => self.rule_id(t, rule)?,
            None => 0,
        };
        let ids = match kind {
            AclKind::Access => (id, a.default_acl),
            AclKind::Default => (a.access_acl, id),
        };
        // As on a local file system, a change of nothing does not advance ctime.
        if change.mode == a.mode && ids == (a.access_acl, a.default_acl) {
            return Ok(a.clone());
        }
        let patch = AttrPatch {
            mode: Some(change.mode).filter(|m| *m != a.mode),
            tail: Some((ids.0, ids.1, a.tier)).filter(|_| ids != (a.access_acl, a.default_acl)),
            ctime: Some(t.now),
            ..AttrPatch::default()
        };
        let mut after = a.clone();
        patch.apply(&mut after);
        t.write(Write::PatchAttr(ino, patch));
        t.proof(Proof::Ctime(ino, t.now));
        Ok(after)
    }

    /// An ACL as the value of its extended attribute. The ids are believed if they are fresh.
    pub(crate) async fn get_acl(&self, ino: Ino, kind: AclKind) -> Result<Bytes> {
        let _timed = self.timed("GetFacl");
        if !self.has_acls() {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let real = self.real(ino);
        let (access, default) = match self.known_xattrs.acls(real) {
            Some(ids) => ids,
            None => {
                let a = self.getattr(ino).await?;
                (a.access_acl, a.default_acl)
            }
        };
        match if kind == AclKind::Access { access } else { default } {
            0 => Err(Errno::ENODATA.into()),
            id => Ok(Bytes::from(self.fetch_rule(id).await?.to_xattr())),
        }
    }

    /// The id of a rule, which is stored in this commit unless it is known.
    pub(crate) fn rule_id(&self, t: &mut Txn<'_>, rule: &AclRule) -> Step<u32> {
        if let Some(id) = self.rules.find(rule) {
            return Ok(id);
        }
        let last = t.counter_or(Counter::AclMaxId, i64::from(self.rules.last()));
        let last = u32::try_from(last).map_err(|_| {
            StoreError::Corrupt(format!("the counter aclMaxId is damaged: it cannot be {last}"))
        })?;
        // Somebody else may have stored the same rule since.
        let seen = self.rules.last().max(last.saturating_sub(LOOKED_AT_MAX));
        t.want((seen..last).map(|id| Read::Acl(id + 1)))?;
        for id in (seen..last).map(|id| id + 1) {
            if let Some(raw) = t.acl(id)? {
                self.rules.learn(id, &raw)?;
            }
        }
        self.rules.looked_at(last);
        if let Some(id) = self.rules.find(rule) {
            return Ok(id);
        }
        let id = last.checked_add(1).ok_or(Errno::ENOSPC)?;
        t.require_counter(Counter::AclMaxId, i64::from(last));
        t.write(Write::AddCounter(Counter::AclMaxId, 1));
        t.write(Write::PutAcl(id, Bytes::from(rule.encode())));
        Ok(id)
    }

    /// The rule of an id.
    pub(crate) fn rule(&self, t: &mut Txn<'_>, id: u32) -> Step<Arc<AclRule>> {
        match self.rules.get(id) {
            Some(rule) => Ok(rule),
            None => {
                let raw = t.acl(id)?;
                Ok(self.keep_rule(id, raw)?)
            }
        }
    }

    /// Mode, access ACL and default ACL of a new node in the directory `p`: its default ACL decides, else the umask.
    pub(crate) fn inherited(
        &self,
        t: &mut Txn<'_>,
        p: &Attr,
        kind: FileType,
        mode: u16,
        umask: u16,
    ) -> Step<(u16, u32, u32)> {
        if kind == FileType::Symlink {
            return Ok((0o777, 0, 0));
        }
        if p.default_acl == 0 {
            return Ok((mode & 0o7777 & !umask, 0, 0));
        }
        let got = self.rule(t, p.default_acl)?.inherit(mode & 0o7777);
        let access = match &got.access {
            Some(rule) => self.rule_id(t, rule)?,
            None => 0,
        };
        Ok((got.mode, access, if kind == FileType::Directory { p.default_acl } else { 0 }))
    }

    /// The access ACL's id after a change of the mode.
    pub(crate) fn acl_after_chmod(&self, t: &mut Txn<'_>, a: &Attr, mode: u16) -> Step<u32> {
        if a.access_acl == 0 || mode & 0o777 == a.mode & 0o777 {
            return Ok(a.access_acl);
        }
        let rule = self.rule(t, a.access_acl)?.with_mode(mode);
        self.rule_id(t, &rule)
    }

    /// `EACCES` unless mode and ACL grant `mask` to a caller whose permissions are checked here.
    pub(crate) fn check_access(&self, t: &mut Txn<'_>, c: &Caller, a: &Attr, mask: u8) -> Step<()> {
        let rule = if needs_rule(c, a) { Some(self.rule(t, a.access_acl)?) } else { None };
        Ok(check_access(c, a, rule.as_deref(), mask)?)
    }

    /// `EACCES` unless mode and ACL grant `mask` (bits: 4 read, 2 write, 1 execute or search) to a caller who is checked here.
    ///
    /// # Errors
    /// `EACCES`; those of the engine where an ACL is to be fetched.
    pub async fn permit(&self, c: &Caller, a: &Attr, mask: u8) -> Result<()> {
        let rule = if needs_rule(c, a) { Some(self.fetch_rule(a.access_acl).await?) } else { None };
        Ok(check_access(c, a, rule.as_deref(), mask)?)
    }
}
