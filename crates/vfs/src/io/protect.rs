//! What a write takes away, and what may not be written to: special bits, capabilities, files that became immutable or append-only
//! while they were open.

use std::sync::Arc;

use ciderfs_format::Ino;
use ciderfs_format::attr::flags;
use ciderfs_meta::{Caller, Errno, Error, Result, SetAttr};

use crate::io::handles::Handle;
use crate::io::request::Writer;
use crate::vfs::Vfs;

impl Vfs {
    /// Takes set-user-ID and set-group-ID away, as the kernel asks when somebody who may not keep them changes the content.
    ///
    /// # Errors
    /// Those of [`Vfs::setattr`].
    pub(super) async fn clear_special_bits(self: &Arc<Self>, by: Writer<'_>, ino: Ino) -> Result<()> {
        let (mode, gid) = match self.files.get(ino) {
            Some(file) => {
                let s = file.state.lock();
                (s.attr().mode, s.attr().gid)
            }
            None => {
                let a = self.getattr(ino).await?;
                (a.mode, a.gid)
            }
        };
        // Who is not in the group may not keep its bit, whether the group may execute or not.
        let kept = |mode: u16, gid: u32| {
            let group = match mode & 0o2010 {
                0o2000 if (by.in_group)(gid) => 0,
                _ => 0o2000,
            };
            mode & !(0o4000 | group)
        };
        if kept(mode, gid) == mode {
            return Ok(());
        }
        // Another mount may have changed the mode since, which is not to be undone.
        let now = self.meta.getattr(ino).await?;
        let kept = kept(now.mode, now.gid);
        if kept != now.mode {
            // The caller may write but need not own the file.
            let system = Caller { uid: 0, gid: 0, check: false, ..by.caller.clone() };
            let set = SetAttr { mode: Some(kept), ..SetAttr::default() };
            self.setattr(&system, ino, &set, None, None).await?;
            // The kernel forgets times and sizes after a write, not the mode.
            self.attributes_changed(ino).await;
        }
        Ok(())
    }

    /// Takes `security.capability` from a file that is written past the kernel's cache, as appends are: there the kernel does
    /// not do so itself. Usually nothing needs to be asked.
    ///
    /// # Errors
    /// Those of [`Vfs::remove_xattr`].
    pub(super) async fn clear_capability(&self, ino: Ino) -> Result<()> {
        let (root, name) = (Caller::root(), b"security.capability");
        let gone = |e: &Error| matches!(e.errno(), Errno::ENODATA | Errno::ENOENT);
        match self.get_xattr(&root, ino, name).await {
            Ok(_) => match self.remove_xattr(&root, ino, name).await {
                Err(e) if !gone(&e) => Err(e),
                _ => Ok(()),
            },
            Err(e) if gone(&e) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// May this handle, with these `O_*` flags, be written to now? What was written before a file became immutable is still
    /// stored; and so are changes of mapped pages, about which nobody can be told any more.
    ///
    /// # Errors
    /// `EPERM` if the file has become immutable, or is append-only and the handle was opened to append and does not any more
    /// (elsewhere the kernel refuses to change that).
    pub fn may_write(&self, fh: u64, open_flags: i32) -> Result<()> {
        if let Handle::File(h) = self.handles.get(fh)? {
            let set = h.file.attr().flags;
            let let_go = h.append && open_flags & libc::O_APPEND == 0;
            if set & flags::IMMUTABLE != 0 || (set & flags::APPEND != 0 && let_go) {
                return Err(Errno::EPERM.into());
            }
        }
        Ok(())
    }
}
