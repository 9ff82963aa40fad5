//! A connection that outlives whoever serves it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ciderfs_fuse::*;
use common::*;

const LONG: Duration = Duration::from_secs(30);

/// Tells of each request of a kind, which it never answers; serves the rest.
struct Silent {
    kind: fn(&Op<'_>) -> bool,
    fs: MemFs,
    told: Mutex<std::sync::mpsc::Sender<Header>>,
    left: Arc<Mutex<Vec<Reply>>>,
}

impl Handler for Silent {
    fn handle(&self, req: Request, reply: Reply) {
        if req.op().is_ok_and(|op| (self.kind)(&op)) {
            self.told.lock().unwrap().send(*req.header()).unwrap();
            // Nothing is answered.
            self.left.lock().unwrap().push(reply);
        } else {
            self.fs.handle(req, reply);
        }
    }
}

struct Silenced {
    dir: tempfile::TempDir,
    _guard: MountGuard,
    /// What a supervisor would hold.
    kept: OwnedFd,
    session: SessionHandle,
    negotiated: Negotiated,
    reads: Receiver<Header>,
    left: Arc<Mutex<Vec<Reply>>>,
}

fn silenced() -> Silenced {
    silenced_with(InitConfig::default(), |op| matches!(op, Op::Read { .. }))
}

fn silenced_with(init: InitConfig, kind: fn(&Op<'_>) -> bool) -> Silenced {
    let dir = tempfile::tempdir().unwrap();
    let options =
        MountOptions { fsname: "mem".into(), subtype: "cidertest".into(), ..MountOptions::default() };
    let (fd, guard) = mount::mount(dir.path(), &options).unwrap();
    let kept = fd.try_clone().unwrap();
    let (told, reads) = channel();
    let left = Arc::<Mutex<Vec<Reply>>>::default();
    let handler = Silent { kind, fs: MemFs::default(), told: Mutex::new(told), left: left.clone() };
    let config = SessionConfig { shared: true, init, ..SessionConfig::default() };
    let session = Session::new(fd, config, handler).unwrap();
    let negotiated = Negotiated::from_bytes(&session.negotiated().to_bytes()).unwrap();
    Silenced { dir, _guard: guard, kept, session: session.spawn().unwrap(), negotiated, reads, left }
}

fn cat(path: &Path) -> Child {
    Command::new("cat").arg(path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn said(child: Child) -> Vec<u8> {
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// What is read while nobody serves, and what was read and not answered before, is answered by the next.
#[test]
fn the_next_one_answers_what_the_last_one_left() {
    if !can_mount() {
        return;
    }
    let m = silenced();
    let hello: PathBuf = m.dir.path().join("hello");
    let first = cat(&hello);
    let left = m.reads.recv_timeout(LONG).unwrap();
    assert!(m.session.stop_reading(LONG));
    let second = cat(&hello);
    let state = Arc::new(MemFs::default());
    let resends = Arc::new(Mutex::new(Vec::new()));
    struct Noting(Arc<MemFs>, Arc<Mutex<Vec<Header>>>);
    impl Handler for Noting {
        fn handle(&self, req: Request, reply: Reply) {
            if req.is_resend() {
                self.1.lock().unwrap().push(*req.header());
            }
            self.0.handle(req, reply);
        }
    }
    assert!(m.negotiated.can_resend(), "Linux 6.9 or later is needed for this test");
    let config = SessionConfig { shared: true, ..SessionConfig::default() };
    let next = Session::adopt(
        m.kept.try_clone().unwrap(),
        config,
        m.negotiated.clone(),
        Noting(state.clone(), resends.clone()),
    );
    let next = next.spawn().unwrap();
    assert!(next.notifier().resend().unwrap());
    if m.negotiated.can_inc_epoch() {
        assert!(next.notifier().inc_epoch().unwrap());
    }
    assert_eq!(said(first), HELLO);
    assert_eq!(said(second), HELLO);
    let resends = resends.lock().unwrap();
    let again = resends.iter().find(|h| h.unique == left.unique | abi::UNIQUE_RESEND).expect("sent again");
    assert_eq!((again.opcode, again.nodeid), (left.opcode, left.nodeid));
    assert_eq!(state.0.interrupted.load(Ordering::SeqCst), 0);
}

/// Readers that were told to stop take nothing more, however often that is done.
#[test]
fn stopping_loses_nothing() {
    if !can_mount() {
        return;
    }
    let m = silenced();
    let mut session = m.session;
    for _ in 0..50 {
        assert!(session.stop_reading(LONG));
        let config = SessionConfig { shared: true, ..SessionConfig::default() };
        let fd = m.kept.try_clone().unwrap();
        session = Session::adopt(fd, config, m.negotiated.clone(), MemFs::default()).spawn().unwrap();
        assert_eq!(said(cat(&m.dir.path().join("hello"))), HELLO);
    }
}

/// Kernels before 6.9 send nothing again: each reader has a descriptor of its own, with which the kernel ends what was read on it.
#[test]
fn a_kernel_that_sends_nothing_again_ends_what_was_left() {
    if !can_mount() {
        return;
    }
    // A read for the page cache the kernel would begin anew.
    let init = InitConfig { resend: false, ..InitConfig::default() };
    let m = silenced_with(init, |op| matches!(op, Op::Statfs));
    assert!(!m.negotiated.can_resend());
    let hello: PathBuf = m.dir.path().join("hello");
    let left = Command::new("stat").arg("-f").arg(m.dir.path()).stderr(Stdio::piped()).spawn().unwrap();
    m.reads.recv_timeout(LONG).unwrap();
    assert!(m.session.stop_reading(LONG));
    // Nobody has read what this one asks: it waits for the next.
    let waiting = cat(&hello);
    // The process ends, and its descriptors with it.
    m.session.leave();
    m.left.lock().unwrap().clear();
    m.session.join().unwrap();
    let ended = left.wait_with_output().unwrap();
    assert!(!ended.status.success(), "what nobody answers any more is not waited for");
    let why = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(why.contains("Software caused connection abort"), "{why}");
    let adopt = || {
        let config = SessionConfig { shared: true, ..SessionConfig::default() };
        let fd = m.kept.try_clone().unwrap();
        Session::adopt(fd, config, m.negotiated.clone(), MemFs::default()).spawn().unwrap()
    };
    for round in 0..3 {
        let next = adopt();
        assert_eq!(said(cat(&hello)), HELLO, "{round}");
        assert!(next.stop_reading(LONG));
    }
    let _last = adopt();
    assert_eq!(said(waiting), HELLO);
}
