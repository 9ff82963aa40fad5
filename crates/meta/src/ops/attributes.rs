//! Reading and changing attributes, permission checks, opening.

use std::time::Duration;

use ciderfs_format::attr::flags;
use ciderfs_format::{Attr, FileType, Ino, Time};

use super::data::view;
use super::rules::{R, W, X, check_flags};
use crate::error::{Errno, Result};
use crate::holds::has_parents;
use crate::proof::Proof;
use crate::store::{AttrMask, AttrPatch, Read, StoreError, Value, Write};
use crate::txn::{Step, Txn};
use crate::types::{Caller, Changed, ChunkView, OpenFlags, SetAttr, SetTime};
use crate::volume::{Meta, synthetic_dir};

impl Meta {
    /// Attributes of an inode, always from the engine.
    ///
    /// # Errors
    /// `ENOENT`.
    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        let _timed = self.timed("GetAttr");
        let real = self.real(ino);
        let began = self.known_xattrs.begin();
        let values = self.read(&[Read::Attr(real)]).await?;
        let Some(Value::Attr(attr)) = values.into_iter().next() else {
            return Err(StoreError::another_question().into());
        };
        self.beliefs.set_attr(real, attr.clone());
        if let Some(a) = attr.as_ref().filter(|_| self.has_acls()) {
            self.known_xattrs.learn_acls(real, a, began);
        }
        match attr {
            Some(a) => Ok(a),
            // A mount whose root cannot be stat'ed is unusable even for repair.
            None if real == Ino::ROOT || real == Ino::TRASH => Ok(synthetic_dir(real)),
            None => Err(Errno::ENOENT.into()),
        }
    }

    /// Attributes for somebody who may believe them for `age`, and how much of that is over. A directory that this client has
    /// changed within that time costs no turn.
    ///
    /// # Errors
    /// As [`Meta::getattr`].
    pub async fn getattr_within(&self, ino: Ino, age: Duration) -> Result<(Attr, Duration)> {
        match self.beliefs.seen_directory(self.real(ino), age) {
            Some(seen) => Ok(seen),
            None => Ok((self.getattr(ino).await?, Duration::ZERO)),
        }
    }

    /// Checks a permission (bits: 4 read, 2 write, 1 execute or search; 0 existence).
    ///
    /// # Errors
    /// `EACCES`, `EPERM` (writing to an immutable node), `ENOENT`, `EROFS`.
    pub async fn access(&self, c: &Caller, ino: Ino, mask: u8) -> Result<()> {
        let a = self.getattr_of_held(ino).await?;
        if mask & W != 0 && self.cfg.read_only && !matches!(a.kind, FileType::Fifo | FileType::Socket) {
            return Err(Errno::EROFS.into());
        }
        if mask & W != 0 {
            check_flags(&a, false)?;
        }
        self.permit(&Caller { check: true, ..c.clone() }, &a, mask).await
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// `EPERM` (not the owner, a flag, the trash), `EACCES`, `ENOENT`, `EROFS`.
    pub async fn setattr(&self, c: &Caller, ino: Ino, set: &SetAttr) -> Result<Changed> {
        let _timed = self.timed("SetAttr");
        let real = self.real(ino);
        if self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let ran = self
            .run("SetAttr", |t| {
                t.want([Read::Attr(real)])?;
                let a = t.attr(real, AttrMask::ALL)?;
                Ok(Changed::new(&a, self.setattr_step(t, c, (real, &a), set)?))
            })
            .await?;
        if ran.value.attr.access_acl != 0 && set.mode.is_some() {
            self.known_xattrs.forget(real);
        }
        Ok(ran.value)
    }

    /// Checks whether a file may be opened so, and counts it as open. Every success needs a [`Meta::close`].
    ///
    /// # Errors
    /// `EACCES`, `EPERM` (immutable, append-only, in the trash), `EROFS`, `ENOENT`.
    pub async fn open(&self, c: &Caller, ino: Ino, how: OpenFlags) -> Result<Attr> {
        Ok(self.open_looking_in(c, ino, how).await?.0)
    }

    /// [`Meta::open`] that also tells what the first chunk holds, in the same turn, if the file is opened for reading only.
    ///
    /// # Errors
    /// As [`Meta::open`].
    pub async fn open_looking_in(
        &self,
        c: &Caller,
        ino: Ino,
        how: OpenFlags,
    ) -> Result<(Attr, Option<ChunkView>)> {
        let _timed = self.timed("Open");
        let writes = how.write || how.truncate;
        if writes && self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let real = self.real(ino);
        self.open.open(real).await;
        let checked = self.open_checked(c, ino, how).await;
        if checked.is_err() {
            self.close(ino).await?;
        }
        checked
    }

    /// Reads all that an open wants to know in one turn.
    async fn open_checked(&self, c: &Caller, ino: Ino, how: OpenFlags) -> Result<(Attr, Option<ChunkView>)> {
        let real = self.real(ino);
        if ino == Ino::ROOT || ino == Ino::TRASH {
            let a = self.getattr(ino).await?;
            self.permit_open(c, real, &a, None, how).await?;
            return Ok((a, None));
        }
        let writes = how.write || how.truncate;
        let began = self.known_xattrs.begin();
        let mut reads = vec![Read::Attr(real)];
        // What a write takes away.
        reads.extend((writes && self.known_xattrs.is_on()).then_some(Read::XattrNames(real)));
        reads.extend((how.read && !writes).then_some(Read::Slices(real, 0)));
        // Whether all of its names are in the trash: of a file with many that is much to ask, and who reads may do so anyway.
        let several =
            writes && self.beliefs.attr(real).is_some_and(|a| has_parents(&a)) && !self.is_held(real);
        reads.extend(several.then_some(Read::Parents(real)));
        let values = self.read(&reads).await?;
        let [Value::Attr(attr), rest @ ..] = &values[..] else {
            return Err(StoreError::another_question().into());
        };
        self.beliefs.set_attr(real, attr.clone());
        let a = attr.clone().ok_or(Errno::ENOENT)?;
        if self.has_acls() || (writes && self.known_xattrs.is_on()) {
            self.known_xattrs.learn_acls(real, &a, began);
        }
        let (mut first, mut parents) = (None, None);
        for value in rest {
            match value {
                Value::Names(names) => self.known_xattrs.learn_names(real, names, began),
                Value::Slices(list) => first = Some(view(list)),
                Value::Parents(_) => parents = Some(value.clone()),
                _ => return Err(StoreError::another_question().into()),
            }
        }
        if writes && parents.is_none() && has_parents(&a) && !self.is_held(real) {
            parents = self.read(&[Read::Parents(real)]).await?.into_iter().next();
        }
        self.permit_open(c, real, &a, parents.as_ref(), how).await?;
        Ok((a, first))
    }

    /// May a file that is counted as open be opened so? `parents`: of a file with several.
    async fn permit_open(
        &self,
        c: &Caller,
        real: Ino,
        a: &Attr,
        parents: Option<&Value>,
        how: OpenFlags,
    ) -> Result<()> {
        let writes = how.write || how.truncate;
        let mask = if how.read { R } else { 0 } | if how.exec { X } else { 0 } | if writes { W } else { 0 };
        self.permit(c, a, mask).await?;
        let kept = self.is_kept_below(real, a, parents);
        if writes && (a.flags & flags::IMMUTABLE != 0 || kept) {
            return Err(Errno::EPERM.into());
        }
        if a.flags & flags::APPEND != 0 && ((how.write && !how.append) || how.truncate) {
            return Err(Errno::EPERM.into());
        }
        // Where the names of a file with several were not asked for, the way to it tells.
        let is_known = parents.is_some() || !has_parents(a) || self.is_held(real);
        if !kept && (is_known || !self.was_reached_through_trash(real)) {
            self.open.opened_outside(real);
        }
        Ok(())
    }

    /// [`Meta::open`] of a file whose record is gone: another client has removed it since its name was looked up here, when it had
    /// the attributes `last`.
    ///
    /// # Errors
    /// `EACCES`, `EPERM`, `EROFS`.
    pub async fn open_gone(&self, c: &Caller, ino: Ino, last: &Attr, how: OpenFlags) -> Result<()> {
        if (how.write || how.truncate) && self.cfg.read_only {
            return Err(Errno::EROFS.into());
        }
        let real = self.real(ino);
        self.open.open(real).await;
        let permitted = self.permit_open(c, real, last, None, how).await;
        if permitted.is_err() {
            self.close(ino).await?;
        }
        permitted
    }

    /// [`Meta::open`] of a file that has the attributes `known`, as far as the caller knows, without asking the engine. False, and
    /// not counted as open, if this client has learnt anything else since, or if it may not be opened so: then ask.
    ///
    /// # Errors
    /// Those of [`Meta::close`].
    pub async fn open_as_known(&self, c: &Caller, ino: Ino, known: &Attr, how: OpenFlags) -> Result<bool> {
        let real = self.real(ino);
        // A removal by this client is waited for.
        self.open.open(real).await;
        // Of a file with several names only the engine knows whether one is left outside the trash.
        let is_known = self.believes(ino, known) && (!has_parents(known) || self.is_held(real));
        let permitted = is_known && self.permit_open(c, real, known, None, how).await.is_ok();
        if !permitted {
            self.close(ino).await?;
        }
        Ok(permitted)
    }

    /// Is nothing else known of a node than these attributes?
    pub fn believes(&self, ino: Ino, known: &Attr) -> bool {
        let real = self.real(ino);
        match self.beliefs.attr(real) {
            Some(attr) => attr == *known,
            None => self.beliefs.last_of_gone(real).is_none(),
        }
    }

    /// Counts a file as open that a process before this one had open in the same session, and was permitted to; for
    /// writing, or as a file that was made without a name. Needs a [`Meta::close`], whatever the result.
    ///
    /// # Errors
    /// `ENOENT`: removed, and not kept, since the session was declared dead.
    pub async fn reopen(&self, ino: Ino, writes: bool, nameless: bool) -> Result<Attr> {
        let real = self.real(ino);
        self.open.open(real).await;
        let a = self.getattr(ino).await?;
        // Who may write to a file in the trash has it open since before it went there.
        if writes || !a.in_trash() {
            self.open.opened_outside(real);
        }
        if a.nlink == 0 {
            self.open.is_nameless(real, nameless);
        }
        Ok(a)
    }

    /// Counts a file that this client has just created as open.
    pub fn opened(&self, ino: Ino) {
        self.open.opened(self.real(ino));
    }

    /// Undoes one [`Meta::open`]. The last close of an unlinked file removes it.
    pub async fn close(&self, ino: Ino) -> Result<()> {
        let real = self.real(ino);
        let last_of_unlinked = self.open.close(real);
        if !self.open.is_open(real) {
            self.locks.forgive(real);
        }
        if last_of_unlinked { self.remove_sustained(self.sid(), real).await } else { Ok(()) }
    }
}

