//! Addresses of SQLite volumes (`docs/format/sql-tables.md#address`).

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use ciderfs_format::{shown, shown_address};
use ciderfs_meta::store::StoreError;

/// How long a call waits for a lock that another process holds, unless `_timeout` says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(5000);
/// Longest accepted table prefix.
const PREFIX_MAX: usize = 64;

/// How SQLite keeps the old state while it writes (`_journal`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Journal {
    Wal,
    Delete,
    Truncate,
    Persist,
}

impl Journal {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Persist => "persist",
        }
    }
}

/// When SQLite waits for the disk (`_sync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Off,
    Normal,
    Full,
    Extra,
}

impl Sync {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Normal => "normal",
            Self::Full => "full",
            Self::Extra => "extra",
        }
    }
}

/// A parsed address: the database file and the options that this driver honours.
///
/// | option | meaning | default |
/// |---|---|---|
/// | `table_prefix` | tables are `jfs_<prefix>_<name>` | empty: `jfs_<name>` |
/// | `_journal`, `_journal_mode` | `WAL`, `DELETE`, `TRUNCATE`, `PERSIST` | `WAL` |
/// | `_sync`, `_synchronous` | `OFF`, `NORMAL`, `FULL`, `EXTRA` or 0 to 3 | `FULL`: an acknowledged commit survives a power loss |
/// | `_timeout`, `_busy_timeout` | milliseconds to wait for another process's lock | 5000 |
/// | `_max_page_count` | pages that the file may grow to; beyond, commits fail with "no space" | unlimited |
/// | `mode=ro` | open read-only | |
///
/// Options that only tune the official client's connection pool (`cache`, `max_open_conns`, ...) have no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub(crate) path: PathBuf,
    /// `jfs_` or `jfs_<prefix>_`.
    pub(crate) prefix: String,
    pub(crate) journal: Journal,
    pub(crate) sync: Sync,
    pub(crate) timeout: Duration,
    pub(crate) read_only: bool,
    /// Pages that the file may have (`_max_page_count`).
    pub(crate) page_limit: Option<u32>,
}

impl Address {
    /// The database file.
    pub fn file(&self) -> &std::path::Path {
        &self.path
    }

    /// Parses `sqlite3://PATH[?options]`, `sqlite://PATH[?options]` or a plain path.
    pub fn parse(text: &(impl AsRef<OsStr> + ?Sized)) -> Result<Self, StoreError> {
        let text = text.as_ref().as_bytes();
        let scheme = text.windows(3).position(|w| w == b"://");
        let rest = match scheme.map(|at| text.split_at(at)) {
            Some((b"sqlite3" | b"sqlite", rest)) => &rest[3..],
            Some((other, _)) => {
                return Err(StoreError::Fatal(format!(
                    "{}:// is not a SQLite address; use sqlite3://PATH",
                    shown_address(OsStr::from_bytes(other))
                )));
            }
            None => text,
        };
        let mut parts = rest.splitn(2, |b| *b == b'?').map(OsStr::from_bytes);
        let (path, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let query = query.to_str().ok_or_else(|| {
            let address = OsStr::from_bytes(text);
            StoreError::Fatal(format!(
                "options of the SQLite address are not UTF-8: {}",
                shown_address(address)
            ))
        })?;
        if path.is_empty() {
            return Err(StoreError::Fatal("the address names no file; use sqlite3://PATH".into()));
        }
        if path == ":memory:" {
            return Err(StoreError::Fatal(
                "a volume cannot live in SQLite's :memory: database; use sqlite3://PATH with a file".into(),
            ));
        }
        let mut out = Self {
            path: path.into(),
            prefix: "jfs_".into(),
            journal: Journal::Wal,
            sync: Sync::Full,
            timeout: DEFAULT_TIMEOUT,
            read_only: false,
            page_limit: None,
        };
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            out.option(key, value)?;
        }
        Ok(out)
    }

    fn option(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        let bad = |allowed: &str| {
            Err(StoreError::Fatal(format!("option {key}={value} of the SQLite address: use {allowed}")))
        };
        match key {
            "table_prefix" => {
                let plain = value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if !plain || value.len() > PREFIX_MAX {
                    return bad("at most 64 letters, digits and _");
                }
                self.prefix = if value.is_empty() { "jfs_".into() } else { format!("jfs_{value}_") };
            }
            "_journal" | "_journal_mode" => {
                self.journal = match value.to_ascii_lowercase().as_str() {
                    "wal" => Journal::Wal,
                    "delete" => Journal::Delete,
                    "truncate" => Journal::Truncate,
                    "persist" => Journal::Persist,
                    // MEMORY and OFF lose the whole database in a crash, and OFF cannot even roll back.
                    _ => return bad("WAL, DELETE, TRUNCATE or PERSIST"),
                }
            }
            "_sync" | "_synchronous" => {
                self.sync = match value.to_ascii_lowercase().as_str() {
                    "0" | "off" => Sync::Off,
                    "1" | "normal" => Sync::Normal,
                    "2" | "full" => Sync::Full,
                    "3" | "extra" => Sync::Extra,
                    _ => return bad("OFF, NORMAL, FULL or EXTRA"),
                }
            }
            "_timeout" | "_busy_timeout" => match value.parse() {
                Ok(ms) => self.timeout = Duration::from_millis(ms),
                Err(_) => return bad("a number of milliseconds"),
            },
            "_max_page_count" => match value.parse() {
                Ok(pages) => self.page_limit = Some(pages),
                Err(_) => return bad("a number of pages"),
            },
            "mode" => self.read_only = value == "ro",
            "cache" | "_txlock" | "max_open_conns" | "max_idle_conns" | "max_idle_time" | "max_life_time" => {
            }
            _ => tracing::warn!(option = key, "unknown option of the SQLite address is ignored"),
        }
        Ok(())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite3://{}", shown(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, path) in [
            ("sqlite3:///var/lib/v.db", "/var/lib/v.db"),
            ("sqlite://v.db", "v.db"),
            ("dir/v.db", "dir/v.db"),
            ("sqlite3://v.db?cache=shared&max_open_conns=3", "v.db"),
        ] {
            assert_eq!(Address::parse(text).unwrap().path, PathBuf::from(path), "{text}");
        }
        for text in
            ["sqlite3://", "redis://x", "sqlite3://:memory:", "v.db?_sync=maybe", "v.db?table_prefix=a-b"]
        {
            assert!(matches!(Address::parse(text), Err(StoreError::Fatal(_))), "{text}");
        }
        assert!(Address::parse("v.db?_journal=off").is_err());
    }

    #[test]
    fn options() {
        let a =
            Address::parse("sqlite3:///v.db?table_prefix=two&_journal=DELETE&_sync=1&_timeout=20&mode=ro")
                .unwrap();
        assert_eq!((a.prefix.as_str(), a.journal, a.sync), ("jfs_two_", Journal::Delete, Sync::Normal));
        assert_eq!((a.timeout, a.read_only), (Duration::from_millis(20), true));
        let d = Address::parse("v.db").unwrap();
        assert_eq!((d.prefix.as_str(), d.journal, d.sync), ("jfs_", Journal::Wal, Sync::Full));
    }
}
