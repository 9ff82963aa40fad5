//! The commands, one file each.

mod config;
mod format;
mod fstab;
mod helper;
mod info;
mod mount;
mod mount_options;
mod mountpoint;
mod profile;
mod quota;
mod stats;
mod status;
mod table;
mod umount;
mod up;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use ciderfs_format::shown;

use crate::args::Args;
use crate::failure::{EXIT_UNKNOWN_COMMAND, Result};
use crate::{daemon, flags, log, visible};

/// Name, arguments, what it does.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("up", "MOUNTPOINT", "create a local volume if there is none, and mount it"),
    ("format", "META-URL NAME", "create a volume, or update an existing one"),
    ("config", "META-URL", "show or change the settings of a volume"),
    ("mount", "META-URL MOUNTPOINT", "mount a volume"),
    ("umount", "MOUNTPOINT", "unmount a volume"),
    ("status", "META-URL", "show settings, sessions and use of a volume"),
    ("quota", "set|get|delete|list|check META-URL", "limit directories, users and groups"),
    ("info", "PATH...", "show the inode, objects and locks of files on a mounted volume"),
    ("profile", "MOUNTPOINT|LOGFILE", "show which requests to a mount take the time"),
    ("stats", "MOUNTPOINT", "show what a mount does, second by second"),
    ("version", "", "show the version"),
];

/// The version with the compatible base first, as scripts that parse the official client's expect it.
fn version() -> String {
    format!("ciderfs version {}", ciderfs_format::version::presented_version(env!("CARGO_PKG_VERSION")))
}

/// Is it the name of a command?
fn is_command(word: &OsStr) -> bool {
    COMMANDS.iter().any(|(name, _, _)| *name == word)
}

/// Runs the command line.
pub fn run(argv: &[OsString]) -> ExitCode {
    let argv = match helper::translate(argv) {
        Ok(helper::Call::Command(argv)) => argv,
        Ok(helper::Call::Remount(mountpoint, options)) => {
            return finish(helper::remount(&mountpoint, &options));
        }
        Err(e) => return finish(Err(e)),
    };
    let words = &argv[1..];
    // Global flags may stand before the command, which is the first other word.
    let is_flag = |w: &OsString| w.as_bytes().starts_with(b"-");
    let at = words.iter().position(|w| !is_flag(w));
    let Some(at) = at.filter(|&at| is_command(&words[at])) else {
        return match words.iter().find(|w| !is_flag(w)) {
            Some(word) => {
                // It may be the value of a flag.
                let at = words.iter().position(|w| std::ptr::eq(w, word)).unwrap_or_default();
                let shown_words = crate::visible::words(words);
                eprintln!("No help topic for '{}'", shown(shown_words.get(at).unwrap_or(word)));
                ExitCode::from(EXIT_UNKNOWN_COMMAND)
            }
            None if words
                .iter()
                .any(|w| matches!(w.as_bytes(), b"-version" | b"--version" | b"-V" | b"--V")) =>
            {
                println!("{}", version());
                ExitCode::SUCCESS
            }
            None => {
                help();
                ExitCode::SUCCESS
            }
        };
    };
    // One of ours, so it is a text.
    let command = words[at].to_str().unwrap_or_default();
    let rest: Vec<OsString> = [&words[..at], &words[at + 1..]].concat();
    let args = match Args::parse(command, &rest) {
        Ok(args) => args,
        Err(e) => return finish(Err(e)),
    };
    if args.is_on("help") {
        command_help(command);
        return ExitCode::SUCCESS;
    }
    // `up` itself tells its user what matters.
    log::start(&args, if command == "up" { "warn" } else { "info" });
    visible::warn(&args);
    finish(match command {
        "up" => up::run(&args),
        "format" => format::run(&args),
        "config" => config::run(&args),
        "mount" => mount::run(&args, &argv),
        "umount" => umount::run(&args),
        "quota" => quota::run(&args),
        "status" => status::run(&args),
        "info" => info::run(&args),
        "profile" => args.exactly("profile", &["MOUNTPOINT|LOGFILE"]).and_then(|()| {
            let ids = |name: &str| args.text(name).and_then(|id| id.parse().ok()).into_iter().collect();
            let options = profile::Options {
                uids: ids("uid"),
                gids: ids("gid"),
                pids: ids("pid"),
                interval: args.duration("interval", std::time::Duration::from_secs(2))?,
                count: args.int("count", 0),
                live: None,
            };
            profile::run(args.place(0), &options)
        }),
        "stats" => args.exactly("stats", &["MOUNTPOINT"]).and_then(|()| {
            let options = stats::Options {
                schema: args.text("schema").unwrap_or("ufmco").to_owned(),
                interval: args.duration("interval", std::time::Duration::from_secs(1))?,
                verbosity: args.int("verbosity", 0),
                count: args.int("count", 0),
                colour: None,
            };
            stats::run(args.place(0), options)
        }),
        _ => {
            println!("{}", version());
            Ok(())
        }
    })
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if daemon::is_daemon() {
                daemon::failed(&e.text);
            }
            log::fatal(&e.text);
            e.die();
            ExitCode::from(e.code)
        }
    }
}

fn help() {
    println!("NAME:\n   ciderfs - a POSIX file system on object storage\n");
    println!("USAGE:\n   ciderfs COMMAND [options] ARGUMENTS\n\nCOMMANDS:");
    for (name, args, what) in COMMANDS {
        println!("   {:<32} {what}", format!("{name} {args}"));
    }
    println!("\nRun `ciderfs COMMAND --help` for the options of a command.");
}

fn command_help(command: &str) {
    let Some((name, args, what)) = COMMANDS.iter().find(|(n, _, _)| *n == command) else { return };
    println!("NAME:\n   ciderfs {name} - {what}\n\nUSAGE:\n   ciderfs {name} [options] {args}\n\nOPTIONS:");
    for f in flags::of(command) {
        let names: Vec<String> = [f.name]
            .iter()
            .chain(f.aliases)
            .map(|n| if n.len() > 1 { format!("--{n}") } else { format!("-{n}") })
            .collect();
        let note = match f.status {
            flags::Status::Missing(_) => " [not in this version]",
            flags::Status::NoOp(_) => " [no effect]",
            flags::Status::Only(..) => " [no other value in this version]",
            flags::Status::Ready => "",
        };
        let default = if f.default.is_empty() { String::new() } else { format!(" (default: {})", f.default) };
        println!("   {:<34} {}{default}{note}", names.join(", "), f.help);
    }
}