impl Meta {
    /// What chmod, chown, utimes and truncate change, and who may (`docs/semantics.md#names-and-attributes`).
    fn setattr_step(&self, t: &mut Txn<'_>, c: &Caller, (ino, a): (Ino, &Attr), set: &SetAttr) -> Step<Attr> {
        if self.keeps(t, ino, a) {
            return Err(Errno::EPERM.into());
        }
        let root = c.uid == 0;
        let owner = root || c.uid == a.uid;
        check_flags_allow(a, set)?;
        let mut patch = AttrPatch::default();
        let chown = set.uid.is_some() || set.gid.is_some();
        if let Some(gid) = set.gid {
            if !owner || (c.check && gid != a.gid && !root && !c.in_group(gid)) {
                return Err(Errno::EPERM.into());
            }
            patch.gid = Some(gid).filter(|g| *g != a.gid);
        }
        if let Some(uid) = set.uid {
            if uid != a.uid && c.check && !root {
                return Err(Errno::EPERM.into());
            }
            patch.uid = Some(uid).filter(|u| *u != a.uid);
        }
        // `chown` to nobody in particular arrives as a change of nothing. It marks ctime and takes special bits like any other.
        let nothing = *set == SetAttr::default();
        let mut mode = a.mode;
        // Giving a program to somebody else takes its special bits, unless the kernel decided about the mode itself.
        if (chown || nothing) && set.mode.is_none() && !a.is_dir() && mode & 0o6000 != 0 {
            // Without execution by the group, set-group-ID is no privilege; members keep it.
            let keeps = mode & 0o010 == 0 && (root || c.in_group(a.gid));
            mode &= if keeps { !0o4000 } else { !0o6000 };
            if nothing && mode != a.mode && !owner {
                // So does what precedes a write by somebody who may not keep those bits; the write takes them itself. `EPERM`,
                // which only `chown` deserves, would forbid the write.
                return Ok(a.clone());
            }
        }
        if let Some(new) = set.mode {
            mode = new & 0o7777;
            if c.check && !root && mode & 0o2000 != 0 && !c.in_group(patch.gid.unwrap_or(a.gid)) {
                mode &= !0o2000;
            }
            if (mode != a.mode || c.check) && !owner {
                return Err(Errno::EPERM.into());
            }
        }
        patch.mode = Some(mode).filter(|m| *m != a.mode);
        let access = self.acl_after_chmod(t, a, mode)?;
        patch.tail = Some((access, a.default_acl, a.tier)).filter(|_| access != a.access_acl);
        patch.atime = self.set_time(t, c, a, set.atime, a.atime)?;
        patch.mtime = self.set_time(t, c, a, set.mtime, a.mtime)?;
        if let Some(f) = set.flags {
            let protection = (f ^ a.flags) & (flags::IMMUTABLE | flags::APPEND) != 0;
            if !owner || (protection && c.check && !root) {
                return Err(Errno::EPERM.into());
            }
            patch.flags = Some(f).filter(|f| *f != a.flags);
        }
        let asked = chown || nothing || set.mode.is_some() || set.flags.is_some() || set.ctime.is_some();
        if patch.is_empty() && !asked {
            return Ok(a.clone());
        }
        patch.ctime = Some(set.ctime.unwrap_or(t.now));
        let mut after = a.clone();
        patch.apply(&mut after);
        // The root itself is charged to nobody.
        if (a.uid, a.gid) != (after.uid, after.gid) && ino != Ino::ROOT {
            let space = a.charged_space() as i64;
            t.charges.owner((a.uid, a.gid), -space, -1);
            t.charges.owner((after.uid, after.gid), space, 1);
            // As on local file systems, the superuser may give beyond a quota.
            t.charges.exempt = root;
        }
        t.proof(Proof::Ctime(ino, after.ctime));
        t.write(Write::PatchAttr(ino, patch));
        Ok(after)
    }

    fn set_time(
        &self,
        t: &mut Txn<'_>,
        c: &Caller,
        a: &Attr,
        set: Option<SetTime>,
        old: Time,
    ) -> Step<Option<Time>> {
        let owner = c.uid == 0 || c.uid == a.uid;
        let Some(set) = set else { return Ok(None) };
        match set {
            SetTime::Now => {
                if !owner {
                    self.check_access(t, c, a, W)?;
                }
                Ok(Some(t.now))
            }
            SetTime::At(_) if !owner => Err(Errno::EPERM.into()),
            SetTime::At(at) => Ok(Some(at).filter(|at| *at != old)),
        }
    }
}

/// `EPERM` where the inode is immutable or append-only. The flags themselves can always be changed; the times of an
/// append-only file may advance to now.
fn check_flags_allow(a: &Attr, set: &SetAttr) -> Result<(), Errno> {
    // A change of nothing marks ctime only, which is not forbidden.
    if set.flags.is_some() || *set == SetAttr::default() {
        return Ok(());
    }
    let now = Some(SetTime::Now);
    let touch = (set.atime, set.mtime) == (now, now) && (set.mode, set.uid, set.gid) == (None, None, None);
    check_flags(a, !touch)
}
