//! What the kernel keeps of a mount, and in which order it asks, believes and forgets: the rules of Linux's `fs/fuse`, for files
//! of a few pages that are small.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ciderfs_format::lock::LockRecord;
use ciderfs_format::{Attr, Ino, Time};
use ciderfs_meta::{Caller, Errno, Lock, SetAttr};
use ciderfs_rt::Instant;
use ciderfs_vfs::{Error, Growth, LockRequest, Opened, Result, Stale, Vfs};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::engine::{draw, one_in, profile, trace, travel};

/// Bytes of a page. Nothing below knows how long a real one is.
pub const PAGE: u64 = 64;

/// One page.
#[derive(Clone)]
struct Page {
    data: Vec<u8>,
    /// Filled from its beginning to its end.
    whole: bool,
}

impl Page {
    fn empty() -> Self {
        Self { data: vec![0; PAGE as usize], whole: false }
    }
}

/// What is known of an inode.
#[derive(Default)]
struct Node {
    size: u64,
    mtime: Time,
    ctime: Time,
    mode: u16,
    /// It has got attributes: before that there is no such inode.
    met: bool,
    /// Until when the attributes are believed.
    until: Option<Instant>,
    /// Counts what has changed here; an answer that was asked for before is not taken.
    version: u64,
    /// A write that grows the file, or a truncation, is under way.
    unstable: bool,
    pages: BTreeMap<u64, Page>,
    /// Pages with a request under way.
    locked: BTreeSet<u64>,
}

#[derive(Default)]
struct Known {
    nodes: BTreeMap<Ino, Node>,
    names: BTreeMap<Vec<u8>, (Ino, Instant)>,
    version: u64,
    /// The version when inodes were evicted last: what was asked for before may be older than what they were told.
    evicted: u64,
    open: BTreeMap<Ino, u32>,
}

impl Known {
    fn node(&mut self, ino: Ino) -> &mut Node {
        self.nodes.entry(ino).or_default()
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// What was asked for before this is not taken any more.
    fn bump(&mut self, ino: Ino) {
        let version = self.next_version();
        self.node(ino).version = version;
    }

    fn expire(&mut self, ino: Ino) {
        self.node(ino).until = None;
    }
}

/// What a `stat` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub ino: Ino,
    pub size: u64,
    pub mode: u16,
    pub ctime: Time,
    /// The kernel goes by it.
    pub taken: bool,
}

/// An open file.
#[derive(Clone)]
pub struct Fd {
    pub ino: Ino,
    pub fh: u64,
    pub flags: i32,
    pub direct: bool,
}

/// The kernel of one mount.
pub struct Kernel {
    mount: usize,
    pub vfs: Arc<Vfs>,
    known: Mutex<Known>,
    unlocked: Notify,
    /// Held by who changes an inode.
    inodes: Mutex<BTreeMap<Ino, Arc<tokio::sync::Mutex<()>>>>,
    /// Of the one directory: who changes names holds it alone.
    dir: tokio::sync::RwLock<()>,
}

fn caller(pid: u32) -> Caller {
    Caller::kernel_checked(0, 0, pid)
}

const LARGEFILE: i32 = 0o100_000;

impl Kernel {
    pub fn new(mount: usize, vfs: Arc<Vfs>) -> Arc<Self> {
        let kernel = Arc::new(Self {
            mount,
            vfs,
            known: Mutex::default(),
            unlocked: Notify::new(),
            inodes: Mutex::default(),
            dir: tokio::sync::RwLock::default(),
        });
        kernel.vfs.set_mixes_direct(profile().mixes_direct);
        kernel.vfs.set_kernel(Arc::new(Told(Arc::downgrade(&kernel))));
        kernel
    }

    fn trace(&self, ino: Ino, what: &str) {
        trace(|| format!("mount {}, inode {ino}: {what}", self.mount));
    }

