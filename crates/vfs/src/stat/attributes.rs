//! Attributes, permissions, and what the volume has room for.

use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::{Caller, Errno, SetAttr, VolumeStat, set_unrecorded};
use ciderfs_rt::Instant;

use crate::closing::Change;
use crate::content::moment::Moment;
use crate::error::Result;
use crate::io::handles::Handle;
use crate::vfs::Vfs;

impl Vfs {
    /// Attributes, with what is not flushed yet.
    pub async fn getattr(&self, ino: Ino) -> Result<Attr> {
        Ok(self.ask_attr(ino, Duration::ZERO).await?.0)
    }

    /// Attributes for somebody who may believe them for `age`, and how much of that is over: those of a file that was opened of
    /// late as they are remembered ([`OpenCache`](crate::OpenCache)), others as [`Meta::getattr_within`] tells them.
    pub async fn getattr_within(&self, ino: Ino, age: Duration) -> Result<(Attr, Duration)> {
        let Some((attr, left)) = self.attr_in_memory(ino) else { return self.ask_attr(ino, age).await };
        self.kernel.answered(ino, &attr);
        Ok((self.with_atime(ino, attr), age.saturating_sub(left)))
    }

    async fn ask_attr(&self, ino: Ino, age: Duration) -> Result<(Attr, Duration)> {
        if let Some(a) = self.virtual_attr_of(ino) {
            return Ok((a, Duration::ZERO));
        }
        let mut elapsed = Duration::ZERO;
        let (asked, since) = (Instant::now(), Moment::now());
        let file = self.files.get(ino);
        let as_of = file.as_ref().map_or(since, |f| f.as_of());
        let answer = self.meta.getattr_within(ino, age).await.map(|(attr, of)| {
            elapsed = of;
            attr
        });
        match (&answer, &file) {
            (Ok(attr), None) => self.recall(ino, attr, asked),
            (Ok(attr), Some(_)) => self.remember(ino, attr, asked, since),
            (Err(e), _) => self.disbelieve(ino, e),
        }
        let attr = match (answer, file) {
            (Ok(attr), None) => attr,
            (Ok(attr), Some(file)) => file.tell(&attr, as_of),
            // Whoever still holds a removed node may ask for its attributes, whoever removed it.
            (Err(e), file) if e.errno() == Errno::ENOENT => match (file, self.meta.departed(ino)) {
                (Some(file), _) => file.state.lock().orphaned(),
                (None, Some(attr)) => attr,
                (None, None) => return Err(e.into()),
            },
            (Err(e), _) => return Err(e.into()),
        };
        self.kernel.answered(ino, &attr);
        Ok((self.with_atime(ino, attr), elapsed))
    }

    /// Attributes that were right at a moment, or those of now if something happened to the inode since.
    pub(crate) async fn tell_now(&self, ino: Ino, attr: Attr, since: Moment) -> Attr {
        if ino.is_virtual() || !self.is_overtaken(ino, since) {
            self.kernel.answered(ino, &attr);
            return attr;
        }
        self.getattr(ino).await.unwrap_or(attr)
    }

    /// May the caller search a directory, as far as is known without asking the engine?
    pub fn seems_searchable(&self, c: &Caller, dir: Ino) -> bool {
        self.meta.seems_searchable(c, dir)
    }

    /// Changes attributes and, if given, the length.
    pub async fn setattr(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        set: &SetAttr,
        size: Option<u64>,
        fh: Option<u64>,
    ) -> Result<Attr> {
        Ok(self.setattr_at(c, ino, set, size, fh).await?.0)
    }

    /// Changes the flags of an inode (`FS_IOC_SETFLAGS`) to what `to` makes of those that it has.
    ///
    /// # Errors
    /// Those of `to` and of [`Vfs::setattr`].
    pub async fn change_flags(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        to: impl FnOnce(u8) -> Result<u8, Errno>,
    ) -> Result<()> {
        let stored = self.getattr(ino).await?.flags;
        let set = SetAttr { flags: Some(to(stored)?), ..SetAttr::default() };
        self.setattr(c, ino, &set, None, None).await?;
        // The answer to an ioctl has no attributes, and the ctime has changed.
        self.attributes_changed(ino).await;
        Ok(())
    }

