//! Where a supervisor gives copies to the driver, and what goes over those sockets: one message each way, bytes and descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ciderfs_format::shown;
use ciderfs_handover::descriptors;
use ciderfs_handover::link::check_peer;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, shutdown, socket_with,
};

use super::CLOSE;

/// Whoever is asked answers within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// And hangs up within this.
const LAST: Duration = Duration::from_secs(1);
/// Most who ask at a time.
const BACKLOG: i32 = 4;
/// An upgrade that was not carried out within this, after the driver has said that it begins, does not come any more.
const RELEASED: Duration = Duration::from_secs(60);
/// Pause after what can be wrong for a while only, as with too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// More bytes than either side sends.
const LEN_MAX: usize = 256;
/// What is told before there is a mount.
const NOTHING: &[u8] = b"FUSE";
/// Mode of the socket, as the official client has it. Who may ask is looked at when he does.
const MODE: u32 = 0o777;

/// A socket to the driver.
pub(super) struct Wire(OwnedFd);

impl Wire {
    pub fn to(path: &Path) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Self::over(socket)
    }

    fn over(socket: OwnedFd) -> io::Result<Self> {
        for way in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&socket, way, Some(PATIENCE))?;
        }
        Ok(Self(socket))
    }

    pub fn send(&self, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        match descriptors::send(&self.0, &[IoSlice::new(text)], fds)? {
            sent if sent == text.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// Nothing more is said. Whoever listens has read it when he hangs up: then what was sent counts.
    pub fn end(self) {
        let _ = shutdown(&self.0, Shutdown::Write);
        let _ = set_socket_timeout(&self.0, Timeout::Recv, Some(LAST));
        let _ = self.receive();
    }

    pub fn receive(&self) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut text = vec![0; LEN_MAX];
        let got = descriptors::receive(&self.0, &mut [IoSliceMut::new(&mut text)], RecvFlags::empty())?;
        text.truncate(got.bytes);
        Ok((text, got.fds))
    }
}

/// What is given there.
#[derive(Default)]
struct Given {
    copy: Option<(Vec<u8>, OwnedFd)>,
    /// Since when another pod is to go on.
    released: Option<Instant>,
    /// The worker has left the mount for that.
    left: bool,
}

impl Given {
    fn is_released(&self) -> bool {
        self.left || self.released.is_some_and(|since| since.elapsed() < RELEASED)
    }

    fn copy(&self) -> io::Result<Option<(Vec<u8>, OwnedFd)>> {
        let copy = self.copy.as_ref().filter(|_| !self.is_released());
        copy.map(|(settings, fuse)| Ok((settings.clone(), fuse.try_clone()?))).transpose()
    }
}

fn lock(given: &Mutex<Given>) -> MutexGuard<'_, Given> {
    given.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The socket at which the driver asks for a copy, and says when there must be none here any more.
pub(super) struct Desk {
    given: Arc<Mutex<Given>>,
    path: PathBuf,
    /// By which ours is told from that of a later pod, whose process has the same number.
    inode: Option<u64>,
}

impl Desk {
    /// Without one the mount goes on all the same. What is `held` is told once the driver has fetched a copy that it keeps.
    pub fn open(path: PathBuf, held: Arc<AtomicBool>) -> Self {
        let given = Arc::<Mutex<Given>>::default();
        let inode = serve(&path, Arc::clone(&given), held);
        let inode = inode.inspect_err(|e| tracing::warn!("the driver cannot ask at {}: {e}", shown(&path)));
        Self { given, path, inode: inode.ok() }
    }

    pub fn put(&self, settings: &[u8], fuse: OwnedFd) {
        lock(&self.given).copy = Some((settings.to_vec(), fuse));
    }

    pub fn is_released(&self) -> bool {
        lock(&self.given).is_released()
    }

    /// The worker leaves: what the driver has begun is carried out.
    pub fn leaves(&self) {
        let mut given = lock(&self.given);
        given.left = given.is_released();
    }

    pub fn close(&self) {
        let there = std::fs::symlink_metadata(&self.path).ok().map(|m| m.ino());
        if self.inode.is_some() && there == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn serve(path: &Path, given: Arc<Mutex<Given>>, held: Arc<AtomicBool>) -> io::Result<u64> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let _ = std::fs::remove_file(path);
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    listen(&socket, BACKLOG)?;
    let inode = std::fs::symlink_metadata(path)?.ino();
    std::thread::Builder::new().name("desk".into()).spawn(move || {
        loop {
            let answered = match accept_with(&socket, SocketFlags::CLOEXEC) {
                Ok(from) => answer(from, &given, &held),
                Err(e) => {
                    std::thread::sleep(PAUSE);
                    Err(e.into())
                }
            };
            if let Err(e) = answered {
                tracing::debug!("giving the driver a copy of the connection: {e}");
            }
        }
    })?;
    Ok(inode)
}

/// Gives a copy, and hears whether ours is still needed.
fn answer(from: OwnedFd, given: &Mutex<Given>, held: &AtomicBool) -> io::Result<()> {
    check_peer(&from)?;
    let wire = Wire::over(from)?;
    let copy = lock(given).copy()?;
    let nothing = std::io::stdin();
    match &copy {
        Some((settings, fuse)) => wire.send(settings, &[nothing.as_fd(), fuse.as_fd()])?,
        None => wire.send(NOTHING, &[nothing.as_fd()])?,
    }
    let (said, _) = wire.receive()?;
    if said == CLOSE {
        tracing::info!("the driver wants another pod to go on with this mount");
        lock(given).released = Some(Instant::now());
    } else if copy.is_some() && !said.is_empty() {
        // A driver that was away when the mount was made: it has one now.
        held.store(true, Ordering::Release);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many descriptors are given to one who answers that.
    fn ask(path: &Path, answer: &[u8]) -> usize {
        let wire = Wire::to(path).unwrap();
        let (_, fds) = wire.receive().unwrap();
        wire.send(answer, &[std::io::stdin().as_fd()]).unwrap();
        wire.end();
        fds.len()
    }

    #[test]
    fn an_upgrade_that_does_not_come_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("comm");
        let held = Arc::<AtomicBool>::default();
        let desk = Desk::open(path.clone(), Arc::clone(&held));
        assert_eq!(ask(&path, b"what it has"), 1);
        assert!(!held.load(Ordering::Acquire));
        desk.put(b"settings", std::fs::File::open("/dev/null").unwrap().into());
        assert_eq!(ask(&path, CLOSE), 2);
        assert_eq!((ask(&path, CLOSE), desk.is_released()), (1, true));
        assert!(!held.load(Ordering::Acquire));
        let earlier = || Instant::now().checked_sub(RELEASED).unwrap();
        lock(&desk.given).released = Some(earlier());
        assert_eq!((ask(&path, b"settings"), desk.is_released()), (2, false));
        assert!(held.load(Ordering::Acquire));
        // The worker takes as long as it needs.
        assert_eq!(ask(&path, CLOSE), 2);
        desk.leaves();
        lock(&desk.given).released = Some(earlier());
        assert_eq!((ask(&path, CLOSE), desk.is_released()), (1, true));
        desk.close();
        assert!(!path.exists());
    }
}
