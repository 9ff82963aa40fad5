//! Walks of maintenance.

use ciderfs_format::Ino;
use ciderfs_meta::store::{Scan, Scanned};
use rusqlite::{Connection, params};

use crate::codec;
use crate::error::Result;
use crate::quota;
use crate::read::all;
use crate::statements::Statements;

pub(crate) fn scan(conn: &Connection, s: &Statements, scan: &Scan, limit: usize) -> Result<Vec<Scanned>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let ino = |r: &rusqlite::Row<'_>| Ok(Scanned::Ino(Ino(r.get::<_, i64>(0)? as u64)));
    let session = |r: &rusqlite::Row<'_>| {
        Ok(Scanned::Session(r.get::<_, i64>(0)? as u64, r.get(1)?, codec::blob(r, 2)?))
    };
    match scan {
        Scan::Sessions => all(conn, &s.sessions, [limit], session),
        Scan::StaleSessions(at) => all(conn, &s.stale_sessions, [*at, limit], session),
        Scan::Sustained(sid) => all(conn, &s.sustained, [*sid as i64, limit], ino),
        Scan::Delfiles(at) => all(conn, &s.delfiles, [*at, limit], |r| {
            Ok(Scanned::Delfile(Ino(r.get::<_, i64>(0)? as u64), r.get::<_, i64>(1)? as u64, r.get(2)?))
        }),
        Scan::DeadSlices => all(conn, &s.dead_slices, [limit], |r| {
            Ok(Scanned::Slice(r.get::<_, i64>(0)? as u64, r.get::<_, i64>(1)? as u32))
        }),
        Scan::DelayedSlices => all(conn, &s.delayed, [limit], |r| {
            let list = pairs(&codec::blob(r, 2)?);
            Ok(Scanned::Delayed(r.get::<_, i64>(0)? as u64, r.get(1)?, list))
        }),
        Scan::Locked(sid) => all(conn, &s.locked, [*sid as i64, limit], ino),
        Scan::DirQuotas => quota::list(conn, s, true, limit),
        Scan::OwnerQuotas => quota::list(conn, s, false, limit),
        Scan::Chunks(file) => {
            all(conn, &s.chunks, params![file.0 as i64, limit], |r| Ok(Scanned::Chunk(r.get(0)?)))
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
