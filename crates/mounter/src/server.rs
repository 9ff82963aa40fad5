//! Answers on a Unix socket.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ciderfs_handover::link;
use parking_lot::Mutex;

use crate::keeper::{self, Entry, Keeper};
use crate::log::Follower;
use crate::protocol::{Info, Refusal, Reply, Request, receive, send};
use crate::record::{self, Record};
use crate::spec::Spec;

/// Between looks at the logs of clients.
const LOGS: Duration = Duration::from_millis(500);
/// Who connects says what he wants within this.
const ASK: Duration = Duration::from_secs(5);
/// How long a client may take at most to answer for itself.
const MOST: Duration = Duration::from_secs(600);

/// How a mounter works.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens.
    pub socket: PathBuf,
    /// Its directory: records, logs, sockets. In memory, if mounts are to come back without being asked for again.
    pub run_dir: PathBuf,
    /// Where it mounts.
    pub mount_dir: PathBuf,
    /// The client.
    pub program: PathBuf,
    /// Each client has a supervisor.
    pub supervised: bool,
    /// Each client is a unit of systemd.
    pub units: bool,
}

/// The mounts of a mounter.
#[derive(Debug)]
struct Mounter {
    config: Arc<Config>,
    entries: Mutex<BTreeMap<String, Arc<Entry>>>,
}

/// Takes up what an earlier mounter has left, and answers until the process ends.
///
/// # Errors
/// Of directories and the socket.
pub fn serve(config: Config) -> io::Result<()> {
    record::make_dir(&config.run_dir)?;
    // Others may look at what is mounted there as far as its files let them.
    std::fs::create_dir_all(&config.mount_dir)?;
    if !record::is_in_memory(&config.run_dir) {
        tracing::warn!(
            "{} is on a disk: secrets are not kept there, and after a restart clients that have ended meanwhile wait for them; \
             use a directory on tmpfs, such as one below /run",
            config.run_dir.display()
        );
    }
    let _only = only(&config.run_dir)?;
    let listener = listen(&config.socket)?;
    let mounter = Arc::new(Mounter { config: Arc::new(config), entries: Mutex::default() });
    mounter.take_up()?;
    let logs = Arc::clone(&mounter);
    std::thread::Builder::new().name("logs".into()).spawn(move || logs.show_logs())?;
    tracing::info!("mounter at {}", mounter.config.socket.display());
    loop {
        let (stream, _) = listener.accept()?;
        let mounter = Arc::clone(&mounter);
        // One that cannot be served is closed.
        let _ = std::thread::Builder::new().name("request".into()).spawn(move || {
            if let Err(e) = mounter.answer(stream) {
                tracing::debug!("a request: {e}");
            }
        });
    }
}

/// No two mounters have the same directory.
fn only(dir: &Path) -> io::Result<std::fs::File> {
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(dir.join("lock"))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(io::Error::other(format!("another mounter works in {}", dir.display()))),
    }
}

/// The socket is named when it is for root alone.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
        record::make_dir(dir)?;
    }
    record::check_place(path)?;
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

impl Mounter {
    fn take_up(self: &Arc<Self>) -> io::Result<()> {
        for (key, dir) in record::all(&self.config.run_dir)? {
            match Record::load(&dir) {
                Ok(record) => _ = self.keep(&key, record)?,
                Err(e) => tracing::error!("{}: its record cannot be read: {e}", dir.display()),
            }
        }
        Ok(())
    }

    /// Begins to keep a mount.
    fn keep(self: &Arc<Self>, key: &str, record: Record) -> io::Result<Arc<Entry>> {
        let entry = Entry::new(key.to_owned(), &self.config, record);
        let keeper = Keeper::new(Arc::clone(&entry), Arc::clone(&self.config))?;
        self.entries.lock().insert(key.to_owned(), Arc::clone(&entry));
        let (this, key) = (Arc::clone(self), key.to_owned());
        std::thread::Builder::new().name("keeper".into()).spawn(move || {
            keeper.run();
            this.entries.lock().remove(&key);
        })?;
        Ok(entry)
    }

