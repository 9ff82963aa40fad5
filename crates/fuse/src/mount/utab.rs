//! The line of a mount in `/run/mount/utab`: options that the kernel does not keep. mount(8) writes it for the mounts that it makes;
//! umount(8), findmnt(8) and systemd read it. Without `_netdev` there systemd takes a FUSE mount for a local one, and unmounts it
//! when the network is gone.
//!
//! A mount whose server was killed cannot remove its line: [`sweep`] does. The table may be shared with other mount name spaces, in
//! which a mount cannot be seen from here; an attribute, which mount(8) keeps and does not show, tells where a line is from.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

const DIR: &str = "/run/mount";
const MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;
/// Begins the attribute with the mount name space in which a line was written.
const NAMESPACE: &str = "ATTRS=ciderfs.ns=";

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
        let (source, target) = self.fields();
        let here = namespace();
        let is_ours = |line: &[u8]| has(line, &target) && (all || has(line, &source)) && is_from(line, &here);
        let line = options.map(|options| {
            let options = [b"OPTS=", &mangled(options.join(",").as_bytes())[..]].concat();
            [&source[..], &target, b"ROOT=/", &options, &here].join(&b' ')
        });
        rewrite(&self.dir, line.as_deref(), |table| table.retain(|line| !is_ours(line)))
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

/// Removes what killed servers have left: lines of mounts, whose sources begin with a text, that are no longer there.
pub(super) fn sweep(source: &str) -> io::Result<()> {
    // Nothing to do for most who call this, and nothing that they may do for some.
    if !Path::new(DIR).join("utab").exists() {
        return Ok(());
    }
    sweep_in(Path::new(DIR), source, &namespace(), |target| {
        super::find_mount(target).is_ok_and(|m| m.is_none())
    })
}

fn sweep_in(dir: &Path, source: &str, here: &[u8], is_gone: impl Fn(&Path) -> bool) -> io::Result<()> {
    let source = [b"SRC=", &mangled(source.as_bytes())[..]].concat();
    let target =
        |line: &[u8]| line.split(|b| *b == b' ').find(|f| f.starts_with(b"TARGET=")).map(<[u8]>::to_vec);
    let is_stale = |line: &[u8]| {
        let gone = |target: Vec<u8>| is_gone(&super::mountinfo::path(&target[b"TARGET=".len()..]));
        line.starts_with(&source) && has(line, here) && target(line).is_some_and(gone)
    };
    rewrite(dir, None, |table| {
        let stale: Vec<_> =
            table.iter().filter(|line| is_stale(line)).filter_map(|line| target(line)).collect();
        // The one of mount(8) for the same mount goes too.
        table.retain(|line| !is_from(line, here) || target(line).is_none_or(|t| !stale.contains(&t)));
    })
}

/// Removes lines of the table and adds one.
fn rewrite(dir: &Path, line: Option<&[u8]>, remove: impl Fn(&mut Vec<&[u8]>)) -> io::Result<()> {
    // Everybody reads the table and waits for its lock, whatever the umask of a service is.
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(DIR_MODE))?,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(e),
    }
    // As libmount does it: whoever watches the table waits for the lock to be closed by one that could not write.
    let lock = OpenOptions::new()
        .read(true)
        .mode(MODE)
        .custom_flags(libc::O_CREAT | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(dir.join("utab.lock"))?;
    // One of somebody else stays as it is.
    let _ = lock.set_permissions(fs::Permissions::from_mode(MODE));
    flock(&lock, FlockOperation::LockExclusive)?;
    let path = dir.join("utab");
    let old = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        old => old?,
    };
    let mut lines = old.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
    remove(&mut lines);
    lines.extend(line);
    let new: Vec<u8> = lines.iter().flat_map(|l| [l, &b"\n"[..]].concat()).collect();
    if new == old {
        return Ok(());
    }
    let temp = dir.join(format!("utab.{}", std::process::id()));
    let mut file = open(OpenOptions::new().write(true).create(true).truncate(true), &temp)?;
    file.write_all(&new)?;
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    fs::rename(&temp, &path)
}

fn has(line: &[u8], field: &[u8]) -> bool {
    line.split(|b| *b == b' ').any(|f| f == field)
}

/// Is a line of this name space, as far as it tells?
fn is_from(line: &[u8], namespace: &[u8]) -> bool {
    has(line, namespace) || !line.split(|b| *b == b' ').any(|f| f.starts_with(NAMESPACE.as_bytes()))
}

/// The attribute of this process's mount name space.
fn namespace() -> Vec<u8> {
    let id = fs::metadata("/proc/self/ns/mnt").map_or(0, |meta| meta.ino());
    format!("{NAMESPACE}{id}").into_bytes()
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
                "SRC=JuiceFS:v TARGET={}/a\\040b ROOT=/ OPTS=_netdev,x-a=b\\040c {}\n",
                dir.path().display(),
                String::from_utf8(namespace()).unwrap()
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
    #[test]
    fn only_what_is_gone_from_here_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("utab");
        let stale = [
            "SRC=JuiceFS:v TARGET=/gone\\040for\\040good ROOT=/ OPTS=_netdev ATTRS=ciderfs.ns=7\n",
            "SRC=redis://h/1 TARGET=/gone\\040for\\040good ROOT=/ OPTS=_netdev,nofail\n",
        ]
        .concat();
        let others = [
            "SRC=JuiceFS:v TARGET=/there ROOT=/ OPTS=_netdev ATTRS=ciderfs.ns=7\n",
            "SRC=JuiceFS:v TARGET=/gone\\040for\\040good ROOT=/ OPTS=_netdev ATTRS=ciderfs.ns=70\n",
            "SRC=/dev/sda TARGET=/gone ROOT=/ OPTS=x-y\n",
        ]
        .concat();
        fs::write(&path, format!("{stale}{others}")).unwrap();
        let is_gone = |target: &Path| target.starts_with("/gone") || target.starts_with("/gone for good");
        sweep_in(dir.path(), "JuiceFS:", b"ATTRS=ciderfs.ns=7", is_gone).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), others);
    }
}
