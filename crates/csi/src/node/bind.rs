//! Targets: what is mounted at one, binding, taking away. Only mounts of ours are touched, only dead ones are taken from those who use
//! them, and the disk of the machine is never bound.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use ciderfs_fuse::mount::{MountInfo, absolute, find_mount};
use ciderfs_mounter::disposable::Failure;
use ciderfs_mounter::probe::{self, Bind, Seen};
use rustix::io::Errno;
use tonic::Status;

/// For each call on a mount.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Mounts on one target, one upon the other.
const DEPTH: usize = 64;
/// What the table of mounts says of those of a client.
const SOURCE: &str = "JuiceFS:";

/// What is at a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum There {
    /// Nothing is mounted.
    Nothing,
    /// What belongs there.
    Right,
    /// The same, but not as read-only as asked, or more.
    OtherMode,
    /// A mount of a client that has died.
    Dead,
    /// A mount of a client that does not answer.
    Hung,
    /// A mount of another client.
    OtherClient,
    /// Something that is not of ours.
    Foreign,
}

fn mounted(target: &Path) -> io::Result<Option<MountInfo>> {
    match absolute(target) {
        Ok(full) => find_mount(&full),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_ours(mount: &MountInfo) -> bool {
    mount.is_fuse() && mount.source.starts_with(SOURCE)
}

/// Looks.
///
/// # Errors
/// The table of mounts cannot be read.
pub fn look(target: &Path, device: Option<(u32, u32)>, read_only: bool) -> io::Result<There> {
    let Some(mount) = mounted(target)? else { return Ok(There::Nothing) };
    if !is_ours(&mount) {
        return Ok(There::Foreign);
    }
    Ok(match probe::look(target, PATIENCE) {
        Seen::Dead => There::Dead,
        Seen::Hung => There::Hung,
        _ if Some((mount.major, mount.minor)) != device => There::OtherClient,
        Seen::Alive { inode: probe::ROOT_INODE, .. } => {
            let is_read_only = mount.options.split(',').next() == Some("ro");
            if is_read_only == read_only { There::Right } else { There::OtherMode }
        }
        _ => There::OtherClient,
    })
}

/// Makes a target what it is to be. What is right stays; what is dead is replaced.
///
/// # Errors
/// What is in the way.
pub fn publish(source: &Path, device: (u32, u32), target: &Path, read_only: bool) -> Result<(), Status> {
    let shown = target.display();
    let internal = |e: io::Error| Status::internal(format!("{shown}: {e}"));
    let over_dead = match look(target, Some(device), read_only).map_err(internal)? {
        There::Right => return Ok(()),
        There::OtherMode => {
            let text = format!("the volume is at {shown} already, with another readonly");
            return Err(Status::already_exists(text));
        }
        There::Hung => return Err(Status::unavailable(format!("the volume at {shown} does not answer"))),
        There::OtherClient | There::Foreign => {
            let text = format!("something else is mounted at {shown}; unmount it");
            return Err(Status::failed_precondition(text));
        }
        There::Dead => true,
        There::Nothing => {
            make(target).map_err(internal)?;
            false
        }
    };
    let bind = Bind { source, device, directory: Path::new(""), target, read_only, over_dead };
    probe::bind(bind, PATIENCE).map_err(|e| {
        let binding = format!("binding the volume to {shown}");
        match e {
            Failure::Step(step, e) => Status::internal(format!("{binding}: {} ({e})", probe::step(step))),
            Failure::TimedOut => Status::deadline_exceeded(format!("{binding}: the client does not answer")),
            Failure::Lost(e) => Status::internal(format!("{binding}: {e}")),
        }
    })
}

/// Makes the directory of a target, if it is not there.
fn make(target: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o750).recursive(true).create(target)
}

/// The device of what is mounted at a target, without asking it.
pub fn device_at(target: &Path) -> Option<(u32, u32)> {
    let mount = mounted(target).ok().flatten()?;
    Some((mount.major, mount.minor))
}

/// Takes away what is mounted at a target. What is not there is taken away already; what is in use stays.
///
/// # Errors
/// What is in the way.
pub fn unmount(target: &Path) -> Result<(), Status> {
    let shown = target.display();
    for _ in 0..DEPTH {
        let mount = mounted(target).map_err(|e| Status::internal(format!("{shown}: {e}")))?;
        match mount {
            None => return Ok(()),
            Some(mount) if !is_ours(&mount) => {
                let text = format!(
                    "{shown}: {} ({}) is mounted there, which is none of ours",
                    mount.source, mount.fstype
                );
                return Err(Status::failed_precondition(text));
            }
            Some(_) => take(target)?,
        }
    }
    Err(Status::internal(format!("{shown}: too many mounts, one upon the other")))
}

/// Unmounts. One that is in use is left with its users only if it is dead.
fn take(target: &Path) -> Result<(), Status> {
    let shown = target.display();
    let mut done = probe::unmount(target, false, PATIENCE);
    // Somebody may just look at it: we do so ourselves.
    for _ in 0..10 {
        if !matches!(done, Err(Failure::Step(_, Errno::BUSY))) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        done = probe::unmount(target, false, PATIENCE);
    }
    if matches!(done, Err(Failure::Step(_, Errno::BUSY))) && probe::look(target, PATIENCE) == Seen::Dead {
        done = probe::unmount(target, true, PATIENCE);
    }
    match done {
        Ok(()) | Err(Failure::Step(_, Errno::INVAL | Errno::NOENT)) => Ok(()),
        Err(Failure::Step(_, Errno::BUSY)) => {
            Err(Status::failed_precondition(format!("{shown} is in use: a process has files of it open")))
        }
        Err(Failure::TimedOut) => Err(Status::deadline_exceeded(format!("unmounting {shown}: no answer"))),
        Err(e) => Err(Status::internal(format!("unmounting {shown}: {e}"))),
    }
}

/// Removes the directory of a target, if it is there; never with what is in it: that would be on the disk of this machine.
///
/// # Errors
/// What is in the way.
pub fn remove(target: &Path) -> Result<(), Status> {
    match std::fs::remove_dir(target) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Status::internal(format!(
            "{}: nothing is mounted there, and the directory cannot be removed: {e}",
            target.display()
        ))),
    }
}
