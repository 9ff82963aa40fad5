//! Others ask the supervisor: for the next program, for how it is, for copies of what it holds.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use ciderfs_format::shown;
use ciderfs_handover::link::{self, Link};
use ciderfs_handover::place;
use serde_json::json;

use super::Supervisor;
use crate::supervise::control::{Asked, Listener, say};
use crate::supervise::{HOLD, STATUS, UPGRADE};

impl Supervisor {
    /// Lets others ask from now on.
    pub(super) fn listen(&mut self) {
        let Some(device) = self.device else { return };
        match place::make(device).and_then(Listener::at) {
            Ok(listener) => self.listener = Some(listener),
            Err(e) => tracing::warn!("nobody can upgrade this mount: its supervisor cannot listen: {e}"),
        }
    }

    pub(super) fn serve_asking(&mut self) {
        while let Some(link) = self.listener.as_ref().and_then(Listener::accept) {
            self.asking.push(link);
        }
        for link in std::mem::take(&mut self.asking) {
            match link.receive(false) {
                Ok(Some(message)) => self.asked(link, Asked::of(message)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.asking.push(link),
                Ok(None) | Err(_) => {}
            }
        }
    }

    fn asked(&mut self, from: Link, asked: Asked) {
        match asked.what["do"].as_str() {
            Some(UPGRADE) => self.begin_upgrade(from, asked),
            Some(HOLD) => self.hand_out(&from),
            Some(STATUS) => say(
                &from,
                &json!({
                    "done": true,
                    "worker": self.pid(),
                    "serving": self.is_serving(),
                    "starts": self.starts,
                    "program": shown(&self.program.name),
                    "supervisor": std::process::id(),
                }),
            ),
            _ => say(&from, &json!({ "failed": "this supervisor does not know that request", "code": 1 })),
        }
    }

    /// Gives copies of everything that another supervisor needs.
    fn hand_out(&self, to: &Link) {
        let Some(fuse) = &self.fuse else {
            return say(to, &json!({ "failed": "it is not mounted yet", "code": 1 }));
        };
        let device = self.device.map(|(major, minor)| format!("{major}:{minor}")).unwrap_or_default();
        let place = self.mountpoint.as_os_str().as_bytes();
        let words = self.argv.iter().map(|w| w.as_bytes());
        let text = link::fields([device.as_bytes(), place].into_iter().chain(words));
        let fds = [self.state.as_fd(), self.begun.as_fd(), fuse.as_fd()];
        if let Err(e) = to.send(link::BEGIN, &text, &fds) {
            tracing::warn!("giving the connection to another process: {e}");
        }
    }
}
