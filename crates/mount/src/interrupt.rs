//! Callers that do not want to wait any longer.
//!
//! The kernel tells of every signal that a waiting caller gets, also of those that have nothing to do with it: timers, children
//! that ended, the scheduler of a language's runtime. A local file system lets none of them end a call early, and a caller that were told
//! `EINTR` could not know whether its change happened. So a request goes on; only a caller that is being killed gets its
//! answer early, because it ends and never sees it.

use std::sync::Arc;
use std::time::Duration;

use ciderfs_fuse::{InterruptFlag, Reply};
use tokio::sync::Notify;

/// A request that takes longer can be interrupted.
const INTERRUPT_AFTER: Duration = Duration::from_millis(100);
/// How often an interrupted caller is looked at: the kernel tells only of its first signal.
const LOOK: Duration = Duration::from_millis(200);

/// What became of a request's work.
pub(crate) enum Worked<T> {
    /// Done, and the caller waits for it.
    Done(T, Reply),
    /// Done, but the caller has been told `EINTR` and is gone.
    Late(T),
}

/// Runs a request's work to its end. The caller, thread `tid` of the daemon's own pid namespace (0: of another), is
/// answered early if it is killed.
pub(crate) async fn run<T>(work: impl Future<Output = T>, reply: Reply, tid: u32) -> Worked<T> {
    tokio::pin!(work);
    // Most requests end before anybody could interrupt them; registering costs, so it is done late.
    if let Ok(done) = tokio::time::timeout(INTERRUPT_AFTER, &mut work).await {
        return Worked::Done(done, reply);
    }
    let killed = killed(reply.interrupt_flag(), tid);
    let done = tokio::select! {
        done = &mut work => Some(done),
        () = killed => None,
    };
    match done {
        Some(done) => Worked::Done(done, reply),
        None => {
            reply.error(libc::EINTR);
            Worked::Late(work.await)
        }
    }
}

/// Ends when the thread is being killed.
pub(crate) async fn killed(flag: InterruptFlag, tid: u32) {
    let interrupted = Arc::new(Notify::new());
    let notify = Arc::clone(&interrupted);
    flag.on_interrupt(Box::new(move || notify.notify_one()));
    interrupted.notified().await;
    if tid == 0 {
        // Nobody here can tell what it has got.
        return std::future::pending().await;
    }
    while !is_dying(&tokio::fs::read_to_string(format!("/proc/{tid}/status")).await.unwrap_or_default()) {
        tokio::time::sleep(LOOK).await;
    }
}

/// Is SIGKILL pending, by a thread's `/proc` status? The kernel makes it so for every signal that ends a process. A thread that is
/// not there any more (an empty text) is dead.
fn is_dying(status: &str) -> bool {
    const KILL: u64 = 1 << (libc::SIGKILL - 1);
    let pending = |line: &str| {
        let set = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    };
    status.is_empty() || status.lines().filter_map(pending).any(|set| set & KILL != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kills_count() {
        let status = |thread: &str, process: &str| {
            format!("Name:\tx\nSigPnd:\t{thread}\nShdPnd:\t{process}\nSigBlk:\tffffffffffffffff\n")
        };
        assert!(!is_dying(&status("0000000000000000", "0000000000002000")), "an alarm");
        assert!(is_dying(&status("0000000000000100", "0000000000000000")));
        assert!(is_dying(&status("0000000000000000", "0000000000000102")));
        assert!(is_dying(""));
        assert!(!is_dying(&std::fs::read_to_string("/proc/self/status").unwrap()));
    }
}
