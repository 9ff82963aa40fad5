//! Names: looking up, creating, linking, removing, renaming.

use std::sync::Arc;

use bytes::Bytes;
use ciderfs_format::{FileType, Ino};
use ciderfs_meta::{Caller, Errno, NewNode};
use ciderfs_rt::Instant;

use crate::closing::Change;
use crate::content::moment::Moment;
use crate::error::Result;
use crate::vfs::{Entry, Opened, Vfs};

/// Times that a name is looked up which other mounts keep giving to other files, until a file is opened by it.
const LOOKS_MAX: u32 = 16;

impl Vfs {
    /// Finds a name, and tells of its node whole.
    pub async fn lookup(&self, c: &Caller, dir: Ino, name: &[u8]) -> Result<Entry> {
        let Entry { ino, attr, .. } = self.find(c, dir, name).await?;
        self.measure(ino, &attr).await;
        Ok(self.entry(ino, attr))
    }

    /// Finds a name.
    async fn find(&self, c: &Caller, dir: Ino, name: &[u8]) -> Result<Entry> {
        if let Some(e) = self.virtual_entry(dir, name) {
            return Ok(e);
        }
        let (asked, since) = (Instant::now(), Moment::now());
        let (ino, attr) = match self.meta.lookup(c, dir, name).await {
            Err(e) if e.errno() == Errno::ENOENT => {
                self.kernel.missed(c.pid);
                return Err(e.into());
            }
            other => other?,
        };
        let attr = match self.tell_since(ino, &attr, since, asked) {
            Some(attr) => attr,
            None => self.getattr(ino).await?,
        };
        self.kernel.answered(ino, &attr);
        self.kernel.found(c.pid, ino, &attr);
        Ok(self.entry(ino, attr))
    }

    /// Makes a node.
    pub async fn create(&self, c: &Caller, dir: Ino, name: &[u8], node: &NewNode<'_>) -> Result<Entry> {
        self.refuse_virtual(dir, name, Errno::EEXIST)?;
        let (ino, attr) = self.meta.create(c, dir, name, node).await?;
        self.done(dir, Change::Listing).await;
        self.kernel.answered(ino, &attr);
        Ok(self.entry(ino, attr))
    }

    /// Makes a regular file and opens it; an existing one is opened unless `exclusive`.
    pub async fn create_open(
        self: &Arc<Self>,
        c: &Caller,
        dir: Ino,
        name: &[u8],
        mode: u16,
        umask: u16,
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        let node = NewNode { kind: FileType::File, mode, umask, rdev: 0, target: b"" };
        let mut looks = 0;
        loop {
            match self.create(c, dir, name, &node).await {
                Ok(entry) => {
                    self.meta.opened(entry.ino);
                    let opened = self.open_new(entry.ino, &entry.attr, flags).await;
                    return Ok((entry, opened));
                }
                Err(e) if e.errno() == Errno::EEXIST && flags & libc::O_EXCL == 0 => {}
                Err(e) => return Err(e),
            }
            looks += 1;
            match self.open_existing(c, dir, name, flags).await {
                // Another mount has taken the name away, or given it to another file.
                Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::ESTALE) && looks < LOOKS_MAX => {}
                other => return other,
            }
        }
    }

    async fn open_existing(
        self: &Arc<Self>,
        c: &Caller,
        dir: Ino,
        name: &[u8],
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        let entry = self.find(c, dir, name).await?;
        if !entry.attr.is_file() {
            return Err(Errno::EEXIST.into());
        }
        let opened = self.open(c, entry.ino, flags).await?;
        match self.getattr(entry.ino).await {
            Ok(attr) => Ok((self.entry(entry.ino, attr), opened)),
            Err(e) => {
                self.release(opened.fh).await;
                Err(e)
            }
        }
    }

    /// Makes a file without a name in the file system of a directory and opens it (`O_TMPFILE`).
    pub async fn create_nameless(
        self: &Arc<Self>,
        c: &Caller,
        dir: Ino,
        mode: u16,
        umask: u16,
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        let (ino, attr) = self.meta.create_nameless(c, dir, mode, umask).await?;
        self.kernel.answered(ino, &attr);
        let opened = self.open_new(ino, &attr, flags | libc::O_TMPFILE).await;
        Ok((self.entry(ino, attr), opened))
    }

    /// Gives a node another name.
    pub async fn link(self: &Arc<Self>, c: &Caller, ino: Ino, dir: Ino, name: &[u8]) -> Result<Entry> {
        if ino.is_virtual() {
            return Err(Errno::EPERM.into());
        }
        self.refuse_virtual(dir, name, Errno::EEXIST)?;
        if self.meta.has_dir_limits() {
            self.settle_writes(|file, _| file == ino).await;
        }
        let (asked, since) = (Instant::now(), Moment::now());
        let attr = self.meta.link(c, ino, dir, name).await?;
        self.done(dir, Change::Listing).await;
        let attr = match self.tell_since(ino, &attr, since, asked) {
            Some(attr) => attr,
            None => self.getattr(ino).await?,
        };
        let since = self.done(ino, Change::Names).await.as_of;
        self.measure(ino, &attr).await;
        let attr = self.tell_now(ino, attr, since).await;
        Ok(self.entry(ino, attr))
    }

    /// Removes a name.
    pub async fn unlink(self: &Arc<Self>, c: &Caller, dir: Ino, name: &[u8]) -> Result<()> {
        self.refuse_virtual(dir, name, Errno::EPERM)?;
        let _room = self.room_for_trash(dir).await;
        let removed = self.meta.unlink(c, dir, name).await?;
        self.done(removed.ino, Change::Names).await;
        self.done(dir, Change::Listing).await;
        Ok(())
    }

    /// Removes an empty directory.
    pub async fn rmdir(self: &Arc<Self>, c: &Caller, dir: Ino, name: &[u8]) -> Result<()> {
        self.refuse_virtual(dir, name, Errno::EPERM)?;
        let _room = self.room_for_trash(dir).await;
        self.meta.rmdir(c, dir, name).await?;
        self.done(dir, Change::Listing).await;
        Ok(())
    }

    /// Renames.
    pub async fn rename(
        self: &Arc<Self>,
        c: &Caller,
        (sdir, sname): (Ino, &[u8]),
        (ddir, dname): (Ino, &[u8]),
        flags: u32,
    ) -> Result<()> {
        self.refuse_virtual(sdir, sname, Errno::EPERM)?;
        self.refuse_virtual(ddir, dname, Errno::EPERM)?;
        if sdir != ddir && self.meta.has_dir_limits() {
            // What moves along with a directory is not known here.
            self.settle_writes(|_, _| true).await;
        }
        let _room = self.room_for_trash(ddir).await;
        let renamed = self.meta.rename(c, sdir, sname, ddir, dname, flags).await?;
        for ino in renamed.moved.into_iter().chain(renamed.replaced.map(|r| r.ino)) {
            self.done(ino, Change::Names).await;
        }
        self.done(sdir, Change::Listing).await;
        self.done(ddir, Change::Listing).await;
        Ok(())
    }

    /// Target of a symbolic link.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let target = self.meta.readlink(ino).await?;
        self.accessed(ino, None);
        Ok(target)
    }

    fn refuse_virtual(&self, dir: Ino, name: &[u8], errno: Errno) -> Result<()> {
        if self.is_virtual_name(dir, name) { Err(errno.into()) } else { Ok(()) }
    }
}
