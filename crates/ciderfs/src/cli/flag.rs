//! What a flag is, and what its value is.

use std::ffi::{OsStr, OsString};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciderfs_format::{Secret, shown_address};

use super::command::Command;
use super::{cache_dirs, places, values};
use crate::failure::{Failure, Result};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// A text.
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A whole number, from and to.
    Number(u64, u64),
    /// An octal number up to this.
    Octal(u32),
    /// A fraction of a whole, from 0 to 1.
    Share,
    /// Bytes, from and to; the letter is the unit of a bare number.
    Bytes(char, u64, u64),
    /// Megabits in a second.
    Rate,
    /// `HOST:PORT`, or nothing.
    Address,
    /// A duration in seconds, from and to; a bare number is seconds.
    Time(u64, u64),
    /// A place on this machine.
    Place,
    /// A path within the volume, in any bytes.
    Inside,
    /// A list of cache directories.
    Dirs,
    /// A bucket, or a directory where objects are files.
    Bucket,
    /// A text that nobody else may see.
    Secret,
}

/// Is a flag there?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Ready,
    /// Accepted and without effect, for the given reason.
    NoOp(&'static str),
    /// Only these values are there, which change nothing; others are refused for the given reason.
    Only(&'static [&'static str], &'static str),
    /// Refused; the text says why or what to do.
    Missing(&'static str),
}

/// A row of the table.
#[derive(Debug)]
pub struct Row {
    /// Name without dashes.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// Value.
    pub kind: Kind,
    /// Default as shown in help; what is taken where the flag is not given.
    pub default: &'static str,
    /// Title of the group in help.
    pub group: &'static str,
    /// Commands that take it.
    pub commands: &'static [Command],
    /// Is it there?
    pub status: Status,
    /// One line of help.
    pub help: &'static str,
    /// The variable of the environment that is taken where the flag is not given.
    pub env: Option<&'static str>,
    /// The name of the flag whose value is a file that the value is in; there is a credential of the row's name then, too.
    pub file: Option<&'static str>,
}

impl Row {
    /// All names, with their dashes.
    pub fn names(&self) -> impl Iterator<Item = String> {
        [self.name].into_iter().chain(self.aliases.iter().copied()).map(dashed)
    }

    /// What help calls the value; nothing for a switch.
    pub fn value_name(&self) -> &'static str {
        match self.kind {
            Kind::Switch => "",
            Kind::Text | Kind::Choice(_) => "VALUE",
            Kind::Number(..) => "N",
            Kind::Octal(_) => "MODE",
            Kind::Share => "RATIO",
            Kind::Bytes(..) => "SIZE",
            Kind::Rate => "MBPS",
            Kind::Address => "HOST:PORT",
            Kind::Time(..) => "TIME",
            Kind::Place => "FILE",
            Kind::Inside => "PATH",
            Kind::Dirs => "DIRS",
            Kind::Bucket => "BUCKET",
            Kind::Secret => "SECRET",
        }
    }

    /// Parses a value. What names a place on this machine is resolved from the working directory.
    pub fn parse(&self, word: &OsStr) -> Result<Value> {
        let text = || text_of(word, || format!("the value of --{}", self.name));
        let name = self.name;
        Ok(match self.kind {
            Kind::Switch => Value::Switch(values::switch(name, text()?)?),
            Kind::Text => Value::Text(text()?.into()),
            Kind::Choice(choices) => Value::Text(values::choice(name, text()?, choices)?.into()),
            Kind::Number(from, to) => Value::Number(values::int(name, text()?, (from, to))?),
            Kind::Octal(to) => Value::Number(values::octal(name, text()?, to)?.into()),
            Kind::Share => Value::Share(values::share(name, text()?)?),
            Kind::Bytes(unit, from, to) => Value::Number(values::size(name, text()?, unit, (from, to))?),
            Kind::Rate => Value::Number(values::rate(name, text()?)?),
            Kind::Address => {
                values::address(name, text()?)?;
                Value::Text(text()?.into())
            }
            Kind::Time(from, to) => Value::Time(values::duration(name, text()?, (from, to))?),
            Kind::Place if word.is_empty() => Value::Place(OsString::new()),
            Kind::Place => Value::Place(places::absolute(word)?.into()),
            Kind::Inside => Value::Place(word.to_owned()),
            Kind::Dirs => Value::Dirs(cache_dirs::parse(word)?),
            Kind::Bucket if word.is_empty() => Value::Bucket(String::new(), PathBuf::new()),
            Kind::Bucket => Value::Bucket(text()?.into(), places::absolute(word)?),
            Kind::Secret => Value::Secret(values::secret(name, word)?),
        })
    }
}

/// A name as it is given: two dashes before all but a single letter.
fn dashed(name: &str) -> String {
    if name.len() > 1 { format!("--{name}") } else { format!("-{name}") }
}

