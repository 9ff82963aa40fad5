//! Rules that several operations share: names, permissions, parents' times.

use std::time::Duration;

use ciderfs_format::acl::AclRule;
use ciderfs_format::attr::flags;
use ciderfs_format::edge::NAME_MAX;
use ciderfs_format::{Attr, Ino, Time};

use crate::error::{Errno, Result};
use crate::store::{AttrPatch, Write};
use crate::txn::{Step, Txn};
use crate::types::Caller;
use crate::volume::Meta;

/// Permission to read, in [`Meta::access`] and here.
pub(crate) const R: u8 = 4;
/// Permission to write.
pub(crate) const W: u8 = 2;
/// Permission to search or execute.
pub(crate) const X: u8 = 1;

/// Is `name` fit for a new entry?
pub(crate) fn check_new_name(name: &[u8]) -> Result<()> {
    check_name(name)?;
    if name == b"." || name == b".." {
        return Err(Errno::EEXIST.into());
    }
    Ok(())
}

/// Can `name` be the name of an entry at all?
pub(crate) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG.into());
    }
    if name.is_empty() || name.iter().any(|b| *b == b'/' || *b == 0) {
        return Err(Errno::EINVAL.into());
    }
    Ok(())
}

/// Does an access ACL decide, rather than the mode bits alone?
pub(crate) fn needs_rule(c: &Caller, a: &Attr) -> bool {
    c.check && c.uid != 0 && c.uid != a.uid && a.access_acl != 0 && a.mode & 0o070 != 0
}

/// `EACCES` unless the mode bits, or the access rule where there is one, grant `mask` to the caller. The superuser passes, but
/// executes only what somebody may.
pub(crate) fn check_access(c: &Caller, a: &Attr, rule: Option<&AclRule>, mask: u8) -> Result<(), Errno> {
    if !c.check {
        return Ok(());
    }
    let mode = a.mode;
    if c.uid == 0 {
        let executable = a.is_dir() || mode & 0o111 != 0;
        return if mask & X == 0 || executable { Ok(()) } else { Err(Errno::EACCES) };
    }
    if let Some(rule) = rule {
        let gids: Vec<u32> = c.groups.iter().copied().chain([c.gid]).collect();
        let who = ciderfs_format::acl::Caller { uid: c.uid, gids: &gids };
        let granted = rule.permits(&who, a.uid, a.gid, u16::from(mask));
        return if granted { Ok(()) } else { Err(Errno::EACCES) };
    }
    let class = if c.uid == a.uid {
        mode >> 6
    } else if c.in_group(a.gid) {
        mode >> 3
    } else {
        mode
    };
    if class as u8 & mask == mask { Ok(()) } else { Err(Errno::EACCES) }
}

/// In a sticky directory only the superuser, the directory's owner and the entry's owner may remove or rename an entry.
pub(crate) fn check_sticky(c: &Caller, dir: &Attr, entry: &Attr) -> Result<(), Errno> {
    if dir.mode & 0o1000 != 0 && c.uid != 0 && c.uid != dir.uid && c.uid != entry.uid {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// `EPERM` on immutable inodes, and on append-only ones if `append_too`.
pub(crate) fn check_flags(a: &Attr, append_too: bool) -> Result<(), Errno> {
    let forbidden = flags::IMMUTABLE | if append_too { flags::APPEND } else { 0 };
    if a.flags & forbidden != 0 { Err(Errno::EPERM) } else { Ok(()) }
}

impl Meta {
    /// A directory that takes a new entry, or `ENOTDIR`, `ENOENT` (it lies in the trash), `EACCES`, `EPERM`.
    pub(crate) fn check_receiving_dir(&self, t: &mut Txn<'_>, c: &Caller, dir: &Attr) -> Step<()> {
        if !dir.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        if dir.in_trash() {
            return Err(Errno::ENOENT.into());
        }
        self.check_access(t, c, dir, W | X)?;
        Ok(check_flags(dir, false)?)
    }

    /// A directory that loses an entry.
    pub(crate) fn check_losing_dir(&self, t: &mut Txn<'_>, c: &Caller, dir: &Attr) -> Step<()> {
        if !dir.is_dir() {
            return Err(Errno::ENOTDIR.into());
        }
        self.check_access(t, c, dir, W | X)?;
        Ok(check_flags(dir, true)?)
    }

    /// Buffers the change of a directory's times and link count after one of its entries changed. Trash directories
    /// keep neither. A change of the link count always sets the times; else `skip_dir_mtime` may spare the write.
    pub(crate) fn touch_dir(&self, t: &mut Txn<'_>, ino: Ino, dir: &Attr, nlink: i32) {
        if ino.is_trash() {
            return;
        }
        if nlink == 0 && younger_than(dir.mtime, t.now, self.cfg.skip_dir_mtime) {
            return;
        }
        let patch = AttrPatch { mtime: Some(t.now), ctime: Some(t.now), nlink, ..AttrPatch::default() };
        t.write(Write::PatchAttr(ino, patch));
    }

    /// Name of the trash in the root.
    pub fn trash_name(&self) -> &'static [u8] {
        if self.cfg.prefix_internal { b".jfs.trash" } else { b".trash" }
    }

    /// The trash's name in the root is reserved.
    pub(crate) fn is_reserved(&self, dir: Ino, name: &[u8]) -> bool {
        dir == Ino::ROOT && name == self.trash_name()
    }
}

/// Is `then` less than `limit` before `now`?
fn younger_than(then: Time, now: Time, limit: Duration) -> bool {
    let nanos = |t: Time| i128::from(t.sec) * 1_000_000_000 + i128::from(t.nsec);
    let age = nanos(now) - nanos(then);
    age >= 0 && age < limit.as_nanos() as i128
}
