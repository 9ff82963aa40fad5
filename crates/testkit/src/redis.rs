//! A private Redis server: the real one, on a free port, with its data in a temporary directory.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// Between looks whether it has started.
const START_POLL: Duration = Duration::from_millis(10);
/// Where ports are looked for.
const PORTS: Range<u16> = 12_000..32_000;
/// Other ports that are tried when somebody takes ours first.
const PORT_TRIES: usize = 5;

/// How to start a server.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Append-only file, synced on every write: [`RedisServer::kill`] then loses nothing.
    pub append_only: bool,
    /// `requirepass`
    pub password: Option<String>,
    /// TLS instead of plain TCP, with an own authority ([`RedisServer::ca_file`]).
    pub tls: bool,
    /// No TCP port: [`RedisServer::url`] is a `unix://` one.
    pub unix_only: bool,
    /// Further lines of the configuration, such as `maxmemory 10mb`.
    pub config: Vec<String>,
}

/// Counters of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisStats {
    /// Reads from clients' sockets: the round trips, as far as clients do not pipeline.
    pub total_reads_processed: u64,
    /// Writes to clients' sockets.
    pub total_writes_processed: u64,
    /// Commands, those within scripts included.
    pub total_commands_processed: u64,
    /// Calls by command in lower case, such as `evalsha` or `client|tracking`.
    pub commands: HashMap<String, u64>,
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    options: RedisOptions,
    dir: TempDir,
}

