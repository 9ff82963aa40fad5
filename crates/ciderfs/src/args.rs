//! Parsing: flags anywhere before `--`, one or two dashes, `--flag=value` or `--flag value` (`spec/cli.md` 2.1).
//!
//! Whatever names a place on this machine is resolved here, from the caller's directory: [`flags`] says which words do.
//! Commands get places of any bytes that mean the same wherever the process goes afterwards.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ciderfs_format::{Secret, shown_address};

use crate::failure::{Failure, Result};
use crate::flags::{self, Flag, Kind, Status};
use crate::{cache_dirs, places, values};

/// The value of a flag.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A text, number or switch.
    Text(String),
    /// An absolute place on this machine, or a path within the volume as it was written.
    Place(OsString),
    /// Cache directories.
    Dirs(Vec<cache_dirs::Entry>),
    /// A text, and the absolute directory that it means to a storage of files.
    Bucket(String, PathBuf),
    /// A text that nobody else may see.
    Secret(Secret),
}

/// An argument that is no flag.
#[derive(Clone)]
struct Word {
    given: OsString,
    /// The place that it names, absolute.
    place: OsString,
}

/// A parsed command line.
#[derive(Default)]
pub struct Args {
    /// The command.
    command: String,
    words: Vec<Word>,
    given: HashMap<&'static str, Value>,
    /// A flag whose secret was typed.
    typed_secret: Option<&'static str>,
    /// Boolean flags turned off in so many words.
    off: HashSet<&'static str>,
}

