//! Lock requests of the kernel.
//!
//! Unlike other requests, one that is interrupted is not simply dropped: whoever waits must leave nothing behind, and a
//! lock that was granted in the same moment is told rather than lost.

use std::sync::Arc;
use std::time::Instant;

use ciderfs_format::lock::{F_UNLCK, F_WRLCK, LockRecord};
use ciderfs_fuse::{FileLock, LockArgs, Reply, Request};
use ciderfs_meta::{Errno, Lock};
use ciderfs_vfs::{Error, LockRequest};
use tokio::sync::Notify;

use crate::access;
use crate::handler::{Answered, Bridge};
use crate::interrupt::killed;

impl Bridge {
    /// SETLK, or with `wait` SETLKW, of both kinds of locks.
    pub(crate) fn set_lock(self: Arc<Self>, req: &Request, args: &LockArgs, wait: bool, reply: Reply) {
        let flock = args.is_flock();
        let Some(lock) = lock_of(args) else {
            reply.error(libc::EINVAL);
            return;
        };
        let method = if flock { "flock" } else { "setlk" };
        let told = access::begin(&self.vfs, method, req);
        let request = LockRequest { fh: args.fh, owner: args.owner, pid: args.lock.pid, lock };
        let signalled = Arc::new(Notify::new());
        let flag = reply.interrupt_flag();
        if wait {
            let notify = Arc::clone(&signalled);
            flag.on_interrupt(Box::new(move || notify.notify_one()));
        }
        let tid = req.header().pid;
        let ino = req.header().nodeid;
        let runtime = self.runtime.clone();
        runtime.spawn(async move {
            let began = Instant::now();
            let interrupted = async {
                match wait {
                    true => signalled.notified().await,
                    // Who does not want to wait does not expect `EINTR`, however long the engine takes.
                    false => killed(flag, tid).await,
                }
            };
            let result = self.vfs.lock(request, wait, interrupted).await;
            let errno = result.as_ref().err().map(Error::errno);
            if let Err(e) = &result
                && !matches!(e, Error::Posix(_))
            {
                tracing::warn!("locking inode {ino}: {e}");
            }
            let took = began.elapsed();
            self.vfs.metrics().request(method, took, errno.map(Errno::name));
            if let Some(told) = told {
                let answer = errno.map_or(Answered::Empty, Answered::Error);
                self.vfs.access_log().tell(&access::end(&told, &answer, took));
            }
            _ = match errno {
                Some(e) => reply.error(e.0),
                None => reply.empty(),
            };
        });
    }

    /// GETLK.
    pub(crate) async fn get_lock(&self, args: &LockArgs) -> Result<FileLock, Error> {
        let l = &args.lock;
        let want = LockRecord { kind: l.typ, pid: l.pid, start: l.start, end: l.end };
        let found = self.vfs.find_lock(args.fh, args.owner, want).await?;
        Ok(match found {
            Some(f) => FileLock { start: f.start, end: f.end, typ: f.kind, pid: f.pid },
            None => FileLock { start: 0, end: 0, typ: F_UNLCK, pid: 0 },
        })
    }
}

fn lock_of(args: &LockArgs) -> Option<Lock> {
    let l = &args.lock;
    if l.typ > F_UNLCK {
        return None;
    }
    Some(if args.is_flock() {
        Lock::Flock(if l.typ == F_UNLCK { None } else { Some(l.typ == F_WRLCK) })
    } else {
        Lock::Range(LockRecord { kind: l.typ, pid: l.pid, start: l.start, end: l.end })
    })
}
