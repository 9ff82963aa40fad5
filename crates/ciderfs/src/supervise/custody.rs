//! Under the official CSI driver. Its node plugin keeps the connection of a mount for the pods that serve it one after the other: it
//! listens at `JFS_SUPER_COMM`, in a directory that all of them share, and takes one descriptor and about 120 bytes which it does not
//! look at. What else the next pod needs (`State`, `Begun`) is in files of that directory, whose names those bytes tell.

mod desk;
mod voucher;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ciderfs_format::shown;
use ciderfs_fuse::Negotiated;
use ciderfs_fuse::mount::{absolute, find_mount};
use ciderfs_handover::State;
use rustix::process::{Pid, Signal, kill_process};

use super::turn;
use crate::cli::args::Args;
use crate::cli::table::BUFFER_SIZE;
use crate::config;
use crate::failure::{Failure, Result};
use desk::{Desk, Wire};
use voucher::Voucher;

/// Where the driver listens.
const SOCKET: &str = "JFS_SUPER_COMM";
/// Says that the other side's copy is not needed any more.
const CLOSE: &[u8] = b"CLOSE";
/// The driver's node plugin may be away for a while; when it is back it asks by itself.
const TRIES: u32 = 60;
const AGAIN: Duration = Duration::from_secs(1);
/// The pod before this one has so long to leave the mount before it is ended, if it can be, and to be gone.
const LEAVE: Duration = Duration::from_secs(15);
const GONE: Duration = Duration::from_secs(50);

