//! Inode numbers and the ranges with a meaning of their own.

use std::fmt;

/// An inode number. 0 is never stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory of the volume.
    pub const ROOT: Ino = Ino(1);
    /// The trash directory (`.trash`); hourly directories are numbered upwards from here.
    pub const TRASH: Ino = Ino(0x7FFF_FFFF_1000_0000);
    /// First of the virtual files that exist only in a mount (`.accesslog` is this plus one).
    pub const VIRTUAL: Ino = Ino(0x7FFF_FFFF_0000_0000);

    /// The trash root or an hourly trash directory.
    pub const fn is_trash(self) -> bool {
        self.0 >= Self::TRASH.0
    }

    /// An hourly trash directory.
    pub const fn is_trash_hour(self) -> bool {
        self.0 > Self::TRASH.0
    }

    /// A virtual file of the mount, below the trash range.
    pub const fn is_virtual(self) -> bool {
        self.0 >= Self::VIRTUAL.0 && self.0 < Self::TRASH.0
    }
}

impl fmt::Debug for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ino({})", self.0)
    }
}

impl fmt::Display for Ino {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests;