    /// [`Vfs::setattr`] that also tells of which moment the attributes are, for [`Vfs::tell_now`].
    pub(crate) async fn setattr_at(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        set: &SetAttr,
        size: Option<u64>,
        fh: Option<u64>,
    ) -> Result<(Attr, Moment)> {
        if let Some(a) = self.virtual_attr_of(ino) {
            return Ok((a, Moment::now()));
        }
        let by_handle = match fh.filter(|_| size.is_some()) {
            Some(fh) => match self.handles.get(fh)? {
                // One that only reads has been opened with O_TRUNC.
                Handle::File(h) if !h.writable => false,
                Handle::File(h) => {
                    self.check_locks(&h).await?;
                    true
                }
                _ => false,
            },
            None => false,
        };
        let mut attr = None;
        if let Some(size) = size {
            attr = Some(match self.truncate_file(c, ino, size, by_handle).await {
                Err(e) if e.errno() == Errno::ENOENT && size == 0 && !by_handle => {
                    (self.emptied_orphan(ino).ok_or(e)?, Moment::now())
                }
                other => other?,
            });
        }
        let only_size = *set == SetAttr::default();
        if let Some(cut) = attr.filter(|_| only_size) {
            return Ok(cut);
        }
        let file = self.files.get(ino);
        if let Some(file) = file.as_ref().filter(|f| set.mtime.is_some() && f.is_dirty()) {
            // What was written before gets its own time first, or its commit would undo this one.
            self.flush(file).await?;
        }
        if set.atime.is_some() {
            self.forget_access(ino).await;
        }
        let _room = self.room_for_owners(c, ino, set).await?;
        let since = Moment::now();
        let changed = match self.meta.setattr(c, ino, set).await {
            Err(e) if e.errno() == Errno::ENOENT => {
                if let Some(file) = file {
                    let now = self.meta.now();
                    let set_all = |attr: &mut Attr| Ok(set_unrecorded(c, attr, set, now)?);
                    let attr = file.state.lock().set_orphan(set_all)?;
                    return Ok((attr, Moment::now()));
                }
                return Ok((self.meta.set_departed(c, ino, set).unwrap_or(Err(e))?, Moment::now()));
            }
            other => other?,
        };
        let change = match &file {
            None => Change::Closed(&changed),
            Some(file) => Change::Attributes { file, changed: &changed, since },
        };
        let done = self.done(ino, change).await;
        Ok((done.attr.unwrap_or(changed.attr), done.as_of))
    }

    /// An open file whose record is gone, emptied: an open with `O_TRUNC` truncates when it is through, and another mount may
    /// have given the name to another file since.
    fn emptied_orphan(&self, ino: Ino) -> Option<Attr> {
        let file = self.files.get(ino).filter(|file| !file.is_dirty())?;
        let attr = file.state.lock().empty_orphan();
        Some(attr)
    }

    /// Checks a permission.
    pub async fn access(&self, c: &Caller, ino: Ino, mask: u8) -> Result<()> {
        if ino.is_virtual() {
            self.access_virtual(c, ino, mask).await
        } else {
            Ok(self.meta.access(c, ino, mask).await?)
        }
    }

    /// Size and use of the volume, or of the quota under which an inode is.
    pub async fn statfs(&self, ino: Ino) -> Result<VolumeStat> {
        Ok(self.meta.statfs_at(if ino.is_virtual() { Ino::ROOT } else { ino }).await?)
    }

    /// Attributes fetched since a moment, and a time, with the unflushed data of this mount; `None` if the file has changed since, so that
    /// they may be older than what the kernel knows already.
    pub(crate) fn tell_since(&self, ino: Ino, attr: &Attr, since: Moment, asked: Instant) -> Option<Attr> {
        self.recall(ino, attr, asked);
        let attr = match self.files.get(ino) {
            _ if self.is_overtaken(ino, since) => return None,
            Some(file) => file.tell_since(attr, since)?,
            None => attr.clone(),
        };
        Some(self.with_atime(ino, attr))
    }
}
