//! Where values come from that do not stand in the command line: files, the environment, credentials of systemd.
//!
//! In this order: the flag, `--NAME-file`, the variable, `$CREDENTIALS_DIRECTORY/NAME`. The last two are there for every command
//! that runs, whether it wants them or not: see [`Origin::is_ambient`].

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use ciderfs_bounded::{KEY_FILE_MAX, read_text};
use ciderfs_format::{Secret, shown, shown_address};

use super::args::{Args, Given};
use super::flag::{Flag, Kind, Row, Value};
use super::{parse, table};
use crate::failure::{Failure, Result};

/// Directory of the credentials of a unit (systemd.exec(5)).
pub const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// The file that has the password of the engine.
pub const PASSWORD_FILE: &str = "META_PASSWORD_FILE";
/// What the driver for Redis asks first (`docs/reference/commands.md#environment`).
const REDIS_PASSWORD: &str = "REDIS_PASSWORD";

/// How a value came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the command line.
    Word,
    /// In the command line, where everybody could read it.
    Typed,
    /// From a file that a flag names.
    File(PathBuf),
    /// From a variable, or a file that it names.
    Environment(&'static str),
    /// From the credentials of a unit.
    Credential(PathBuf),
}

impl Origin {
    /// Was it there without being asked for by this command? Such a value completes what a volume lacks, and changes none.
    pub fn is_ambient(&self) -> bool {
        matches!(self, Self::Environment(_) | Self::Credential(_))
    }
}

impl Args {
    /// Was the flag itself given, or its file?
    pub fn is_explicit<T>(&self, flag: Flag<T>) -> bool {
        self.given.get(flag.row.name).is_some_and(|given| !given.origin.is_ambient())
    }
}

/// The value that is in a file, and the file.
pub fn from_file(row: &'static Row, path: &Path) -> Result<Value> {
    let name = row.file.unwrap_or_default();
    let text = read(path).map_err(|e| Failure::new(format!("--{name} {}: {e}", shown(path))))?;
    value(row, text)
}

/// A file without blanks around what is in it.
fn read(path: &Path) -> Result<Secret> {
    let text = read_text(path, KEY_FILE_MAX)?;
    let text = text.trim();
    if text.is_empty() {
        return Err(Failure::new("the file is empty"));
    }
    Ok(text.into())
}

fn value(row: &Row, text: Secret) -> Result<Value> {
    match row.kind {
        // Whatever it is, it is the secret.
        Kind::Secret => Ok(Value::Secret(text)),
        _ => row.parse(OsStr::new(text.expose())),
    }
}

/// Sets what was not given and is found elsewhere.
pub fn fill_in(args: &mut Args) -> Result<()> {
    let credentials = std::env::var_os(CREDENTIALS).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    for row in table::of(args.command) {
        if args.is_given(row) || (row.env.is_none() && row.file.is_none()) {
            continue;
        }
        let is_password = row.name == table::META_PASSWORD.name();
        // What needs none does not fail for want of it.
        if is_password && (set(REDIS_PASSWORD).is_some() || !needs_password(args)) {
            continue;
        }
        if let Some((name, word)) = row.env.and_then(|name| Some((name, set(name)?))) {
            let text =
                word.to_str().ok_or_else(|| Failure::new(format!("{name}: the value is not UTF-8")))?;
            let value = value(row, text.into()).map_err(|e| Failure::new(format!("{name}: {e}")))?;
            args.put(row, value, Origin::Environment(name));
        } else if let Some(path) = set(PASSWORD_FILE).filter(|_| is_password) {
            let secret = read(Path::new(&path))
                .map_err(|e| Failure::new(format!("{PASSWORD_FILE}={}: {e}", shown(&path))))?;
            args.put(row, Value::Secret(secret), Origin::Environment(PASSWORD_FILE));
        } else if let Some(path) =
            credentials.as_ref().map(|dir| dir.join(row.name)).filter(|path| path.exists())
        {
            let secret =
                read(&path).map_err(|e| Failure::new(format!("the credential {}: {e}", shown(&path))))?;
            args.put(row, value(row, secret)?, Origin::Credential(path));
        }
    }
    Ok(())
}

/// Is there an address that may need a password, and has none?
fn needs_password(args: &Args) -> bool {
    args.addresses().any(|address| {
        let text = shown(address);
        !text.starts_with("sqlite") && *text == shown_address(address)
    })
}

/// A variable that is not empty.
fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

impl Args {
    pub(super) fn put(&mut self, row: &'static Row, value: Value, origin: Origin) {
        let text = match &value {
            Value::Text(text) => text.clone(),
            _ => String::new(),
        };
        self.given.insert(row.name, Given { row, value, text, origin });
    }

    /// The command line for a process of ours that cannot read again what was read here: a pipe ends, standard input too. What
    /// was in files stands in it, so it must not be shown to anybody. Places are named as they are called from everywhere: that process may
    /// have another directory.
    pub fn for_another(&self, argv: &[OsString]) -> Vec<OsString> {
        let mut out = Vec::new();
        let mut words = argv.iter();
        let mut places = self.words.iter().peekable();
        let mut is_over = false;
        while let Some(word) = words.next() {
            is_over |= word == "--";
            let found = (!is_over).then(|| parse::split(word)).flatten();
            let row = found.and_then(|(name, value)| Some((parse::find(self.command, name)?, value)));
            match row {
                // Said again below.
                Some(((row, _), value)) if row.file.is_some() && self.is_given(row) => {
                    if value.is_none() {
                        words.next();
                    }
                }
                // Its value is no flag.
                Some(((row, _), None)) if row.kind != Kind::Switch => {
                    out.push(word.clone());
                    out.extend(words.next().map(|value| parse::from_everywhere(row, value)));
                }
                Some(((row, _), Some(value))) if row.kind != Kind::Switch => {
                    let name = &word.as_bytes()[..word.len() - value.len()];
                    let value = parse::from_everywhere(row, value);
                    out.push(OsString::from_vec([name, value.as_bytes()].concat()));
                }
                None if places.peek().is_some_and(|place| place.given == *word) => {
                    out.extend(places.next().map(|place| place.place.clone()));
                }
                _ => out.push(word.clone()),
            }
        }
        let again = self.given.values().filter(|given| given.row.file.is_some()).filter_map(|given| {
            let keep = !given.origin.is_ambient() || given.origin == Origin::Environment(PASSWORD_FILE);
            let value = match &given.value {
                Value::Secret(secret) => secret.expose(),
                Value::Text(text) => text,
                _ => return None,
            };
            keep.then(|| OsString::from(format!("--{}={value}", given.row.name)))
        });
        let again: Vec<_> = again.collect();
        // Before everything that may be no flag.
        let first = out.len().min(1);
        out.splice(first..first, again);
        out
    }
}
