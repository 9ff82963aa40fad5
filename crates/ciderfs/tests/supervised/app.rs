//! A program on a mount that is to notice nothing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A program that has things open, and says after each `go` whether all is as it should be.
pub struct App {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl App {
    pub fn start(dir: &Path) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", include_str!("app.py")])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let mut app = Self { child, said };
        app.hears("ready");
        app
    }

    #[track_caller]
    pub fn hears(&mut self, what: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), what);
    }

    pub fn go(&mut self) {
        writeln!(self.child.stdin.as_ref().unwrap(), "go").unwrap();
    }

    #[track_caller]
    pub fn end(mut self) {
        drop(self.child.stdin.take());
        self.hears("end");
        assert!(self.child.wait().unwrap().success());
    }
}
