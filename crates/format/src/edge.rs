//! Directory entries (`docs/format/inodes-and-attributes.md#directory-entries`).

use crate::{FileType, FormatError, Ino};

/// Longest name of an entry, in bytes.
pub const NAME_MAX: usize = 255;
/// Longest target of a symbolic link, in bytes.
pub const SYMLINK_MAX: usize = 4096;

/// What a name points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Type of the target.
    pub kind: FileType,
    /// The target.
    pub ino: Ino,
}

impl Edge {
    /// The 9 stored bytes: type u8, inode u64.
    pub fn encode(&self) -> [u8; 9] {
        let mut out = [0; 9];
        out[0] = self.kind as u8;
        out[1..].copy_from_slice(&self.ino.0.to_be_bytes());
        out
    }

    /// Decodes the 9 stored bytes.
    pub fn decode(raw: &[u8]) -> Result<Self, FormatError> {
        let raw: &[u8; 9] = raw.try_into().map_err(|_| FormatError::Length {
            what: "directory entry",
            got: raw.len(),
            expected: "9",
        })?;
        let kind = FileType::from_u8(raw[0]).ok_or_else(|| FormatError::Invalid {
            what: "directory entry",
            detail: format!("unknown file type {}", raw[0]),
        })?;
        let mut ino = [0; 8];
        ino.copy_from_slice(&raw[1..]);
        Ok(Self { kind, ino: Ino(u64::from_be_bytes(ino)) })
    }
}

/// Can an entry be called so? What is stored under any other name, nobody can open, and a kernel takes offence.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= NAME_MAX
        && !matches!(name, b"." | b"..")
        && !name.iter().any(|b| matches!(b, b'/' | 0))
}

/// The name of a trashed entry: `<parent>-<inode>-<name>`, cut to 255 bytes.
pub fn trash_entry_name(parent: Ino, ino: Ino, name: &[u8]) -> Vec<u8> {
    let mut out = format!("{parent}-{ino}-").into_bytes();
    out.extend_from_slice(name);
    out.truncate(NAME_MAX);
    out
}

/// The directory in which a trashed entry was; `None` for a name of another form.
pub fn trash_entry_parent(name: &[u8]) -> Option<Ino> {
    let digits = &name[..name.iter().position(|b| *b == b'-')?];
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok().map(Ino)
}

#[cfg(test)]
mod tests;
