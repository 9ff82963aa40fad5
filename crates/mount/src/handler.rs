//! Dispatches FUSE requests.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ciderfs_format::{FileType, Ino};
use ciderfs_fuse::{
    CopyRange, DirBuffer, DirPlusBuffer, Entry, FileLock, Handler, Negotiated, Op, Opened, Reply, Request,
    Statfs, abi::UNIQUE_RESEND, abi::init as cap, dtype_of_mode,
};
use ciderfs_meta::{Caller, Errno, Error, NewNode};
use ciderfs_vfs::{DirItem, Stat, Vfs, WriteRequest, Writer};
use tokio::runtime::Handle;

use crate::begun::{Begun, Ticket};
use crate::identity::Identity;
use crate::interrupt::{self, Worked};
use crate::xattr::XattrOptions;
use crate::{access, convert};

/// How long the kernel may believe what it is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validity {
    pub(crate) attr: Duration,
    pub(crate) entry: Duration,
    pub(crate) dir_entry: Duration,
    pub(crate) negative: Duration,
}

/// Attributes of virtual files never change.
const VIRTUAL_VALID: Duration = Duration::from_secs(3600);

/// The FUSE side of a mounted volume.
pub(crate) struct Bridge {
    pub(crate) vfs: Arc<Vfs>,
    pub(crate) runtime: Handle,
    pub(crate) valid: Validity,
    /// Which extended attributes there are.
    pub(crate) xattr: XattrOptions,
    /// As whom callers count.
    pub(crate) identity: Identity,
    /// Apply the creator's umask here because the kernel does not.
    pub(crate) masks: bool,
    /// `chattr` works.
    pub(crate) ioctl: bool,
    /// The kernel may keep listings.
    pub(crate) keep_listings: bool,
    /// Where requests are noted that must happen once, of a mount that outlives this process.
    pub(crate) begun: Option<Arc<Begun>>,
}

pub(crate) type Answer<T> = Result<T, Error>;

/// The kernel wants 0 for the root, which it also meets as `..`. Numbers of other inodes are used once.
fn generation(ino: Ino) -> u64 {
    u64::from(ino != Ino::ROOT)
}

impl Bridge {
    fn caller(&self, req: &Request) -> Caller {
        self.identity.caller(req)
    }

    /// The umask that is still to be applied to a new node.
    fn umask(&self, umask: u32) -> u16 {
        if self.masks { self.identity.umask.unwrap_or((umask & 0o777) as u16) } else { 0 }
    }

    /// What the kernel is told of an inode, found in a directory, as it was `age` ago. Names in the trash are for some callers
    /// only, and so are names in a directory that a squashed superuser may not search: the kernel asks again for each.
    pub(crate) fn entry_in(&self, dir: Ino, e: &ciderfs_vfs::Entry, age: Duration) -> Entry {
        let mut entry = self.entry(e);
        let for_all = !dir.is_trash_hour()
            && self.identity.squashed_root().is_none_or(|c| self.vfs.seems_searchable(&c, dir));
        let valid = entry.entry_valid.saturating_sub(age);
        entry.entry_valid = if for_all || e.ino.is_virtual() { valid } else { Duration::ZERO };
        entry.attr_valid = entry.attr_valid.saturating_sub(age);
        entry
    }

    fn entry(&self, e: &ciderfs_vfs::Entry) -> Entry {
        let is_virtual = e.ino.is_virtual();
        let entry_valid = match e.attr.kind {
            _ if is_virtual => VIRTUAL_VALID,
            FileType::Directory => self.valid.dir_entry,
            _ => self.valid.entry,
        };
        Entry {
            nodeid: e.ino.0,
            generation: generation(e.ino),
            entry_valid,
            attr_valid: if is_virtual { VIRTUAL_VALID } else { self.valid.attr },
            attr: convert::attr(e.ino, &e.attr, e.blocks, e.links),
        }
    }

    /// The answer that tells of a node.
    fn attr(&self, ino: Ino, s: &Stat) -> Answered {
        let attr = convert::attr(ino, &s.attr, s.blocks, s.links);
        Answered::Attr(attr, self.valid.attr.saturating_sub(s.age))
    }

    pub(crate) fn opened(o: &ciderfs_vfs::Opened) -> Opened {
        use ciderfs_fuse::abi::fopen;
        let mut flags = 0;
        if o.keep_cache {
            flags |= fopen::KEEP_CACHE;
        }
        if o.direct_io {
            flags |= fopen::DIRECT_IO;
        }
        Opened::new(o.fh, flags)
    }

