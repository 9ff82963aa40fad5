//! `--env-file`: lines of `NAME=VALUE`, as `EnvironmentFile=` of systemd reads them (systemd.exec(5)), and what other readers of such
//! files would understand otherwise. Values are secrets; nothing of a line is told but its number and its name.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ciderfs_bounded::{KEY_FILE_MAX, read_text};
use ciderfs_format::{Secret, shown};

use super::report::{Finding, Status};
use crate::cli::nearest;

const CHECK: &str = "env file";

/// Names that are taken, the seed's and ours.
pub const NAMES: [&str; 12] = [
    "ACCESS_KEY",
    "SECRET_KEY",
    "ENDPOINT",
    "BUCKET",
    "REDIS_URL",
    "META_URL",
    "REGION",
    "META_PASSWORD",
    "SESSION_TOKEN",
    "REDIS_PASSWORD",
    "JFS_RSA_PASSPHRASE",
    "VOLUME",
];
/// Those whose values nobody else may see.
const SECRETS: [&str; 5] =
    ["SECRET_KEY", "META_PASSWORD", "SESSION_TOKEN", "REDIS_PASSWORD", "JFS_RSA_PASSPHRASE"];

/// What is in the file.
#[derive(Default)]
pub struct EnvFile {
    values: BTreeMap<String, Secret>,
}

impl EnvFile {
    /// Reads a file, and looks at it.
    pub fn read(path: &Path) -> (Self, Vec<Finding>) {
        let text = match read_text(path, KEY_FILE_MAX) {
            Ok(text) => text,
            Err(e) => {
                let text = format!("{}: {e}", shown(path));
                let remedy = "name a text file in UTF-8 that this user may read";
                return (Self::default(), vec![Finding::failed(CHECK, text, remedy)]);
            }
        };
        let (file, mut findings) = Self::parse(&text);
        findings.extend(file.odd_values());
        findings.extend(exposed(path, &file));
        if !findings.iter().any(|finding| finding.status != Status::Ok) {
            let names: Vec<&str> = file.values.keys().map(String::as_str).collect();
            findings.push(Finding::ok(CHECK, format!("{}: {}", shown(path), names.join(", "))));
        }
        (file, findings)
    }

    /// A value that is not empty.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.values.get(name).filter(|value| !value.is_empty())
    }

    /// A value that is no secret.
    pub fn plain(&self, name: &str) -> Option<&str> {
        self.get(name).map(Secret::expose)
    }

    /// The address of the metadata.
    pub fn meta_url(&self) -> Option<&str> {
        self.plain("META_URL").or_else(|| self.plain("REDIS_URL"))
    }

    /// Its password, where the address has none.
    pub fn meta_password(&self) -> Option<&Secret> {
        self.get("META_PASSWORD").or_else(|| self.get("REDIS_PASSWORD"))
    }

    /// All secrets.
    pub fn secrets(&self) -> impl Iterator<Item = Secret> {
        SECRETS.iter().filter_map(|name| self.get(name).cloned())
    }

    fn parse(text: &str) -> (Self, Vec<Finding>) {
        let mut file = Self::default();
        let mut findings = Vec::new();
        if text.contains('\r') {
            findings.push(Finding::failed(
                CHECK,
                "lines end with CRLF, which shells and containers take for a part of the values",
                "write the file with plain line ends: sed -i 's/\\r$//' FILE",
            ));
        }
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut lines = text.split('\n').enumerate();
        while let Some((at, line)) = lines.next() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let n = at + 1;
            let Some((name, value)) = line.split_once('=') else {
                findings.push(Finding::failed(
                    CHECK,
                    format!("line {n} has no ="),
                    "write NAME=VALUE, or begin the line with #",
                ));
                continue;
            };
            let mut name_of = name;
            if let Some(rest) = name.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])) {
                name_of = rest.trim_start();
                findings.push(Finding::failed(
                    CHECK,
                    format!("line {n} begins with export, which is of shells: systemd ignores the line"),
                    "leave the word export out",
                ));
            }
            if name_of.ends_with([' ', '\t']) || value.starts_with([' ', '\t']) {
                findings.push(Finding::failed(
                    CHECK,
                    format!("line {n} has spaces around =, which shells and containers do not take"),
                    "write NAME=VALUE without spaces",
                ));
            }
            let name_of = name_of.trim();
            if !is_name(name_of) {
                findings.push(Finding::failed(
                    CHECK,
                    format!(
                        "what is before = in line {n} is no name of a variable: systemd ignores the line"
                    ),
                    "use letters, digits and _ in names",
                ));
                continue;
            }
            let mut value = value.trim().to_owned();
            let parsed = loop {
                match unquoted(&value) {
                    Parsed::Open => match lines.next() {
                        Some((_, more)) => value = format!("{value}\n{more}"),
                        None => break None,
                    },
                    Parsed::Whole(text, expands) => break Some((text, expands)),
                }
            };
            let Some((parsed, expands)) = parsed else {
                findings.push(Finding::failed(
                    CHECK,
                    format!("the quote that begins in line {n} ({name_of}) is not closed"),
                    "close the quote",
                ));
                break;
            };
            if expands {
                findings.push(Finding::warning(
                    CHECK,
                    format!("line {n} ({name_of}) has $ or ` in it, which systemd takes as it is and a shell does not"),
                    "put the value into 'single quotes'; nothing is expanded",
                ));
            }
            if file.values.insert(name_of.to_owned(), parsed.as_str().into()).is_some() {
                findings.push(Finding::warning(
                    CHECK,
                    format!("{name_of} is there more than once; the last one counts (line {n})"),
                    "remove the others",
                ));
            }
        }
        (file, findings)
    }

    /// Names and values that cannot be meant.
    fn odd_values(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, value) in &self.values {
            let is_known = NAMES.contains(&name.as_str());
            if is_known && value.is_empty() {
                let remedy = format!("set {name}, or remove the line");
                findings.push(Finding::warning(CHECK, format!("{name} has no value"), remedy));
            }
            let names = NAMES.iter().map(|name| name.to_ascii_lowercase());
            if !is_known && let Some(meant) = nearest::name(name, names) {
                let meant = meant.to_ascii_uppercase();
                let remedy = format!("did you mean {meant}?");
                findings.push(Finding::warning(CHECK, format!("{name} means nothing to CiderFS"), remedy));
            }
        }
        if let (Some(ours), Some(seed)) = (self.get("META_URL"), self.get("REDIS_URL"))
            && ours != seed
        {
            findings.push(Finding::warning(
                CHECK,
                "META_URL and REDIS_URL name different places; META_URL counts",
                "remove one of them",
            ));
        }
        for (one, other) in [("ACCESS_KEY", "SECRET_KEY"), ("SECRET_KEY", "ACCESS_KEY")] {
            if self.get(one).is_some() && self.get(other).is_none() {
                findings.push(Finding::failed(
                    CHECK,
                    format!("there is {one} and no {other}"),
                    format!("set {other}, too"),
                ));
            }
        }
        findings
    }
}

