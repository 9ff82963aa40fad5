//! `ciderfs profile MOUNTPOINT|LOGFILE`: which requests take the time.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, IsTerminal as _, Read as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ciderfs_format::shown;

use crate::failure::{Failure, Result};

/// Names of a mount's log, with `--prefix-internal` and without.
const NAMES: [&str; 2] = [".jfs.accesslog", ".accesslog"];
/// Bytes of a line at most; what is longer is read as several, which are no requests.
const LINE_MAX: u64 = 64 << 10;
/// Kinds of requests at most: a file may hold anything.
const KINDS_MAX: usize = 1000;
/// Clears a terminal.
const CLEAR: &str = "\x1b[2J\x1b[1;1H";

/// What is shown, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only requests of these users; of all if there are none. The same for groups and processes.
    pub uids: Vec<u32>,
    /// Groups.
    pub gids: Vec<u32>,
    /// Processes.
    pub pids: Vec<u32>,
    /// Time between two tables of a mount. A file is shown at once, as one.
    pub interval: Duration,
    /// Tables of a mount to show; 0: until somebody ends it.
    pub count: u64,
    /// Each table in the place of the one before; `None`: on a terminal.
    pub live: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            uids: Vec::new(),
            gids: Vec::new(),
            pids: Vec::new(),
            interval: Duration::from_secs(2),
            count: 0,
            live: None,
        }
    }
}

/// Requests of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Sum {
    count: u64,
    seconds: f64,
}

/// Requests by kind.
type Sums = HashMap<String, Sum>;

/// A line of the log.
#[derive(Debug, PartialEq)]
struct Line<'a> {
    /// Seconds within its day.
    at: f64,
    uid: u32,
    gid: u32,
    pid: u32,
    method: &'a str,
    seconds: f64,
}

impl<'a> Line<'a> {
    /// Reads a line; `None` for one that tells no request.
    fn parse(line: &'a str) -> Option<Self> {
        let (moment, rest) = line.trim_end().split_once(" [uid:")?;
        let (who, rest) = rest.split_once("] ")?;
        let mut ids = who.split(',').map(|id| id.rsplit(':').next().unwrap_or_default().parse().ok());
        let (uid, gid, pid) = (ids.next()??, ids.next()??, ids.next()??);
        let (_, took) = rest.rsplit_once(" <")?;
        let time = moment.split_once(' ')?.1;
        let at = time.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))?;
        let seconds = took.strip_suffix('>')?.parse().ok()?;
        Some(Self { at, uid, gid, pid, method: rest.split(' ').next()?, seconds })
    }
}

impl Options {
    fn shows(&self, line: &Line<'_>) -> bool {
        let among = |ids: &[u32], id| ids.is_empty() || ids.contains(&id);
        among(&self.uids, line.uid) && among(&self.gids, line.gid) && among(&self.pids, line.pid)
    }

    fn add(&self, sums: &mut Sums, line: &Line<'_>) {
        if self.shows(line) && (sums.len() < KINDS_MAX || sums.contains_key(line.method)) {
            let sum = sums.entry(line.method.to_owned()).or_default();
            sum.count += 1;
            sum.seconds += line.seconds;
        }
    }
}

/// Runs the command.
pub fn run(path: &Path, options: &Options) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", shown(path)));
    let meta = std::fs::metadata(path).map_err(|e| failed(&e))?;
    let mut out = std::io::stdout();
    let result = if !meta.is_dir() {
        let file = File::open(path).map_err(|e| failed(&e))?;
        replay(BufReader::new(file), options, &mut out)
    } else if options.interval.is_zero() {
        return Err(Failure::new("--interval: give at least a second; 0 is for files"));
    } else {
        let opened = NAMES.iter().map(|name| File::open(path.join(name)));
        let log = opened.into_iter().find(|f| !matches!(f, Err(e) if e.kind() == ErrorKind::NotFound));
        let log = log.filter(|_| meta.ino() == ciderfs_format::Ino::ROOT.0);
        let log = log.ok_or_else(|| failed(&"neither the mount point of a volume nor a file"))?;
        let live = options.live.unwrap_or_else(|| out.is_terminal());
        let log = log.map_err(|e| match e.kind() {
            ErrorKind::PermissionDenied => failed(&"its .accesslog is for root only; run this as root"),
            _ => failed(&e),
        })?;
        follow(BufReader::new(log), options, live, &mut out)
    };
    match result {
        // Nobody reads any more.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| failed(&e)),
    }
}

