//! Two mounts of one volume: what a reader may rely on while another client writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::client::wait_for;
use support::random::Rng;
use support::{Engine, Volume, noise};

on_engines!(
    a_file_that_grew_elsewhere_is_not_cut_at_the_length_known_here,
    a_file_replaced_elsewhere_is_opened_by_its_name_at_once,
    a_name_that_is_replaced_all_the_time_is_always_opened,
    a_deleted_file_is_opened_again_through_its_descriptor,
    an_open_sees_what_another_mount_closed_whatever_this_one_did_meanwhile,
    an_open_sees_what_another_mount_closed_while_others_open_the_file_too,
    a_listing_that_goes_on_does_not_take_back_what_an_open_has_seen,
    who_opens_a_file_that_has_grown_need_not_ask_for_its_length,
    readers_of_a_file_that_grows_all_the_time_read_what_fstat_told,
    a_reader_sees_one_version_of_a_file_that_is_replaced,
    a_reader_of_a_file_that_grows_sees_a_prefix_of_it,
    a_reader_of_a_file_that_is_cut_and_grows_again_sees_bytes_or_zeros,
    appends_of_two_mounts_without_a_lock_all_arrive,
    a_log_that_another_mount_cuts_goes_on_at_its_new_end,
);

fn a_file_that_grew_elsewhere_is_not_cut_at_the_length_known_here(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let (writer, reader) = (volume.mount(&[]), volume.mount(&[]));
    for round in 1..20_usize {
        let data = noise(round as u64, round * 1000);
        fs::write(writer.join("f"), &data).unwrap();
        // Opening sees what the last close left, whatever the kernel remembers of the attributes.
        let open = File::open(reader.join("f")).unwrap();
        assert_eq!(open.metadata().unwrap().len(), data.len() as u64, "round {round}");
        assert!(fs::read(reader.join("f")).unwrap() == data, "round {round}");
    }
    reader.unmount();
    writer.unmount();
    volume.check();
}

fn a_file_replaced_elsewhere_is_opened_by_its_name_at_once(engine: Engine) {
    for trash in ["--trash-days=0", "--trash-days=1"] {
        let volume = Volume::new(engine, &[trash]);
        let (writer, reader) = (volume.mount(&[]), volume.mount(&[]));
        fs::write(writer.join("f"), b"0").unwrap();
        let mut held = Vec::new();
        for round in 1..12_u32 {
            // The name is in the kernel's cache, every other time with the file open as well.
            let open = File::open(reader.join("f")).unwrap();
            if round.is_multiple_of(2) {
                held.push((open, (round - 1).to_string()));
            }
            fs::write(writer.join("new"), round.to_string()).unwrap();
            fs::rename(writer.join("new"), writer.join("f")).unwrap();
            assert_eq!(fs::read_to_string(reader.join("f")).unwrap(), round.to_string(), "{trash}");
            let inode = |m: &support::Mount| fs::metadata(m.join("f")).unwrap().ino();
            assert_eq!(inode(&reader), inode(&writer), "{trash}");
        }
        drop(held);
        reader.unmount();
        writer.unmount();
    }
}

