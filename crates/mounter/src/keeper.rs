//! One client: it is started or found, watched, started again when it crashes, and unmounted when it is to go. A thread of its own
//! does all that; whoever asks for something tells it and waits.

mod entry;
mod held;

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_fuse::mount::{MountInfo, list_mounts};
use ciderfs_handover::held::Holder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open};

use crate::disposable::{Failure, own_session};
use crate::log;
use crate::metrics;
use crate::probe::{self, Seen};
use crate::protocol::{Refusal, State};
use crate::record::Process;
use crate::server::Config;
use crate::spec::Spec;
use crate::unit;
pub use entry::{Entry, Outcome, health};

/// Where a client says how it is (sd_notify(3)), and where its keeper is woken.
const NOTIFY: &str = "notify";
/// A mount that so many supervisors could not go on with, one after the other, is made anew.
const RESUMES: u32 = 3;
/// Between looks at a client that starts or ends, and at one that works.
const LOOK: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_secs(30);
/// Between the end of a client and the next one: doubled each time, up to the second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A client that has worked for so long begins anew.
const STEADY: Duration = Duration::from_secs(60);
/// For calls on a mount.
pub const PROBE: Duration = Duration::from_secs(5);

/// A client that runs.
struct Running {
    process: Process,
    /// Ready to read when it has ended.
    end: OwnedFd,
    /// Of this process, which reaps it.
    child: Option<Child>,
}

/// Keeps one mount until it is gone.
pub struct Keeper {
    entry: Arc<Entry>,
    config: Arc<Config>,
    notify: UnixDatagram,
    /// Copies of what the client's supervisor holds.
    held: RefCell<Option<Holder>>,
}

impl Keeper {
    /// For a mount. Its directory is there.
    ///
    /// # Errors
    /// Of the system.
    pub fn new(entry: Arc<Entry>, config: Arc<Config>) -> io::Result<Self> {
        let path = entry.dir.join(NOTIFY);
        let _ = std::fs::remove_file(&path);
        let notify = UnixDatagram::bind(&path)?;
        notify.set_nonblocking(true)?;
        Ok(Self { entry, config, notify, held: RefCell::new(None) })
    }

    /// Does it.
    pub fn run(self) {
        let refused = self.keep();
        let entry = &self.entry;
        self.let_go();
        let _ = std::fs::remove_dir(&entry.mountpoint);
        if let Err(e) = std::fs::remove_dir_all(&entry.dir) {
            tracing::warn!("{}: {e}", entry.dir.display());
        }
        entry.change(|inner| {
            inner.is_over = true;
            inner.refused = refused;
        });
    }

    /// Returns why there was never a mount, if there was none.
    fn keep(&self) -> Option<(Refusal, String)> {
        let entry = &self.entry;
        let mut back_off = BACK_OFF.0;
        let mut running = self.adopt();
        let mut failed = 0;
        loop {
            let record = entry.inner.lock().record.clone();
            let from = if running.is_none() { self.holder(&record, failed < RESUMES) } else { None };
            let resumes = from.is_some();
            let client = match running.take() {
                Some(client) => client,
                // One that is held is taken up again first: what was written is to be stored.
                None if record.leaving && !resumes && self.is_gone() => return None,
                None if record.leaving && !resumes => {
                    // In use by a mount that is not there any more, or that is dead: this cannot last.
                    self.pause(LOOK);
                    continue;
                }
                None if record.lacks_secrets() => {
                    entry.change(|inner| inner.state = State::NeedsSecrets);
                    self.pause(IDLE);
                    continue;
                }
                None => match self.start(&record.spec, from) {
                    Ok(client) => client,
                    Err(e) if !record.was_ready => {
                        return Some((Refusal::Internal, format!("the client cannot be started: {e}")));
                    }
                    Err(e) => {
                        tracing::error!("{}: the client cannot be started: {e}", entry.key);
                        self.pause(back_off);
                        continue;
                    }
                },
            };
            let since = Instant::now();
            let how = self.watch(client, resumes);
            let (record, was_served) = {
                let inner = entry.inner.lock();
                (inner.record.clone(), matches!(inner.state, State::Ready | State::Unmounting))
            };
            failed = if resumes && !was_served { failed + 1 } else { 0 };
            if record.leaving {
                continue;
            }
            let why = log::last_words(&entry.dir);
            if !record.was_ready {
                // It may have mounted before it died.
                self.is_gone();
                return Some((Refusal::Failed, why));
            }
            if since.elapsed() > STEADY {
                back_off = BACK_OFF.0;
            }
            tracing::warn!("{} ({}): the client has ended ({how}): {why}", record.spec.volume, entry.key);
            entry.change(|inner| (inner.state, inner.restarts) = (State::Down, inner.restarts + 1));
            if was_served && self.held.borrow().is_some() && back_off == BACK_OFF.0 {
                // Programs wait for it.
                back_off *= 2;
                continue;
            }
            self.pause(back_off);
            back_off = (back_off * 2).min(BACK_OFF.1);
        }
    }

