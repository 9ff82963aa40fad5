//! What programs do on the mounts, as drawn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

use ciderfs_format::Ino;
use ciderfs_format::lock::{F_UNLCK, F_WRLCK};
use ciderfs_meta::Errno;
use ciderfs_vfs::Error;
use parking_lot::Mutex;

use crate::engine::{draw, one_in, profile};
use crate::history::{At, Deed, History, Of, View};
use crate::kernel::{Fd, Kernel};
use crate::world::World;

/// Files that are there all the time.
const FILES: [&[u8]; 2] = [b"f0", b"f1"];
/// Names that come and go.
const NAMES: [&[u8]; 2] = [b"n0", b"n1"];
const LOG: &[u8] = b"log";
const COUNTER: &[u8] = b"counter";
/// Files are no longer than that.
const LONGEST: u64 = 400;
/// Bytes of a record of the log.
const RECORD: u64 = 8;
/// What the programs of a mount do.
const STEPS: u64 = 80;

const KINDS: usize = 16;

/// What all programs share.
struct Shared {
    history: Arc<History>,
    /// How often each kind of step is drawn.
    weights: [u64; KINDS],
    value: AtomicU8,
    mode: AtomicU32,
    /// What was written under the lock last.
    counter: Mutex<u8>,
    records: Mutex<Vec<(u32, u8)>>,
    /// Mostly this file.
    favourite: usize,
}

/// An open file of a program.
struct Held {
    fd: Fd,
    fresh: At,
    opened: At,
    /// Reads that do not ask how long the file is say nothing: a change of this mount was under way while it was opened, so that the
    /// kernel may not have been told the length, or it was locked.
    asks: bool,
}

impl Held {
    fn new(fd: Fd, fresh: At) -> Self {
        Self { fd, fresh, opened: fresh, asks: false }
    }
}

struct Program {
    shared: Arc<Shared>,
    kernel: Arc<Kernel>,
    mount: usize,
    pid: u32,
    held: Vec<Held>,
}

/// Lets all programs do what they do, and looks at what they have left.
pub async fn run(world: &World) {
    let mut weights = [0; KINDS];
    for w in &mut weights {
        *w = if one_in(3) { 0 } else { 1 + draw(4) };
    }
    // Nothing is seen without these.
    weights[0] += 2;
    weights[1] += 3;
    weights[2] += 1;
    weights[4] += 1;
    if profile().loses {
        (weights[11], weights[12]) = (0, 0);
    }
    world.history.tell(|| format!("{:?} {weights:?}", profile()));
    let shared = Arc::new(Shared {
        history: Arc::clone(&world.history),
        weights,
        value: AtomicU8::new(1),
        mode: AtomicU32::new(0o601),
        counter: Mutex::default(),
        records: Mutex::default(),
        favourite: draw(2) as usize,
    });
    let program = |mount: usize, n: u64| Program {
        shared: Arc::clone(&shared),
        kernel: Arc::clone(&world.mounts[mount]),
        mount,
        pid: (mount as u32 + 1) * 100 + n as u32,
        held: Vec::new(),
    };
    program(0, 50).prepare().await;
    let mut tasks = Vec::new();
    for mount in 0..world.mounts.len() {
        for n in 0..profile().programs {
            let mut p = program(mount, n);
            tasks.push(ciderfs_rt::spawn(async move {
                for _ in 0..crate::number("SIM_STEPS").unwrap_or(STEPS) / profile().programs {
                    p.step().await;
                }
                while !p.held.is_empty() {
                    p.close().await;
                }
            }));
        }
    }
    for task in tasks {
        if let Err(e) = task.await {
            shared.history.accuse(format!("a program has ended: {e}"));
        }
    }
    // Long enough for everything that is believed for a time.
    ciderfs_rt::sleep(profile().valid + profile().open_cache + Duration::from_secs(1)).await;
    let mut ends = Vec::new();
    for mount in 0..world.mounts.len() {
        ends.push(program(mount, 60).look_at_all().await);
    }
    if ends[0] != ends[1] {
        shared.history.accuse(format!("mounts see different files in the end: {ends:?}"));
    }
}