    async fn grow(&self, growth: Growth) -> bool {
        travel().await;
        if !self.invalidate(growth.ino, growth.before, 0).await {
            return false;
        }
        travel().await;
        // As `mount::serve` does: nothing comes between this and the message.
        if !growth.is_current() {
            return false;
        }
        self.store(growth.ino, growth.at, growth.last).await;
        travel().await;
        self.invalidate(growth.ino, growth.at, 1).await
    }

    // Notifications.

    fn invalidate_attributes(&self, ino: Ino) -> bool {
        self.trace(ino, "attributes are out of date");
        let mut k = self.known.lock();
        let known = k.nodes.contains_key(&ino);
        if known {
            k.bump(ino);
            k.expire(ino);
        }
        known
    }

    /// Drops attributes, and pages; no length: all from there on.
    async fn invalidate(&self, ino: Ino, off: u64, len: u64) -> bool {
        if !self.invalidate_attributes(ino) {
            return false;
        }
        let last = if len == 0 { u64::MAX } else { (off + len - 1) / PAGE };
        self.drop_pages(ino, off / PAGE, last).await;
        true
    }

    async fn store(&self, ino: Ino, at: u64, byte: u8) {
        let index = at / PAGE;
        self.lock_page(ino, index).await;
        let mut k = self.known.lock();
        if at + 1 > k.node(ino).size {
            k.bump(ino);
            let node = k.node(ino);
            node.size = at + 1;
            node.until = None;
        }
        let node = k.node(ino);
        let size = node.size;
        let page = node.pages.entry(index).or_insert_with(Page::empty);
        page.data[(at % PAGE) as usize] = byte;
        if at.is_multiple_of(PAGE) && size == at + 1 {
            page.whole = true;
        }
        drop(k);
        self.unlock_page(ino, index);
    }

    // Pages.

    async fn lock_page(&self, ino: Ino, index: u64) {
        loop {
            let unlocked = self.unlocked.notified();
            tokio::pin!(unlocked);
            unlocked.as_mut().enable();
            if self.known.lock().node(ino).locked.insert(index) {
                return;
            }
            unlocked.await;
        }
    }

    fn unlock_page(&self, ino: Ino, index: u64) {
        self.known.lock().node(ino).locked.remove(&index);
        self.unlocked.notify_waiters();
    }

    /// Drops pages, each after the request that is under way for it.
    async fn drop_pages(&self, ino: Ino, first: u64, last: u64) {
        let pages: Vec<u64> =
            self.known.lock().node(ino).pages.range(first..=last).map(|(n, _)| *n).collect();
        for index in pages {
            self.lock_page(ino, index).await;
            self.known.lock().node(ino).pages.remove(&index);
            self.unlock_page(ino, index);
        }
    }

    /// Cuts what is cached at a length.
    async fn cut_pages(&self, ino: Ino, size: u64) {
        self.drop_pages(ino, size.div_ceil(PAGE), u64::MAX).await;
        if !size.is_multiple_of(PAGE) {
            let index = size / PAGE;
            if !self.known.lock().node(ino).pages.contains_key(&index) {
                return;
            }
            self.lock_page(ino, index).await;
            if let Some(page) = self.known.lock().node(ino).pages.get_mut(&index) {
                page.data[(size % PAGE) as usize..].fill(0);
            }
            self.unlock_page(ino, index);
        }
    }

    /// Memory is short: anything clean may go.
    pub fn press(&self) {
        let mut k = self.known.lock();
        let open: BTreeSet<Ino> = k.open.iter().filter(|(_, n)| **n > 0).map(|(ino, _)| *ino).collect();
        if one_in(2) {
            k.nodes.retain(|ino, n| open.contains(ino) || !n.locked.is_empty() || n.unstable || !one_in(2));
            k.names.clear();
            k.evicted = k.next_version();
        }
        for node in k.nodes.values_mut() {
            let locked = node.locked.clone();
            node.pages.retain(|n, _| locked.contains(n) || !one_in(2));
        }
    }

    // Attributes.

    fn asked(&self) -> u64 {
        self.known.lock().version.max(1)
    }

