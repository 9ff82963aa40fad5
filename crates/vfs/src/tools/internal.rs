//! Virtual files: `.stats`, `.config` and `.accesslog` in the root, `.control` everywhere.

use std::sync::Arc;

use bytes::Bytes;
use ciderfs_format::{Attr, FileType, Ino, Time};
use ciderfs_handover::Kind;
use ciderfs_meta::{Caller, Errno, Result};

use crate::io::handles::Handle;
use crate::tools::control::Control;
use crate::vfs::{Entry, Opened, Vfs};

/// The channel of tools. It resolves in every directory, because they open it beside their argument.
const CONTROL: File = ([b".control", b".jfs.control"], Ino(Ino::VIRTUAL.0 + 2), 0o666);
/// The log of requests. It is not listed, because whoever copies a whole volume would read it and never come to its end.
const ACCESS_LOG: File = ([b".accesslog", b".jfs.accesslog"], Ino(Ino::VIRTUAL.0 + 1), 0o400);
/// Each virtual file that is listed (`docs/format/inodes-and-attributes.md#inode-numbers`).
const FILES: [File; 2] = [
    ([b".stats", b".jfs.stats"], Ino(Ino::VIRTUAL.0 + 3), 0o444),
    ([b".config", b".jfs.config"], Ino(Ino::VIRTUAL.0 + 4), 0o400),
];
/// Names without and with `--prefix-internal`, inode, mode.
type File = ([&'static [u8]; 2], Ino, u16);

impl Vfs {
    /// The virtual file of that name in the root.
    pub(crate) fn virtual_entry(&self, dir: Ino, name: &[u8]) -> Option<Entry> {
        let form = usize::from(self.cfg.prefix_internal);
        if name != CONTROL.0[form] && dir != Ino::ROOT {
            return None;
        }
        FILES
            .iter()
            .chain([&CONTROL, &ACCESS_LOG])
            .find(|(names, _, _)| names[form] == name)
            .map(|(_, ino, mode)| self.entry(*ino, self.virtual_attr(*ino, *mode)))
    }

    /// Names of the root that no one may create or remove.
    pub(crate) fn is_virtual_name(&self, dir: Ino, name: &[u8]) -> bool {
        self.virtual_entry(dir, name).is_some()
    }

    /// Virtual files to list in the root.
    pub(crate) fn virtual_names(&self) -> impl Iterator<Item = (&'static [u8], Ino)> + use<> {
        let form = usize::from(self.cfg.prefix_internal);
        FILES.into_iter().map(move |(names, ino, _)| (names[form], ino))
    }

    /// Attributes of a virtual inode.
    pub(crate) fn virtual_attr_of(&self, ino: Ino) -> Option<Attr> {
        FILES
            .iter()
            .chain([&CONTROL, &ACCESS_LOG])
            .find(|(_, i, _)| *i == ino)
            .map(|(_, i, mode)| self.virtual_attr(*i, *mode))
    }

    /// Is it `.control`?
    pub fn is_control(ino: Ino) -> bool {
        ino == CONTROL.1
    }

    /// Opens a virtual file; its mode is checked here where the kernel checks none.
    pub(crate) async fn open_virtual(&self, c: &Caller, ino: Ino, flags: i32) -> Result<Opened> {
        let access = flags & libc::O_ACCMODE;
        let mask =
            if access == libc::O_WRONLY { 0 } else { 4 } | if access == libc::O_RDONLY { 0 } else { 2 };
        self.access_virtual(c, ino, mask).await?;
        let handle = self.virtual_handle(c, ino, access)?;
        let fh = self.handles.add(ino, handle);
        let opener = u64::from(c.uid) | u64::from(c.gid) << 32;
        self.carry.opened(Kind::File, fh, ino, flags, opener);
        Ok(Opened { fh, keep_cache: false, direct_io: true })
    }

    /// What a handle of a virtual file holds.
    pub(crate) fn virtual_handle(&self, c: &Caller, ino: Ino, access: i32) -> Result<Handle> {
        Ok(if Self::is_control(ino) {
            Handle::Control(Arc::new(Control::new(c, &self.handles.control)?))
        } else if ino == ACCESS_LOG.1 && access == libc::O_RDONLY {
            Handle::Log(self.access_log.open()?)
        } else if access == libc::O_RDONLY {
            Handle::Virtual(self.virtual_content(ino))
        } else {
            return Err(Errno::EACCES.into());
        })
    }

    /// Checks a permission of a virtual file.
    pub(crate) async fn access_virtual(&self, c: &Caller, ino: Ino, mask: u8) -> Result<()> {
        let attr = self.virtual_attr_of(ino).ok_or(Errno::ENOENT)?;
        self.meta.permit(c, &attr, mask).await
    }

    /// Writes part of a command into `.control`, as the caller, of whom all groups must be known.
    ///
    /// # Errors
    /// `EBADF` for another handle, `EPERM` (somebody else opened it), `EBUSY`, `EINVAL`.
    pub fn write_control(self: &Arc<Self>, c: &Caller, fh: u64, data: &[u8]) -> Result<u32> {
        let Handle::Control(control) = self.handles.get(fh)? else { return Err(Errno::EBADF.into()) };
        control.write(self, c, data)?;
        Ok(data.len() as u32)
    }

    fn virtual_attr(&self, ino: Ino, mode: u16) -> Attr {
        let start = self.started;
        Attr {
            flags: 0,
            kind: FileType::File,
            mode,
            uid: 0,
            gid: 0,
            atime: start,
            mtime: start,
            ctime: start,
            nlink: 1,
            length: if ino.0 == Ino::VIRTUAL.0 + 4 { self.config_text().len() as u64 } else { 0 },
            rdev: 0,
            parent: Ino::ROOT,
            access_acl: 0,
            default_acl: 0,
            tier: 0,
        }
    }

    /// Content of a virtual file, made now.
    pub(crate) fn virtual_content(&self, ino: Ino) -> Bytes {
        if ino.0 == Ino::VIRTUAL.0 + 4 {
            return self.config_text();
        }
        Bytes::from(self.metrics.stats_text())
    }

    fn config_text(&self) -> Bytes {
        Bytes::from(serde_json::to_vec_pretty(&self.cfg.config_json).unwrap_or_default())
    }
}

/// The time at which a mount begins.
pub(crate) fn start_time() -> Time {
    use ciderfs_meta::Clock as _;
    ciderfs_meta::SystemClock.now()
}
