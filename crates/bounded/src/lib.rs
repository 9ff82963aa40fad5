//! Small files that are named by a user or served by somebody else: keys, certificates, passwords, documents of other mounts.
//! They are read no further than they may be long, and never from devices, which need not have an end.
#![forbid(unsafe_code)]

use std::fs::{File, FileType, OpenOptions};
use std::io::{Error, ErrorKind, Read as _, Result};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Bytes of a file with keys, certificates or a password.
pub const KEY_FILE_MAX: u64 = 1 << 20;
/// Bytes of the document that a mount tells of itself (`.config`): its settings, twice over.
pub const CONFIG_MAX: u64 = 4 << 20;

/// The content of a regular file or a pipe (`<(command)`).
///
/// # Errors
/// Those of opening and reading; another kind of file; more than `most` bytes.
pub fn read(path: impl AsRef<Path>, most: u64) -> Result<Vec<u8>> {
    let is_fit = |kind: FileType| kind.is_file() || kind.is_fifo();
    read_fit(path.as_ref(), most, is_fit, "neither a file nor a pipe", File::options().read(true))
}

/// The content of a regular file that is read more than once, or by somebody who cannot wait: a pipe may never have a writer.
///
/// # Errors
/// Those of opening and reading; another kind of file; more than `most` bytes.
pub fn read_regular(path: impl AsRef<Path>, most: u64) -> Result<Vec<u8>> {
    // One that becomes a pipe after the look at it does not hold us up, either.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let how = File::options().read(true).custom_flags(nonblock).clone();
    read_fit(path.as_ref(), most, |kind| kind.is_file(), "no regular file", &how)
}

fn read_fit(
    path: &Path,
    most: u64,
    is_fit: impl Fn(FileType) -> bool,
    unfit: &'static str,
    how: &OpenOptions,
) -> Result<Vec<u8>> {
    let refuse = || Err(Error::new(ErrorKind::InvalidInput, unfit));
    // Before it is opened, because that may have an effect on a device.
    if !is_fit(std::fs::metadata(path)?.file_type()) {
        return refuse();
    }
    let file = how.open(path)?;
    if !is_fit(file.metadata()?.file_type()) {
        return refuse();
    }
    let mut content = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(Error::new(ErrorKind::InvalidData, format!("more than {most} bytes")));
    }
    Ok(content)
}

/// [`read`] for text.
///
/// # Errors
/// Those of [`read`]; content that is not UTF-8.
pub fn read_text(path: impl AsRef<Path>, most: u64) -> Result<String> {
    String::from_utf8(read(path, most)?).map_err(|_| Error::new(ErrorKind::InvalidData, "not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_pipes_are_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, b"secret\n").unwrap();
        assert_eq!(read(&path, 7).unwrap(), b"secret\n");
        assert_eq!(read(&path, 6).unwrap_err().to_string(), "more than 6 bytes");
        assert_eq!(read_text(&path, 7).unwrap(), "secret\n");
        std::fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 7).unwrap_err().to_string(), "not UTF-8");
        assert_eq!(read(dir.path().join("none"), 1).unwrap_err().kind(), ErrorKind::NotFound);
        for other in [Path::new("/dev/zero"), Path::new("/dev/null"), dir.path()] {
            assert_eq!(read(other, KEY_FILE_MAX).unwrap_err().to_string(), "neither a file nor a pipe");
        }
        // One that only says that it is short.
        assert!(read("/proc/self/maps", 10).is_err());
        assert!(!read("/proc/self/maps", KEY_FILE_MAX).unwrap().is_empty());
    }

    #[test]
    fn nothing_waits_for_a_pipe_without_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for other in [path.as_path(), Path::new("/dev/zero"), dir.path()] {
            assert_eq!(read_regular(other, KEY_FILE_MAX).unwrap_err().to_string(), "no regular file");
        }
        let path = dir.path().join("key");
        std::fs::write(&path, b"secret\n").unwrap();
        assert_eq!(read_regular(&path, 7).unwrap(), b"secret\n");
        assert_eq!(read_regular(&path, 6).unwrap_err().to_string(), "more than 6 bytes");
    }

    #[test]
    fn a_pipe_without_an_end_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let writer = {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut pipe = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                while std::io::Write::write_all(&mut pipe, &[b'k'; 4096]).is_ok() {}
            })
        };
        assert_eq!(read(&path, 100_000).unwrap_err().to_string(), "more than 100000 bytes");
        writer.join().unwrap();
    }
}
