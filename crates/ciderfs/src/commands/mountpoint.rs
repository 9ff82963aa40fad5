//! What is at a mount point before a volume is mounted there: a mount whose server died is taken away, the volume itself is left
//! alone, another volume is refused. Nothing here waits for a mount that does not answer.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ciderfs_format::{Settings, shown};
use ciderfs_fuse::mount::{MountInfo, absolute, find_mount, sweep_table, unmount};
use rustix::fs::{
    FlockOperation, Gid, IFlags, Mode, OFlags, Uid, fchmod, fchown, flock, ioctl_getflags, ioctl_setflags,
};
use serde_json::Value;

use crate::failure::{Failure, Result};

/// What the source of a mount begins with, before the name of the volume.
pub const SOURCE: &str = "JuiceFS:";
/// A mount has this long to say which volume it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Another command that mounts at the same place has this long to get done.
const TURN: Duration = Duration::from_secs(30);
/// Mode of a mount point that is guarded.
const GUARDED: Mode = Mode::from_raw_mode(0o555);
/// Between looks whether it is.
const POLL: Duration = Duration::from_millis(20);
/// Between looks at a mount that somebody else serves.
const LOOK: Duration = Duration::from_millis(500);
/// Names of the file in which a mount tells about itself.
const CONFIGS: [&str; 2] = [".config", ".jfs.config"];

/// A volume, of either client, that is mounted where we want to mount.
pub struct Occupant {
    at: PathBuf,
    source: String,
    /// Device number, by which it is told from a later mount.
    device: (u32, u32),
    /// What it tells about itself, or why it does not.
    config: std::result::Result<Value, String>,
}

/// Is it a mount of a volume of ours or of the official client?
pub fn is_volume(mount: &MountInfo) -> bool {
    mount.is_fuse() && mount.source.starts_with(SOURCE)
}

/// Makes sure that there is something to mount on. Returns the volume that is mounted there already, if one is.
pub fn prepare(mountpoint: &Path) -> Result<Option<Occupant>> {
    if mountpoint == Path::new("/") {
        return Err(Failure::new("cannot mount at /: choose another directory"));
    }
    let fail = |e| Failure::new(format!("mount point {}: {e}", shown(&mountpoint)));
    if let Some(parent) = mountpoint.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    let occupant = look(mountpoint, &lock(mountpoint)?)?;
    sweep_table(SOURCE);
    if occupant.is_none() {
        match std::fs::create_dir(mountpoint) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(fail(e)),
            _ => {}
        }
    }
    Ok(occupant)
}

/// Makes a mount point that nothing is mounted on a place where nobody can write, so that what is meant for the volume does not end
/// up on the disk of this machine while the volume is away. Mounting there works as before.
pub fn guard(mountpoint: &Path) -> Result<()> {
    let fail =
        |e: std::io::Error| Failure::new(format!("guarding the mount point {}: {e}", shown(&mountpoint)));
    let full = absolute(mountpoint).map_err(fail)?;
    if !rustix::process::geteuid().is_root() {
        // The helper of users mounts only where they may write.
        tracing::warn!("{} stays as it is: only root can guard a mount point", shown(&full));
        return Ok(());
    }
    let turn = lock(&full)?;
    if find_mount(&full).map_err(fail)?.is_some() {
        return Ok(());
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = rustix::fs::open(&full, flags, Mode::empty()).map_err(|e| fail(e.into()))?;
    let attributes = ioctl_getflags(&dir);
    if attributes.is_ok_and(|set| set.contains(IFlags::IMMUTABLE)) {
        return Ok(());
    }
    if std::fs::read_dir(&full).map_err(fail)?.next().is_some() {
        tracing::warn!(
            "the mount point {} is not empty: what is in it cannot be seen while the volume is mounted; move it away",
            shown(&full)
        );
    }
    fchown(&dir, Some(Uid::ROOT), Some(Gid::ROOT)).map_err(|e| fail(e.into()))?;
    fchmod(&dir, GUARDED).map_err(|e| fail(e.into()))?;
    if let Err(e) = attributes.and_then(|set| ioctl_setflags(&dir, set | IFlags::IMMUTABLE)) {
        tracing::warn!(
            "{} cannot be made immutable ({e}): root can write there while nothing is mounted",
            shown(&full)
        );
    }
    drop(turn);
    Ok(())
}

/// Held by whoever looks at a place in order to change what is mounted there.
pub struct Turn {
    _directory: Option<File>,
}

/// Waits until no other command mounts there. The lock is on the directory above, which is there and which mounts at the place
/// do not hide.
pub fn lock(mountpoint: &Path) -> Result<Turn> {
    let fail = |e| Failure::new(format!("mount point {}: {e}", shown(&mountpoint)));
    let full = absolute(mountpoint).map_err(fail)?;
    // One may be allowed to pass through a directory that one must not open.
    let Some(directory) = full.parent().and_then(|parent| File::open(parent).ok()) else {
        return Ok(Turn { _directory: None });
    };
    let since = Instant::now();
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if since.elapsed() < TURN => {
                std::thread::sleep(POLL);
            }
            Ok(()) => return Ok(Turn { _directory: Some(directory) }),
            // Some file systems have no locks, and somebody may hold this one for reasons of his own.
            Err(e) => {
                tracing::warn!("cannot lock {}: {e}", shown(&full.with_file_name("")));
                return Ok(Turn { _directory: None });
            }
        }
    }
}