    /// The client of an earlier mounter, if it runs still.
    fn adopt(&self) -> Option<Running> {
        let process = self.entry.inner.lock().record.process?;
        let end = pidfd_open(process.as_pid()?, PidfdFlags::empty()).ok()?;
        // Looked at after it was opened: from here on the number is that of no other.
        process.runs().then(|| {
            tracing::info!("{}: its client runs (process {})", self.entry.key, process.pid);
            Running { process, end, child: None }
        })
    }

    fn start(&self, spec: &Spec, from: Option<PathBuf>) -> io::Result<Running> {
        let (entry, config) = (&self.entry, &self.config);
        entry.change(|inner| inner.state = State::Starting);
        std::fs::create_dir_all(&config.mount_dir)?;
        let mut command = match from {
            Some(holder) => spec.resume(&config.program, &holder),
            None => spec.command(&config.program, &entry.mountpoint, config.supervised),
        };
        command
            .env("NOTIFY_SOCKET", entry.dir.join(NOTIFY))
            .env(metrics::ENV, entry.dir.join(metrics::SOCKET));
        let running = if config.units { self.start_unit(&command)? } else { self.start_child(command)? };
        entry.change(|inner| {
            inner.record.process = Some(running.process);
            entry.save(&inner.record);
        });
        Ok(running)
    }

    fn start_unit(&self, command: &Command) -> io::Result<Running> {
        let process = unit::start(command, &self.entry.key, &self.entry.dir)?;
        let pid = process.as_pid().ok_or(Errno::SRCH)?;
        Ok(Running { process, end: pidfd_open(pid, PidfdFlags::empty())?, child: None })
    }

    fn start_child(&self, mut command: Command) -> io::Result<Running> {
        let entry = &self.entry;
        let log = log::open(&entry.dir)?;
        command.stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        own_session(&mut command);
        let mut child = command.spawn()?;
        let found = rustix::process::Pid::from_child(&child);
        let end = pidfd_open(found, PidfdFlags::empty());
        let (Ok(end), Some(process)) = (end, Process::now(found.as_raw_nonzero().get())) else {
            // It has ended already, or there is no telling when it does.
            let _ = child.kill();
            let status = child.wait()?;
            return Err(io::Error::other(format!("{status}: {}", log::last_words(&entry.dir))));
        };
        Ok(Running { process, end, child: Some(child) })
    }

    /// Until it has ended. Returns how.
    fn watch(&self, mut client: Running, resumes: bool) -> String {
        let entry = &self.entry;
        let mut unmounted = false;
        loop {
            let (state, leaving) = {
                let inner = entry.inner.lock();
                (inner.state, inner.record.leaving)
            };
            let is_ready = state == State::Ready;
            // One that goes on takes up first what was written.
            if leaving && !unmounted && (is_ready || !resumes) {
                unmounted = self.unmount(&client);
            }
            let patience = if is_ready && !leaving { IDLE } else { LOOK };
            let has_ended = self.wait(Some(&client.end), patience);
            if !is_ready && (!leaving || resumes) && self.answers() {
                self.ready();
            }
            if is_ready && !has_ended {
                self.hold();
            }
            if has_ended {
                return match client.child.take().map(|mut child| child.wait()) {
                    Some(Ok(status)) => status.to_string(),
                    _ => format!("process {}", client.process.pid),
                };
            }
        }
    }

