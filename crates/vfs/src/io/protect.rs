//! Files that became immutable or append-only while they were open.

use ciderfs_format::attr::flags;
use ciderfs_meta::{Errno, Result};

use crate::io::handles::Handle;
use crate::vfs::Vfs;

impl Vfs {
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
