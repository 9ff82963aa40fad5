//! Random operations on the content of a few files, each checked against the model.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

use crate::mapped::Mapped;
use crate::model::{Content, PAGE};
use crate::support::noise;
use crate::support::random::Rng;

/// Bytes of a chunk: slices never cross it.
const CHUNK: u64 = 64 << 20;
/// Bytes of a block of the volumes tested with.
const BLOCK: u64 = 64 << 10;
/// Where operations gather, so that they meet: the start, and the borders of chunks.
const PLACES: [(u64, u64, u64); 4] = [
    (60, 0, 1 << 20),
    (25, CHUNK - (512 << 10), CHUNK + (512 << 10)),
    (10, 2 * CHUNK - (256 << 10), 2 * CHUNK + (256 << 10)),
    (5, 0, 2 * CHUNK + (512 << 10)),
];
/// No operation goes beyond this.
const END_MAX: u64 = 2 * CHUNK + (1 << 20);
/// Handles of a file.
const HANDLES_MAX: u64 = 5;
/// Operations shown after a failure.
const SHOWN: usize = 30;

/// How a handle was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Plain,
    Append,
    Direct,
    ReadOnly,
}

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Write,
    Append,
    Read,
    MapWrite,
    MapRead,
    KeepMap,
    Truncate,
    TruncateToTail,
    Allocate,
    Punch,
    Zero,
    Collapse,
    Insert,
    Copy,
    Clone,
    Sync,
    DropCaches,
    Reopen,
    Seek,
    Show,
    HandOver,
    Length,
    Replace,
}

/// What is done how often.
pub const ALL: &[(u64, Op)] = &[
    (26, Op::Write),
    (5, Op::Append),
    (16, Op::Read),
    (7, Op::MapWrite),
    (5, Op::MapRead),
    (2, Op::KeepMap),
    (4, Op::Truncate),
    (3, Op::TruncateToTail),
    (5, Op::Allocate),
    (5, Op::Punch),
    (5, Op::Zero),
    (2, Op::Collapse),
    (2, Op::Insert),
    (7, Op::Copy),
    (2, Op::Clone),
    (6, Op::Sync),
    (3, Op::DropCaches),
    (5, Op::Reopen),
    (3, Op::Seek),
    (6, Op::Show),
    (3, Op::HandOver),
    (3, Op::Length),
    (2, Op::Replace),
];

/// What an operation did to which bytes.
struct Done {
    file: usize,
    from: u64,
    to: u64,
    text: String,
}

/// All that was done; shown when a test fails.
#[derive(Default)]
struct History(Vec<Done>);

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last operations:");
            for (n, d) in self.0.iter().enumerate().skip(self.0.len().saturating_sub(SHOWN)) {
                eprintln!("{n:6} file{} {}", d.file, d.text);
            }
        }
    }
}

struct Tested {
    content: Content,
    handles: Vec<(How, File)>,
    kept: Option<Mapped>,
    /// The mount on which it is written.
    side: usize,
}

/// Files with their models, on one or more mounts of a volume.
pub struct Exerciser {
    rng: Rng,
    roots: Vec<PathBuf>,
    files: Vec<Tested>,
    history: History,
    weights: Vec<(u64, Op)>,
}

impl Exerciser {
    /// New files `file0`, `file1`, ... on the first of the mounts. The others read what the first one writes; with
    /// [`Op::HandOver`] among the operations they write as well.
    pub fn new(seed: u64, roots: Vec<PathBuf>, files: usize, weights: Vec<(u64, Op)>) -> Self {
        let mut this =
            Self { rng: Rng::new(seed), roots, files: Vec::new(), history: History::default(), weights };
        for n in 0..files {
            this.files.push(Tested { content: Content::default(), handles: Vec::new(), kept: None, side: 0 });
            File::create(this.path(n, 0)).unwrap();
            this.open(n, How::Plain);
        }
        this
    }

