//! A shared mapping of a part of a file.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::ptr;

/// The mapping; unmapped when dropped. The owner sees to it that the file stays long enough: access behind its end is a signal.
pub struct Mapped {
    address: *mut u8,
    /// Offset in the file.
    pub off: u64,
    /// Bytes.
    pub len: u64,
    writable: bool,
}

impl Mapped {
    /// Maps `[off, off + len)`; `off` is a multiple of a page.
    #[track_caller]
    pub fn new(file: &File, off: u64, len: u64, writable: bool) -> Self {
        let prot = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len as usize,
                prot,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                off.cast_signed(),
            )
        };
        assert_ne!(address, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Self { address: address.cast(), off, len, writable }
    }

    /// Copies bytes out, from this offset in the file.
    pub fn read(&self, off: u64, len: u64) -> Vec<u8> {
        assert!(off >= self.off && off + len <= self.off + self.len);
        let mut out = vec![0; len as usize];
        // SAFETY: within the mapping, by the assertion; `out` is as long.
        unsafe {
            ptr::copy_nonoverlapping(
                self.address.add((off - self.off) as usize),
                out.as_mut_ptr(),
                len as usize,
            );
        }
        out
    }

    /// Copies bytes in, to this offset in the file.
    pub fn write(&self, off: u64, data: &[u8]) {
        assert!(self.writable && off >= self.off && off + data.len() as u64 <= self.off + self.len);
        // SAFETY: within the mapping, by the assertion.
        unsafe {
            ptr::copy_nonoverlapping(data.as_ptr(), self.address.add((off - self.off) as usize), data.len());
        }
    }

    /// Has the kernel write it back.
    #[track_caller]
    pub fn sync(&self, flags: i32) {
        // SAFETY: exactly the mapping.
        let result = unsafe { libc::msync(self.address.cast(), self.len as usize, flags) };
        assert_eq!(result, 0, "msync: {}", std::io::Error::last_os_error());
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping; nothing refers to it any more.
        unsafe { libc::munmap(self.address.cast(), self.len as usize) };
    }
}
