//! `cargo xtask bench`: one run, two clients, ratios.

mod client;
mod rows;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use ciderfs_testkit::official::Official;

use client::{Client, Kind};

/// Set by Ctrl-C: the rows end, and everything is unmounted and removed.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Engine of both volumes.
    pub meta: Engine,
    /// MiB written and read sequentially.
    pub size: u64,
    /// Small files created, looked at and removed.
    pub files: usize,
    /// How often both clients take turns.
    pub rounds: usize,
    json: bool,
}

/// A metadata engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A private server without persistence.
    Redis,
    /// A file with the clients' own settings.
    Sqlite,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self { meta: Engine::Redis, size: 512, files: 2000, rounds: 3, json: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--json" => options.json = true,
                "--size" => options.size = value()?.parse()?,
                "--files" => options.files = value()?.parse()?,
                "--rounds" => options.rounds = value()?.parse()?,
                "--meta" => {
                    options.meta = match value()?.as_str() {
                        "redis" => Engine::Redis,
                        "sqlite" => Engine::Sqlite,
                        other => bail!("--meta {other}: use redis or sqlite"),
                    }
                }
                other => bail!("unknown option {other}"),
            }
        }
        let least = options.rounds.min(options.files).min(usize::try_from(options.size)?);
        ensure!(least > 0, "--size, --files and --rounds must be above 0");
        Ok(options)
    }
}

/// Fails if Ctrl-C was pressed.
fn go_on() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) { bail!("interrupted") } else { Ok(()) }
}

/// Runs the bench.
pub fn run(args: &[String]) -> Result<()> {
    let options = Options::parse(args)?;
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime
            && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
        {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    let ours = build()?;
    let theirs = Official::locate()?.exe().to_owned();
    let clients = [(Kind::Ours, &ours), (Kind::Official, &theirs)];
    for (kind, exe) in clients {
        eprintln!("{}: {}", kind.name(), version(exe)?);
    }
    let mut rounds = Vec::new();
    for n in 1..=options.rounds {
        let measure = |(kind, exe): (Kind, &PathBuf)| {
            go_on()?;
            eprintln!("round {n} of {}: {}", options.rounds, kind.name());
            let mut client = Client::start(kind, exe, &options)?;
            rows::measure(&mut client, &options).with_context(|| kind.name())
        };
        // Who comes second finds memory that the machine has just had in use: take turns in that too.
        let [ours, theirs] = clients;
        rounds.push(if n % 2 == 1 {
            let ours = measure(ours)?;
            Round { ours, theirs: measure(theirs)? }
        } else {
            let theirs = measure(theirs)?;
            Round { ours: measure(ours)?, theirs }
        });
    }
    if options.json { table::print_json(&options, &rounds) } else { table::print(&options, &rounds) }
}

/// Figures of both clients, taken one after the other.
pub struct Round {
    /// CiderFS.
    pub ours: rows::Report,
    /// The official client.
    pub theirs: rows::Report,
}

/// Builds the release binary; its path.
fn build() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--package", "ciderfs", "--message-format=json-render-diagnostics"])
        .stderr(std::process::Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "cargo build --release failed");
    let text = String::from_utf8_lossy(&output.stdout);
    let exe = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    exe.context("cargo named no executable")
}

fn version(exe: &Path) -> Result<String> {
    let output = Command::new(exe).arg("version").output().with_context(|| exe.display().to_string())?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
