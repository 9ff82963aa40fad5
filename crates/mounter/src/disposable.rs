//! Calls that may never return: on a mount whose server hangs, a process sleeps where no signal reaches it. So a child makes
//! them, and is left behind when its time is up.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// Numbers that a child can answer with.
pub const WORDS: usize = 8;
/// The answer, or the step that failed and why.
pub type Answer = Result<[u64; WORDS], (u32, Errno)>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A step failed.
    #[error("{1}")]
    Step(u32, Errno),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// There was no child, or it was killed.
    #[error("no process for it: {0}")]
    Lost(std::io::Error),
}

/// Something that one child at a time does: what, and to which path.
pub type About = (&'static str, CString);

/// What children do now; true for those that were killed and have not ended since.
static UNDER_WAY: Mutex<BTreeMap<About, bool>> = Mutex::new(BTreeMap::new());
static ENDED: Condvar = Condvar::new();

/// As [`run`], and one child at a time for each thing: whatever hangs would hang the next one, too. While one is there that cannot be
/// killed, there is no answer at once.
///
/// # Errors
/// [`Failure`].
pub fn run_once(
    about: About,
    patience: Duration,
    work: impl FnOnce() -> Answer,
) -> Result<[u64; WORDS], Failure> {
    let deadline = Instant::now() + patience;
    let mut all = UNDER_WAY.lock();
    loop {
        match all.get(&about).copied() {
            None => break,
            Some(false) if !ENDED.wait_until(&mut all, deadline).timed_out() => {}
            Some(_) => return Err(Failure::TimedOut),
        }
    }
    all.insert(about.clone(), false);
    drop(all);
    start(patience, work, Some(Turn(about)))
}

/// Lets the next child do it when dropped.
struct Turn(About);

impl Drop for Turn {
    fn drop(&mut self) {
        UNDER_WAY.lock().remove(&self.0);
        ENDED.notify_all();
    }
}

/// Has a child do it. In the child there are no other threads, so `work` may make system calls and nothing else: no memory, no
/// locks, no panic. Descriptors of this process are closed there.
///
/// # Errors
/// [`Failure`].
pub fn run(patience: Duration, work: impl FnOnce() -> Answer) -> Result<[u64; WORDS], Failure> {
    start(patience, work, None)
}

fn start(
    patience: Duration,
    work: impl FnOnce() -> Answer,
    turn: Option<Turn>,
) -> Result<[u64; WORDS], Failure> {
    let lost = |e: Errno| Failure::Lost(e.into());
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(lost)?;
    // SAFETY: the child makes system calls only, as the contract above says, and ends with _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        say(&theirs, work);
    }
    drop(theirs);
    let pid = Pid::from_raw(child).filter(|_| child > 0);
    let Some(pid) = pid else { return Err(Failure::Lost(std::io::Error::last_os_error())) };
    let answer = hear(ours, Instant::now() + patience);
    if answer.is_err() {
        let _ = kill_process(pid, Signal::KILL);
    }
    reap(pid, turn);
    answer
}

/// In the child: does it, and ends.
fn say(pipe: &OwnedFd, work: impl FnOnce() -> Answer) -> ! {
    const PIPE: i32 = 3;
    // SAFETY: numbers of descriptors only; nothing in this process uses the others any more.
    unsafe {
        libc::dup2(pipe.as_raw_fd(), PIPE);
        libc::syscall(libc::SYS_close_range, PIPE + 1, u32::MAX, 0);
    }
    let mut words = [0_u64; WORDS + 2];
    match work() {
        Ok(answer) => words[2..].copy_from_slice(&answer),
        Err((step, e)) => (words[0], words[1]) = (e.raw_os_error() as u64, u64::from(step)),
    }
    // SAFETY: the array is ours and as long as is said; _exit runs nothing of this program.
    unsafe {
        libc::write(PIPE, words.as_ptr().cast(), size_of_val(&words));
        libc::_exit(0)
    }
}

fn hear(pipe: OwnedFd, deadline: Instant) -> Result<[u64; WORDS], Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&limit)) {
            Ok(0) => return Err(Failure::TimedOut),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(Failure::Lost(e.into())),
        }
    }
    let mut bytes = [0; 8 * (WORDS + 2)];
    std::fs::File::from(pipe).read_exact(&mut bytes).map_err(Failure::Lost)?;
    let mut words = bytes.as_chunks::<8>().0.iter().map(|b| u64::from_ne_bytes(*b));
    let mut next = || words.next().unwrap_or_default();
    match (next(), next()) {
        (0, _) => Ok(std::array::from_fn(|_| next())),
        (e, step) => Err(Failure::Step(step as u32, Errno::from_raw_os_error(e as i32))),
    }
}

