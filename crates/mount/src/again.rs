//! Requests that the kernel sends again because whoever had them ended before the answer.
//!
//! Most can simply be done again. What must happen once (making, removing, moving a name, opening) is noted in
//! [`Begun`](crate::begun::Begun) before it is begun and when it is done: what was done is only answered. Between the commit and the note that
//! it was done lies a moment; there, what is found decides: a name that is as the request would have made it, since the request was
//! begun, was made by it. `docs/semantics.md` has the rules and their limits.

use ciderfs_format::{Attr, FileType, Ino};
use ciderfs_fuse::{Op, Request};
use ciderfs_meta::{Caller, Errno};

use crate::begun::{Before, Ticket};
use crate::handler::{Answer, Answered, Bridge};

/// Flags of an open that are about making the file.
const MAKING: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC;

/// Must a request not be done twice?
fn is_once(op: &Op<'_>) -> bool {
    match op {
        Op::Setxattr { flags, .. } => *flags as i32 & libc::XATTR_CREATE != 0,
        Op::Create { .. }
        | Op::Tmpfile { .. }
        | Op::Mknod { .. }
        | Op::Mkdir { .. }
        | Op::Symlink { .. }
        | Op::Link { .. }
        | Op::Unlink { .. }
        | Op::Rmdir { .. }
        | Op::Rename { .. }
        | Op::Rename2 { .. }
        | Op::Removexattr { .. }
        | Op::Open { .. }
        | Op::Opendir { .. } => true,
        _ => false,
    }
}

impl Bridge {
    /// Runs a request so that it happens once, also if this process ends meanwhile. The ticket is to be kept until it is answered.
    pub(crate) async fn once(&self, req: &Request) -> (Answer<Answered>, Option<Ticket>) {
        let Some(begun) = self.begun.as_ref().filter(|_| req.op().is_ok_and(|op| is_once(&op))) else {
            return (self.answer(req).await, None);
        };
        let (ticket, before) = begun.begin(req.header().unique);
        let answer = match before {
            Some(before) => self.again(req, before).await,
            None => self.answer(req).await,
        };
        if let (Ok(answer), Some(ticket)) = (&answer, &ticket) {
            match answer {
                Answered::Open(o) | Answered::Create(_, o) => ticket.done(o.fh),
                _ => ticket.done(0),
            }
        }
        (answer, ticket)
    }

    /// Runs a request that the former process has begun.
    async fn again(&self, req: &Request, before: Before) -> Answer<Answered> {
        let op = req.op().map_err(|e| Errno(e.errno()))?;
        if before.fh != 0 {
            // Nobody has ever heard of that handle.
            match op {
                Op::Opendir { .. } => self.vfs.releasedir(before.fh),
                _ => self.vfs.release(before.fh).await,
            }
        }
        match (before.done, &op) {
            (
                true,
                Op::Unlink { .. }
                | Op::Rmdir { .. }
                | Op::Rename { .. }
                | Op::Rename2 { .. }
                | Op::Setxattr { .. }
                | Op::Removexattr { .. },
            ) => return Ok(Answered::Empty),
            // Done again, it would be undone.
            (false, Op::Rename2 { flags, .. })
                if *flags & libc::RENAME_EXCHANGE != 0 && self.has_moved(req, &op, &before).await =>
            {
                return Ok(Answered::Empty);
            }
            _ => {}
        }
        let answer = self.answer(req).await;
        let Err(e) = &answer else { return answer };
        let found = match (e.errno(), &op) {
            (Errno::ENOENT, Op::Unlink { .. } | Op::Rmdir { .. })
            | (Errno::ENODATA, Op::Removexattr { .. }) => Some(Answered::Empty),
            (Errno::ENOENT | Errno::EEXIST, Op::Rename { .. } | Op::Rename2 { .. }) => {
                self.has_moved(req, &op, &before).await.then_some(Answered::Empty)
            }
            (Errno::EEXIST, Op::Setxattr { name, value, .. }) => {
                let c = self.identity.caller(req);
                let there = self.vfs.get_xattr(&c, Ino(req.header().nodeid), name).await;
                there.is_ok_and(|there| there == *value).then_some(Answered::Empty)
            }
            // Who made it may open it, whatever its mode is: it was not there when he did.
            (Errno::EEXIST, _) | (Errno::EACCES, Op::Create { .. }) => self.made(req, &op, &before).await?,
            _ => None,
        };
        found.map_or(answer, Ok)
    }

    /// The answer for a name that the former process has made for this request, if it has.
    async fn made(&self, req: &Request, op: &Op<'_>, before: &Before) -> Answer<Option<Answered>> {
        let dir = Ino(req.header().nodeid);
        let c = self.identity.caller(req);
        let (name, kind, mode) = match *op {
            Op::Create { name, mode, .. } => (name, FileType::File, mode),
            Op::Mkdir { name, mode, .. } => (name, FileType::Directory, mode),
            Op::Mknod { name, mode, .. } => (name, FileType::from_mode(mode).ok_or(Errno::EINVAL)?, mode),
            Op::Symlink { name, .. } => (name, FileType::Symlink, 0o777),
            Op::Link { newname, .. } => (newname, FileType::File, 0o7777),
            _ => return Ok(None),
        };
        let e = self.vfs.lookup(&c, dir, name).await?;
        let a = &e.attr;
        let is_it = match *op {
            Op::Link { oldnode, .. } => e.ino == Ino(oldnode),
            _ => {
                a.kind == kind
                    && a.uid == c.uid
                    && u32::from(a.mode & 0o777) & !mode == 0
                    && is_since(a, before)
            }
        };
        let is_empty = match *op {
            Op::Link { .. } => true,
            Op::Symlink { target, .. } => self.vfs.readlink(e.ino).await? == target,
            Op::Mkdir { .. } => a.nlink == 2,
            _ => a.length == 0 && a.nlink == 1,
        };
        if !is_it || !is_empty {
            return Ok(None);
        }
        let entry = self.entry_in(dir, &e, std::time::Duration::ZERO);
        Ok(Some(match *op {
            Op::Create { flags, .. } => {
                // Who makes a file may open it whatever its mode is.
                let maker = Caller { check: false, ..c };
                let opened = self.vfs.open(&maker, e.ino, flags as i32 & !MAKING).await?;
                Answered::Create(entry, Self::opened(&opened))
            }
            _ => Answered::Entry(entry),
        }))
    }

    /// Has the former process moved what this request is to move? A move changes the time of what is moved.
    async fn has_moved(&self, req: &Request, op: &Op<'_>, before: &Before) -> bool {
        let (name, newdir, newname, flags) = match *op {
            Op::Rename { name, newdir, newname } => (name, newdir, newname, 0),
            Op::Rename2 { name, newdir, newname, flags } => (name, newdir, newname, flags),
            _ => return false,
        };
        let c = self.identity.caller(req);
        let there = self.vfs.lookup(&c, Ino(newdir), newname).await;
        let here = self.vfs.lookup(&c, Ino(req.header().nodeid), name).await;
        let here_too = match flags & libc::RENAME_EXCHANGE {
            0 => here.is_err_and(|e| e.errno() == Errno::ENOENT),
            _ => here.is_ok_and(|e| is_since(&e.attr, before)),
        };
        here_too && there.is_ok_and(|e| is_since(&e.attr, before))
    }
}

/// Was it changed since the request was begun?
fn is_since(attr: &Attr, before: &Before) -> bool {
    let at = attr.ctime.sec.saturating_mul(1_000_000_000).saturating_add(attr.ctime.nsec.into());
    at >= before.at
}