    /// Takes attributes from an answer that was asked for at a version; 0 is taken whatever has happened since.
    /// False if it is not.
    async fn take_attributes(&self, ino: Ino, attr: &Attr, valid: Duration, asked: u64) -> bool {
        let (cut, drop) = {
            let mut k = self.known.lock();
            let new = !k.node(ino).met;
            let old = new && asked != 0 && asked < k.evicted;
            let node = k.node(ino);
            if !new && ((asked != 0 && node.version > asked) || node.unstable) {
                self.trace(ino, &format!("length {} is too late", attr.length));
                return false;
            }
            let (size, mtime) = (node.size, node.mtime);
            k.bump(ino);
            let node = k.node(ino);
            (node.size, node.mtime, node.ctime, node.mode) = (attr.length, attr.mtime, attr.ctime, attr.mode);
            node.met = true;
            node.until = Some(Instant::now() + valid).filter(|_| !old);
            self.trace(ino, &format!("length {} is taken, was {size}", attr.length));
            (!new && size != attr.length, !new && (size != attr.length || mtime != attr.mtime))
        };
        if cut {
            self.cut_pages(ino, attr.length).await;
        }
        if drop {
            self.drop_pages(ino, 0, u64::MAX).await;
        }
        true
    }

    fn stat_of(ino: Ino, a: &Attr, taken: bool) -> Stat {
        Stat { ino, size: a.length, mode: a.mode, ctime: a.ctime, taken }
    }

    /// Attributes as believed, or asked for.
    async fn attributes(&self, pid: u32, ino: Ino) -> Result<Stat> {
        {
            let mut k = self.known.lock();
            let node = k.node(ino);
            if node.until.is_some_and(|until| until > Instant::now()) {
                return Ok(Stat { ino, size: node.size, mode: node.mode, ctime: node.ctime, taken: true });
            }
        }
        let asked = self.asked();
        travel().await;
        let (attr, age) = match self.vfs.getattr_within(ino, profile().valid).await {
            Err(e) if e.errno() == Errno::ENOENT && self.vfs.met_gone(&caller(pid), ino) => {
                self.vfs.getattr_within(ino, profile().valid).await?
            }
            other => other?,
        };
        travel().await;
        let taken = self.take_attributes(ino, &attr, profile().valid.saturating_sub(age), asked).await;
        Ok(Self::stat_of(ino, &attr, taken))
    }

    // Names.

    /// Finds a name, as believed or asked for; `again`: asked for.
    async fn find(&self, pid: u32, name: &[u8], again: bool) -> Result<Ino> {
        let believed = self.known.lock().names.get(name).copied();
        if let Some((ino, until)) = believed {
            if until > Instant::now() && !again {
                return Ok(ino);
            }
            // `d_revalidate`, which holds nothing.
            let asked = self.asked();
            let found = self.look_up(pid, name).await;
            if let Ok(e) = &found
                && e.ino == ino
            {
                self.take_attributes(e.ino, &e.attr, profile().valid, asked).await;
                if let Some(entry) = self.known.lock().names.get_mut(name).filter(|entry| entry.0 == ino) {
                    entry.1 = Instant::now() + profile().valid;
                }
                return Ok(ino);
            }
            let mut k = self.known.lock();
            if k.names.get(name).is_some_and(|entry| entry.0 == ino) {
                k.names.remove(name);
            }
        }
        let _dir = self.dir.read().await;
        self.find_locked(pid, name).await
    }

    /// [`Kernel::find`] for who holds the directory.
    async fn find_locked(&self, pid: u32, name: &[u8]) -> Result<Ino> {
        if let Some((ino, until)) = self.known.lock().names.get(name)
            && *until > Instant::now()
        {
            return Ok(*ino);
        }
        let asked = self.asked();
        let found = self.look_up(pid, name).await;
        match found {
            Ok(e) => {
                self.take_attributes(e.ino, &e.attr, profile().valid, asked).await;
                self.known.lock().names.insert(name.to_vec(), (e.ino, Instant::now() + profile().valid));
                Ok(e.ino)
            }
            Err(e) => {
                self.known.lock().names.remove(name);
                Err(e)
            }
        }
    }

