//! The bytes by which the next pod finds what this one has left. They are an INIT request with what was agreed with the kernel, as the
//! official client gives them; what is ours stands where such a request has unused bytes.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ciderfs_fuse::Negotiated;

/// Length of an INIT request.
const LEN: usize = 104;
/// `INIT`.
const OPCODE: u32 = 26;
/// The kernel's number of its first request.
const UNIQUE: u64 = 2;
const MAJOR: u32 = 7;
/// Where the unused bytes begin.
const OURS: usize = 60;
const MAGIC: &[u8; 8] = b"ciderfs\x01";
/// Names of files begin with this.
const NAME: &str = "ciderfs-";

/// What they tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Voucher {
    /// In the names of files, 0 for none.
    pub token: u64,
    /// Number of the mount.
    pub device: (u32, u32),
    /// Of what is mounted where.
    pub scope: u64,
}

impl Voucher {
    /// For the driver.
    pub fn settings(&self, agreed: &Negotiated) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LEN);
        let flags = [agreed.capabilities as u32, (agreed.capabilities >> 32) as u32];
        for n in [LEN as u32, OPCODE] {
            bytes.extend(n.to_ne_bytes());
        }
        bytes.extend(UNIQUE.to_ne_bytes());
        bytes.resize(40, 0);
        for n in [MAJOR, agreed.kernel_minor, agreed.max_readahead, flags[0], flags[1]] {
            bytes.extend(n.to_ne_bytes());
        }
        if self.token != 0 {
            bytes.extend(MAGIC);
            bytes.extend(self.token.to_ne_bytes());
            bytes.extend(self.device.0.to_ne_bytes());
            bytes.extend(self.device.1.to_ne_bytes());
            bytes.extend(self.scope.to_ne_bytes());
        }
        bytes.resize(LEN, 0);
        bytes
    }

    /// From the driver; `None` of what another client has made.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.get(OURS..LEN)?.strip_prefix(MAGIC)?;
        let word = |at: usize| Some(u64::from_ne_bytes(*rest.get(at..)?.first_chunk()?));
        let half = |at: usize| Some(u32::from_ne_bytes(*rest.get(at..)?.first_chunk()?));
        Some(Self { token: word(0)?, device: (half(8)?, half(12)?), scope: word(16)? })
    }

    /// The state, and the requests that were begun.
    pub fn files(&self, directory: &Path) -> [PathBuf; 2] {
        ["state", "begun"].map(|what| directory.join(format!("{NAME}{:016x}.{what}", self.token)))
    }
}

/// Of the name of a file.
pub(super) fn token_of(name: &str) -> Option<u64> {
    let (token, what) = name.strip_prefix(NAME)?.split_once('.')?;
    u64::from_str_radix(token, 16).ok().filter(|_| matches!(what, "state" | "begun"))
}

/// A number by which another directory of a volume, or another place, is told.
pub(super) fn scope(mountpoint: &Path, subdir: &str) -> u64 {
    // FNV-1a: the same in every version of this program.
    let bytes =
        mountpoint.as_os_str().as_bytes().iter().chain(&[0]).chain(subdir.trim_matches('/').as_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed() -> Negotiated {
        Negotiated {
            minor: 45,
            kernel_minor: 45,
            capabilities: 0x5fd_00c6_7433,
            offered: 0,
            max_write: 1 << 20,
            max_pages: 256,
            max_readahead: 1 << 17,
            max_background: 64,
            congestion_threshold: 48,
            time_gran: 1,
        }
    }

    #[test]
    fn what_the_next_pod_needs_is_in_an_init_request() {
        let voucher = Voucher { token: 7, device: (0, 53), scope: scope(Path::new("/jfs/a"), "/b/") };
        let bytes = voucher.settings(&agreed());
        // As the official client's, up to where its bytes are all zeros.
        let official = concat!(
            "680000001a0000000200000000000000000000000000000000000000000000000000000000000000",
            "070000002d000000000002003374c600fd050000"
        );
        let hex: String = bytes[..OURS].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!((hex.as_str(), bytes.len()), (official, LEN));
        assert_eq!(Voucher::read(&bytes), Some(voucher.clone()));
        assert_eq!(Voucher::read(&bytes[..LEN - 1]), None);
        let none = Voucher { token: 0, ..voucher.clone() }.settings(&agreed());
        assert!(none[OURS..].iter().all(|b| *b == 0) && Voucher::read(&none).is_none());
        let files = voucher.files(Path::new("/tmp"));
        let names = files.map(|file| file.file_name().unwrap().to_str().unwrap().to_owned());
        assert_eq!(names.map(|name| token_of(&name)), [Some(7), Some(7)]);
        assert_eq!(token_of("ciderfs-7.log"), None);
        assert_ne!(scope(Path::new("/jfs/a"), "b"), scope(Path::new("/jfs/a"), "c"));
    }
}
