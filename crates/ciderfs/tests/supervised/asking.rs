//! What others ask a supervisor, spoken by hand.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType, accept, bind, connect, listen, recvmsg,
    sendmsg, socket,
};

/// The socket of the supervisor of a mount, found as the documentation says.
fn socket_of(mount: &Path) -> PathBuf {
    let dev = std::fs::metadata(mount).unwrap().dev();
    PathBuf::from(format!("/run/ciderfs/{}-{}.sock", rustix::fs::major(dev), rustix::fs::minor(dev)))
}

fn receive(from: &OwnedFd) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; 128 << 10];
    let got =
        recvmsg(from, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    text.truncate(got.bytes);
    let fds = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    (text, fds.flatten().collect())
}

fn ask(mount: &Path, what: &str) -> (Vec<u8>, Vec<OwnedFd>) {
    try_ask(mount, what).unwrap()
}

/// Nothing as long as nobody listens there.
fn try_ask(mount: &Path, what: &str) -> Option<(Vec<u8>, Vec<OwnedFd>)> {
    let to = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    connect(&to, &SocketAddrUnix::new(socket_of(mount)).unwrap()).ok()?;
    rustix::io::write(&to, format!("C{{\"do\":\"{what}\"}}").as_bytes()).unwrap();
    Some(receive(&to))
}

/// Is there a supervisor whose worker serves? A mount is seen before its supervisor knows of it.
pub fn is_serving(mount: &Path) -> bool {
    let said = try_ask(mount, "status");
    said.is_some_and(|(text, _)| {
        serde_json::from_slice::<serde_json::Value>(&text[1..]).unwrap()["serving"] == true
    })
}

/// What the supervisor says of its worker.
pub fn status(mount: &Path) -> serde_json::Value {
    serde_json::from_slice(&ask(mount, "status").0[1..]).unwrap()
}

/// Somebody who holds what a supervisor holds, and gives it to the next one that asks.
pub struct Holder(PathBuf);

impl Holder {
    /// Of a mount, listening at a place.
    pub fn of(mount: &Path, at: &Path) -> Self {
        let (text, fds) = ask(mount, "hold");
        assert_eq!((text[0], fds.len()), (b'B', 3));
        let listener = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        bind(&listener, &SocketAddrUnix::new(at).unwrap()).unwrap();
        listen(&listener, 1).unwrap();
        std::thread::spawn(move || {
            while let Ok(to) = accept(&listener) {
                receive(&to);
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
                assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
                sendmsg(&to, &[IoSlice::new(&text)], &mut control, SendFlags::empty()).unwrap();
            }
        });
        Self(at.to_owned())
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.0
    }
}
