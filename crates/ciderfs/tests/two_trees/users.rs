//! Threads that make calls as other users.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rustix::fs::{Gid, Mode, Uid};
use rustix::thread::UnshareFlags;

use crate::calls::{Call, Outcome};

/// Somebody.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    pub name: &'static str,
    pub uid: u32,
    pub gid: u32,
    pub groups: &'static [u32],
    pub umask: u32,
}

/// Root, two ordinary users that share a group, and what each one's files are masked with.
pub const USERS: [Identity; 3] = [
    Identity { name: "root", uid: 0, gid: 0, groups: &[0], umask: 0o022 },
    Identity { name: "ann", uid: 1101, gid: 1101, groups: &[1101, 1200], umask: 0o002 },
    Identity { name: "bob", uid: 1102, gid: 1102, groups: &[1102, 1200, 1201], umask: 0o027 },
];

/// A thread with the credentials of a user.
pub struct User {
    pub identity: Identity,
    calls: Option<Sender<(Call, PathBuf)>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl User {
    /// Starts it. The process must be root's.
    pub fn new(identity: Identity) -> Self {
        let (calls, todo) = channel::<(Call, PathBuf)>();
        let (tell, outcomes) = channel();
        let thread = std::thread::spawn(move || {
            become_user(identity);
            for (call, root) in todo {
                if tell.send(call.run(&root)).is_err() {
                    return;
                }
            }
        });
        Self { identity, calls: Some(calls), outcomes, thread: Some(thread) }
    }

    /// Makes a call as this user.
    pub fn run(&self, call: &Call, root: &std::path::Path) -> Outcome {
        self.calls.as_ref().unwrap().send((call.clone(), root.to_owned())).unwrap();
        self.outcomes.recv().unwrap()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        drop(self.calls.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Gives this thread the user's credentials. Unlike the C library's calls, these concern the calling thread only.
fn become_user(i: Identity) {
    // SAFETY: no descriptor is concerned, only the mask for new files and the current directory, which nobody uses.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }.unwrap();
    rustix::process::umask(Mode::from(i.umask));
    let groups: Vec<Gid> = i.groups.iter().map(|g| Gid::from_raw(*g)).collect();
    let (uid, gid) = (Uid::from_raw(i.uid), Gid::from_raw(i.gid));
    rustix::thread::set_thread_groups(&groups).unwrap();
    rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
    rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
}
