use std::io;

use parking_lot::Mutex;

use super::*;
use crate::attr::Timestamp;

/// Keeps what was sent: (unique, error, payload).
#[derive(Default)]
struct Recorder {
    sent: Mutex<Vec<(u64, i32, Vec<u8>)>>,
    /// Error number to fail with.
    fail: Option<i32>,
}

impl ReplyChannel for Recorder {
    fn send(&self, unique: u64, error: i32, payload: &[IoSlice<'_>]) -> io::Result<()> {
        self.sent.lock().push((unique, error, payload.iter().flat_map(|p| p.to_vec()).collect()));
        self.fail.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }
}

fn reply(channel: &Arc<Recorder>, opcode: u32) -> Reply {
    Reply::new(4, opcode, channel.clone(), Arc::new(Inflight::default()))
}

/// What one answer to `opcode` sends.
fn sent(opcode: u32, answer: impl FnOnce(Reply) -> bool) -> (i32, Vec<u8>) {
    let channel = Arc::new(Recorder::default());
    assert!(answer(reply(&channel, opcode)));
    let mut all = channel.sent.lock();
    assert_eq!(all.len(), 1, "exactly one answer");
    let (unique, error, payload) = all.remove(0);
    assert_eq!(unique, 4);
    (error, payload)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn sample() -> Attr {
    Attr {
        ino: 11,
        size: 22,
        blocks: 33,
        atime: Timestamp { secs: -1, nanos: 1 },
        mtime: Timestamp { secs: 2, nanos: 3 },
        ctime: Timestamp { secs: 4, nanos: 5 },
        mode: 0o100644,
        nlink: 2,
        uid: 1000,
        gid: 100,
        rdev: 0x0123_45ab,
        blksize: 4096,
        flags: 0,
    }
}

#[test]
fn errors() {
    assert_eq!(sent(opcode::LOOKUP, |r| r.error(libc::ENOENT)), (-libc::ENOENT, vec![]));
    for wrong in [0, -2, 512, i32::MIN] {
        assert_eq!(sent(opcode::LOOKUP, |r| r.error(wrong)).0, -libc::EIO);
    }
    assert_eq!(sent(opcode::FLUSH, Reply::empty), (0, vec![]));
}

#[test]
fn entries_and_attributes() {
    let entry = Entry {
        nodeid: 7,
        generation: 8,
        entry_valid: Duration::from_millis(1500),
        attr_valid: Duration::from_secs(2),
        attr: sample(),
    };
    let (_, out) = sent(opcode::LOOKUP, |r| r.entry(&entry));
    assert_eq!(out.len(), 128);
    assert_eq!([0, 8, 16, 24, 40, 48, 56].map(|at| u64_at(&out, at)), [7, 8, 1, 2, 11, 22, 33]);
    assert_eq!(u32_at(&out, 32), 500_000_000);
    assert_eq!(u64_at(&out, 64), u64::MAX);
    assert_eq!(
        [88, 92, 96, 100, 104, 108, 112].map(|at| u32_at(&out, at)),
        [1, 3, 5, 0o100644, 2, 1000, 100]
    );
    assert_eq!([116, 120].map(|at| u32_at(&out, at)), [0x0123_45ab, 4096]);

    let (_, negative) = sent(opcode::LOOKUP, |r| r.entry(&Entry::negative(Duration::from_secs(3))));
    assert_eq!((u64_at(&negative, 0), u64_at(&negative, 16)), (0, 3));

    let (_, attr) = sent(opcode::GETATTR, |r| r.attr(&sample(), Duration::from_millis(1001)));
    assert_eq!((attr.len(), u64_at(&attr, 0), u32_at(&attr, 8)), (104, 1, 1_000_000));
    assert_eq!(attr[16..], out[40..]);

    let (_, created) = sent(opcode::CREATE, |r| r.create(&entry, Opened::new(9, 3)));
    assert_eq!(created[..128], out[..]);
    assert_eq!((created.len(), u64_at(&created, 128), u32_at(&created, 136)), (144, 9, 3));

    let statx = Statx { attr: sample(), mask: Statx::BASIC_STATS, ..Statx::default() };
    let (_, out) = sent(opcode::STATX, |r| r.statx(&statx, Duration::from_secs(1)));
    assert_eq!((out.len(), u64_at(&out, 0), u32_at(&out, 32)), (288, 1, 0x7ff));
    // The kernel's device number 0x012345ab is major 0x345, minor 0x012ab.
    assert_eq!(statx.to_wire().rdev_major, 0x345);
    assert_eq!(statx.to_wire().rdev_minor, 0x12ab);
}

#[test]
fn data() {
    assert_eq!(sent(opcode::READ, |r| r.data(b"abc")).1, b"abc");
    let pieces = [Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")];
    assert_eq!(sent(opcode::READ, |r| r.data_bytes(&pieces)).1, b"abc");
    assert_eq!(sent(opcode::READ, |r| r.data_bytes(&[])).1, b"");
    assert_eq!(sent(opcode::READ, |r| r.data_bytes(&pieces[..1])).1, b"ab");
    let slices = [IoSlice::new(b"x"), IoSlice::new(b"yz")];
    assert_eq!(sent(opcode::READ, |r| r.data_vectored(&slices)).1, b"xyz");
    assert_eq!(sent(opcode::READLINK, |r| r.readlink(b"to")).1, b"to");
    assert_eq!(sent(opcode::GETXATTR, |r| r.xattr(b"v")).1, b"v");
    let mut dir = DirBuffer::new(100);
    assert!(dir.push(1, 1, 4, b"."));
    assert_eq!(sent(opcode::READDIR, |r| r.directory(&dir)).1, dir.as_bytes());
}

#[test]
fn numbers() {
    let (_, out) = sent(opcode::OPEN, |r| r.open(Opened { fh: 5, flags: 2, backing_id: -1 }));
    assert_eq!((out.len(), u64_at(&out, 0), u32_at(&out, 8), u32_at(&out, 12)), (16, 5, 2, u32::MAX));
    let (_, out) = sent(opcode::WRITE, |r| r.written(77));
    assert_eq!((out.len(), u32_at(&out, 0)), (8, 77));
    let (_, out) = sent(opcode::COPY_FILE_RANGE, |r| r.copied(5 << 32));
    assert_eq!((out.len(), u32_at(&out, 0), u32_at(&out, 4)), (8, u32::MAX, 0));
    let (_, out) = sent(opcode::COPY_FILE_RANGE_64, |r| r.copied(5 << 32));
    assert_eq!((out.len(), u64_at(&out, 0)), (8, 5 << 32));
    let (_, out) = sent(opcode::GETXATTR, |r| r.xattr_size(12));
    assert_eq!((out.len(), u32_at(&out, 0)), (8, 12));
    let (_, out) = sent(opcode::LSEEK, |r| r.lseek(1 << 40));
    assert_eq!((out.len(), u64_at(&out, 0)), (8, 1 << 40));
    let (_, out) = sent(opcode::POLL, |r| r.poll(5));
    assert_eq!((out.len(), u32_at(&out, 0)), (8, 5));
    let (_, out) = sent(opcode::BMAP, |r| r.bmap(6));
    assert_eq!((out.len(), u64_at(&out, 0)), (8, 6));
    let (_, out) = sent(opcode::IOCTL, |r| r.ioctl(-1, b"out"));
    assert_eq!((out.len(), u32_at(&out, 0), &out[16..]), (19, u32::MAX, &b"out"[..]));
    let lock = FileLock { start: 1, end: 2, typ: 1, pid: 3 };
    let (_, out) = sent(opcode::GETLK, |r| r.lock(&lock));
    assert_eq!((out.len(), u64_at(&out, 8), u32_at(&out, 16), u32_at(&out, 20)), (24, 2, 1, 3));
    let (_, out) = sent(opcode::STATFS, |r| r.statfs(&Statfs { blocks: 10, ..Statfs::default() }));
    assert_eq!((out.len(), u64_at(&out, 0)), (80, 10));
    assert_eq!([40, 44, 48].map(|at| u32_at(&out, at)), [4096, 255, 4096]);
}

#[test]
fn dropped_unanswered_is_eio() {
    let channel = Arc::new(Recorder::default());
    let one = reply(&channel, opcode::READ);
    let inflight = one.inflight.clone();
    assert_eq!(inflight.len(), 1);
    drop(one);
    assert_eq!(*channel.sent.lock(), [(4, -libc::EIO, vec![])]);
    assert_eq!(inflight.len(), 0);
}

#[test]
fn dropped_by_a_process_that_has_left_it_is_not_answered() {
    let channel = Arc::new(Recorder::default());
    let one = reply(&channel, opcode::SETLKW);
    let inflight = one.inflight.clone();
    inflight.leave();
    drop(one);
    assert!(channel.sent.lock().is_empty());
    assert_eq!(inflight.len(), 0);
}

#[test]
fn forget_has_no_answer() {
    let channel = Arc::new(Recorder::default());
    drop(reply(&channel, opcode::FORGET));
    reply(&channel, opcode::BATCH_FORGET).empty();
    assert!(channel.sent.lock().is_empty());
}

#[test]
fn refused_answers_are_reported() {
    let gone = Arc::new(Recorder { fail: Some(libc::ENOENT), ..Recorder::default() });
    assert!(!reply(&gone, opcode::LOOKUP).entry(&Entry::default()));
    assert_eq!(gone.sent.lock().len(), 1);
    // Refused for another reason: the caller gets an error rather than waiting for ever.
    let bad = Arc::new(Recorder { fail: Some(libc::EINVAL), ..Recorder::default() });
    assert!(!reply(&bad, opcode::READ).data(b"too much"));
    assert_eq!(bad.sent.lock()[1], (4, -libc::EIO, vec![]));
}

#[test]
fn replies_move_between_threads() {
    fn movable<T: Send + Sync + 'static>() {}
    movable::<Reply>();
    movable::<crate::Request>();
    movable::<InterruptFlag>();
    movable::<crate::Notifier>();
}
