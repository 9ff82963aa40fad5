//! Columns of `ciderfs stats`, laid out as the official client lays them out.

use super::Sample;
use crate::failure::{Failure, Result};

/// Letters of `--schema`.
pub(super) const LETTERS: &str =
    "t: time, u: usage, f: fuse, m: metadata, c: block cache, o: object store, b: upload backlog";
/// Width of most columns.
const WIDTH: usize = 5;
/// How a moment is shown, and how wide that is.
const MOMENT: (&str, usize) = ("%m-%d %H:%M:%S", 14);

/// What a column shows of a figure.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The time of day (UTC, as in the log); there is no figure.
    Moment,
    /// Bytes as they are.
    Bytes,
    /// Seconds as they are.
    Seconds,
    /// How many bytes more a second.
    ByteRate,
    /// How many more a second.
    Rate,
    /// Seconds of CPU a second.
    Cpu,
    /// How many a second, and milliseconds of each, in two columns.
    Latency,
}

struct Column {
    title: &'static str,
    figure: &'static str,
    kind: Kind,
}

struct Section {
    title: &'static str,
    columns: Vec<Column>,
}

/// What is shown.
pub(super) struct Table(Vec<Section>);

/// Two samples to compare.
pub(super) struct Row<'a> {
    pub(super) from: &'a Sample,
    pub(super) to: &'a Sample,
    /// The line will be shown again when its time is over.
    pub(super) is_partial: bool,
}

/// Title, figure, kind, and the verbosity from which on it is shown.
type Entry = (&'static str, &'static str, Kind, u64);

const USAGE: &[Entry] = &[
    ("cpu", "cpu_usage", Kind::Cpu, 0),
    ("mem", "memory", Kind::Bytes, 0),
    ("buf", "used_buffer_size_bytes", Kind::Bytes, 0),
    ("cache", "store_cache_size_bytes", Kind::Bytes, 1),
];
const FUSE: &[Entry] = &[
    ("ops", "fuse_ops_durations_histogram_seconds", Kind::Latency, 0),
    ("read", "fuse_read_size_bytes_sum", Kind::ByteRate, 0),
    ("write", "fuse_written_size_bytes_sum", Kind::ByteRate, 0),
];
const META: &[Entry] = &[
    ("ops", "meta_ops_durations_histogram_seconds", Kind::Latency, 0),
    ("txn", "transaction_durations_histogram_seconds", Kind::Latency, 1),
    ("retry", "transaction_restart", Kind::Rate, 1),
];
const CACHE: &[Entry] = &[
    ("read", "blockcache_hit_bytes", Kind::ByteRate, 0),
    ("write", "blockcache_write_bytes", Kind::ByteRate, 0),
];
const OBJECT: &[Entry] = &[
    ("get", "object_request_data_bytes_GET", Kind::ByteRate, 0),
    ("get_c", "object_request_durations_histogram_seconds_GET", Kind::Latency, 1),
    ("put", "object_request_data_bytes_PUT", Kind::ByteRate, 0),
    ("put_c", "object_request_durations_histogram_seconds_PUT", Kind::Latency, 1),
    ("del_c", "object_request_durations_histogram_seconds_DELETE", Kind::Latency, 1),
];
const BACKLOG: &[Entry] = &[
    ("bytes", "upload_backlog_bytes", Kind::Bytes, 0),
    ("age", "upload_backlog_oldest_seconds", Kind::Seconds, 0),
];

