//! The service manager that has started this process, systemd above all: what it is told (sd_notify(3)).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
use std::time::Duration;

use crate::supervise::worker::{self, Worker};

/// Where it listens, and how often it wants a sign of life.
const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
/// A manager that takes no message for so long gets none.
const PATIENCE: Duration = Duration::from_secs(5);

static MANAGER: OnceLock<Manager> = OnceLock::new();

/// A service manager that listens.
#[derive(Debug)]
pub struct Manager {
    to: To,
    watchdog: Option<Duration>,
}

/// The way to it.
#[derive(Debug)]
enum To {
    Socket(UnixDatagram, SocketAddr),
    /// It knows another process, which passes on what it is told.
    Supervisor(&'static Worker),
}

/// The manager that listens to this process, if one does.
pub fn manager() -> Option<&'static Manager> {
    MANAGER.get()
}

/// Takes what is said of a manager out of the environment, which programs that this one starts inherit: their words must not
/// count as ours. Call it before there are threads.
#[allow(unsafe_code, reason = "the environment is changed")]
pub fn take() {
    let address = std::env::var_os(SOCKET);
    let text = |name| std::env::var(name).ok();
    let is_ours = text(WATCHDOG_PID).is_none_or(|pid| pid == std::process::id().to_string());
    let usec = text(WATCHDOG).filter(|_| is_ours).and_then(|usec| usec.parse().ok());
    for name in [SOCKET, WATCHDOG, WATCHDOG_PID] {
        if std::env::var_os(name).is_some() {
            // SAFETY: no other thread runs yet that could look at the environment.
            unsafe { std::env::remove_var(name) };
        }
    }
    let watchdog = usec.filter(|usec| *usec > 0).map(Duration::from_micros);
    if let Some(manager) = address.and_then(|address| Manager::at(address.as_bytes(), watchdog)) {
        let _ = MANAGER.set(manager);
    }
}

/// Takes the supervisor of a mount for the manager that it has.
pub fn take_supervisor() {
    if let Some(worker) = worker::get()
        && let Some(watchdog) = worker.manager()
    {
        let _ = MANAGER.set(Manager { to: To::Supervisor(worker), watchdog });
    }
}

impl Manager {
    /// A socket in the file system, or after `@` an abstract one. Others (`vsock:`) are for machines, not for services.
    fn at(address: &[u8], watchdog: Option<Duration>) -> Option<Self> {
        let address = match address {
            [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address)),
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => return None,
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_write_timeout(Some(PATIENCE)).ok()?;
        Some(Self { to: To::Socket(socket, address.ok()?), watchdog })
    }

    fn send(&self, text: &str) {
        match &self.to {
            To::Supervisor(worker) => worker.notify(text),
            To::Socket(socket, address) => {
                if let Err(e) = socket.send_to_addr(text.as_bytes(), address) {
                    tracing::debug!("the service manager does not listen: {e}");
                }
            }
        }
    }

    /// What another process of this service says.
    pub fn pass_on(&self, text: &str) {
        self.send(text);
    }

    /// A sign of life.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// How often it wants one.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The service does what it is for.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// What `systemctl status` shows.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", one_line(text)));
    }

    /// The end has begun, and may take so long until the next word.
    pub fn stopping(&self, patience: Duration) {
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", patience.as_micros()));
    }

    /// It goes on, and may take so long again.
    pub fn extend(&self, patience: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", patience.as_micros()));
    }

    /// The configuration is read again; [`Self::ready`] ends that.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// Gives signs of life, twice in the time that the manager waits for one, as long as `is_alive` and the runtime that this
    /// is called in runs.
    pub fn watch(&'static self, is_alive: impl Fn() -> bool + Send + 'static) {
        let Some(limit) = self.watchdog else { return };
        tokio::spawn(async move {
            // A task among the others: where they do not get on, it does not.
            while is_alive() {
                self.send("WATCHDOG=1");
                tokio::time::sleep(limit / 2).await;
            }
            tracing::error!("a part of this process has died: the service manager will end it");
        });
    }
}

/// Lines are the fields of a message.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use super::*;

    /// Listens at an abstract address.
    fn pair(name: &str, watchdog: Duration) -> (UnixDatagram, &'static Manager) {
        let name = format!("ciderfs-test-{name}-{}", std::process::id());
        let there = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&there).unwrap();
        let manager = Manager::at(format!("@{name}").as_bytes(), Some(watchdog)).unwrap();
        (listener, Box::leak(Box::new(manager)))
    }

    fn heard(listener: &UnixDatagram, limit: Duration) -> Option<String> {
        listener.set_read_timeout(Some(limit)).unwrap();
        let mut text = [0; 1024];
        let n = listener.recv(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text[..n]).into_owned())
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_runtime_that_hangs_gives_no_sign_of_life() {
        static HOLD: AtomicBool = AtomicBool::new(false);
        let (listener, manager) = pair("hang", Duration::from_millis(40));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        manager.watch(|| true);
        for _ in 0..3 {
            assert_eq!(heard(&listener, LONG).unwrap(), "WATCHDOG=1");
        }
        HOLD.store(true, Ordering::SeqCst);
        let (tx, rx) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            tx.send(()).unwrap();
            while HOLD.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        rx.recv().unwrap();
        while heard(&listener, Duration::from_millis(1)).is_some() {}
        let quiet = Instant::now();
        assert_eq!(heard(&listener, Duration::from_millis(400)), None);
        assert!(quiet.elapsed() >= Duration::from_millis(400));
        HOLD.store(false, Ordering::SeqCst);
        assert_eq!(heard(&listener, LONG).unwrap(), "WATCHDOG=1");
    }

    #[test]
    fn a_part_that_has_died_ends_the_signs_of_life() {
        static ALIVE: AtomicBool = AtomicBool::new(true);
        let (listener, manager) = pair("dead", Duration::from_millis(10));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        manager.watch(|| ALIVE.load(Ordering::SeqCst));
        assert!(heard(&listener, LONG).is_some());
        ALIVE.store(false, Ordering::SeqCst);
        while heard(&listener, Duration::from_millis(300)).is_some() {}
    }

    #[test]
    fn messages_are_fields() {
        let (listener, manager) = pair("fields", LONG);
        manager.ready("a\nREADY=0");
        assert_eq!(heard(&listener, LONG).unwrap(), "READY=1\nSTATUS=a READY=0");
        manager.stopping(Duration::from_secs(2));
        assert_eq!(heard(&listener, LONG).unwrap(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000");
        manager.reloading();
        assert!(heard(&listener, LONG).unwrap().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    }
}
