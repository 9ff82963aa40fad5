//! How others ask a supervisor for something: a socket for root and the user of the mount.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use ciderfs_handover::link::{self, Link, Message};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use serde_json::Value;

/// Most who ask at a time.
const BACKLOG: i32 = 8;

/// A socket that is listened on; removed when dropped.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// At a place where nothing is.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        listen(&socket, BACKLOG)?;
        Ok(Self { socket, path })
    }

    /// The next who asks, if he may.
    pub fn accept(&self) -> Option<Link> {
        let socket = accept_with(&self.socket, SocketFlags::CLOEXEC).ok()?;
        if let Err(e) = link::check_peer(&socket) {
            tracing::warn!("the supervisor of this mount: {e}");
            return None;
        }
        Some(Link::over(socket))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What somebody wants, and the descriptors that came with it.
#[derive(Debug)]
pub struct Asked {
    /// The request.
    pub what: Value,
    /// See [`Message::fds`].
    pub fds: Vec<OwnedFd>,
}

impl Asked {
    /// Of a message.
    pub fn of(message: Message) -> Self {
        Self { what: serde_json::from_slice(&message.text).unwrap_or_default(), fds: message.fds }
    }
}

/// Asks the supervisor that listens at a place. Answers come over the link.
///
/// # Errors
/// Nobody listens there.
pub fn ask(path: &Path, what: &Value, fds: &[BorrowedFd<'_>]) -> io::Result<Link> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let link = Link::over(socket);
    link.send(link::CONTROL, what.to_string().as_bytes(), fds)?;
    Ok(link)
}

/// Says something to who has asked. He may be gone.
pub fn say(to: &Link, what: &Value) {
    let _ = to.send(link::CONTROL, what.to_string().as_bytes(), &[]);
}
