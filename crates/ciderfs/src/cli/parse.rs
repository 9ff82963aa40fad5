//! Parsing: flags anywhere before `--`, one or two dashes, `--FLAG=VALUE` or `--FLAG VALUE` (`docs/semantics.md#command-line`).
//!
//! Whatever names a place on this machine is resolved here, from the caller's directory: the tables of commands and flags say
//! which words do. Commands get places of any bytes that mean the same wherever the process goes afterwards.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use ciderfs_format::shown_address;

use super::args::{Args, Argument, Given};
use super::command::{Command, EVERY, Word};
use super::flag::{Kind, Row, Status, Value, text_of};
use super::secrets::{self, Origin};
use super::{cache_dirs, nearest, places, table, values};
use crate::failure::{Failure, Result};

impl Args {
    /// Parses what follows the command's name, and looks where else values may come from.
    pub fn parse<S: AsRef<OsStr>>(command: Command, words: &[S]) -> Result<Self> {
        let mut args = Self::of_words(command, words)?;
        secrets::fill_in(&mut args)?;
        Ok(args)
    }

    /// Parses what follows the command's name, and nothing else.
    pub fn of_words<S: AsRef<OsStr>>(command: Command, words: &[S]) -> Result<Self> {
        let mut out = Self { command, words: Vec::new(), given: BTreeMap::new() };
        let mut positional = Vec::new();
        let mut words = words.iter().map(AsRef::as_ref);
        while let Some(word) = words.next() {
            if word == "--" {
                // No options follow.
                positional.extend(words);
                break;
            }
            let Some((name, value)) = split(word) else {
                positional.push(word);
                continue;
            };
            let (row, from_file) = find(command, name).ok_or_else(|| unknown(command, word))?;
            let value = match (row.kind, value) {
                (Kind::Switch, None) => OsStr::new("true"),
                (_, Some(v)) => v,
                (_, None) => words.next().ok_or_else(|| {
                    Failure::new(format!(
                        "flag needs an argument: --{}{}",
                        row.name,
                        if from_file { "-file" } else { "" }
                    ))
                })?,
            };
            if from_file {
                let file = places::absolute(value)?;
                out.set(row, secrets::from_file(row, &file)?, String::new(), Origin::File(file))?;
            } else {
                let hidden = row.kind != Kind::Secret || value == values::FROM_STDIN || value.is_empty();
                let origin = if hidden { Origin::Word } else { Origin::Typed };
                // Of places the bytes count.
                let text = if row.kind == Kind::Secret { "".into() } else { value.to_string_lossy() };
                out.set(row, row.parse(value)?, text.into_owned(), origin)?;
            }
        }
        for (i, word) in positional.into_iter().enumerate() {
            let place = match command.word(i) {
                Word::Source => places::source(word)?,
                // An inode instead.
                Word::Place if out.get(table::INODE) => text_of(word, || "an argument".into())?.into(),
                Word::Place => places::absolute(word)?.into(),
                Word::Text | Word::Choice(_) => text_of(word, || "an argument".into())?.into(),
            };
            out.words.push(Argument { given: word.to_owned(), place });
        }
        Ok(out)
    }

    fn set(&mut self, row: &'static Row, value: Value, text: String, origin: Origin) -> Result<()> {
        match (row.status, &value) {
            // What is off, or was never on, needs nothing.
            (_, Value::Switch(false)) | (Status::Ready, _) => {}
            (Status::Missing(why), _) => {
                return Err(Failure::new(format!("--{} is not supported in this version: {why}", row.name)));
            }
            (Status::Only(values, why), _) if !values.contains(&&*text) => {
                return Err(Failure::new(format!(
                    "--{}={text} is not supported in this version: {why}; use {}",
                    row.name, values[0]
                )));
            }
            (Status::NoOp(why), _) => tracing::debug!("--{} has no effect: {why}", row.name),
            (Status::Only(..), _) => {}
        }
        match (self.given.get_mut(row.name), value) {
            // Mount options add up.
            (Some(Given { value: Value::Text(list), .. }), Value::Text(more))
                if row.name == table::O.name() =>
            {
                *list = format!("{list},{more}");
            }
            (_, value) => _ = self.given.insert(row.name, Given { row, value, text, origin }),
        }
        Ok(())
    }
}

/// Name and value of a flag; `None` for what is none.
pub fn split(word: &OsStr) -> Option<(&[u8], Option<&OsStr>)> {
    let bytes = word.as_bytes();
    let body = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).filter(|b| !b.is_empty())?;
    Some(match body.iter().position(|b| *b == b'=') {
        Some(at) => (&body[..at], Some(OsStr::from_bytes(&body[at + 1..]))),
        None => (body, None),
    })
}

/// The value of a flag with the places in it as they are called from everywhere. A bucket may be no place: it is one for sure with a dot
/// in front.
pub fn from_everywhere(row: &Row, value: &OsStr) -> OsString {
    let is_place = match row.kind {
        Kind::Place => !value.is_empty(),
        Kind::Bucket => value.as_bytes().starts_with(b"./") || value.as_bytes().starts_with(b"../"),
        Kind::Dirs => return cache_dirs::from_everywhere(value),
        _ => false,
    };
    let place = is_place.then(|| places::absolute(value).ok()).flatten();
    place.map_or_else(|| value.to_owned(), Into::into)
}

/// The first word that is neither a flag nor the value of one.
pub fn first_argument(words: &[OsString]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        match split(word) {
            None => return Some(at),
            Some((name, None)) if EVERY.iter().any(|command| takes_a_word(*command, name)) => at += 2,
            Some(_) => at += 1,
        }
    }
    None
}

fn takes_a_word(command: Command, name: &[u8]) -> bool {
    find(command, name).is_some_and(|(row, from_file)| from_file || row.kind != Kind::Switch)
}

/// The row that a name means to a command, and whether the value is in a file that is named instead.
pub fn find(command: Command, name: &[u8]) -> Option<(&'static Row, bool)> {
    let is_called = |n: &str| n.as_bytes() == name;
    let of_name = |row: &&Row| is_called(row.name) || row.aliases.iter().any(|a| is_called(a));
    let of_file = |row: &&Row| row.file.is_some_and(is_called);
    table::of(command)
        .find(of_name)
        .map(|row| (row, false))
        .or_else(|| table::of(command).find(of_file).map(|row| (row, true)))
}

/// A flag that the command does not take, and the one that was perhaps meant.
fn unknown(command: Command, word: &OsStr) -> Failure {
    let name = word.as_bytes().split(|b| *b == b'=').next().unwrap_or_default();
    let text = format!("unknown option: \"{}\"", shown_address(OsStr::from_bytes(name)));
    let meant = std::str::from_utf8(name).ok().map(|name| name.trim_start_matches('-')).and_then(|name| {
        let files = table::of(command).filter_map(|row| row.file.map(str::to_owned));
        nearest::name(name, table::of(command).map(|row| row.name.to_owned()).chain(files))
    });
    match meant {
        Some(meant) => Failure::new(format!("{text}; did you mean --{meant}?")),
        None => Failure::new(text),
    }
}

#[cfg(test)]
#[path = "parse/tests.rs"]
mod tests;
