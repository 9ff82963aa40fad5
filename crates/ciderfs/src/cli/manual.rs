//! The manual page, in roff (`man(7)`), and the reference of all commands, in Markdown, out of the tables.

use std::fmt::Write as _;

use super::command::{Command, GROUPS};
use super::flag::{Kind, Row};
use super::{help, table};

/// The manual page of the program.
pub fn page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!(".TH CIDERFS 8 \"\" \"ciderfs {version}\" \"CiderFS\"\n");
    let _ = writeln!(out, ".SH NAME\nciderfs \\- {}", roff(help::SUMMARY));
    out.push_str(".SH SYNOPSIS\n.B ciderfs\n.I COMMAND\n[\\fIoptions\\fR] \\fIARGUMENTS\\fR\n");
    out.push_str(
        ".SH DESCRIPTION\nData are in an object store, names and attributes in a metadata engine; volumes are those of JuiceFS.\n\
         Options stand anywhere, with one or two dashes; a value follows an equals sign or is the next word.\n.B \\-\\-\nends them.\n",
    );
    for (title, commands) in GROUPS {
        let _ = writeln!(out, ".SH {}", roff(&title.to_uppercase()));
        for command in *commands {
            let about = command.about();
            let usage = format!("{} {}", about.name, about.arguments);
            let _ = writeln!(out, ".SS {}\n{}.", roff(usage.trim()), roff(&sentence(about.help)));
            for (_, rows) in own_groups(*command) {
                rows.iter().for_each(|row| option(&mut out, row));
            }
        }
    }
    out.push_str(".SH OPTIONS OF EVERY COMMAND\n");
    every().for_each(|row| option(&mut out, row));
    out.push_str(".SH EXIT STATUS\n");
    for (code, what) in EXITS {
        let _ = writeln!(out, ".TP\n.B {code}\n{}.", roff(&sentence(what)));
    }
    out.push_str(".SH ENVIRONMENT\n");
    for (name, what) in variables() {
        let _ = writeln!(out, ".TP\n.B {}\n{}.", roff(&name), roff(&sentence(&what)));
    }
    out.push_str(".SH SEE ALSO\n.BR mount (8),\n.BR fusermount3 (1)\n");
    out
}

/// The reference of all commands.
pub fn reference() -> String {
    let mut out = String::from(
        "# Commands\n\n<!-- Made from the tables in crates/ciderfs/src/cli: cargo run -q -- man --markdown > docs/reference/commands.md -->\n\n\
         `ciderfs COMMAND [options] ARGUMENTS`. Options stand anywhere, with one or two dashes; a value follows `=` or is the next\n\
         word; `--` ends them. `ciderfs COMMAND --help` shows the same, `ciderfs man | man -l -` as a manual page.\n",
    );
    for (title, commands) in GROUPS {
        let _ = writeln!(out, "\n## {title}");
        for command in *commands {
            let about = command.about();
            let usage = format!("{} {}", about.name, about.arguments);
            let _ = writeln!(out, "\n### `{}`\n\n{}.", usage.trim(), sentence(about.help));
            for (group, rows) in own_groups(*command) {
                let _ = writeln!(out, "\n| {group} | |\n|---|---|");
                rows.iter().for_each(|row| table_row(&mut out, row));
            }
        }
    }
    out.push_str("\n## Options of every command\n\n| Option | |\n|---|---|\n");
    every().for_each(|row| table_row(&mut out, row));
    out.push_str("\n## Exit status\n\n| Status | |\n|---|---|\n");
    for (code, what) in EXITS {
        let _ = writeln!(out, "| {code} | {what} |");
    }
    out.push_str("\n## Environment\n\n| Variable | |\n|---|---|\n");
    for (name, what) in variables() {
        let _ = writeln!(out, "| `{name}` | {} |", cell(&what));
    }
    out
}

/// What a program may look at.
const EXITS: [(&str, &str); 8] = [
    ("0", "done"),
    ("1", "an error, told on standard error with what to do"),
    (
        "2",
        "format --if-absent: another volume is in the database or in the bucket; upgrade: nobody supervises a mount there (mount --supervised)",
    ),
    (
        "3",
        "no such command; format --if-absent: the database or the bucket does not answer, later it may; upgrade: the program cannot take \
         the mount over, nothing was changed",
    ),
    ("4", "upgrade: the new program did not get ready, and the old one serves again"),
    ("5", "upgrade: neither the new program nor the old one serves; the old one is tried further"),
    ("11", "a mount that must not be started again as it is"),
    ("128 and more", "ended by the signal with that number, less 128"),
];

/// Variables that are not the other form of a flag.
const VARIABLES: [(&str, &str); 6] = [
    ("META_PASSWORD_FILE", "a file with the password of the metadata engine"),
    ("REDIS_PASSWORD", "password of Redis; wins over META_PASSWORD"),
    ("SENTINEL_PASSWORD", "password of the sentinels of Redis"),
    ("JFS_NO_CHECK_OBJECT_STORAGE", "if set, format does not try the object store"),
    ("CREDENTIALS_DIRECTORY", "directory of credentials, set by systemd (LoadCredential=)"),
    ("RUST_LOG", "what is logged, by part of the program; wins over the flags"),
];

fn variables() -> Vec<(String, String)> {
    let of_flags = table::FLAGS.iter().filter_map(|row| Some((row.env?, row)));
    let mut out: Vec<_> = of_flags.map(|(env, row)| (env.to_owned(), format!("as --{}", row.name))).collect();
    out.extend(VARIABLES.map(|(name, what)| (name.to_owned(), what.to_owned())));
    out
}

/// The rows of a command without those of every command.
fn own_groups(command: Command) -> Vec<(&'static str, Vec<&'static Row>)> {
    let general = every().next().map_or("", |row| row.group);
    help::groups(command).into_iter().filter(|(group, _)| *group != general).collect()
}

/// The rows of every command.
fn every() -> impl Iterator<Item = &'static Row> {
    table::FLAGS.iter().copied().take_while(|row| row.group == table::FLAGS[0].group)
}

fn option(out: &mut String, row: &Row) {
    let names: Vec<String> = row.names().map(|name| format!("\\fB{}\\fR", roff(&name))).collect();
    let value = match row.kind {
        Kind::Switch => String::new(),
        _ => format!(" \\fI{}\\fR", roff(row.value_name())),
    };
    let _ = writeln!(out, ".TP\n{}{value}\n{}.", names.join(", "), roff(&sentence(&help::description(row))));
}

fn table_row(out: &mut String, row: &Row) {
    let _ =
        writeln!(out, "| `{}` | {} |", help::usage(row).replace('|', "\\|"), cell(&help::description(row)));
}

/// A text in a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*").replace('<', "&lt;")
}

/// A text that begins like a sentence, unless its first word is a name.
fn sentence(text: &str) -> String {
    let first = text.split_whitespace().next().unwrap_or_default();
    let is_name = first.contains(['_', '.', '-', '/']) || first.chars().any(char::is_uppercase);
    let mut chars = text.chars();
    match chars.next() {
        Some(c) if !is_name => c.to_uppercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// A text in roff: no character of it is a command.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\(rs").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}
