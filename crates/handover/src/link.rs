//! Messages between the supervisor, its worker and who asks it for something: packets with a kind, a text, and descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, ReturnFlags, SocketFlags, SocketType, socketpair};

use crate::descriptors;

/// Longest message.
const LEN_MAX: usize = 128 << 10;

/// A message.
#[derive(Debug)]
pub struct Message {
    /// What it is about.
    pub kind: u8,
    /// The rest.
    pub text: Vec<u8>,
    /// Descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

impl Message {
    /// The text, where it is one.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }
}

/// One end of a socket that keeps messages apart.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// Both ends.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), theirs))
    }

    /// Over an end.
    pub fn over(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The other end is gone; the text is longer than 128 KiB.
    pub fn send(&self, kind: u8, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if text.len() >= LEN_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the command line is too long"));
        }
        let pieces = [IoSlice::new(std::slice::from_ref(&kind)), IoSlice::new(text)];
        descriptors::send(&self.0, &pieces, fds)?;
        Ok(())
    }

    /// The same, and waits no longer than this.
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn receive_within(&self, limit: Duration) -> io::Result<Option<Message>> {
        let until = Instant::now() + limit;
        loop {
            let left = Timespec::try_from(until.saturating_duration_since(Instant::now()));
            let left = left.map_err(|_| io::ErrorKind::InvalidInput)?;
            match poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
                Ok(_) => match self.receive(false) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other,
                },
            }
        }
    }

    /// Waits for a message; `None` when the other end is gone.
    ///
    /// # Errors
    /// `WouldBlock` with `wait` unset and nothing there.
    pub fn receive(&self, wait: bool) -> io::Result<Option<Message>> {
        let (mut kind, mut text) = ([0], vec![0; LEN_MAX]);
        let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let pieces = &mut [IoSliceMut::new(&mut kind), IoSliceMut::new(&mut text)];
        let got = match descriptors::receive(&self.0, pieces, flags) {
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => other?,
        };
        let Some(len) = got.bytes.checked_sub(1) else { return Ok(None) };
        if got.flags.contains(ReturnFlags::TRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        text.truncate(len);
        text.shrink_to_fit();
        Ok(Some(Message { kind: kind[0], text, fds: got.fds }))
    }
}

/// The user at the other end of a socket. His process may be one of another container, which has no number here.
///
/// # Errors
/// Of the system.
#[allow(unsafe_code, reason = "rustix has no answer for a process without a number")]
pub fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes no more than `len` bytes of numbers.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    if rc == 0 { Ok(peer.uid) } else { Err(io::Error::last_os_error()) }
}

/// May a user at the other end of a socket ask this process? Root, and its own user.
///
/// # Errors
/// He may not, or of the system.
pub fn check_peer(socket: impl AsFd) -> io::Result<()> {
    let uid = peer_uid(socket)?;
    if uid == 0 || uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {uid} may not ask here")))
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the supervisor tells its worker: the mount, its command line, and (state, requests, connection if there is one).
pub const BEGIN: u8 = b'B';
/// To the worker: leave the mount to another one.
pub const HAND_OVER: u8 = b'U';
/// To the worker: unmount and end.
pub const STOP: u8 = b'S';
/// The worker has mounted; with the connection.
pub const MOUNTED: u8 = b'M';
/// It serves.
pub const READY: u8 = b'R';
/// It has failed, for a reason.
pub const FAILED: u8 = b'F';
/// For the service manager.
pub const NOTIFY: u8 = b'N';
/// It leaves the mount, as somebody else has asked it to.
pub const LEAVING: u8 = b'L';
/// It has brought the mount to its end.
pub const ENDED: u8 = b'E';
/// To and from who asks the supervisor.
pub const CONTROL: u8 = b'C';

/// Fields, each ended by a zero byte.
pub fn fields<'a>(all: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    all.into_iter().flat_map(|field| [field, &[0]].concat()).collect()
}

/// What [`fields`] has joined.
pub fn split(text: &[u8]) -> Vec<&[u8]> {
    let mut all: Vec<&[u8]> = text.split(|b| *b == 0).collect();
    all.pop();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_descriptors() {
        let (a, b) = Link::pair().unwrap();
        let b = Link::over(b);
        let file = tempfile::tempfile().unwrap();
        a.send(b'x', b"", &[]).unwrap();
        a.send(b'y', &[7; 100_000], &[file.as_fd(), file.as_fd()]).unwrap();
        assert!(a.send(b'y', &[7; LEN_MAX], &[]).is_err());
        let first = b.receive(true).unwrap().unwrap();
        assert_eq!((first.kind, first.text.len(), first.fds.len()), (b'x', 0, 0));
        let second = b.receive(true).unwrap().unwrap();
        assert_eq!((second.kind, second.text.len(), second.fds.len()), (b'y', 100_000, 2));
        assert_eq!(b.receive(false).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(a);
        assert!(b.receive(true).unwrap().is_none());
        assert!(b.send(b'z', b"", &[]).is_err());
    }

    #[test]
    fn fields_come_back() {
        let all = [&b"a"[..], b"", b"b c"];
        assert_eq!(split(&fields(all)), all);
        assert_eq!(split(&fields([])), [&b""[..]; 0]);
    }
}
