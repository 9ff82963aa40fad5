//! Where a supervisor listens: a socket in a directory that only its user can enter, named by the device number of the mount,
//! which everybody finds in the table of mounts without asking the mount.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Directory of sockets.
const NAME: &str = "ciderfs";

/// The directories in which a supervisor of a user may listen, best first.
fn directories(uid: u32) -> [PathBuf; 2] {
    let run = match uid {
        0 => PathBuf::from("/run"),
        _ => PathBuf::from(format!("/run/user/{uid}")),
    };
    [run.join(NAME), PathBuf::from(format!("/tmp/{NAME}-{uid}"))]
}

/// Is it a directory of this user that nobody else may enter?
pub fn is_private(dir: &Path, uid: u32) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == uid && m.mode() & 0o077 == 0)
}

/// Takes it from others, if they could only look: kubelet makes directories for everybody.
fn make_private(dir: &Path, uid: u32) {
    let looked = std::fs::symlink_metadata(dir);
    if looked.is_ok_and(|m| m.is_dir() && m.uid() == uid && m.mode() & 0o077 != 0 && m.mode() & 0o022 == 0) {
        // Whoever needs it looks at what it is then.
        let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
    }
}

/// The socket of a mount, for its supervisor. What a former one has left there is removed.
pub fn make(device: (u32, u32)) -> io::Result<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let mut why = io::Error::from(io::ErrorKind::NotFound);
    for dir in directories(uid) {
        match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                why = e;
                continue;
            }
            _ => make_private(&dir, uid),
        }
        if !is_private(&dir, uid) {
            why = io::Error::other(format!("{} is not for this user alone", dir.display()));
            continue;
        }
        let path = dir.join(name(device));
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => why = e,
            _ => return Ok(path),
        }
    }
    Err(why)
}

/// The socket of a mount that a user serves, if there is one.
pub fn find(device: (u32, u32), uid: u32) -> Option<PathBuf> {
    let dirs = directories(uid).into_iter().filter(|dir| is_private(dir, uid));
    dirs.map(|dir| dir.join(name(device))).find(|path| path.exists())
}

fn name((major, minor): (u32, u32)) -> String {
    format!("{major}-{minor}.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_could_not_write_to_becomes_private() {
        let uid = rustix::process::geteuid().as_raw();
        let all = tempfile::tempdir().unwrap();
        let dir = all.path().join("dir");
        std::fs::create_dir(&dir).unwrap();
        for (mode, then) in [(0o755, true), (0o700, true), (0o770, false), (0o1777, false)] {
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
            make_private(&dir, uid);
            assert_eq!(is_private(&dir, uid), then, "{mode:o}");
        }
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&dir, uid + 1);
        let link = all.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        make_private(&link, uid);
        assert!(!is_private(&dir, uid) && !is_private(&link, uid));
    }
}
