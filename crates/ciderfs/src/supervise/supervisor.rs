//! The process that stays.

mod asking;
mod ending;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use ciderfs_format::shown;
use ciderfs_handover::State;
use ciderfs_handover::link::{self, Link, Message};
use ciderfs_mounter::init;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::json;

use super::control::Listener;
use super::custody::{self, Custody};
use super::program::Program;
use super::signals::Signals;
use super::upgrade::{LEAVE, Stage, Upgrade};
use super::{HOLD, ask, turn, worker};
use crate::cli::args::Args;
use crate::cli::secrets::PASSWORD_FILE;
use crate::cli::table::{BUFFER_SIZE, RESTART_LIMIT, RESUME_FROM};
use crate::failure::{Failure, Result};
use crate::service::manager;
use crate::{daemon, descriptors, log, visible};

/// For how long ends of workers count together.
const WINDOW: Duration = Duration::from_secs(60);
/// A worker that has served so long was not killed by what waited for it.
const SOUND: Duration = Duration::from_millis(500);
/// Looks at the time while something is to happen by then.
const TICK: Duration = Duration::from_millis(500);
/// Whoever holds a mount has this long to give it.
const ANSWER: Duration = Duration::from_secs(30);
/// A worker that a dead supervisor has left has this long to disappear.
const ORPHAN: Duration = Duration::from_secs(10);

/// A worker.
struct Running {
    child: Child,
    process: OwnedFd,
    link: Link,
    /// Since when it serves.
    ready: Option<Instant>,
}

/// See the module.
pub(super) struct Supervisor {
    argv: Vec<OsString>,
    mountpoint: PathBuf,
    log: Option<PathBuf>,
    pub program: Program,
    state: OwnedFd,
    begun: File,
    fuse: Option<OwnedFd>,
    device: Option<(u32, u32)>,
    worker: Option<Running>,
    /// When another worker is to be started.
    start_at: Option<Instant>,
    /// When workers have ended, since one has served for a while.
    ends: Vec<Instant>,
    /// Since when nobody serves.
    unserved: Option<Instant>,
    /// How long that may go on.
    limit: Duration,
    starts: u64,
    /// Some worker has served.
    served: bool,
    /// Signals that ask for the end.
    stops: u32,
    /// The container ends: the worker stores what it can, and others go on with the mount. Until when that may take.
    leaving: Option<Instant>,
    /// The mount has been brought to its end.
    ended: bool,
    /// Why the last worker has failed.
    last_words: Option<String>,
    listener: Option<Listener>,
    asking: Vec<Link>,
    pub upgrade: Option<Upgrade>,
    /// Under the official driver.
    custody: Option<Custody>,
    /// The worker leaves the mount, to the next pod or to another program.
    left: bool,
}

/// Mounts, and keeps the mount whatever becomes of who serves it.
pub fn run(args: &Args, argv: &[OsString], log: Option<PathBuf>) -> Result<()> {
    descriptors::close_on_exec();
    let signals = Signals::new()?;
    let program = Program::own()?;
    let mut this = match (args.find(RESUME_FROM), custody::socket()) {
        (Some(socket), _) => Supervisor::resumed(socket, program)?,
        (None, Some(socket)) => Supervisor::in_custody(socket, args, argv, program)?,
        (None, None) => {
            let state = State::create("ciderfs-state", args.get(BUFFER_SIZE))?.fd().try_clone_to_owned()?;
            let begun = File::from(memfd_create("ciderfs-begun", MemfdFlags::CLOEXEC)?);
            let mountpoint = args.place(1);
            Supervisor::new(args.for_another(argv), mountpoint, program, state, begun)
        }
    };
    this.log = log;
    this.limit = args.get(RESTART_LIMIT);
    this.start()?;
    loop {
        this.wait(&signals)?;
        while let Some(signal) = signals.next() {
            this.signalled(signal);
        }
        if let Some(result) = this.look() {
            return result;
        }
    }
}