    async fn look_up(&self, pid: u32, name: &[u8]) -> Result<ciderfs_vfs::Entry> {
        travel().await;
        let found = self.vfs.lookup(&caller(pid), Ino::ROOT, name).await;
        travel().await;
        found
    }

    pub async fn stat(&self, pid: u32, name: &[u8]) -> Result<Stat> {
        let ino = self.find(pid, name, false).await?;
        match self.attributes(pid, ino).await {
            Err(e) if is_stale(&e) => {
                let ino = self.find(pid, name, true).await?;
                self.attributes(pid, ino).await
            }
            other => other,
        }
    }

    pub async fn fstat(&self, pid: u32, fd: &Fd) -> Result<Stat> {
        self.attributes(pid, fd.ino).await
    }

    pub async fn create(&self, pid: u32, name: &[u8], flags: i32) -> Result<(Fd, Stat)> {
        let _dir = self.dir.write().await;
        let cached = self.known.lock().names.get(name).is_some_and(|(_, until)| *until > Instant::now());
        if cached && flags & libc::O_EXCL != 0 {
            return Err(Errno::EEXIST.into());
        }
        travel().await;
        let made = self.vfs.create_open(&caller(pid), Ino::ROOT, name, 0o644, 0, flags | LARGEFILE).await;
        travel().await;
        let (e, opened) = made?;
        self.take_attributes(e.ino, &e.attr, profile().valid, 0).await;
        self.known.lock().names.insert(name.to_vec(), (e.ino, Instant::now() + profile().valid));
        let fd = self.finish_open(e.ino, &opened, flags).await;
        Ok((fd, Self::stat_of(e.ino, &e.attr, true)))
    }

    pub async fn unlink(&self, pid: u32, name: &[u8]) -> Result<()> {
        let _dir = self.dir.write().await;
        let ino = self.find_locked(pid, name).await?;
        let inode = self.inode(ino);
        let _inode = inode.lock().await;
        travel().await;
        let done = self.vfs.unlink(&caller(pid), Ino::ROOT, name).await;
        travel().await;
        let mut k = self.known.lock();
        match &done {
            Ok(()) => {
                k.bump(ino);
                k.expire(ino);
                k.names.remove(name);
            }
            Err(_) => _ = k.names.remove(name),
        }
        done
    }

    pub async fn rename(&self, pid: u32, from: &[u8], to: &[u8]) -> Result<()> {
        let _dir = self.dir.write().await;
        let ino = self.find_locked(pid, from).await?;
        let over = self.find_locked(pid, to).await.ok();
        travel().await;
        let done = self.vfs.rename(&caller(pid), (Ino::ROOT, from), (Ino::ROOT, to), 0).await;
        travel().await;
        let mut k = self.known.lock();
        if done.is_ok() {
            for ino in over.into_iter().chain([ino]) {
                k.bump(ino);
                k.expire(ino);
            }
            // `d_move` takes the time along for which it is believed.
            k.names.remove(to);
            if let Some(entry) = k.names.remove(from) {
                k.names.insert(to.to_vec(), entry);
            }
        } else {
            k.names.remove(from);
            k.names.remove(to);
        }
        done
    }

    /// Gives an open file another name.
    pub async fn link(&self, pid: u32, fd: &Fd, name: &[u8]) -> Result<()> {
        let _dir = self.dir.write().await;
        // As `vfs_link` does: whatever the answer tells, no write comes between it and the kernel.
        let inode = self.inode(fd.ino);
        let _inode = inode.lock().await;
        travel().await;
        let e = self.vfs.link(&caller(pid), fd.ino, Ino::ROOT, name).await?;
        travel().await;
        self.take_attributes(e.ino, &e.attr, profile().valid, 0).await;
        self.known.lock().names.insert(name.to_vec(), (e.ino, Instant::now() + profile().valid));
        Ok(())
    }

