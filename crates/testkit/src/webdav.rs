//! A private WebDAV server: WsgiDAV from the Python package index, on a free port, over a temporary directory.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{python, redis};

/// The release that tests speak to, and the web server that it runs in.
const PACKAGES: [&str; 2] = ["wsgidav==4.4.0", "cheroot==11.1.2"];
/// Starts it with a connection for each request: it leaves the bodies of some in a connection, and takes them for the next request.
const RUN: &str = "from cheroot.server import HTTPServer; HTTPServer.keep_alive_conn_limit = 0; \
                   from wsgidav.server.server_cli import run; run()";
/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(30);
const START_POLL: Duration = Duration::from_millis(20);

/// A running server with one user. Killed when dropped.
#[derive(Debug)]
pub struct WebDav {
    child: Child,
    port: u16,
    dir: TempDir,
    /// The user.
    pub user: String,
    /// Her password.
    pub password: String,
}

/// The interpreter that has it, installed below `target/official` of the workspace if it is not there. Safe to call from several processes at once.
fn program() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/official");
    fs::create_dir_all(&target)?;
    let home = target.canonicalize()?.join(PACKAGES.join("-").replace("==", "-"));
    let (exe, done) = (home.join("bin/python"), home.join("installed"));
    // Held until the end of the function.
    let lock = File::create(target.join("lock"))?;
    lock.lock()?;
    if !done.exists() {
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        python::install(&home, &PACKAGES)?;
        fs::write(done, "")?;
    }
    Ok(exe)
}

impl WebDav {
    /// Starts a server; it answers when this returns.
    pub fn start() -> Result<Self> {
        let exe = program()?;
        let dir = tempfile::Builder::new().prefix("webdav").tempdir()?;
        let (user, password) = ("alice".to_owned(), "a secret, with spaces".to_owned());
        fs::create_dir(dir.path().join("data"))?;
        let port = redis::free_port()?;
        let config = format!(
            "host: 127.0.0.1\nport: {port}\nprovider_mapping:\n  \"/dav\": {}/data\nverbose: 1\nhttp_authenticator:\n  \
             accept_basic: true\n  accept_digest: false\n  default_to_digest: false\nsimple_dc:\n  user_mapping:\n    \"*\":\n      \
             {user}:\n        password: \"{password}\"\n",
            dir.path().display()
        );
        let file = dir.path().join("wsgidav.yaml");
        fs::write(&file, config)?;
        let child = Command::new(&exe)
            .args(["-c", RUN, "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(File::create(dir.path().join("log"))?)
            .stderr(File::create(dir.path().join("errors"))?)
            .spawn()
            .with_context(|| exe.display().to_string())?;
        let mut server = Self { child, port, dir, user, password };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if server.child.try_wait()?.is_some() || begun.elapsed() > START_PATIENCE {
                let said = ["log", "errors"].map(|name| fs::read_to_string(server.dir.path().join(name)));
                bail!("wsgidav did not start: {said:?}");
            }
            std::thread::sleep(START_POLL);
        }
        Ok(server)
    }

    /// The address, with a path that does not exist yet.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/dav", self.port)
    }

    /// Where its files are.
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for WebDav {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
