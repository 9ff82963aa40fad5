//! A service beside what others have mounted: the same volume by hand, servers that were killed, other users, other mount name spaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use support::client::{Mount, PATIENCE, is_mounted, program, run, run_within, sh, succeed, wait_for};
use support::{Engine, Volume};

const STRANGER: u32 = 65534;

/// What the manager hears next.
fn hears(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = [0; 4096];
    let n = socket.recv(&mut text).unwrap();
    String::from_utf8_lossy(&text[..n]).into_owned()
}

/// A child that is killed when the test fails.
struct Running(Child);

impl Running {
    fn code(&mut self) -> Option<i32> {
        let mut status = None;
        wait_for("the end of the process", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

fn is_dead(at: &Path) -> bool {
    fs::metadata(at).is_err_and(|e| e.raw_os_error() == Some(libc::ENOTCONN))
}

/// Kills the server of a mount, which stays, as a power failure of the process leaves it.
fn kill(mut mount: Mount) {
    signal(mount.pid(), Signal::KILL);
    mount.wait(PATIENCE).unwrap();
    wait_for("the mount to be dead", || is_dead(mount.path()));
    std::mem::forget(mount);
}

fn lines(at: &Path) -> usize {
    let table = fs::read_to_string("/run/mount/utab").unwrap_or_default();
    table.lines().filter(|line| line.contains(&format!(" TARGET={} ", at.display()))).count()
}

/// A manager that starts the unit of a volume that is mounted by hand hears that it is ready; the unit ends with the mount.
#[test]
fn a_service_follows_a_mount_of_somebody_else() {
    let volume = Volume::new(Engine::Sqlite, &["--trash-days=0"]);
    let name = volume.dir.path().join("notify");
    let socket = UnixDatagram::bind(&name).unwrap();
    let start = |at: &Path| {
        let mut command = program();
        command.env("NOTIFY_SOCKET", &name).env("WATCHDOG_USEC", "300000");
        command.args(["mount", "--foreground", "--cache-dir=memory", "--metrics="]).arg(&volume.meta).arg(at);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    };
    for end in ["unmounted", "killed", "stopped", "another mount"] {
        let mount = volume.mount(&[]);
        let at = mount.path().to_owned();
        let mut service = start(&at);
        let heard = hears(&socket);
        assert!(
            heard.starts_with("READY=1\nSTATUS=vol is already mounted at")
                && heard.ends_with("by another process"),
            "{end}: {heard}"
        );
        assert_eq!([hears(&socket), hears(&socket)], ["WATCHDOG=1"; 2], "{end}");
        signal(service.0.id(), Signal::HUP);
        assert_eq!([hears(&socket), hears(&socket)], ["WATCHDOG=1"; 2], "{end}: it lives on");
        match end {
            // As ExecStop= does.
            "unmounted" => {
                succeed(&["umount", "--flush", at.to_str().unwrap()]);
                assert_eq!(service.code(), Some(0));
            }
            // A failure, after which the manager starts it again.
            "killed" => {
                kill(mount);
                assert_eq!(service.code(), Some(1));
                unmount(&at, UnmountFlags::DETACH).unwrap();
            }
            // It leaves alone what is not its own.
            "stopped" => {
                signal(service.0.id(), Signal::TERM);
                assert_eq!(service.code(), Some(0));
                assert!(is_mounted(&at));
                mount.unmount();
            }
            _ => {
                unmount(&at, UnmountFlags::DETACH).unwrap();
                sh(Path::new("/"), &format!("mount -t tmpfs none {}", at.display()));
                assert_eq!(service.code(), Some(0));
                unmount(&at, UnmountFlags::DETACH).unwrap();
            }
        }
        while {
            socket.set_nonblocking(true).unwrap();
            socket.recv(&mut [0; 4096]).is_ok()
        } {}
        socket.set_nonblocking(false).unwrap();
    }
    // Nobody listens: as ever.
    let mount = volume.mount(&[]);
    let ran =
        run(&["mount", "--cache-dir=memory", "--metrics=", &volume.meta, mount.path().to_str().unwrap()]);
    assert!(ran.code == 0 && ran.stdout.contains("vol is already mounted at"), "{ran:?}");
    mount.unmount();
}

/// Whatever is done about a mount whose server was killed also takes its line away.
#[test]
fn killed_mounts_leave_no_line_in_the_table() {
    let volume = Volume::new(Engine::Sqlite, &["--trash-days=0"]);
    let other = volume.mount(&[]);
    for how in
        ["umount", "umount --force", "umount --flush after umount2", "a mount elsewhere", "mount --guard"]
    {
        let mount = volume.mount(&[]);
        let at = mount.path().to_owned();
        let text = at.to_str().unwrap();
        // As mount(8) does, with the address as the source.
        sh(
            Path::new("/"),
            &format!(
                "flock /run/mount/utab.lock sh -c \"echo 'SRC=sqlite3://x TARGET={text} ROOT=/ OPTS=_netdev' >> /run/mount/utab\""
            ),
        );
        kill(mount);
        assert_eq!(lines(&at), 2, "{how}");
        match how {
            "umount" => drop(succeed(&["umount", text])),
            "umount --force" => drop(succeed(&["umount", "--force", text])),
            "umount --flush after umount2" => {
                // From here on, mounts of other tests may take the lines away as well.
                unmount(&at, UnmountFlags::DETACH).unwrap();
                succeed(&["umount", "--flush", text]);
            }
            "a mount elsewhere" => {
                unmount(&at, UnmountFlags::DETACH).unwrap();
                volume.mount(&[]).unmount();
            }
            // It fails after the look at the place: there is no such volume.
            _ => {
                let ran = run(&["mount", "--guard", "--metrics=", "sqlite3:///nowhere/at.all", text]);
                assert_eq!(ran.code, 1, "{ran:?}");
            }
        }
        assert_eq!(lines(&at), 0, "{how}");
        assert_eq!(lines(other.path()), 1, "{how}");
        let _ = Command::new("chattr").arg("-i").arg(&at).status();
    }
    other.unmount();
}

/// Readers of the table are everybody, and they watch its lock.
#[test]
fn the_table_is_open_to_all_whatever_the_umask_of_the_service() {
    let volume = Volume::new(Engine::Sqlite, &["--trash-days=0"]);
    let at = volume.new_path();
    let script = "mount -t tmpfs -o mode=755 none /run; umask 077
        \"$@\" & pid=$!
        until grep -qs \" TARGET=$PWD/mnt1 \" /run/mount/utab; do sleep 0.05; kill -0 $pid; done
        stat -c %a /run/mount /run/mount/utab /run/mount/utab.lock
        setpriv --reuid=65534 --regid=65534 --clear-groups mount | grep \" $PWD/mnt1 \" | grep -o _netdev
        kill $pid; wait $pid";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-euc", script, "sh"]).arg(program().get_program());
    command.args(["mount", "--cache-dir=memory", "--metrics="]).arg(&volume.meta).arg(&at);
    let ran = run_within(command.current_dir(volume.dir.path()), PATIENCE);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "755\n644\n644\n_netdev\n"), "{}", ran.stderr);
}