impl Args {
    /// Parses what follows the command's name.
    pub fn parse<S: AsRef<OsStr>>(command: &str, words: &[S]) -> Result<Self> {
        let mut out = Self { command: command.to_owned(), ..Self::default() };
        let mut positional = Vec::new();
        let mut words = words.iter().map(AsRef::as_ref);
        while let Some(word) = words.next() {
            if word == "--" {
                // No options follow.
                positional.extend(words);
                break;
            }
            let bytes = word.as_bytes();
            let Some(body) =
                bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).filter(|b| !b.is_empty())
            else {
                positional.push(word);
                continue;
            };
            let (name, value) = match body.iter().position(|b| *b == b'=') {
                Some(at) => (&body[..at], Some(OsStr::from_bytes(&body[at + 1..]))),
                None => (body, None),
            };
            let is_called = |n: &str| n.as_bytes() == name;
            let flag = flags::of(command)
                .find(|f| is_called(f.name) || f.aliases.iter().any(|a| is_called(a)))
                .ok_or_else(|| {
                    let word = OsStr::from_bytes(bytes.split(|b| *b == b'=').next().unwrap_or(bytes));
                    Failure::new(format!("unknown option: \"{}\"", shown_address(word)))
                })?;
            let value = match (flag.kind, value) {
                (Kind::Bool, None) => OsStr::new("true"),
                (_, Some(v)) => v,
                (_, None) => words
                    .next()
                    .ok_or_else(|| Failure::new(format!("flag needs an argument: --{}", flag.name)))?,
            };
            out.set(flag, value)?;
        }
        for (i, word) in positional.into_iter().enumerate() {
            let place = match flags::positional(command, i) {
                Kind::Source => places::source(word)?,
                // An inode instead.
                Kind::Path if out.is_on("inode") => text_of(word, || "an argument".into())?.into(),
                Kind::Path => places::absolute(word)?.into(),
                _ => text_of(word, || "an argument".into())?.into(),
            };
            out.words.push(Word { given: word.to_owned(), place });
        }
        Ok(out)
    }

    fn set(&mut self, flag: &'static Flag, value: &OsStr) -> Result<()> {
        let text = || text_of(value, || format!("the value of --{}", flag.name));
        let value = match flag.kind {
            Kind::Path if value.is_empty() => Value::Place(OsString::new()),
            Kind::Path => Value::Place(places::absolute(value)?.into()),
            Kind::Inside => Value::Place(value.to_owned()),
            Kind::Dirs => Value::Dirs(cache_dirs::parse(value)?),
            Kind::Bucket if value.is_empty() => Value::Text(String::new()),
            Kind::Bucket => Value::Bucket(text()?.into(), places::absolute(value)?),
            Kind::Secret => {
                if value != values::FROM_STDIN && !value.is_empty() {
                    self.typed_secret.get_or_insert(flag.name);
                }
                Value::Secret(values::secret(flag.name, value)?)
            }
            _ => Value::Text(text()?.into()),
        };
        if let Value::Text(value) = &value {
            check(flag, value)?;
            if value == "false" && flag.kind == Kind::Bool {
                self.given.remove(flag.name);
                self.off.insert(flag.name);
                return Ok(());
            }
        }
        self.off.remove(flag.name);
        match (flag.status, &value) {
            (Status::Missing(why), _) => {
                return Err(Failure::new(format!("--{} is not supported in this version: {why}", flag.name)));
            }
            (Status::Only(values, why), Value::Text(value)) if !values.contains(&value.as_str()) => {
                return Err(Failure::new(format!(
                    "--{}={value} is not supported in this version: {why}; use {}",
                    flag.name, values[0]
                )));
            }
            (Status::NoOp(why), _) => tracing::debug!("--{} has no effect: {why}", flag.name),
            (Status::Only(..) | Status::Ready, _) => {}
        }
        match (self.given.get_mut(flag.name), value) {
            // Mount options add up.
            (Some(Value::Text(list)), Value::Text(more)) if flag.name == "o" => {
                *list = format!("{list},{more}");
            }
            (_, value) => _ = self.given.insert(flag.name, value),
        }
        Ok(())
    }

    /// The command that these are the words of.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// The first flag whose secret stands in the command line.
    pub fn typed_secret(&self) -> Option<&'static str> {
        self.typed_secret
    }

    /// The addresses of metadata, as they were written.
    pub fn addresses(&self) -> impl Iterator<Item = &OsStr> {
        let is_address = |(i, _): &(usize, &Word)| flags::positional(&self.command, *i) == Kind::Source;
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
        for (name, value) in others.given.iter().filter(|(name, _)| !self.off.contains(*name)) {
            self.given.entry(name).or_insert_with(|| value.clone());
        }
        for name in &others.off {
            if !self.given.contains_key(name) {
                self.off.insert(name);
            }
        }
        self
    }

    /// All flags that were given, with their values; none for a switch that was turned off.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, Option<&Value>)> {
        let off = self.off.iter().map(|name| (*name, None));
        self.given.iter().map(|(name, value)| (*name, Some(value))).chain(off)
    }

    /// Was it given?
    pub fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The text given, if any.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.given.get(name) {
            Some(Value::Text(text) | Value::Bucket(text, _)) => Some(text),
            _ => None,
        }
    }

    /// The secret given, if any.
    pub fn secret(&self, name: &str) -> Option<&Secret> {
        match self.given.get(name) {
            Some(Value::Secret(secret)) => Some(secret),
            _ => None,
        }
    }

    /// The absolute place given, or the path within the volume.
    pub fn path(&self, name: &str) -> Option<&Path> {
        match self.given.get(name) {
            Some(Value::Place(place)) => Some(Path::new(place)),
            _ => None,
        }
    }

    /// The cache directories given.
    pub fn dirs(&self, name: &str) -> Option<&[cache_dirs::Entry]> {
        match self.given.get(name) {
            Some(Value::Dirs(dirs)) => Some(dirs),
            _ => None,
        }
    }

    /// The bucket given, and the directory that it means to a storage of files.
    pub fn bucket(&self) -> Option<(&str, &Path)> {
        match self.given.get("bucket") {
            Some(Value::Bucket(text, dir)) => Some((text, dir)),
            Some(Value::Text(text)) => Some((text, Path::new(text))),
            _ => None,
        }
    }

    /// A boolean.
    pub fn is_on(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// A boolean that was turned off, for what is on by default.
    pub fn is_off(&self, name: &str) -> bool {
        self.off.contains(name)
    }

    /// A boolean that may stay as it is: `None` if it was not given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        if self.is_on(name) { Some(true) } else { self.off.contains(name).then_some(false) }
    }

    /// A whole number, or its default.
    pub fn int(&self, name: &str, default: u64) -> u64 {
        self.text(name).and_then(|t| t.parse().ok()).unwrap_or(default)
    }

    /// A fraction of a whole, or its default.
    pub fn share(&self, name: &str, default: f32) -> f32 {
        self.text(name).and_then(|t| t.parse().ok()).unwrap_or(default)
    }

    /// Bytes, or the default.
    pub fn size(&self, name: &str, default: u64) -> Result<u64> {
        match (self.text(name), kind(name)) {
            (Some(text), Some(Kind::Size(unit, from, to))) => values::size(name, text, unit, (from, to)),
            _ => Ok(default),
        }
    }

    /// A duration, or its default.
    pub fn duration(&self, name: &str, default: Duration) -> Result<Duration> {
        match (self.text(name), kind(name)) {
            (Some(text), Some(Kind::Duration(from, to))) => values::duration(name, text, (from, to)),
            _ => Ok(default),
        }
    }

    /// Exactly the positional arguments that a command needs.
    pub fn exactly(&self, command: &str, names: &[&str]) -> Result<()> {
        let n = names.len();
        let usage = format!("USAGE: ciderfs {command} [options] {}", names.join(" "));
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

/// What a flag takes.
fn kind(name: &str) -> Option<Kind> {
    flags::FLAGS.iter().find(|f| f.name == name).map(|f| f.kind)
}

/// What the words are is nobody's business but the commands'.
impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags: Vec<_> = self.settings().map(|(name, _)| name).collect();
        write!(f, "{} with {} arguments and {flags:?}", self.command, self.count())
    }
}