impl RedisServer {
    /// Starts a server; it answers when this returns.
    pub fn start(options: RedisOptions) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("redis").tempdir()?;
        if options.tls {
            make_certificates(dir.path())?;
        }
        let mut server = Self { child: None, port: 0, options, dir };
        if server.options.unix_only {
            server.spawn()?;
            return Ok(server);
        }
        let mut error = None;
        for _ in 0..PORT_TRIES {
            server.port = free_port()?;
            match server.spawn() {
                Ok(()) => return Ok(server),
                Err(e) if format!("{e:#}").contains("Address already in use") => error = Some(e),
                Err(e) => return Err(e),
            }
        }
        Err(error.unwrap_or_else(|| anyhow::anyhow!("no free port")))
    }

    fn spawn(&mut self) -> Result<()> {
        let dir = self.dir.path();
        let mut config = vec![
            format!("dir {}", dir.display()),
            format!("unixsocket {}", self.socket().display()),
            format!("logfile {}", self.log_file().display()),
            "bind 127.0.0.1".to_owned(),
            "daemonize no".to_owned(),
            "save \"\"".to_owned(),
        ];
        if self.options.tls {
            let file = |name| dir.join(name).display().to_string();
            config.extend([
                "port 0".to_owned(),
                format!("tls-port {}", self.port),
                format!("tls-cert-file {}", file("server.crt")),
                format!("tls-key-file {}", file("server.key")),
                format!("tls-ca-cert-file {}", file("ca.crt")),
                "tls-auth-clients no".to_owned(),
            ]);
        } else {
            config.push(format!("port {}", self.port));
        }
        if self.options.append_only {
            config.extend(["appendonly yes".to_owned(), "appendfsync always".to_owned()]);
        }
        if let Some(password) = &self.options.password {
            config.push(format!("requirepass {password}"));
        }
        config.extend(self.options.config.iter().cloned());
        let file = dir.join("redis.conf");
        fs::write(&file, config.join("\n") + "\n")?;
        // Left by a server that was killed; the new one must not be taken for it.
        let _ = fs::remove_file(self.socket());
        let _ = fs::remove_file(self.log_file());
        let child = Command::new("redis-server")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.dir.path().join("stderr"))?)
            .spawn();
        self.child = Some(match child {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                bail!("redis-server is not installed: apt-get install redis-server")
            }
            other => other.context("redis-server")?,
        });
        self.await_start()
    }

    fn await_start(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.command(&["PING"]).is_ok_and(|answer| answer == "PONG") {
                return Ok(());
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?,
                None => bail!("redis-server is not running"),
            };
            if ended.is_some() || start.elapsed() > START_PATIENCE {
                let log = fs::read_to_string(self.log_file()).unwrap_or_default();
                let said = fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
                self.kill();
                bail!("redis-server did not start ({ended:?}); its log:\n{log}\n{said}");
            }
            std::thread::sleep(START_POLL);
        }
    }

    /// `redis://`, `rediss://` or `unix://` with the password, for database 0.
    pub fn url(&self) -> String {
        self.url_db(0)
    }

    /// The same for another database.
    pub fn url_db(&self, db: u32) -> String {
        let auth = self.options.password.as_ref().map(|p| format!(":{p}@")).unwrap_or_default();
        if self.options.unix_only {
            return format!("unix://{auth}{}?db={db}", self.socket().display());
        }
        let scheme = if self.options.tls { "rediss" } else { "redis" };
        format!("{scheme}://{auth}127.0.0.1:{}/{db}", self.port)
    }

    /// TCP port; 0 with `unix_only`.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket, which every server has.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// The authority of a server with TLS, PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("redis.log")
    }

    /// Process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// SIGKILL. Returns when the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, after a [`RedisServer::kill`] or of itself, with the same address and data.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.spawn()
    }

    /// Sends one command over the Unix socket; the answer as text, arrays line by line.
    pub fn command(&self, args: &[&str]) -> Result<String> {
        self.command_bytes(&args.iter().map(|a| a.as_bytes()).collect::<Vec<_>>())
    }

    /// [`RedisServer::command`] with any bytes for arguments.
    pub fn command_bytes(&self, args: &[&[u8]]) -> Result<String> {
        let mut socket = UnixStream::connect(self.socket())?;
        socket.set_read_timeout(Some(START_PATIENCE))?;
        let mut send = |args: &[&[u8]]| {
            let mut text = format!("*{}\r\n", args.len()).into_bytes();
            for arg in args {
                text.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                text.extend_from_slice(arg);
                text.extend_from_slice(b"\r\n");
            }
            socket.write_all(&text)
        };
        if let Some(password) = &self.options.password {
            send(&[b"AUTH", password.as_bytes()])?;
        }
        send(args)?;
        let mut answers = BufReader::new(socket);
        if self.options.password.is_some() {
            read_answer(&mut answers)?;
        }
        read_answer(&mut answers)
    }

    /// The counters. Asking costs a read and a command or two of its own.
    pub fn stats(&self) -> Result<RedisStats> {
        let info = self.command(&["INFO", "everything"])?;
        let number = |name: &str| {
            info.lines()
                .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
                .and_then(|v| v.parse().ok())
                .unwrap_or(0)
        };
        let calls = |line: &str| {
            let (name, values) = line.strip_prefix("cmdstat_")?.split_once(':')?;
            let calls = values.split(',').find_map(|v| v.strip_prefix("calls="))?;
            Some((name.to_owned(), calls.parse().ok()?))
        };
        Ok(RedisStats {
            total_reads_processed: number("total_reads_processed"),
            total_writes_processed: number("total_writes_processed"),
            total_commands_processed: number("total_commands_processed"),
            commands: info.lines().filter_map(calls).collect(),
        })
    }

    /// Sets all counters to zero.
    pub fn reset_stats(&self) -> Result<()> {
        self.command(&["CONFIG", "RESETSTAT"]).map(|_| ())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on, below those that the kernel gives to outgoing connections: while a server is down, a
/// client that keeps trying to connect to a port of that range ends up connected to itself and takes the port away.
pub(crate) fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = u32::from(PORTS.end - PORTS.start);
    // Processes that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(977);
    for _ in 0..range {
        let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % range;
        let port = PORTS.start + n as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port"))
}

/// One RESP2 answer.
fn read_answer(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let line = line.trim_end();
    let (kind, rest) = line.split_at_checked(1).context("redis closed the connection")?;
    match kind {
        "+" | ":" => Ok(rest.to_owned()),
        "-" => bail!("redis: {rest}"),
        "$" => {
            let len: i64 = rest.parse()?;
            let mut text = vec![0; usize::try_from(len).map_or(0, |n| n + 2)];
            from.read_exact(&mut text)?;
            text.truncate(text.len().saturating_sub(2));
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        "*" => {
            let len: i64 = rest.parse()?;
            let items = (0..len.max(0)).map(|_| read_answer(from)).collect::<Result<Vec<_>>>()?;
            Ok(items.join("\n"))
        }
        _ => bail!("redis sent {line:?}"),
    }
}

/// An authority and a certificate for localhost, valid for a day.
fn make_certificates(dir: &Path) -> Result<()> {
    fs::write(dir.join("san.ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")?;
    for args in [
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=test-ca -keyout ca.key \
         -out ca.crt -addext basicConstraints=critical,CA:TRUE",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile san.ext -out server.crt",
    ] {
        let run = Command::new("openssl").args(args.split_whitespace()).current_dir(dir).output();
        let output = match run {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                bail!("openssl is not installed: apt-get install openssl")
            }
            other => other.context("openssl")?,
        };
        ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::require;

    #[test]
    fn survives_a_kill_with_its_data() {
        let options =
            RedisOptions { append_only: true, password: Some("p".to_owned()), ..RedisOptions::default() };
        let Some(mut redis) = require(RedisServer::start(options)) else { return };
        let url = redis.url();
        redis.command(&["SET", "a", "1"]).unwrap();
        redis.kill();
        assert!(redis.command(&["PING"]).is_err());
        redis.restart().unwrap();
        assert_eq!(redis.command(&["GET", "a"]).unwrap(), "1");
        assert_eq!(redis.url(), url);
        redis.reset_stats().unwrap();
        redis.command(&["GET", "a"]).unwrap();
        let stats = redis.stats().unwrap();
        assert_eq!(stats.commands.get("get"), Some(&1));
        assert!(stats.total_reads_processed > 0);
    }

    #[test]
    fn speaks_tls_and_unix_sockets() {
        let options = RedisOptions { tls: true, ..RedisOptions::default() };
        let Some(redis) = require(RedisServer::start(options)) else { return };
        assert!(redis.url().starts_with("rediss://127.0.0.1:"));
        let check = Command::new("redis-cli")
            .args(["--tls", "--cacert"])
            .arg(redis.ca_file())
            .args(["-h", "127.0.0.1", "-p", &redis.port().to_string(), "PING"])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&check.stdout).trim(), "PONG");
        let unix = RedisServer::start(RedisOptions { unix_only: true, ..RedisOptions::default() }).unwrap();
        assert_eq!(unix.port(), 0);
        assert!(unix.url().starts_with("unix:///"));
    }
}
