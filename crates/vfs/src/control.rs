//! `.control`: commands of tools, as a stream of requests and answers (`spec/data-path.md` 8.3).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ciderfs_format::Ino;
use ciderfs_meta::{Caller, Errno, Result};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::vfs::Vfs;

/// Largest request.
const REQUEST_MAX: usize = 1 << 20;
/// Between messages of progress.
const PROGRESS: Duration = Duration::from_millis(300);

const INFO_TEXT: u32 = 1003;
const INFO: u32 = 1005;

/// An open `.control`.
pub(crate) struct Control {
    /// User and group that opened it. Nobody else gives it commands: what a privileged program prints into a descriptor that
    /// it was handed must not become one.
    opener: (u32, u32),
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Everything written and answered so far: an answer begins where the request ended.
    stream: Vec<u8>,
    /// Start of the request that is not complete.
    request: usize,
    running: Option<JoinHandle<()>>,
}

/// How far a command is.
#[derive(Default)]
pub(crate) struct Progress(AtomicU64, AtomicU64);

impl Progress {
    pub(crate) fn set(&self, a: u64, b: u64) {
        self.0.store(a, Ordering::Relaxed);
        self.1.store(b, Ordering::Relaxed);
    }

    /// The message, unless there is nothing to tell.
    fn message(&self) -> Option<Vec<u8>> {
        let (a, b) = (self.0.load(Ordering::Relaxed), self.1.load(Ordering::Relaxed));
        (a > 0 || b > 0).then(|| [&[0xFE][..], &a.to_be_bytes(), &b.to_be_bytes()].concat())
    }
}

impl Control {
    /// One that the caller opens.
    pub(crate) fn new(c: &Caller) -> Self {
        Self { opener: (c.uid, c.gid), state: Mutex::default() }
    }

    /// Takes part of a request; a complete one begins to run as the caller.
    pub(crate) fn write(self: &Arc<Self>, vfs: &Arc<Vfs>, c: &Caller, data: &[u8]) -> Result<()> {
        if self.opener != (c.uid, c.gid) {
            return Err(Errno::EPERM.into());
        }
        let mut s = self.state.lock();
        if s.running.as_ref().is_some_and(|r| !r.is_finished()) {
            return Err(Errno::EBUSY.into());
        }
        if s.stream.len() - s.request + data.len() > REQUEST_MAX {
            return Err(Errno::EINVAL.into());
        }
        s.stream.extend_from_slice(data);
        let request = &s.stream[s.request..];
        let Some((head, body)) = request.split_at_checked(8) else { return Ok(()) };
        let number = |at: usize| head[at..at + 4].iter().fold(0_u32, |n, b| n << 8 | u32::from(*b));
        let (command, length) = (number(0), number(4) as usize);
        if body.len() < length {
            return Ok(());
        }
        if body.len() > length {
            s.stream.push(Errno::EIO.0 as u8);
            s.request = s.stream.len();
            return Ok(());
        }
        let body = Bytes::copy_from_slice(body);
        let (control, vfs) = (Arc::clone(self), Arc::clone(vfs));
        // Whatever the kernel has checked, it was not this.
        let caller = Caller { check: true, ..c.clone() };
        s.request = usize::MAX;
        s.running = Some(tokio::spawn(async move { control.run(&vfs, &caller, command, body).await }));
        Ok(())
    }

    /// What the stream holds from `off` on; nothing while the answer is not there.
    pub(crate) fn read(&self, off: u64, size: u32) -> Bytes {
        let s = self.state.lock();
        let from = usize::try_from(off).map_or(s.stream.len(), |o| o.min(s.stream.len()));
        let to = s.stream.len().min(from + size as usize);
        Bytes::copy_from_slice(&s.stream[from..to])
    }

    /// The descriptor was closed.
    pub(crate) fn cancel(&self) {
        if let Some(running) = self.state.lock().running.take() {
            running.abort();
        }
    }

    async fn run(&self, vfs: &Arc<Vfs>, c: &Caller, command: u32, body: Bytes) {
        let progress = Progress::default();
        let answer = {
            let mut work = Box::pin(answer(vfs, c, command, &body, &progress));
            let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
            loop {
                tokio::select! {
                    answer = &mut work => break answer,
                    _ = tick.tick() => {
                        let message = progress.message();
                        self.state.lock().stream.extend(message.into_iter().flatten());
                    }
                }
            }
        };
        let mut s = self.state.lock();
        s.stream.extend(progress.message().into_iter().flatten());
        s.stream.extend(answer);
        s.request = s.stream.len();
    }
}

async fn answer(vfs: &Arc<Vfs>, c: &Caller, command: u32, body: &[u8], progress: &Progress) -> Vec<u8> {
    let Some(ino) = body.first_chunk::<8>().map(|raw| Ino(u64::from_be_bytes(*raw))) else {
        return vec![Errno::EINVAL.0 as u8];
    };
    let flag = |at: usize, default: u8| body.get(at).copied().unwrap_or(default) != 0;
    match command {
        INFO => {
            let info = vfs.info(c, ino, flag(8, 1), flag(9, 0), progress).await;
            let json = serde_json::to_vec(&info).unwrap_or_default();
            [&[0xFF][..], &(json.len() as u32).to_be_bytes(), &json].concat()
        }
        INFO_TEXT => {
            let info = vfs.info(c, ino, flag(8, 1), flag(9, 0), &Progress::default()).await;
            let text = crate::info::text(&info);
            [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
        }
        _ => vec![Errno::EINVAL.0 as u8],
    }
}
