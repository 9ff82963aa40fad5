//! The commands, one file each.

mod channel;
mod clone;
mod config;
mod csi;
mod doctor;
mod format;
mod fstab;
mod helper;
mod info;
mod k8s_secret;
mod mount;
pub mod mount_options;
mod mounter;
mod mountpoint;
mod profile;
mod quota;
mod rmr;
mod stats;
mod status;
mod table;
mod umount;
mod up;
pub mod upgrade;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::time::Duration;

use ciderfs_format::shown;

use crate::cli::args::Args;
use crate::cli::command::{Command, EVERY};
use crate::cli::flag::Row;
use crate::cli::table::{
    CHECK_HANDOVER, COUNT, GID, HELP, INTERVAL, MARKDOWN, PID, SCHEMA, UID, VERBOSITY, VERSION,
};
use crate::cli::{completions, help, manual, nearest, parse};
use crate::failure::{EXIT_UNKNOWN_COMMAND, Failure, Result};
use crate::supervise::worker;
use crate::{daemon, log, visible};

/// The version with the compatible base first, as scripts that parse the official client's expect it.
fn version() -> String {
    format!("ciderfs version {}", ciderfs_format::version::presented_version(env!("CARGO_PKG_VERSION")))
}

/// Runs the command line.
pub fn run(argv: &[OsString]) -> ExitCode {
    // One in the background is sent what has been translated already.
    let is_translated = daemon::is_daemon() || worker::get().is_some();
    let call = if is_translated { Ok(helper::Call::Command(argv.to_vec())) } else { helper::translate(argv) };
    let argv = match call {
        Ok(helper::Call::Command(argv)) => argv,
        Ok(helper::Call::Remount(mountpoint, options)) => {
            return finish(helper::remount(&mountpoint, &options));
        }
        Err(e) => return finish(Err(e)),
    };
    let words = &argv[1..];
    // Flags may stand before the command, which is the first other word.
    let Some(at) = parse::first_argument(words) else {
        let asks_for_version = words.iter().any(|word| is_flag(word, VERSION.row));
        print!("{}", if asks_for_version { format!("{}\n", version()) } else { help::program() });
        return ExitCode::SUCCESS;
    };
    let Some(command) = Command::named(&words[at]) else { return unknown(words, at) };
    let rest: Vec<OsString> = [&words[..at], &words[at + 1..]].concat();
    let args = match Args::parse(command, &rest) {
        Ok(args) => args,
        Err(e) => return finish(Err(e)),
    };
    if args.get(HELP) {
        print!("{}", help::command(command));
        return ExitCode::SUCCESS;
    }
    if args.get(VERSION) {
        println!("{}", version());
        return ExitCode::SUCCESS;
    }
    // `up` itself tells its user what matters.
    log::start(
        &args,
        match command {
            Command::Up => "warn",
            // What others would warn of are its findings.
            Command::Doctor => "error",
            _ => "info",
        },
    );
    visible::warn(&args);
    finish(match command {
        Command::Up => up::run(&args),
        Command::Format => format::run(&args),
        Command::Config => config::run(&args),
        Command::Mount => mount::run(&args, &argv),
        Command::Umount => umount::run(&args),
        Command::Upgrade => upgrade::run(&args),
        Command::Quota => quota::run(&args),
        Command::Status => status::run(&args),
        Command::Csi => csi::run(&args),
        Command::Mounter => mounter::run(&args),
        Command::Doctor => doctor::run(&args),
        Command::Info => info::run(&args),
        Command::Clone => clone::run(&args),
        Command::Rmr => rmr::run(&args),
        Command::K8sSecret => k8s_secret::run(&args),
        Command::Stats => args.exactly().and_then(|()| {
            let options = stats::Options {
                schema: args.get(SCHEMA).to_owned(),
                interval: args.find(INTERVAL).unwrap_or(Duration::from_secs(1)),
                verbosity: args.get(VERBOSITY),
                count: args.get(COUNT),
                colour: None,
            };
            stats::run(args.place(0), options)
        }),
        Command::Profile => args.exactly().and_then(|()| {
            let ids = |flag| args.find(flag).and_then(|id| u32::try_from(id).ok()).into_iter().collect();
            let options = profile::Options {
                uids: ids(UID),
                gids: ids(GID),
                pids: ids(PID),
                interval: args.find(INTERVAL).unwrap_or(Duration::from_secs(2)),
                count: args.get(COUNT),
                live: None,
            };
            profile::run(args.place(0), &options)
        }),
        Command::Completions => completions_of(&args),
        Command::Man => man(&args),
        Command::Version if args.get(CHECK_HANDOVER) => upgrade::check(&args),
        Command::Version => args.exactly().map(|()| println!("{}", version())),
    })
}

/// Does a word name this flag?
fn is_flag(word: &OsStr, row: &Row) -> bool {
    parse::split(word)
        .is_some_and(|(name, _)| [row.name].iter().chain(row.aliases).any(|called| called.as_bytes() == name))
}

/// A word where a command was expected. It may be the value of a flag, which may be a secret.
fn unknown(words: &[OsString], at: usize) -> ExitCode {
    let shown_words = visible::words(words);
    let word = shown_words.get(at).unwrap_or(&words[at]);
    let names = EVERY.iter().map(|command| command.name().to_owned());
    // The beginning is what the official client says, and what tells scripts that a program is too old.
    match word.to_str().and_then(|word| nearest::name(word, names)) {
        Some(meant) => eprintln!("No help topic for '{}'; did you mean `ciderfs {meant}`?", shown(word)),
        None => eprintln!("No help topic for '{}'; `ciderfs --help` lists the commands", shown(word)),
    }
    ExitCode::from(EXIT_UNKNOWN_COMMAND)
}

fn man(args: &Args) -> Result<()> {
    args.exactly()?;
    print!("{}", if args.get(MARKDOWN) { manual::reference() } else { manual::page() });
    Ok(())
}

fn completions_of(args: &Args) -> Result<()> {
    args.exactly()?;
    let script = completions::script(args.word(0)).ok_or_else(|| {
        Failure::new(format!("no completions for {}: name bash, zsh or fish", args.word(0)))
    })?;
    print!("{script}");
    Ok(())
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            match worker::get() {
                // Who says so.
                Some(worker) => worker.failed(&e.text),
                None => {
                    if daemon::is_daemon() {
                        daemon::failed(&e.text);
                    }
                    log::fatal(&e.text);
                }
            }
            e.die();
            ExitCode::from(e.code)
        }
    }
}