    /// Lists names, as many at a time as drawn, with attributes.
    pub async fn list(&self, pid: u32) -> Result<Vec<(Vec<u8>, Ino)>> {
        travel().await;
        let fh = self.vfs.opendir(&caller(pid), Ino::ROOT).await?;
        let (mut at, mut names) = (0, Vec::new());
        loop {
            let (asked, most) = (self.asked(), 1 + draw(5));
            let mut page: Vec<(Vec<u8>, Ino, Option<Attr>, Duration)> = Vec::new();
            let _dir = self.dir.read().await;
            travel().await;
            let began = at;
            self.vfs
                .readdir(fh, at, true, &mut |item| {
                    if page.len() as u64 == most {
                        return true;
                    }
                    page.push((item.name.to_vec(), item.ino, item.attr.cloned(), item.age));
                    at = item.next_offset;
                    false
                })
                .await?;
            travel().await;
            if at == began {
                break;
            }
            for (name, ino, attr, age) in page {
                if let Some(attr) = attr {
                    self.take_attributes(ino, &attr, profile().valid.saturating_sub(age), asked).await;
                    let until = Instant::now() + profile().valid.saturating_sub(age);
                    self.known.lock().names.insert(name.clone(), (ino, until));
                }
                names.push((name, ino));
            }
        }
        self.vfs.releasedir(fh);
        Ok(names)
    }

    // Files.

    pub async fn open(self: &Arc<Self>, pid: u32, name: &[u8], flags: i32) -> Result<Fd> {
        let mut ino = self.find(pid, name, false).await?;
        let mut again = false;
        let mut _held = self.hold(ino);
        let opened = loop {
            travel().await;
            match self.vfs.open(&caller(pid), ino, (flags & !libc::O_TRUNC) | LARGEFILE).await {
                Err(e) if is_stale(&e) && !again => {
                    again = true;
                    ino = self.find(pid, name, true).await?;
                    _held = self.hold(ino);
                }
                other => break other?,
            }
        };
        travel().await;
        let fd = self.finish_open(ino, &opened, flags).await;
        if flags & libc::O_TRUNC != 0
            && let Err(e) = self.set_size(pid, ino, None, 0).await
        {
            _ = self.close(pid, fd).await;
            return Err(e);
        }
        Ok(fd)
    }

