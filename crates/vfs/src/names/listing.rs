//! Directories by handle.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ciderfs_format::{FileType, Ino};
use ciderfs_handover::Kind;
use ciderfs_meta::{Caller, Errno, Result};

use crate::io::handles::Handle;
use crate::names::dir::{DirItem, DirStream};
use crate::vfs::Vfs;

impl Vfs {
    /// Opens a directory.
    pub async fn opendir(&self, c: &Caller, ino: Ino) -> Result<u64> {
        if c.check {
            self.access(c, ino, 4).await?;
        }
        let handle = self.dir_handle(c, ino).await?;
        let fh = self.handles.add(ino, handle);
        let opener = u64::from(c.uid) | u64::from(c.gid) << 32;
        self.carry.opened(Kind::Dir, fh, ino, i32::from(c.check), opener);
        Ok(fh)
    }

    /// What a handle of a directory holds.
    pub(crate) async fn dir_handle(&self, c: &Caller, ino: Ino) -> Result<Handle> {
        let known_gone = self.meta.departed(ino).is_some();
        let held = self.meta.hold_dir(ino).await?;
        let changes = {
            let mut listed = self.listed.lock();
            listed.retain(|_, w| w.strong_count() > 0);
            match listed.get(&ino).and_then(Weak::upgrade) {
                Some(a) => a,
                None => {
                    let a = Arc::new(AtomicU64::new(0));
                    listed.insert(ino, Arc::downgrade(&a));
                    a
                }
            }
        };
        let stream = DirStream::new(c.clone(), ino, changes, held, known_gone);
        Ok(Handle::Dir(Arc::new(tokio::sync::Mutex::new(stream))))
    }

    /// Lists from an offset until `sink` returns true (full).
    pub async fn readdir(
        &self,
        fh: u64,
        offset: u64,
        plus: bool,
        sink: &mut (dyn FnMut(DirItem<'_>) -> bool + Send),
    ) -> Result<()> {
        let (ino, stream) = match self.handles.get_with_inode(fh)? {
            (ino, Handle::Dir(stream)) => (ino, stream),
            (_, Handle::Lost) => return Ok(()),
            _ => return Err(Errno::ENOTDIR.into()),
        };
        let mut stream = stream.lock().await;
        match stream.list(self, offset, plus, sink).await {
            // What another mount has removed is as empty as what this one has, of which the kernel itself says so. Opened by a
            // name that leads elsewhere by now, it must not look like an empty directory.
            Err(e) if e.errno() == Errno::ENOENT && stream.was_there() => {
                if self.meta.departed(ino).is_some() { Ok(()) } else { Err(e) }
            }
            listed => {
                self.carry.listed(fh, || stream.place());
                listed
            }
        }
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: u64) {
        self.handles.remove(fh);
        self.carry.closed(fh);
    }

    /// `.`, `..` and, in the root, the virtual names.
    pub(crate) async fn fixed_entries(&self, dir: Ino) -> Result<Vec<(&'static [u8], Ino, FileType)>> {
        let up = self.meta.parent_of(dir).await?;
        let mut out: Vec<(&'static [u8], Ino, FileType)> =
            vec![(b".", dir, FileType::Directory), (b"..", up, FileType::Directory)];
        if dir == Ino::ROOT && !self.cfg.hide_internal {
            out.extend(self.virtual_names().map(|(name, ino)| (name, ino, FileType::File)));
            if self.meta.shows_trash() {
                out.push((self.meta.trash_name(), Ino::TRASH, FileType::Directory));
            }
        }
        Ok(out)
    }

    /// Whoever is listing a directory has to know that it has changed.
    pub(crate) fn count_listing_change(&self, dir: Ino) {
        if let Some(a) = self.listed.lock().get(&dir).and_then(Weak::upgrade) {
            a.fetch_add(1, Ordering::AcqRel);
        }
    }
}
