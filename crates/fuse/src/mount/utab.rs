//! The line of a mount in `/run/mount/utab`: options that the kernel does not keep. mount(8) writes it for the mounts that it makes;
//! umount(8), findmnt(8) and systemd read it. Without `_netdev` there systemd takes a FUSE mount for a local one, and unmounts it
//! when the network is gone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const DIR: &str = "/run/mount";
const MODE: u32 = 0o644;

/// The line of a mount; removed when dropped.
#[derive(Debug)]
pub(super) struct Entry {
    dir: PathBuf,
    source: String,
    target: PathBuf,
}

impl Entry {
    /// Writes it. One that a former mount has left there is replaced.
    pub(super) fn write(source: &str, target: &Path, options: &[String]) -> io::Result<Self> {
        let entry = Self { dir: DIR.into(), source: source.to_owned(), target: target.to_owned() };
        entry.change(Some(options), false)?;
        Ok(entry)
    }

    /// Removes our line, or all of the target, and writes one with these options.
    fn change(&self, options: Option<&[String]>, all: bool) -> io::Result<()> {
        match fs::create_dir(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        // As libmount does it: whoever watches the table waits for the lock to be closed by one that could not write.
        let lock = OpenOptions::new()
            .read(true)
            .mode(MODE)
            .custom_flags(libc::O_CREAT | libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(self.dir.join("utab.lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let path = self.dir.join("utab");
        let old = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            old => old?,
        };
        let (source, target) = self.fields();
        let is_ours = |line: &[u8]| {
            let has = |field: &[u8]| line.split(|b| *b == b' ').any(|f| f == field);
            has(&target) && (all || has(&source))
        };
        let lines = old.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let mut new: Vec<u8> = lines.filter(|l| !is_ours(l)).flat_map(|l| [l, b"\n"].concat()).collect();
        if let Some(options) = options {
            let options = mangled(options.join(",").as_bytes());
            new.extend([&source[..], &target, b"ROOT=/", &[b"OPTS=", &options[..]].concat()].join(&b' '));
            new.push(b'\n');
        }
        if new == old {
            return Ok(());
        }
        let temp = self.dir.join(format!("utab.{}", std::process::id()));
        let mut file = open(OpenOptions::new().write(true).create(true).truncate(true), &temp)?;
        file.write_all(&new)?;
        // Everybody reads it, whatever the umask of a service is.
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
        fs::rename(&temp, &path)
    }

    fn fields(&self) -> (Vec<u8>, Vec<u8>) {
        let field = |name: &[u8], value: &[u8]| [name, &mangled(value)].concat();
        (field(b"SRC=", self.source.as_bytes()), field(b"TARGET=", self.target.as_os_str().as_bytes()))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let there = super::find_mount(&self.target).ok().flatten();
        // Left to somebody else together with the mount.
        if there.as_ref().is_some_and(|mount| mount.source == self.source) {
            return;
        }
        // mount(8) writes one too, with the address of the metadata as the source.
        if let Err(e) = self.change(None, there.is_none()) {
            tracing::debug!("the line of {:?} stays in {DIR}/utab: {e}", self.target);
        }
    }
}

fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.mode(MODE).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC).open(path)
}

/// As in other mount tables: octal for what separates.
fn mangled(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => out.extend(format!("\\{byte:03o}").into_bytes()),
            other => out.push(*other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("utab");
        let others = "SRC=/dev/sda TARGET=/a\\040b ROOT=/ OPTS=x-y\nSRC=JuiceFS:v TARGET=/elsewhere ROOT=/ OPTS=_netdev\n";
        fs::write(&path, others).unwrap();
        let target = dir.path().join("a b");
        let entry = Entry { dir: dir.path().into(), source: "JuiceFS:v".into(), target };
        for round in 0..2 {
            entry.change(Some(&["_netdev".into(), "x-a=b c".into()]), false).unwrap();
            let line = format!(
                "SRC=JuiceFS:v TARGET={}/a\\040b ROOT=/ OPTS=_netdev,x-a=b\\040c\n",
                dir.path().display()
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{others}{line}"), "round {round}");
        }
        let own = fs::read_to_string(&path).unwrap();
        let by_mount =
            format!("SRC=redis://h/1 TARGET={}/a\\040b ROOT=/ OPTS=_netdev\n", dir.path().display());
        fs::write(&path, format!("{own}{by_mount}")).unwrap();
        entry.change(None, false).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{others}{by_mount}"));
        drop(entry);
        assert_eq!(fs::read_to_string(&path).unwrap(), others);
    }
}
