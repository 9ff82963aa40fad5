//! The commands, one file each.

mod config;
mod format;
mod info;
mod mount;
mod quota;
mod status;
mod table;
mod umount;
mod up;

use std::process::ExitCode;

use crate::args::Args;
use crate::failure::{EXIT_UNKNOWN_COMMAND, Failure, Result};
use crate::{daemon, flags, log};

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
    ("version", "", "show the version"),
];

/// The version with the compatible base first, as scripts that parse the official client's expect it.
fn version() -> String {
    format!("ciderfs version {}", ciderfs_format::version::presented_version(env!("CARGO_PKG_VERSION")))
}

/// Runs the command line.
pub fn run(argv: &[String]) -> ExitCode {
    let argv = match translate(argv) {
        Ok(argv) => argv,
        Err(e) => return finish(Err(e)),
    };
    let words = &argv[1..];
    // Global flags may stand before the command, which is the first other word.
    let at = words.iter().position(|w| !w.starts_with('-'));
    let Some(at) = at.filter(|&at| COMMANDS.iter().any(|(name, _, _)| *name == words[at])) else {
        return match words.iter().find(|w| !w.starts_with('-')) {
            Some(word) => {
                eprintln!("No help topic for '{word}'");
                ExitCode::from(EXIT_UNKNOWN_COMMAND)
            }
            None if words.iter().any(|w| matches!(w.trim_start_matches('-'), "version" | "V")) => {
                println!("{}", version());
                ExitCode::SUCCESS
            }
            None => {
                help();
                ExitCode::SUCCESS
            }
        };
    };
    let command = words[at].as_str();
    let rest: Vec<String> = [&words[..at], &words[at + 1..]].concat();
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
    finish(match command {
        "up" => up::run(&args),
        "format" => format::run(&args),
        "config" => config::run(&args),
        "mount" => mount::run(&args, &argv),
        "umount" => umount::run(&args),
        "quota" => quota::run(&args),
        "status" => status::run(&args),
        "info" => info::run(&args),
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
            ExitCode::from(e.code)
        }
    }
}

/// Called as `mount.juicefs` or `mount.ciderfs`, the arguments are those of a mount helper (`spec/cli.md` 5.8).
fn translate(argv: &[String]) -> Result<Vec<String>> {
    let name = argv.first().map(|a| a.rsplit('/').next().unwrap_or(a)).unwrap_or_default();
    let helper =
        matches!(name, "mount.juicefs" | "mount.ciderfs") || std::env::var_os("CALL_VIA_MOUNT").is_some();
    if !helper || argv.get(1).is_some_and(|w| w == "mount") {
        return Ok(if argv.is_empty() { vec!["ciderfs".into()] } else { argv.to_vec() });
    }
    if argv.len() < 3 {
        return Err(Failure::new("usage: mount.ciderfs META-URL MOUNTPOINT [-o options]"));
    }
    let mut out = vec![argv[0].clone(), "mount".into(), argv[1].clone(), argv[2].clone()];
    if std::env::var_os("JFS_FOREGROUND").is_none() {
        out.push("-d".into());
    }
    let mut words = argv[3..].iter();
    let mut fuse: Vec<&str> = Vec::new();
    while let Some(word) = words.next() {
        if word != "-o" {
            continue;
        }
        let list = words.next().map(String::as_str).unwrap_or_default();
        for option in list.split(',') {
            let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
            let name = match name {
                "attrcacheto" => "attr-cache",
                "entrycacheto" => "entry-cache",
                "direntrycacheto" => "dir-entry-cache",
                other => other,
            };
            match name {
                "" | "_netdev" | "nofail" | "rw" | "defaults" | "remount" | "background" => {}
                _ if name.len() > 1 && flags::of("mount").any(|f| f.name == name) => out.push(match value {
                    Some(v) => format!("--{name}={v}"),
                    None => format!("--{name}"),
                }),
                _ => fuse.push(option),
            }
        }
    }
    if !fuse.is_empty() {
        out.extend(["-o".to_owned(), fuse.join(",")]);
    }
    Ok(out)
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