    fn path(&self, f: usize, side: usize) -> PathBuf {
        self.roots[side].join(format!("file{f}"))
    }

    /// Goes on with mounts elsewhere. All handles are closed.
    pub fn close(&mut self) {
        for f in 0..self.files.len() {
            self.close_file(f);
        }
    }

    /// The mounts are elsewhere now, for looking only.
    pub fn moved_to_read(&mut self, roots: Vec<PathBuf>) {
        self.roots = roots;
    }

    /// The mounts are elsewhere now.
    pub fn moved(&mut self, roots: Vec<PathBuf>) {
        self.roots = roots;
        for f in 0..self.files.len() {
            self.files[f].side = 0;
            self.note(f, 0, 0, "mounted again".into());
            self.open(f, How::Plain);
        }
    }

    /// Does so many operations.
    pub fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            let f = self.rng.below(self.files.len() as u64) as usize;
            let op = self.rng.weighted(&self.weights);
            self.step(f, op);
        }
    }

    fn step(&mut self, f: usize, op: Op) {
        match op {
            Op::Write => self.write(f),
            Op::Append => self.append(f),
            Op::Read => self.read(f),
            Op::MapWrite => self.map_write(f),
            Op::MapRead => self.map_read(f),
            Op::KeepMap => self.keep_map(f),
            Op::Truncate => {
                let len = self.place();
                self.truncate(f, len);
            }
            Op::TruncateToTail => {
                let len = self.files[f].content.len();
                let by = self.rng.below(3 * BLOCK);
                let len = if self.rng.percent(50) { len.saturating_sub(by) } else { len + by };
                self.truncate(f, len.min(END_MAX));
            }
            Op::Allocate => self.allocate(f),
            Op::Punch => self.punch(f),
            Op::Zero => self.zero(f),
            Op::Collapse => self.collapse(f),
            Op::Insert => self.insert(f),
            Op::Copy => self.copy(f),
            Op::Clone => self.clone_range(f),
            Op::Sync => self.sync(f),
            Op::DropCaches => self.drop_caches(f),
            Op::Reopen => self.reopen(f),
            Op::Seek => self.seek(f),
            Op::Show => self.show(f),
            Op::HandOver => self.hand_over(f),
            Op::Length => self.length(f),
            Op::Replace => self.replace(f),
        }
    }

    // ---- where and how much ----

    /// An offset, often at a border of something.
    fn place(&mut self) -> u64 {
        let list = PLACES.map(|(weight, from, to)| (weight, (from, to)));
        let (from, to) = self.rng.weighted(&list);
        let at = from + self.rng.below(to - from);
        match self.rng.below(8) {
            0 => at / BLOCK * BLOCK,
            1 | 2 => at / PAGE * PAGE,
            3 => (at / CHUNK * CHUNK).max(from),
            _ => at,
        }
    }

    fn span(&mut self) -> u64 {
        match self.rng.below(10) {
            0..=2 => 1 + self.rng.below(200),
            3..=6 => 1 + self.rng.below(20_000),
            7 => BLOCK,
            8 => PAGE * (1 + self.rng.below(40)),
            _ => 1 + self.rng.below(300_000),
        }
    }

    /// An offset within the file, more or less.
    fn place_in(&mut self, f: usize) -> u64 {
        let len = self.files[f].content.len();
        let at = self.place();
        if at < len || self.rng.percent(10) { at } else { len.saturating_sub(self.rng.below(2 * BLOCK) + 1) }
    }

    fn handle(&mut self, f: usize, wanted: impl Fn(How) -> bool) -> Option<usize> {
        let list: Vec<usize> =
            (0..self.files[f].handles.len()).filter(|n| wanted(self.files[f].handles[*n].0)).collect();
        (!list.is_empty()).then(|| self.rng.pick(&list))
    }

    fn writable(&mut self, f: usize) -> usize {
        match self.handle(f, |h| matches!(h, How::Plain | How::Direct)) {
            Some(n) => n,
            None => {
                self.open(f, How::Plain);
                self.files[f].handles.len() - 1
            }
        }
    }

    fn bytes(&mut self, len: u64) -> Vec<u8> {
        noise(self.rng.next(), len as usize)
    }

    // ---- the record ----

    fn note(&mut self, file: usize, from: u64, to: u64, text: String) {
        self.history.0.push(Done { file, from, to, text });
    }

    /// Compares, and tells what had to do with the first wrong byte.
    #[track_caller]
    fn compare(&self, f: usize, what: &str, off: u64, want: &[u8], got: &[u8]) {
        if want == got {
            return;
        }
        let same = want.iter().zip(got).take_while(|(a, b)| a == b).count();
        let at = off + same as u64;
        let wrong = want.iter().zip(got).skip(same).take_while(|(a, b)| a != b).count();
        let show = |b: &[u8]| format!("{:02x?}", &b[same.min(b.len())..(same + 16).min(b.len())]);
        let mut story: Vec<String> = self
            .history
            .0
            .iter()
            .enumerate()
            .filter(|(_, d)| d.file == f && d.from <= at && at < d.to)
            .map(|(n, d)| format!("{n:6} {}", d.text))
            .collect();
        story = story.split_off(story.len().saturating_sub(SHOWN));
        let len = self.files[f].content.len();
        panic!(
            "file{f} (length {len}), {what}: {} bytes at {off}, expected {}; the first wrong one at {at} (chunk {} + {}), {wrong} wrong in a row\n\
             expected {}\nfound    {}\nwhat was done to that byte:\n{}",
            got.len(),
            want.len(),
            at / CHUNK,
            at % CHUNK,
            show(want),
            show(got),
            story.join("\n")
        );
    }

    // ---- handles ----

    fn open(&mut self, f: usize, how: How) {
        let mut o = OpenOptions::new();
        o.read(true).write(how != How::ReadOnly);
        match how {
            How::Append => _ = o.append(true),
            How::Direct => _ = o.custom_flags(libc::O_DIRECT),
            How::Plain | How::ReadOnly => {}
        }
        let file = o.open(self.path(f, self.files[f].side)).unwrap();
        self.files[f].handles.push((how, file));
    }

    fn close_file(&mut self, f: usize) {
        self.files[f].kept = None;
        self.files[f].handles.clear();
    }

    fn reopen(&mut self, f: usize) {
        let how = self.rng.pick(&[How::Plain, How::Plain, How::Append, How::Direct, How::ReadOnly]);
        let count = self.files[f].handles.len() as u64;
        if count >= HANDLES_MAX || self.rng.percent(40) {
            let n = self.rng.below(count) as usize;
            let (was, _) = self.files[f].handles.remove(n);
            self.note(f, 0, 0, format!("close {was:?}"));
        }
        self.note(f, 0, 0, format!("open {how:?}"));
        self.open(f, how);
    }

    fn sync(&mut self, f: usize) {
        if let Some(map) = &self.files[f].kept {
            map.sync(libc::MS_SYNC);
        }
        let n = self.writable(f);
        let data = self.rng.percent(30);
        self.note(f, 0, 0, (if data { "fdatasync" } else { "fsync" }).into());
        let file = &self.files[f].handles[n].1;
        if data { file.sync_data() } else { file.sync_all() }.unwrap();
    }

    fn drop_caches(&mut self, f: usize) {
        let n = self.writable(f);
        self.note(f, 0, 0, "drop caches".into());
        let file = &self.files[f].handles[n].1;
        file.sync_all().unwrap();
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed).unwrap();
    }

    // ---- content ----

    fn write(&mut self, f: usize) {
        let n = self.writable(f);
        let (mut off, mut len) = (self.place(), self.span());
        let how = self.files[f].handles[n].0;
        if how == How::Direct && self.rng.percent(70) {
            (off, len) = (off / PAGE * PAGE, len.next_multiple_of(PAGE));
        }
        let data = Aligned::new(&self.bytes(len));
        self.note(f, off, off + len, format!("write {len} at {off}, {how:?}"));
        self.files[f].handles[n].1.write_all_at(data.bytes(), off).unwrap();
        self.files[f].content.write(off, data.bytes());
    }

    fn append(&mut self, f: usize) {
        let off = self.files[f].content.len();
        let len = self.span();
        if off + len > END_MAX {
            return;
        }
        let Some(n) = self.handle(f, |h| h == How::Append) else { return self.open(f, How::Append) };
        let data = self.bytes(len);
        self.note(f, off, off + len, format!("append {len} at {off}"));
        io::Write::write_all(&mut &self.files[f].handles[n].1, &data).unwrap();
        self.files[f].content.write(off, &data);
    }

    fn read(&mut self, f: usize) {
        let count = self.files[f].handles.len() as u64;
        let n = self.rng.below(count) as usize;
        let (mut off, mut len) = (self.place_in(f), self.span());
        let how = self.files[f].handles[n].0;
        if how == How::Direct && self.rng.percent(70) {
            (off, len) = (off / PAGE * PAGE, len.next_multiple_of(PAGE));
        }
        let mut got = Aligned::new(&vec![0xaa; len as usize]);
        let want = self.files[f].content.read(off, len);
        let n = read_full(&self.files[f].handles[n].1, got.bytes_mut(), off);
        self.compare(f, &format!("read through {how:?}"), off, &want, &got.bytes()[..n]);
    }

    /// A part of the file that can be mapped.
    fn window(&mut self, f: usize) -> Option<(u64, u64)> {
        let size = self.files[f].content.len();
        let off = self.place_in(f) / PAGE * PAGE;
        let len = self.span().min(size.saturating_sub(off));
        (len > 0).then_some((off, len))
    }

    fn map_write(&mut self, f: usize) {
        let Some((base, window)) = self.window(f) else { return };
        let n = self.writable(f);
        let off = base + self.rng.below(window);
        let len = 1 + self.rng.below(base + window - off);
        let data = self.bytes(len);
        let sync = self.rng.below(3);
        self.note(f, off, off + len, format!("write {len} at {off} through a mapping, sync {sync}"));
        let map = Mapped::new(&self.files[f].handles[n].1, base, window, true);
        map.write(off, &data);
        match sync {
            0 => map.sync(libc::MS_SYNC),
            1 => map.sync(libc::MS_ASYNC),
            _ => {}
        }
        self.files[f].content.write(off, &data);
    }

    fn map_read(&mut self, f: usize) {
        if let Some(map) = self.files[f].kept.take() {
            let want = self.files[f].content.read(map.off, map.len);
            let got = map.read(map.off, map.len);
            self.compare(f, "read through a mapping kept", map.off, &want, &got);
            self.files[f].kept = Some(map);
        }
        let Some((off, len)) = self.window(f) else { return };
        let n = self.writable(f);
        let got = Mapped::new(&self.files[f].handles[n].1, off, len, false).read(off, len);
        let want = self.files[f].content.read(off, len);
        self.compare(f, "read through a mapping", off, &want, &got);
    }

    fn keep_map(&mut self, f: usize) {
        self.files[f].kept = None;
        let Some((off, len)) = self.window(f) else { return };
        let n = self.writable(f);
        self.note(f, 0, 0, format!("keep {len} at {off} mapped"));
        self.files[f].kept = Some(Mapped::new(&self.files[f].handles[n].1, off, len, false));
    }

    /// Mapped bytes behind the end of a file must not be touched.
    fn shrinking(&mut self, f: usize, len: u64) {
        if self.files[f].kept.as_ref().is_some_and(|m| m.off + m.len > len) {
            self.files[f].kept = None;
        }
    }

    fn truncate(&mut self, f: usize, len: u64) {
        self.shrinking(f, len);
        let old = self.files[f].content.len();
        let by_path = self.rng.percent(30);
        self.note(f, old.min(len), END_MAX, format!("truncate from {old} to {len}, by path: {by_path}"));
        if by_path {
            let path = self.path(f, self.files[f].side);
            OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
        } else {
            let n = self.writable(f);
            self.files[f].handles[n].1.set_len(len).unwrap();
        }
        self.files[f].content.resize(len);
    }

    fn fallocate(&mut self, f: usize, flags: FallocateFlags, off: u64, len: u64) -> Result<(), Errno> {
        let n = self.writable(f);
        rustix::fs::fallocate(&self.files[f].handles[n].1, flags, off, len)
    }

    fn allocate(&mut self, f: usize) {
        let (off, len) = (self.place(), self.span());
        let keep = self.rng.percent(50);
        self.note(f, off, off + len, format!("allocate {len} at {off}, keep size: {keep}"));
        let flags = if keep { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        self.fallocate(f, flags, off, len).unwrap();
        let content = &mut self.files[f].content;
        if !keep && off + len > content.len() {
            content.resize(off + len);
        }
    }

    fn punch(&mut self, f: usize) {
        let (off, len) = (self.place_in(f), self.span());
        self.note(f, off, off + len, format!("punch {len} at {off}"));
        self.fallocate(f, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, off, len).unwrap();
        self.files[f].content.zero(off, len);
    }

    fn zero(&mut self, f: usize) {
        let (off, len) = (self.place_in(f), self.span());
        let keep = self.rng.percent(50);
        self.note(f, off, off + len, format!("zero {len} at {off}, keep size: {keep}"));
        let mut flags = FallocateFlags::ZERO_RANGE;
        if keep {
            flags |= FallocateFlags::KEEP_SIZE;
        }
        self.fallocate(f, flags, off, len).unwrap();
        let content = &mut self.files[f].content;
        content.zero(off, len);
        if !keep && off + len > content.len() {
            content.resize(off + len);
        }
    }

    fn collapse(&mut self, f: usize) {
        let size = self.files[f].content.len();
        let (off, len) = (self.place_in(f) / BLOCK * BLOCK, self.span().next_multiple_of(BLOCK));
        if off + len >= size {
            return;
        }
        self.files[f].kept = None;
        self.note(f, off, END_MAX, format!("collapse {len} at {off}"));
        self.fallocate(f, FallocateFlags::COLLAPSE_RANGE, off, len).unwrap();
        self.files[f].content.collapse(off, len);
    }

    fn insert(&mut self, f: usize) {
        let size = self.files[f].content.len();
        let (off, len) = (self.place_in(f) / BLOCK * BLOCK, self.span().next_multiple_of(BLOCK));
        if off >= size || size + len > END_MAX {
            return;
        }
        self.files[f].kept = None;
        self.note(f, off, END_MAX, format!("insert {len} at {off}"));
        self.fallocate(f, FallocateFlags::INSERT_RANGE, off, len).unwrap();
        self.files[f].content.insert(off, len);
    }

    fn copy(&mut self, f: usize) {
        let to = self.rng.below(self.files.len() as u64) as usize;
        if self.files[f].side != self.files[to].side {
            return;
        }
        let (mut from_off, mut to_off) = (self.place_in(f), self.place());
        let len = match self.rng.below(10) {
            0 => 1 << 20,
            1 => 66 << 20,
            _ => self.span(),
        };
        let len = len.min(self.files[f].content.len().saturating_sub(from_off));
        if len > 2 << 20 {
            // Over the border of a chunk, with another border in the source and in the target.
            to_off = self.rng.below(1 << 20);
        }
        if len == 0 || to_off + len > END_MAX {
            return;
        }
        if f == to && from_off < to_off + len && to_off < from_off + len {
            (from_off, to_off) = (0, 0);
        }
        let text = format!("copy {len} from file{f} at {from_off} to file{to} at {to_off}");
        self.note(to, to_off, to_off + len, text);
        let (source, target) = (self.writable(f), self.writable(to));
        let (a, b) = (&self.files[f].handles[source].1, &self.files[to].handles[target].1);
        if f == to && from_off == to_off {
            let (mut x, mut y) = (from_off, to_off);
            let same = rustix::fs::copy_file_range(a, Some(&mut x), b, Some(&mut y), len as usize);
            assert_eq!(same, Err(Errno::INVAL), "a copy onto itself");
            return;
        }
        let (mut x, mut y, mut left) = (from_off, to_off, len);
        while left > 0 {
            let n = rustix::fs::copy_file_range(a, Some(&mut x), b, Some(&mut y), left as usize).unwrap();
            assert!(n > 0, "copied nothing");
            left -= n as u64;
        }
        let data = self.files[f].content.read(from_off, len);
        self.write_sparse(to, to_off, &data);
    }

    /// Writes into the model without pages for zeros.
    fn write_sparse(&mut self, f: usize, off: u64, data: &[u8]) {
        let content = &mut self.files[f].content;
        let end = off + data.len() as u64;
        if end > content.len() {
            content.resize(end);
        }
        content.zero(off, data.len() as u64);
        for (n, piece) in data.chunks(PAGE as usize).enumerate() {
            if piece.iter().any(|b| *b != 0) {
                content.write(off + n as u64 * PAGE, piece);
            }
        }
    }

    fn clone_range(&mut self, f: usize) {
        let to = self.rng.below(self.files.len() as u64) as usize;
        if f == to || self.files[f].side != self.files[to].side {
            return;
        }
        self.note(to, 0, END_MAX, format!("clone file{f}"));
        let (source, target) = (self.writable(f), self.writable(to));
        let (a, b) = (&self.files[f].handles[source].1, &self.files[to].handles[target].1);
        rustix::fs::ioctl_ficlone(b, a).unwrap();
        // FICLONE replaces what it covers; a longer target keeps its rest.
        let data = self.files[f].content.read(0, self.files[f].content.len());
        self.write_sparse(to, 0, &data);
    }

    // ---- looking ----

    fn length(&mut self, f: usize) {
        let n = self.writable(f);
        let found = self.files[f].handles[n].1.metadata().unwrap().len();
        assert_eq!(found, self.files[f].content.len(), "length of file{f}");
    }

    /// Data is reported wherever there is a byte that is not 0; what is reported is in order and ends at the end.
    fn seek(&mut self, f: usize) {
        let n = self.writable(f);
        let t = &self.files[f];
        let (file, size) = (&t.handles[n].1, t.content.len());
        let mut at = 0;
        while at < size {
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) => data,
                Err(Errno::NXIO) => size,
                Err(e) => panic!("SEEK_DATA from {at} in file{f}: {e}"),
            };
            assert!(data >= at && data <= size, "SEEK_DATA from {at} in file{f} of {size} bytes: {data}");
            if let Some(lost) = t.content.first_non_zero(at, data) {
                panic!("file{f}: a hole from {at} to {data} is reported; there is data at {lost}");
            }
            if data == size {
                break;
            }
            let hole = rustix::fs::seek(file, SeekFrom::Hole(data)).unwrap();
            assert!(hole > data && hole <= size, "SEEK_HOLE from {data} in file{f} of {size} bytes: {hole}");
            at = hole;
        }
        assert_eq!(rustix::fs::seek(file, SeekFrom::Data(size)), Err(Errno::NXIO));
        assert_eq!(rustix::fs::seek(file, SeekFrom::Hole(size)), Err(Errno::NXIO));
    }

    /// Another mount opens the file after a close or an fsync and sees what was written.
    fn show(&mut self, f: usize) {
        let side = self.rng.below(self.roots.len() as u64) as usize;
        let closed = self.rng.percent(50);
        self.note(f, 0, 0, format!("shown to mount {side}, closed: {closed}"));
        if closed {
            self.close_file(f);
        } else {
            self.sync(f);
        }
        self.look(f, side, false);
        if closed {
            self.open(f, How::Plain);
        }
    }

    fn hand_over(&mut self, f: usize) {
        let side = self.rng.below(self.roots.len() as u64) as usize;
        self.note(f, 0, 0, format!("handed over to mount {side}"));
        self.close_file(f);
        self.files[f].side = side;
        self.open(f, How::Plain);
        self.length(f);
    }

    /// A new file takes the place of this one.
    fn replace(&mut self, f: usize) {
        let side = self.files[f].side;
        self.close_file(f);
        let len = self.span();
        let data = self.bytes(len);
        self.note(f, 0, END_MAX, format!("replaced by {len} bytes"));
        let new = self.roots[side].join(format!("new{f}"));
        fs::write(&new, &data).unwrap();
        fs::rename(&new, self.path(f, side)).unwrap();
        self.files[f].content = Content::default();
        self.files[f].content.write(0, &data);
        self.open(f, How::Plain);
    }

    /// Opens the file on one of the mounts and compares it, all of it or the places where it is written.
    #[track_caller]
    fn look(&self, f: usize, side: usize, all: bool) {
        let what = format!("seen by mount {side}");
        let file = File::open(self.path(f, side)).unwrap();
        let content = &self.files[f].content;
        assert_eq!(file.metadata().unwrap().len(), content.len(), "length of file{f}, {what}");
        let ranges: Vec<(u64, u64)> = if all {
            vec![(0, END_MAX)]
        } else {
            PLACES[..3].iter().map(|(_, from, to)| (*from, to + BLOCK)).collect()
        };
        for (from, to) in ranges {
            let mut at = from;
            while at < to.min(content.len()) {
                let len = (to - at).min(1 << 20);
                let mut got = vec![0xaa; len as usize];
                let n = read_full(&file, &mut got, at);
                self.compare(f, &what, at, &content.read(at, len), &got[..n]);
                at += len;
            }
        }
    }

    /// Compares all files on all mounts; nothing is open any more.
    #[track_caller]
    pub fn check(&mut self) {
        self.close();
        for f in 0..self.files.len() {
            for side in 0..self.roots.len() {
                self.look(f, side, true);
            }
        }
    }
}