impl Table {
    /// The columns of a schema.
    pub(super) fn new(schema: &str, verbosity: u64) -> Result<Self> {
        let sections = schema.chars().map(|letter| {
            let (title, entries): (_, &[Entry]) = match letter {
                't' => ("system", &[("time", "", Kind::Moment, 0)]),
                'u' => ("usage", USAGE),
                'f' => ("fuse", FUSE),
                'm' => ("meta", META),
                'c' => ("blockcache", CACHE),
                'o' => ("object", OBJECT),
                'b' => ("backlog", BACKLOG),
                'g' => {
                    return Err(Failure::new(
                        "--schema: g shows the Go runtime, which CiderFS does not have",
                    ));
                }
                other => {
                    return Err(Failure::new(format!("--schema: no section {other:?}; there are {LETTERS}")));
                }
            };
            let shown = entries.iter().filter(|(.., from)| verbosity >= *from);
            let columns = shown.map(|&(title, figure, kind, _)| Column { title, figure, kind }).collect();
            Ok(Section { title, columns })
        });
        let sections = sections.collect::<Result<Vec<_>>>()?;
        if sections.is_empty() {
            return Err(Failure::new(format!("--schema is empty; there are {LETTERS}")));
        }
        Ok(Self(sections))
    }

    /// The two lines above.
    pub(super) fn heading(&self, colour: bool) -> String {
        let (mut above, mut below) = (Vec::new(), Vec::new());
        for section in &self.0 {
            let mut titles = Vec::new();
            for column in &section.columns {
                let width = if column.kind == Kind::Moment { MOMENT.1 } else { WIDTH };
                titles.push(centred(column.title, width, ' '));
                if column.kind == Kind::Latency {
                    titles.push(centred("lat", WIDTH, ' '));
                }
            }
            let titles = titles.join(" ");
            above.push(paint(&centred(section.title, titles.len(), '-'), BLUE, colour));
            below.push(paint(&titles, UNDERLINED, colour));
        }
        format!("{}\n{}", above.join(" "), below.join(&paint("|", BLUE, colour)))
    }

    /// What has happened between two samples.
    pub(super) fn row(&self, row: &Row<'_>, colour: bool) -> String {
        let section =
            |s: &Section| s.columns.iter().map(|c| cell(c, row, colour)).collect::<Vec<_>>().join(" ");
        let line = self.0.iter().map(section).collect::<Vec<_>>().join(&paint("|", BLUE, colour));
        if row.is_partial { paint(&line, DIM, colour) } else { line }
    }
}

fn cell(column: &Column, row: &Row<'_>, colour: bool) -> String {
    let seconds = row.to.at.saturating_duration_since(row.from.at).as_secs_f64();
    let name = format!("juicefs_{}", column.figure);
    let grown = |name: &str| row.to.all(name) - row.from.all(name);
    let rate = |n: f64| if seconds > 0.0 { n / seconds } else { 0.0 };
    // Within a line that is shown dim, further colours would only end that.
    let paint = |(text, code): (String, &str)| paint(&text, code, colour && !row.is_partial);
    match column.kind {
        Kind::Moment => jiff::Timestamp::now().strftime(MOMENT.0).to_string(),
        Kind::Bytes => paint(number(row.to.all(&name), "B")),
        Kind::Seconds => paint(decimal(row.to.all(&name))),
        Kind::ByteRate => paint(number(rate(grown(&name)), "B")),
        Kind::Rate => paint(number(rate(grown(&name)), " ")),
        Kind::Cpu => paint(share(rate(grown(&name)))),
        Kind::Latency => {
            let count = grown(&format!("{name}_total"));
            let each = if count > 0.0 { grown(&format!("{name}_sum")) * 1000.0 / count } else { 0.0 };
            format!("{} {}", paint(number(rate(count), " ")), paint(decimal(each)))
        }
    }
}

impl Sample {
    /// A figure, or the sum of those of its methods where there is only that.
    fn all(&self, name: &str) -> f64 {
        if name == "juicefs_transaction_restart" {
            let of_methods = self.figures.iter().filter(|(n, _)| n.starts_with(name));
            return of_methods.map(|(_, v)| v).sum();
        }
        self.figure(name)
    }
}

const BLUE: &str = "34";
const UNDERLINED: &str = "1;4;34";
const DIM: &str = "2";
const NOTHING: &str = "90";

/// Text in a colour, as terminals take it.
fn paint(text: &str, code: &str, colour: bool) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

fn centred(text: &str, width: usize, fill: char) -> String {
    let left = (width.saturating_sub(text.len())).div_ceil(2);
    let mut out = fill.to_string().repeat(left) + text;
    while out.len() < width {
        out.push(fill);
    }
    out
}