/// Takes dead mounts away and returns the volume that is mounted there. Mounts of other kinds are not touched.
pub fn look(mountpoint: &Path, _turn: &Turn) -> Result<Option<Occupant>> {
    let full = absolute(mountpoint)?;
    while let Some(mount) = find_mount(&full)?.filter(is_volume) {
        let Some(config) = ask(&full)? else {
            tracing::info!("taking away the dead mount of {} at {}", mount.source, shown(&full));
            unmount(&full, true).map_err(|e| {
                Failure::new(format!(
                    "{}: the server of the mount of {} died, and it cannot be taken away: {e}",
                    shown(&full),
                    mount.source
                ))
            })?;
            continue;
        };
        let device = (mount.major, mount.minor);
        return Ok(Some(Occupant { at: full, source: mount.source, device, config }));
    }
    Ok(None)
}

/// What a mount tells about itself, or why it does not; `None` when nobody serves it any more.
fn ask(mountpoint: &Path) -> Result<Option<std::result::Result<Value, String>>> {
    let (tx, rx) = mpsc::channel();
    let path = mountpoint.to_owned();
    // A thread of its own, because there are no calls with a time limit.
    std::thread::Builder::new().name("probe".into()).spawn(move || _ = tx.send(ask_now(&path)))?;
    rx.recv_timeout(PATIENCE).map_err(|_| {
        Failure::new(format!(
            "{} is mounted, and whoever serves it does not answer: end that process, or run `umount -l {0}`",
            shown(&mountpoint)
        ))
    })
}

fn ask_now(mountpoint: &Path) -> Option<std::result::Result<Value, String>> {
    let is_dead = |e: &std::io::Error| e.raw_os_error() == Some(libc::ENOTCONN);
    if let Err(e) = std::fs::metadata(mountpoint) {
        return if is_dead(&e) { None } else { Some(Err(e.to_string())) };
    }
    let mut why = String::new();
    for name in CONFIGS {
        match ciderfs_bounded::read(mountpoint.join(name), ciderfs_bounded::CONFIG_MAX) {
            Ok(text) => return Some(serde_json::from_slice(&text).map_err(|e| format!("{name}: {e}"))),
            // It died meanwhile.
            Err(e) if is_dead(&e) => return None,
            Err(e) => why = format!("{name}: {e}"),
        }
    }
    Some(Err(why))
}

/// How a mount has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was unmounted, or something else is mounted there.
    Gone,
    /// It is there, and nobody serves it any more.
    Dead,
}

impl Occupant {
    /// Where it is mounted.
    pub fn place(&self) -> &Path {
        &self.at
    }

    /// Waits for its end. A server that does not answer is none.
    pub async fn end(&self) -> End {
        let mut probe: Option<tokio::task::JoinHandle<_>> = None;
        loop {
            tokio::time::sleep(LOOK).await;
            match find_mount(&self.at) {
                // The kernel gives numbers out again at once.
                Ok(Some(mount))
                    if (mount.major, mount.minor) != self.device || mount.source != self.source =>
                {
                    return End::Gone;
                }
                Ok(None) => return End::Gone,
                _ => {}
            }
            // It does not return while the server hangs.
            let path = self.at.clone();
            let looks = probe
                .get_or_insert_with(|| tokio::task::spawn_blocking(move || std::fs::symlink_metadata(path)));
            if looks.is_finished()
                && let Some(looked) = probe.take()
                && let Ok(Err(e)) = looked.await
                && e.raw_os_error() == Some(libc::ENOTCONN)
            {
                return End::Dead;
            }
        }
    }

    /// Says that the volume is mounted if it is the one that is wanted; else it is in the way.
    pub fn must_be(&self, settings: &Settings, subdir: Option<&str>) -> Result<String> {
        let at = shown(&self.at);
        let remedy = format!("unmount it first (`ciderfs umount {at}`) or choose another directory");
        let name = self.source.strip_prefix(SOURCE).unwrap_or(&self.source);
        if name != settings.name {
            return Err(Failure::new(format!("the volume {name} is mounted at {at}: {remedy}")));
        }
        let config = self.config.as_ref().map_err(|why| {
            Failure::new(format!(
                "a volume {name} is mounted at {at}, and it does not tell whether it is the same ({why}): {remedy}"
            ))
        })?;
        if config["Format"]["UUID"] != settings.uuid.as_str() {
            return Err(Failure::new(format!(
                "another volume with the name {name} is mounted at {at}: {remedy}"
            )));
        }
        let plain = |dir: &str| dir.trim_matches('/').to_owned();
        // Not every client tells.
        if let Some(there) = config["Meta"]["Subdir"].as_str().map(plain)
            && there != subdir.map(plain).unwrap_or_default()
        {
            return Err(Failure::new(format!(
                "the volume {name} is mounted at {at} with its directory /{there}: {remedy}"
            )));
        }
        Ok(format!("{name} is already mounted at \"{at}\""))
    }
}
