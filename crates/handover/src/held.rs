//! Copies of what a supervisor holds (the connection with the kernel, the state, the requests that were begun), kept by others for the
//! day when it dies together with all of its processes. Whoever asks a [`Holder`] gets copies as a supervisor gives them.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    shutdown, socket_with,
};
use serde_json::json;

use crate::link::{BEGIN, CONTROL, Link, check_peer};

/// What begins a request for copies.
pub const HOLD: &str = "hold";
/// Who is asked answers within this, and who asks says so within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most who ask at a time.
const BACKLOG: i32 = 4;

/// Copies of what a supervisor holds.
#[derive(Debug)]
pub struct Held {
    text: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Held {
    /// Asks a supervisor, or somebody else who holds it. This waits for no mount.
    ///
    /// # Errors
    /// Nobody listens there, or he has nothing.
    pub fn from(socket: &Path) -> io::Result<Self> {
        let to = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&to, &SocketAddrUnix::new(socket)?)?;
        for way in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&to, way, Some(PATIENCE))?;
        }
        let link = Link::over(to);
        link.send(CONTROL, json!({ "do": HOLD }).to_string().as_bytes(), &[])?;
        let message = link.receive(true)?.ok_or(ErrorKind::UnexpectedEof)?;
        if message.kind != BEGIN || message.fds.len() != 3 {
            return Err(io::Error::other(format!("nothing is held there: {}", message.lossy())));
        }
        Ok(Self { text: message.text, fds: message.fds })
    }

    /// Number of the mount.
    pub fn device(&self) -> Option<(u32, u32)> {
        let text = self.text.split(|byte| *byte == 0).next()?;
        let (major, minor) = std::str::from_utf8(text).ok()?.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }
}

/// Gives copies of what is held to root and to the user of this process, until dropped.
#[derive(Debug)]
pub struct Holder {
    socket: Arc<OwnedFd>,
    path: PathBuf,
    device: Option<(u32, u32)>,
    thread: Option<JoinHandle<()>>,
}

impl Holder {
    /// Listens at a place; what a former one has left there is removed.
    ///
    /// # Errors
    /// Of the system.
    pub fn at(path: PathBuf, held: Held) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let socket = Arc::new(socket);
        let _ = std::fs::remove_file(&path);
        bind(&socket, &SocketAddrUnix::new(&path)?)?;
        listen(&socket, BACKLOG)?;
        let device = held.device();
        let listener = Arc::clone(&socket);
        let at = path.clone();
        let serve = move || {
            while let Ok(from) = accept_with(&listener, SocketFlags::CLOEXEC) {
                if let Err(e) = give(from, &held) {
                    tracing::warn!("giving what is held at {}: {e}", at.display());
                }
            }
        };
        let thread = std::thread::Builder::new().name("holder".into()).spawn(serve)?;
        Ok(Self { socket, path, device, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the mount.
    pub fn device(&self) -> Option<(u32, u32)> {
        self.device
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // Whoever accepts there wakes up.
        let _ = shutdown(&self.socket, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn give(to: OwnedFd, held: &Held) -> io::Result<()> {
    check_peer(&to)?;
    for way in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&to, way, Some(PATIENCE))?;
    }
    let link = Link::over(to);
    let asked = link.receive(true)?.ok_or(ErrorKind::UnexpectedEof)?;
    let asked: serde_json::Value = serde_json::from_slice(&asked.text)?;
    if asked["do"] != HOLD {
        let refused = json!({ "failed": "who holds a mount for others can only give it", "code": 1 });
        return link.send(CONTROL, refused.to_string().as_bytes(), &[]);
    }
    let fds: Vec<_> = held.fds.iter().map(|fd| fd.as_fd()).collect();
    link.send(BEGIN, &held.text, &fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_given_on() {
        let dir = tempfile::tempdir().unwrap();
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let held = Held { text: b"0:47\0/mnt\0ciderfs\0".to_vec(), fds: vec![file(), file(), file()] };
        let first = Holder::at(dir.path().join("a"), held).unwrap();
        assert_eq!(first.device(), Some((0, 47)));
        let second = Holder::at(dir.path().join("b"), Held::from(first.path()).unwrap()).unwrap();
        let at = first.path().to_owned();
        drop(first);
        assert!(Held::from(&at).is_err());
        let third = Held::from(second.path()).unwrap();
        assert_eq!((third.text, third.fds.len()), (b"0:47\0/mnt\0ciderfs\0".to_vec(), 3));
    }
}