/// Four digits and a unit of 1024, `one` for none.
fn number(v: f64, one: &'static str) -> (String, &'static str) {
    if v < 1.0 {
        return ("   0 ".to_owned(), NOTHING);
    }
    let units = [(one, "31"), ("K", "33"), ("M", "32"), ("G", "34"), ("T", "35"), ("P", "36")];
    let mut v = v;
    for (unit, code) in units {
        if v < 10_000.0 {
            return (format!("{:4}{unit}", v as u64), code);
        }
        v /= 1024.0;
    }
    ("many ".to_owned(), "36")
}

/// Three digits that count.
fn decimal(v: f64) -> (String, &'static str) {
    match v {
        v if v <= 0.0 => ("   0 ".to_owned(), NOTHING),
        v if v < 10.0 => (format!("{v:4.2} "), "32"),
        v if v < 100.0 => (format!("{v:4.1} "), "33"),
        v if v < 10_000.0 => (format!("{v:4.0} "), "31"),
        v => (format!("{v:5.0e}"), "35"),
    }
}

/// Percent.
fn share(v: f64) -> (String, &'static str) {
    match v * 100.0 {
        v if v <= 0.0 => (" 0.0%".to_owned(), NOTHING),
        v if v < 30.0 => (format!("{v:4.1}%"), "32"),
        v if v < 100.0 => (format!("{v:4.1}%"), "33"),
        v => (format!("{v:4.0}%"), "31"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::parse;
    use super::*;

    #[test]
    fn the_heading_is_the_official_clients() {
        let table = Table::new("ufmco", 0).unwrap();
        assert_eq!(
            table.heading(false),
            "------usage------ ----------fuse--------- ----meta--- -blockcache ---object--\n \
             cpu   mem   buf | ops   lat   read write| ops   lat | read write| get   put "
        );
    }

    #[test]
    fn a_row_tells_what_has_changed() {
        let start = Instant::now();
        let at = |s, text| Sample { at: start + Duration::from_secs(s), figures: parse(text) };
        let from = at(0, "juicefs_fuse_read_size_bytes_sum 0\njuicefs_cpu_usage 1");
        let to = at(
            2,
            "juicefs_fuse_read_size_bytes_sum 41943040\njuicefs_cpu_usage 1.5\njuicefs_memory 98000000\n\
             juicefs_fuse_ops_durations_histogram_seconds_total 100\n\
             juicefs_fuse_ops_durations_histogram_seconds_sum 0.5\n\
             juicefs_transaction_restart_Mknod 3\njuicefs_transaction_restart_Rename 1",
        );
        let row = Row { from: &from, to: &to, is_partial: false };
        let shown = |schema, verbosity| Table::new(schema, verbosity).unwrap().row(&row, false);
        assert_eq!(shown("uf", 0), "25.0%   93M    0 |  50  5.00    20M    0 ");
        assert_eq!(shown("m", 1), "   0     0     0     0     2 ");
        assert_eq!(shown("b", 0), "   0     0 ");
        for letter in ["x", "g", ""] {
            assert!(Table::new(letter, 0).is_err(), "{letter}");
        }
        let painted = Table::new("uf", 0).unwrap().row(&row, true);
        assert!(painted.contains("\x1b[32m25.0%\x1b[0m") && painted.contains("\x1b[34m|"));
    }

    #[test]
    fn every_figure_takes_five_places() {
        for v in [0.0, 0.4, 1.0, 9.99, 99.9, 1e3, 9_999.0, 1e4, 1e7, 1e10, 1e13, 1e16, 1e18] {
            assert_eq!(number(v, "B").0.len(), WIDTH, "{v}");
            assert_eq!(decimal(v).0.len(), WIDTH, "{v}");
        }
        for v in [0.0, 0.01, 0.5, 1.0, 64.0] {
            assert_eq!(share(v).0.len(), WIDTH, "{v}");
        }
    }
}