/// The value of a flag.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// On or off.
    Switch(bool),
    /// A text.
    Text(String),
    /// A number, bytes, a mode, or megabits in a second.
    Number(u64),
    /// A fraction.
    Share(f32),
    /// A duration.
    Time(Duration),
    /// An absolute place on this machine, or a path within the volume as it was written.
    Place(OsString),
    /// Cache directories.
    Dirs(Vec<cache_dirs::Entry>),
    /// A text, and the absolute directory that it means to a storage of files.
    Bucket(String, PathBuf),
    /// A text that nobody else may see.
    Secret(Secret),
}

/// A flag, and what type its value has.
pub struct Flag<T> {
    /// Its row.
    pub row: &'static Row,
    value: PhantomData<T>,
}

impl<T> Clone for Flag<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Flag<T> {}

impl<T> Flag<T> {
    /// The flag of a row.
    pub const fn new(row: &'static Row) -> Self {
        Self { row, value: PhantomData }
    }

    /// Its name without dashes.
    pub const fn name(self) -> &'static str {
        self.row.name
    }

    /// `--NAME=VALUE`, for a command line of our own.
    pub fn with(self, value: impl AsRef<OsStr>) -> OsString {
        let mut word = OsString::from(format!("--{}=", self.row.name));
        word.push(value);
        word
    }
}

/// The type of a value, by what the flag takes.
pub trait Take {
    /// What a command gets.
    type Out<'a>;

    /// The value that was given.
    fn take(value: &Value) -> Option<Self::Out<'_>>;
}

/// A value that is there also where none was given: the default of the row.
pub trait Preset: Take {
    /// The default.
    fn preset(row: &Row) -> Self::Out<'_>;
}

/// One type for each [`Kind`], of the same name.
#[allow(missing_docs, reason = "named like the kinds, which say what they are")]
pub mod kinds {
    pub struct Switch;
    pub struct Text;
    pub struct Choice;
    pub struct Number;
    pub struct Octal;
    pub struct Share;
    pub struct Bytes;
    pub struct Rate;
    pub struct Address;
    pub struct Time;
    pub struct Place;
    pub struct Inside;
    pub struct Dirs;
    pub struct Bucket;
    pub struct Secret;
}

/// The value of a default; a test parses all of them.
fn default_of(row: &Row) -> Option<Value> {
    row.parse(OsStr::new(row.default)).ok()
}

macro_rules! takes {
    ($($kind:ident => $variant:ident: $out:ty, $none:expr;)+) => {$(
        impl Take for kinds::$kind {
            type Out<'a> = $out;

            fn take(value: &Value) -> Option<$out> {
                match value {
                    Value::$variant(value) => Some(*value),
                    _ => None,
                }
            }
        }

        impl Preset for kinds::$kind {
            fn preset(row: &Row) -> $out {
                default_of(row).and_then(|value| Self::take(&value)).unwrap_or($none)
            }
        }
    )+};
}

takes! {
    Switch => Switch: bool, false;
    Number => Number: u64, 0;
    Octal => Number: u64, 0;
    Bytes => Number: u64, 0;
    Rate => Number: u64, 0;
    Share => Share: f32, 0.0;
    Time => Time: Duration, Duration::ZERO;
}

macro_rules! takes_text {
    ($($kind:ident)+) => {$(
        impl Take for kinds::$kind {
            type Out<'a> = &'a str;

            fn take(value: &Value) -> Option<&str> {
                match value {
                    Value::Text(text) => Some(text),
                    _ => None,
                }
            }
        }

        impl Preset for kinds::$kind {
            fn preset(row: &Row) -> &str {
                row.default
            }
        }
    )+};
}

takes_text! { Text Choice Address }

macro_rules! takes_place {
    ($($kind:ident)+) => {$(
        impl Take for kinds::$kind {
            type Out<'a> = &'a Path;

            fn take(value: &Value) -> Option<&Path> {
                match value {
                    Value::Place(place) => Some(Path::new(place)),
                    _ => None,
                }
            }
        }
    )+};
}

takes_place! { Place Inside }

impl Take for kinds::Dirs {
    type Out<'a> = &'a [cache_dirs::Entry];

    fn take(value: &Value) -> Option<&[cache_dirs::Entry]> {
        match value {
            Value::Dirs(dirs) => Some(dirs),
            _ => None,
        }
    }
}

impl Take for kinds::Bucket {
    /// The text, and the directory that it means to a storage of files.
    type Out<'a> = (&'a str, &'a Path);

    fn take(value: &Value) -> Option<(&str, &Path)> {
        match value {
            Value::Bucket(text, dir) => Some((text, dir)),
            _ => None,
        }
    }
}

impl Take for kinds::Secret {
    type Out<'a> = &'a Secret;

    fn take(value: &Value) -> Option<&Secret> {
        match value {
            Value::Secret(secret) => Some(secret),
            _ => None,
        }
    }
}

/// What must be a text, as text.
pub fn text_of(word: &OsStr, what: impl FnOnce() -> String) -> Result<&str> {
    word.to_str().ok_or_else(|| {
        Failure::new(format!(
            "{} is not UTF-8, which only names of places may be: {}",
            what(),
            shown_address(word)
        ))
    })
}
