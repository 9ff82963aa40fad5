//! Logs of clients. They write to files, which do not break when a mounter ends; the mounter shows what is new on its own standard
//! error, from a thread that may wait there for as long as it likes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Name of a client's log.
pub const NAME: &str = "log";
/// Bytes of a log. What was before is kept in one more file.
const MOST: u64 = 1 << 20;
/// Bytes that are shown at once.
const PIECE: usize = 64 << 10;

/// The log of a client, to write to: at its end, wherever that is after it was cut.
///
/// # Errors
/// Of the system.
pub fn open(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(dir.join(NAME))
}

/// The last lines of a log, in one.
pub fn last_words(dir: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = File::open(dir.join(NAME)) {
        let from = file.metadata().map_or(0, |m| m.len().saturating_sub(2048));
        let mut bytes = Vec::new();
        let _ = file.seek(SeekFrom::Start(from)).and_then(|_| file.take(2048).read_to_end(&mut bytes));
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    // What ends a client it says last, and says FATAL to it.
    let said = lines.iter().rfind(|l| l.contains("FATAL")).or(lines.last());
    let said = said.map(|line| line.split_once("<FATAL>: ").map_or(*line, |(_, text)| text).trim());
    said.unwrap_or("it said nothing").to_owned()
}

/// Follows the log of a client.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    title: String,
    at: u64,
}

impl Follower {
    /// From now on.
    pub fn new(dir: &Path, title: &str) -> Self {
        let path = dir.join(NAME);
        let at = std::fs::metadata(&path).map_or(0, |m| m.len());
        Self { path, title: title.to_owned(), at }
    }

    /// Shows what is new, and cuts a log that has grown long.
    pub fn show(&mut self) {
        // What cannot be shown stays in the file.
        let _ = self.try_show();
    }

    fn try_show(&mut self) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).open(&self.path)?;
        let length = file.metadata()?.len();
        if length < self.at {
            self.at = 0;
        }
        file.seek(SeekFrom::Start(self.at))?;
        let mut piece = vec![0; PIECE];
        loop {
            let n = file.read(&mut piece)?;
            // Whole lines, unless one is longer than all this.
            let end = piece[..n]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(if n == PIECE { n } else { 0 }, |at| at + 1);
            if end == 0 {
                break;
            }
            let mut out = Vec::new();
            for line in piece[..end].split_inclusive(|b| *b == b'\n') {
                out.extend([self.title.as_bytes(), b": ", line].concat());
            }
            self.at += end as u64;
            file.seek(SeekFrom::Start(self.at))?;
            io::stderr().write_all(&out)?;
        }
        if self.at >= MOST {
            std::fs::copy(&self.path, self.path.with_extension("old"))?;
            file.set_len(0)?;
            self.at = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_is_cut_under_the_client_that_writes_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut client = open(dir.path()).unwrap();
        let mut follower = Follower::new(dir.path(), "t");
        client.write_all(format!("{}\n", "x".repeat(MOST as usize)).as_bytes()).unwrap();
        follower.show();
        client.write_all(b"FATAL: why\nlater\n").unwrap();
        follower.show();
        assert_eq!(std::fs::read(dir.path().join(NAME)).unwrap(), b"FATAL: why\nlater\n");
        assert_eq!(last_words(dir.path()), "FATAL: why");
        assert!(std::fs::metadata(dir.path().join("log.old")).unwrap().len() > MOST);
    }
}
