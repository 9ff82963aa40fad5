//! Log lines: `2026/11/22 09:38:28.036663 ciderfs[PID] <LEVEL>: message` on stderr, with `[ID] ` before each of them if there is a
//! `--log-id` (`docs/reference/commands.md#options-of-every-command`).

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::sync::OnceLock;

use ciderfs_format::excerpt;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::args::Args;
use crate::cli::table::{LOG_ID, LOG_LEVEL, LOG_LEVEL_FILE, NO_COLOR, QUIET, TRACE, VERBOSE};
use crate::daemon;
use crate::supervise::worker;

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

/// The id for which the process that started this one in the background has been given its own.
const ID_ENV: &str = "CIDERFS_LOG_ID";
/// In the place of an id: make one up.
const RANDOM: &str = "random";

/// What stands before every line: nothing, or `[ID] `.
static PREFIX: OnceLock<String> = OnceLock::new();

/// Puts an id before every line from now on, and before those of the process that is started in the background.
fn identify(asked: &str) {
    let inherited = std::env::var(ID_ENV).ok().filter(|_| daemon::is_daemon() || worker::get().is_some());
    let _ = PREFIX.set(prefix(asked, inherited));
}

/// One that is made up is the same in a process and in the one that it starts in the background.
fn prefix(asked: &str, inherited: Option<String>) -> String {
    let id = match asked {
        "" => return String::new(),
        RANDOM => inherited.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        id => id.to_owned(),
    };
    // One line stays one.
    format!("[{}] ", excerpt(&id))
}

/// What the process in the background is to find in its environment, to have the same id.
pub fn for_background() -> Option<(&'static str, &'static str)> {
    Some((ID_ENV, PREFIX.get()?.strip_prefix('[')?.strip_suffix("] ")?))
}

fn shown_prefix() -> &'static str {
    PREFIX.get().map_or("", String::as_str)
}

struct Lines {
    colour: bool,
    prefix: &'static str,
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
        write!(w, "{}{} ciderfs[{}] ", self.prefix, stamp(), std::process::id())?;
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
    if let Some(id) = args.find(LOG_ID) {
        identify(id);
    }
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
        // It would panic where nobody reads standard error any more.
        .log_internal_errors(false)
        .event_format(Lines { colour, prefix: shown_prefix() });
    let _ = tracing_subscriber::registry().with(ceiling()).with(changing).with(lines).try_init();
    let _ = RELOAD.set(Box::new(move || _ = handle.reload(filter())));
}

/// The last line of a failed command.
pub fn fatal(text: &str) {
    let colour = std::io::stderr().is_terminal();
    let level = if colour { "<\x1b[31mFATAL\x1b[0m>" } else { "<FATAL>" };
    // A closed terminal or a full disk is no reason to end differently.
    let (prefix, pid) = (shown_prefix(), std::process::id());
    let _ = writeln!(std::io::stderr(), "{prefix}{} ciderfs[{pid}] {level}: {text}", stamp());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written of an event.
    fn written(prefix: &'static str) -> String {
        #[derive(Clone, Default)]
        struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl std::io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let to = kept.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || to.clone())
            .event_format(Lines { colour: false, prefix });
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || tracing::warn!("a message"));
        let text = kept.0.lock().unwrap().clone();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn an_id_stands_before_every_line() {
        let pid = std::process::id();
        let plain = written("");
        assert!(
            plain.starts_with("20") && plain.contains(&format!(" ciderfs[{pid}] <WARNING>: a message [")),
            "{plain}"
        );
        let with_id = written("[pod-7] ");
        assert!(with_id.starts_with("[pod-7] 20"), "{with_id}");
        assert_eq!(with_id.lines().count(), 1);
    }

    #[test]
    fn ids() {
        let fresh = prefix("random", None);
        let id = fresh.strip_prefix('[').unwrap().strip_suffix("] ").unwrap();
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{fresh}");
        assert_ne!(prefix("random", None), fresh);
        // That of the process that has started this one; what was given stays what it is.
        assert_eq!(prefix("random", Some(id.to_owned())), fresh);
        assert_eq!(prefix("mine", Some(id.to_owned())), "[mine] ");
        assert_eq!(prefix("", Some(id.to_owned())), "");
        assert_eq!(prefix("a\nb", None).lines().count(), 1);
        assert!(prefix("Größe 1", None).contains("Größe 1"));
    }

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