/// The next line; empty at the end.
fn next<'a>(log: &mut BufReader<File>, buffer: &'a mut Vec<u8>) -> std::io::Result<Cow<'a, str>> {
    buffer.clear();
    log.take(LINE_MAX).read_until(b'\n', buffer)?;
    Ok(String::from_utf8_lossy(buffer))
}

/// One table of a whole file.
fn replay(mut log: BufReader<File>, options: &Options, out: &mut impl Write) -> std::io::Result<()> {
    let (mut sums, mut buffer) = (Sums::new(), Vec::new());
    let (mut first, mut last) = (None, 0.0);
    loop {
        let text = next(&mut log, &mut buffer)?;
        if text.is_empty() {
            break;
        }
        if let Some(line) = Line::parse(&text) {
            first.get_or_insert(line.at);
            last = line.at;
            options.add(&mut sums, &line);
        }
    }
    // It may end on the day after.
    let span = (last - first.unwrap_or(last)).rem_euclid(86_400.0);
    write!(out, "{}", table(&sums, Duration::from_secs_f64(span)))?;
    out.flush()
}

/// A table for each interval. The log of a mount never blocks for longer than a second.
fn follow(
    mut log: BufReader<File>,
    options: &Options,
    live: bool,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let mut shown = 0;
    loop {
        let mut sums = Sums::new();
        let began = Instant::now();
        while began.elapsed() < options.interval {
            let text = next(&mut log, &mut buffer)?;
            if text.is_empty() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Some(line) = Line::parse(&text) {
                options.add(&mut sums, &line);
            }
        }
        let table = table(&sums, began.elapsed());
        match live {
            true => write!(out, "{CLEAR}{table}")?,
            false => writeln!(out, "{table}")?,
        }
        out.flush()?;
        shown += 1;
        if options.count == shown {
            return Ok(());
        }
    }
}

/// What took how long, the longest first, as the official client shows it.
fn table(sums: &Sums, span: Duration) -> String {
    let mut rows: Vec<(&String, &Sum)> = sums.iter().collect();
    rows.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds).then_with(|| a.0.cmp(b.0)));
    let mut out = format!(
        "{:<17} {:>7} {:>15} {:>18} {:>14}\n",
        "Operation", "Count", "Average(us)", "Total(us)", "Percent(%)"
    );
    for (method, sum) in rows {
        let total = sum.seconds * 1e6;
        let percent = if span.is_zero() { 0.0 } else { sum.seconds * 100.0 / span.as_secs_f64() };
        let each = total / sum.count as f64;
        out += &format!("{method:<17} {:>7} {each:>15.0} {total:>18.0} {percent:>14.1}\n", sum.count);
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const LOG: &str = "\
2026.11.30 11:37:36.000000 [uid:0,gid:7,pid:21058] open (92,0x8000) [fh:59] - OK <0.000050>
#
2026.11.30 11:37:36.250000 [uid:5,gid:0,pid:2] lookup (1,a [uid:9] <1>): no such file or directory <0.000252>
2026.11.30 11:37:37.000000 [uid:5,gid:0,pid:3] lookup (1,k) - OK <0.000748>
2026.11.30 11:37:38.000000 [uid:5,gid:0,pid:3] broken
";

    #[test]
    fn lines_are_read() {
        let lines: Vec<_> = LOG.lines().filter_map(Line::parse).collect();
        assert_eq!(lines.len(), 3);
        let at = 11.0 * 3600.0 + 37.0 * 60.0 + 36.0;
        let first = Line { at, uid: 0, gid: 7, pid: 21058, method: "open", seconds: 0.00005 };
        assert_eq!(lines[0], first);
        assert_eq!((lines[1].uid, lines[1].method, lines[1].seconds), (5, "lookup", 0.000252));
    }

    #[test]
    fn the_longest_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, LOG).unwrap();
        let shown = |options: &Options| {
            let mut out = Vec::new();
            replay(BufReader::new(File::open(&path).unwrap()), options, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let all = "\
Operation           Count     Average(us)          Total(us)     Percent(%)
lookup                  2             500               1000            0.1
open                    1              50                 50            0.0
";
        assert_eq!(shown(&Options::default()), all);
        let of = |options: Options| shown(&options).lines().count() - 1;
        assert_eq!(of(Options { uids: vec![0], ..Options::default() }), 1);
        assert_eq!(of(Options { gids: vec![0, 7], pids: vec![3], ..Options::default() }), 1);
        assert_eq!(of(Options { pids: vec![9], ..Options::default() }), 0);
        assert!(run(dir.path(), &Options::default()).is_err_and(|e| e.text.contains("neither")));
    }
}
