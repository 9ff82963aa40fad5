//! Names of counters and stamps (`docs/format/sql-tables.md#counters`).

use ciderfs_meta::store::{Counter, Job};

/// Row name of a counter; `None` for the one that SQL engines derive.
pub(crate) fn counter(c: Counter) -> Option<&'static str> {
    Some(match c {
        Counter::NextInode => "nextInode",
        Counter::NextChunk => "nextChunk",
        Counter::NextSession => "nextSession",
        Counter::NextTrash => "nextTrash",
        Counter::UsedSpace => "usedSpace",
        Counter::TotalInodes => "totalInodes",
        Counter::AclMaxId => return None,
    })
}

/// Row name of a job's stamp.
pub(crate) fn job(j: Job) -> &'static str {
    match j {
        Job::CleanupSessions => "lastCleanupSessions",
        Job::CleanupFiles => "lastCleanupFiles",
        Job::CleanupTrash => "lastCleanupTrash",
        Job::CleanupSlices => "nextCleanupSlices",
    }
}

/// Counters of a new volume with their first values (`docs/format/sql-tables.md#a-new-volume`).
pub(crate) const INITIAL: [(&str, i64); 6] = [
    ("nextInode", 2),
    ("nextChunk", 1),
    ("nextSession", 0),
    ("usedSpace", 0),
    ("totalInodes", 0),
    ("nextCleanupSlices", 0),
];
