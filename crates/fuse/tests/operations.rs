//! What real system calls look like when they arrive, and writes that are answered later on another thread.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "common/gate.rs"]
mod gate;

use std::fs::File;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use ciderfs_fuse::*;
use gate::can_mount;
use rustix::fs as rfs;

const TTL: Duration = Duration::from_secs(60);
const SIZE: u64 = 100_000;

/// Every name that starts with `f` and a digit is a file with that node id (plus 10). Keeps what was asked.
#[derive(Clone, Default)]
struct Spy {
    seen: Arc<Mutex<Vec<String>>>,
    /// Where writes go; answered at once if there is none.
    writes: Option<mpsc::Sender<(Request, Reply)>>,
}

impl Spy {
    fn entry(nodeid: u64, mode: u32) -> Entry {
        let attr = Attr { ino: nodeid, size: SIZE, mode, nlink: 1, blksize: 4096, ..Attr::default() };
        Entry { nodeid, generation: 0, entry_valid: TTL, attr_valid: TTL, attr }
    }

    fn file(name: &[u8]) -> Option<Entry> {
        match name {
            [b'f', digit @ b'0'..=b'9'] => {
                Some(Self::entry(10 + u64::from(digit - b'0'), libc::S_IFREG | 0o644))
            }
            _ => None,
        }
    }

    fn answer(op: Op<'_>, node: u64, reply: Reply) -> bool {
        let mode_of = |node| if node == 1 { libc::S_IFDIR | 0o755 } else { libc::S_IFREG | 0o644 };
        match op {
            Op::Lookup { name } => match Self::file(name) {
                Some(entry) => reply.entry(&entry),
                None => reply.error(libc::ENOENT),
            },
            Op::Getattr { .. } => reply.attr(&Self::entry(node, mode_of(node)).attr, TTL),
            Op::Setattr(set) => {
                let mut attr = Self::entry(node, mode_of(node)).attr;
                attr.size = set.size.unwrap_or(attr.size);
                reply.attr(&attr, TTL)
            }
            Op::Mknod { mode, .. } => reply.entry(&Self::entry(30, mode)),
            Op::Mkdir { mode, .. } => reply.entry(&Self::entry(31, libc::S_IFDIR | mode)),
            Op::Symlink { .. } => reply.entry(&Self::entry(32, libc::S_IFLNK | 0o777)),
            Op::Link { oldnode, .. } => reply.entry(&Self::entry(oldnode, libc::S_IFREG | 0o644)),
            Op::Create { mode, .. } | Op::Tmpfile { mode, .. } => {
                reply.create(&Self::entry(33, mode), Opened::new(5, 0))
            }
            Op::Open { .. } | Op::Opendir { .. } => reply.open(Opened::new(5, 0)),
            Op::Readlink => reply.readlink(b"somewhere"),
            Op::Write { data, .. } => reply.written(data.len() as u32),
            Op::Getxattr { size: 0, .. } | Op::Listxattr { size: 0 } => reply.xattr_size(7),
            Op::Getxattr { .. } => reply.xattr(b"a value"),
            Op::Listxattr { .. } => reply.xattr(b"user.a\0"),
            Op::Getlk(args) => reply.lock(&FileLock { typ: libc::F_UNLCK as u32, ..args.lock }),
            Op::Lseek { offset, .. } => reply.lseek(offset + 1),
            Op::CopyFileRange(range) | Op::CopyFileRange64(range) => reply.copied(range.len),
            Op::Ioctl { out_size, .. } => reply.ioctl(0, &[7, 0, 0, 0, 0, 0, 0, 0][..out_size as usize]),
            Op::Statfs => reply.statfs(&Statfs::default()),
            Op::Access { .. } | Op::Statx { .. } | Op::Unknown { .. } => reply.error(libc::ENOSYS),
            _ => reply.empty(),
        }
    }
}