    /// Whoever has walked a path to an inode holds it: it is not evicted.
    fn hold(&self, ino: Ino) -> Held<'_> {
        *self.known.lock().open.entry(ino).or_default() += 1;
        Held { kernel: self, ino }
    }

    async fn finish_open(&self, ino: Ino, opened: &Opened, flags: i32) -> Fd {
        *self.known.lock().open.entry(ino).or_default() += 1;
        if !opened.keep_cache {
            self.drop_pages(ino, 0, u64::MAX).await;
        }
        Fd { ino, fh: opened.fh, flags, direct: opened.direct_io }
    }

    pub async fn close(self: &Arc<Self>, pid: u32, fd: Fd) -> Result<()> {
        travel().await;
        let closed = self.vfs.close_descriptor(fd.fh, u64::from(pid)).await;
        travel().await;
        let k = Arc::clone(self);
        ciderfs_rt::spawn(async move {
            travel().await;
            k.vfs.release(fd.fh).await;
            if let Some(n) = k.known.lock().open.get_mut(&fd.ino) {
                *n -= 1;
            }
        });
        closed
    }

    pub async fn fsync(&self, fd: &Fd) -> Result<()> {
        travel().await;
        let done = self.vfs.fsync(fd.fh).await;
        travel().await;
        done
    }

    /// Reads; a mapping and `sendfile` do not ask how long the file is (`asks`).
    pub async fn read(&self, pid: u32, fd: &Fd, off: u64, len: u64, asks: bool) -> Result<Vec<u8>> {
        self.read_asking(pid, fd, off, len, asks).await.map(|(data, _)| data)
    }

    /// The same; with whether it went by an answer, and not by what was known before because the answer came too late.
    pub async fn read_asking(
        &self,
        pid: u32,
        fd: &Fd,
        off: u64,
        len: u64,
        asks: bool,
    ) -> Result<(Vec<u8>, bool)> {
        if fd.direct {
            travel().await;
            let data = self.vfs.read(fd.fh, off, len as u32, false).await?.concat();
            travel().await;
            return Ok((data, true));
        }
        let answered = asks && self.attributes(pid, fd.ino).await?.taken;
        let mut out = Vec::new();
        let mut at = off;
        while at < off + len {
            if at >= self.known.lock().node(fd.ino).size {
                break;
            }
            let index = at / PAGE;
            let page = self.page(fd, index, (off + len - 1) / PAGE).await?;
            // How long the file is is looked at when the page is there.
            let end = (off + len).min(self.known.lock().node(fd.ino).size).min((index + 1) * PAGE);
            if end <= at {
                break;
            }
            out.extend_from_slice(&page[(at - index * PAGE) as usize..(end - index * PAGE) as usize]);
            at = end;
            if one_in(3) {
                tokio::task::yield_now().await;
            }
        }
        Ok((out, answered))
    }

    /// A whole page, read if it is not there, with those up to `last` that are missing behind it.
    async fn page(&self, fd: &Fd, index: u64, last: u64) -> Result<Vec<u8>> {
        let ino = fd.ino;
        let there = |k: &mut Known| k.node(ino).pages.get(&index).filter(|p| p.whole).map(|p| p.data.clone());
        if let Some(data) = there(&mut self.known.lock()) {
            return Ok(data);
        }
        self.lock_page(ino, index).await;
        let mut run = 1;
        {
            let mut k = self.known.lock();
            if let Some(data) = there(&mut k) {
                drop(k);
                self.unlock_page(ino, index);
                return Ok(data);
            }
            let node = k.node(ino);
            node.pages.entry(index).or_insert_with(Page::empty);
            let most = last.min(node.size.saturating_sub(1) / PAGE);
            while index + run <= most
                && !node.pages.contains_key(&(index + run))
                && node.locked.insert(index + run)
            {
                node.pages.insert(index + run, Page::empty());
                run += 1;
            }
        }
        let asked = self.asked();
        travel().await;
        let read = self.vfs.read(fd.fh, index * PAGE, (run * PAGE) as u32, true).await.map(|d| d.concat());
        travel().await;
        let result = read.map(|data| {
            let mut k = self.known.lock();
            let end = index * PAGE + data.len() as u64;
            if (data.len() as u64) < run * PAGE {
                let node = k.node(ino);
                if asked >= node.version && end < node.size && !node.unstable {
                    self.trace(ino, &format!("ends at {end}"));
                    k.bump(ino);
                    k.node(ino).size = end;
                }
            }
            let mut first = vec![0; PAGE as usize];
            for n in 0..run {
                let mut page = vec![0; PAGE as usize];
                let part = data.get((n * PAGE) as usize..).unwrap_or_default();
                let have = part.len().min(PAGE as usize);
                page[..have].copy_from_slice(&part[..have]);
                if n == 0 {
                    first.clone_from(&page);
                }
                k.node(ino).pages.insert(index + n, Page { data: page, whole: true });
            }
            first
        });
        for n in 0..run {
            if result.is_err() {
                self.known.lock().node(ino).pages.remove(&(index + n));
            }
            self.unlock_page(ino, index + n);
        }
        result
    }

    fn inode(&self, ino: Ino) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.inodes.lock().entry(ino).or_default())
    }

    /// Writes, at an offset or where the file ends. `made` is called when it is certain where.
    pub async fn write(&self, fd: &Fd, off: u64, data: &[u8]) -> Result<()> {
        let ino = fd.ino;
        let inode = self.inode(ino);
        let _inode = inode.lock().await;
        let append = fd.flags & libc::O_APPEND != 0;
        let at = if append { self.known.lock().node(ino).size } else { off };
        let end = at + data.len() as u64;
        if end > self.known.lock().node(ino).size {
            self.known.lock().node(ino).unstable = true;
        }
        let pages = at / PAGE..=(end - 1) / PAGE;
        if fd.direct {
            self.drop_pages(ino, *pages.start(), *pages.end()).await;
        } else {
            for index in pages.clone() {
                self.lock_page(ino, index).await;
                let mut k = self.known.lock();
                let page = k.node(ino).pages.entry(index).or_insert_with(Page::empty);
                for byte in at.max(index * PAGE)..end.min((index + 1) * PAGE) {
                    page.data[(byte - index * PAGE) as usize] = data[(byte - at) as usize];
                }
            }
        }
        travel().await;
        let done = match append {
            true => self.vfs.append(fd.fh, at, data).await,
            false => self.vfs.write(fd.fh, at, data).await,
        };
        travel().await;
        if !fd.direct {
            for index in pages {
                if let Some(page) = self.known.lock().node(ino).pages.get_mut(&index) {
                    let all = at <= index * PAGE && end >= (index + 1) * PAGE;
                    page.whole = done.is_ok() && (page.whole || all);
                }
                self.unlock_page(ino, index);
            }
        }
        let mut k = self.known.lock();
        if done.is_ok() {
            k.bump(ino);
            let node = k.node(ino);
            node.size = node.size.max(end);
        }
        k.expire(ino);
        k.node(ino).unstable = false;
        done.map(|_| ())
    }

    /// Truncates, or extends.
    pub async fn set_size(&self, pid: u32, ino: Ino, fd: Option<&Fd>, size: u64) -> Result<()> {
        let inode = self.inode(ino);
        let _inode = inode.lock().await;
        self.known.lock().node(ino).unstable = true;
        let set = SetAttr::default();
        let done = self.set_attributes(pid, ino, &set, Some(size), fd).await;
        self.known.lock().node(ino).unstable = false;
        self.taken(ino, &done?).await;
        Ok(())
    }

    /// Changes the mode.
    pub async fn chmod(&self, pid: u32, name: &[u8], mode: u16) -> Result<Ino> {
        let ino = self.find(pid, name, false).await?;
        let _held = self.hold(ino);
        let inode = self.inode(ino);
        let _inode = inode.lock().await;
        let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
        let attr = self.set_attributes(pid, ino, &set, None, None).await?;
        self.taken(ino, &attr).await;
        Ok(ino)
    }

    async fn set_attributes(
        &self,
        pid: u32,
        ino: Ino,
        set: &SetAttr,
        size: Option<u64>,
        fd: Option<&Fd>,
    ) -> Result<Attr> {
        travel().await;
        let attr = self.vfs.set_stat(&caller(pid), ino, set, size, fd.map(|fd| fd.fh)).await?.attr;
        travel().await;
        Ok(attr)
    }

    /// Takes the answer to a change of attributes, whatever has happened since it was asked for.
    async fn taken(&self, ino: Ino, attr: &Attr) {
        let before = {
            let mut k = self.known.lock();
            k.bump(ino);
            let node = k.node(ino);
            (node.mtime, node.ctime, node.mode) = (attr.mtime, attr.ctime, attr.mode);
            node.until = Some(Instant::now() + profile().valid);
            std::mem::replace(&mut node.size, attr.length)
        };
        if before != attr.length {
            self.cut_pages(ino, attr.length).await;
            self.drop_pages(ino, 0, u64::MAX).await;
        }
    }

    /// Punches a hole.
    pub async fn punch(&self, pid: u32, fd: &Fd, off: u64, len: u64) -> Result<()> {
        const PUNCH: u32 = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
        let inode = self.inode(fd.ino);
        let _inode = inode.lock().await;
        travel().await;
        let done = self.vfs.fallocate(&caller(pid), fd.fh, PUNCH, off, len).await;
        travel().await;
        done?;
        // `truncate_pagecache_range`: whole pages go, the parts of others are zeroed.
        let end = off + len;
        for index in off / PAGE..=(end - 1) / PAGE {
            if !self.known.lock().node(fd.ino).pages.contains_key(&index) {
                continue;
            }
            self.lock_page(fd.ino, index).await;
            {
                let mut k = self.known.lock();
                let pages = &mut k.node(fd.ino).pages;
                let (from, to) = (off.max(index * PAGE), end.min((index + 1) * PAGE));
                if to - from == PAGE {
                    pages.remove(&index);
                } else if let Some(page) = pages.get_mut(&index) {
                    page.data[(from - index * PAGE) as usize..(to - index * PAGE) as usize].fill(0);
                }
            }
            self.unlock_page(fd.ino, index);
        }
        let mut k = self.known.lock();
        k.expire(fd.ino);
        Ok(())
    }

    /// Takes an exclusive lock of the whole file, or gives it back.
    pub async fn flock(&self, pid: u32, fd: &Fd, take: bool) -> Result<()> {
        let lock = Lock::Flock(take.then_some(true));
        let request = LockRequest { fh: fd.fh, owner: fd.fh, pid, lock };
        travel().await;
        let done = self.vfs.lock(request, true, std::future::pending()).await;
        travel().await;
        done
    }

    /// The same for a range, by `fcntl`.
    pub async fn record_lock(&self, pid: u32, fd: &Fd, kind: u32) -> Result<()> {
        let lock = Lock::Range(LockRecord { kind, pid, start: 0, end: u64::MAX >> 1 });
        let request = LockRequest { fh: fd.fh, owner: u64::from(pid), pid, lock };
        travel().await;
        let done = self.vfs.lock(request, true, std::future::pending()).await;
        travel().await;
        done
    }
}