    /// Waits for the end of a client, for words of it, for being woken. True for the end.
    fn wait(&self, end: Option<&OwnedFd>, patience: Duration) -> bool {
        let limit = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&self.notify, PollFlags::IN)];
        fds.extend(end.map(|end| PollFd::new(end, PollFlags::IN)));
        let _ = poll(&mut fds, Some(&limit));
        let has_ended = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        self.hear();
        has_ended
    }

    fn pause(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.wait(None, left);
            let inner = self.entry.inner.lock();
            let has_secrets = inner.state == State::NeedsSecrets && !inner.record.lacks_secrets();
            if inner.record.leaving || has_secrets {
                return;
            }
        }
    }

    /// What the client says.
    fn hear(&self) {
        let mut text = [0; 4096];
        while let Ok(n) = self.notify.recv(&mut text) {
            for line in String::from_utf8_lossy(&text[..n]).lines() {
                match line.split_once('=') {
                    Some(("READY", "1")) => self.ready(),
                    Some(("STATUS", status)) => self.entry.change(|inner| inner.status = status.to_owned()),
                    _ => {}
                }
            }
        }
    }

    /// Does the mount answer? Asked of one that was found, and of a client that cannot say it.
    fn answers(&self) -> bool {
        let Some(mount) = self.entry.mounted() else { return false };
        let device = (mount.major, mount.minor);
        matches!(probe::look(&self.entry.mountpoint, PROBE), Seen::Alive { device: d, inode: probe::ROOT_INODE } if d == device)
    }

    fn ready(&self) {
        let entry = &self.entry;
        self.hold();
        entry.change(|inner| {
            if matches!(inner.state, State::Unmounting | State::Ready) {
                return;
            }
            inner.state = State::Ready;
            if !inner.record.was_ready {
                inner.record.was_ready = true;
                entry.save(&inner.record);
            }
        });
    }

    /// Takes the mount away, unless somebody uses it: the client then stores what is left and ends. True when there is nothing more
    /// to do but wait.
    fn unmount(&self, client: &Running) -> bool {
        let entry = &self.entry;
        let Some(mount) = entry.mounted() else {
            // It starts still: it ends when it is told to.
            if let Some(pid) = client.process.as_pid().filter(|_| client.process.runs()) {
                let _ = kill_process(pid, Signal::TERM);
            }
            entry.change(|inner| inner.state = State::Unmounting);
            return true;
        };
        if let Some(user) = self.other_place(&mount) {
            return self.stay(Refusal::Busy, format!("it is in use at {}", user.display()));
        }
        match probe::unmount(&entry.mountpoint, false, PROBE) {
            Ok(()) | Err(Failure::Step(_, Errno::INVAL | Errno::NOENT)) => {
                entry.change(|inner| inner.state = State::Unmounting);
                true
            }
            Err(Failure::Step(_, Errno::BUSY)) => {
                self.stay(Refusal::Busy, format!("files are open at {}", entry.mountpoint.display()))
            }
            Err(e) => self.stay(Refusal::Internal, format!("unmounting {}: {e}", entry.mountpoint.display())),
        }
    }

    /// It does not go: whoever asked for it is told why.
    fn stay(&self, why: Refusal, text: String) -> bool {
        self.entry.change(|inner| {
            inner.record.leaving = false;
            inner.refused = Some((why, text));
            self.entry.save(&inner.record);
        });
        false
    }

    /// Another place where the same file system is mounted.
    fn other_place(&self, mount: &MountInfo) -> Option<PathBuf> {
        let is_same = |other: &MountInfo| (other.major, other.minor) == (mount.major, mount.minor);
        let others = list_mounts().unwrap_or_default().into_iter().filter(is_same);
        others.map(|other| other.mountpoint).find(|place| *place != self.entry.mountpoint)
    }

    /// Takes away what a client that has ended left behind. Something that lives is not touched.
    fn is_gone(&self) -> bool {
        let entry = &self.entry;
        while entry.mounted().is_some() {
            if probe::look(&entry.mountpoint, PROBE) != Seen::Dead {
                tracing::error!(
                    "{}: something is mounted there that is not ours",
                    entry.mountpoint.display()
                );
                return false;
            }
            if let Err(e) = probe::unmount(&entry.mountpoint, true, PROBE) {
                tracing::error!("{}: {e}", entry.mountpoint.display());
                return false;
            }
        }
        true
    }
}
