//! The mount table of this process's name space.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountInfo {
    /// Major device number.
    pub major: u32,
    /// Minor device number.
    pub minor: u32,
    /// Where.
    pub mountpoint: PathBuf,
    /// What, for example `JuiceFS:vol`.
    pub source: String,
    /// Type, for example `fuse.juicefs`.
    pub fstype: String,
    /// Options of the mount followed by those of the file system, comma-separated.
    pub options: String,
}

impl MountInfo {
    /// Whether FUSE serves it.
    pub fn is_fuse(&self) -> bool {
        self.fstype == "fuse" || self.fstype == "fuseblk" || self.fstype.starts_with("fuse.")
    }
}

/// All mounts in the order in which they were made.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub fn list_mounts() -> io::Result<Vec<MountInfo>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The topmost mount at exactly this absolute path (no symbolic links). Does not touch the path.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read.
pub fn find_mount(mountpoint: &Path) -> io::Result<Option<MountInfo>> {
    Ok(list_mounts()?.into_iter().rfind(|info| info.mountpoint == mountpoint))
}

pub(super) fn parse(table: &[u8]) -> Vec<MountInfo> {
    table.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let mut fields = line.split(|&b| b == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let mountpoint = path(fields.nth(1)?);
    let mount_options = text(fields.next()?);
    // Any number of optional fields up to a lone hyphen.
    fields.find(|field| *field == b"-")?;
    let (fstype, source) = (text(fields.next()?), text(fields.next()?));
    let options = match fields.next() {
        Some(own) if !own.is_empty() => format!("{mount_options},{}", text(own)),
        _ => mount_options,
    };
    Some(MountInfo {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        mountpoint,
        source,
        fstype,
        options,
    })
}

/// A path as mount tables write it.
pub(super) fn path(field: &[u8]) -> PathBuf {
    OsString::from_vec(unescape(field)).into()
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
}

/// The kernel writes space, tab, newline, backslash and `#` as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}