/// As `mv` over a file in a tight loop: other mounts open, ask and change it by its name meanwhile.
fn a_name_that_is_replaced_all_the_time_is_always_opened(engine: Engine) {
    const OPENS: u32 = 1500;
    for trash in ["--trash-days=0", "--trash-days=1"] {
        let volume = Volume::new(engine, &[trash]);
        let (writer, reader) = (volume.mount(&[]), volume.mount(&[]));
        fs::write(writer.join("f"), b"0").unwrap();
        let done = AtomicBool::new(false);
        let (mut gone, mut read) = (0, 0);
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut n = 0_u32;
                while !done.load(Ordering::Acquire) {
                    n += 1;
                    fs::write(writer.join("new"), n.to_string()).unwrap();
                    fs::rename(writer.join("new"), writer.join("f")).unwrap();
                }
            });
            let _ends = Ends(&done);
            let name = reader.join("f");
            for round in 0..OPENS {
                let mut how = fs::OpenOptions::new();
                how.read(true).write(round % 4 == 1).create(round % 4 == 2);
                let mut f = how.write(round % 4 == 2 || round % 4 == 1).open(&name).unwrap();
                assert!(f.metadata().unwrap().len() > 0, "{trash}");
                let mut text = String::new();
                match f.read_to_string(&mut text) {
                    Ok(_) => {
                        assert!(text.parse::<u32>().is_ok(), "{trash}: {text:?}");
                        read += 1;
                    }
                    // Clients do not tell one another what they have open: without a trash the data is gone.
                    Err(e) => {
                        assert_eq!(e.raw_os_error(), Some(libc::ESTALE), "{trash}");
                        gone += 1;
                    }
                }
                fs::metadata(&name).unwrap();
                if round % 4 == 3 {
                    fs::set_permissions(&name, fs::Permissions::from_mode(0o640)).unwrap();
                }
            }
        });
        assert!(read > 0, "{trash}: {gone} of {OPENS} were gone");
        reader.unmount();
        writer.unmount();
        volume.check();
    }
}

/// Tells others to end, also if a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn a_deleted_file_is_opened_again_through_its_descriptor(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    fs::write(mount.join("f"), b"still here").unwrap();
    let open = File::open(mount.join("f")).unwrap();
    fs::remove_file(mount.join("f")).unwrap();
    let again = format!("/proc/self/fd/{}", open.as_raw_fd());
    for _ in 0..3 {
        assert_eq!(fs::read(&again).unwrap(), b"still here");
    }
    drop(open);
    mount.unmount();
    volume.check();
}

/// Bytes of a chunk; each has a list of its own.
const CHUNK: u64 = 64 << 20;

