//! What outlives a mounter: for each mount a directory with a record of it, written before anything is done, and its secrets. Those
//! are only ever in memory (tmpfs), for root alone; where the directory is on a disk they are not written, and whoever asks for the
//! mount again brings them.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use ciderfs_bounded::{KEY_FILE_MAX, read_regular};
use ciderfs_handover::place;
use rustix::process::Pid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::spec::Spec;

const RECORD: &str = "record.json";
const SECRETS: &str = "secrets.json";
/// `f_type` of file systems in memory (statfs(2)).
const TMPFS: i64 = 0x0102_1994;
const RAMFS: i64 = 0x8584_58f6;

/// A process, and when it began: its number is given to others later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// Ticks since the machine has started.
    pub since: u64,
}

impl Process {
    /// The one that has this number now; none if it has ended.
    pub fn now(pid: i32) -> Option<Self> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in brackets, may have anything in it.
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let is_over = matches!(fields.next()?, "Z" | "X");
        let since = fields.nth(18)?.parse().ok()?;
        (!is_over).then_some(Self { pid, since })
    }

    /// Does it run still?
    pub fn runs(&self) -> bool {
        Self::now(self.pid) == Some(*self)
    }

    /// As the system's calls want it.
    pub fn as_pid(&self) -> Option<Pid> {
        Pid::from_raw(self.pid)
    }
}

/// What is known of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What is mounted, without secrets.
    pub spec: Spec,
    /// Does it need secrets?
    pub has_secrets: bool,
    /// Its client.
    pub process: Option<Process>,
    /// It could be used once.
    pub was_ready: bool,
    /// It is to go.
    pub leaving: bool,
    /// Where somebody else has copies of what its supervisor holds.
    #[serde(default)]
    pub holder: Option<PathBuf>,
}

/// Is the directory in memory?
pub fn is_in_memory(dir: &Path) -> bool {
    rustix::fs::statfs(dir).is_ok_and(|s| matches!(s.f_type, TMPFS | RAMFS))
}

/// Makes a directory for root alone.
///
/// # Errors
/// Of the system; one is there that others may enter, or that is not root's.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let uid = rustix::process::geteuid().as_raw();
    if place::is_private(dir, uid) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!(
            "{0} must belong to user {uid} and nobody else may enter it: chown {uid} {0}; chmod 0700 {0}",
            dir.display()
        ),
    ))
}

/// A directory in which a socket of root lies: others cannot put another one in its place.
///
/// # Errors
/// They could.
pub fn check_place(socket: &Path) -> io::Result<()> {
    let dir = socket.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let found = std::fs::metadata(dir)?;
    let uid = rustix::process::geteuid().as_raw();
    if matches!(found.uid(), owner if owner == uid || owner == 0) && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("others may change {0}: chown {uid} {0}; chmod 0700 {0}", dir.display()),
    ))
}

/// Replaces a file in one step.
///
/// # Errors
/// Of the system.
pub fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

/// Reads one that [`write`] has written.
///
/// # Errors
/// Of the system; what is in it is something else.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    Ok(serde_json::from_slice(&read_regular(path, KEY_FILE_MAX)?)?)
}

impl Record {
    /// Writes it.
    ///
    /// # Errors
    /// Of the system.
    pub fn save(&self, dir: &Path) -> io::Result<()> {
        let spec = Spec { secrets: Default::default(), ..self.spec.clone() };
        let has_secrets = !self.spec.secrets.is_empty();
        if has_secrets && is_in_memory(dir) {
            write(&dir.join(SECRETS), &self.spec.secrets)?;
        }
        write(&dir.join(RECORD), &Self { spec, has_secrets, ..self.clone() })
    }

    /// Reads one, with its secrets if they are there.
    ///
    /// # Errors
    /// Of the system; what is there is no record.
    pub fn load(dir: &Path) -> io::Result<Self> {
        let mut record: Self = read(&dir.join(RECORD))?;
        if record.has_secrets {
            record.spec.secrets = read(&dir.join(SECRETS)).unwrap_or_default();
        }
        Ok(record)
    }

    /// Does it lack its secrets?
    pub fn lacks_secrets(&self) -> bool {
        self.has_secrets && self.spec.secrets.is_empty()
    }
}

/// The directories of a place, each with its name.
///
/// # Errors
/// Of the system.
pub fn all(dir: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if let (true, Ok(name)) = (entry.path().join(RECORD).exists(), entry.file_name().into_string()) {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn record(dir: &Path) -> Record {
        let secrets = [("META_PASSWORD".to_owned(), "hush".into())].into();
        let spec = Spec::new("v", "redis://h/1", vec!["ro".into()], secrets).unwrap();
        let record =
            Record { spec, has_secrets: true, process: None, was_ready: true, leaving: false, holder: None };
        record.save(dir).unwrap();
        record
    }

    #[test]
    fn secrets_are_kept_in_memory_only() {
        let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let memory = tempfile::tempdir_in("/dev/shm").unwrap();
        assert!(!is_in_memory(disk.path()) && is_in_memory(memory.path()));
        record(disk.path());
        let found = Record::load(disk.path()).unwrap();
        assert!(found.lacks_secrets() && found.spec.volume == "v");
        for file in std::fs::read_dir(disk.path()).unwrap() {
            assert!(!std::fs::read_to_string(file.unwrap().path()).unwrap().contains("hush"));
        }
        let written = record(memory.path());
        assert_eq!(Record::load(memory.path()).unwrap(), written);
        let mode = std::fs::metadata(memory.path().join(SECRETS)).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o600);
    }

    #[test]
    fn a_place_that_others_may_change_is_refused() {
        let all = tempfile::tempdir().unwrap();
        let dir = all.path().join("a/b");
        make_dir(&dir).unwrap();
        make_dir(&dir).unwrap();
        let set = |mode| {
            std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap()
        };
        for (mode, is_own, is_safe) in
            [(0o755, false, true), (0o770, false, false), (0o1777, false, false), (0o700, true, true)]
        {
            set(mode);
            assert_eq!(make_dir(&dir).is_ok(), is_own, "{mode:o}");
            assert_eq!(check_place(&dir.join("socket")).is_ok(), is_safe, "{mode:o}");
        }
        let link = all.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(make_dir(&link).is_err());
    }

    #[test]
    fn a_process_is_told_from_a_later_one() {
        let own = Process::now(std::process::id() as i32).unwrap();
        assert!(own.runs());
        assert!(!Process { since: own.since + 1, ..own }.runs());
    }
}
