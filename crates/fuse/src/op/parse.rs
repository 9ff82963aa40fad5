//! From the bytes after a request's header to an [`Op`].

use crate::abi::{fattr, flags, opcode, wire};
use crate::attr::{FileLock, Timestamp};
use crate::cursor::{Cursor, Short};

use super::{CopyRange, Forget, LockArgs, Op, SetAttr, SetTime};

/// Parses the arguments of operation `code`. `args` ends before the extensions; `setxattr_ext` tells whether
/// SETXATTR_EXT was negotiated (the longer form is not recognisable from the bytes).
pub(crate) fn parse(code: u32, args: &[u8], setxattr_ext: bool) -> Result<Op<'_>, Short> {
    let mut c = Cursor::new(args);
    Ok(match code {
        opcode::LOOKUP => Op::Lookup { name: c.name()? },
        opcode::FORGET => Op::Forget { nlookup: c.get::<wire::ForgetIn>("forget")?.nlookup },
        opcode::BATCH_FORGET => {
            let count = c.get::<wire::BatchForgetIn>("batch forget")?.count as usize;
            let bytes = count.checked_mul(size_of::<wire::ForgetOne>()).ok_or(Short("forget list"))?;
            Op::BatchForget(Forget { items: c.bytes(bytes, "forget list")? })
        }
        opcode::GETATTR => {
            let a: wire::GetattrIn = c.get("getattr")?;
            Op::Getattr { fh: (a.getattr_flags & flags::GETATTR_FH != 0).then_some(a.fh) }
        }
        opcode::SETATTR => Op::Setattr(setattr(&c.get("setattr")?)),
        opcode::READLINK => Op::Readlink,
        opcode::SYMLINK => Op::Symlink { name: c.name()?, target: c.c_str("link target")? },
        opcode::MKNOD => {
            let a: wire::MknodIn = c.get("mknod")?;
            Op::Mknod { name: c.name()?, mode: a.mode, rdev: a.rdev, umask: a.umask }
        }
        opcode::MKDIR => {
            let a: wire::MkdirIn = c.get("mkdir")?;
            Op::Mkdir { name: c.name()?, mode: a.mode, umask: a.umask }
        }
        opcode::UNLINK => Op::Unlink { name: c.name()? },
        opcode::RMDIR => Op::Rmdir { name: c.name()? },
        opcode::RENAME => {
            let a: wire::RenameIn = c.get("rename")?;
            Op::Rename { name: c.name()?, newdir: a.newdir, newname: c.name()? }
        }
        opcode::RENAME2 => {
            let a: wire::Rename2In = c.get("rename2")?;
            Op::Rename2 { name: c.name()?, newdir: a.newdir, newname: c.name()?, flags: a.flags }
        }
        opcode::LINK => {
            let a: wire::LinkIn = c.get("link")?;
            Op::Link { oldnode: a.oldnodeid, newname: c.name()? }
        }
        opcode::OPEN => {
            let a: wire::OpenIn = c.get("open")?;
            Op::Open { flags: a.flags, kill_suidgid: a.open_flags & flags::OPEN_KILL_SUIDGID != 0 }
        }
        opcode::OPENDIR => Op::Opendir { flags: c.get::<wire::OpenIn>("opendir")?.flags },
        opcode::READ => {
            let a: wire::ReadIn = c.get("read")?;
            let lock_owner = (a.read_flags & flags::READ_LOCKOWNER != 0).then_some(a.lock_owner);
            Op::Read { fh: a.fh, offset: a.offset, size: a.size, lock_owner, flags: a.flags }
        }
        opcode::READDIR => {
            let a: wire::ReadIn = c.get("readdir")?;
            Op::Readdir { fh: a.fh, offset: a.offset, size: a.size }
        }
        opcode::READDIRPLUS => {
            let a: wire::ReadIn = c.get("readdirplus")?;
            Op::Readdirplus { fh: a.fh, offset: a.offset, size: a.size }
        }
        opcode::WRITE => {
            let a: wire::WriteIn = c.get("write")?;
            Op::Write {
                fh: a.fh,
                offset: a.offset,
                data: c.bytes(a.size as usize, "data")?,
                lock_owner: (a.write_flags & flags::WRITE_LOCKOWNER != 0).then_some(a.lock_owner),
                flags: a.flags,
                cached: a.write_flags & flags::WRITE_CACHE != 0,
                kill_suidgid: a.write_flags & flags::WRITE_KILL_SUIDGID != 0,
            }
        }
        opcode::STATFS => Op::Statfs,
        opcode::RELEASE => {
            let a: wire::ReleaseIn = c.get("release")?;
            let flock_unlock = a.release_flags & flags::RELEASE_FLOCK_UNLOCK != 0;
            Op::Release { fh: a.fh, flags: a.flags, flock_unlock, lock_owner: a.lock_owner }
        }
        opcode::RELEASEDIR => {
            let a: wire::ReleaseIn = c.get("releasedir")?;
            Op::Releasedir { fh: a.fh, flags: a.flags }
        }
        opcode::FSYNC => {
            let a: wire::FsyncIn = c.get("fsync")?;
            Op::Fsync { fh: a.fh, datasync: a.fsync_flags & flags::FSYNC_FDATASYNC != 0 }
        }
        opcode::FSYNCDIR => {
            let a: wire::FsyncIn = c.get("fsyncdir")?;
            Op::Fsyncdir { fh: a.fh, datasync: a.fsync_flags & flags::FSYNC_FDATASYNC != 0 }
        }
        opcode::SETXATTR => {
            let a: wire::SetxattrIn = c.get("setxattr")?;
            let ext = match setxattr_ext {
                true => c.get::<wire::SetxattrInExt>("setxattr extension")?,
                false => wire::SetxattrInExt::default(),
            };
            Op::Setxattr {
                name: c.name()?,
                value: c.bytes(a.size as usize, "attribute value")?,
                flags: a.flags,
                acl_kill_sgid: ext.setxattr_flags & flags::SETXATTR_ACL_KILL_SGID != 0,
            }
        }
        opcode::GETXATTR => {
            let a: wire::GetxattrIn = c.get("getxattr")?;
            Op::Getxattr { name: c.name()?, size: a.size }
        }
        opcode::LISTXATTR => Op::Listxattr { size: c.get::<wire::GetxattrIn>("listxattr")?.size },
        opcode::REMOVEXATTR => Op::Removexattr { name: c.name()? },
        opcode::FLUSH => {
            let a: wire::FlushIn = c.get("flush")?;
            Op::Flush { fh: a.fh, lock_owner: a.lock_owner }
        }
        opcode::GETLK => Op::Getlk(lock(&c.get("getlk")?)),
        opcode::SETLK => Op::Setlk(lock(&c.get("setlk")?)),
        opcode::SETLKW => Op::Setlkw(lock(&c.get("setlkw")?)),
        opcode::ACCESS => Op::Access { mask: c.get::<wire::AccessIn>("access")?.mask },
        opcode::CREATE => {
            let a: wire::CreateIn = c.get("create")?;
            let kill_suidgid = a.open_flags & flags::OPEN_KILL_SUIDGID != 0;
            Op::Create { name: c.name()?, mode: a.mode, umask: a.umask, flags: a.flags, kill_suidgid }
        }
        opcode::TMPFILE => {
            let a: wire::CreateIn = c.get("tmpfile")?;
            Op::Tmpfile { name: c.name()?, mode: a.mode, umask: a.umask, flags: a.flags }
        }
        opcode::INTERRUPT => Op::Interrupt { unique: c.get::<wire::InterruptIn>("interrupt")?.unique },
        opcode::BMAP => {
            let a: wire::BmapIn = c.get("bmap")?;
            Op::Bmap { block: a.block, blocksize: a.blocksize }
        }
        opcode::IOCTL => {
            let a: wire::IoctlIn = c.get("ioctl")?;
            let data = c.bytes(a.in_size as usize, "ioctl data")?;
            Op::Ioctl { fh: a.fh, flags: a.flags, cmd: a.cmd, arg: a.arg, data, out_size: a.out_size }
        }
        opcode::POLL => {
            let a: wire::PollIn = c.get("poll")?;
            let schedule_notify = a.flags & flags::POLL_SCHEDULE_NOTIFY != 0;
            Op::Poll { fh: a.fh, kh: a.kh, schedule_notify, events: a.events }
        }
        opcode::FALLOCATE => {
            let a: wire::FallocateIn = c.get("fallocate")?;
            Op::Fallocate { fh: a.fh, offset: a.offset, length: a.length, mode: a.mode }
        }
        opcode::LSEEK => {
            let a: wire::LseekIn = c.get("lseek")?;
            Op::Lseek { fh: a.fh, offset: a.offset, whence: a.whence }
        }
        opcode::COPY_FILE_RANGE => Op::CopyFileRange(copy_range(&c.get("copy_file_range")?)),
        opcode::COPY_FILE_RANGE_64 => Op::CopyFileRange64(copy_range(&c.get("copy_file_range")?)),
        opcode::SYNCFS => Op::Syncfs,
        opcode::STATX => {
            let a: wire::StatxIn = c.get("statx")?;
            let fh = (a.getattr_flags & flags::GETATTR_FH != 0).then_some(a.fh);
            Op::Statx { fh, flags: a.sx_flags, mask: a.sx_mask }
        }
        opcode::DESTROY => Op::Destroy,
        opcode => Op::Unknown { opcode },
    })
}

