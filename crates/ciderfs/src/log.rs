//! Log lines: `2026/11/22 09:38:28.036663 ciderfs[PID] <LEVEL>: message` on stderr (`spec/cli.md` 2.4).

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::OnceLock;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::args::Args;
use crate::cli::table::{LOG_LEVEL, LOG_LEVEL_FILE, NO_COLOR, QUIET, TRACE, VERBOSE};

/// Our crates: their texts hold no secrets.
const OURS: &str = "ciderfs";
/// Crates of others that may warn. All that are not named here are silent at every level, whatever is asked for: a library that
/// signs requests prints the keys that it was given, in warnings too.
const TRUSTED: [&str; 4] = ["hyper", "reqwest", "rustls", "h2"];

/// What is ever written, at most.
fn ceiling() -> Targets {
    Targets::new()
        .with_default(LevelFilter::OFF)
        .with_target(OURS, LevelFilter::TRACE)
        .with_targets(TRUSTED.map(|name| (name, LevelFilter::WARN)))
}

struct Lines {
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (level, colour) = match *event.metadata().level() {
            Level::ERROR => ("ERROR", 31),
            Level::WARN => ("WARNING", 33),
            Level::INFO => ("INFO", 34),
            Level::DEBUG => ("DEBUG", 35),
            Level::TRACE => ("TRACE", 35),
        };
        write!(w, "{} ciderfs[{}] ", stamp(), std::process::id())?;
        if self.colour {
            write!(w, "<\x1b[{colour}m{level}\x1b[0m>: ")?;
        } else {
            write!(w, "<{level}>: ")?;
        }
        ctx.field_format().format_fields(w.by_ref(), event)?;
        writeln!(w, " [{}]", event.metadata().target())
    }
}

fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y/%m/%d %H:%M:%S%.6f").to_string()
}

/// What sets another level while the program runs.
type Reload = Box<dyn Fn() + Send + Sync>;
static RELOAD: OnceLock<Reload> = OnceLock::new();

/// Reads the file with the level again.
pub fn reload() {
    if let Some(reload) = RELOAD.get() {
        reload();
    }
}

/// A level by its name.
fn level_named(name: &str) -> &'static str {
    match name {
        "trace" => "trace",
        "debug" => "debug",
        "warn" | "warning" => "warn",
        "error" | "fatal" | "panic" => "error",
        _ => "info",
    }
}

/// The level that is in a file; without one that can be read the others count.
fn level_in(file: &Path) -> Option<&'static str> {
    let text = ciderfs_bounded::read_text(file, ciderfs_bounded::KEY_FILE_MAX).ok()?;
    Some(level_named(text.trim()))
}

/// Sets up logging; `RUST_LOG` wins over the file with the level, which wins over the flags, and those over `usual`. None of them
/// gets past the ceiling.
pub fn start(args: &Args, usual: &str) {
    let level = match args.find(LOG_LEVEL) {
        Some(name) => level_named(name),
        None if args.get(TRACE) => "trace",
        None if args.get(VERBOSE) => "debug",
        None if args.get(QUIET) => "warn",
        None => usual,
    };
    let (file, other) = (args.find(LOG_LEVEL_FILE).map(Path::to_owned), level.to_owned());
    let filter = move || {
        let level = file.as_deref().and_then(level_in).unwrap_or(&other);
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level))
    };
    let (changing, handle) = reload::Layer::new(filter());
    let colour = std::io::stderr().is_terminal() && !args.get(NO_COLOR);
    let lines = tracing_subscriber::fmt::layer()
        // Of the fields, which have a style of their own.
        .with_ansi(colour)
        .with_writer(std::io::stderr)
        .event_format(Lines { colour });
    let _ = tracing_subscriber::registry().with(ceiling()).with(changing).with(lines).try_init();
    let _ = RELOAD.set(Box::new(move || _ = handle.reload(filter())));
}

/// The last line of a failed command.
pub fn fatal(text: &str) {
    let colour = std::io::stderr().is_terminal();
    let level = if colour { "<\x1b[31mFATAL\x1b[0m>" } else { "<FATAL>" };
    // A closed terminal or a full disk is no reason to end differently.
    let _ = writeln!(std::io::stderr(), "{} ciderfs[{}] {level}: {text}", stamp(), std::process::id());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crates_that_are_named_are_heard() {
        let ceiling = ceiling();
        for (target, level, heard) in [
            ("ciderfs_meta_redis::link", Level::TRACE, true),
            ("hyper_util::client", Level::WARN, true),
            ("reqwest::connect", Level::DEBUG, false),
            ("reqsign_core::api", Level::ERROR, false),
            ("reqsign_aws_v4::sign_request", Level::WARN, false),
            ("opendal_service_s3::backend", Level::ERROR, false),
            ("redis::aio", Level::ERROR, false),
            ("new_crate", Level::ERROR, false),
        ] {
            assert_eq!(ceiling.would_enable(target, &level), heard, "{target}");
        }
    }
}