impl Program {
    fn value(&self) -> u8 {
        let v = self.shared.value.fetch_add(1, Ordering::Relaxed);
        if v == 0 { self.value() } else { v }
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        let pid = self.pid;
        self.shared.history.tell(|| format!("{pid} {}", text()));
    }

    /// A view that begins now.
    fn view(&self, fresh: Option<At>, age: Duration) -> View {
        let begun = self.shared.history.now();
        let fresh = fresh.map_or(begun.before(age), |f| f.max(begun.before(age)));
        View { mount: self.mount, begun, ended: begun, fresh }
    }

    fn ended(&self, view: View) -> View {
        View { ended: self.shared.history.now(), ..view }
    }

    /// An error that no program should see.
    fn unexpected(&self, what: &str, e: &Error) {
        self.shared.history.accuse(format!("{what} of {}: {e}", self.pid));
    }

    /// A change of names has failed, or nobody knows.
    fn unsure(&self, what: &str, e: &Error) {
        if !profile().loses {
            self.unexpected(what, e);
        }
    }

    /// A change has failed, as it may where replies get lost.
    fn failed(&self, what: &str, ino: Ino, e: &Error) {
        match profile().loses && e.errno() == Errno::EIO {
            true => self.shared.history.lost(self.mount, ino),
            false => self.unexpected(what, e),
        }
    }

