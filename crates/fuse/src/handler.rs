//! What a file system implements.

use crate::init::Negotiated;
use crate::reply::Reply;
use crate::request::Request;

/// A file system as the session sees it.
pub trait Handler: Send + Sync + 'static {
    /// Called once, before the first request, with what kernel and configuration agreed on.
    fn init(&self, negotiated: &Negotiated) {
        let _ = negotiated;
    }

    /// Takes a request. Runs on the thread that read it: answer at once if that needs no waiting, else move both
    /// values elsewhere, or this thread reads nothing meanwhile (no INTERRUPT either). A panic answers EIO.
    fn handle(&self, req: Request, reply: Reply);

    /// Called once, after the last request was read: the file system is unmounted or the connection was aborted.
    fn destroy(&self) {}
}

impl<T: Handler + ?Sized> Handler for std::sync::Arc<T> {
    fn init(&self, negotiated: &Negotiated) {
        (**self).init(negotiated);
    }

    fn handle(&self, req: Request, reply: Reply) {
        (**self).handle(req, reply);
    }

    fn destroy(&self) {
        (**self).destroy();
    }
}
