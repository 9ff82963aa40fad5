//! A tiny read-only file system in memory, with files that misbehave on request.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod gate;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use ciderfs_fuse::*;
pub use gate::can_mount;

pub const BIG: usize = (5 << 20) + 123;
pub const HELLO: &[u8] = b"hello, fuse\n";
const TTL: Duration = Duration::from_secs(1);

/// Names in the root directory; node ids follow from 2 on.
pub const NAMES: [&str; 6] = ["hello", "big", "block", "panic", "lost", "sub"];

pub fn big_byte(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

#[derive(Default)]
pub struct State {
    pub inits: AtomicUsize,
    pub destroys: AtomicUsize,
    pub largest_read: AtomicUsize,
    pub interrupted: AtomicUsize,
    pub forgets: AtomicUsize,
    /// Set once a read of `block` is being served.
    pub blocking: Mutex<bool>,
    pub blocking_changed: Condvar,
}

#[derive(Clone, Default)]
pub struct MemFs(pub Arc<State>);

impl MemFs {
    fn attr(ino: u64) -> Option<Attr> {
        let (mode, size) = match ino {
            1 | 7 => (libc::S_IFDIR | 0o755, 4096),
            2 => (libc::S_IFREG | 0o644, HELLO.len()),
            3 => (libc::S_IFREG | 0o644, BIG),
            4..=6 => (libc::S_IFREG | 0o644, 100),
            _ => return None,
        };
        let mtime = Timestamp { secs: 1_600_000_000, nanos: 42 };
        let size = size as u64;
        Some(Attr {
            ino,
            size,
            blocks: size.div_ceil(512),
            mtime,
            mode,
            nlink: 1,
            blksize: 4096,
            ..Attr::default()
        })
    }

    fn entry(ino: u64) -> Option<Entry> {
        let attr = Self::attr(ino)?;
        Some(Entry { nodeid: ino, generation: 0, entry_valid: TTL, attr_valid: TTL, attr })
    }

    /// (node id, name) of every record of a directory.
    fn list(dir: u64) -> Vec<(u64, &'static str)> {
        let mut all = vec![(dir, "."), (1, "..")];
        if dir == 1 {
            all.extend((2..).zip(NAMES));
        }
        all
    }

    fn block(&self, reply: Reply) {
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let wake = state.clone();
        reply.on_interrupt(Box::new(move || {
            *wake.0.lock().unwrap() = true;
            wake.1.notify_all();
        }));
        *self.0.blocking.lock().unwrap() = true;
        self.0.blocking_changed.notify_all();
        let woken = state.0.lock().unwrap();
        let wait = state.1.wait_timeout_while(woken, Duration::from_secs(60), |woken| !*woken).unwrap();
        assert!(!wait.1.timed_out(), "never interrupted");
        assert!(reply.is_interrupted());
        self.0.interrupted.fetch_add(1, Ordering::SeqCst);
        reply.error(libc::EINTR);
    }

    fn read(&self, ino: u64, offset: u64, size: u32, reply: Reply) {
        self.0.largest_read.fetch_max(size as usize, Ordering::SeqCst);
        let offset = offset as usize;
        match ino {
            2 => _ = reply.data(&HELLO[offset.min(HELLO.len())..]),
            3 => {
                let end = (offset + size as usize).min(BIG);
                let data: Vec<u8> = (offset.min(end)..end).map(big_byte).collect();
                // In pieces, to go through the vectored path.
                let pieces: Vec<_> = data.chunks(64 << 10).map(std::io::IoSlice::new).collect();
                reply.data_vectored(&pieces);
            }
            4 => self.block(reply),
            5 => panic!("as the test wants"),
            _ => drop(reply),
        }
    }
}

impl Handler for MemFs {
    fn init(&self, negotiated: &Negotiated) {
        assert!(negotiated.minor >= 31);
        self.0.inits.fetch_add(1, Ordering::SeqCst);
    }

    fn destroy(&self) {
        self.0.destroys.fetch_add(1, Ordering::SeqCst);
    }

    fn handle(&self, req: Request, reply: Reply) {
        let node = req.header().nodeid;
        let op = match req.op() {
            Ok(op) => op,
            Err(e) => {
                reply.error(e.errno());
                return;
            }
        };
        match op {
            Op::Lookup { name } => {
                let at = NAMES.iter().position(|n| n.as_bytes() == name).filter(|_| node == 1);
                match at.and_then(|at| Self::entry(at as u64 + 2)) {
                    Some(entry) => reply.entry(&entry),
                    None => reply.error(libc::ENOENT),
                }
            }
            Op::Forget { .. } | Op::BatchForget(_) => self.0.forgets.fetch_add(1, Ordering::SeqCst) == 0,
            Op::Getattr { .. } => match Self::attr(node) {
                Some(attr) => reply.attr(&attr, TTL),
                None => reply.error(libc::ENOENT),
            },
            // A buffered read is a background request, which the kernel never interrupts.
            Op::Open { .. } if node == 4 => reply.open(Opened::new(77, abi::fopen::DIRECT_IO)),
            Op::Open { .. } | Op::Opendir { .. } => reply.open(Opened::new(77, 0)),
            Op::Read { fh, offset, size, .. } => {
                assert_eq!(fh, 77);
                self.read(node, offset, size, reply);
                true
            }
            Op::Readdir { offset, size, .. } => {
                let mut out = DirBuffer::new(size);
                for (i, (ino, name)) in Self::list(node).iter().enumerate().skip(offset as usize) {
                    let dtype = dtype_of_mode(Self::attr(*ino).unwrap().mode);
                    if !out.push(*ino, i as u64 + 1, dtype, name.as_bytes()) {
                        break;
                    }
                }
                reply.directory(&out)
            }
            Op::Readdirplus { offset, size, .. } => {
                let mut out = DirPlusBuffer::new(size);
                for (i, (ino, name)) in Self::list(node).iter().enumerate().skip(offset as usize) {
                    let mut entry = Self::entry(*ino).unwrap();
                    if name.starts_with('.') {
                        entry.nodeid = 0;
                    }
                    if !out.push(&entry, *ino, i as u64 + 1, dtype_of_mode(entry.attr.mode), name.as_bytes())
                    {
                        break;
                    }
                }
                reply.directory_plus(&out)
            }
            Op::Statfs => {
                reply.statfs(&Statfs { blocks: 1000, bfree: 500, bavail: 400, ..Statfs::default() })
            }
            Op::Release { .. } | Op::Releasedir { .. } | Op::Flush { .. } => reply.empty(),
            _ => reply.error(libc::ENOSYS),
        };
    }
}

pub struct Mounted {
    pub dir: tempfile::TempDir,
    pub guard: MountGuard,
    pub session: SessionHandle,
    pub state: Arc<State>,
}

impl Mounted {
    pub fn new(config: SessionConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fs = MemFs::default();
        let options =
            MountOptions { fsname: "mem:a b".into(), subtype: "cidertest".into(), ..MountOptions::default() };
        let (fd, guard) = mount::mount(dir.path(), &options).unwrap();
        let state = fs.0.clone();
        let session = Session::new(fd, config, fs).unwrap().spawn().unwrap();
        Self { dir, guard, session, state }
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Unmounts and waits until the session ended.
    pub fn finish(mut self) -> Arc<State> {
        self.guard.unmount(true).unwrap();
        self.session.join().unwrap();
        assert_eq!(self.state.destroys.load(Ordering::SeqCst), 1);
        self.state
    }
}
