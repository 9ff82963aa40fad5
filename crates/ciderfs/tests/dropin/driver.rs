//! The official driver's node plugin, as far as it keeps connections: a server that gives what it has to whoever connects, and keeps what
//! is answered. One message each way, of at most so many bytes and descriptors as the driver reads.

use std::fs;
use std::io::{IoSlice, IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::support::client::wait_for;

pub const CLOSE: &[u8] = b"CLOSE";
/// Most bytes that it takes.
const LEN_MAX: usize = 120;

struct Kept {
    settings: Vec<u8>,
    fuse: Option<OwnedFd>,
}

impl Kept {
    fn nothing() -> Self {
        Self { settings: b"FUSE".to_vec(), fuse: None }
    }
}

pub struct Driver {
    path: PathBuf,
    kept: Arc<Mutex<Kept>>,
}

impl Driver {
    /// One that is away as yet.
    pub fn at(path: PathBuf) -> Self {
        Self { path, kept: Arc::new(Mutex::new(Kept::nothing())) }
    }

    pub fn listen(&self) {
        let (listener, kept) = (UnixListener::bind(&self.path).unwrap(), Arc::clone(&self.kept));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, kept) = (stream.unwrap(), Arc::clone(&kept));
                std::thread::spawn(move || serve(&stream, &kept));
            }
        });
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it keeps, and what the descriptor is of.
    pub fn kept(&self) -> Option<(Vec<u8>, String)> {
        let kept = self.kept.lock().unwrap();
        let fd = kept.fuse.as_ref()?.as_raw_fd();
        let of = fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        Some((kept.settings.clone(), of.to_str().unwrap().to_owned()))
    }

    #[track_caller]
    pub fn await_copy(&self) {
        wait_for("the pod to give a copy", || self.kept().is_some_and(|(_, of)| of == "/dev/fuse"));
    }

    pub fn keep(&self, settings: Vec<u8>, fuse: OwnedFd) {
        *self.kept.lock().unwrap() = Kept { settings, fuse: Some(fuse) };
    }

    /// It was restarted.
    pub fn forget(&self) {
        *self.kept.lock().unwrap() = Kept::nothing();
    }

    /// Asks a pod for what it has, which the pod keeps as well.
    pub fn fetch(&self, comm: &Path) {
        let stream = UnixStream::connect(comm).unwrap();
        let (settings, mut fds) = receive(&stream, 2);
        assert_eq!(fds.len(), 2);
        send(&stream, &settings, &[fds[1].as_fd()]);
        await_end(&stream);
        self.keep(settings, fds.pop().unwrap());
    }
}

/// Asks a pod for what it has, and answers something: what it had, and how many descriptors came.
pub fn ask(comm: &Path, answer: &[u8]) -> (Vec<u8>, usize) {
    let stream = UnixStream::connect(comm).unwrap();
    let (settings, fds) = receive(&stream, 2);
    send(&stream, answer, &[std::io::stdin().as_fd()]);
    await_end(&stream);
    (settings, fds.len())
}

/// Until what was sent was read.
fn await_end(mut stream: &UnixStream) {
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
}

/// Others may connect between what it sends and what it is answered.
fn serve(stream: &UnixStream, shared: &Mutex<Kept>) {
    let mut kept = shared.lock().unwrap();
    let given = kept.fuse.take();
    let nothing = std::io::stdin();
    let fds: Vec<_> = [nothing.as_fd()].into_iter().chain(given.as_ref().map(|fd| fd.as_fd())).collect();
    send(stream, &kept.settings, &fds);
    drop(given);
    drop(kept);
    let (said, mut fds) = receive(stream, 1);
    let mut kept = shared.lock().unwrap();
    if kept.fuse.is_none() && !said.is_empty() && said != CLOSE && !fds.is_empty() {
        *kept = Kept { settings: said, fuse: fds.pop() };
    }
}

fn send(stream: &UnixStream, text: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    assert_eq!(
        sendmsg(stream, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL).unwrap(),
        text.len()
    );
}

fn receive(stream: &UnixStream, fds: usize) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let len = if fds == 1 { rustix::cmsg_space!(ScmRights(1)) } else { space.len() };
    let mut control = RecvAncillaryBuffer::new(&mut space[..len]);
    let mut text = vec![0; LEN_MAX];
    let got =
        recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    text.truncate(got.bytes);
    let found = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    (text, found.flatten().collect())
}