/// One that does not end now is waited for elsewhere.
fn reap(pid: Pid, turn: Option<Turn>) {
    for _ in 0..50 {
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(None) => std::thread::sleep(Duration::from_millis(1)),
            Err(Errno::INTR) => {}
            _ => return,
        }
    }
    if let Some(Turn(about)) = &turn {
        UNDER_WAY.lock().insert(about.clone(), true);
        ENDED.notify_all();
    }
    let spawned = std::thread::Builder::new().name("reaper".into()).spawn(move || {
        let _turn = turn;
        while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
    });
    // It stays a zombie until this process ends.
    drop(spawned);
}

/// Makes a program a session of its own, which nothing of ours takes along when it ends.
pub fn own_session(command: &mut Command) {
    // SAFETY: setsid is a system call and nothing else.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into));
    }
}

/// Signals that are waited for instead of being taken as they come.
#[derive(Debug)]
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
    /// From here on, for the end of children and for SIGTERM. Call it before there are threads.
    ///
    /// # Errors
    /// Of the system.
    pub fn block() -> std::io::Result<Self> {
        // SAFETY: sigemptyset makes a set of what is only memory before; the calls know nothing but this set.
        let (set, done) = unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGCHLD);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            (set, libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))
        };
        if done == 0 { Ok(Self { set }) } else { Err(std::io::Error::from_raw_os_error(done)) }
    }

    /// Waits for one.
    ///
    /// # Errors
    /// Of the system.
    pub fn next(&self) -> std::io::Result<i32> {
        let mut signal = 0;
        // SAFETY: both are ours.
        match unsafe { libc::sigwait(&raw const self.set, &raw mut signal) } {
            0 => Ok(signal),
            e => Err(std::io::Error::from_raw_os_error(e)),
        }
    }
}

/// A program does not inherit what [`Signals`] holds back.
pub fn default_signals(command: &mut Command) {
    // SAFETY: the calls in the child are system calls and nothing else.
    unsafe {
        command.pre_exec(|| {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            match libc::pthread_sigmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) {
                0 => Ok(()),
                e => Err(std::io::Error::from_raw_os_error(e)),
            }
        });
    }
}

/// Makes a tree that is attached nowhere read-only (`mount_setattr(2)`); for use in a child.
///
/// # Errors
/// `ENOSYS` before Linux 5.12.
pub fn read_only(tree: &OwnedFd) -> Result<(), Errno> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: an open descriptor, an empty text that ends, and a structure as long as is said.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if done == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn answers_failures_and_the_end_of_patience() {
        let long = Duration::from_secs(20);
        assert_eq!(run(long, || Ok([1, 2, 3, 4, 5, 6, 7, 8])).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(matches!(run(long, || Err((7, Errno::NOTCONN))), Err(Failure::Step(7, Errno::NOTCONN))));
        let since = Instant::now();
        let never = || loop {
            let _ = poll(&mut [], None);
        };
        assert!(matches!(run(Duration::from_millis(50), never), Err(Failure::TimedOut)));
        assert!(since.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn one_child_at_a_time_for_each_thing() {
        let about = |what| (what, CString::from(c"/one"));
        let slow = || {
            let limit = Timespec { tv_sec: 1, tv_nsec: 0 };
            let _ = poll(&mut [], Some(&limit));
            Ok([1; WORDS])
        };
        let since = Instant::now();
        let first = std::thread::spawn(move || run_once(about("a"), Duration::from_secs(20), slow));
        while UNDER_WAY.lock().get(&about("a")).is_none() {}
        // It does not wait for longer than it may, and others do not wait at all.
        assert!(matches!(run_once(about("a"), Duration::ZERO, || Ok([2; WORDS])), Err(Failure::TimedOut)));
        run_once(about("b"), Duration::from_secs(20), || Ok([2; WORDS])).unwrap();
        assert!(since.elapsed() < Duration::from_secs(1));
        assert_eq!(run_once(about("a"), Duration::from_secs(20), || Ok([2; WORDS])).unwrap(), [2; WORDS]);
        assert!(since.elapsed() >= Duration::from_secs(1));
        assert_eq!(first.join().unwrap().unwrap(), [1; WORDS]);
        // One that cannot be killed: no answer at once.
        UNDER_WAY.lock().insert(about("c"), true);
        let since = Instant::now();
        assert!(matches!(run_once(about("c"), Duration::from_secs(20), slow), Err(Failure::TimedOut)));
        assert!(since.elapsed() < Duration::from_secs(1));
    }
}