/// A mount has pages of a file, another one changes the file without changing its length, and the first one does something that
/// tells it the file's new time: that must not be mistaken for having dropped the pages.
fn an_open_sees_what_another_mount_closed_whatever_this_one_did_meanwhile(engine: Engine) {
    let volume = Volume::new(engine, &["--block-size=64K"]);
    let (writer, reader) = (volume.mount(&[]), volume.mount(&[]));
    type Deed = (&'static str, fn(&Path, &File));
    let deeds: &[Deed] = &[
        ("read elsewhere", |_, held| assert_eq!(held.read_at(&mut [0; 10], CHUNK).unwrap(), 10)),
        ("wrote elsewhere", |_, held| held.write_all_at(b"mine", 300_000).unwrap()),
        ("wrote elsewhere and synced", |_, held| {
            held.write_all_at(b"mine", 300_000).unwrap();
            held.sync_data().unwrap();
        }),
        ("set the times", |path, _| {
            let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
            File::open(path).unwrap().set_modified(time).unwrap();
        }),
        ("set the times of the descriptor", |_, held| held.set_modified(std::time::UNIX_EPOCH).unwrap()),
        ("asked for attributes", |_, held| {
            use rustix::fs::{AtFlags, StatxFlags};
            // Of the engine, not of the kernel's cache.
            rustix::fs::statx(held, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC, StatxFlags::ALL)
                .unwrap();
        }),
        ("punched elsewhere", |_, held| {
            use rustix::fs::FallocateFlags as F;
            rustix::fs::fallocate(held, F::PUNCH_HOLE | F::KEEP_SIZE, 400_000, 4096).unwrap();
        }),
        ("copied elsewhere", |_, held| {
            let n = rustix::fs::copy_file_range(held, Some(&mut 400_000), held, Some(&mut 500_000), 4096);
            assert_eq!(n.unwrap(), 4096);
        }),
        ("grew", |path, _| {
            OpenOptions::new().write(true).open(path).unwrap().set_len(CHUNK + 20_000).unwrap()
        }),
        ("grew by descriptor", |_, held| held.set_len(CHUNK + 30_000).unwrap()),
        ("locked elsewhere", |_, held| {
            rustix::fs::flock(held, rustix::fs::FlockOperation::LockExclusive).unwrap();
        }),
    ];
    let mut wrong = Vec::new();
    for (n, (what, deed)) in deeds.iter().enumerate() {
        for held_on in [false, true] {
            let name = format!("f{n}");
            let write = |seed: u64| {
                let file = OpenOptions::new()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(writer.join(&name))
                    .unwrap();
                file.write_all_at(&noise(seed, 8192), 0).unwrap();
                file.write_all_at(&noise(seed, 8192), CHUNK).unwrap();
            };
            let first_page = |file: &File| {
                let mut page = vec![0; 4096];
                file.read_exact_at(&mut page, 0).unwrap();
                page
            };
            write(1);
            let path = reader.join(&name);
            let held = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            assert!(first_page(&held) == noise(1, 8192)[..4096], "{what}");
            write(2);
            deed(&path, &held);
            let held = held_on.then_some(held);
            for time in ["first", "second"] {
                if first_page(&File::open(&path).unwrap()) != noise(2, 8192)[..4096] {
                    wrong.push(format!("{what}, held on: {held_on}: the {time} open"));
                }
            }
            drop(held);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    reader.unmount();
    writer.unmount();
    volume.check();
}

/// Opens at the same time know versions of different age; none may leave an older one to those that come later.
fn an_open_sees_what_another_mount_closed_while_others_open_the_file_too(engine: Engine) {
    let volume = Volume::new(engine, &["--block-size=64K", "--trash-days=0"]);
    let (writer, reader) = (volume.mount(&[]), volume.mount(&[]));
    let stop = AtomicBool::new(false);
    // Each version is longer than the one before.
    let end = |version: u64| 4096 + (version + 1) * 10;
    let write = |version: u64| {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(writer.join("f")).unwrap();
        file.write_all_at(&version.to_le_bytes().repeat(512), 0).unwrap();
        file.write_all_at(&[version as u8; 10], end(version) - 10).unwrap();
    };
    write(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut page = [0; 4096];
                while !stop.load(Ordering::Relaxed) {
                    let file = File::open(reader.join("f")).unwrap();
                    file.read_exact_at(&mut page, 0).unwrap();
                }
            });
        }
        let stop = StopAtEnd(&stop);
        let until = Instant::now() + WORK;
        for version in 1.. {
            write(version);
            let mut page = [0; 4096];
            let mut tail = [0; 20];
            let file = File::open(reader.join("f")).unwrap();
            let read = file.read_at(&mut tail, end(version) - 10).unwrap();
            assert!(tail[..read] == [version as u8; 10], "version {version}: {:?} at its end", &tail[..read]);
            file.read_exact_at(&mut page, 0).unwrap();
            let found = u64::from_le_bytes(page[..8].try_into().unwrap());
            assert!(found == version, "version {found} where {version} was closed before the open");
            if Instant::now() > until {
                println!("{version} versions");
                break;
            }
        }
        drop(stop);
    });
    reader.unmount();
    writer.unmount();
    volume.check();
}

