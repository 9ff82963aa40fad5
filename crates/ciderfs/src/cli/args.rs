//! A parsed command line: places on this machine are absolute, values are of the types of the table.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ciderfs_format::shown_address;

use super::command::{Command, Word};
use super::flag::{Flag, Preset, Row, Take, Value};
use super::secrets::Origin;
use crate::failure::{Failure, Result};

/// An argument that is no flag.
#[derive(Clone)]
pub(super) struct Argument {
    /// As it was written.
    pub(super) given: OsString,
    /// The place that it names, absolute.
    pub(super) place: OsString,
}

/// A value, and how it came.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) row: &'static Row,
    pub(super) value: Value,
    /// The text of the value; empty for a secret.
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// A parsed command line.
pub struct Args {
    pub(super) command: Command,
    pub(super) words: Vec<Argument>,
    pub(super) given: BTreeMap<&'static str, Given>,
}

impl Args {
    /// The command that these are the words of.
    pub fn command(&self) -> Command {
        self.command
    }

    /// The value of a flag, or its default.
    pub fn get<T: Preset>(&self, flag: Flag<T>) -> T::Out<'_> {
        self.find(flag).unwrap_or_else(|| T::preset(flag.row))
    }

    /// The value of a flag, if it was given.
    pub fn find<T: Take>(&self, flag: Flag<T>) -> Option<T::Out<'_>> {
        self.given.get(flag.row.name).and_then(|given| T::take(&given.value))
    }

    /// Was it given?
    pub fn has<T>(&self, flag: Flag<T>) -> bool {
        self.is_given(flag.row)
    }

    /// Was a flag of this row given?
    pub fn is_given(&self, row: &Row) -> bool {
        self.given.contains_key(row.name)
    }

    /// All flags that have a value, with its text (none of a secret) and where it came from.
    pub fn settings(&self) -> impl Iterator<Item = (&'static Row, &Value, &str, &Origin)> {
        self.given.values().map(|given| (given.row, &given.value, &*given.text, &given.origin))
    }

    /// The addresses of metadata, as they were written.
    pub fn addresses(&self) -> impl Iterator<Item = &OsStr> {
        let is_address = |(i, _): &(usize, &Argument)| self.command.word(*i) == Word::Source;
        self.words.iter().enumerate().filter(is_address).map(|(_, word)| &*word.given)
    }

    /// The number of arguments that are no flags.
    pub fn count(&self) -> usize {
        self.words.len()
    }

    /// An argument as it was written; empty if there is none.
    pub fn given(&self, i: usize) -> &OsStr {
        self.words.get(i).map_or(OsStr::new(""), |w| &w.given)
    }

    /// Does an argument look like an address?
    pub fn is_address(&self, i: usize) -> bool {
        self.given(i).as_bytes().windows(3).any(|w| w == b"://")
    }

    /// Refuses an address where a place is wanted: it may hold a password, which must not be told with the place.
    pub fn refuse_address(&self, i: usize) -> Result<()> {
        if self.is_address(i) {
            return Err(Failure::new(format!("argument {} is an address: name a file or directory", i + 1)));
        }
        Ok(())
    }

    /// An argument that is a text; empty if there is none.
    pub fn word(&self, i: usize) -> &str {
        self.given(i).to_str().unwrap_or_default()
    }

    /// The absolute place, or the address of metadata with absolute places, that an argument names.
    pub fn place(&self, i: usize) -> &Path {
        Path::new(self.words.get(i).map_or(OsStr::new(""), |w| &w.place))
    }

    /// These arguments with the flags of others added that are not set here.
    pub fn merged(mut self, others: &Self) -> Self {
        for (name, given) in &others.given {
            self.given.entry(name).or_insert_with(|| given.clone());
        }
        self
    }

    /// Exactly the arguments that the command needs.
    pub fn exactly(&self) -> Result<()> {
        let about = self.command.about();
        let n = about.words.len();
        let usage = format!("USAGE: ciderfs {} [options] {}", about.name, about.arguments);
        if self.count() < n {
            return Err(Failure::new(format!(
                "ERROR: This command requires at least {n} arguments; {usage}"
            )));
        }
        if self.count() > n {
            let got: Vec<_> = self.words.iter().map(|w| shown_address(&w.given)).collect();
            let got = got.join(" ");
            return Err(Failure::new(format!(
                "ERROR: accept at most {n} arguments but got [{got}]; {usage}"
            )));
        }
        Ok(())
    }
}

/// What the words are is nobody's business but the commands'.
impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags: Vec<_> = self.given.keys().collect();
        write!(f, "{} with {} arguments and {flags:?}", self.command.name(), self.count())
    }
}