fn setattr(a: &wire::SetattrIn) -> SetAttr {
    let has = |bit| a.valid & bit != 0;
    let time = |bit, now, secs: u64, nanos| match (has(bit) || has(now), has(now)) {
        (false, _) => None,
        (true, true) => Some(SetTime::Now),
        (true, false) => Some(SetTime::At(Timestamp { secs: secs as i64, nanos })),
    };
    SetAttr {
        mode: has(fattr::MODE).then_some(a.mode),
        uid: has(fattr::UID).then_some(a.uid),
        gid: has(fattr::GID).then_some(a.gid),
        size: has(fattr::SIZE).then_some(a.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, a.atime, a.atimensec),
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, a.mtime, a.mtimensec),
        ctime: has(fattr::CTIME).then_some(Timestamp { secs: a.ctime as i64, nanos: a.ctimensec }),
        fh: has(fattr::FH).then_some(a.fh),
        lock_owner: has(fattr::LOCKOWNER).then_some(a.lock_owner),
        kill_suidgid: has(fattr::KILL_SUIDGID),
    }
}

fn lock(a: &wire::LkIn) -> LockArgs {
    let lock = FileLock { start: a.lk.start, end: a.lk.end, typ: a.lk.typ, pid: a.lk.pid };
    LockArgs { fh: a.fh, owner: a.owner, lock, flags: a.lk_flags }
}

fn copy_range(a: &wire::CopyFileRangeIn) -> CopyRange {
    CopyRange {
        fh_in: a.fh_in,
        off_in: a.off_in,
        node_out: a.nodeid_out,
        fh_out: a.fh_out,
        off_out: a.off_out,
        len: a.len,
        flags: a.flags,
    }
}