/// The kernel believes a length of less than a second ago, and does not ask for another where a file is mapped or sent.
fn who_opens_a_file_that_has_grown_need_not_ask_for_its_length(engine: Engine) {
    let volume = Volume::new(engine, &["--block-size=64K"]);
    let (writer, reader) = (volume.mount(&[]), volume.mount(&[]));
    let script = r#"
import ctypes, os, sys
name, size = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
fd = os.open(name, os.O_RDONLY)
p = libc.mmap(None, size, 1, 1, fd, 0)
assert p, "mmap"
sys.stdout.buffer.write(ctypes.string_at(p, size))
"#;
    for (n, (before, after)) in [
        (1000, 20_000),
        (0, 1),
        (0, 4097),
        (4095, 4096),
        (4096, 8192),
        (5000, 5001),
        (5000, 5000),
        (9000, 100),
    ]
    .into_iter()
    .enumerate()
    {
        for (way, made_here) in [("sent", false), ("mapped", false), ("sent", true), ("mapped", true)] {
            let name = format!("{way}{n}{made_here}");
            let path = reader.join(&name);
            // The kernel gets to know length and pages.
            if made_here {
                fs::write(&path, noise(1, before)).unwrap();
            } else {
                fs::write(writer.join(&name), noise(1, before)).unwrap();
                assert!(fs::read(&path).unwrap() == noise(1, before));
            }
            let data = noise(2, after);
            let file = OpenOptions::new().write(true).open(writer.join(&name)).unwrap();
            file.set_len(after as u64).unwrap();
            file.write_all_at(&data, 0).unwrap();
            drop(file);
            let got = if way == "mapped" {
                let out =
                    Command::new("python3").args(["-c", script]).arg(&path).arg(after.to_string()).output();
                let out = out.unwrap();
                assert!(
                    out.status.success(),
                    "{name}: {:?}, {}",
                    out.status,
                    String::from_utf8_lossy(&out.stderr)
                );
                out.stdout
            } else {
                let out = File::create(volume.new_path()).unwrap();
                let file = File::open(&path).unwrap();
                let mut sent = 0;
                loop {
                    let n = rustix::fs::sendfile(&out, &file, None, 1 << 20).unwrap();
                    sent += n;
                    if n == 0 {
                        break;
                    }
                }
                let mut got = vec![0; sent];
                let out = OpenOptions::new().read(true).open(format!("/proc/self/fd/{}", out.as_raw_fd()));
                out.unwrap().read_exact_at(&mut got, 0).unwrap();
                got
            };
            assert!(got == data, "{name}: {} bytes of {after}, which were {before}", got.len());
        }
    }
    reader.unmount();
    writer.unmount();
    volume.check();
}

/// Each reader opens the file, asks for its length and reads so much. The others who do so make the kernel throw away answers.
fn readers_of_a_file_that_grows_all_the_time_read_what_fstat_told(engine: Engine) {
    let volume = Volume::new(engine, &["--block-size=64K", "--trash-days=0"]);
    let (writer, reader) = (volume.mount(&[]), volume.mount(&[]));
    fs::write(writer.join("f"), b"").unwrap();
    let (mut at, mut rng) = (0, Rng::new(3));
    // From now on it is known to change all the time.
    for _ in 0..5 {
        fs::write(writer.join("f"), pattern_bytes(0, at as usize + 10)).unwrap();
        at += 10;
        assert!(fs::read(reader.join("f")).unwrap() == pattern_bytes(0, at as usize));
    }
    let until = Instant::now() + WORK;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut reads = 0;
                    while Instant::now() < until {
                        let file = File::open(reader.join("f")).unwrap();
                        let length = file.metadata().unwrap().len();
                        let mut bytes = vec![0; length as usize + 10];
                        let mut read = 0;
                        while let n @ 1.. = file.read_at(&mut bytes[read..], read as u64).unwrap() {
                            read += n;
                        }
                        assert!(read as u64 >= length, "{read} bytes of {length}, after {reads} reads");
                        assert!(bytes[..read] == pattern_bytes(0, read), "{read} bytes, not all as written");
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let file = OpenOptions::new().write(true).open(writer.join("f")).unwrap();
        while Instant::now() < until {
            let len = 1 + rng.below(3000) as usize;
            file.write_all_at(&pattern_bytes(at, len), at).unwrap();
            file.sync_data().unwrap();
            at += len as u64;
        }
        let reads: Vec<u32> = readers.into_iter().map(|r| r.join().unwrap()).collect();
        println!("{at} bytes, read {reads:?} times");
        assert!(reads.iter().all(|n| *n > 5), "{reads:?}");
    });
    reader.unmount();
    writer.unmount();
    volume.check();
}