    /// Runs a request's future to its end, and answers. `changes`: the inode whose content it may change.
    fn spawn<F>(self: &Arc<Self>, reply: Reply, tid: u32, changes: Option<Ino>, work: F)
    where
        F: Future<Output = (Answered, Option<Ticket>)> + Send + 'static,
    {
        let b = Arc::clone(self);
        self.runtime.spawn(async move {
            match interrupt::run(work, reply, tid).await {
                Worked::Done((answered, _ticket), reply) => answered.send(reply),
                // Nobody will ever close what was opened for it.
                Worked::Late((Answered::Open(o) | Answered::Create(_, o), _)) => b.vfs.release(o.fh).await,
                Worked::Late(_) => {
                    if let Some(ino) = changes {
                        b.vfs.unheard(ino).await;
                    }
                }
            }
        });
    }
}

/// The inode whose content or attributes a request changes in ways that the kernel follows only where it is told of success.
fn changes(req: &Request) -> Option<Ino> {
    let node = Ino(req.header().nodeid);
    match req.op().ok()? {
        Op::Setattr(_) | Op::Fallocate { .. } | Op::Write { .. } => Some(node),
        Op::CopyFileRange(r) | Op::CopyFileRange64(r) => Some(Ino(r.node_out)),
        _ => None,
    }
}

/// The older form of copying answers with 32 bits.
const COPY_32_MAX: u64 = 0xffff_f000;

/// An answer ready to be sent.
pub(crate) enum Answered {
    Error(Errno),
    Empty,
    Entry(Entry),
    Negative(Duration),
    Attr(ciderfs_fuse::Attr, Duration),
    Open(Opened),
    Create(Entry, Opened),
    Data(Vec<Bytes>),
    Written(u32),
    Link(Bytes),
    Dir(DirBuffer),
    DirPlus(DirPlusBuffer),
    Statfs(Statfs),
    Xattr(Bytes),
    XattrSize(u32),
    Ioctl(Bytes),
    Lock(FileLock),
    Copied(u64),
    Offset(u64),
}

impl Answered {
    fn send(self, reply: Reply) {
        let _taken = match self {
            Self::Error(e) => reply.error(e.0),
            Self::Empty => reply.empty(),
            Self::Entry(e) => reply.entry(&e),
            Self::Negative(valid) => reply.entry(&Entry::negative(valid)),
            Self::Attr(a, valid) => reply.attr(&a, valid),
            Self::Open(o) => reply.open(o),
            Self::Create(e, o) => reply.create(&e, o),
            Self::Data(pieces) => reply.data_bytes(&pieces),
            Self::Written(n) => reply.written(n),
            Self::Link(target) => reply.readlink(&target),
            Self::Dir(d) => reply.directory(&d),
            Self::DirPlus(d) => reply.directory_plus(&d),
            Self::Statfs(s) => reply.statfs(&s),
            Self::Xattr(value) => reply.xattr(&value),
            Self::XattrSize(size) => reply.xattr_size(size),
            Self::Ioctl(data) => reply.ioctl(0, &data),
            Self::Lock(l) => reply.lock(&l),
            Self::Copied(n) => reply.copied(n),
            Self::Offset(n) => reply.lseek(n),
        };
    }
}

impl From<Answer<Answered>> for Answered {
    fn from(result: Answer<Answered>) -> Self {
        match result {
            Ok(a) => a,
            Err(e) => {
                if !matches!(e, Error::Errno(_)) {
                    tracing::warn!("{e}");
                }
                Self::Error(e.errno())
            }
        }
    }
}

/// The handler that a session owns.
pub(crate) struct Front(pub(crate) Arc<Bridge>);

impl Handler for Front {
    fn init(&self, negotiated: &Negotiated) {
        self.0.vfs.set_mixes_direct(negotiated.has(cap::DIRECT_IO_ALLOW_MMAP));
    }

    fn handle(&self, req: Request, reply: Reply) {
        let op = match req.op() {
            Ok(op) => op,
            Err(e) => {
                tracing::warn!("{e}");
                reply.error(e.errno());
                return;
            }
        };
        let b = Arc::clone(&self.0);
        match op {
            Op::Forget { .. } | Op::BatchForget(_) | Op::Interrupt { .. } => {}
            Op::Destroy => _ = reply.empty(),
            Op::Bmap { .. } | Op::Poll { .. } | Op::Statx { .. } => {
                _ = reply.error(libc::ENOSYS);
            }
            Op::Fsyncdir { .. } => _ = reply.empty(),
            Op::Releasedir { fh, .. } => {
                let began = Instant::now();
                b.vfs.releasedir(fh);
                reply.empty();
                b.vfs.metrics().request("releasedir", began.elapsed(), None);
            }
            Op::Ioctl { .. } if !b.ioctl => _ = reply.error(libc::ENOTTY),
            Op::Setlk(args) => b.set_lock(&req, &args, false, reply),
            Op::Setlkw(args) => b.set_lock(&req, &args, true, reply),
            Op::Getxattr { .. } | Op::Setxattr { .. } | Op::Listxattr { .. } | Op::Removexattr { .. }
                if !b.xattr.enabled =>
            {
                _ = reply.error(libc::ENOSYS);
            }
            _ => b.start(req, reply),
        }
    }
}

