//! One cached block as a file.
//!
//! ```text
//! data[len] | u32 CRC-32C of each 32 KiB piece of the data | magic[8] | u64 id | u32 indx | u32 len | u32 CRC-32C
//! ```
//!
//! All numbers are big-endian. The last checksum covers everything between the data and itself, so that a file that
//! was cut short, mixed up or written by something else is told from a good one. The data starts at offset 0.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use ciderfs_object::{Bounce, NewFiles};
use rustix::io::ReadWriteFlags;

use crate::key::BlockId;

/// Bytes that one checksum covers.
pub(crate) const PIECE: u32 = 32 << 10;
const MAGIC: &[u8; 8] = b"CDRBLK\x00\x01";
/// Magic, id, indx, len, checksum.
const FOOTER: usize = 8 + 8 + 4 + 4 + 4;
/// Mode of files that are not for blocks.
pub(crate) const PRIVATE_FILE: u32 = 0o600;

/// A cache file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The file is not this block, or not whole.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn trailer(block: &BlockId, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(trailer_len(block.len));
    for piece in data.chunks(PIECE as usize) {
        out.extend_from_slice(&crc32c::crc32c(piece).to_be_bytes());
    }
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&block.id.0.to_be_bytes());
    out.extend_from_slice(&block.indx.to_be_bytes());
    out.extend_from_slice(&block.len.to_be_bytes());
    let sum = crc32c::crc32c(&out);
    out.extend_from_slice(&sum.to_be_bytes());
    out
}

fn trailer_len(len: u32) -> usize {
    len.div_ceil(PIECE) as usize * 4 + FOOTER
}

/// Length of the file of a block of `len` bytes.
pub(crate) fn file_len(len: u32) -> u64 {
    u64::from(len) + trailer_len(len) as u64
}

/// Writes a block, with this mode, under a temporary name and gives it its own: nobody ever sees half a file.
pub(super) fn write(
    temp: &Path,
    path: &Path,
    block: &BlockId,
    data: &[u8],
    mode: u32,
    files: &NewFiles,
    bounce: &mut Bounce,
) -> std::io::Result<()> {
    let made = files.create(temp, mode, [data, &trailer(block, data)], bounce);
    let result = made.and_then(|_| std::fs::rename(temp, path));
    if result.is_err() {
        // Best effort: leftovers are removed at the next start.
        let _ = std::fs::remove_file(temp);
    }
    result
}

/// An open cache file whose trailer is known to be good.
#[derive(Debug)]
pub(crate) struct BlockFile {
    file: File,
    sums: Vec<u8>,
    len: u32,
}

/// The part of a block that must be read to check all pieces that `[off, off+len)` touches: start and length.
pub(crate) fn widened(block_len: u32, off: u32, len: u32) -> (u32, u32) {
    let start = off / PIECE * PIECE;
    let end = (u64::from(off) + u64::from(len)).div_ceil(u64::from(PIECE)) * u64::from(PIECE);
    let end = end.min(u64::from(block_len)) as u32;
    (start, end.saturating_sub(start))
}

impl BlockFile {
    /// Opens a file and checks that it holds this block.
    pub fn open(path: &Path, block: &BlockId) -> Result<Self, FileError> {
        let file = File::open(path)?;
        if file.metadata()?.len() != file_len(block.len) {
            return Err(FileError::Damaged("wrong length"));
        }
        let mut sums = vec![0; trailer_len(block.len)];
        file.read_exact_at(&mut sums, block.len.into()).map_err(short)?;
        let (covered, sum) = sums.split_at(sums.len() - 4);
        if crc32c::crc32c(covered).to_be_bytes() != sum {
            return Err(FileError::Damaged("trailer checksum"));
        }
        let footer = &covered[covered.len() - (FOOTER - 4)..];
        let mut expected = [0; FOOTER - 4];
        expected[..8].copy_from_slice(MAGIC);
        expected[8..16].copy_from_slice(&block.id.0.to_be_bytes());
        expected[16..20].copy_from_slice(&block.indx.to_be_bytes());
        expected[20..24].copy_from_slice(&block.len.to_be_bytes());
        if footer != expected {
            return Err(FileError::Damaged("another block"));
        }
        sums.truncate(block.len.div_ceil(PIECE) as usize * 4);
        Ok(Self { file, sums, len: block.len })
    }

    /// Reads the widened range starting at `start` into `buffer` and checks it.
    pub fn read(&self, start: u32, buffer: &mut [u8]) -> Result<(), FileError> {
        self.file.read_exact_at(buffer, start.into()).map_err(short)?;
        self.check(start, buffer)
    }

    /// Like [`BlockFile::read`], but only if the kernel has all of it in memory; `None` otherwise.
    pub fn read_nowait(&self, start: u32, buffer: &mut [u8]) -> Option<Result<(), FileError>> {
        let want = buffer.len();
        let parts = &mut [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(&self.file, parts, start.into(), ReadWriteFlags::NOWAIT) {
            Ok(n) if n == want => Some(self.check(start, buffer)),
            // A part of it is cached, none of it is, or the file system does not know the flag.
            _ => None,
        }
    }

    fn check(&self, start: u32, buffer: &[u8]) -> Result<(), FileError> {
        let first = (start / PIECE) as usize;
        let whole =
            start.is_multiple_of(PIECE) && u64::from(start) + buffer.len() as u64 <= u64::from(self.len);
        let good = whole
            && buffer.chunks(PIECE as usize).enumerate().all(|(i, piece)| {
                let at = (first + i) * 4;
                self.sums.get(at..at + 4).is_some_and(|sum| sum == crc32c::crc32c(piece).to_be_bytes())
            });
        if good { Ok(()) } else { Err(FileError::Damaged("data checksum")) }
    }
}

/// A file that became shorter while it was read is damaged, the disk is not.
fn short(e: std::io::Error) -> FileError {
    if e.kind() == std::io::ErrorKind::UnexpectedEof { FileError::Damaged("cut short") } else { e.into() }
}