/// Who may read the file.
fn exposed(path: &Path, file: &EnvFile) -> Option<Finding> {
    let mode = std::fs::metadata(path).ok()?.mode() & 0o777;
    if mode & 0o077 == 0 || file.secrets().next().is_none() {
        return None;
    }
    let who = if mode & 0o007 == 0 { "its group" } else { "everybody" };
    Some(Finding::failed(
        CHECK,
        format!("{} has secrets, and its mode {mode:04o} lets {who} in", shown(path)),
        format!("chmod 0600 {}", shown(path)),
    ))
}

fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}

enum Parsed {
    /// The value; would a shell change it?
    Whole(String, bool),
    /// More lines belong to it.
    Open,
}

/// A value without its quotes and escapes.
fn unquoted(text: &str) -> Parsed {
    let (mut out, mut expands) = (String::new(), false);
    let mut quote = None;
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => out.push(c),
            (_, '\\') => match letters.next() {
                // It goes on in the next line.
                None => return Parsed::Open,
                Some('\n') => {}
                Some(c) if quote.is_some() && !matches!(c, '"' | '\\' | '`' | '$') => out.extend(['\\', c]),
                Some(c) => out.push(c),
            },
            (_, c) => {
                let starts =
                    |next: Option<&char>| next.is_some_and(|c| c.is_ascii_alphabetic() || "_{(".contains(*c));
                expands |= c == '`' || (c == '$' && starts(letters.peek()));
                out.push(c);
            }
        }
    }
    if quote.is_some() { Parsed::Open } else { Parsed::Whole(out, expands) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_by_systemd() {
        for (text, want) in [
            ("A=b", "b"),
            ("  A=b  ", "b"),
            ("A=b c", "b c"),
            ("A='b \"c\" \\d $E'", "b \"c\" \\d $E"),
            ("A=\"b \\\"c\\\" \\$d \\e\"", "b \"c\" $d \\e"),
            ("A=b\\ c\\\\", "b c\\"),
            ("A=b'c d'e", "bc de"),
            ("A=one\\\ntwo", "onetwo"),
            ("A='one\ntwo'", "one\ntwo"),
            ("# A=c\n; A=d\nA=b#c", "b#c"),
            ("A=b=c", "b=c"),
            ("A=", ""),
        ] {
            let (file, findings) = EnvFile::parse(text);
            assert_eq!(file.values["A"].expose(), want, "{text}");
            assert!(findings.is_empty(), "{text}: {findings:?}");
        }
    }
}