impl Handler for Spy {
    fn handle(&self, req: Request, reply: Reply) {
        let node = req.header().nodeid;
        let op = req.op().unwrap();
        if let (Op::Write { .. }, Some(writes)) = (&op, &self.writes) {
            writes.send((req, reply)).unwrap();
            return;
        }
        self.seen.lock().unwrap().push(format!("{node} {op:?}"));
        Self::answer(op, node, reply);
    }
}

struct Mounted {
    spy: Spy,
    guard: MountGuard,
    session: SessionHandle,
    dir: tempfile::TempDir,
}

impl Mounted {
    fn new(spy: Spy, config: SessionConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (fd, guard) = mount::mount(dir.path(), &MountOptions::default()).unwrap();
        let session = Session::new(fd, config, spy.clone()).unwrap().spawn().unwrap();
        Self { spy, guard, session, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self, name: &str) -> File {
        File::options().read(true).write(true).open(self.path(name)).unwrap()
    }

    /// The one thing seen that begins like this.
    fn saw(&self, start: &str) -> String {
        let seen = self.spy.seen.lock().unwrap();
        let mut found = seen.iter().filter(|s| s.starts_with(start));
        let first = found.next().unwrap_or_else(|| panic!("no {start:?} in {seen:#?}"));
        assert!(found.next().is_none(), "more than one {start:?} in {seen:#?}");
        first.clone()
    }

    fn saw_with(&self, start: &str, parts: &[&str]) {
        let text = self.saw(start);
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }

    fn finish(mut self) {
        self.guard.unmount(true).unwrap();
        self.session.join().unwrap();
    }
}

#[test]
fn names_and_nodes() {
    if !can_mount() {
        return;
    }
    let m = Mounted::new(Spy::default(), SessionConfig::default());
    let at = File::open(m.dir.path()).unwrap();
    std::fs::create_dir(m.path("newdir")).unwrap();
    m.saw_with("1 Mkdir", &["name: [110, 101, 119, 100, 105, 114]"]);
    rfs::mknodat(&at, "fifo", rfs::FileType::Fifo, rfs::Mode::from(0o600), 0).unwrap();
    m.saw_with("1 Mknod", &[&format!("mode: {}", libc::S_IFIFO | 0o600)]);
    std::os::unix::fs::symlink("b", m.path("a")).unwrap();
    m.saw_with("1 Symlink", &["name: [97], target: [98]"]);
    assert_eq!(std::fs::read_link(m.path("a")).unwrap(), PathBuf::from("somewhere"));
    std::fs::hard_link(m.path("f1"), m.path("l")).unwrap();
    m.saw_with("1 Link", &["oldnode: 11, newname: [108]"]);
    std::fs::rename(m.path("f1"), m.path("g")).unwrap();
    m.saw_with("1 Rename ", &["name: [102, 49], newdir: 1, newname: [103]"]);
    rfs::renameat_with(&at, "f2", &at, "h", rfs::RenameFlags::NOREPLACE).unwrap();
    m.saw_with("1 Rename2", &["newname: [104], flags: 1"]);
    std::fs::remove_file(m.path("f3")).unwrap();
    m.saw_with("1 Unlink", &["name: [102, 51]"]);
    std::fs::remove_dir(m.path("newdir")).unwrap();
    m.saw("1 Rmdir");
    drop(File::create_new(m.path("c")).unwrap());
    m.saw_with("1 Create", &["name: [99]", &format!("mode: {}", libc::S_IFREG | 0o644)]);
    rfs::openat(&at, ".", rfs::OFlags::TMPFILE | rfs::OFlags::RDWR, rfs::Mode::from(0o600)).unwrap();
    m.saw_with("1 Tmpfile", &[&format!("mode: {}", libc::S_IFREG | 0o600)]);
    at.sync_all().unwrap();
    m.saw_with("1 Fsyncdir", &["fh: 5, datasync: false"]);
    drop(at);
    m.finish();
}

#[test]
fn attributes() {
    if !can_mount() {
        return;
    }
    let m = Mounted::new(Spy::default(), SessionConfig::default());
    let file = m.open("f1");
    file.set_len(500).unwrap();
    m.saw_with("11 Setattr", &["size: Some(500)", "fh: Some(5)", "mode: None"]);
    rfs::utimensat(
        rfs::CWD,
        m.path("f2"),
        &rfs::Timestamps {
            last_access: rfs::Timespec { tv_sec: -3, tv_nsec: 4 },
            last_modification: rfs::Timespec { tv_sec: 0, tv_nsec: rfs::UTIME_NOW },
        },
        rfs::AtFlags::empty(),
    )
    .unwrap();
    m.saw_with("12 Setattr", &["atime: Some(At(Timestamp { secs: -3, nanos: 4 }))", "mtime: Some(Now)"]);
    std::os::unix::fs::chown(m.path("f3"), Some(12), None).unwrap();
    m.saw_with("13 Setattr", &["uid: Some(12), gid: None"]);
    rfs::setxattr(m.path("f1"), "user.a", b"a value", rfs::XattrFlags::CREATE).unwrap();
    m.saw_with("11 Setxattr", &["value: [97, 32, 118, 97, 108, 117, 101], flags: 1"]);
    let mut room = [0u8; 20];
    let n = rfs::getxattr(m.path("f1"), "user.a", &mut room[..]).unwrap();
    assert_eq!(&room[..n], b"a value");
    assert_eq!(rfs::getxattr_query(m.path("f1"), "user.a").unwrap(), 7);
    assert_eq!(rfs::listxattr(m.path("f1"), &mut room[..]).unwrap(), 7);
    rfs::removexattr(m.path("f1"), "user.a").unwrap();
    m.saw("11 Removexattr { name: [117"); // not the security.capability of ftruncate
    assert_eq!(rfs::ioctl_getflags(&file).unwrap().bits(), 7);
    m.saw_with("11 Ioctl", &["fh: 5"]);
    assert_eq!(rfs::statfs(m.path("f1")).unwrap().f_bsize, 4096);
    drop(file);
    m.finish();
}

#[test]
fn handles_and_locks() {
    if !can_mount() {
        return;
    }
    let m = Mounted::new(Spy::default(), SessionConfig::default());
    let file = m.open("f1");
    assert_eq!(file.write_at(b"data", 9).unwrap(), 4);
    m.saw_with("11 Write", &["offset: 9, data: [100, 97, 116, 97]", "cached: false"]);
    file.sync_data().unwrap();
    m.saw_with("11 Fsync", &["fh: 5, datasync: true"]);
    rfs::fallocate(&file, rfs::FallocateFlags::KEEP_SIZE, 10, 20).unwrap();
    m.saw_with("11 Fallocate", &["offset: 10, length: 20, mode: 1"]);
    assert_eq!(rfs::seek(&file, rfs::SeekFrom::Data(40)).unwrap(), 41);
    m.saw_with("11 Lseek", &["offset: 40, whence: 3"]);
    let other = m.open("f2");
    let copied = rfs::copy_file_range(&file, Some(&mut 0), &other, Some(&mut 7), 50).unwrap();
    assert_eq!(copied, 50);
    m.saw_with("11 CopyFileRange", &["node_out: 12", "off_out: 7, len: 50"]);

    rfs::flock(&file, rfs::FlockOperation::LockExclusive).unwrap();
    m.saw_with("11 Setlkw", &["flags: 1", &format!("typ: {}", libc::F_WRLCK)]);
    rfs::fcntl_lock(&other, rfs::FlockOperation::NonBlockingLockShared).unwrap();
    m.saw_with("12 Setlk", &["flags: 0", &format!("typ: {}", libc::F_RDLCK)]);
    drop((file, other));
    m.finish();
}

#[test]
fn writes_are_answered_later_elsewhere() {
    if !can_mount() {
        return;
    }
    const WRITERS: usize = 6;
    let (tx, rx) = mpsc::channel::<(Request, Reply)>();
    let spy = Spy { writes: Some(tx), ..Spy::default() };
    // Fewer buffers than requests in flight: the rest gets allocations of its own.
    let m = Mounted::new(spy, SessionConfig { buffers: 1, threads: Some(2), ..SessionConfig::default() });
    let monitor = m.session.monitor();
    let worker = std::thread::spawn(move || {
        // All are in flight before the first is answered.
        let held: Vec<_> = (0..WRITERS).map(|_| rx.recv().unwrap()).collect();
        let full = monitor.buffers();
        assert_eq!(monitor.in_flight(), WRITERS);
        for (req, reply) in held {
            let node = req.header().nodeid;
            let data = req.into_data();
            assert_eq!(data.len(), 1 << 20);
            assert!(data.iter().all(|&b| u64::from(b) == node));
            assert!(reply.written(data.len() as u32));
        }
        (full, monitor.buffers())
    });
    std::thread::scope(|scope| {
        for i in 0..WRITERS {
            let file = m.open(&format!("f{i}"));
            scope.spawn(move || {
                // From a page boundary on, else the kernel splits the request.
                let mut room = vec![10 + i as u8; (1 << 20) + 4096];
                let start = room.as_mut_ptr().align_offset(4096);
                assert_eq!(file.write_at(&room[start..][..1 << 20], 0).unwrap(), 1 << 20);
            });
        }
    });
    let (full, after) = worker.join().unwrap();
    assert_eq!((full.limit, full.allocated, full.idle), (3, 3, 0));
    assert_eq!(full.overflows, WRITERS as u64 - 1);
    assert!(after.idle >= 1, "{after:?}");
    m.finish();
}

#[test]
fn only_root_and_one_user_are_served() {
    use std::os::unix::process::CommandExt;
    if !can_mount() || !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = MountOptions { allow_root: true, ..MountOptions::default() };
    let (fd, mut guard) = mount::mount(dir.path(), &options).unwrap();
    let config = SessionConfig { only_uid: Some(1), ..SessionConfig::default() };
    let session = Session::new(fd, config, Spy::default()).unwrap().spawn().unwrap();
    for (uid, admitted) in [(0, true), (1, true), (2, false)] {
        let mut stat = std::process::Command::new("stat");
        let out = stat.arg(dir.path().join(format!("f{uid}"))).uid(uid).gid(uid).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.success(), admitted, "user {uid}: {text}");
        assert!(admitted || text.contains("Permission denied"), "{text}");
    }
    guard.unmount(true).unwrap();
    session.join().unwrap();
}

#[test]
fn an_answer_in_very_many_pieces() {
    struct Pieces;
    impl Handler for Pieces {
        fn handle(&self, req: Request, reply: Reply) {
            let node = req.header().nodeid;
            match req.op().unwrap() {
                Op::Read { size, .. } => {
                    let bytes: Vec<u8> = (0..size).map(|i| i as u8).collect();
                    let pieces: Vec<_> = bytes.chunks(2).map(IoSlice::new).collect();
                    assert!(pieces.len() > 1000);
                    reply.data_vectored(&pieces);
                }
                op => _ = Spy::answer(op, node, reply),
            }
        }
    }
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (fd, mut guard) = mount::mount(dir.path(), &MountOptions::default()).unwrap();
    let session = Session::new(fd, SessionConfig::default(), Pieces).unwrap().spawn().unwrap();
    let mut page = [1; 4096];
    File::open(dir.path().join("f1")).unwrap().read_exact_at(&mut page, 4096).unwrap();
    assert!(page.iter().enumerate().all(|(i, &b)| b == i as u8));
    guard.unmount(true).unwrap();
    session.join().unwrap();
}
