//! Descriptors that go over a socket with some bytes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Most descriptors at a time.
const FDS_MAX: usize = 4;

/// What came.
pub struct Received {
    /// How many bytes.
    pub bytes: usize,
    /// What the kernel says of them.
    pub flags: ReturnFlags,
    /// The descriptors; they are not given to programs that this process starts.
    pub fds: Vec<OwnedFd>,
}

/// Sends bytes with up to four descriptors. Tells how many bytes went.
///
/// # Errors
/// Of the system; `InvalidInput` for more descriptors.
pub fn send(to: impl AsFd, pieces: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        match sendmsg(&to, pieces, &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Receives what [`send`] has sent.
///
/// # Errors
/// Of the system.
pub fn receive(from: impl AsFd, pieces: &mut [IoSliceMut<'_>], flags: RecvFlags) -> Result<Received, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        match recvmsg(&from, pieces, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok(Received { bytes: got.bytes, flags: got.flags, fds: fds.flatten().collect() })
}
