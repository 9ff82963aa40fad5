//! A mounted file system, end to end.

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use ciderfs_fuse::mount::{find_mount, mount};
use ciderfs_fuse::*;
use common::*;

#[test]
fn list_stat_read_unmount() {
    if !can_mount() {
        return;
    }
    let m = Mounted::new(SessionConfig::default());
    assert!(m.guard.is_mounted());
    let info = find_mount(m.guard.mountpoint()).unwrap().unwrap();
    assert_eq!((info.source.as_str(), info.fstype.as_str()), ("mem:a b", "fuse.cidertest"));
    assert!(info.options.contains("nosuid") && info.options.contains("nodev"));

    let mut names: Vec<_> = std::fs::read_dir(m.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["big", "block", "hello", "lost", "panic", "sub"]);
    assert_eq!(std::fs::read_dir(m.path("sub")).unwrap().count(), 0);

    let meta = std::fs::metadata(m.path("hello")).unwrap();
    assert_eq!((meta.len(), meta.mode()), (HELLO.len() as u64, 0o100644));
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_600_000_000, 42));
    assert_eq!(std::fs::read(m.path("hello")).unwrap(), HELLO);
    assert_eq!(std::fs::metadata(m.path("none")).unwrap_err().kind(), ErrorKind::NotFound);

    let data = std::fs::read(m.path("big")).unwrap();
    assert_eq!(data.len(), BIG);
    assert!(data.iter().enumerate().all(|(i, &b)| b == big_byte(i)));
    // An operation that the file system does not know.
    assert!(File::create(m.path("new")).is_err());
    assert_eq!(m.session.monitor().in_flight(), 0);

    let state = m.finish();
    assert_eq!(state.inits.load(Ordering::SeqCst), 1);
}

#[test]
fn reads_of_one_mebibyte_arrive_whole() {
    if !can_mount() {
        return;
    }
    let m = Mounted::new(SessionConfig::default());
    // Direct I/O asks for what the caller asks for.
    let file = rustix::fs::open(
        m.path("big"),
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECT,
        rustix::fs::Mode::empty(),
    );
    let file = File::from(file.unwrap());
    let mut room = vec![0; (1 << 20) + 4096];
    // From a page boundary on, else the kernel splits the request.
    let start = room.as_ptr().align_offset(4096);
    let buf = &mut room[start..][..1 << 20];
    file.read_exact_at(buf, 1 << 20).unwrap();
    assert!(buf.iter().enumerate().all(|(i, &b)| b == big_byte((1 << 20) + i)));
    drop(file);
    assert_eq!(m.finish().largest_read.load(Ordering::SeqCst), 1 << 20);
}

#[test]
fn works_with_one_thread_and_without_clones() {
    if !can_mount() {
        return;
    }
    for (threads, clone_fd) in [(1, true), (3, false)] {
        let m = Mounted::new(SessionConfig { threads: Some(threads), clone_fd, ..SessionConfig::default() });
        assert_eq!(std::fs::read(m.path("hello")).unwrap(), HELLO);
        m.finish();
    }
}

#[test]
fn a_signal_interrupts_a_blocked_read() {
    if !can_mount() {
        return;
    }
    let m = Mounted::new(SessionConfig::default());
    let mut child = Command::new("cat").arg(m.path("block")).stdout(Stdio::null()).spawn().unwrap();
    let blocking = m.state.blocking.lock().unwrap();
    let limit = std::time::Duration::from_secs(30);
    drop(m.state.blocking_changed.wait_timeout_while(blocking, limit, |b| !*b).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    let monitor = m.session.monitor();
    assert_eq!(m.finish().interrupted.load(Ordering::SeqCst), 1);
    assert_eq!(monitor.in_flight(), 0);
}

#[test]
fn panics_and_dropped_replies_answer_eio() {
    if !can_mount() {
        return;
    }
    let m = Mounted::new(SessionConfig { threads: Some(1), ..SessionConfig::default() });
    for name in ["panic", "lost", "panic"] {
        let mut byte = [0];
        let err = File::open(m.path(name)).unwrap().read(&mut byte).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EIO), "{name}");
    }
    // The one thread is still there.
    assert_eq!(std::fs::read(m.path("hello")).unwrap(), HELLO);
    m.finish();
}

#[test]
fn a_busy_mount_point_is_refused() {
    if !can_mount() {
        return;
    }
    let mut m = Mounted::new(SessionConfig::default());
    let err = mount(m.dir.path(), &MountOptions::default()).unwrap_err();
    assert!(matches!(&err, MountError::Busy { by, .. } if by.contains("mem:a b")), "{err}");
    // An open file keeps it from being unmounted unless lazily.
    let open = File::open(m.path("hello")).unwrap();
    assert!(matches!(m.guard.unmount(false), Err(MountError::Busy { .. })));
    assert!(m.guard.is_mounted());
    drop(open);
    m.finish();
}

#[test]
fn a_dead_server_leaves_a_broken_mount_that_is_named() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (fd, mut guard) = mount(dir.path(), &MountOptions::default()).unwrap();
    drop(fd);
    let err = mount(dir.path(), &MountOptions::default()).unwrap_err();
    assert!(matches!(&err, MountError::Broken { .. }), "{err}");
    assert!(err.to_string().contains("Transport endpoint is not connected"));
    guard.unmount(false).unwrap();
    assert!(!guard.is_mounted());
    assert!(matches!(mount::unmount(dir.path(), false), Err(MountError::NotMounted { .. })));
}

#[test]
fn notifications_reach_the_kernel() {
    if !can_mount() {
        return;
    }
    let m = Mounted::new(SessionConfig::default());
    let notifier = m.session.notifier();
    std::fs::metadata(m.path("hello")).unwrap();
    assert!(notifier.inval_inode(2, 0, 0).unwrap());
    assert!(!notifier.inval_inode(999, 0, 0).unwrap());
    assert!(notifier.inval_entry(1, b"hello", true).unwrap());
    assert!(!notifier.inval_entry(1, b"never-seen", false).unwrap());
    std::fs::metadata(m.path("hello")).unwrap();
    assert!(notifier.delete(1, 2, b"hello").unwrap());
    let file = File::open(m.path("big")).unwrap();
    assert!(notifier.store(3, 0, &[9; 4096]).unwrap());
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [9]);
    drop(file);
    m.finish();
    assert_eq!(notifier.inval_inode(2, 0, 0).unwrap_err().raw_os_error(), Some(libc::ENODEV));
}

#[test]
fn read_ahead_is_raised() {
    if !can_mount() || !rustix::process::geteuid().is_root() {
        return;
    }
    let m = Mounted::new(SessionConfig::default());
    m.guard.set_read_ahead_kb(1024).unwrap();
    let (major, minor) = m.guard.device().unwrap();
    let now = std::fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb")).unwrap();
    assert_eq!(now.trim(), "1024");
    m.finish();
}

#[test]
fn dropping_the_guard_unmounts() {
    if !can_mount() {
        return;
    }
    let m = Mounted::new(SessionConfig::default());
    let mountpoint = m.guard.mountpoint().to_path_buf();
    drop(m.guard);
    m.session.join().unwrap();
    assert!(find_mount(&mountpoint).unwrap().is_none());
}
