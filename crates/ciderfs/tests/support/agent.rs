//! Processes that lock files as they are told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::client::PATIENCE;

/// What an agent runs.
const SOURCE: &str = include_str!("agent.py");
/// An answer that has not come after this long is taken to be waited for.
const BLOCKED: Duration = Duration::from_millis(100);

/// A command line that runs the helper program.
pub fn helper() -> Command {
    let mut c = Command::new("python3");
    c.args(["-c", SOURCE]);
    c
}

/// A process. Killed when dropped.
pub struct Agent {
    child: Child,
    to: ChildStdin,
    from: Receiver<String>,
}

impl Agent {
    /// Starts one.
    #[track_caller]
    pub fn start() -> Self {
        let mut child =
            helper().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 is installed");
        let to = child.stdin.take().expect("stdin");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let (tx, from) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tx.send(line).is_err() {
                    return;
                }
            }
        });
        let agent = Self { child, to, from };
        assert_eq!(agent.answer(), "ready");
        agent
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it do something that may take long.
    #[track_caller]
    pub fn begin(&mut self, command: &str) {
        writeln!(self.to, "{command}").expect("the agent lives");
    }

    /// What came of the last command, without "ok ".
    #[track_caller]
    pub fn answer(&self) -> String {
        match self.from.recv_timeout(PATIENCE) {
            Ok(line) => line.strip_prefix("ok ").unwrap_or(&line).to_owned(),
            Err(e) => panic!("no answer: {e}"),
        }
    }

    /// Has it do something.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> String {
        self.begin(command);
        self.answer()
    }

    /// Has it do something, which must succeed without a result.
    #[track_caller]
    pub fn must(&mut self, command: &str) {
        assert_eq!(self.ask(command), "", "{command}");
    }

    /// Has it do something, which must fail with this error.
    #[track_caller]
    pub fn refused(&mut self, errno: &str, command: &str) {
        assert_eq!(self.ask(command), errno, "{command}");
    }

    /// Has it do something for which it must wait.
    #[track_caller]
    pub fn blocks(&mut self, command: &str) {
        self.begin(command);
        self.still_waits();
    }

    /// It has no answer yet.
    #[track_caller]
    pub fn still_waits(&self) {
        match self.from.recv_timeout(BLOCKED) {
            Err(RecvTimeoutError::Timeout) => {}
            other => panic!("it does not wait: {other:?}"),
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}