/// Bytes at an address that suits direct I/O.
struct Aligned {
    buffer: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    fn new(data: &[u8]) -> Self {
        let mut buffer = vec![0; data.len() + PAGE as usize];
        let from = buffer.as_ptr().align_offset(PAGE as usize);
        buffer[from..from + data.len()].copy_from_slice(data);
        Self { buffer, from, len: data.len() }
    }

    fn bytes(&self) -> &[u8] {
        &self.buffer[self.from..self.from + self.len]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.from..self.from + self.len]
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &File, buffer: &mut [u8], off: u64) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], off + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) => panic!("reading {} bytes at {}: {e}", buffer.len() - done, off + done as u64),
        }
    }
    done
}

/// Reads files here and there, for ever; what it reads is not compared, since it changes meanwhile.
pub fn wander(root: &Path, files: usize, seed: u64, stop: &std::sync::atomic::AtomicBool) {
    let mut rng = Rng::new(seed);
    let mut buffer = vec![0; 200_000];
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let path = root.join(format!("file{}", rng.below(files as u64)));
        let file = match File::open(&path) {
            Ok(file) => file,
            // Just being replaced.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => continue,
            Err(e) => panic!("{}: {e}", path.display()),
        };
        for _ in 0..rng.below(20) {
            let (_, from, to) = PLACES[rng.below(3) as usize];
            let off = from + rng.below(to - from);
            match file.read_at(&mut buffer, off) {
                Ok(_) => {}
                // It was replaced, and its data is gone.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EBADF | libc::ENOENT | libc::ESTALE)) => {
                    break;
                }
                Err(e) => panic!("{} at {off}: {e}", path.display()),
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
