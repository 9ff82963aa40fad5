//! Parsing: flags anywhere, one or two dashes, `--flag=value` or `--flag value` (`spec/cli.md` 2.1).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::flags::{self, Flag, Kind, Status};
use crate::values;

/// A parsed command line.
#[derive(Debug, Default)]
pub struct Args {
    /// Positional arguments.
    pub positional: Vec<String>,
    given: HashMap<&'static str, String>,
    /// Boolean flags turned off in so many words.
    off: HashSet<&'static str>,
}

impl Args {
    /// Parses what follows the command's name.
    pub fn parse(command: &str, words: &[String]) -> Result<Self> {
        let mut out = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(body) =
                word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|b| !b.is_empty())
            else {
                out.positional.push(word.clone());
                continue;
            };
            let (name, value) = match body.split_once('=') {
                Some((n, v)) => (n, Some(v.to_owned())),
                None => (body, None),
            };
            let flag = flags::of(command).find(|f| f.name == name || f.aliases.contains(&name)).ok_or_else(
                || Failure::new(format!("unknown option: \"{}\"", word.split('=').next().unwrap_or(word))),
            )?;
            let value = match (flag.kind, value) {
                (Kind::Bool, None) => "true".to_owned(),
                (_, Some(v)) => v,
                (_, None) => words
                    .next()
                    .cloned()
                    .ok_or_else(|| Failure::new(format!("flag needs an argument: --{}", flag.name)))?,
            };
            out.set(flag, value)?;
        }
        Ok(out)
    }

    fn set(&mut self, flag: &'static Flag, value: String) -> Result<()> {
        check(flag, &value)?;
        if value == "false" && flag.kind == Kind::Bool {
            self.given.remove(flag.name);
            self.off.insert(flag.name);
            return Ok(());
        }
        self.off.remove(flag.name);
        match flag.status {
            Status::Missing(why) => {
                return Err(Failure::new(format!("--{} is not supported in this version: {why}", flag.name)));
            }
            Status::Only(values, why) if !values.contains(&value.as_str()) => {
                return Err(Failure::new(format!(
                    "--{}={value} is not supported in this version: {why}; use {}",
                    flag.name, values[0]
                )));
            }
            Status::Only(..) => {}
            Status::NoOp(why) => tracing::debug!("--{} has no effect: {why}", flag.name),
            Status::Ready => {}
        }
        // Mount options add up.
        match self.given.get_mut(flag.name).filter(|_| flag.name == "o") {
            Some(list) => *list = format!("{list},{value}"),
            None => _ = self.given.insert(flag.name, value),
        }
        Ok(())
    }

    /// Sets a flag by name, as a mount option does. False if there is no such flag.
    pub fn set_by_name(&mut self, command: &str, name: &str, value: Option<&str>) -> Result<bool> {
        let Some(flag) = flags::of(command).find(|f| f.name == name && f.name.len() > 1) else {
            return Ok(false);
        };
        let value = match (flag.kind, value) {
            (Kind::Bool, None) => "true",
            (_, Some(v)) => v,
            (_, None) => return Err(Failure::new(format!("option {name} needs a value"))),
        };
        self.set(flag, value.to_owned())?;
        Ok(true)
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

    /// All flags that were given, with their values.
    pub fn settings(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let off = self.off.iter().map(|name| (*name, "false"));
        self.given.iter().map(|(name, value)| (*name, value.as_str())).chain(off)
    }

    /// Was it given?
    pub fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The text given, if any.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
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

    /// A fraction, or its default.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.text(name).and_then(|t| t.parse().ok()).unwrap_or(default)
    }

    /// Bytes, or the default. `unit` is the unit of a bare number.
    pub fn size(&self, name: &str, unit: char, default: u64) -> Result<u64> {
        self.text(name).map_or(Ok(default), |t| values::size(name, t, unit))
    }

    /// A duration, or its default.
    pub fn duration(&self, name: &str, default: Duration) -> Result<Duration> {
        self.text(name).map_or(Ok(default), |t| values::duration(name, t))
    }

    /// Exactly the positional arguments that a command needs.
    pub fn exactly(&self, command: &str, names: &[&str]) -> Result<()> {
        let n = names.len();
        let usage = format!("USAGE: ciderfs {command} [options] {}", names.join(" "));
        if self.positional.len() < n {
            return Err(Failure::new(format!(
                "ERROR: This command requires at least {n} arguments; {usage}"
            )));
        }
        if self.positional.len() > n {
            let got = self.positional.join(" ");
            return Err(Failure::new(format!(
                "ERROR: accept at most {n} arguments but got [{got}]; {usage}"
            )));
        }
        Ok(())
    }
}

/// Is the value one that the flag takes?
fn check(flag: &Flag, value: &str) -> Result<()> {
    let bad =
        |what: &str| Err(Failure::new(format!("invalid value {value:?} for flag --{}: {what}", flag.name)));
    match flag.kind {
        Kind::Bool if !matches!(value, "true" | "false") => bad("use true or false"),
        Kind::Int if value.parse::<u64>().is_err() => bad("not a whole number"),
        Kind::Float if value.parse::<f32>().is_err() => bad("not a number"),
        Kind::Size(unit) => values::size(flag.name, value, unit).map(|_| ()),
        Kind::Duration => values::duration(flag.name, value).map(|_| ()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(command: &str, line: &str) -> Result<Args> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Args::parse(command, &words)
    }

    #[test]
    fn flags_stand_anywhere_with_one_or_two_dashes() {
        let a = parse("format", "--storage=s3 META -trash-days 3 NAME --hash-prefix").unwrap();
        assert_eq!(a.positional, ["META", "NAME"]);
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