/// The socket of the driver, if one has started this process.
pub fn socket() -> Option<PathBuf> {
    std::env::var_os(SOCKET).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Where a supervisor gives its copy to whoever asks, as the driver reads it in `.config`.
pub fn comm_path(supervisor: u32) -> String {
    format!("/tmp/fuse_fd_comm.{supervisor}")
}

/// Where the official client leaves its handles; the driver tells the next pod.
pub fn state_path(supervisor: u32) -> String {
    format!("/tmp/state{supervisor}.json")
}

/// What a pod has of the one before it, or begins with.
pub struct Begun {
    /// The way to the driver.
    pub custody: Custody,
    /// See [`State`].
    pub state: OwnedFd,
    /// See [`ciderfs_mount::Begun`].
    pub begun: File,
    /// A mount that goes on, and its number.
    pub connection: Option<(OwnedFd, (u32, u32))>,
}

/// The way to the driver that keeps a copy.
pub struct Custody {
    socket: PathBuf,
    desk: Desk,
    voucher: Voucher,
    /// The driver has a copy.
    held: Arc<AtomicBool>,
}

impl Custody {
    /// Asks the driver for the mount of the pod before this one.
    pub fn begin(socket: PathBuf, args: &Args) -> Result<Begun> {
        let mountpoint = absolute(args.place(1)).unwrap_or_else(|_| args.place(1).to_owned());
        let scope = voucher::scope(&mountpoint, &config::subdir(args).unwrap_or_default());
        let mut fit = None;
        let taken = take(&socket, |settings| fit.insert(fits(settings, scope)).is_ok());
        let taken = taken.unwrap_or_else(|e| {
            tracing::warn!("the driver cannot be asked for the connection at {}: {e}", shown(&socket));
            None
        });
        if let Some(Err(why)) = fit {
            tracing::warn!("the mount of the pod before this one does not go on: {why}; it is made anew");
        }
        if let (Some((settings, fuse)), Some(Ok(voucher))) = (taken, fit) {
            match resumed(&socket, &voucher, &mountpoint) {
                Ok((state, begun)) => {
                    let custody = Self::new(socket, voucher);
                    // From now on again, and with what it was given before: the driver has no copy since it was asked.
                    custody.give(&settings, &fuse)?;
                    turn_of(&begun)?;
                    let device = custody.voucher.device;
                    return Ok(Begun { custody, state, begun, connection: Some((fuse, device)) });
                }
                Err(e) => {
                    tracing::warn!(
                        "the mount of the pod before this one does not go on: {e}; it is made anew"
                    );
                }
            }
        }
        let directory = socket.parent().unwrap_or(Path::new("/tmp")).to_owned();
        tidy(&directory);
        let mut voucher = Voucher { token: rand(), device: (0, 0), scope };
        let files = voucher.files(&directory);
        let (state, begun) = match create(&files, args.get(BUFFER_SIZE)) {
            Ok(made) => made,
            Err(e) => {
                tracing::warn!("{}: {e}: the mount will not outlive this pod", shown(&directory));
                // Nobody finds that one.
                voucher.token = 0;
                let state = State::create("ciderfs-state", args.get(BUFFER_SIZE))?;
                let begun = rustix::fs::memfd_create("ciderfs-begun", rustix::fs::MemfdFlags::CLOEXEC)?;
                (state.fd().try_clone_to_owned()?, File::from(begun))
            }
        };
        Ok(Begun { custody: Self::new(socket, voucher), state, begun, connection: None })
    }

    fn new(socket: PathBuf, voucher: Voucher) -> Self {
        let held = Arc::<AtomicBool>::default();
        let desk = Desk::open(PathBuf::from(comm_path(std::process::id())), Arc::clone(&held));
        Self { socket, desk, voucher, held }
    }

    /// Gives the driver a copy of the connection of a new mount.
    pub fn hold(&mut self, fuse: &OwnedFd, device: Option<(u32, u32)>, state: &OwnedFd) -> io::Result<()> {
        self.voucher.device = device.unwrap_or_default();
        let negotiated = State::from_fd(state.try_clone()?)?.negotiated();
        let negotiated = Negotiated::from_bytes(&negotiated).ok_or(ErrorKind::InvalidData)?;
        self.give(&self.voucher.settings(&negotiated), fuse)
    }

    fn give(&self, settings: &[u8], fuse: &OwnedFd) -> io::Result<()> {
        self.desk.put(settings, fuse.try_clone()?);
        let (socket, settings, fuse) = (self.socket.clone(), settings.to_vec(), fuse.try_clone()?);
        let held = Arc::clone(&self.held);
        // It may have to wait for the driver.
        std::thread::Builder::new().name("custody".into()).spawn(move || {
            for n in 0..TRIES {
                if held.load(Ordering::Acquire) {
                    // It has fetched one.
                    return;
                }
                match give(&socket, &settings, fuse.as_fd()) {
                    Ok(()) => return held.store(true, Ordering::Release),
                    Err(e) if n == 0 => tracing::warn!(
                        "the driver does not take the connection at {}: {e}; it is asked again",
                        shown(&socket)
                    ),
                    Err(_) => {}
                }
                std::thread::sleep(AGAIN);
            }
        })?;
        Ok(())
    }

    /// Whether it is known which mount this is about.
    pub fn has_mount(&self) -> bool {
        self.voucher.device != (0, 0)
    }

    /// Whether the mount goes on without this pod.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire) && self.voucher.token != 0
    }

    /// Whether the driver has told this pod to have no copy: another pod goes on.
    pub fn is_released(&self) -> bool {
        self.desk.is_released()
    }

    /// The worker leaves the mount. If the driver has wanted that, it is for good.
    pub fn leaves(&self) {
        self.desk.leaves();
    }

    /// The mount is over: nobody goes on with it.
    pub fn end(&self) {
        if self.held.load(Ordering::Acquire) {
            // The driver may have that of another pod by now.
            let is_ours = |settings: &[u8]| match Voucher::read(settings) {
                Some(theirs) => (theirs.token, theirs.device) == (self.voucher.token, self.voucher.device),
                None => self.voucher.token == 0,
            };
            let _ = take(&self.socket, is_ours);
        }
        if let Some(directory) = self.socket.parent().filter(|_| self.voucher.token != 0) {
            for file in self.voucher.files(directory) {
                let _ = std::fs::remove_file(file);
            }
        }
        self.desk.close();
    }
}

