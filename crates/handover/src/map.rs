//! Memory that outlives the process: a memfd, or a file where nobody would hold the memfd, mapped whole.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// A mapped memfd, or a file. What is never touched takes no memory, so it has its full length from the start.
pub(crate) struct Map {
    fd: OwnedFd,
    /// Its file system may be full: see [`Map::reserve`].
    is_file: bool,
    at: *mut u8,
    len: usize,
}

// SAFETY: the mapping lives as long as this; who writes where is up to the parts, which lock or use atomics.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// New memory, all zeros. Nobody can cut it: whoever maps it is safe from SIGBUS.
    pub(crate) fn create(name: &str, len: usize) -> Result<Self> {
        let name = CString::new(name).map_err(|e| Error::new(ErrorKind::InvalidInput, e))?;
        // SAFETY: the name is a C string; the descriptor is new and nobody else's.
        let fd = unsafe {
            let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
            if fd < 0 {
                return Err(Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: both take a descriptor that is open and numbers.
        if unsafe {
            libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) != 0
                || libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) != 0
        } {
            return Err(Error::last_os_error());
        }
        Self::of(fd, len, false)
    }

    /// A new file, all zeros, where nothing is. Only its user may cut it, and does not.
    pub(crate) fn create_at(path: &Path, len: usize) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        file.set_len(len as u64)?;
        Self::of(file.into(), len, true)
    }

    /// Memory that another process has left.
    pub(crate) fn open(fd: OwnedFd) -> Result<Self> {
        // SAFETY: an open descriptor; only seals tell that nobody cuts it under the mapping.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        let file = File::from(fd);
        let meta = file.metadata()?;
        let is_file = seals < 0 || seals & libc::F_SEAL_SHRINK == 0;
        // SAFETY: a number.
        let is_ours = meta.is_file() && meta.uid() == unsafe { libc::geteuid() } && meta.mode() & 0o077 == 0;
        if is_file && !is_ours {
            let why = "not the state of a mount: no sealed memfd, and no file for this user alone";
            return Err(Error::new(ErrorKind::InvalidData, why));
        }
        let len = usize::try_from(meta.len())
            .map_err(|_| Error::new(ErrorKind::InvalidData, "the state of the mount is too long"))?;
        Self::of(file.into(), len, is_file)
    }

    fn of(fd: OwnedFd, len: usize, is_file: bool) -> Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                prot,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        // A core dump of the client must not hold the files of its users twice.
        // SAFETY: the mapping made above.
        unsafe { libc::madvise(at, len, libc::MADV_DONTDUMP) };
        Ok(Self { fd, is_file, at: at.cast(), len })
    }

    /// Is it a file, whose memory must be [reserved](Map::reserve)?
    pub(crate) fn is_file(&self) -> bool {
        self.is_file
    }

    /// Has the file system of a file provide what is about to be touched, or whoever touches it dies when that is full. False if it
    /// cannot.
    pub(crate) fn reserve(&self, offset: usize, len: usize) -> bool {
        let len = len.min(self.len.saturating_sub(offset));
        // SAFETY: a descriptor and numbers.
        !self.is_file
            || unsafe { libc::fallocate(self.fd.as_raw_fd(), 0, offset as libc::off_t, len as libc::off_t) }
                == 0
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The word at an offset, which is a multiple of 8.
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len);
        // SAFETY: in bounds and aligned; every process treats it as an atomic.
        unsafe { &*self.at.add(offset).cast::<AtomicU64>() }
    }

    /// Copies `data` to an offset that nobody else uses now.
    pub(crate) fn write(&self, offset: usize, data: &[u8]) {
        assert!(offset <= self.len && data.len() <= self.len - offset);
        // SAFETY: in bounds; the caller owns the place.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.at.add(offset), data.len()) }
    }

    /// A copy of what is at an offset.
    pub(crate) fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset <= self.len && len <= self.len - offset);
        let mut out = Vec::with_capacity(len);
        // SAFETY: in bounds; `out` has the room, and all of it is written.
        unsafe {
            std::ptr::copy_nonoverlapping(self.at.add(offset), out.as_mut_ptr(), len);
            out.set_len(len);
        }
        out
    }

    /// Has the kernel provide the memory of whole pages at once, which is cheaper than a fault for each.
    pub(crate) fn populate(&self, offset: usize, len: usize) {
        assert!(offset <= self.len && len <= self.len - offset);
        // Where the kernel does not know it, the pages come one by one.
        // SAFETY: a part of the mapping.
        unsafe { libc::madvise(self.at.add(offset).cast(), len, libc::MADV_POPULATE_WRITE) };
    }

    /// Gives the memory of whole pages back; they are zeros then.
    pub(crate) fn punch(&self, offset: usize, len: usize) {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: a descriptor and numbers. If it fails, the memory is kept.
        unsafe {
            libc::fallocate(self.fd.as_raw_fd(), mode, offset as libc::off_t, len as libc::off_t);
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `of`, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.at.cast(), self.len) };
    }
}
