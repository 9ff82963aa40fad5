//! Writing past the page cache.
//!
//! The page cache would hold blocks a second time: the kernel keeps the file's own pages for readers, and the memory cache
//! the newest blocks. Filling it costs more CPU time than anything else that a cold read does, and drives out what programs
//! use. So blocks go straight to the disk; one that is read again comes through the page cache.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// What addresses, offsets and lengths of direct writes must be multiples of: the largest logical block of a disk.
const ALIGN: usize = 4096;
/// Bytes of one write.
const CHUNK: usize = 1 << 20;
/// Smaller blocks are left to the kernel, which joins their writes; each direct one would wait for the disk.
pub(super) const FROM: usize = 256 << 10;

/// Aligned memory through which data pass on their way to a file opened with `O_DIRECT`.
#[derive(Default)]
pub(super) struct Bounce {
    memory: Vec<u8>,
}

impl Bounce {
    /// Gives the memory back until the next write.
    pub fn release(&mut self) {
        self.memory = Vec::new();
    }

    /// Writes the parts, one behind the other, from the beginning of an empty file.
    pub fn write(&mut self, file: &File, parts: [&[u8]; 2]) -> io::Result<()> {
        if self.memory.is_empty() {
            self.memory = vec![0; CHUNK + ALIGN];
        }
        let start = self.memory.as_ptr().align_offset(ALIGN);
        let chunk = &mut self.memory[start..start + CHUNK];
        let (mut written, mut filled) = (0_u64, 0);
        for mut part in parts {
            while !part.is_empty() {
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
        if filled > 0 {
            // What is behind the end goes with the truncation.
            write_aligned(file, &chunk[..filled.next_multiple_of(ALIGN)], written)?;
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
pub(super) fn is_unsupported(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported)
}