impl Bridge {
    /// Moves a request that may have to wait to the runtime.
    fn start(self: Arc<Self>, req: Request, reply: Reply) {
        let b = Arc::clone(&self);
        let began = Instant::now();
        let changes = changes(&req);
        self.spawn(reply, req.header().pid, changes, async move {
            let method = method_name(&req);
            let told = access::begin(&b.vfs, method, &req);
            let (answer, ticket) = b.once(&req).await;
            let answer: Answered = answer.into();
            let errno = if let Answered::Error(e) = &answer { Some(e.name()) } else { None };
            let took = began.elapsed();
            b.vfs.metrics().request(method, took, errno);
            if let Some(told) = told {
                b.vfs.access_log().tell(&access::end(&told, &answer, took));
            }
            (answer, ticket)
        });
    }

    async fn copy(&self, by: Writer<'_>, r: &CopyRange, len: u64) -> Answer<u64> {
        let (from, to) = ((r.fh_in, r.off_in), (r.fh_out, r.off_out));
        self.vfs.copy_by(by, from, (Ino(r.node_out), to), len, r.flags).await
    }

    /// Runs a request; where it meets a node that another mount has removed, the name by which it came is looked up again.
    pub(crate) async fn answer(&self, req: &Request) -> Answer<Answered> {
        let answer = self.run(req).await;
        if !is_about_a_node(req) || !answer.as_ref().is_err_and(|e| e.errno() == Errno::ENOENT) {
            return answer;
        }
        let ino = Ino(req.header().nodeid);
        let answer = if self.vfs.met_gone(&self.caller(req), ino) { self.run(req).await } else { answer };
        answer.map_err(|e| if e.errno() == Errno::ENOENT { Errno::ESTALE.into() } else { e })
    }

