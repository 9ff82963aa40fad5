//! Requests that change content, whole: with what POSIX has them take away, so that a front door makes one call.

use std::sync::Arc;

use ciderfs_format::Ino;
use ciderfs_meta::{Caller, Result, SetAttr};

use crate::stat::whole::Stat;
use crate::vfs::{Opened, Vfs};

/// Who changes content through a front door.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// The caller.
    pub caller: &'a Caller,
    /// Is he in a group, if only by a supplementary one?
    pub in_group: &'a (dyn Fn(u32) -> bool + Sync),
    /// The kernel has found that he may not keep set-user-ID and set-group-ID of what he changes.
    pub loses_bits: bool,
}

/// A write as the kernel sends it.
#[derive(Clone, Copy)]
pub struct WriteRequest<'a> {
    /// Handle.
    pub fh: u64,
    /// Where, or with `O_APPEND` where the kernel believes the end to be.
    pub offset: u64,
    /// What.
    pub data: &'a [u8],
    /// `O_*` as the descriptor has them now.
    pub flags: i32,
    /// It comes from the kernel's pages, about which nobody can be told any more.
    pub cached: bool,
    /// The mount has capabilities, which a write takes away.
    pub has_capabilities: bool,
    /// The kernel's number of the request.
    pub unique: u64,
    /// It was sent to the process before this one already.
    pub is_resent: bool,
}

impl Vfs {
    /// [`Vfs::set_stat`] for somebody who may lose special bits by it. A change of mode or owner decides about them itself.
    ///
    /// # Errors
    /// Those of [`Vfs::set_stat`].
    pub async fn set_stat_by(
        self: &Arc<Self>,
        by: Writer<'_>,
        ino: Ino,
        set: &SetAttr,
        size: Option<u64>,
        fh: Option<u64>,
    ) -> Result<Stat> {
        // A change of owner takes these bits in its own commit.
        let is_chown = set.uid.is_some() || set.gid.is_some();
        if by.loses_bits && set.mode.is_none() && !is_chown {
            self.clear_special_bits(by, ino).await?;
        }
        self.set_stat(by.caller, ino, set, size, fh).await
    }

    /// [`Vfs::open`] for somebody who may lose special bits by truncating.
    ///
    /// # Errors
    /// Those of [`Vfs::open`].
    pub async fn open_by(self: &Arc<Self>, by: Writer<'_>, ino: Ino, flags: i32) -> Result<Opened> {
        let opened = self.open(by.caller, ino, flags).await?;
        if by.loses_bits
            && flags & libc::O_TRUNC != 0
            && let Err(e) = self.clear_special_bits(by, ino).await
        {
            self.release(opened.fh).await;
            return Err(e);
        }
        Ok(opened)
    }

    /// Serves a write. Returns how much was written: all of it.
    ///
    /// # Errors
    /// `EPERM`, see [`Vfs::may_write`]; those of [`Vfs::write`].
    pub async fn write_by(self: &Arc<Self>, by: Writer<'_>, ino: Ino, w: WriteRequest<'_>) -> Result<u32> {
        let appends = w.flags & libc::O_APPEND != 0 && !w.cached;
        let is_direct = w.flags & libc::O_DIRECT != 0;
        if !w.cached {
            self.may_write(w.fh, w.flags)?;
        }
        if by.loses_bits {
            self.clear_special_bits(by, ino).await?;
        }
        if appends && w.has_capabilities {
            self.clear_capability(ino).await?;
        }
        let n = if appends && w.is_resent && self.has_appended(w.unique) {
            w.data.len() as u32
        } else if appends && !is_direct {
            self.append_once(w.fh, w.offset, w.data, w.unique).await?
        } else {
            // The kernel sends the parts of a long direct write all at once: only their offsets tell the order.
            self.write(w.fh, w.offset, w.data).await?
        };
        if is_direct {
            self.written_past_the_cache(w.fh, w.offset, u64::from(n)).await;
        }
        Ok(n)
    }

    /// [`Vfs::fallocate`], which takes special bits away.
    ///
    /// # Errors
    /// Those of [`Vfs::fallocate`].
    pub async fn fallocate_by(
        self: &Arc<Self>,
        by: Writer<'_>,
        (ino, fh): (Ino, u64),
        mode: u32,
        off: u64,
        len: u64,
    ) -> Result<()> {
        self.clear_bits_unasked(by, ino).await?;
        self.fallocate(by.caller, fh, mode, off, len).await
    }

    /// [`Vfs::copy_file_range`], which takes special bits of the target away.
    ///
    /// # Errors
    /// Those of [`Vfs::copy_file_range`].
    pub async fn copy_by(
        self: &Arc<Self>,
        by: Writer<'_>,
        from: (u64, u64),
        (ino, to): (Ino, (u64, u64)),
        len: u64,
        flags: u64,
    ) -> Result<u64> {
        self.clear_bits_unasked(by, ino).await?;
        self.copy_file_range(by.caller, from, to, len, flags).await
    }

    /// Takes special bits away where the kernel leaves it to us to know when.
    async fn clear_bits_unasked(self: &Arc<Self>, by: Writer<'_>, ino: Ino) -> Result<()> {
        if by.caller.uid == 0 { Ok(()) } else { self.clear_special_bits(by, ino).await }
    }
}