    fn answer(self: &Arc<Self>, mut stream: UnixStream) -> io::Result<()> {
        link::check_peer(&stream)?;
        stream.set_read_timeout(Some(ASK))?;
        stream.set_write_timeout(Some(ASK))?;
        let request: Request = receive(&mut stream)?;
        let reply = match request {
            Request::Mount { spec, patience } => self.mount(spec, Instant::now() + patience.min(MOST)),
            Request::Await { key, patience } => match self.find(&key) {
                Some(entry) => ready(&entry, Instant::now() + patience.min(MOST)),
                None => unknown(&key),
            },
            Request::Unmount { key, patience } => self.unmount(&key, Instant::now() + patience.min(MOST)),
            Request::List => Reply::List(self.list()),
            Request::Held { key, at } => match self.find(&key) {
                Some(entry) => {
                    entry.is_held(at);
                    Reply::Noted
                }
                None => unknown(&key),
            },
            Request::Health { key, patience } => match self.find(&key) {
                Some(entry) => Reply::Health(keeper::health(&entry, patience.min(MOST))),
                None => unknown(&key),
            },
        };
        send(&mut stream, &reply)
    }

    fn find(&self, key: &str) -> Option<Arc<Entry>> {
        self.entries.lock().get(key).cloned()
    }

    fn list(&self) -> Vec<Info> {
        let all: Vec<_> = self.entries.lock().values().cloned().collect();
        all.iter().map(|entry| entry.info()).collect()
    }

    fn mount(self: &Arc<Self>, spec: Spec, deadline: Instant) -> Reply {
        // Finding and making it is one step.
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock();
        let all: Vec<_> = self.entries.lock().values().cloned().collect();
        let entry = match all.into_iter().find(|entry| entry.is(&spec)) {
            Some(entry) => entry,
            None => match self.begin(spec) {
                Ok(entry) => entry,
                Err(e) => return Reply::Refused(Refusal::Internal, e.to_string()),
            },
        };
        drop(turn);
        ready(&entry, deadline)
    }

    fn begin(self: &Arc<Self>, spec: Spec) -> io::Result<Arc<Entry>> {
        let key = uuid::Uuid::new_v4().simple().to_string();
        let dir = self.config.run_dir.join(&key);
        record::make_dir(&dir)?;
        let has_secrets = !spec.secrets.is_empty();
        let record =
            Record { spec, has_secrets, process: None, was_ready: false, leaving: false, holder: None };
        record.save(&dir)?;
        self.keep(&key, record)
    }

    fn unmount(&self, key: &str, deadline: Instant) -> Reply {
        let Some(entry) = self.find(key) else { return unknown(key) };
        match entry.leave(deadline) {
            Ok(()) => Reply::Unmounted,
            Err((why, text)) => Reply::Refused(why, text),
        }
    }

    fn show_logs(&self) {
        let mut followers: BTreeMap<String, Follower> = BTreeMap::new();
        loop {
            let all: Vec<_> = self.entries.lock().values().cloned().collect();
            followers.retain(|key, _| all.iter().any(|entry| entry.key == *key));
            for entry in &all {
                let new = || Follower::new(&entry.dir, &format!("{} ({})", entry.spec().volume, entry.key));
                followers.entry(entry.key.clone()).or_insert_with(new).show();
            }
            std::thread::sleep(LOGS);
        }
    }
}

fn ready(entry: &Entry, deadline: Instant) -> Reply {
    match entry.wait_ready(deadline) {
        Ok(()) => Reply::Mounted(entry.info()),
        Err((why, text)) => Reply::Refused(why, text),
    }
}

fn unknown(key: &str) -> Reply {
    Reply::Refused(Refusal::Unknown, format!("there is no mount {key}"))
}
