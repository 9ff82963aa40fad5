//! A client whose first start fails. It needs root and `/dev/fuse`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use ciderfs_fuse::mount::list_mounts;
use ciderfs_mounter::protocol::Error;
use ciderfs_mounter::{Client, Config, Refusal, Spec, serve};

/// Mounts, and ends before it serves.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs(sys.argv[2], exist_ok=True)
options = f"fd={os.open('/dev/fuse', os.O_RDWR)},rootmode=40000,user_id=0,group_id=0"
if libc.mount(b"JuiceFS:v", sys.argv[2].encode(), b"fuse.juicefs", 0, options.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
sys.exit("it has mounted")
"#;

#[test]
fn no_dead_mount_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (program, mounts) = (dir.path().join("program"), dir.path().join("mounts"));
    std::fs::write(&program, PROGRAM).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = dir.path().join("socket");
    let config = Config {
        socket: socket.clone(),
        run_dir: dir.path().join("run"),
        mount_dir: mounts.clone(),
        program,
        supervised: false,
        units: false,
    };
    std::thread::spawn(move || serve(config).unwrap());
    let client = Client::new(&socket);
    let since = Instant::now();
    while client.list().is_err() {
        assert!(since.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
    let spec = Spec::new("v", "redis://h/1", Vec::new(), BTreeMap::new()).unwrap();
    let refused = client.mount(spec, Duration::from_secs(20)).unwrap_err();
    let left: Vec<_> =
        list_mounts().unwrap().into_iter().filter(|m| m.mountpoint.starts_with(&mounts)).collect();
    for mount in &left {
        let _ = rustix::mount::unmount(&mount.mountpoint, rustix::mount::UnmountFlags::DETACH);
    }
    assert!(
        matches!(&refused, Error::Refused(Refusal::Failed, why) if why.contains("it has mounted")),
        "{refused:?}"
    );
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(std::fs::read_dir(&mounts).unwrap().count(), 0);
}