fn a_listing_that_goes_on_does_not_take_back_what_an_open_has_seen(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let (writer, reader) = (volume.mount(&[]), volume.mount(&[]));
    for n in 0..600 {
        fs::write(writer.join(format!("f{n:04}")), b"0123456789").unwrap();
    }
    let names: Vec<_> = fs::read_dir(reader.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    for (n, name) in names.iter().rev().enumerate().skip(20).take(3) {
        // Until the kernel's own copies are too old.
        std::thread::sleep(Duration::from_millis(1100));
        let mut listing = fs::read_dir(reader.path()).unwrap();
        // The first entries are fetched together with all others, the kernel has some of them.
        listing.next().unwrap().unwrap().metadata().unwrap();
        fs::write(writer.join(name.to_str().unwrap()), noise(n as u64, 5000)).unwrap();
        let file = File::open(reader.join(name.to_str().unwrap())).unwrap();
        if n % 2 == 0 {
            assert_eq!(file.metadata().unwrap().len(), 5000);
        }
        listing.for_each(|e| drop(e.unwrap()));
        assert_eq!(file.metadata().unwrap().len(), 5000);
        let mut bytes = vec![0; 6000];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 5000);
        assert!(bytes[..5000] == noise(n as u64, 5000));
    }
    reader.unmount();
    writer.unmount();
    volume.check();
}

/// Ends what others do, also when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long a writer and its readers work.
const WORK: Duration = Duration::from_secs(4);
/// What is at an offset of a file that is written while it is read; never 0.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ (at >> 17)) as u8 | 1
}

fn pattern_bytes(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(pattern).collect()
}

/// A version of a file that is replaced again and again: its number, over and over.
fn version_bytes(version: u64) -> Vec<u8> {
    let times = 1 + (version * 7919) % 20_000;
    version.to_le_bytes().repeat(times as usize)
}

/// On two new mounts, runs a writer of the file `f`, which holds `start` at first, and readers until the writer ends; each must
/// have read more than `least` times. Afterwards the volume is whole.
fn read_while_written<R>(
    volume: &Volume,
    start: &[u8],
    least: u64,
    writer: impl FnOnce(&Path) + Send,
    reader: R,
) where
    R: Fn(&Path, &AtomicBool) -> u64 + Sync,
{
    let (first, second) = (volume.mount(&[]), volume.mount(&[]));
    fs::write(first.join("f"), start).unwrap();
    let reads = beside([first.path(), second.path()], writer, reader);
    println!("reads: {reads:?}");
    assert!(reads.iter().all(|n| *n > least), "{reads:?}");
    second.unmount();
    first.unmount();
    volume.check();
}

/// Runs a writer and, until it ends, readers on both mounts. Returns how often each reader has read.
fn beside<R>(mounts: [&Path; 2], writer: impl FnOnce(&Path) + Send, reader: R) -> Vec<u64>
where
    R: Fn(&Path, &AtomicBool) -> u64 + Sync,
{
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, reader) = (&stop, &reader);
        let readers: Vec<_> = mounts.iter().map(|m| scope.spawn(move || reader(m, stop))).collect();
        let writer = scope.spawn(move || writer(mounts[0]));
        let wrote = writer.join();
        stop.store(true, Ordering::Relaxed);
        let read = readers.into_iter().map(|r| r.join().unwrap()).collect();
        wrote.unwrap();
        read
    })
}

