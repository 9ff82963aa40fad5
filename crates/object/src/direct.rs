//! Writing past the page cache.
//!
//! The page cache would hold blocks a second time: the kernel keeps the file's own pages for readers, and the memory cache
//! the newest blocks. Filling it costs more CPU time than anything else that moving blocks does, and drives out what programs
//! use. So blocks go straight to the disk; one that is read again comes through the page cache.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ciderfs_format::shown;
use rustix::fs::OFlags;

use crate::buffers::{ALIGN, Buffer, Buffers};

/// Bytes that pass through a [`Bounce`] at a time.
const CHUNK: usize = 1 << 20;
/// Smaller files are left to the kernel, which joins their writes; each direct one would wait for the disk.
const FROM: usize = 256 << 10;

/// Writes whole new files of one file system, past the page cache if it lets us.
#[derive(Debug)]
pub struct NewFiles {
    direct: AtomicBool,
}

impl Default for NewFiles {
    fn default() -> Self {
        Self { direct: AtomicBool::new(true) }
    }
}

impl NewFiles {
    /// Creates a file with the parts, one behind the other. Whoever calls removes what an error leaves.
    ///
    /// # Errors
    /// Those of the file system; it exists already.
    pub fn create(&self, path: &Path, mode: u32, parts: [&[u8]; 2], bounce: &mut Bounce) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let len = parts[0].len() + parts[1].len();
        if len >= FROM && self.direct.load(Ordering::Relaxed) {
            let mut direct = options.clone();
            let file = direct.custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path);
            match file.and_then(|file| bounce.write(&file, parts).map(|()| file)) {
                Err(e) if is_unsupported(&e) => {
                    tracing::debug!("no direct writes to {}: {e}", shown(path));
                    self.direct.store(false, Ordering::Relaxed);
                    // Made already, if only the writes were refused.
                    match std::fs::remove_file(path) {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                        _ => {}
                    }
                }
                other => return other,
            }
        }
        let mut file = options.open(path)?;
        write_all(&mut file, &mut parts.map(IoSlice::new))?;
        Ok(file)
    }
}

fn write_all(file: &mut File, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
    // Empty ones first: a write of nothing writes nothing.
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match file.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut parts, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Aligned memory through which data pass that are not aligned themselves.
#[derive(Debug)]
pub struct Bounce {
    memory: Option<Buffer>,
    pool: Arc<Buffers>,
}

impl Bounce {
    /// Takes memory from the pool when it is needed.
    pub fn new(pool: &Arc<Buffers>) -> Self {
        Self { memory: None, pool: Arc::clone(pool) }
    }

    /// Gives the memory back until the next write.
    pub fn release(&mut self) {
        self.memory = None;
    }

    /// Writes the parts, one behind the other, from the beginning of an empty file that is open with `O_DIRECT`.
    fn write(&mut self, file: &File, parts: [&[u8]; 2]) -> io::Result<()> {
        let (mut written, mut filled) = (0_u64, 0);
        for mut part in parts {
            if filled == 0 && part.as_ptr().align_offset(ALIGN) == 0 {
                let (whole, tail) = part.split_at(part.len() / ALIGN * ALIGN);
                write_aligned(file, whole, written)?;
                written += whole.len() as u64;
                part = tail;
            }
            while !part.is_empty() {
                let chunk = self.memory.get_or_insert_with(|| self.pool.get(CHUNK)).as_mut();
                let n = part.len().min(CHUNK - filled);
                chunk[filled..filled + n].copy_from_slice(&part[..n]);
                part = &part[n..];
                filled += n;
                if filled == CHUNK {
                    write_aligned(file, chunk, written)?;
                    written += filled as u64;
                    filled = 0;
                }
            }
        }
        if let Some(memory) = self.memory.as_mut().filter(|_| filled > 0) {
            // What is behind the end goes with the truncation.
            write_aligned(file, &memory.as_mut()[..filled.next_multiple_of(ALIGN)], written)?;
            file.set_len(written + filled as u64)?;
        }
        Ok(())
    }
}

fn write_aligned(file: &File, mut data: &[u8], mut at: u64) -> io::Result<()> {
    while !data.is_empty() {
        match file.write_at(data, at) {
            // Only a full disk makes an aligned write stop elsewhere than at a multiple.
            Ok(n) if n == 0 || n % ALIGN != 0 => return Err(io::ErrorKind::StorageFull.into()),
            Ok(n) => {
                data = &data[n..];
                at += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Does the error say that the file system has no direct writes, or wants them aligned otherwise?
fn is_unsupported(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn every_way_makes_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let pool = Buffers::new(u64::MAX);
        let mut bounce = Bounce::new(&pool);
        let path = dir.path().join("file");
        let plain = NewFiles { direct: AtomicBool::new(false) };
        let direct = NewFiles::default();
        for len in [0, 1, 4096, FROM, CHUNK - 1, CHUNK, 3 * CHUNK + 77, 4 * CHUNK] {
            let data = data(len);
            let mut pooled = pool.get(len);
            pooled.as_mut().copy_from_slice(&data);
            for split in [0, len / 2, len / ALIGN / 2 * ALIGN, len] {
                for files in [&plain, &direct] {
                    // Aligned memory, and memory that is not.
                    for all in [pooled.as_ref(), &[&[0], data.as_slice()].concat()[1..]] {
                        let (one, two) = all.split_at(split);
                        files.create(&path, 0o600, [one, two], &mut bounce).unwrap();
                        assert!(std::fs::read(&path).unwrap() == data, "{len} bytes in two at {split}");
                        std::fs::remove_file(&path).unwrap();
                    }
                }
            }
            bounce.release();
        }
    }

    #[test]
    fn where_direct_writes_are_refused_the_kernel_writes() {
        let files = NewFiles::default();
        let pool = Buffers::new(u64::MAX);
        // No file system of this machine is sure to refuse them; their error is known.
        assert!(is_unsupported(&io::Error::from_raw_os_error(libc_einval())));
        assert!(!is_unsupported(&io::ErrorKind::StorageFull.into()));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        files.create(&path, 0o640, [&data(FROM), &[]], &mut Bounce::new(&pool)).unwrap();
        let again = files.create(&path, 0o640, [&data(FROM), &[]], &mut Bounce::new(&pool));
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), FROM as u64, "what another made stays");
    }

    fn libc_einval() -> i32 {
        rustix::io::Errno::INVAL.raw_os_error()
    }
}
