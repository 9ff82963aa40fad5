//! Memory and threads of a mount under load, and after it (`docs/memory.md`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use support::client::{Mount, sh, wait_for};
use support::{Engine, Volume};

on_engines!(memory_and_threads_of_mapped_writes_go_back);

const MIB: u64 = 1 << 20;
/// `--buffer-size` of the mount.
const BUFFERS: u64 = 128;
/// What `docs/memory.md` adds to it: the program and what it knows, receive buffers, buffers that are reused.
const BESIDE: u64 = 96 + 68 + 8;
/// What is left when nothing happens any more; the program itself is larger in a debug build.
const IDLE: u64 = 96;
/// Threads that serve, and some for what is done now and then.
const IDLE_THREADS: u64 = 24;

/// The time allows for a busy machine; a few seconds are usual.
const SOON: Duration = Duration::from_secs(40);

/// Random pages of mapped files, each a write of its own.
const LOAD: &str = "
import mmap, os, random, sys
k, size = int(sys.argv[1]), 32 << 20
fd = os.open(f'm{k}', os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, size)
m, page, some = mmap.mmap(fd, size), os.urandom(4096), random.Random(k)
for at in some.sample(range(size // 4096), size // 4096 // 2):
    m[at * 4096:at * 4096 + 4096] = page
m.flush()
";

/// A number of `/proc/PID/status`.
fn status(pid: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

fn writers(dir: &Path) -> Vec<Child> {
    let start = |k: u32| {
        let mut python = Command::new("python3");
        python.args(["-c", LOAD, &k.to_string()]).current_dir(dir).spawn().unwrap()
    };
    (0..6).map(start).collect()
}

/// Memory and threads that the mount needed at most.
fn peak(mount: &Mount) -> (u64, u64) {
    let mut threads = 0;
    let mut running = writers(mount.path());
    wait_for("the writers", || {
        threads = threads.max(status(mount.pid(), "Threads"));
        running.retain_mut(|w| match w.try_wait().unwrap() {
            Some(ended) => {
                assert!(ended.success());
                false
            }
            None => true,
        });
        running.is_empty()
    });
    (status(mount.pid(), "VmHWM") << 10, threads)
}

fn memory_and_threads_of_mapped_writes_go_back(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mount = volume.mount(&[&format!("--buffer-size={BUFFERS}"), "--cache-dir=memory"]);
    for round in 0..2 {
        let (bytes, threads) = peak(&mount);
        assert!(bytes <= (BUFFERS + BESIDE) * MIB, "round {round}: {} MiB", bytes / MIB);
        let mut seen = (0, 0);
        let ended = Instant::now();
        let now = || (status(mount.pid(), "VmRSS") << 10, status(mount.pid(), "Threads"));
        wait_for(&format!("memory to go back from {} MiB, threads from {threads}", bytes / MIB), || {
            seen = now();
            seen.0 <= IDLE * MIB && seen.1 <= IDLE_THREADS
        });
        assert!(ended.elapsed() < SOON, "after {:?}", ended.elapsed());
        println!("{} MiB and {threads} threads, then {} MiB and {}", bytes / MIB, seen.0 / MIB, seen.1);
        sh(mount.path(), "rm m*");
    }
    mount.unmount();
}