fn a_reader_sees_one_version_of_a_file_that_is_replaced(engine: Engine) {
    // Without a trash the other mount's reader loses the file when it is replaced: clients do not tell one another what
    // they have open.
    let volume = Volume::new(engine, &["--trash-days=1"]);
    let writer = |root: &Path| {
        let until = Instant::now() + WORK;
        for version in 1.. {
            fs::write(root.join("new"), version_bytes(version)).unwrap();
            fs::rename(root.join("new"), root.join("f")).unwrap();
            if Instant::now() > until {
                return;
            }
        }
    };
    let reader = |root: &Path, stop: &AtomicBool| {
        let (mut seen, mut reads) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            let bytes = fs::read(root.join("f")).unwrap_or_else(|e| panic!("version {seen} or later: {e}"));
            let version = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert!(bytes == version_bytes(version), "a torn version {version}: {} bytes", bytes.len());
            assert!(version >= seen, "version {version} after {seen}");
            (seen, reads) = (version, reads + 1);
        }
        reads
    };
    read_while_written(&volume, &version_bytes(0), 20, writer, reader);
}

fn a_reader_of_a_file_that_grows_sees_a_prefix_of_it(engine: Engine) {
    let volume = Volume::new(engine, &["--block-size=64K", "--trash-days=0"]);
    let total = AtomicU64::new(0);
    let writer = |root: &Path| {
        let until = Instant::now() + WORK;
        let file = OpenOptions::new().append(true).open(root.join("f")).unwrap();
        let mut rng = Rng::new(1);
        let mut at = 0;
        while Instant::now() < until {
            let len = 1 + rng.below(9000) as usize;
            (&file).write_all(&pattern_bytes(at, len)).unwrap();
            at += len as u64;
            if rng.percent(30) {
                file.sync_data().unwrap();
                total.store(at, Ordering::Release);
            }
        }
        file.sync_all().unwrap();
        total.store(at, Ordering::Release);
    };
    // One descriptor stays open, as in `tail -f`; others are opened anew and see all that was synced before.
    let reader = |root: &Path, stop: &AtomicBool| {
        let follow = File::open(root.join("f")).unwrap();
        let (mut followed, mut reads) = (0, 0);
        let mut buffer = vec![0; 50_000];
        loop {
            let ends = stop.load(Ordering::Relaxed);
            let synced = total.load(Ordering::Acquire);
            let bytes = fs::read(root.join("f")).unwrap();
            assert!(bytes.len() as u64 >= synced, "{} bytes where {synced} were synced", bytes.len());
            assert!(bytes == pattern_bytes(0, bytes.len()), "{} bytes, not all as written", bytes.len());
            let n = follow.read_at(&mut buffer, followed).unwrap();
            assert!(buffer[..n] == pattern_bytes(followed, n), "followed to {followed}: {n} bytes");
            followed += n as u64;
            reads += 1;
            if ends {
                break;
            }
        }
        let end = total.load(Ordering::Acquire);
        wait_for("the follower to see the end", || {
            let n = follow.read_at(&mut buffer, followed).unwrap();
            assert!(buffer[..n] == pattern_bytes(followed, n), "followed to {followed}: {n} bytes");
            followed += n as u64;
            followed == end
        });
        reads
    };
    read_while_written(&volume, b"", 5, writer, reader);
}

fn a_reader_of_a_file_that_is_cut_and_grows_again_sees_bytes_or_zeros(engine: Engine) {
    let volume = Volume::new(engine, &["--block-size=64K", "--trash-days=0"]);
    let writer = |root: &Path| {
        let until = Instant::now() + WORK;
        let file = OpenOptions::new().write(true).open(root.join("f")).unwrap();
        let mut rng = Rng::new(2);
        while Instant::now() < until {
            match rng.below(4) {
                0 => file.set_len(rng.below(400_000)).unwrap(),
                1 => file.sync_all().unwrap(),
                _ => {
                    let at = rng.below(300_000);
                    file.write_all_at(&pattern_bytes(at, 1 + rng.below(60_000) as usize), at).unwrap();
                }
            }
        }
    };
    let reader = |root: &Path, stop: &AtomicBool| {
        let mut reads = 0;
        while !stop.load(Ordering::Relaxed) {
            let bytes = fs::read(root.join("f")).unwrap();
            let wrong = bytes.iter().enumerate().find(|(at, b)| **b != 0 && **b != pattern(*at as u64));
            assert_eq!(wrong, None, "of {} bytes", bytes.len());
            reads += 1;
        }
        reads
    };
    read_while_written(&volume, b"", 5, writer, reader);
}

