use proptest::prelude::*;
use zerocopy::{Immutable, IntoBytes};

use super::*;
use crate::abi::{fattr, flags, opcode, wire};
use crate::attr::{FileLock, Timestamp};
use crate::buffer::Body;
use crate::request::{ParseError, Request};

/// Bytes of a request: header, then the parts.
fn bytes(opcode: u32, parts: &[&[u8]], extensions: &[u8]) -> Vec<u8> {
    let len = 40 + parts.iter().map(|p| p.len()).sum::<usize>() + extensions.len();
    let header = wire::InHeader {
        len: len as u32,
        opcode,
        unique: 6,
        nodeid: 9,
        uid: 1000,
        gid: 100,
        pid: 4321,
        total_extlen: (extensions.len() / 8) as u16,
        padding: 0,
    };
    let mut out = header.as_bytes().to_vec();
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out.extend_from_slice(extensions);
    out
}

fn request(bytes: Vec<u8>, setxattr_ext: bool) -> Result<Request, ParseError> {
    Request::new(Body::Small(bytes.into()), setxattr_ext)
}

/// Checks that the parts mean `want`, and that no proper prefix of them does or panics.
fn check(opcode: u32, parts: &[&[u8]], want: Op<'_>) {
    check_ext(opcode, parts, want, false);
}