impl Supervisor {
    fn new(argv: Vec<OsString>, mountpoint: &Path, program: Program, state: OwnedFd, begun: File) -> Self {
        Self {
            argv,
            // A mount that comes later is not in the way of finding it.
            mountpoint: ciderfs_fuse::mount::absolute(mountpoint).unwrap_or_else(|_| mountpoint.to_owned()),
            log: None,
            program,
            state,
            begun,
            fuse: None,
            device: None,
            worker: None,
            start_at: None,
            ends: Vec::new(),
            unserved: None,
            limit: WINDOW,
            starts: 0,
            served: false,
            stops: 0,
            leaving: None,
            ended: false,
            last_words: None,
            listener: None,
            asking: Vec::new(),
            upgrade: None,
            custody: None,
            left: false,
        }
    }

    /// Under the official driver, which may have the mount of a pod before this one.
    fn in_custody(socket: PathBuf, args: &Args, argv: &[OsString], program: Program) -> Result<Self> {
        let custody::Begun { custody, state, begun, connection } = Custody::begin(socket, args)?;
        let mut this = Self::new(args.for_another(argv), args.place(1), program, state, begun);
        this.custody = Some(custody);
        if let Some((fuse, device)) = connection {
            (this.fuse, this.device, this.served) = (Some(fuse), Some(device), true);
            this.listen();
        }
        Ok(this)
    }

    /// In the place of a supervisor that has ended: somebody else has kept what is needed.
    fn resumed(socket: &Path, program: Program) -> Result<Self> {
        let fail = |why: &dyn std::fmt::Display| {
            Failure::new(format!("cannot resume the mount from {}: {why}", shown(&socket)))
        };
        let link = ask(socket, &json!({ "do": HOLD }), &[]).map_err(|e| fail(&e))?;
        let held = link.receive_within(ANSWER).map_err(|e| fail(&e))?.filter(|m| m.kind == link::BEGIN);
        let Some(held) = held else { return Err(fail(&"nothing is held there")) };
        let fields = link::split(&held.text);
        let (Some(device), Some(place)) = (fields.first(), fields.get(1)) else {
            return Err(fail(&"what is held there makes no sense"));
        };
        let mountpoint = PathBuf::from(std::ffi::OsStr::from_bytes(place));
        let argv = fields[2..].iter().map(|w| std::ffi::OsStr::from_bytes(w).to_owned()).collect();
        let mut fds = held.fds.into_iter();
        let (Some(state), Some(begun), Some(fuse)) = (fds.next(), fds.next(), fds.next()) else {
            return Err(fail(&"no connection is held there"));
        };
        let mut this = Self::new(argv, &mountpoint, program, state, File::from(begun));
        (this.fuse, this.device, this.served) = (Some(fuse), worker::device_of(device), true);
        this.end_orphan()?;
        this.listen();
        Ok(this)
    }

