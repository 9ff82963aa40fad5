//! Directory listings, bounded by the size that the kernel asked for.

use zerocopy::IntoBytes;

use crate::abi::wire;
use crate::attr::Entry;

/// Records are padded to this many bytes.
const ALIGN: usize = 8;
/// No listing is larger than this, whatever a request says, in bytes.
const MAX_SIZE: usize = 16 << 20;

/// Type of a directory record (`DT_*`) for a mode (`S_IF*`).
pub fn dtype_of_mode(mode: u32) -> u32 {
    (mode & libc::S_IFMT) >> 12
}

/// Builder of an answer to READDIR.
#[derive(Debug)]
pub struct DirBuffer {
    data: Vec<u8>,
    limit: usize,
}

impl DirBuffer {
    /// An empty listing of at most `size` bytes (the request's size).
    pub fn new(size: u32) -> Self {
        let limit = (size as usize).min(MAX_SIZE);
        Self { data: Vec::with_capacity(limit.min(4096)), limit }
    }

    /// Adds a record. `offset` is the cookie with which the listing continues *after* this record, `dtype` a
    /// `DT_*` value. Returns false, adding nothing, when the record does not fit.
    #[must_use]
    pub fn push(&mut self, ino: u64, offset: u64, dtype: u32, name: &[u8]) -> bool {
        self.record(&[], ino, offset, dtype, name)
    }

    fn record(&mut self, front: &[u8], ino: u64, offset: u64, dtype: u32, name: &[u8]) -> bool {
        let bare = front.len() + size_of::<wire::Dirent>() + name.len();
        let padded = bare.next_multiple_of(ALIGN);
        let Ok(namelen) = u32::try_from(name.len()) else { return false };
        if self.data.len() + padded > self.limit {
            return false;
        }
        let dirent = wire::Dirent { ino, off: offset, namelen, typ: dtype };
        self.data.extend_from_slice(front);
        self.data.extend_from_slice(dirent.as_bytes());
        self.data.extend_from_slice(name);
        self.data.resize(self.data.len() + padded - bare, 0);
        true
    }

    /// Whether nothing was added; an empty answer means "end of the directory".
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The encoded records.
    pub fn as_bytes(&self) -> &[u8] {
        &self.data
    }
}

/// Builder of an answer to READDIRPLUS.
///
/// Each record whose `nodeid` is not 0 counts as a LOOKUP that the kernel will FORGET one day. Use nodeid 0 for
/// `.`, `..` and names whose attributes are not at hand.
#[derive(Debug)]
pub struct DirPlusBuffer(DirBuffer);

impl DirPlusBuffer {
    /// An empty listing of at most `size` bytes (the request's size).
    pub fn new(size: u32) -> Self {
        Self(DirBuffer::new(size))
    }

    /// Adds a record; see [`DirBuffer::push`].
    #[must_use]
    pub fn push(&mut self, entry: &Entry, ino: u64, offset: u64, dtype: u32, name: &[u8]) -> bool {
        self.0.record(entry.to_wire().as_bytes(), ino, offset, dtype, name)
    }

    /// Whether nothing was added; an empty answer means "end of the directory".
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The encoded records.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_padded_and_bounded() {
        let mut dir = DirBuffer::new(64);
        assert!(dir.push(7, 1, 8, b"abc"));
        assert_eq!(dir.as_bytes().len(), 32);
        assert_eq!(&dir.as_bytes()[24..32], b"abc\0\0\0\0\0");
        assert!(!dir.push(8, 2, 8, b"a-name-too-long"));
        assert!(dir.push(8, 2, 8, b"12345678"));
        assert_eq!(dir.as_bytes().len(), 64);
        assert!(!dir.push(9, 3, 8, b"x"));
    }

    #[test]
    fn plus_records_carry_the_entry() {
        let mut dir = DirPlusBuffer::new(4096);
        assert!(dir.is_empty());
        assert!(dir.push(&Entry { nodeid: 5, ..Entry::default() }, 5, 1, dtype_of_mode(0o100644), b"f"));
        assert_eq!(dir.as_bytes().len(), 160);
        assert_eq!(dir.as_bytes()[0], 5);
        assert_eq!(dir.as_bytes()[128 + 20], 8);
    }
}