    async fn run(&self, req: &Request) -> Answer<Answered> {
        let vfs = &self.vfs;
        let ino = Ino(req.header().nodeid);
        let c = self.caller(req);
        let op = req.op().map_err(|e| Errno(e.errno()))?;
        let in_group = |gid| Identity::is_member(&c, gid);
        let by = |loses_bits| Writer { caller: &c, in_group: &in_group, loses_bits };
        Ok(match op {
            Op::Lookup { name } => match vfs.lookup(&c, ino, name).await {
                Ok(e) => Answered::Entry(self.entry_in(ino, &e, Duration::ZERO)),
                Err(e)
                    if e.errno() == Errno::ENOENT
                        && !self.valid.negative.is_zero()
                        && !ino.is_trash_hour() =>
                {
                    Answered::Negative(self.valid.negative)
                }
                Err(e) => return Err(e),
            },
            Op::Getattr { .. } => self.attr(ino, &vfs.stat(ino, self.valid.attr).await?),
            Op::Setattr(s) => {
                let set = convert::set_attr(&s);
                self.attr(ino, &vfs.set_stat_by(by(s.kill_suidgid), ino, &set, s.size, s.fh).await?)
            }
            Op::Readlink => Answered::Link(vfs.readlink(ino).await?),
            Op::Symlink { name, target } => {
                let node = NewNode { kind: FileType::Symlink, mode: 0o777, umask: 0, rdev: 0, target };
                let e = vfs.create(&c, ino, name, &node).await?;
                Answered::Entry(self.entry_in(ino, &e, Duration::ZERO))
            }
            Op::Mknod { name, mode, rdev, umask } => {
                let kind = FileType::from_mode(mode).ok_or(Errno::EINVAL)?;
                if !self.identity.may_make(req, kind, rdev) {
                    return Err(Errno::EPERM.into());
                }
                let node = NewNode {
                    kind,
                    mode: (mode & 0o7777) as u16,
                    umask: self.umask(umask),
                    rdev,
                    target: b"",
                };
                let e = vfs.create(&c, ino, name, &node).await?;
                Answered::Entry(self.entry_in(ino, &e, Duration::ZERO))
            }
            Op::Mkdir { name, mode, umask } => {
                let kind = FileType::Directory;
                let node = NewNode {
                    kind,
                    mode: (mode & 0o7777) as u16,
                    umask: self.umask(umask),
                    rdev: 0,
                    target: b"",
                };
                let e = vfs.create(&c, ino, name, &node).await?;
                Answered::Entry(self.entry_in(ino, &e, Duration::ZERO))
            }
            Op::Create { name, mode, umask, flags, .. } => {
                let mode = (mode & 0o7777) as u16;
                let (e, o) = vfs.create_open(&c, ino, name, mode, self.umask(umask), flags as i32).await?;
                Answered::Create(self.entry_in(ino, &e, Duration::ZERO), Self::opened(&o))
            }
            Op::Unlink { name } => {
                vfs.unlink(&c, ino, name).await?;
                Answered::Empty
            }
            Op::Rmdir { name } => {
                vfs.rmdir(&c, ino, name).await?;
                Answered::Empty
            }
            Op::Rename { name, newdir, newname } => {
                vfs.rename(&c, (ino, name), (Ino(newdir), newname), 0).await?;
                Answered::Empty
            }
            Op::Rename2 { name, newdir, newname, flags } => {
                vfs.rename(&c, (ino, name), (Ino(newdir), newname), flags).await?;
                Answered::Empty
            }
            Op::Link { oldnode, newname } => {
                let e = vfs.link(&c, Ino(oldnode), ino, newname).await?;
                Answered::Entry(self.entry_in(ino, &e, Duration::ZERO))
            }
            Op::Open { flags, kill_suidgid } => {
                Answered::Open(Self::opened(&vfs.open_by(by(kill_suidgid), ino, flags as i32).await?))
            }
            Op::Read { fh, offset, size, lock_owner, .. } => {
                // Only what goes past the kernel's pages names its owner.
                let data = vfs.read(fh, offset, size, lock_owner.is_none()).await?;
                // Whoever watches a mount reads its figures, which are no data.
                if !ino.is_virtual() {
                    vfs.metrics().read(data.iter().map(|b| b.len() as u64).sum());
                }
                Answered::Data(data)
            }
            Op::Write { fh, data, .. } if Vfs::is_control(ino) => {
                Answered::Written(vfs.write_control(&c, fh, data)?)
            }
            Op::Write { fh, offset, data, flags, cached, kill_suidgid, .. } => {
                let write = WriteRequest {
                    fh,
                    offset,
                    data,
                    flags: flags as i32,
                    cached,
                    has_capabilities: self.xattr.enabled,
                    unique: req.header().unique & !UNIQUE_RESEND,
                    is_resent: req.is_resend(),
                };
                let n = vfs.write_by(by(kill_suidgid), ino, write).await?;
                vfs.metrics().written(u64::from(n));
                Answered::Written(n)
            }
            Op::Statfs => {
                let s = vfs.statfs(ino).await?;
                Answered::Statfs(Statfs {
                    blocks: s.total_space / 4096,
                    bfree: s.avail_space / 4096,
                    bavail: s.avail_space / 4096,
                    files: s.used_inodes + s.avail_inodes,
                    ffree: s.avail_inodes,
                    ..Statfs::default()
                })
            }
            Op::Flush { fh, lock_owner } => {
                vfs.close_descriptor(fh, lock_owner).await?;
                Answered::Empty
            }
            Op::Fsync { fh, .. } => {
                vfs.fsync(fh).await?;
                Answered::Empty
            }
            Op::Getlk(args) => Answered::Lock(self.get_lock(&args).await?),
            Op::Release { fh, .. } => {
                vfs.release(fh).await;
                Answered::Empty
            }
            Op::Access { mask } => {
                vfs.access(&c, ino, (mask & 7) as u8).await?;
                Answered::Empty
            }
            Op::Opendir { .. } => {
                use ciderfs_fuse::abi::fopen;
                let flags = if self.keep_listings && !ino.is_trash_hour() {
                    fopen::CACHE_DIR | fopen::KEEP_CACHE
                } else {
                    0
                };
                Answered::Open(Opened::new(vfs.opendir(&c, ino).await?, flags))
            }
            Op::Ioctl { cmd, data, .. } => self.ioctl(&c, ino, cmd, data).await?,
            Op::Readdir { fh, offset, size } => {
                let mut out = DirBuffer::new(size);
                vfs.readdir(fh, offset, false, &mut |item: DirItem<'_>| {
                    let kind = dtype_of_mode(item.kind.mode_bits());
                    !out.push(item.ino.0, item.next_offset, kind, item.name)
                })
                .await?;
                Answered::Dir(out)
            }
            Op::Readdirplus { fh, offset, size } => {
                let mut out = DirPlusBuffer::new(size);
                vfs.readdir(fh, offset, true, &mut |item: DirItem<'_>| {
                    let kind = dtype_of_mode(item.kind.mode_bits());
                    // Without attributes the kernel gets the name only.
                    let entry = item.attr.map_or_else(Entry::default, |a| {
                        let DirItem { ino: node, blocks, links, .. } = item;
                        let found = ciderfs_vfs::Entry { ino: node, attr: a.clone(), blocks, links };
                        self.entry_in(ino, &found, item.age)
                    });
                    !out.push(&entry, item.ino.0, item.next_offset, kind, item.name)
                })
                .await?;
                Answered::DirPlus(out)
            }
            op @ (Op::Getxattr { .. }
            | Op::Listxattr { .. }
            | Op::Setxattr { .. }
            | Op::Removexattr { .. }) => self.xattr(&c, ino, op).await?,
            Op::Fallocate { fh, offset, length, mode } => {
                vfs.fallocate_by(by(false), (ino, fh), mode, offset, length).await?;
                Answered::Empty
            }
            Op::Lseek { fh, offset, whence } => Answered::Offset(vfs.lseek(fh, offset, whence).await?),
            Op::CopyFileRange(r) => Answered::Copied(self.copy(by(false), &r, r.len.min(COPY_32_MAX)).await?),
            Op::CopyFileRange64(r) => Answered::Copied(self.copy(by(false), &r, r.len).await?),
            Op::Tmpfile { mode, umask, flags, .. } => {
                let mode = (mode & 0o7777) as u16;
                let (e, o) = vfs.create_nameless(&c, ino, mode, self.umask(umask), flags as i32).await?;
                Answered::Create(self.entry(&e), Self::opened(&o))
            }
            Op::Syncfs => {
                vfs.flush_all().await;
                Answered::Empty
            }
            _ => return Err(Errno::ENOSYS.into()),
        })
    }
}