    fn file(&self) -> &'static [u8] {
        FILES[if one_in(4) { draw(2) as usize } else { self.shared.favourite }]
    }

    async fn prepare(&mut self) {
        for name in FILES.into_iter().chain([LOG, COUNTER]) {
            let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
            let (fd, stat) = self.kernel.create(self.pid, name, flags).await.unwrap();
            self.shared.history.begin(self.mount, Of::File(stat.ino), Deed::Mode(0o644));
            let fresh = self.shared.history.now();
            self.held.push(Held::new(fd, fresh));
            if FILES.contains(&name) {
                let (off, len) = (0, 40 + draw(200));
                self.write(off, len).await;
            }
            self.close().await;
        }
    }

    async fn step(&mut self) {
        let all: u64 = self.shared.weights.iter().sum();
        let mut drawn = draw(all);
        let mut kind = 0;
        while drawn >= self.shared.weights[kind] {
            drawn -= self.shared.weights[kind];
            kind += 1;
        }
        match kind {
            0 => self.open().await,
            1 => self.read().await,
            2 => self.write(draw(LONGEST - 120), 1 + draw(120)).await,
            3 => self.sync().await,
            4 => self.close().await,
            5 => self.truncate().await,
            6 => self.stat().await,
            7 => self.chmod().await,
            8 => self.list().await,
            9 => self.names().await,
            10 => self.punch().await,
            11 => self.count().await,
            12 => self.append().await,
            13 => self.kernel.press(),
            14 => self.lock().await,
            _ => {
                let ms = draw(if one_in(4) { profile().pause } else { 80 });
                ciderfs_rt::sleep(Duration::from_millis(ms)).await;
            }
        }
    }

    /// Draws an open file; whether it may be read or written.
    fn drawn(&self, suits: impl Fn(i32) -> bool) -> Option<usize> {
        let fit: Vec<usize> =
            (0..self.held.len()).filter(|n| suits(self.held[*n].fd.flags & libc::O_ACCMODE)).collect();
        (!fit.is_empty()).then(|| fit[draw(fit.len() as u64) as usize])
    }

    async fn open(&mut self) {
        if self.held.len() >= 3 {
            self.close().await;
        }
        let name = if one_in(6) { NAMES[draw(2) as usize] } else { self.file() };
        let mut flags = [libc::O_RDONLY, libc::O_RDONLY, libc::O_RDWR, libc::O_WRONLY][draw(4) as usize];
        if flags != libc::O_RDONLY && one_in(5) {
            flags |= libc::O_TRUNC;
        }
        let age = if flags == libc::O_RDONLY { profile().open_cache } else { Duration::ZERO };
        let view = self.view(None, age);
        let truncation = (flags & libc::O_TRUNC != 0).then_some(());
        if truncation.is_some() {
            // Which file it is is known when it is open.
            flags &= !libc::O_TRUNC;
        }
        let opened = self.kernel.open(self.pid, name, flags).await;
        self.tell(|| {
            let to = opened.as_ref().map(|fd| (fd.ino, fd.fh, fd.direct)).map_err(Error::errno);
            format!("open {} {flags:o}: {to:?}", String::from_utf8_lossy(name))
        });
        let named = View { fresh: view.begun.before(profile().age()), ..self.ended(view) };
        match opened {
            Ok(fd) => {
                self.shared.history.found(name, named, Some(fd.ino), "open");
                let asks = self.shared.history.is_changing(self.mount, fd.ino, view.begun);
                self.held.push(Held { asks, opened: view.begun, ..Held::new(fd, view.fresh) });
                if truncation.is_some() {
                    self.cut(self.held.len() - 1, 0, false).await;
                } else if one_in(2) && flags & libc::O_ACCMODE != libc::O_WRONLY {
                    self.read_of(self.held.len() - 1, 0, LONGEST).await;
                }
            }
            Err(e) if e.errno() == Errno::ENOENT => {
                self.shared.history.found(name, named, None, "open");
                if FILES.contains(&name) {
                    self.unexpected("open", &e);
                }
            }
            Err(e) if NAMES.contains(&name) && e.errno() == Errno::ESTALE => {}
            Err(e) => self.unexpected("open", &e),
        }
    }

    async fn read(&mut self) {
        let Some(n) = self.drawn(|access| access != libc::O_WRONLY) else { return };
        let (off, len) = if one_in(2) { (0, LONGEST) } else { (draw(LONGEST - 60), 1 + draw(60)) };
        self.read_of(n, off, len).await;
    }

    async fn read_of(&mut self, n: usize, off: u64, len: u64) {
        let held = &self.held[n];
        let view = self.view(Some(held.fresh), profile().valid * 1000);
        let asks = held.fd.direct || held.asks || !one_in(3);
        let read = self.kernel.read_asking(self.pid, &held.fd, off, len, asks).await;
        let view = self.ended(view);
        self.tell(|| {
            format!("read {} {off}+{len}: {}", held.fd.ino, shown(read.as_ref().map(|(data, _)| &**data)))
        });
        match read {
            Ok((data, answered)) => {
                let how = match answered {
                    _ if held.fd.direct => "past the cache",
                    true => "read",
                    false => "mapped",
                };
                self.shared.history.read(held.fd.ino, view, off, len, &data, how);
            }
            Err(e) => self.unexpected("read", &e),
        }
    }

    async fn write(&mut self, off: u64, len: u64) {
        let Some(n) = self.drawn(|access| access != libc::O_RDONLY) else { return };
        self.write_of(n, off, len).await;
    }

    async fn write_of(&mut self, n: usize, off: u64, len: u64) {
        let (held, value) = (&self.held[n], self.value());
        let begun =
            self.shared.history.begin(self.mount, Of::File(held.fd.ino), Deed::Write { off, len, value });
        let done = self.kernel.write(&held.fd, off, &vec![value; len as usize]).await;
        self.shared.history.end(&begun, done.is_ok(), false);
        self.tell(|| format!("write {} {off}+{len} of {value}: {:?}", held.fd.ino, done.as_ref().err()));
        if let Err(e) = done {
            self.unexpected("write", &e);
        }
    }

    async fn sync(&mut self) {
        let Some(n) = self.drawn(|_| true) else { return };
        let held = &self.held[n];
        let from = self.shared.history.now();
        let done = self.kernel.fsync(&held.fd).await;
        self.tell(|| format!("fsync {}: {:?}", held.fd.ino, done.as_ref().err()));
        match done {
            Ok(()) => self.shared.history.stored(self.mount, held.fd.ino, from, held.opened),
            Err(e) => self.failed("fsync", held.fd.ino, &e),
        }
    }

    async fn close(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let held = self.held.remove(draw(self.held.len() as u64) as usize);
        let (ino, from, opened) = (held.fd.ino, self.shared.history.now(), held.opened);
        let done = self.kernel.close(self.pid, held.fd).await;
        self.tell(|| format!("close {ino}: {:?}", done.as_ref().err()));
        match done {
            Ok(()) => self.shared.history.stored(self.mount, ino, from, opened),
            Err(e) => self.failed("close", ino, &e),
        }
    }

    async fn truncate(&mut self) {
        let Some(n) = self.drawn(|access| access != libc::O_RDONLY) else { return };
        let (to, by_handle) = (draw(LONGEST), one_in(2));
        self.cut(n, to, by_handle).await;
    }

    async fn cut(&mut self, n: usize, to: u64, by_handle: bool) {
        let held = &self.held[n];
        let ino = held.fd.ino;
        let begun = self.shared.history.begin(self.mount, Of::File(ino), Deed::Truncate { to });
        let from = self.shared.history.now();
        let done = self.kernel.set_size(self.pid, ino, by_handle.then_some(&held.fd), to).await;
        self.shared.history.end(&begun, done.is_ok(), true);
        self.tell(|| format!("truncate {ino} to {to}: {:?}", done.as_ref().err()));
        match done {
            Ok(()) if profile().loses => {}
            Ok(()) => self.shared.history.stored(self.mount, ino, from, from),
            Err(e) => self.failed("truncate", ino, &e),
        }
    }

    async fn stat(&mut self) {
        let age = profile().age();
        if let Some(n) = self.drawn(|_| true).filter(|_| one_in(2)) {
            let held = &self.held[n];
            let view = self.view(Some(held.fresh), age);
            let stat = self.kernel.fstat(self.pid, &held.fd).await;
            let view = self.ended(view);
            self.tell(|| format!("fstat {} {stat:?}", held.fd.ino));
            match stat {
                Ok(s) => {
                    let aged = View { fresh: view.begun.before(age), ..view };
                    self.shared.history.stat(view, aged, &s, "fstat");
                }
                Err(e) => self.unexpected("fstat", &e),
            }
            return;
        }
        let name = if one_in(6) { NAMES[draw(2) as usize] } else { self.file() };
        let view = self.view(None, age);
        let stat = self.kernel.stat(self.pid, name).await;
        let view = self.ended(view);
        self.tell(|| format!("stat {} {stat:?}", String::from_utf8_lossy(name)));
        match stat {
            Ok(s) => {
                self.shared.history.stat(view, view, &s, "stat");
                self.shared.history.found(name, view, Some(s.ino), "stat");
            }
            Err(e) if e.errno() == Errno::ENOENT => {
                self.shared.history.found(name, view, None, "stat");
            }
            Err(e) => self.unexpected("stat", &e),
        }
    }

    async fn chmod(&mut self) {
        let name = self.file();
        let mode = 0o600 | (self.shared.mode.fetch_add(1, Ordering::Relaxed) & 0o177) as u16;
        // These names are never given to others.
        let Ok(s) = self.kernel.stat(self.pid, name).await else { return };
        let begun = self.shared.history.begin(self.mount, Of::File(s.ino), Deed::Mode(mode));
        let done = self.kernel.chmod(self.pid, name, mode).await;
        self.shared.history.end(&begun, done.is_ok(), true);
        self.tell(|| format!("chmod {} {mode:o}: {:?}", s.ino, done.as_ref().err()));
        if let Err(e) = done {
            self.unsure("chmod", &e);
        }
    }

    async fn list(&mut self) {
        let view = self.view(None, Duration::ZERO);
        let listed = self.kernel.list(self.pid).await;
        let view = self.ended(view);
        self.tell(|| format!("list {listed:?}"));
        match listed {
            Ok(names) => {
                for name in FILES.into_iter().chain(NAMES) {
                    let to: Vec<_> = names.iter().filter(|(n, _)| n == name).map(|(_, ino)| *ino).collect();
                    if to.len() > 1 {
                        self.shared.history.accuse(format!("listed twice: {names:?}"));
                    }
                    self.shared.history.found(name, view, to.first().copied(), "list");
                }
                for _ in 0..draw(3) {
                    self.stat().await;
                }
            }
            Err(e) => self.unexpected("list", &e),
        }
    }

    /// Makes, removes, or replaces a name.
    async fn names(&mut self) {
        let name = NAMES[draw(2) as usize];
        let text = String::from_utf8_lossy(name).into_owned();
        let h = Arc::clone(&self.shared.history);
        match draw(4) {
            0 => {
                let view = self.view(None, Duration::ZERO);
                let begun = h.begin(self.mount, Of::Name(name.to_vec()), Deed::Name(None));
                let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
                let made = self.kernel.create(self.pid, name, flags).await;
                if let Ok((fd, _)) = &made {
                    h.resolve(&begun, fd.ino);
                }
                h.end(&begun, made.is_ok(), true);
                self.tell(|| {
                    format!("create {text}: {:?}", made.as_ref().map(|(_, s)| s.ino).map_err(Error::errno))
                });
                match made {
                    Ok((fd, s)) => {
                        h.found(name, self.ended(view), None, "create");
                        h.begin(self.mount, Of::File(s.ino), Deed::Mode(0o644));
                        self.held.push(Held::new(fd, h.now()));
                    }
                    Err(e) if e.errno() == Errno::EEXIST => {}
                    Err(e) => self.unsure("create", &e),
                }
            }
            1 => {
                let view = self.view(None, Duration::ZERO);
                let begun = h.begin(self.mount, Of::Name(name.to_vec()), Deed::Name(None));
                let done = self.kernel.unlink(self.pid, name).await;
                h.end(&begun, done.is_ok(), true);
                self.tell(|| format!("unlink {text}: {:?}", done.as_ref().map_err(Error::errno)));
                match done {
                    Ok(()) => {}
                    Err(e) if e.errno() == Errno::ENOENT => h.found(name, self.ended(view), None, "unlink"),
                    Err(e) => self.unsure("unlink", &e),
                }
            }
            2 => {
                let Some(n) = self.drawn(|_| true) else { return };
                let ino = self.held[n].fd.ino;
                let begun = h.begin(self.mount, Of::Name(name.to_vec()), Deed::Name(Some(ino)));
                let done = self.kernel.link(self.pid, &self.held[n].fd, name).await;
                h.end(&begun, done.is_ok(), true);
                self.tell(|| format!("link {ino} as {text}: {:?}", done.as_ref().map_err(Error::errno)));
                match done {
                    Err(e) if !matches!(e.errno(), Errno::EEXIST | Errno::ENOENT | Errno::ESTALE) => {
                        self.unsure("link", &e);
                    }
                    _ => {}
                }
            }
            _ => {
                let temporary = format!("t{}", self.pid);
                let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
                let (fd, s) = match self.kernel.create(self.pid, temporary.as_bytes(), flags).await {
                    Ok(made) => made,
                    Err(e) => return self.unsure("create", &e),
                };
                h.begin(self.mount, Of::File(s.ino), Deed::Mode(0o644));
                self.held.push(Held::new(fd, h.now()));
                let begun = h.begin(self.mount, Of::Name(name.to_vec()), Deed::Name(Some(s.ino)));
                let done = self.kernel.rename(self.pid, temporary.as_bytes(), name).await;
                h.end(&begun, done.is_ok(), true);
                self.tell(|| {
                    format!("rename {} to {text}: {:?}", s.ino, done.as_ref().map_err(Error::errno))
                });
                if let Err(e) = done {
                    self.unsure("rename", &e);
                }
            }
        }
    }

    async fn punch(&mut self) {
        let Some(n) = self.drawn(|access| access != libc::O_RDONLY) else { return };
        let (held, off, len) = (&self.held[n], draw(LONGEST), 1 + draw(120));
        let ino = held.fd.ino;
        let begun = self.shared.history.begin(self.mount, Of::File(ino), Deed::Punch { off, len });
        let from = self.shared.history.now();
        let done = self.kernel.punch(self.pid, &held.fd, off, len).await;
        self.shared.history.end(&begun, done.is_ok(), true);
        self.tell(|| format!("punch {ino} {off}+{len}: {:?}", done.as_ref().err()));
        match done {
            Ok(()) if profile().loses => {}
            Ok(()) => self.shared.history.stored(self.mount, ino, from, from),
            Err(e) => self.failed("punch", ino, &e),
        }
    }

    /// Counts under a lock: whoever has it sees what the last one has written.
    async fn count(&mut self) {
        let flock = one_in(2);
        let fd = match self.kernel.open(self.pid, COUNTER, libc::O_RDWR).await {
            Ok(fd) => fd,
            Err(e) => return self.unexpected("open", &e),
        };
        for _ in 0..=draw(2) {
            // Flocks and record locks know nothing of each other: what is counted is told by both.
            let done = async {
                self.kernel.record_lock(self.pid, &fd, F_WRLCK).await?;
                if flock {
                    self.kernel.flock(self.pid, &fd, true).await?;
                }
                let last = *self.shared.counter.lock();
                let seen = self.kernel.read(self.pid, &fd, 0, 80, true).await?;
                let right = if last == 0 { Vec::new() } else { vec![last; 1 + usize::from(last)] };
                let right = &right[..right.len().min(80)];
                if seen != *right {
                    let (seen, pid) = (shown(Ok(&seen)), self.pid);
                    self.shared.history.accuse(format!("{pid} sees {seen} under the lock, not {last}"));
                }
                let next = last + 1;
                self.kernel.write(&fd, 0, &vec![next; 1 + usize::from(next)]).await?;
                *self.shared.counter.lock() = next;
                if flock {
                    self.kernel.flock(self.pid, &fd, false).await?;
                }
                self.kernel.record_lock(self.pid, &fd, F_UNLCK).await
            };
            let done = done.await;
            self.tell(|| format!("count: {done:?}"));
            if let Err(e) = done {
                self.unexpected("counting", &e);
            }
        }
        if let Err(e) = self.kernel.close(self.pid, fd).await {
            self.unexpected("close", &e);
        }
    }

    /// Reads and writes an open file under a lock: whoever has it sees what others have written under theirs.
    async fn lock(&mut self) {
        let Some(n) = self.drawn(|access| access == libc::O_RDWR) else { return };
        let (flock, fd) = (one_in(2), self.held[n].fd.clone());
        let begun = self.shared.history.now();
        let taken = match flock {
            true => self.kernel.flock(self.pid, &fd, true).await,
            false => self.kernel.record_lock(self.pid, &fd, F_WRLCK).await,
        };
        self.tell(|| format!("lock {}: {:?}", fd.ino, taken.as_ref().err()));
        if let Err(e) = taken {
            return self.unexpected("lock", &e);
        }
        let held = &mut self.held[n];
        (held.fresh, held.asks) = (held.fresh.max(begun), true);
        for _ in 0..=draw(2) {
            self.read_of(n, 0, LONGEST).await;
            if one_in(2) {
                self.write_of(n, draw(LONGEST - 120), 1 + draw(120)).await;
            }
        }
        let from = self.shared.history.now();
        let given = match flock {
            true => self.kernel.flock(self.pid, &fd, false).await,
            false => self.kernel.record_lock(self.pid, &fd, F_UNLCK).await,
        };
        self.tell(|| format!("unlock {}: {:?}", fd.ino, given.as_ref().err()));
        match given {
            // Whether data was lost is told by `fsync` and `close`.
            Ok(()) if profile().loses => {}
            Ok(()) => self.shared.history.stored(self.mount, fd.ino, from, from),
            Err(e) => self.unexpected("unlock", &e),
        }
    }

    async fn append(&mut self) {
        let flags = libc::O_APPEND | if one_in(2) { libc::O_WRONLY } else { libc::O_RDWR };
        let fd = match self.kernel.open(self.pid, LOG, flags).await {
            Ok(fd) => fd,
            Err(e) => return self.unexpected("open", &e),
        };
        for _ in 0..=draw(3) {
            let value = self.value();
            let done = self.kernel.write(&fd, 0, &[value; RECORD as usize]).await;
            self.tell(|| format!("append {value}: {done:?}"));
            match done {
                Ok(()) => self.shared.records.lock().push((self.pid, value)),
                Err(e) => self.unexpected("append", &e),
            }
            if flags & libc::O_ACCMODE == libc::O_RDWR && one_in(3) {
                _ = self.kernel.read(self.pid, &fd, 0, LONGEST, true).await;
            }
            if one_in(3)
                && let Err(e) = self.kernel.fsync(&fd).await
            {
                self.unexpected("fsync", &e);
            }
        }
        if let Err(e) = self.kernel.close(self.pid, fd).await {
            self.unexpected("close", &e);
        }
    }

    /// Looks at everything, when nothing happens any more.
    async fn look_at_all(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for name in FILES.into_iter().chain([LOG, COUNTER]) {
            let view = self.view(None, Duration::ZERO);
            let stat = self.kernel.stat(self.pid, name).await.unwrap();
            let of_stat = self.ended(view);
            let fd = self.kernel.open(self.pid, name, libc::O_RDONLY).await.unwrap();
            let data = self.kernel.read(self.pid, &fd, 0, 4096, true).await.unwrap();
            let view = self.ended(view);
            self.kernel.close(self.pid, fd.clone()).await.unwrap();
            self.tell(|| format!("in the end {} {stat:?}: {data:?}", String::from_utf8_lossy(name)));
            if FILES.contains(&name) {
                self.shared.history.stat(of_stat, of_stat, &stat, "in the end");
                self.shared.history.read(fd.ino, view, 0, LONGEST + 100, &data, "in the end");
            }
            if data.len() as u64 != stat.size {
                self.shared.history.accuse(format!("{stat:?}, but {} bytes are read", data.len()));
            }
            if name == LOG {
                self.check_log(&data);
            }
            all.push(data);
        }
        all
    }

    fn check_log(&self, data: &[u8]) {
        let mut seen: Vec<u8> = Vec::new();
        for record in data.chunks(RECORD as usize) {
            if record.len() as u64 != RECORD || record.iter().any(|b| *b != record[0]) {
                return self.shared.history.accuse(format!("a torn record: {record:?} in {data:?}"));
            }
            seen.push(record[0]);
        }
        let records = self.shared.records.lock();
        let mut sorted: Vec<u8> = records.iter().map(|(_, v)| *v).collect();
        let mut found = seen.clone();
        sorted.sort_unstable();
        found.sort_unstable();
        if sorted != found {
            return self.shared.history.accuse(format!("appended {records:?}, found {seen:?}"));
        }
        for pid in [100, 101, 102, 103, 200, 201, 202, 203] {
            let own: Vec<u8> = records.iter().filter(|(p, _)| *p == pid).map(|(_, v)| *v).collect();
            let order: Vec<u8> = seen.iter().copied().filter(|v| own.contains(v)).collect();
            if order != own {
                self.shared.history.accuse(format!("{pid} appended {own:?}, in order {order:?}"));
            }
        }
    }
}

/// Content in short.
fn shown(read: Result<&[u8], &Error>) -> String {
    let data = match read {
        Ok(data) => data,
        Err(e) => return format!("{:?}", e.errno()),
    };
    let mut out = format!("{} bytes", data.len());
    let mut at = 0;
    for run in data.chunk_by(|a, b| a == b) {
        out += &format!(" {at}:{}", run[0]);
        at += run.len();
    }
    out
}
