//! Two mounts of one volume: what a reader may rely on while another client writes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::client::wait_for;
use support::random::Rng;
use support::{Engine, Volume, noise};

on_engines!(
    a_file_that_grew_elsewhere_is_not_cut_at_the_length_known_here,
    a_file_replaced_elsewhere_is_opened_by_its_name_at_once,
    a_deleted_file_is_opened_again_through_its_descriptor,
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

fn a_deleted_file_is_opened_again_through_its_descriptor(engine: Engine) {
    use std::os::fd::AsRawFd as _;
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