/// Lines that each of two writers appends.
const LINES: u32 = 400;

/// Each writer's lines are all there, once, whole and in order.
fn assert_lines(text: &str, writers: &[&str]) {
    for who in writers {
        let mine: Vec<&str> = text.lines().filter(|l| l.starts_with(who)).collect();
        let want: Vec<String> = (0..LINES).map(|n| format!("{who} {n}")).collect();
        assert_eq!(mine, want, "lines of {who}");
    }
    assert_eq!(text.lines().count(), writers.len() * LINES as usize);
}

fn appends_of_two_mounts_without_a_lock_all_arrive(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let (first, second) = (volume.mount(&[]), volume.mount(&[]));
    // In turn, each time after the other has synced; the descriptors stay open, as those of loggers do.
    for read in [false, true] {
        fs::write(first.join("turns"), b"").unwrap();
        let open =
            |m: &support::Mount| OpenOptions::new().read(read).append(true).open(m.join("turns")).unwrap();
        let (one, two) = (open(&first), open(&second));
        for n in 0..LINES {
            for (who, mut file) in [("one", &one), ("two", &two)] {
                file.write_all(format!("{who} {n}\n").as_bytes()).unwrap();
                file.sync_data().unwrap();
            }
        }
        let text = fs::read_to_string(second.join("turns")).unwrap();
        let want: String = (0..LINES).map(|n| format!("one {n}\ntwo {n}\n")).collect();
        assert!(text == want, "read: {read}\n{text}");
    }
    // At the same time, synced now and then, with readers that have the pages.
    fs::write(first.join("both"), b"").unwrap();
    let writer = |root: &Path, who: &str| {
        let mut file = OpenOptions::new().read(true).append(true).open(root.join("both")).unwrap();
        for n in 0..LINES {
            file.write_all(format!("{who} {n}\n").as_bytes()).unwrap();
            if n % 7 == 3 {
                file.sync_data().unwrap();
            }
            if n % 20 == 0 {
                // At once, but for the moment in which the kernel drops pages of what has moved.
                wait_for(&format!("{who} to read its own lines"), || {
                    let text = fs::read_to_string(root.join("both")).unwrap();
                    text.lines().filter(|l| l.starts_with(who)).count() == n as usize + 1
                });
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| writer(first.path(), "one"));
        scope.spawn(|| writer(second.path(), "two"));
    });
    for mount in [&first, &second] {
        assert_lines(&fs::read_to_string(mount.join("both")).unwrap(), &["one", "two"]);
    }
    second.unmount();
    first.unmount();
    volume.check();
}

fn a_log_that_another_mount_cuts_goes_on_at_its_new_end(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let (logger, rotator) = (volume.mount(&[]), volume.mount(&[]));
    let mut log = OpenOptions::new().create(true).append(true).open(logger.join("log")).unwrap();
    for round in 0..5 {
        log.write_all(&vec![b'x'; 100_000]).unwrap();
        log.sync_data().unwrap();
        fs::copy(rotator.join("log"), rotator.join(format!("log.{round}"))).unwrap();
        OpenOptions::new().write(true).open(rotator.join("log")).unwrap().set_len(0).unwrap();
        log.write_all(format!("round {round}\n").as_bytes()).unwrap();
        log.sync_data().unwrap();
        let text = fs::read_to_string(rotator.join("log")).unwrap();
        assert_eq!(text, format!("round {round}\n"));
        assert_eq!(log.metadata().unwrap().len(), text.len() as u64);
    }
    drop(log);
    rotator.unmount();
    logger.unmount();
    volume.check();
}