/// What must be a text, as text.
fn text_of(word: &OsStr, what: impl FnOnce() -> String) -> Result<&str> {
    word.to_str().ok_or_else(|| {
        Failure::new(format!(
            "{} is not UTF-8, which only names of places may be: {}",
            what(),
            shown_address(word)
        ))
    })
}

/// Is the value one that the flag takes?
fn check(flag: &Flag, value: &str) -> Result<()> {
    match flag.kind {
        Kind::Bool if !matches!(value, "true" | "false") => {
            Err(Failure::new(format!("invalid value {value:?} for flag --{}: use true or false", flag.name)))
        }
        Kind::Int(from, to) => values::int(flag.name, value, (from, to)).map(|_| ()),
        Kind::Share => values::share(flag.name, value).map(|_| ()),
        Kind::Address => values::address(flag.name, value),
        Kind::Size(unit, from, to) => values::size(flag.name, value, unit, (from, to)).map(|_| ()),
        Kind::Duration(from, to) => values::duration(flag.name, value, (from, to)).map(|_| ()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: &str, line: &str) -> Result<Args> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Args::parse(command, &words)
    }

    #[test]
    fn flags_stand_anywhere_with_one_or_two_dashes() {
        let a = parse("format", "--storage=s3 META -trash-days 3 NAME --hash-prefix").unwrap();
        assert_eq!((a.count(), a.word(0), a.word(1)), (2, "META", "NAME"));
        assert_eq!(
            (a.text("storage"), a.int("trash-days", 1), a.is_on("hash-prefix")),
            (Some("s3"), 3, true)
        );
        assert!(!parse("format", "--hash-prefix=false META NAME").unwrap().is_on("hash-prefix"));
        assert_eq!(parse("mount", "-o ro -o allow_other M P").unwrap().text("o"), Some("ro,allow_other"));
    }

    #[test]
    fn unknown_refused_and_malformed_flags_fail() {
        assert_eq!(parse("format", "--x=1 A B").unwrap_err().text, "unknown option: \"--x\"");
        assert!(parse("mount", "--writeback A B").unwrap_err().text.contains("not supported"));
        assert!(parse("mount", "--writeback=false A B").is_ok());
        assert!(parse("format", "--trash-days many A B").is_err());
        assert!(parse("format", "--trash-days").is_err());
        assert!(parse("format", "-abc A B").is_err());
        assert!(parse("mount", "--cache-size=10X A B").is_err());
    }

    #[test]
    fn what_names_a_place_is_resolved_and_keeps_its_bytes() {
        let here = std::env::current_dir().unwrap();
        let odd = OsStr::from_bytes(b"m\xff\n \\");
        let words = [
            OsStr::new("sqlite3://v.db"),
            odd,
            OsStr::from_bytes(b"--log=l\xfe"),
            OsStr::new("--cache-dir"),
            OsStr::from_bytes(b"c\xfd"),
            OsStr::from_bytes(b"--subdir=a/\xfc"),
            OsStr::new("--bucket=o"),
        ];
        let a = Args::parse("mount", &words).unwrap();
        assert_eq!(a.place(0).as_os_str(), OsStr::new(&format!("sqlite3://{}/v.db", here.display())));
        assert_eq!(a.place(1), here.join(odd));
        assert_eq!(a.path("log"), Some(&*here.join(OsStr::from_bytes(b"l\xfe"))));
        let cache = cache_dirs::Entry::Dir(here.join(OsStr::from_bytes(b"c\xfd")));
        assert_eq!(a.dirs("cache-dir"), Some(&[cache][..]));
        assert_eq!(a.path("subdir"), Some(Path::new(OsStr::from_bytes(b"a/\xfc"))));
        assert_eq!(a.bucket(), Some(("o", &*here.join("o"))));
        let info = Args::parse("info", &["a", "/b", "--raw"]).unwrap();
        assert_eq!((info.place(0), info.place(1)), (&*here.join("a"), Path::new("/b")));
        let info = Args::parse("info", &["12", "-i"]).unwrap();
        assert_eq!(info.place(0), Path::new("12"));
        for (command, words) in [
            ("format", [OsStr::new("redis://h/1"), OsStr::from_bytes(b"v\xff")]),
            ("mount", [OsStr::from_bytes(b"--metrics=\xff"), OsStr::new("m")]),
        ] {
            let text = Args::parse(command, &words).unwrap_err().text;
            assert!(text.contains("not UTF-8") && text.contains("\\377"), "{text}");
        }
    }

    /// Values at the ends of a range, and values beyond them.
    fn ends(kind: Kind) -> Option<(Vec<String>, Vec<String>)> {
        let text = |list: &[&str]| list.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        // What no number is, or none that fits anywhere.
        let mut bad = text(&[
            "-1",
            "-0",
            "nan",
            "NaN",
            "inf",
            "-inf",
            "infinity",
            "1e400",
            "0x10",
            "1_000",
            "1,5",
            " 1",
            "1 ",
            "١",
            "--",
            "",
            "99999999999999999999",
            "340282366920938463463374607431768211456",
            "1.2.3",
        ]);
        let good = match kind {
            Kind::Int(from, to) => {
                bad.extend(text(&["1.5", "1M", "+1"]));
                bad.extend(from.checked_sub(1).map(|n| n.to_string()));
                bad.extend(to.checked_add(1).map(|n| n.to_string()));
                vec![from.to_string(), to.to_string()]
            }
            Kind::Share => {
                bad.extend(text(&["1.01", "2", "1.00000001"]));
                text(&["0", "0.25", "1"])
            }
            Kind::Size(_, from, to) => {
                bad.extend(text(&["16E", "8E", "18446744073709551616B", "18014398509481984K", "1X", "M"]));
                bad.extend(from.checked_sub(1).map(|n| format!("{n}B")));
                bad.push(format!("{}B", to + 1));
                vec![format!("{from}B"), format!("{to}B")]
            }
            Kind::Duration(from, to) => {
                bad.extend(text(&["1y", "-1s", "1e3", "99999999999999999999h"]));
                bad.push(format!("{}s", to + 1));
                bad.extend((from > 0).then(|| format!("{}ms", from * 1000 - 1)));
                vec![from.to_string(), format!("{to}s")]
            }
            Kind::Address => {
                bad = text(&["127.0.0.1", ":", "h:-1", "h:65536", "h:99999999999999999999", "h:1x"]);
                text(&["", "127.0.0.1:0", "[::1]:65535"])
            }
            Kind::Bool
            | Kind::Text
            | Kind::Secret
            | Kind::Path
            | Kind::Inside
            | Kind::Dirs
            | Kind::Bucket
            | Kind::Source => return None,
        };
        Some((good, bad))
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused_with_flag_value_and_range() {
        let mut numbers = 0;
        for flag in flags::FLAGS {
            let Some((good, bad)) = ends(flag.kind) else { continue };
            numbers += 1;
            let command = if flag.commands.contains(&"*") { "mount" } else { flag.commands[0] };
            for value in good {
                let result = Args::parse(command, &[format!("--{}={value}", flag.name)]);
                let not_there = matches!(flag.status, Status::Missing(_) | Status::Only(..));
                let told = result.map_err(|e| e.text);
                let refused_so = told.as_ref().is_err_and(|t| t.contains("not supported"));
                assert!(told.is_ok() || (not_there && refused_so), "--{}={value}: {told:?}", flag.name);
            }
            let mut names = vec![format!("--{}", flag.name)];
            names.extend(flag.aliases.iter().map(|a| format!("-{a}")));
            for value in bad {
                for words in
                    names.iter().flat_map(|n| [vec![format!("{n}={value}")], vec![n.clone(), value.clone()]])
                {
                    let text = Args::parse(command, &words).unwrap_err().text;
                    let named =
                        text.contains(&format!("--{}: ", flag.name)) && text.contains(&format!("{value:?}"));
                    assert!(named && text.contains("use ") && text.contains(" to "), "{words:?}: {text}");
                }
            }
        }
        assert!(numbers > 40, "{numbers}");
    }

    #[test]
    fn defaults_of_the_table_are_in_their_ranges() {
        for flag in flags::FLAGS.iter().filter(|f| !f.default.is_empty()) {
            assert!(check(flag, flag.default).is_ok(), "--{}", flag.name);
        }
    }

    #[test]
    fn a_name_means_the_same_to_every_command() {
        for flag in flags::FLAGS {
            assert_eq!(kind(flag.name), Some(flag.kind), "--{}", flag.name);
        }
    }

    #[test]
    fn two_dashes_end_the_options_of_every_command() {
        for command in ["up", "format", "config", "mount", "umount", "status", "quota", "info", "version"] {
            for flag in flags::of(command).filter(|f| f.status == Status::Ready) {
                let name = format!("--{}", flag.name);
                let a = Args::parse(command, &["--quiet", "a", "--", &name, "-x", "--", "b"]).unwrap();
                let given: Vec<_> = (0..a.count()).map(|i| a.given(i).to_str().unwrap()).collect();
                assert_eq!(given, ["a", &name, "-x", "--", "b"], "{command}");
                assert!(a.is_on("quiet") && (flag.name == "quiet" || !a.has(flag.name)), "{command} {name}");
            }
        }
        let a = parse("mount", "-- M -P").unwrap();
        assert!(a.place(1).ends_with("-P"));
    }

    #[test]
    fn every_flag_has_a_unique_name_per_command() {
        for command in ["format", "config", "mount", "up", "umount", "status"] {
            let mut names: Vec<&str> = flags::of(command)
                .flat_map(|f| [f.name].into_iter().chain(f.aliases.iter().copied()))
                .collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all, "{command}");
        }
    }
}
