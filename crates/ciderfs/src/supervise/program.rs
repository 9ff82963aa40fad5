//! A program that can serve a mount.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{AtFlags, StatxFlags, statx};

/// A program, kept open so that the same is started again though another one has its name by now.
#[derive(Debug, Clone)]
pub struct Program {
    file: Arc<File>,
    /// Where it was found.
    pub name: PathBuf,
}

impl Program {
    /// The one of this process.
    pub fn own() -> io::Result<Self> {
        Ok(Self::of(File::open("/proc/self/exe")?, std::env::current_exe()?))
    }

    /// An open one.
    pub fn of(file: File, name: PathBuf) -> Self {
        Self { file: Arc::new(file), name }
    }

    /// The device that it lies on. Told without asking who serves that one.
    pub fn device(&self) -> io::Result<(u32, u32)> {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let found = statx(&self.file, "", flags, StatxFlags::empty())?;
        Ok((found.stx_dev_major, found.stx_dev_minor))
    }

    /// What to start. A script is read by another program, which must find it.
    pub fn path(&self) -> PathBuf {
        let mut first = [0; 2];
        let is_script = self.file.read_exact_at(&mut first, 0).is_ok() && &first == b"#!";
        let fd = self.file.as_raw_fd();
        if is_script { self.name.clone() } else { PathBuf::from(format!("/proc/self/fd/{fd}")) }
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
