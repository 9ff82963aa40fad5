//! Where a supervisor gives copies to the driver, and what goes over those sockets: one message each way, bytes and descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ciderfs_format::shown;
use ciderfs_handover::link::check_peer;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, shutdown, socket_with,
};

use super::CLOSE;

/// Whoever is asked answers within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// And hangs up within this.
const LAST: Duration = Duration::from_secs(1);
/// Most who ask at a time.
const BACKLOG: i32 = 4;
/// More bytes than either side sends.
const LEN_MAX: usize = 256;
const FDS_MAX: usize = 4;
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
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match sendmsg(&self.0, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL)? {
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
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut text = vec![0; LEN_MAX];
        let got = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        let fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fds = fds.flatten().collect();
        text.truncate(got.bytes);
        Ok((text, fds))
    }
}

/// What is given there.
#[derive(Default)]
struct Given {
    copy: Option<(Vec<u8>, OwnedFd)>,
    released: bool,
}

/// The socket at which the driver asks for a copy, and says when there must be none here any more.
pub(super) struct Desk {
    given: Arc<Mutex<Given>>,
    path: PathBuf,
    /// By which ours is told from that of a later pod, whose process has the same number.
    inode: Option<u64>,
}

impl Desk {
    /// Without one the mount goes on all the same.
    pub fn open(path: PathBuf) -> Self {
        let given = Arc::<Mutex<Given>>::default();
        let inode = serve(&path, Arc::clone(&given));
        let inode = inode.inspect_err(|e| tracing::warn!("the driver cannot ask at {}: {e}", shown(&path)));
        Self { given, path, inode: inode.ok() }
    }

    fn given(&self) -> std::sync::MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, settings: &[u8], fuse: OwnedFd) {
        self.given().copy = Some((settings.to_vec(), fuse));
    }

    pub fn is_released(&self) -> bool {
        self.given().released
    }

    pub fn close(&self) {
        let there = std::fs::symlink_metadata(&self.path).ok().map(|m| m.ino());
        if self.inode.is_some() && there == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn serve(path: &Path, given: Arc<Mutex<Given>>) -> io::Result<u64> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let _ = std::fs::remove_file(path);
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE))?;
    listen(&socket, BACKLOG)?;
    let inode = std::fs::symlink_metadata(path)?.ino();
    std::thread::Builder::new().name("desk".into()).spawn(move || {
        while let Ok(from) = accept_with(&socket, SocketFlags::CLOEXEC) {
            if let Err(e) = answer(from, &given) {
                tracing::debug!("giving the driver a copy of the connection: {e}");
            }
        }
    })?;
    Ok(inode)
}

/// Gives a copy, and hears whether ours is still needed.
fn answer(from: OwnedFd, given: &Mutex<Given>) -> io::Result<()> {
    check_peer(&from)?;
    let wire = Wire::over(from)?;
    let copy = {
        let given = given.lock().unwrap_or_else(PoisonError::into_inner);
        given.copy.as_ref().map(|(settings, fuse)| Ok::<_, io::Error>((settings.clone(), fuse.try_clone()?)))
    };
    let copy = copy.transpose()?;
    let nothing = std::io::stdin();
    match &copy {
        Some((settings, fuse)) => wire.send(settings, &[nothing.as_fd(), fuse.as_fd()])?,
        None => wire.send(NOTHING, &[nothing.as_fd()])?,
    }
    let (said, _) = wire.receive()?;
    if said == CLOSE {
        tracing::info!("the driver wants another pod to go on with this mount");
        *given.lock().unwrap_or_else(PoisonError::into_inner) = Given { copy: None, released: true };
    }
    Ok(())
}