/// An inode that is in use.
struct Held<'a> {
    kernel: &'a Kernel,
    ino: Ino,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(n) = self.kernel.known.lock().open.get_mut(&self.ino) {
            *n -= 1;
        }
    }
}

/// What the vfs tells, as `mount::serve` passes it on.
struct Told(Weak<Kernel>);

impl Told {
    /// Does something that is not waited for, or not by whoever has told it.
    fn on_its_way<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        message: impl FnOnce(Arc<Kernel>) -> F,
    ) -> BoxFuture<'static, Option<T>> {
        match self.0.upgrade().map(|k| ciderfs_rt::spawn(message(k))) {
            Some(done) => Box::pin(async move { done.await.ok() }),
            None => Box::pin(std::future::ready(None)),
        }
    }
}

impl ciderfs_vfs::Kernel for Told {
    fn invalidate(&self, ino: Ino, what: Stale) {
        let Some(k) = self.0.upgrade() else { return };
        if what == Stale::Attributes {
            k.invalidate_attributes(ino);
            return;
        }
        drop(self.on_its_way(move |k| async move {
            travel().await;
            k.invalidate(ino, 0, 0).await;
        }));
    }

    fn forget(&self, ino: Ino, off: u64, len: u64) -> BoxFuture<'static, ()> {
        let done = self.on_its_way(move |k| async move {
            travel().await;
            k.invalidate(ino, off, len).await;
        });
        Box::pin(async move { _ = done.await })
    }

    fn forget_name(&self, _: Ino, name: &[u8]) -> BoxFuture<'static, ()> {
        let name = name.to_vec();
        let done = self.on_its_way(move |k| async move {
            travel().await;
            let _dir = k.dir.write().await;
            k.known.lock().names.remove(&name);
        });
        Box::pin(async move { _ = done.await })
    }

    fn grow(&self, growth: Growth) -> BoxFuture<'static, bool> {
        let done = self.on_its_way(move |k| async move { k.grow(growth).await });
        Box::pin(async move { done.await.unwrap_or(false) })
    }
}

fn is_stale(e: &Error) -> bool {
    matches!(e.errno(), Errno::ESTALE | Errno::ENOENT)
}
