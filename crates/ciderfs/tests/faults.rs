//! Servers and clients that die under load: what fsync acknowledged is there, and the volume is whole.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use ciderfs_testkit::official::Official;
use ciderfs_testkit::s3::{Faults, S3Options, S3Server};
use rustix::process::{Pid, Signal, kill_process};
use support::client::{sh, succeed, wait_for};
use support::{Engine, Mount, Volume, noise};

/// Files whose content was acknowledged by fsync, and how many calls failed.
#[derive(Default)]
struct Acknowledged {
    files: Mutex<BTreeMap<PathBuf, (u64, usize)>>,
    written: AtomicUsize,
    failed: AtomicUsize,
    stop: AtomicBool,
}

impl Acknowledged {
    /// Writers that create, write and fsync files until told to stop.
    fn start(self: &Arc<Self>, root: &Path, writers: u64) -> Vec<std::thread::JoinHandle<()>> {
        (0..writers)
            .map(|w| {
                let (this, root) = (Arc::clone(self), root.to_owned());
                std::thread::spawn(move || {
                    own_descriptors();
                    for n in 0.. {
                        if this.stop.load(Ordering::SeqCst) {
                            break;
                        }
                        let (seed, len) = (w * 1_000_000 + n, 1 + (n as usize * 7919) % 90_000);
                        let name = PathBuf::from(format!("w{w}-{n}"));
                        let write = || -> std::io::Result<()> {
                            let mut f = File::create_new(root.join(&name))?;
                            f.write_all(&noise(seed, len))?;
                            f.sync_all()
                        };
                        match write() {
                            Ok(()) => {
                                this.files.lock().unwrap().insert(name, (seed, len));
                                this.written.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(_) => {
                                this.failed.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    }
                })
            })
            .collect()
    }

    fn more(&self, count: usize) {
        let before = self.written.load(Ordering::SeqCst);
        wait_for("writers to get on", || self.written.load(Ordering::SeqCst) >= before + count);
    }

    fn finish(&self, writers: Vec<std::thread::JoinHandle<()>>) {
        self.stop.store(true, Ordering::SeqCst);
        for writer in writers {
            writer.join().unwrap();
        }
    }

    fn check(&self, root: &Path) {
        let files = self.files.lock().unwrap();
        assert!(!files.is_empty());
        for (name, (seed, len)) in files.iter() {
            let got = fs::read(root.join(name)).unwrap_or_else(|e| panic!("{}: {e}", name.display()));
            assert!(got == noise(*seed, *len), "{}: {} bytes of {len}", name.display(), got.len());
        }
    }
}

/// Gives the thread descriptors of its own. A program that is started while writers wait for it inherits all shared
/// ones, and closing those in `exec` flushes the files: it would wait for itself.
fn own_descriptors() {
    // SAFETY: the thread has not used a descriptor yet, and hands none to others.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::FILES) }.unwrap();
    // The copies of everybody's descriptors would keep files and ports in use.
    let listed: Vec<i32> = fs::read_dir("/proc/thread-self/fd")
        .unwrap()
        .filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in listed {
        // The directory that was just listed is closed already.
        if fs::symlink_metadata(format!("/proc/thread-self/fd/{fd}")).is_ok() {
            // SAFETY: the table is this thread's alone, and no value of the thread owns a descriptor.
            unsafe { rustix::io::close(fd) };
        }
    }
}

/// Removes what failed writes may have left half done, so that the volume can be compared with its counters.
fn settle(volume: &Volume, acknowledged: &Acknowledged) {
    let mount = volume.mount(&[]);
    acknowledged.check(mount.path());
    mount.unmount();
}

#[test]
fn redis_dies_and_comes_back() {
    let mut volume = Volume::new(Engine::Redis, &[]);
    let mount = volume.mount(&[]);
    let acknowledged = Arc::new(Acknowledged::default());
    let writers = acknowledged.start(mount.path(), 3);
    for _ in 0..3 {
        acknowledged.more(10);
        volume.redis.as_mut().unwrap().kill();
        volume.redis.as_mut().unwrap().restart().unwrap();
    }
    acknowledged.more(10);
    acknowledged.finish(writers);
    assert_eq!(acknowledged.failed.load(Ordering::SeqCst), 0, "a restart is waited for");
    acknowledged.check(mount.path());
    mount.unmount_after_errors();
    settle(&volume, &acknowledged);
    volume.check();
}

/// Objects move to another endpoint with other keys while the volume is mounted.
#[test]
fn a_running_mount_follows_new_keys_and_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let start = |secret: &str| {
        let dir = Some(dir.path().to_owned());
        let secret_key = secret.to_owned();
        S3Server::start_now(S3Options {
            dir,
            secret_key,
            buckets: vec!["bucket".into()],
            ..S3Options::default()
        })
    };
    let mut old = start("an-old-secret").unwrap();
    let place = |server: &S3Server| {
        [
            "--storage=s3".to_owned(),
            format!("--bucket={}", server.bucket_url("bucket")),
            format!("--access-key={}", server.access_key),
            format!("--secret-key={}", server.secret_key),
        ]
    };
    let volume = Volume::unformatted(Engine::Sqlite);
    volume.format(&place(&old).each_ref().map(String::as_str));
    let mount = volume.mount(&["--heartbeat=1s", "--io-retries=2"]);
    fs::write(mount.join("before"), noise(1, 100_000)).unwrap();
    // A server reads its directory when it starts.
    let new = start("a-new-secret").unwrap();
    let mut config = vec!["config".to_owned(), volume.meta.clone(), "--yes".into()];
    config.extend(place(&new));
    succeed(&config);
    wait_for("the mount to notice", || mount.log().contains("objects are now at"));
    old.stop();
    fs::write(mount.join("after"), noise(2, 100_000)).unwrap();
    mount.unmount();
    let mount = volume.mount(&[]);
    assert!(fs::read(mount.join("before")).unwrap() == noise(1, 100_000));
    assert!(fs::read(mount.join("after")).unwrap() == noise(2, 100_000));
    mount.unmount();
}

/// Errors now and then, slow answers, lost replies, and an outage: `--io-retries` rides all of it out.
#[test]
fn an_object_store_fails_for_a_while() {
    let options = S3Options { buckets: vec!["bucket".into()], ..S3Options::default() };
    let mut server = S3Server::start_now(options).unwrap();
    let volume = Volume::unformatted(Engine::Sqlite);
    let flags = [
        "--storage=s3".to_owned(),
        format!("--bucket={}", server.bucket_url("bucket")),
        format!("--access-key={}", server.access_key),
        format!("--secret-key={}", server.secret_key),
    ];
    volume.format(&flags.each_ref().map(String::as_str));
    let mount = volume.mount(&[]);
    let acknowledged = Arc::new(Acknowledged::default());
    let writers = acknowledged.start(mount.path(), 3);
    acknowledged.more(10);
    for status in [500, 503] {
        let faults = Faults { fail_rate: 0.2, lose_reply_rate: 0.1, status, ..Faults::default() };
        server.control().set(faults);
        acknowledged.more(20);
    }
    server.control().set(Faults::default());
    server.stop();
    let before = acknowledged.written.load(Ordering::SeqCst);
    server.restart().unwrap();
    wait_for("writers to get on", || acknowledged.written.load(Ordering::SeqCst) > before + 10);
    acknowledged.finish(writers);
    assert_eq!(acknowledged.failed.load(Ordering::SeqCst), 0, "all of it is waited for");
    acknowledged.check(mount.path());
    mount.unmount_after_errors();
    settle(&volume, &acknowledged);
    let official = Official::locate().unwrap();
    official.fsck(&volume.meta, &[]).unwrap();
}

fn a_killed_client_loses_nothing_acknowledged(engine: Engine) {
    let volume = Volume::new(engine, &[]);
    let acknowledged = Arc::new(Acknowledged::default());
    for _ in 0..2 {
        acknowledged.stop.store(false, Ordering::SeqCst);
        let mount = volume.mount(&["--heartbeat=1s"]);
        let dir = tempfile_in(&mount);
        let writers = acknowledged.start(&dir, 3);
        acknowledged.more(20);
        mount.kill();
        acknowledged.finish(writers);
        let again = volume.mount(&[]);
        let root = again.join(dir.file_name().unwrap());
        acknowledged.check(&root);
        again.unmount();
        acknowledged.files.lock().unwrap().clear();
    }
    // Objects that were not committed yet are garbage, which the official client collects; nothing is lost or broken.
    let official = Official::locate().unwrap();
    official.fsck(&volume.meta, &[]).unwrap();
    official.fsck(&volume.meta, &["--path", "/", "--recursive", "--sync-dir-stat"]).unwrap();
}

/// A directory of its own for each round.
fn tempfile_in(mount: &Mount) -> PathBuf {
    let dir = mount.join(format!("round-{}", mount.pid()));
    fs::create_dir(&dir).unwrap();
    dir
}

on_engines!(a_killed_client_loses_nothing_acknowledged);

/// A directory of objects on a file system that is full: the error comes at fsync or close, and what was acknowledged stays.
#[test]
fn a_full_disk_is_reported_and_loses_nothing_acknowledged() {
    let volume = Volume::unformatted(Engine::Sqlite);
    fs::create_dir(&volume.objects).unwrap();
    let objects = volume.objects.display().to_string();
    sh(volume.dir.path(), &format!("mount -t tmpfs -o size=16m none {objects}"));
    volume.format(&[]);
    let mount = volume.mount(&["--io-retries=1"]);
    let mut kept = Vec::new();
    let mut errors = 0;
    for n in 0..12_u64 {
        let path = mount.join(format!("f{n}"));
        let write = || -> std::io::Result<()> {
            let mut f = File::create_new(&path)?;
            f.write_all(&noise(n, 3 << 20))?;
            f.sync_all()
        };
        match write() {
            Ok(()) => kept.push((n, path)),
            Err(e) => {
                assert!(matches!(e.raw_os_error(), Some(5 | 28)), "{e}");
                errors += 1;
            }
        }
    }
    assert!(kept.len() >= 3 && errors > 0, "{} kept, {errors} refused", kept.len());
    mount.unmount_after_errors();
    let mount = volume.mount(&[]);
    for (n, path) in &kept {
        let name = path.file_name().unwrap();
        assert!(fs::read(mount.join(name)).unwrap() == noise(*n, 3 << 20), "{}", path.display());
    }
    mount.unmount();
    sh(volume.dir.path(), &format!("umount -l {objects}"));
}

#[test]
fn a_signal_that_does_not_kill_ends_no_call_early() {
    const CALL: &str = "
import ctypes, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
print('ready', flush=True)
sys.stdin.readline()
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
made = libc.mkdir(sys.argv[1].encode(), 0o755)
print(made, ctypes.get_errno(), flush=True)
";
    let volume = Volume::new(Engine::Redis, &[]);
    let mount = volume.mount(&[]);
    let dir = mount.join("made");
    let mut call = Command::new("python3");
    call.args(["-c", CALL]).arg(&dir).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut call = call.spawn().unwrap();
    let mut said = BufReader::new(call.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "ready");
    volume.redis.as_ref().unwrap().command(&["CLIENT", "PAUSE", "700"]).unwrap();
    call.stdin.take().unwrap().write_all(b"go\n").unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "0 0");
    assert!(dir.is_dir());
    call.wait().unwrap();
    mount.unmount();
    volume.check();
}

#[test]
fn a_program_can_be_killed_while_redis_hangs() {
    let volume = Volume::new(Engine::Redis, &[]);
    let mount = volume.mount(&[]);
    let redis = volume.redis.as_ref().unwrap().pid().unwrap();
    let send = |pid: u32, signal| kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    send(redis, Signal::STOP);
    let mut call = Command::new("mkdir").arg(mount.join("late")).spawn().unwrap();
    let at = format!("/proc/{}/syscall", call.id());
    let calls = [83, libc::SYS_mkdirat];
    wait_for("the call to hang", || {
        let number = fs::read_to_string(&at).ok().and_then(|s| s.split(' ').next()?.parse().ok());
        number.is_some_and(|n: i64| calls.contains(&n))
    });
    send(call.id(), Signal::TERM);
    wait_for("the program to end", || call.try_wait().unwrap().is_some());
    send(redis, Signal::CONT);
    // Whatever became of the call, the mount goes on, and nothing is half done.
    fs::create_dir(mount.join("next")).unwrap();
    mount.unmount();
    volume.check();
}
