//! Stores and users that mean harm, against a mount.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ciderfs_testkit::hostile::{Hostile, Step};
use ciderfs_testkit::official::Official;
use ciderfs_testkit::s3::{Op, S3Options, S3Server, Scripted};
use support::client::{program, sh};
use support::{Engine, Volume, noise};

const MIB: u64 = 1 << 20;

/// A volume whose objects are in a server.
fn volume_on(server: &S3Server) -> Volume {
    let volume = Volume::unformatted(Engine::Sqlite);
    volume.format(&[
        "--storage=s3",
        &format!("--bucket={}", server.bucket_url("bucket")),
        &format!("--access-key={}", server.access_key),
        &format!("--secret-key={}", server.secret_key),
    ]);
    volume
}

/// `close` by itself, because a dropped file tells nobody.
fn close(file: File) -> std::io::Result<()> {
    let fd = file.as_raw_fd();
    std::mem::forget(file);
    // SAFETY: the descriptor was the file's alone, and nobody uses it any more.
    if unsafe { libc::close(fd) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[track_caller]
fn is_eio(result: std::io::Result<()>, what: &str) {
    assert_eq!(result.err().and_then(|e| e.raw_os_error()), Some(libc::EIO), "{what}");
}

/// A server that takes whatever comes says yes to everything: it must never be asked.
async fn elsewhere() -> Hostile {
    let yes = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    Hostile::start(Arc::new(|_| vec![Step::Send(yes.to_vec())])).await.unwrap()
}

#[test]
fn a_put_that_is_redirected_is_an_error_of_close_and_fsync_and_loses_nothing() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let other = runtime.block_on(elsewhere());
    let server =
        S3Server::start_now(S3Options { buckets: vec!["bucket".into()], ..S3Options::default() }).unwrap();
    let volume = volume_on(&server);
    let mount = volume.mount(&["--io-retries=1"]);
    let old = noise(1, 100_000);
    fs::write(mount.join("kept"), &old).unwrap();
    File::open(mount.join("kept")).unwrap().sync_all().unwrap();
    for status in [301, 302, 303, 307, 308] {
        for location in [Some(format!("{}/bucket/x", other.endpoint())), None] {
            let redirect = Scripted { location, ..Scripted::always(Op::Put, status, "") };
            server.control().prescribe(vec![redirect]);
            let what = format!("{status}");
            // A new file, closed; a new file, synced; bytes over those that are there.
            let mut file = File::create(mount.join("closed")).unwrap();
            file.write_all(&noise(2, 50_000)).unwrap();
            is_eio(close(file), &what);
            let mut file = File::create(mount.join("synced")).unwrap();
            file.write_all(&noise(3, 50_000)).unwrap();
            is_eio(file.sync_all(), &what);
            drop(file);
            let mut file = File::options().write(true).open(mount.join("kept")).unwrap();
            file.write_all(&noise(4, 50_000)).unwrap();
            // As a child does that another thread starts.
            is_eio(close(file.try_clone().unwrap()), &what);
            is_eio(file.sync_all(), &what);
            drop(file);
            // What is not stored is in no file, neither here nor for others.
            let second = volume.mount(&[]);
            for root in [mount.path(), second.path()] {
                assert_eq!(fs::metadata(root.join("closed")).unwrap().len(), 0, "{what}");
                assert_eq!(fs::metadata(root.join("synced")).unwrap().len(), 0, "{what}");
                assert!(fs::read(root.join("kept")).unwrap() == old, "{what}");
            }
            second.unmount();
        }
    }
    assert_eq!(other.requests(), [], "nothing goes where a redirect points to");
    server.control().prescribe(Vec::new());
    fs::write(mount.join("closed"), noise(5, 50_000)).unwrap();
    mount.unmount_after_errors();
    let mount = volume.mount(&[]);
    assert!(fs::read(mount.join("closed")).unwrap() == noise(5, 50_000));
    assert!(fs::read(mount.join("kept")).unwrap() == old);
    mount.unmount();
    Official::locate().unwrap().fsck(&volume.meta, &[]).unwrap();
}

/// A number of `/proc/PID/status`, in bytes.
fn memory(pid: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn nobody_fills_the_memory_through_control() {
    /// Writes requests that are refused, and ones that never get complete, into many descriptors, as much as is taken.
    const WRITERS: &str = "
import os, sys, errno
os.setgroups([]); os.setgid(65534); os.setuid(65534)
said, taken, fds = {}, 0, []
def write(fd, data):
    global taken
    try:
        taken += os.write(fd, data)
        return True
    except OSError as e:
        said[errno.errorcode[e.errno]] = said.get(errno.errorcode[e.errno], 0) + 1
        return False
fd = os.open(sys.argv[1], os.O_RDWR)
for n in range(6000):
    # A mebibyte; too short a head for what follows; one that says that a mebibyte will follow.
    if n % 10 == 0:
        write(fd, bytes(1 << 20))
    write(fd, (1005).to_bytes(4, 'big') + (8).to_bytes(4, 'big') + bytes(16000))
    write(fd, (1005).to_bytes(4, 'big') + (1 << 20).to_bytes(4, 'big') + bytes(1000))
while len(fds) < 5000:
    try:
        fds.append(os.open(sys.argv[1], os.O_RDWR))
    except OSError as e:
        said[errno.errorcode[e.errno]] = said.get(errno.errorcode[e.errno], 0) + 1
        break
for fd in fds:
    write(fd, (1005).to_bytes(4, 'big') + (16000).to_bytes(4, 'big'))
    for n in range(8):
        write(fd, bytes(4000))
print(len(fds), taken, sorted(said))
";
    let volume = Volume::new(Engine::Sqlite, &[]);
    let mount = volume.mount(&["--buffer-size=32", "--cache-dir=memory"]);
    let before = memory(mount.pid(), "VmRSS");
    let path = mount.join(".control");
    let out = Command::new("bash")
        .args(["-c", "ulimit -n 8000 && exec python3 -c \"$0\" \"$1\"", WRITERS])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{said} {}", String::from_utf8_lossy(&out.stderr));
    let peak = memory(mount.pid(), "VmHWM");
    // Receive buffers of large writes, and what the descriptors keep.
    assert!(peak - before < 64 * MIB, "{} MiB, then {}: {said}", before / MIB, peak / MIB);
    assert!(said.contains("'EINVAL', 'ENFILE'"), "{said}");
    assert!(said.starts_with("511 "), "{said}");
    // Root's tools go on, and so do those of others once they are gone.
    let info = program().arg("info").arg(mount.path()).output().unwrap();
    assert!(info.status.success(), "{info:?}");
    sh(mount.path(), "touch f && setpriv --reuid=65534 --regid=65534 --clear-groups sh -c ': <> .control'");
    mount.unmount();
}

/// Bodies and errors that have no end leave memory and log as they are.
#[test]
fn a_store_without_end_fills_neither_memory_nor_log() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let number = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&number);
    let server = runtime.block_on(Hostile::start(Arc::new(move |request| {
        let endless = |head: &str, more: &[u8]| {
            vec![
                Step::Send(format!("HTTP/1.1 {head}\r\n\r\n").into_bytes()),
                Step::Forever(more.repeat(1 << 16)),
            ]
        };
        match (request.method.as_str(), count.fetch_add(1, Ordering::SeqCst) % 2) {
            ("GET", 0) => endless("200 OK\r\ncontent-length: 1099511627776", b"0123456789abcdef"),
            ("GET", _) => endless("403 Forbidden\r\ncontent-length: 1099511627776", b"\x1b[31mfake\n"),
            _ => endless("500 Oh\r\ncontent-length: 1099511627776", b"\x1b[31mfake\n"),
        }
    })));
    let server = server.unwrap();
    let honest =
        S3Server::start_now(S3Options { buckets: vec!["bucket".into()], ..S3Options::default() }).unwrap();
    let volume = volume_on(&honest);
    let mount = volume.mount(&[]);
    let names: Vec<String> = (0..30).map(|n| format!("f{n}")).collect();
    for name in &names {
        fs::write(mount.join(name), noise(7, 300_000)).unwrap();
    }
    mount.unmount();
    let bucket = format!("--bucket={}/bucket", server.endpoint());
    let mount = volume.mount(&[&bucket, "--io-retries=1", "--buffer-size=32", "--cache-dir=memory"]);
    let before = memory(mount.pid(), "VmRSS");
    for name in &names {
        let e = File::open(mount.join(name)).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EIO));
    }
    let mut new = File::create(mount.join("new")).unwrap();
    new.write_all(&noise(8, 300_000)).unwrap();
    is_eio(new.sync_all(), "fsync");
    drop(new);
    assert!(server.requests().len() > names.len());
    let peak = memory(mount.pid(), "VmHWM");
    assert!(peak - before < 64 * MIB, "{} MiB, then {}", before / MIB, peak / MIB);
    let log = fs::read(log_of(mount.path())).unwrap();
    assert!(log.len() < 2 << 20, "{} bytes of log", log.len());
    assert!(!log.contains(&0x1b), "{}", String::from_utf8_lossy(&log));
    mount.unmount_after_errors();
}

