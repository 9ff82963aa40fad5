//! From received bytes to the handler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::abi::opcode;
use crate::buffer::Body;
use crate::handler::Handler;
use crate::init::Negotiated;
use crate::interrupt::{Inflight, Met};
use crate::op::Op;
use crate::reply::Reply;
use crate::request::Request;
use crate::transport::{ReplyChannel, Sink};

/// Hands requests to the handler and serves those that concern only this crate.
pub struct Dispatcher {
    pub(crate) handler: Box<dyn Handler>,
    pub(crate) negotiated: Negotiated,
    pub(crate) inflight: Arc<Inflight>,
    /// Besides root, only this user is served.
    pub(crate) only_uid: Option<u32>,
}

impl Sink for Dispatcher {
    fn take(&self, body: Body, channel: &Arc<dyn ReplyChannel>) {
        let req = match Request::new(body, self.negotiated.setxattr_ext()) {
            Ok(req) => req,
            Err(e) => {
                // Without a sound header there is nobody to answer.
                tracing::error!("{e}");
                return;
            }
        };
        let header = *req.header();
        match header.opcode {
            opcode::INTERRUPT => self.interrupt(&req, channel),
            opcode::INIT | opcode::NOTIFY_REPLY => {
                tracing::warn!(op = opcode::name(header.opcode), "unexpected")
            }
            opcode::DESTROY => {
                self.reply(&req, channel).empty();
            }
            _ => {
                let reply = self.reply(&req, channel);
                if !self.admits(&req) {
                    reply.error(libc::EACCES);
                    return;
                }
                // `reply` answers EIO while the panic unwinds, unless it moved elsewhere before.
                if catch_unwind(AssertUnwindSafe(|| self.handler.handle(req, reply))).is_err() {
                    let op = opcode::name(header.opcode);
                    tracing::error!(
                        op,
                        unique = header.unique,
                        nodeid = header.nodeid,
                        "the handler panicked"
                    );
                }
            }
        }
    }
}

impl Dispatcher {
    fn reply(&self, req: &Request, channel: &Arc<dyn ReplyChannel>) -> Reply {
        let header = req.header();
        Reply::new(header.unique, header.opcode, channel.clone(), self.inflight.clone())
    }

    fn admits(&self, req: &Request) -> bool {
        let Some(uid) = self.only_uid else { return true };
        let header = req.header();
        // Requests without a caller of their own (forgetting, closing, writing back) always pass.
        header.uid == 0
            || header.uid == uid
            || matches!(
                header.opcode,
                opcode::FORGET
                    | opcode::BATCH_FORGET
                    | opcode::READ
                    | opcode::WRITE
                    | opcode::FSYNC
                    | opcode::FSYNCDIR
                    | opcode::FLUSH
                    | opcode::RELEASE
                    | opcode::RELEASEDIR
            )
    }

    fn interrupt(&self, req: &Request, channel: &Arc<dyn ReplyChannel>) {
        let Ok(Op::Interrupt { unique }) = req.op() else {
            tracing::error!("malformed interrupt request");
            return;
        };
        // The callback is the handler's code.
        match catch_unwind(AssertUnwindSafe(|| self.inflight.interrupt(unique))) {
            Ok(Met::Evicted) => {
                // Asks the kernel to queue it again; ENOENT if the request is answered by now.
                let _ = channel.send(req.header().unique, -libc::EAGAIN, &[]);
            }
            Ok(Met::Found | Met::Remembered) => {}
            Err(_) => tracing::error!(unique, "an interrupt callback panicked"),
        }
    }

    /// What was negotiated.
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher").field("negotiated", &self.negotiated).finish_non_exhaustive()
    }
}
