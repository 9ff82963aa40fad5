//! `--help`: what there is, by purpose, no wider than a terminal.

use std::fmt::Write as _;

use super::command::{Command, GROUPS};
use super::flag::{Row, Status};
use super::table;

/// Columns of a terminal that everybody has.
const WIDTH: usize = 80;
/// Where descriptions begin.
const COLUMN: usize = 34;

/// What the program does, in one line.
pub const SUMMARY: &str = "a POSIX file system on object storage";

/// Help of the program.
pub fn program() -> String {
    let mut out = format!(
        "NAME:\n   ciderfs - {SUMMARY}\n\nUSAGE:\n   ciderfs COMMAND [options] ARGUMENTS\n\nCOMMANDS:\n"
    );
    for (title, commands) in GROUPS {
        let _ = writeln!(out, "   {title}:");
        for command in *commands {
            let about = command.about();
            line(&mut out, 5, &format!("{} {}", about.name, about.arguments), about.help);
        }
    }
    out.push_str("\nRun `ciderfs COMMAND --help` for the options of a command.\n");
    out
}

/// Help of a command.
pub fn command(command: Command) -> String {
    let about = command.about();
    let mut out = format!(
        "NAME:\n   ciderfs {} - {}\n\nUSAGE:\n   ciderfs {} [options] {}\n",
        about.name, about.help, about.name, about.arguments
    );
    for (group, rows) in groups(command) {
        let _ = writeln!(out, "\n{}:", group.to_uppercase());
        for row in rows {
            line(&mut out, 3, &usage(row), &description(row));
        }
    }
    out
}

/// The rows of a command by groups: those of every command come last.
pub fn groups(command: Command) -> Vec<(&'static str, Vec<&'static Row>)> {
    let mut groups: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in table::of(command) {
        match groups.iter_mut().find(|(group, _)| *group == row.group) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((row.group, vec![row])),
        }
    }
    let first = groups.len().min(1);
    groups.rotate_left(first);
    groups
}

/// Names of a flag and of its value.
pub fn usage(row: &Row) -> String {
    let names: Vec<String> = row.names().collect();
    format!("{} {}", names.join(", "), row.value_name()).trim_end().to_owned()
}

/// What a flag does, its default, where else its value may come from, and whether it is there.
pub fn description(row: &Row) -> String {
    let mut out = row.help.to_owned();
    if let super::flag::Kind::Choice(choices) = row.kind {
        let _ = write!(out, ": {}", choices.join(", "));
    }
    if !row.default.is_empty() {
        let _ = write!(out, " (default: {})", row.default);
    }
    match (row.env, row.file) {
        (Some(env), Some(file)) => {
            _ = write!(out, " (also --{file} FILE, variable {env}, or credential {})", row.name)
        }
        (Some(env), None) => _ = write!(out, " (also variable {env})"),
        (None, _) => {}
    }
    match row.status {
        Status::Ready => {}
        Status::NoOp(why) => _ = write!(out, " [no effect: {why}]"),
        Status::Only(values, why) => _ = write!(out, " [only {}: {why}]", values[0]),
        Status::Missing(why) => _ = write!(out, " [refused: {why}]"),
    }
    out
}

/// A name, and what it means beside it, wrapped.
fn line(out: &mut String, indent: usize, name: &str, text: &str) {
    let head = format!("{:indent$}{name}", "");
    if head.len() + 2 > COLUMN {
        let _ = writeln!(out, "{head}");
        let _ = write!(out, "{:COLUMN$}", "");
    } else {
        let _ = write!(out, "{head:COLUMN$}");
    }
    let mut at = COLUMN;
    for word in text.split_whitespace() {
        if at > COLUMN && at + 1 + word.len() > WIDTH {
            let _ = write!(out, "\n{:COLUMN$}", "");
            at = COLUMN;
        }
        if at > COLUMN {
            out.push(' ');
            at += 1;
        }
        out.push_str(word);
        at += word.len();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::command::EVERY;
    use super::*;

    #[test]
    fn help_fits_a_terminal_and_has_every_flag() {
        for command in EVERY {
            let text = super::command(*command);
            for row in table::of(*command) {
                assert!(text.contains(&usage(row)), "{}", row.name);
            }
            let long = text.lines().find(|line| line.len() > WIDTH && !line.trim_start().starts_with('-'));
            assert_eq!(long, None, "{command:?}");
        }
        assert!(program().lines().all(|line| line.len() <= WIDTH));
    }
}
