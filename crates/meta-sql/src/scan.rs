//! Walks of maintenance.

use ciderfs_format::Ino;
use ciderfs_meta::store::{LeftOut, Scan, Scanned};
use rusqlite::{Connection, params};

use crate::codec;
use crate::error::Result;
use crate::quota;
use crate::read::readable;
use crate::statements::Statements;

/// Rows that make no sense are left out.
pub(crate) fn scan(
    conn: &Connection,
    s: &Statements,
    left_out: &LeftOut,
    scan: &Scan,
    limit: usize,
) -> Result<Vec<Scanned>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let passed = |kind| left_out.scan(kind);
    let ino = |r: &rusqlite::Row<'_>| Ok(Scanned::Ino(Ino(r.get::<_, i64>(0)? as u64)));
    let session = |r: &rusqlite::Row<'_>| {
        // What a session tells about itself is for people: one that tells nonsense still has its locks.
        let info = codec::blob(r, 2).unwrap_or_default();
        Ok(Scanned::Session(r.get::<_, i64>(0)? as u64, r.get(1)?, info))
    };
    match scan {
        Scan::Sessions => readable(conn, &s.sessions, [limit], passed("sessions"), session),
        Scan::StaleSessions(at) => {
            readable(conn, &s.stale_sessions, [*at, limit], passed("stale sessions"), session)
        }
        Scan::Sustained(sid) => {
            readable(conn, &s.sustained, [*sid as i64, limit], passed("files that sessions hold"), ino)
        }
        Scan::Delfiles(at) => readable(conn, &s.delfiles, [*at, limit], passed("removed files"), |r| {
            Ok(Scanned::Delfile(Ino(r.get::<_, i64>(0)? as u64), r.get::<_, i64>(1)? as u64, r.get(2)?))
        }),
        Scan::Detached(at) => {
            readable(conn, &s.detached, [*at, limit], passed("directories without a name"), ino)
        }
        Scan::DeadSlices => readable(conn, &s.dead_slices, [limit], passed("dead slices"), |r| {
            Ok(Scanned::Slice(r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u32))
        }),
        Scan::DelayedSlices => {
            readable(conn, &s.delayed, [limit], passed("replaced data that the trash keeps"), |r| {
                let list = pairs(&codec::blob(r, 2)?);
                Ok(Scanned::Delayed(r.get::<_, i64>(0)? as u64, r.get(1)?, list))
            })
        }
        Scan::Locked(sid) => {
            readable(conn, &s.locked, [*sid as i64, limit], passed("files that sessions lock"), ino)
        }
        Scan::DirQuotas => quota::list(conn, s, passed("quotas of directories"), true, limit),
        Scan::OwnerQuotas => quota::list(conn, s, passed("quotas of owners"), false, limit),
        // A list without a number: what is in it cannot be found, and the file goes on without.
        Scan::Chunks(file) => {
            readable(conn, &s.chunks, params![file.0 as i64, limit], passed("lists of slices"), |r| {
                Ok(Scanned::Chunk(r.get(0)?))
            })
        }
    }
}

/// Decodes 12-byte (id, size) pairs.
fn pairs(raw: &[u8]) -> Vec<(u64, u32)> {
    raw.chunks_exact(12)
        .map(|c| {
            let id = c[..8].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
            (id, c[8..].iter().fold(0u32, |n, b| n << 8 | u32::from(*b)))
        })
        .collect()
}
