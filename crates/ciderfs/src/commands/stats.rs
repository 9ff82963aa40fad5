//! `ciderfs stats MOUNTPOINT`: what a mount does, second by second.

use std::collections::HashMap;
use std::io::{ErrorKind, IsTerminal as _, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use ciderfs_bounded::read_text;
use ciderfs_format::shown;

use crate::failure::{Failure, Result};

mod table;

use table::{Row, Table};

/// Bytes of a mount's figures at most: they grow with the number of quotas.
const STATS_MAX: u64 = 64 << 20;
/// Names of the figures' file, with `--prefix-internal` and without.
const NAMES: [&str; 2] = [".jfs.stats", ".stats"];
/// Lines after which the heading is repeated.
const HEADING_EVERY: u64 = 30;
/// How often a terminal shows the line that is not complete yet.
const LIVE: Duration = Duration::from_secs(1);

/// How figures are shown.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sections, a letter each: see [`table::LETTERS`].
    pub schema: String,
    /// Time between two lines.
    pub interval: Duration,
    /// With 1 and more, further columns.
    pub verbosity: u64,
    /// Lines to show; 0: until somebody ends it.
    pub count: u64,
    /// Colours and live lines; `None`: on a terminal.
    pub colour: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema: "ufmco".to_owned(),
            interval: Duration::from_secs(1),
            verbosity: 0,
            count: 0,
            colour: None,
        }
    }
}

/// What a mount told, and when.
pub(crate) struct Sample {
    at: Instant,
    figures: HashMap<String, f64>,
}

impl Sample {
    /// A figure; one that is not there has not been counted yet.
    fn figure(&self, name: &str) -> f64 {
        self.figures.get(name).copied().unwrap_or(0.0)
    }
}

/// Runs the command.
pub fn run(mountpoint: &Path, options: Options) -> Result<()> {
    if options.interval.is_zero() {
        return Err(Failure::new("--interval: give at least a second"));
    }
    let table = Table::new(&options.schema, options.verbosity)?;
    let mut out = std::io::stdout();
    let live = options.colour.unwrap_or_else(|| out.is_terminal());
    match watch(mountpoint, &options, &table, live, &mut out) {
        Err(Stopped::Reader) => Ok(()),
        Err(Stopped::Failed(e)) => Err(e),
        Ok(()) => Ok(()),
    }
}

/// Why it ended.
enum Stopped {
    /// Nobody reads any more.
    Reader,
    Failed(Failure),
}

impl From<std::io::Error> for Stopped {
    fn from(e: std::io::Error) -> Self {
        if e.kind() == ErrorKind::BrokenPipe { Self::Reader } else { Self::Failed(e.into()) }
    }
}

fn watch(
    mountpoint: &Path,
    options: &Options,
    table: &Table,
    live: bool,
    out: &mut impl Write,
) -> std::result::Result<(), Stopped> {
    let sample = || sample(mountpoint).map_err(Stopped::Failed);
    let mut last = sample()?;
    let step = if live { LIVE.min(options.interval) } else { options.interval };
    let mut lines = 0;
    loop {
        if lines % HEADING_EVERY == 0 {
            writeln!(out, "{}", table.heading(live))?;
        }
        // Against the clock, so that the time of the reading does not add up.
        let due = last.at + options.interval;
        let now = loop {
            std::thread::sleep(step.min(due.saturating_duration_since(Instant::now())));
            let now = sample()?;
            if now.at >= due {
                break now;
            }
            write!(out, "{}\r", table.row(&Row { from: &last, to: &now, is_partial: true }, live))?;
            out.flush()?;
        };
        writeln!(out, "{}", table.row(&Row { from: &last, to: &now, is_partial: false }, live))?;
        out.flush()?;
        last = now;
        lines += 1;
        if options.count == lines {
            return Ok(());
        }
    }
}

/// Asks a mount for its figures.
fn sample(mountpoint: &Path) -> Result<Sample> {
    let failed = |e: &dyn std::fmt::Display| Failure::new(format!("{}: {e}", shown(mountpoint)));
    let is_root = std::fs::metadata(mountpoint).map_err(|e| failed(&e))?.ino() == ciderfs_format::Ino::ROOT.0;
    let text = NAMES
        .iter()
        .map(|name| read_text(mountpoint.join(name), STATS_MAX))
        .find(|text| !matches!(text, Err(e) if e.kind() == ErrorKind::NotFound));
    let text = match text.filter(|_| is_root) {
        None => {
            return Err(failed(
                &"not the mount point of a volume; name the directory that `mount` was given",
            ));
        }
        Some(text) => text.map_err(|e| failed(&e))?,
    };
    Ok(Sample { at: Instant::now(), figures: parse(&text) })
}

/// Reads `name value` lines; other lines are left out.
fn parse(text: &str) -> HashMap<String, f64> {
    let figure = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_figures_are_read() {
        let found = parse("juicefs_memory 1e6\nnonsense\nx y z\njuicefs_uptime 2.5\n");
        assert_eq!(found.len(), 2);
        assert_eq!(found["juicefs_memory"], 1e6);
    }

    #[test]
    fn a_directory_that_is_no_mount_is_refused() {
        let e = run(Path::new("/"), Options { count: 1, ..Options::default() }).map_err(|e| e.text);
        assert!(e.is_err_and(|e| e.contains("not the mount point")));
        let none = Options { interval: Duration::ZERO, ..Options::default() };
        assert!(run(Path::new("/"), none).is_err_and(|e| e.text.contains("--interval")));
    }
}
