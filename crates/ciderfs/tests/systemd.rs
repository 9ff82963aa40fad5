//! The client as a service: what it tells the manager (a real socket), how it stops, how it starts again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use ciderfs_testkit::s3::{Faults, S3Options, S3Server};
use rustix::process::{Pid, Signal, kill_process};
use support::client::{Mount, PATIENCE, is_mounted, program, run, run_within, sh, succeed, wait_for};
use support::{Engine, Volume};

on_engines!(a_service_tells_its_state, after_kill_9_the_same_command_starts_again);

/// Listens as the manager does, and keeps what it has heard.
struct Manager {
    name: String,
    heard: Vec<String>,
    said: Receiver<String>,
}

impl Manager {
    fn in_file(dir: &Path) -> Self {
        let path = dir.join("notify");
        Self::new(UnixDatagram::bind(&path).unwrap(), path.display().to_string())
    }

    fn abstract_one() -> Self {
        let name = format!("ciderfs-e2e-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self::new(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    fn new(socket: UnixDatagram, name: String) -> Self {
        let (tx, said) = channel();
        // The kernel keeps ten messages.
        std::thread::spawn(move || {
            let mut text = [0; 4096];
            while let Ok(n) = socket.recv(&mut text) {
                if tx.send(String::from_utf8_lossy(&text[..n]).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { name, heard: Vec::new(), said }
    }

    fn listen(&mut self) {
        self.heard.extend(self.said.try_iter());
    }

    fn count(&mut self, what: &str) -> usize {
        self.listen();
        self.heard.iter().filter(|m| m.contains(what)).count()
    }

    /// Waits until it has been said so often.
    #[track_caller]
    fn hears(&mut self, what: &str, times: usize) {
        wait_for(what, || self.count(what) >= times);
    }
}

fn start(volume: &Volume, at: &Path, manager: &Manager, flags: &[&str]) -> Mount {
    let mut command = program();
    command.env("NOTIFY_SOCKET", &manager.name).env("WATCHDOG_USEC", "300000");
    command.args(["mount", "--cache-dir=memory", "--metrics="]).args(flags).arg(&volume.meta).arg(at);
    Mount::start(command, at, &at.with_extension("log"))
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

fn utab(at: &Path) -> Vec<String> {
    let table = fs::read_to_string("/run/mount/utab").unwrap_or_default();
    let target = format!(" TARGET={} ", at.display());
    table.lines().filter(|line| line.contains(&target)).map(str::to_owned).collect()
}

fn a_service_tells_its_state(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mut manager = match engine {
        Engine::Sqlite => Manager::in_file(volume.dir.path()),
        Engine::Redis => Manager::abstract_one(),
    };
    let at = volume.new_path();
    let level = volume.dir.path().join("level");
    fs::write(&level, "warn\n").unwrap();
    let flag = format!("--log-level-file={}", level.display());
    let mount = start(&volume, &at, &manager, &[&flag, "-o", "nofail,x-test=1"]);
    manager.hears("READY=1\nSTATUS=vol at ", 1);
    assert_eq!(manager.heard.iter().position(|m| m.contains("READY=1")), Some(0), "{:?}", manager.heard);
    assert!(is_mounted(&at));
    assert_eq!(
        utab(&at),
        [format!(
            "SRC=JuiceFS:vol TARGET={} ROOT=/ OPTS=_netdev,nofail,x-test=1 ATTRS=ciderfs.ns={}",
            at.display(),
            fs::metadata("/proc/self/ns/mnt").unwrap().ino()
        )]
    );
    assert!(
        sh(Path::new("/"), "mount")
            .lines()
            .any(|l| l.contains(at.to_str().unwrap()) && l.contains("_netdev"))
    );
    // Signs of life, also while the engine does not answer.
    let seen = manager.count("WATCHDOG=1");
    manager.hears("WATCHDOG=1", seen + 3);
    if let Some(redis) = &volume.redis {
        let pid = redis.pid().unwrap();
        signal(pid, Signal::STOP);
        let seen = manager.count("WATCHDOG=1");
        manager.hears("WATCHDOG=1", seen + 5);
        signal(pid, Signal::CONT);
    }
    // A process that stands still gives none.
    signal(mount.pid(), Signal::STOP);
    manager.listen();
    let seen = manager.count("WATCHDOG=1");
    std::thread::sleep(Duration::from_secs(1));
    assert!(manager.count("WATCHDOG=1") <= seen + 1);
    signal(mount.pid(), Signal::CONT);
    manager.hears("WATCHDOG=1", seen + 3);
    // Settings and the level of the log.
    assert!(!mount.log().contains("<INFO>"), "{}", mount.log());
    succeed(&["config", &volume.meta, "--trash-days=7", "--yes"]);
    fs::write(&level, "info").unwrap();
    signal(mount.pid(), Signal::HUP);
    manager.hears("RELOADING=1\nMONOTONIC_USEC=", 1);
    manager.hears("READY=1", 2);
    let of = |what: &str| manager.heard.iter().position(|m| m.contains(what)).unwrap();
    assert!(of("RELOADING=1") > of("READY=1"));
    assert!(mount.log().contains("the settings were read again"), "{}", mount.log());
    fs::write(mount.join("f"), "x").unwrap();
    mount.unmount();
    assert_eq!(manager.count("STOPPING=1\nEXTEND_TIMEOUT_USEC="), 1);
    assert_eq!(utab(&at), [""; 0]);
}

fn after_kill_9_the_same_command_starts_again(engine: Engine) {
    let volume = Volume::new(engine, &["--trash-days=0"]);
    let mut manager = Manager::in_file(volume.dir.path());
    let at = volume.new_path();
    for round in 1..4 {
        let mut mount = start(&volume, &at, &manager, &["--guard"]);
        manager.hears("READY=1", round);
        for earlier in 1..round {
            assert_eq!(fs::read_to_string(mount.join(format!("f{earlier}"))).unwrap(), "text\n");
        }
        sh(&at, &format!("echo text > f{round}; sync f{round}"));
        assert_eq!(utab(&at).len(), 1, "of the one before nothing is left");
        signal(mount.pid(), Signal::KILL);
        mount.wait(PATIENCE).unwrap();
        wait_for("the mount to be dead", || fs::metadata(&at).is_err_and(|e| e.raw_os_error() == Some(107)));
        // What systemd would find.
        std::mem::forget(mount);
    }
    start(&volume, &at, &manager, &["--guard"]).unmount();
    assert_eq!(utab(&at), [""; 0]);
    sh(volume.dir.path(), "chattr -i mnt1");
}

#[test]
fn nobody_writes_to_a_guarded_mount_point_while_the_volume_is_away() {
    let mut volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    let at = volume.new_path();
    let denied = |what: &str| {
        // This test is root.
        let e = fs::write(at.join("x"), "x").unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EPERM), "{what}");
        assert_eq!(fs::create_dir(at.join("d")).unwrap_err().raw_os_error(), Some(libc::EPERM), "{what}");
    };
    // The engine is away when the node starts: nothing is mounted, and the place is guarded.
    volume.redis.as_mut().unwrap().kill();
    let mut command = program();
    command.args(["mount", "--guard", "--cache-dir=memory", "--metrics="]).arg(&volume.meta).arg(&at);
    assert_eq!(run_within(&mut command, PATIENCE).code, 1);
    denied("before the first mount");
    volume.redis.as_mut().unwrap().restart().unwrap();
    let mount = volume.mount(&[]);
    mount.unmount();
    let mut command = program();
    command.args(["mount", "--guard", "--cache-dir=memory", "--metrics="]).arg(&volume.meta).arg(&at);
    let mount = Mount::start(command, &at, &at.with_extension("log"));
    fs::write(mount.join("x"), "x").unwrap();
    mount.unmount();
    denied("after it");
    sh(volume.dir.path(), "chattr -i mnt1");
}

/// A file that was written to and stays open: closing it would wait until all of it is stored.
fn written(at: &Path) -> fs::File {
    let mut file = fs::File::create(at.join("f")).unwrap();
    std::io::Write::write_all(&mut file, &support::noise(1, 6 << 20)).unwrap();
    file
}

/// `umount --flush --force`, in the background.
fn flush(at: &Path) -> std::thread::JoinHandle<support::Ran> {
    let at = at.to_owned();
    std::thread::spawn(move || run(&["umount", "--flush", "--force", at.to_str().unwrap()]))
}

#[test]
fn a_stop_tells_what_is_left_and_umount_flush_waits_for_it() {
    let server =
        S3Server::start_now(S3Options { buckets: vec!["have".into()], ..S3Options::default() }).unwrap();
    let volume = Volume::unformatted(Engine::Sqlite);
    let keys = [format!("--access-key={}", server.access_key), format!("--secret-key={}", server.secret_key)];
    let bucket = format!("--bucket={}", server.bucket_url("have"));
    volume.format(&["--storage=s3", &bucket, &keys[0], &keys[1], "--trash-days=0", "--block-size=1M"]);
    let mut manager = Manager::in_file(volume.dir.path());
    let at = volume.new_path();
    for by_signal in [true, false] {
        let mut mount = start(&volume, &at, &manager, &["--max-uploads=4"]);
        server.control().set(Faults { latency: Duration::from_secs(3), ..Faults::default() });
        let file = written(&at);
        manager.hears("MiB still to be stored", 1);
        manager.heard.clear();
        if by_signal {
            // It disappears, and ends with its last user.
            signal(mount.pid(), Signal::TERM);
            wait_for("the unmount", || !is_mounted(&at));
            drop(file);
        } else {
            let ran = run(&["umount", "--flush", at.to_str().unwrap()]);
            let user = format!("({})", std::process::id());
            assert!(ran.code == 1 && ran.stderr.contains("Device or resource busy"), "{ran:?}");
            assert!(ran.stderr.contains(&user) && ran.stderr.contains("--force"), "{ran:?}");
            let done = flush(&at);
            wait_for("the unmount", || !is_mounted(&at));
            assert!(!done.is_finished(), "it waits for what is still to be stored");
            drop(file);
            let ran = done.join().unwrap();
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            // The serving process has ended.
            assert!(mount.wait(Duration::ZERO).is_some());
        }
        assert!(mount.wait(PATIENCE).unwrap().success(), "{}", mount.log());
        manager.hears("STOPPING=1\nEXTEND_TIMEOUT_USEC=34000000", 1);
        if by_signal {
            assert!(manager.count("unmounting, ") >= 1, "{:?}", manager.heard);
            let extended = manager.heard.iter().filter(|m| m.starts_with("EXTEND_TIMEOUT_USEC=")).count();
            assert!(extended >= 1, "{:?}", manager.heard);
        }
        server.control().set(Faults::default());
        let mount = volume.mount(&[]);
        assert_eq!(fs::metadata(mount.join("f")).unwrap().len(), 6 << 20);
        mount.unmount();
    }
    // One that is killed meanwhile has not stored everything; one that is gone is no error.
    let mut mount = start(&volume, &at, &manager, &["--max-uploads=4"]);
    server.control().set(Faults { latency: Duration::from_secs(3), ..Faults::default() });
    let file = written(&at);
    let pid = mount.pid();
    let done = flush(&at);
    wait_for("the unmount", || !is_mounted(&at));
    signal(pid, Signal::KILL);
    let ran = done.join().unwrap();
    assert!(ran.code == 1 && ran.stderr.contains("not everything was stored"), "{ran:?}");
    drop(file);
    mount.wait(PATIENCE).unwrap();
    assert_eq!(
        succeed(&["umount", "--flush", at.to_str().unwrap()]).stdout,
        format!("nothing is mounted at {}\n", at.display())
    );
    assert_eq!(run(&["umount", "--flush", "/nowhere/at/all"]).code, 1);
}

/// Twice `mount -a` with a line of fstab, through mount(8), and what a background mount inherits.
#[test]
fn mount_a_twice_makes_one_mount() {
    let volume = Volume::new(Engine::Sqlite, &["--trash-days=0"]);
    let (dir, at) = (volume.dir.path(), volume.new_path());
    let bin: PathBuf = program().get_program().into();
    fs::create_dir_all(dir.join("sbin")).unwrap();
    for name in ["ciderfs", "mount.ciderfs", "mount.fuse.juicefs"] {
        std::os::unix::fs::symlink(&bin, dir.join("sbin").join(name)).unwrap();
    }
    let line = format!(
        "{} {} ciderfs _netdev,nofail,x-systemd.requires=network.target,metrics=,cache-dir=memory,log={} 0 0\n",
        volume.meta,
        at.display(),
        dir.join("log").display()
    );
    fs::write(dir.join("fstab"), line).unwrap();
    fs::create_dir(&at).unwrap();
    // In a mount name space of its own, where mount(8) finds the helper.
    let script = "mount -t overlay none -o lowerdir=$PWD/sbin:/usr/sbin /usr/sbin
        export NOTIFY_SOCKET=/nowhere WATCHDOG_USEC=1000000
        mount -a -T fstab; mount -a -T fstab
        test $(grep -c \" $PWD/mnt1 fuse.juicefs \" /proc/self/mounts) = 1
        pid=$(grep -o '\"Pid\": *[0-9]*' mnt1/.config | grep -o '[0-9]*')
        ! grep -qz NOTIFY_SOCKET /proc/$pid/environ
        mount | grep \" $PWD/mnt1 \" | grep -q _netdev
        echo x > mnt1/f; mount -o remount,ro mnt1; ! touch mnt1/g 2>/dev/null; mount -o remount,rw mnt1; touch mnt1/g
        umount mnt1; while test -e /proc/$pid; do sleep 0.05; done; ! grep -q $PWD/mnt1 /run/mount/utab
        mount -a -T fstab; grep -q $PWD/mnt1 /run/mount/utab
        sbin/ciderfs umount --flush mnt1
        ! grep -q $PWD/mnt1 /run/mount/utab";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-euxc", script]).current_dir(dir);
    let ran = run_within(&mut command, PATIENCE);
    assert_eq!(ran.code, 0, "{}{}{:?}", ran.stdout, ran.stderr, fs::read_to_string(dir.join("log")));
}

/// systemd ends the process when the mount is gone: the first signal then asks for what is under way, the second one ends it.
#[test]
fn the_first_signal_after_an_unmount_from_outside_cuts_nothing_short() {
    let volume = Volume::new(Engine::Redis, &["--trash-days=0"]);
    for signals in [1, 2] {
        fs::create_dir(volume.dir.path().join(format!("{signals}"))).unwrap();
        let mut manager = Manager::in_file(&volume.dir.path().join(format!("{signals}")));
        let at = volume.new_path();
        let mut mount = start(&volume, &at, &manager, &[]);
        manager.hears("READY=1", 1);
        let redis = volume.redis.as_ref().unwrap().pid().unwrap();
        // The session cannot be ended.
        signal(redis, Signal::STOP);
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::empty()).unwrap();
        manager.hears("STOPPING=1", 1);
        for _ in 0..signals {
            signal(mount.pid(), Signal::TERM);
            std::thread::sleep(Duration::from_millis(300));
        }
        let ended = mount.wait(Duration::ZERO);
        signal(redis, Signal::CONT);
        if signals == 1 {
            assert!(ended.is_none(), "{ended:?}");
            assert!(mount.wait(PATIENCE).unwrap().success(), "{}", mount.log());
        } else {
            assert!(ended.is_some_and(|status| !status.success()), "{ended:?}");
        }
    }
}
