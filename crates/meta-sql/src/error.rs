//! What SQLite's errors mean to the caller and what the operator can do about them.

use std::path::Path;

use ciderfs_format::{FormatError, shown};
use ciderfs_meta::store::StoreError;
use rusqlite::{Error as Sql, ErrorCode};

/// A failure inside a call, before it is known on which file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Sql(#[from] Sql),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<FormatError> for Failure {
    fn from(e: FormatError) -> Self {
        Self::Store(e.into())
    }
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Result code of SQLite, if it came from there.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sql(e) => e.sqlite_error_code(),
            Self::Store(_) => None,
        }
    }

    /// A row holds what makes no sense there.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sql(e) => is_damage(e),
            Self::Store(e) => matches!(e, StoreError::Corrupt(_)),
        }
    }

    /// A statement named a table that does not exist.
    pub fn is_missing_table(&self) -> bool {
        match self {
            Self::Sql(e) => missing_table(e),
            Self::Store(_) => false,
        }
    }

    /// The caller's error, with the file and a remedy in the text.
    pub fn into_store(self, path: &Path) -> StoreError {
        match self {
            Self::Store(e) => e,
            Self::Sql(e) => explain(&e, path),
        }
    }
}

fn is_damage(e: &Sql) -> bool {
    matches!(
        e,
        Sql::InvalidColumnType(..) | Sql::IntegralValueOutOfRange(..) | Sql::FromSqlConversionFailure(..)
    )
}

fn missing_table(e: &Sql) -> bool {
    let text = match e {
        Sql::SqliteFailure(_, Some(text)) => text,
        Sql::SqlInputError { msg, .. } => msg,
        _ => return false,
    };
    text.starts_with("no such table")
}

fn explain(e: &Sql, path: &Path) -> StoreError {
    let file = shown(path);
    if is_damage(e) {
        return StoreError::Corrupt(format!("{file}: {e}"));
    }
    if missing_table(e) {
        return StoreError::Fatal(format!(
            "{file} holds no volume: the database is not formatted; create one with `format` or check the table prefix"
        ));
    }
    match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Unavailable(format!(
            "{file} is locked by another process; a larger _timeout in the address waits longer"
        )),
        Some(
            ErrorCode::FileLockingProtocolFailed | ErrorCode::SchemaChanged | ErrorCode::OperationInterrupted,
        ) => StoreError::Unavailable(format!("{file}: {e}")),
        Some(ErrorCode::SystemIoFailure) => {
            StoreError::Unavailable(format!("{file}: {e}; check the disk and the system log"))
        }
        Some(ErrorCode::DiskFull) => {
            StoreError::NoSpace(format!("no space left for {file}; free space on its file system"))
        }
        Some(ErrorCode::OutOfMemory) => StoreError::NoSpace(format!("SQLite is out of memory on {file}")),
        Some(ErrorCode::NotADatabase) => {
            StoreError::Fatal(format!("{file} is not a SQLite database; check the path in the address"))
        }
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Corrupt(format!(
            "{file}: {e}; stop all clients, then restore a backup or try `sqlite3 {file} .recover`"
        )),
        Some(ErrorCode::ReadOnly) => StoreError::Fatal(format!(
            "{file} cannot be written; give the user write permission on the file and its directory, or mount read-only"
        )),
        Some(ErrorCode::CannotOpen) => StoreError::Fatal(cannot_open(path)),
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            StoreError::Fatal(format!("no permission for {file}"))
        }
        _ => StoreError::Fatal(format!("{file}: {e}")),
    }
}

/// SQLite only says "unable to open database file"; the file system knows why.
fn cannot_open(path: &Path) -> String {
    let file = shown(path);
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        match std::fs::metadata(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return format!(
                    "cannot open {file}: directory {} does not exist; create it first",
                    shown(dir)
                );
            }
            Err(e) => return format!("cannot open {file}: {}: {e}", shown(dir)),
            Ok(m) if !m.is_dir() => {
                return format!("cannot open {file}: {} is not a directory", shown(dir));
            }
            Ok(_) => {}
        }
    }
    match std::fs::metadata(path) {
        Ok(m) if m.is_dir() => format!("cannot open {file}: it is a directory; name a file"),
        Ok(_) => format!(
            "cannot open {file}: no permission for the file, or for its -wal and -shm files in the same directory"
        ),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            format!(
                "cannot open {file}: it does not exist or may not be created; check the path or run `format`"
            )
        }
        Err(e) => format!("cannot open {file}: {e}"),
    }
}