/// What the driver has, if it is what is wanted; the driver has no copy of it then. It has none since it was asked, so anything else is
/// given back.
fn take(socket: &Path, is_wanted: impl FnOnce(&[u8]) -> bool) -> io::Result<Option<(Vec<u8>, OwnedFd)>> {
    let wire = Wire::to(socket)?;
    let (settings, fds) = wire.receive()?;
    // The first one stands for nothing.
    let Some(fuse) = fds.into_iter().nth(1) else { return Ok(None) };
    let is_wanted = is_wanted(&settings);
    if is_wanted {
        wire.send(CLOSE, &[std::io::stdin().as_fd()])?;
    } else {
        wire.send(&settings, &[fuse.as_fd()])?;
    }
    wire.end();
    Ok(is_wanted.then_some((settings, fuse)))
}

/// Gives it a copy, in place of what it has.
fn give(socket: &Path, settings: &[u8], fuse: BorrowedFd<'_>) -> io::Result<()> {
    let wire = Wire::to(socket)?;
    drop(wire.receive()?);
    wire.send(settings, &[fuse])?;
    wire.end();
    Ok(())
}

/// What a pod with that scope can go on with.
fn fits(settings: &[u8], scope: u64) -> std::result::Result<Voucher, &'static str> {
    let voucher = Voucher::read(settings).ok_or("another client has made it")?;
    if voucher.scope != scope {
        return Err("it has another mount point or directory of the volume");
    }
    Ok(voucher)
}

/// What the pod before this one has left.
fn resumed(socket: &Path, voucher: &Voucher, mountpoint: &Path) -> Result<(OwnedFd, File)> {
    let fail = |why: &str| Err(Failure::new(why));
    let there = find_mount(mountpoint)?;
    if there.is_none_or(|m| (m.major, m.minor) != voucher.device) {
        return fail("it is not mounted any more");
    }
    let files = voucher.files(socket.parent().unwrap_or(Path::new("/")));
    let open =
        |path: &Path| OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let state = State::from_fd(open(&files[0])?.into())?;
    if Negotiated::from_bytes(&state.negotiated()).is_none() {
        return fail("what was agreed with the kernel cannot be read");
    }
    Ok((state.fd().try_clone_to_owned()?, open(&files[1])?))
}

/// Files for what is left to the next pod.
fn create(files: &[PathBuf; 2], log_bytes: u64) -> io::Result<(OwnedFd, File)> {
    let state = State::create_at(&files[0], log_bytes)?.fd().try_clone_to_owned()?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let begun = options.open(&files[1]).inspect_err(|_| _ = std::fs::remove_file(&files[0]))?;
    Ok((state, begun))
}

/// Removes what pods have left that have ended without a successor.
fn tidy(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(token) = name.to_str().and_then(voucher::token_of) else { continue };
        let files = Voucher { token, device: (0, 0), scope: 0 }.files(directory);
        let is_used = File::options().read(true).write(true).open(&files[1]);
        if is_used.is_ok_and(|begun| !matches!(turn::holder(&begun), Ok(None))) {
            continue;
        }
        for file in files {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Waits until nobody serves the mount: the pod before this one may just be leaving it.
fn turn_of(begun: &File) -> Result<()> {
    let since = Instant::now();
    loop {
        let holder = turn::holder(begun);
        match &holder {
            Ok(None) => return Ok(()),
            Ok(Some(pid)) if since.elapsed() > LEAVE => {
                if let Some(pid) = Pid::from_raw(*pid) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            _ => {}
        }
        if since.elapsed() > GONE {
            return Err(Failure::new("the pod before this one still serves the mount: delete it"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn rand() -> u64 {
    let bytes = *uuid::Uuid::new_v4().as_bytes();
    bytes.first_chunk().map_or(1, |b| u64::from_le_bytes(*b)).max(1)
}