/// Does a request ask for a node that the kernel has found by a name, so that it looks the name up again when it hears `ESTALE`,
/// and the program gets whatever has taken that name, or `ENOENT`?
fn is_about_a_node(req: &Request) -> bool {
    matches!(
        req.op(),
        Ok(Op::Getattr { .. }
            | Op::Setattr(_)
            | Op::Open { .. }
            | Op::Opendir { .. }
            | Op::Readlink
            | Op::Access { .. }
            | Op::Getxattr { .. }
            | Op::Listxattr { .. }
            | Op::Setxattr { .. }
            | Op::Removexattr { .. })
    )
}

/// Name of an operation in the metrics.
fn method_name(req: &Request) -> &'static str {
    match req.op() {
        Ok(Op::Lookup { .. }) => "lookup",
        Ok(Op::Getattr { .. }) => "getattr",
        Ok(Op::Setattr(_)) => "setattr",
        Ok(Op::Readlink) => "readlink",
        Ok(Op::Symlink { .. }) => "symlink",
        Ok(Op::Mknod { .. }) => "mknod",
        Ok(Op::Mkdir { .. }) => "mkdir",
        Ok(Op::Create { .. }) => "create",
        Ok(Op::Unlink { .. }) => "unlink",
        Ok(Op::Rmdir { .. }) => "rmdir",
        Ok(Op::Rename { .. } | Op::Rename2 { .. }) => "rename",
        Ok(Op::Link { .. }) => "link",
        Ok(Op::Open { .. }) => "open",
        Ok(Op::Read { .. }) => "read",
        Ok(Op::Write { .. }) => "write",
        Ok(Op::Statfs) => "statfs",
        Ok(Op::Flush { .. }) => "flush",
        Ok(Op::Fsync { .. }) => "fsync",
        Ok(Op::Release { .. }) => "release",
        Ok(Op::Access { .. }) => "access",
        Ok(Op::Getlk(_)) => "getlk",
        Ok(Op::Opendir { .. }) => "opendir",
        Ok(Op::Getxattr { .. }) => "getxattr",
        Ok(Op::Listxattr { .. }) => "listxattr",
        Ok(Op::Setxattr { .. }) => "setxattr",
        Ok(Op::Removexattr { .. }) => "removexattr",
        Ok(Op::Fallocate { .. }) => "fallocate",
        Ok(Op::Lseek { .. }) => "lseek",
        Ok(Op::CopyFileRange(_) | Op::CopyFileRange64(_)) => "copy_file_range",
        Ok(Op::Tmpfile { .. }) => "tmpfile",
        Ok(Op::Readdir { .. } | Op::Readdirplus { .. }) => "readdir",
        Ok(Op::Ioctl { .. }) => "ioctl",
        _ => "other",
    }
}