fn check_ext(opcode: u32, parts: &[&[u8]], want: Op<'_>, setxattr_ext: bool) {
    let all = bytes(opcode, parts, &[]);
    let req = request(all.clone(), setxattr_ext).unwrap();
    assert_eq!(req.op().unwrap(), want);
    for len in 40..all.len() {
        let mut cut = all[..len].to_vec();
        cut[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        let cut = request(cut, setxattr_ext).unwrap();
        if let Ok(op) = cut.op() {
            panic!("{len} of {} bytes of opcode {opcode} mean {op:?}", all.len());
        }
        assert_eq!(cut.op().unwrap_err().errno(), libc::EIO);
    }
}

fn b<T: IntoBytes + Immutable>(value: &T) -> &[u8] {
    value.as_bytes()
}

#[test]
fn the_header_is_read() {
    let req = request(bytes(opcode::STATFS, &[], &[]), true).unwrap();
    let h = *req.header();
    assert_eq!((h.unique, h.opcode, h.nodeid, h.uid, h.gid, h.pid), (6, opcode::STATFS, 9, 1000, 100, 4321));
    assert_eq!(req.op().unwrap(), Op::Statfs);
    assert!(!req.is_resend());
}

#[test]
fn wrong_headers_are_refused() {
    let good = bytes(opcode::LOOKUP, &[b"name\0"], &[]);
    for len in 0..good.len() {
        assert!(matches!(request(good[..len].to_vec(), true), Err(ParseError::Header { got }) if got == len));
    }
    let mut extensions_too_long = bytes(opcode::STATFS, &[], &[]);
    extensions_too_long[36] = 1;
    assert!(request(extensions_too_long, true).is_err());
}

#[test]
fn names() {
    check(opcode::LOOKUP, &[b"name\0"], Op::Lookup { name: b"name" });
    check(opcode::UNLINK, &[b"\xff\xfe\0"], Op::Unlink { name: b"\xff\xfe" });
    check(opcode::RMDIR, &[b"d\0"], Op::Rmdir { name: b"d" });
    check(opcode::REMOVEXATTR, &[b"user.x\0"], Op::Removexattr { name: b"user.x" });
    check(opcode::SYMLINK, &[b"n\0", b"to/there\0"], Op::Symlink { name: b"n", target: b"to/there" });
    assert!(request(bytes(opcode::LOOKUP, &[b"\0"], &[]), true).unwrap().op().is_err());
}

#[test]
fn forgetting() {
    check(opcode::FORGET, &[b(&3u64)], Op::Forget { nlookup: 3 });
    let list = [wire::ForgetOne { nodeid: 5, nlookup: 1 }, wire::ForgetOne { nodeid: 6, nlookup: 2 }];
    let count = wire::BatchForgetIn { count: 2, dummy: 0 };
    check(opcode::BATCH_FORGET, &[b(&count), b(&list)], Op::BatchForget(Forget { items: b(&list) }));
    let items = Forget { items: b(&list) };
    assert_eq!(items.iter().collect::<Vec<_>>(), [(5, 1), (6, 2)]);
    assert_eq!((items.len(), items.is_empty()), (2, false));
    let lie = wire::BatchForgetIn { count: u32::MAX, dummy: 0 };
    assert!(request(bytes(opcode::BATCH_FORGET, &[b(&lie), b(&list)], &[]), true).unwrap().op().is_err());
}

#[test]
fn attributes() {
    let mut get = wire::GetattrIn { getattr_flags: 0, dummy: 0, fh: 8 };
    check(opcode::GETATTR, &[b(&get)], Op::Getattr { fh: None });
    get.getattr_flags = flags::GETATTR_FH;
    check(opcode::GETATTR, &[b(&get)], Op::Getattr { fh: Some(8) });
    let statx = wire::StatxIn { getattr_flags: 1, reserved: 0, fh: 8, sx_flags: 2, sx_mask: 0xfff };
    check(opcode::STATX, &[b(&statx)], Op::Statx { fh: Some(8), flags: 2, mask: 0xfff });

    let mut set = wire::SetattrIn {
        valid: 0,
        fh: 1,
        size: 2,
        lock_owner: 3,
        atime: 4,
        mtime: -5i64 as u64,
        ctime: 6,
        atimensec: 7,
        mtimensec: 8,
        ctimensec: 9,
        mode: 0o644,
        uid: 10,
        gid: 11,
        ..Default::default()
    };
    check(opcode::SETATTR, &[b(&set)], Op::Setattr(SetAttr::default()));
    set.valid = !(fattr::ATIME_NOW | fattr::MTIME_NOW);
    let want = SetAttr {
        mode: Some(0o644),
        uid: Some(10),
        gid: Some(11),
        size: Some(2),
        atime: Some(SetTime::At(Timestamp { secs: 4, nanos: 7 })),
        mtime: Some(SetTime::At(Timestamp { secs: -5, nanos: 8 })),
        ctime: Some(Timestamp { secs: 6, nanos: 9 }),
        fh: Some(1),
        lock_owner: Some(3),
        kill_suidgid: true,
    };
    check(opcode::SETATTR, &[b(&set)], Op::Setattr(want));
    set.valid = fattr::ATIME | fattr::ATIME_NOW | fattr::MTIME_NOW;
    let want = SetAttr { atime: Some(SetTime::Now), mtime: Some(SetTime::Now), ..SetAttr::default() };
    check(opcode::SETATTR, &[b(&set)], Op::Setattr(want));
}

#[test]
fn making_nodes() {
    let a = wire::MknodIn { mode: 0o100600, rdev: 5, umask: 0o22, padding: 0 };
    check(opcode::MKNOD, &[b(&a), b"n\0"], Op::Mknod { name: b"n", mode: 0o100600, rdev: 5, umask: 0o22 });
    let a = wire::MkdirIn { mode: 0o755, umask: 0o22 };
    check(opcode::MKDIR, &[b(&a), b"n\0"], Op::Mkdir { name: b"n", mode: 0o755, umask: 0o22 });
    check(opcode::LINK, &[b(&7u64), b"n\0"], Op::Link { oldnode: 7, newname: b"n" });
    let a = wire::CreateIn { flags: 2, mode: 0o100644, umask: 0o22, open_flags: 1 };
    let want = Op::Create { name: b"n", mode: 0o100644, umask: 0o22, flags: 2, kill_suidgid: true };
    check(opcode::CREATE, &[b(&a), b"n\0"], want);
    let want = Op::Tmpfile { name: b"/", mode: 0o100644, umask: 0o22, flags: 2 };
    check(opcode::TMPFILE, &[b(&a), b"/\0"], want);
}

#[test]
fn renaming() {
    let want = Op::Rename { name: b"a", newdir: 4, newname: b"bb" };
    check(opcode::RENAME, &[b(&4u64), b"a\0", b"bb\0"], want);
    let a = wire::Rename2In { newdir: 4, flags: 2, padding: 0 };
    let want = Op::Rename2 { name: b"a", newdir: 4, newname: b"bb", flags: 2 };
    check(opcode::RENAME2, &[b(&a), b"a\0", b"bb\0"], want);
}

#[test]
fn handles() {
    let a = wire::OpenIn { flags: 0x8001, open_flags: 1 };
    check(opcode::OPEN, &[b(&a)], Op::Open { flags: 0x8001, kill_suidgid: true });
    check(opcode::OPENDIR, &[b(&a)], Op::Opendir { flags: 0x8001 });
    let a = wire::ReleaseIn { fh: 3, flags: 1, release_flags: 2, lock_owner: 5 };
    check(opcode::RELEASE, &[b(&a)], Op::Release { fh: 3, flags: 1, flock_unlock: true, lock_owner: 5 });
    check(opcode::RELEASEDIR, &[b(&a)], Op::Releasedir { fh: 3, flags: 1 });
    let a = wire::FlushIn { fh: 3, unused: 0, padding: 0, lock_owner: 5 };
    check(opcode::FLUSH, &[b(&a)], Op::Flush { fh: 3, lock_owner: 5 });
    let a = wire::FsyncIn { fh: 3, fsync_flags: 1, padding: 0 };
    check(opcode::FSYNC, &[b(&a)], Op::Fsync { fh: 3, datasync: true });
    check(opcode::FSYNCDIR, &[b(&a)], Op::Fsyncdir { fh: 3, datasync: true });
}

#[test]
fn reading_and_writing() {
    let mut a =
        wire::ReadIn { fh: 3, offset: 4, size: 5, read_flags: 0, lock_owner: 6, flags: 7, padding: 0 };
    check(opcode::READ, &[b(&a)], Op::Read { fh: 3, offset: 4, size: 5, lock_owner: None, flags: 7 });
    a.read_flags = flags::READ_LOCKOWNER;
    check(opcode::READ, &[b(&a)], Op::Read { fh: 3, offset: 4, size: 5, lock_owner: Some(6), flags: 7 });
    check(opcode::READDIR, &[b(&a)], Op::Readdir { fh: 3, offset: 4, size: 5 });
    check(opcode::READDIRPLUS, &[b(&a)], Op::Readdirplus { fh: 3, offset: 4, size: 5 });

    let a = wire::WriteIn { fh: 3, offset: 4, size: 5, write_flags: 7, lock_owner: 6, flags: 8, padding: 0 };
    let want = Op::Write {
        fh: 3,
        offset: 4,
        data: b"hello",
        lock_owner: Some(6),
        flags: 8,
        cached: true,
        kill_suidgid: true,
    };
    check(opcode::WRITE, &[b(&a), b"hello"], want);
    let req = request(bytes(opcode::WRITE, &[b(&a), b"hello"], &[]), true).unwrap();
    assert_eq!(req.into_data(), "hello");
    let req = request(bytes(opcode::STATFS, &[], &[]), true).unwrap();
    assert!(req.into_data().is_empty());
}

#[test]
fn extended_attributes() {
    let a = wire::SetxattrIn { size: 3, flags: 2 };
    let want = |acl_kill_sgid| Op::Setxattr { name: b"user.n", value: b"v\0w", flags: 2, acl_kill_sgid };
    check(opcode::SETXATTR, &[b(&a), b"user.n\0", b"v\0w"], want(false));
    let ext = wire::SetxattrInExt { setxattr_flags: 1, padding: 0 };
    check_ext(opcode::SETXATTR, &[b(&a), b(&ext), b"user.n\0", b"v\0w"], want(true), true);
    let a = wire::GetxattrIn { size: 30, padding: 0 };
    check(opcode::GETXATTR, &[b(&a), b"user.n\0"], Op::Getxattr { name: b"user.n", size: 30 });
    check(opcode::LISTXATTR, &[b(&a)], Op::Listxattr { size: 30 });
}

#[test]
fn locks() {
    let lk = wire::FileLock { start: 1, end: 2, typ: 3, pid: 4 };
    let mut a = wire::LkIn { fh: 5, owner: 6, lk, lk_flags: 0, padding: 0 };
    let mut want =
        LockArgs { fh: 5, owner: 6, lock: FileLock { start: 1, end: 2, typ: 3, pid: 4 }, flags: 0 };
    assert!(!want.is_flock());
    check(opcode::GETLK, &[b(&a)], Op::Getlk(want));
    check(opcode::SETLK, &[b(&a)], Op::Setlk(want));
    a.lk_flags = flags::LK_FLOCK;
    want.flags = 1;
    check(opcode::SETLKW, &[b(&a)], Op::Setlkw(want));
    assert!(want.is_flock());
}

#[test]
fn the_rest() {
    check(opcode::ACCESS, &[b(&wire::AccessIn { mask: 4, padding: 0 })], Op::Access { mask: 4 });
    check(opcode::INTERRUPT, &[b(&12u64)], Op::Interrupt { unique: 12 });
    let a = wire::BmapIn { block: 1, blocksize: 512, padding: 0 };
    check(opcode::BMAP, &[b(&a)], Op::Bmap { block: 1, blocksize: 512 });
    let a = wire::IoctlIn { fh: 1, flags: 2, cmd: 3, arg: 4, in_size: 2, out_size: 6 };
    let want = Op::Ioctl { fh: 1, flags: 2, cmd: 3, arg: 4, data: b"in", out_size: 6 };
    check(opcode::IOCTL, &[b(&a), b"in"], want);
    let a = wire::PollIn { fh: 1, kh: 2, flags: 1, events: 5 };
    check(opcode::POLL, &[b(&a)], Op::Poll { fh: 1, kh: 2, schedule_notify: true, events: 5 });
    let a = wire::FallocateIn { fh: 1, offset: 2, length: 3, mode: 4, padding: 0 };
    check(opcode::FALLOCATE, &[b(&a)], Op::Fallocate { fh: 1, offset: 2, length: 3, mode: 4 });
    let a = wire::LseekIn { fh: 1, offset: 2, whence: 3, padding: 0 };
    check(opcode::LSEEK, &[b(&a)], Op::Lseek { fh: 1, offset: 2, whence: 3 });
    let a =
        wire::CopyFileRangeIn { fh_in: 1, off_in: 2, nodeid_out: 3, fh_out: 4, off_out: 5, len: 6, flags: 0 };
    let want = CopyRange { fh_in: 1, off_in: 2, node_out: 3, fh_out: 4, off_out: 5, len: 6, flags: 0 };
    check(opcode::COPY_FILE_RANGE, &[b(&a)], Op::CopyFileRange(want));
    check(opcode::COPY_FILE_RANGE_64, &[b(&a)], Op::CopyFileRange64(want));
    for (code, want) in [
        (opcode::READLINK, Op::Readlink),
        (opcode::STATFS, Op::Statfs),
        (opcode::DESTROY, Op::Destroy),
        (opcode::SYNCFS, Op::Syncfs),
        (9999, Op::Unknown { opcode: 9999 }),
    ] {
        check(code, &[], want);
    }
}

#[test]
fn extensions_are_no_part_of_the_arguments() {
    // One group (count, id), padded to 8 bytes.
    let mut ext = wire::ExtHeader { size: 16, typ: crate::abi::EXT_GROUPS }.as_bytes().to_vec();
    ext.extend_from_slice([1u32, 55].as_bytes());
    let a = wire::MkdirIn { mode: 0o755, umask: 0 };
    let req = request(bytes(opcode::MKDIR, &[b(&a), b"n\0"], &ext), true).unwrap();
    assert_eq!(req.op().unwrap(), Op::Mkdir { name: b"n", mode: 0o755, umask: 0 });
    assert_eq!(req.supplementary_groups(), [55]);
    let plain = request(bytes(opcode::MKDIR, &[b(&a), b"n\0"], &[]), true).unwrap();
    assert!(plain.supplementary_groups().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn arbitrary_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..200), ext: bool) {
        if let Ok(req) = request(raw, ext) {
            let _ = req.op();
            let _ = req.supplementary_groups();
            let _ = req.into_data();
        }
    }

    #[test]
    fn arbitrary_arguments_never_panic(
        opcode in 0u32..60,
        args in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..160),
        extensions in 0usize..4,
        ext: bool,
    ) {
        let extensions = vec![3u8; extensions * 8];
        let req = request(bytes(opcode, &[&args], &extensions), ext).unwrap();
        if let Ok(Op::BatchForget(list)) = req.op() {
            assert_eq!(list.iter().count(), list.len());
        }
        let _ = req.supplementary_groups();
        let _ = req.into_data();
    }
}
