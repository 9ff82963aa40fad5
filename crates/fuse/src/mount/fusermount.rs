//! Mounting without root, with the set-user-id program `fusermount3`.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::{MountError, MountOptions};

/// Name of the program, found on the search path.
const PROGRAM: &str = "fusermount3";

pub(super) fn is_installed() -> bool {
    let version = Command::new(PROGRAM).arg("--version").stdin(Stdio::null()).output();
    version.is_ok_and(|out| out.status.success())
}

pub(super) fn mount(mountpoint: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let (ours, theirs) = UnixStream::pair().map_err(|source| MountError::io(mountpoint, source))?;
    let mut command = Command::new(PROGRAM);
    // Its end of the socket travels as standard input, so no descriptor has to be inheritable here.
    command.arg("-o").arg(options.for_fusermount()?).arg("--").arg(mountpoint);
    command.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(theirs));
    let out = run(command)?;
    if !out.status.success() {
        return Err(failed(mountpoint, &out));
    }
    receive_fd(&ours)
        .map_err(|source| MountError::io(mountpoint, source))?
        .ok_or_else(|| MountError::Fusermount { message: "it sent no descriptor".into() })
}

pub(super) fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), MountError> {
    let mut command = Command::new(PROGRAM);
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    command.arg("--").arg(mountpoint).stdin(Stdio::null());
    let out = run(command)?;
    if out.status.success() { Ok(()) } else { Err(failed(mountpoint, &out)) }
}

fn run(mut command: Command) -> Result<Output, MountError> {
    // The command, and with it our copy of the far end of the socket, is dropped at the end of this function.
    command.stdout(Stdio::null()).stderr(Stdio::piped()).output().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => MountError::NoFusermount,
        _ => MountError::Fusermount { message: source.to_string() },
    })
}

fn failed(mountpoint: &Path, out: &Output) -> MountError {
    let text = String::from_utf8_lossy(&out.stderr);
    let message =
        text.trim().trim_start_matches("fusermount3: ").trim_start_matches("fusermount: ").to_owned();
    let mountpoint = mountpoint.to_path_buf();
    if message.contains("not found in /etc/mtab") || message.contains("Invalid argument") {
        return MountError::NotMounted { mountpoint };
    }
    if message.contains("Device or resource busy") {
        return MountError::Busy { mountpoint, by: "files are in use".into() };
    }
    if message.contains("not connected") {
        return MountError::Broken { mountpoint };
    }
    if message.is_empty() {
        return MountError::Fusermount { message: out.status.to_string() };
    }
    MountError::Fusermount { message }
}

fn receive_fd(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(fd)
}