fn log_of(mountpoint: &Path) -> std::path::PathBuf {
    mountpoint.with_extension("log")
}

#[test]
fn keys_come_from_files_and_pipes_that_end() {
    let volume = Volume::unformatted(Engine::Sqlite);
    for (path, why) in [("/dev/zero", "neither a file nor a pipe"), ("/", "neither a file nor a pipe")] {
        let mut format = program();
        format.args(["format", "--storage=file", &format!("--bucket={}/", volume.objects.display())]);
        let out =
            format.arg(format!("--encrypt-rsa-key={path}")).args([&volume.meta, "vol"]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(why), "{said}");
    }
    let out =
        program().args(["status", "rediss://127.0.0.1:1/1?tls-ca-cert-file=/dev/zero"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("neither a file nor a pipe"), "{said}");
    // The way in which keys come from a store of passwords.
    let script = "openssl genrsa 2048 > key.pem 2>/dev/null && \"$0\" format --encrypt-rsa-key <(cat key.pem) \
                  --storage=file --bucket=$PWD/objects/ \"$1\" vol";
    let mut bash = Command::new("bash");
    bash.args(["-c", script]).arg(program().get_program()).arg(&volume.meta).current_dir(volume.dir.path());
    let out = bash.output().unwrap();
    assert!(out.status.success(), "{out:?}");
}
