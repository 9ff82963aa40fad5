//! Who may read the files of the disk cache.

use std::fmt;
use std::str::FromStr;

/// Permissions of the files that hold cached blocks (`--cache-mode`).
///
/// The owner reads and writes in any case. Nobody else ever writes, whatever is asked for: who could change a block in the
/// cache could change what the volume's users read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheMode(u32);

impl CacheMode {
    /// From permission bits; `None` for more than 0777.
    pub fn new(bits: u32) -> Option<Self> {
        (bits <= 0o777).then_some(Self(bits))
    }

    /// Permissions of a file; the process's umask takes from them.
    pub fn file(self) -> u32 {
        self.0 & 0o755 | 0o600
    }

    /// Permissions of a directory of blocks: who may read files may also list and search it.
    pub fn dir(self) -> u32 {
        self.file() | (self.file() & 0o444) >> 2
    }

    /// Has it bits that have no effect?
    pub fn is_cut(self) -> bool {
        self.0 != self.file()
    }
}

impl Default for CacheMode {
    /// For the owner only.
    fn default() -> Self {
        Self(0o600)
    }
}

impl fmt::Display for CacheMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for CacheMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let bits = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
        bits.and_then(Self::new)
            .ok_or_else(|| format!("{text:?} is no mode of files; use an octal number up to 777"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_writes() {
        for (text, file, dir) in [
            ("0600", 0o600, 0o700),
            ("600", 0o600, 0o700),
            ("0640", 0o640, 0o750),
            ("0644", 0o644, 0o755),
            ("666", 0o644, 0o755),
            ("0777", 0o755, 0o755),
            ("0", 0o600, 0o700),
            ("0444", 0o644, 0o755),
        ] {
            let mode: CacheMode = text.parse().unwrap();
            assert_eq!((mode.file(), mode.dir()), (file, dir), "{text}");
        }
        assert_eq!("644".parse::<CacheMode>().unwrap().to_string(), "0644");
        for bad in ["", "0x1ff", "1777", "8", "+600", "rw-r--r--", "99999999999"] {
            assert!(bad.parse::<CacheMode>().is_err(), "{bad}");
        }
        assert!(CacheMode::new(0o666).unwrap().is_cut() && !CacheMode::default().is_cut());
    }
}
