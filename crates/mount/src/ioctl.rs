//! Flags of inodes through ioctl(2): `chattr`, `lsattr`, `FS_IOC_FSGETXATTR`.
//!
//! The kernel translates between its callers' forms; a call of one may reach us in the other.

use bytes::Bytes;
use ciderfs_format::Ino;
use ciderfs_format::attr::flags;
use ciderfs_meta::{Caller, Errno};

use crate::handler::{Answer, Answered, Bridge};

const GETFLAGS: u32 = 0x8008_6601;
const SETFLAGS: u32 = 0x4008_6602;
const GETFLAGS_32: u32 = 0x8004_6601;
const SETFLAGS_32: u32 = 0x4004_6602;
const FSGETXATTR: u32 = 0x801c_581f;
const FSSETXATTR: u32 = 0x401c_5820;
/// Bytes of `struct fsxattr`: flags, extent size hint, extents, project, copy-on-write hint, padding.
const FSXATTR: usize = 28;

/// Bits of `FS_IOC_GETFLAGS` and what they are in the volume.
const FLAGS: [(u32, u8); 3] = [(0x1, flags::SKIP_TRASH), (0x10, flags::IMMUTABLE), (0x20, flags::APPEND)];
/// Bits of `fsx_xflags`.
const XFLAGS: [(u32, u8); 2] = [(0x8, flags::IMMUTABLE), (0x10, flags::APPEND)];

/// The kernel's bits for stored flags.
fn to_bits(table: &[(u32, u8)], stored: u8) -> u32 {
    table.iter().filter(|(_, flag)| stored & flag != 0).map(|(bit, _)| bit).sum()
}

/// Stored flags after the kernel's bits are set; flags without a bit stay.
fn to_flags(table: &[(u32, u8)], bits: u32, stored: u8) -> Result<u8, Errno> {
    let known: u32 = table.iter().map(|(bit, _)| bit).sum();
    if bits & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let expressible: u8 = table.iter().fold(0, |all, (_, flag)| all | flag);
    let set = table.iter().filter(|(bit, _)| bits & bit != 0).fold(0, |all, (_, flag)| all | flag);
    Ok((stored & !expressible) | set)
}

fn word(data: &[u8], at: usize) -> Result<u32, Errno> {
    let bytes = data.get(at..at + 4).and_then(|b| b.try_into().ok()).ok_or(Errno::EINVAL)?;
    Ok(u32::from_ne_bytes(bytes))
}

impl Bridge {
    /// Serves one of the calls above; `ENOTTY` for any other.
    pub(crate) async fn ioctl(&self, c: &Caller, ino: Ino, cmd: u32, data: &[u8]) -> Answer<Answered> {
        let table: &[(u32, u8)] = match cmd {
            GETFLAGS | SETFLAGS | GETFLAGS_32 | SETFLAGS_32 => &FLAGS,
            FSGETXATTR | FSSETXATTR => &XFLAGS,
            _ => return Err(Errno::ENOTTY.into()),
        };
        if ino.is_virtual() {
            return Err(Errno::EPERM.into());
        }
        if matches!(cmd, GETFLAGS | GETFLAGS_32 | FSGETXATTR) {
            let mut out = to_bits(table, self.vfs.getattr(ino).await?.flags).to_ne_bytes().to_vec();
            out.resize(if cmd == FSGETXATTR { FSXATTR } else { out.len() }, 0);
            return Ok(Answered::Ioctl(Bytes::from(out)));
        }
        // Extent sizes and projects are not kept; asking for none is fine.
        if cmd == FSSETXATTR && [4, 12, 16].map(|at| word(data, at)).iter().any(|w| *w != Ok(0)) {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let bits = word(data, 0)?;
        self.vfs.change_flags(c, ino, |stored| to_flags(table, bits, stored)).await?;
        Ok(Answered::Ioctl(Bytes::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_flags() {
        let all = flags::SKIP_TRASH | flags::IMMUTABLE | flags::APPEND | flags::HIDDEN;
        assert_eq!(to_bits(&FLAGS, all), 0x31);
        assert_eq!(to_bits(&XFLAGS, all), 0x18);
        assert_eq!(to_flags(&FLAGS, 0x10, all), Ok(flags::IMMUTABLE | flags::HIDDEN));
        assert_eq!(to_flags(&XFLAGS, 0, all), Ok(flags::SKIP_TRASH | flags::HIDDEN));
        assert_eq!(to_flags(&FLAGS, 0x40, 0), Err(Errno::EOPNOTSUPP));
        assert_eq!(word(&[1, 0, 0], 0), Err(Errno::EINVAL));
    }
}
