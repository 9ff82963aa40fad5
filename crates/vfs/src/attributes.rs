//! Attributes, permissions, and what the volume has room for.

use std::sync::Arc;
use std::time::Duration;

use ciderfs_format::{Attr, Ino};
use ciderfs_meta::{Caller, Errno, Result, SetAttr, Version, VolumeStat, set_unrecorded};
use ciderfs_rt::Instant;

use crate::file::{moment, next_moment};
use crate::handles::Handle;
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
        self.told.note(ino, &attr);
        Ok((self.with_atime(ino, attr), age.saturating_sub(left)))
    }

    async fn ask_attr(&self, ino: Ino, age: Duration) -> Result<(Attr, Duration)> {
        if let Some(a) = self.virtual_attr_of(ino) {
            return Ok((a, Duration::ZERO));
        }
        let mut elapsed = Duration::ZERO;
        let (asked, since) = (Instant::now(), moment());
        let file = self.files.get(ino);
        let generation = file.as_ref().map_or(0, |f| f.generation());
        let told = self.meta.getattr_within(ino, age).await.map(|(attr, of)| {
            elapsed = of;
            attr
        });
        match (&told, &file) {
            (Ok(attr), None) => self.recall(ino, attr, asked),
            (Ok(attr), Some(_)) => self.remember(ino, attr, asked, since),
            (Err(e), _) => self.disbelieve(ino, e),
        }
        let attr = match (told, file) {
            (Ok(attr), None) => attr,
            (Ok(attr), Some(file)) => file.refresh(&attr, generation),
            // Whoever still holds a removed node may ask for its attributes, whoever removed it.
            (Err(e), file) if e.errno() == Errno::ENOENT => match (file, self.meta.departed(ino)) {
                (Some(file), _) => file.state.lock().orphaned(),
                (None, Some(attr)) => attr,
                (None, None) => return Err(e),
            },
            (Err(e), _) => return Err(e),
        };
        self.told.note(ino, &attr);
        Ok((self.with_atime(ino, attr), elapsed))
    }

    /// Now, for [`Vfs::still`].
    pub fn moment(&self) -> u64 {
        moment()
    }

    /// Attributes that were right at a moment, or those of now if something happened to the inode since.
    pub async fn still(&self, ino: Ino, attr: Attr, since: u64) -> Attr {
        if ino.is_virtual() || !self.changed.since(ino, since) {
            self.told.note(ino, &attr);
            return attr;
        }
        self.getattr(ino).await.unwrap_or(attr)
    }

    /// May the caller search a directory, as far as is known without asking the engine?
    pub fn seems_searchable(&self, c: &Caller, dir: Ino) -> bool {
        self.meta.seems_searchable(c, dir)
    }

    /// Permission bits and group of a file that is open here, as last seen.
    pub fn mode_of_open(&self, ino: Ino) -> Option<(u16, u32)> {
        self.files.get(ino).map(|file| {
            let s = file.state.lock();
            (s.attr.mode, s.attr.gid)
        })
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

    /// [`Vfs::setattr`] that also tells of which moment the attributes are, for [`Vfs::still`].
    pub async fn setattr_at(
        self: &Arc<Self>,
        c: &Caller,
        ino: Ino,
        set: &SetAttr,
        size: Option<u64>,
        fh: Option<u64>,
    ) -> Result<(Attr, u64)> {
        if let Some(a) = self.virtual_attr_of(ino) {
            return Ok((a, moment()));
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
                    (self.emptied_orphan(ino).ok_or(e)?, moment())
                }
                other => other?,
            });
        }
        let only_size = *set == SetAttr::default();
        if let Some(told) = attr.filter(|_| only_size) {
            return Ok(told);
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
        let since = moment();
        let changed = match self.meta.setattr(c, ino, set).await {
            Err(e) if e.errno() == Errno::ENOENT => {
                if let Some(file) = file {
                    let s = &mut *file.state.lock();
                    set_unrecorded(c, &mut s.attr, set, self.meta.now())?;
                    return Ok((s.orphaned(), moment()));
                }
                return self.meta.set_departed(c, ino, set).unwrap_or(Err(e)).map(|a| (a, moment()));
            }
            other => other?,
        };
        self.pages.changed(ino, &changed);
        self.note_change(ino);
        let at = moment();
        let Some(file) = file else {
            self.catch_up_if_open(ino).await;
            return Ok((changed.attr, at));
        };
        {
            let mut s = file.state.lock();
            if s.generation <= since {
                if s.version == changed.before {
                    // Only the time was set: the content is still what it was.
                    s.version = Version::of(&changed.attr);
                }
                s.adopt(&changed.attr);
                // What was fetched before does not know the new mode or owner.
                s.generation = next_moment();
                return Ok((s.attr.clone(), at));
            }
        }
        // What was committed meanwhile counts as well, if it can be found out: the change is made.
        let at = moment();
        Ok((self.getattr(ino).await.unwrap_or(changed.attr), at))
    }

    /// An open file whose record is gone, emptied: an open with `O_TRUNC` truncates when it is through, and another mount may
    /// have given the name to another file since.
    fn emptied_orphan(&self, ino: Ino) -> Option<Attr> {
        let file = self.files.get(ino).filter(|file| !file.is_dirty())?;
        let mut s = file.state.lock();
        s.attr.length = 0;
        s.changed();
        Some(s.orphaned())
    }

    /// Checks a permission.
    pub async fn access(&self, c: &Caller, ino: Ino, mask: u8) -> Result<()> {
        if ino.is_virtual() {
            self.access_virtual(c, ino, mask).await
        } else {
            self.meta.access(c, ino, mask).await
        }
    }

    /// Size and use of the volume, or of the quota under which an inode is.
    pub async fn statfs(&self, ino: Ino) -> Result<VolumeStat> {
        self.meta.statfs_at(if ino.is_virtual() { Ino::ROOT } else { ino }).await
    }

    /// Attributes fetched since a moment, and a time, with the unflushed data of this mount; `None` if the file has changed since, so that
    /// they may be older than what the kernel knows already.
    pub(crate) fn merged_since(&self, ino: Ino, attr: &Attr, since: u64, asked: Instant) -> Option<Attr> {
        self.recall(ino, attr, asked);
        let attr = match self.files.get(ino) {
            _ if self.changed.since(ino, since) => return None,
            Some(file) => file.current(attr, since)?,
            None => attr.clone(),
        };
        Some(self.with_atime(ino, attr))
    }
}