/// Only root can guard; others are told, and mount all the same.
#[test]
fn a_user_is_told_that_he_cannot_guard_a_mount_point() {
    let volume = Volume::unformatted(Engine::Sqlite);
    let at = volume.new_path();
    fs::create_dir(&at).unwrap();
    sh(volume.dir.path(), &format!("chmod 755 .; chown {STRANGER} . mnt1"));
    // A device that users may open, in a name space of the test.
    let script = "mknod -m 666 fuse c 10 229; mount --bind fuse /dev/fuse
        user() { exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=$PWD \"$@\"; }
        (user \"$1\" format --quiet \"$2\" vol --bucket \"$3\")
        (user \"$1\" mount --guard --cache-dir=memory --metrics= \"$2\" mnt1) 2> log & pid=$!
        until grep -q \" $PWD/mnt1 fuse\" /proc/self/mounts; do sleep 0.05; kill -0 $pid || { cat log; exit 1; }; done
        (user fusermount3 -u mnt1); wait $pid; cat log";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-euc", script, "sh"]).arg(program().get_program());
    command.arg(&volume.meta).arg(&volume.objects).current_dir(volume.dir.path());
    let ran = run_within(&mut command, PATIENCE);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("stays as it is: only root can guard a mount point"), "{ran:?}");
    let meta = fs::metadata(&at).unwrap();
    assert_eq!((meta.uid(), meta.permissions().mode() & 0o777), (STRANGER, 0o755), "as it was");
}

/// Elsewhere the same name is another place.
#[test]
fn umount_flush_waits_for_no_mount_of_another_name_space() {
    let volume = Volume::new(Engine::Sqlite, &["--trash-days=0"]);
    let mount = volume.mount(&[]);
    let at = mount.path().to_owned();
    // One more at the same place, which is seen in there only.
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-euc", "umount -l $PWD/mnt1; exec \"$@\"", "sh"]).arg(program().get_program());
    command.args(["mount", "--cache-dir=memory", "--metrics="]).arg(&volume.meta).arg(&at);
    command.current_dir(volume.dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut elsewhere = Running(command.spawn().unwrap());
    let pid = elsewhere.0.id().to_string();
    let inside = |script: &str| {
        let mut command = Command::new("nsenter");
        run_within(command.args(["-m", "-t", &pid, "sh", "-euc", script, "sh"]).arg(&at), PATIENCE)
    };
    let own = format!("\"Pid\": {pid}");
    wait_for("the mount in there", || inside("cat \"$1/.config\"").stdout.contains(&own));
    fs::write(at.join("f"), "text").unwrap();
    let ran = succeed(&["umount", "--flush", at.to_str().unwrap()]);
    assert!(ran.took < Duration::from_secs(20), "{ran:?}");
    assert!(!is_mounted(&at));
    assert!(elsewhere.is_running());
    let ran = inside("cat \"$1/f\"; grep -c \" TARGET=$1 .*ciderfs.ns=\" /run/mount/utab");
    // Its line in the table, which both share, was written by another mount and is left alone.
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "text1\n"), "{ran:?}");
    drop(mount);
    let program = program();
    let mut command = Command::new("nsenter");
    command.args(["-m", "-t", &pid]).arg(program.get_program()).args(["umount", "--flush"]).arg(&at);
    let ran = run_within(&mut command, PATIENCE);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(elsewhere.code(), Some(0));
    assert_eq!(lines(&at), 0);
}
