//! The attribute record of an inode (`docs/format/inodes-and-attributes.md#the-record`, `docs/format/sql-tables.md#the-table-node`).

use crate::slice::MAX_FILE_SIZE;
use crate::{FormatError, Ino};

/// What an inode is; the numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FileType {
    /// Regular file.
    File = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link.
    Symlink = 3,
    /// Named pipe.
    Fifo = 4,
    /// Block device.
    BlockDevice = 5,
    /// Character device.
    CharDevice = 6,
    /// Unix socket.
    Socket = 7,
}

impl FileType {
    /// The type with a stored number.
    pub const fn from_u8(n: u8) -> Option<Self> {
        Some(match n {
            1 => Self::File,
            2 => Self::Directory,
            3 => Self::Symlink,
            4 => Self::Fifo,
            5 => Self::BlockDevice,
            6 => Self::CharDevice,
            7 => Self::Socket,
            _ => return None,
        })
    }

    /// The `S_IFMT` bits of `st_mode`.
    pub const fn mode_bits(self) -> u32 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::Fifo => 0o010_000,
            Self::BlockDevice => 0o060_000,
            Self::CharDevice => 0o020_000,
            Self::Socket => 0o140_000,
        }
    }

    /// The type that a `mode` argument of `mknod(2)` asks for; no type bits mean a regular file.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0 | 0o100_000 => Self::File,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o010_000 => Self::Fifo,
            0o060_000 => Self::BlockDevice,
            0o020_000 => Self::CharDevice,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }
}

/// A point in time: signed seconds since 1970 and nanoseconds (0..10^9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time {
    /// Seconds since the epoch; negative before 1970.
    pub sec: i64,
    /// Nanoseconds, below 1_000_000_000.
    pub nsec: u32,
}

impl Time {
    /// The last nanosecond of a second.
    pub const NSEC_MAX: u32 = 999_999_999;

    /// The 12 stored bytes: seconds i64, nanoseconds u32.
    pub fn to_bytes(self) -> [u8; 12] {
        let mut out = [0; 12];
        out[..8].copy_from_slice(&self.sec.to_be_bytes());
        out[8..].copy_from_slice(&self.nsec.to_be_bytes());
        out
    }
}

/// Flag bits of [`Attr::flags`].
pub mod flags {
    /// `chattr +i`.
    pub const IMMUTABLE: u8 = 0x01;
    /// `chattr +a`.
    pub const APPEND: u8 = 0x02;
    /// Windows hidden.
    pub const HIDDEN: u8 = 0x04;
    /// Windows system.
    pub const SYSTEM: u8 = 0x08;
    /// Windows archive.
    pub const ARCHIVE: u8 = 0x10;
    /// Removal bypasses the trash (`chattr +s`); inherited by new children.
    pub const SKIP_TRASH: u8 = 0x20;
}

/// Attributes of an inode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attr {
    /// Bits of [`flags`].
    pub flags: u8,
    /// What it is.
    pub kind: FileType,
    /// Permission bits, 12 of them (0o7777).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of content or attributes.
    pub ctime: Time,
    /// Links; for a directory 2 plus the number of subdirectories.
    pub nlink: u32,
    /// Bytes, below [`MAX_FILE_SIZE`]; directories 4096, symlinks the length of the target.
    pub length: u64,
    /// Device number as Linux's 32-bit `new_encode_dev` form; 0 unless a device.
    pub rdev: u32,
    /// The directory that holds the only link; 0 once the file has or had several.
    pub parent: Ino,
    /// Id of the access ACL, 0 for none.
    pub access_acl: u32,
    /// Id of the default ACL of a directory, 0 for none.
    pub default_acl: u32,
    /// Storage tier, 0 to 3.
    pub tier: u8,
}

impl Attr {
    /// Fixed length of a directory.
    pub const DIR_LENGTH: u64 = 4096;

