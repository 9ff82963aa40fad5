//! `.control`: commands of tools, as a stream of requests and answers (`docs/format/control.md`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ciderfs_format::Ino;
use ciderfs_meta::{Caller, Errno};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use crate::error::Result;
use crate::vfs::Vfs;

mod stream;
mod tree;

pub(crate) use stream::Shared;
use stream::{Place, Stream, Turns};

/// Between messages of progress.
const PROGRESS: Duration = Duration::from_millis(300);

const INFO_TEXT: u32 = 1003;
const INFO: u32 = 1005;
const REMOVE: u32 = 1002;
const CLONE: u32 = 1006;

/// An open `.control`.
pub(crate) struct Control {
    /// User and group that opened it. Nobody else gives it commands: what a privileged program prints into a descriptor that
    /// it was handed must not become one.
    opener: (u32, u32),
    state: Mutex<State>,
}

struct State {
    /// Everything written and answered so far: an answer begins where the request ended.
    stream: Stream,
    running: Option<JoinHandle<()>>,
}

/// How far a command is.
#[derive(Default)]
pub(crate) struct Progress {
    files: AtomicU64,
    size: AtomicU64,
    /// Where commands wait for their turn, if they do.
    turns: Option<Turns>,
    turn: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Progress {
    fn new(turns: Option<Turns>) -> Self {
        Self { turns, ..Self::default() }
    }

    pub(crate) fn set(&self, files: u64, size: u64) {
        self.files.store(files, Ordering::Relaxed);
        self.size.store(size, Ordering::Relaxed);
    }

    /// Waits until the command may make a long answer; its turn lasts until it has ended.
    pub(crate) async fn turn(&self) {
        self.take(self.turns.as_ref().map(|turns| &turns.answers)).await;
    }

    /// Waits until the command may clone or remove a tree; its turn lasts until it has ended.
    async fn turn_of_tree(&self) {
        self.take(self.turns.as_ref().map(|turns| &turns.trees)).await;
    }

    async fn take(&self, turns: Option<&Arc<Semaphore>>) {
        if let Some(turns) = turns {
            let turn = Arc::clone(turns).acquire_owned().await;
            *self.turn.lock() = turn.ok();
        }
    }

    /// The message, unless there is nothing to tell.
    fn message(&self) -> Option<Vec<u8>> {
        let (a, b) = (self.files.load(Ordering::Relaxed), self.size.load(Ordering::Relaxed));
        (a > 0 || b > 0).then(|| [&[0xFE][..], &a.to_be_bytes(), &b.to_be_bytes()].concat())
    }
}

impl Control {
    /// One that the caller opens.
    ///
    /// # Errors
    /// `ENFILE` if others have opened too many.
    pub(crate) fn new(c: &Caller, shared: &Arc<Shared>) -> Result<Self> {
        let stream = Stream::new(Place::take(shared, c.uid == 0)?);
        Ok(Self { opener: (c.uid, c.gid), state: Mutex::new(State { stream, running: None }) })
    }

    /// Takes part of a request; a complete one begins to run as the caller.
    pub(crate) fn write(self: &Arc<Self>, vfs: &Arc<Vfs>, c: &Caller, data: &[u8]) -> Result<()> {
        if self.opener != (c.uid, c.gid) {
            return Err(Errno::EPERM.into());
        }
        let mut s = self.state.lock();
        let Some((command, body)) = s.stream.write(data)? else { return Ok(()) };
        let turns = s.stream.turns();
        let (control, vfs) = (Arc::clone(self), Arc::clone(vfs));
        // Whatever the kernel has checked, it was not this.
        let caller = Caller { check: true, ..c.clone() };
        s.running =
            Some(ciderfs_rt::spawn(async move { control.run(&vfs, &caller, command, body, turns).await }));
        Ok(())
    }

    /// What the stream holds from `off` on; nothing while the answer is not there.
    pub(crate) fn read(&self, off: u64, size: u32) -> Bytes {
        self.state.lock().stream.read(off, size)
    }

    /// The descriptor was closed.
    pub(crate) fn cancel(&self) {
        if let Some(running) = self.state.lock().running.take() {
            running.abort();
        }
    }

    async fn run(&self, vfs: &Arc<Vfs>, c: &Caller, command: u32, body: Bytes, turns: Option<Turns>) {
        let progress = Progress::new(turns);
        let answer = {
            let mut work = Box::pin(answer(vfs, c, command, &body, &progress));
            let mut tick = ciderfs_rt::interval_at(ciderfs_rt::Instant::now() + PROGRESS, PROGRESS);
            loop {
                tokio::select! {
                    biased;
                    answer = &mut work => break answer,
                    _ = tick.tick() => {
                        let message = progress.message();
                        self.state.lock().stream.progress(message);
                    }
                }
            }
        };
        let mut s = self.state.lock();
        s.stream.progress(progress.message());
        s.stream.answer(answer);
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
            let unheard = Progress::new(progress.turns.clone());
            let info = vfs.info(c, ino, flag(8, 1), flag(9, 0), &unheard).await;
            let text = crate::tools::info::text(&info);
            [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
        }
        CLONE => tree::clone(vfs, c, body, progress).await,
        REMOVE => tree::remove(vfs, c, body, progress).await,
        _ => vec![Errno::EINVAL.0 as u8],
    }
}