    /// Ends the worker that serves without a supervisor. What it has not answered the next one is asked again.
    fn end_orphan(&self) -> Result<()> {
        let since = Instant::now();
        while let Some(pid) = turn::holder(&self.begun)?.and_then(Pid::from_raw) {
            if since.elapsed() > ORPHAN {
                let pid = pid.as_raw_nonzero();
                return Err(Failure::new(format!("process {pid} serves the mount and cannot be ended")));
            }
            let _ = kill_process(pid, Signal::KILL);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Starts a worker.
    pub fn start(&mut self) -> Result<()> {
        self.start_at = None;
        self.starts += 1;
        let (ours, theirs) = Link::pair()?;
        let device = self.device.map(|(major, minor)| format!("{major}:{minor}")).unwrap_or_default();
        let usec = manager().map(|m| m.watchdog().map_or(0, |d| d.as_micros()).to_string());
        let usec = usec.unwrap_or_default();
        let words = self.argv.iter().map(|w| w.as_bytes());
        let text = link::fields([device.as_bytes(), usec.as_bytes()].into_iter().chain(words));
        let mut fds = vec![self.state.as_fd(), self.begun.as_fd()];
        fds.extend(self.fuse.as_ref().map(|fd| fd.as_fd()));
        ours.send(link::BEGIN, &text, &fds)?;
        let mut command = Command::new(self.program.path());
        command.arg0("ciderfs").args(visible::words(&self.argv).get(1..).unwrap_or_default());
        command.env(worker::ENV, "1").envs(log::for_background()).env_remove(PASSWORD_FILE);
        // What is typed at a terminal reaches the supervisor only, which passes it on.
        let mut child = command.stdin(theirs).process_group(0).spawn()?;
        let process = followed(&mut child)?;
        tracing::debug!("worker {} was started", child.id());
        self.worker = Some(Running { child, process, link: ours, ready: None });
        if self.stops > 0 {
            self.tell(link::STOP);
        }
        Ok(())
    }

    fn wait(&self, signals: &Signals) -> Result<()> {
        let waits = self.start_at.is_some() || self.upgrade.is_some() || self.leaving.is_some();
        let starting = self.worker.as_ref().is_none_or(|w| w.ready.is_none());
        let limit = (waits || starting).then(|| {
            let until = self.start_at.map_or(TICK, |at| at.saturating_duration_since(Instant::now()));
            until.min(TICK)
        });
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        if let Some(worker) = &self.worker {
            fds.push(PollFd::new(&worker.process, PollFlags::IN));
            fds.push(PollFd::new(&worker.link, PollFlags::IN));
        }
        fds.extend(self.listener.iter().map(|l| PollFd::new(l, PollFlags::IN)));
        fds.extend(self.asking.iter().map(|l| PollFd::new(l, PollFlags::IN)));
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        if starting && let Some(manager) = manager() {
            // This one is alive, and has the other in view.
            manager.alive();
        }
        Ok(())
    }

    fn signalled(&mut self, signal: libc::c_int) {
        if signal == libc::SIGHUP {
            if let Some(log) = &self.log {
                daemon::reopen(log);
            }
            log::reload();
            // The official driver signals the worker itself, and means something else by it.
            if self.is_serving() && self.custody.is_none() {
                // One that starts opens the log anyway, and does not expect it yet.
                self.kill(Signal::HUP);
            }
            return;
        }
        if self.served && self.stops == 0 && self.custody.is_none() && init::is_contained() {
            return self.leave();
        }
        self.stops += 1;
        if self.custody.as_ref().is_some_and(Custody::is_held) {
            return self.leave_to_next_pod();
        }
        if self.worker.is_none() {
            // What is not stored yet is, before the mount ends.
            self.start_at = Some(Instant::now());
        }
        self.tell(link::STOP);
        if self.is_serving() {
            return;
        }
        if !self.served {
            // One that has not looked for what the supervisor says yet has nothing to finish, and ends by this; any other takes no
            // notice.
            self.kill(Signal::TERM);
        }
        if self.stops > 1 {
            // It may wait for something that never comes.
            self.kill(Signal::KILL);
        }
    }

    /// Has the worker store what it can, and ends without the mount: who holds copies gives them to the next supervisor.
    fn leave(&mut self) {
        self.leaving.get_or_insert_with(|| Instant::now() + LEAVE);
        if self.is_serving() {
            self.replace();
        }
    }

    /// The pod ends, and the mount does not: what was written is stored, and what is not is left to the next pod.
    fn leave_to_next_pod(&mut self) {
        self.left = true;
        if self.is_serving() && self.stops == 1 {
            return self.replace();
        }
        self.kill(Signal::KILL);
    }

    fn tell(&self, what: u8) {
        if let Some(worker) = &self.worker {
            // One that has ended is seen soon.
            let _ = worker.link.send(what, b"", &[]);
        }
    }

    pub fn kill(&self, signal: Signal) {
        let pid = self.worker.as_ref().and_then(|w| Pid::from_raw(i32::try_from(w.child.id()).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// Has the worker leave the mount.
    pub fn replace(&self) {
        self.tell(link::HAND_OVER);
    }

    /// Does what is to be done. The result of the whole, at its end.
    fn look(&mut self) -> Option<Result<()>> {
        self.hear();
        if let Some(status) = self.worker.as_mut().and_then(|w| w.child.try_wait().ok().flatten()) {
            // Its last words.
            self.hear();
            if self.worker.take().and_then(|w| w.ready).is_some_and(|since| since.elapsed() > SOUND) {
                self.ends.clear();
            }
            if let Some(result) = self.worker_ended(status) {
                return Some(result);
            }
        }
        if self.left && self.stops > 0 && self.worker.is_none() {
            return Some(Ok(()));
        }
        self.serve_asking();
        if self.leaving.is_some() && self.worker.is_none() {
            return Some(Ok(()));
        }
        if self.upgrade.as_ref().is_some_and(Upgrade::is_late)
            || self.leaving.is_some_and(|until| Instant::now() > until)
        {
            // The kernel keeps what it has not answered.
            self.kill(Signal::KILL);
        }
        if !self.is_serving() && self.unserved.is_some_and(|since| since.elapsed() > self.limit) {
            // It hangs; what its end means is seen as any other's.
            self.kill(Signal::KILL);
        }
        if self.start_at.is_some_and(|at| at <= Instant::now())
            && let Err(e) = self.start()
        {
            let why = format!("the program cannot be started: {e}");
            if let Some(Stage::Leaving | Stage::Starting) = self.upgrade.as_ref().map(|u| u.stage) {
                self.next_program(&why);
                self.start_at = Some(Instant::now());
                return None;
            }
            self.failed_upgrade(&why);
            self.last_words = Some(why);
            return self.crashed("it cannot be started");
        }
        None
    }

    /// Takes what the worker says.
    fn hear(&mut self) {
        while let Some(worker) = &mut self.worker {
            let Ok(Some(mut message)) = worker.link.receive(false) else { return };
            match message.kind {
                link::MOUNTED => {
                    self.device = worker::device_of(&message.text);
                    self.fuse = message.fds.pop();
                    self.listen();
                }
                link::READY => {
                    worker.ready = Some(Instant::now());
                    self.unserved = None;
                    self.is_ready(&message);
                }
                link::FAILED => self.last_words = Some(message.lossy()),
                link::LEAVING => {
                    self.left = true;
                    if let Some(custody) = &self.custody {
                        custody.leaves();
                    }
                }
                link::ENDED => self.ended = true,
                link::NOTIFY => {
                    let text = message.lossy();
                    if let Some(manager) = manager()
                        && (self.upgrade.is_none() || !text.contains("STOPPING=1"))
                    {
                        manager.pass_on(&text);
                    }
                }
                _ => {}
            }
        }
    }

    fn is_ready(&mut self, message: &Message) {
        if !std::mem::replace(&mut self.served, true)
            && let Some(log) = &self.log
        {
            daemon::ready(&message.lossy(), log);
        }
        if self.leaving.is_some() {
            // What it has found of the one before is stored.
            self.replace();
        }
        if let (Some(custody), Some(fuse)) = (&mut self.custody, &self.fuse)
            && !custody.has_mount()
            && let Err(e) = custody.hold(fuse, self.device, &self.state)
        {
            tracing::warn!("the driver is given no copy of the connection: {e}");
        }
        if self.starts > 1 {
            tracing::info!("the mount goes on, served by worker {}", self.pid());
        }
        self.upgraded();
    }

    /// Process id of the worker.
    pub fn pid(&self) -> u32 {
        self.worker.as_ref().map_or(0, |w| w.child.id())
    }

    /// Whether a program lies on the mount. Reading it would wait for the worker.
    pub fn has(&self, program: &Program) -> bool {
        self.device.is_some() && program.device().ok() == self.device
    }

    /// Whether the mount ends, or has.
    pub(super) fn is_stopping(&self) -> bool {
        self.stops > 0 || self.ended
    }

    /// Whether the worker serves.
    pub fn is_serving(&self) -> bool {
        self.worker.as_ref().is_some_and(|w| w.ready.is_some())
    }
}

/// A descriptor of a process that was just started. Without one nobody would see its end, so it does not live on.
fn followed(child: &mut Child) -> Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let opened = pid
        .ok_or_else(|| Failure::new("the worker has no process id"))
        .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
    opened.inspect_err(|_| {
        let _ = child.kill();
        let _ = child.wait();
    })
}