    /// The stored record: 72, 73 (tier), 80 (ACL) or 81 bytes, the last one a zero pad byte.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(81);
        out.push(self.flags);
        out.extend_from_slice(&((u16::from(self.kind as u8) << 12) | (self.mode & 0xFFF)).to_be_bytes());
        out.extend_from_slice(&self.uid.to_be_bytes());
        out.extend_from_slice(&self.gid.to_be_bytes());
        for t in [self.atime, self.mtime, self.ctime] {
            out.extend_from_slice(&t.to_bytes());
        }
        out.extend_from_slice(&self.nlink.to_be_bytes());
        out.extend_from_slice(&self.length.to_be_bytes());
        out.extend_from_slice(&self.rdev.to_be_bytes());
        out.extend_from_slice(&self.parent.0.to_be_bytes());
        if self.access_acl != 0 || self.default_acl != 0 {
            out.extend_from_slice(&self.access_acl.to_be_bytes());
            out.extend_from_slice(&self.default_acl.to_be_bytes());
        }
        if self.tier != 0 {
            out.push(self.tier);
        }
        out.push(0);
        out
    }

    /// The longest that a file can be.
    pub const LENGTH_MAX: u64 = MAX_FILE_SIZE - 1;

    /// What a length means that was stored by whomever: a longer one than a file can have is the longest, so that sums of lengths
    /// stay in bounds and the file can be cut to what is in it.
    pub const fn sound_length(stored: u64) -> u64 {
        if stored > Self::LENGTH_MAX { Self::LENGTH_MAX } else { stored }
    }

    /// Decodes a stored record; the parent, ACL ids and tier are optional at the end. Numbers that no client writes become the
    /// nearest that one does.
    pub fn decode(raw: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader(raw);
        let short =
            || FormatError::Length { what: "attribute record", got: raw.len(), expected: "at least 63" };
        let flags = r.take::<1>().ok_or_else(short)?[0];
        let type_mode = u16::from_be_bytes(r.take().ok_or_else(short)?);
        let kind = FileType::from_u8((type_mode >> 12) as u8).ok_or_else(|| FormatError::Invalid {
            what: "attribute record",
            detail: format!("unknown file type {}", type_mode >> 12),
        })?;
        let uid = u32::from_be_bytes(r.take().ok_or_else(short)?);
        let gid = u32::from_be_bytes(r.take().ok_or_else(short)?);
        let mut times = [Time::default(); 3];
        for t in &mut times {
            t.sec = i64::from_be_bytes(r.take().ok_or_else(short)?);
            t.nsec = u32::from_be_bytes(r.take().ok_or_else(short)?).min(Time::NSEC_MAX);
        }
        let nlink = u32::from_be_bytes(r.take().ok_or_else(short)?);
        let length = Self::sound_length(u64::from_be_bytes(r.take().ok_or_else(short)?));
        let rdev = u32::from_be_bytes(r.take().ok_or_else(short)?);
        let parent = Ino(r.take().map_or(0, u64::from_be_bytes));
        let (mut access_acl, mut default_acl) = (0, 0);
        if let Some(ids) = r.take::<8>() {
            let ids = u64::from_be_bytes(ids);
            access_acl = (ids >> 32) as u32;
            default_acl = ids as u32;
        }
        let tier = r.take::<1>().map_or(0, |b| b[0]);
        let [atime, mtime, ctime] = times;
        Ok(Self {
            flags,
            kind,
            mode: type_mode & 0xFFF,
            uid,
            gid,
            atime,
            mtime,
            ctime,
            nlink,
            length,
            rdev,
            parent,
            access_acl,
            default_acl,
            tier,
        })
    }

    /// Is it a directory?
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Is it a regular file?
    pub fn is_file(&self) -> bool {
        self.kind == FileType::File
    }

    /// `st_mode`: type and permission bits.
    pub fn st_mode(&self) -> u32 {
        self.kind.mode_bits() | u32::from(self.mode)
    }

    /// Bytes charged to the volume for this inode.
    pub fn charged_space(&self) -> u64 {
        if self.is_file() { crate::align4k(self.length) } else { 4096 }
    }

    /// Lies in an hourly trash directory.
    pub fn in_trash(&self) -> bool {
        self.parent.is_trash_hour()
    }
}

/// Takes fixed-size pieces off the front of a byte slice.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
}

#[cfg(test)]
mod tests;
