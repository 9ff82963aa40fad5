//! A directory on ext4.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{IFlags, Mode, OFlags};
use rustix::mount::UnmountFlags;
use tempfile::TempDir;

use crate::support::client::sh;

/// Magic number of ext2, ext3 and ext4.
const EXT4: i64 = 0xef53;

/// A temporary directory on ext4: the machine's own, or else an image's.
pub struct Ext4 {
    dir: TempDir,
    mounted: Option<PathBuf>,
}

impl Ext4 {
    /// Finds or makes it.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ciderfs-ext4").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if rustix::fs::statfs(dir.path()).unwrap().f_type == EXT4 {
            return Self { dir, mounted: None };
        }
        sh(dir.path(), "truncate -s 256M image; mkfs.ext4 -q -F image; mkdir mnt; mount -o loop image mnt");
        let mounted = Some(dir.path().join("mnt"));
        Self { dir, mounted }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        // Symbolic links are resolved when paths are compared.
        fs::canonicalize(self.mounted.as_deref().unwrap_or(self.dir.path())).unwrap()
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        thaw(&self.path());
        if let Some(path) = &self.mounted {
            let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
        }
    }
}

/// Lets everything below be changed and removed again.
pub fn thaw(path: &Path) {
    let Ok(m) = fs::symlink_metadata(path) else { return };
    if !m.is_file() && !m.is_dir() {
        return;
    }
    if let Ok(fd) = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())
        && let Ok(flags) = rustix::fs::ioctl_getflags(&fd)
        && flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND)
    {
        let _ = rustix::fs::ioctl_setflags(&fd, flags - (IFlags::IMMUTABLE | IFlags::APPEND));
    }
    if m.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            thaw(&entry.path());
        }
    }
}
