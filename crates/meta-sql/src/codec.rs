//! Rows to records and back.

use bytes::Bytes;
use ciderfs_format::{Attr, Edge, FileType, FormatError, Ino, Time};
use ciderfs_meta::store::DirEntry;
use rusqlite::Row;
use rusqlite::types::{Value as Sql, ValueRef};

use crate::error::Result;

/// Attribute columns in the order in which [`attr`] reads them, for the alias `n`.
pub(crate) const ATTR_COLUMNS: &str = "n.type,n.flags,n.mode,n.uid,n.gid,n.atime,n.atimensec,n.mtime,n.mtimensec,\
    n.ctime,n.ctimensec,n.nlink,n.length,n.rdev,n.parent,n.access_acl_id,n.default_acl_id,n.tier_id";

/// Seconds that still fit into microseconds of an i64.
const SECONDS_MAX: i64 = i64::MAX / 1_000_000 - 1;

/// A time as the two columns: microseconds and the nanoseconds below them. Times outside the range are clamped.
pub(crate) fn time_columns(t: Time) -> (i64, i64) {
    let sec = t.sec.clamp(-SECONDS_MAX, SECONDS_MAX);
    (sec * 1_000_000 + i64::from(t.nsec / 1000), i64::from(t.nsec % 1000))
}

fn time(micros: i64, rest: i64) -> Time {
    let nsec = (micros.rem_euclid(1_000_000) * 1000).saturating_add(rest.clamp(0, 999));
    Time { sec: micros.div_euclid(1_000_000), nsec: (nsec as u32).min(Time::NSEC_MAX) }
}

/// A count of 32 bits; one beyond them is the nearest.
fn count(n: i64) -> u32 {
    n.clamp(0, i64::from(u32::MAX)) as u32
}

/// A number that may have become a fraction: so SQLite stores a sum beyond 64 bits.
pub(crate) fn sum(row: &Row<'_>, at: usize) -> Result<i64> {
    Ok(match row.get_ref(at)? {
        ValueRef::Real(n) => n as i64,
        _ => row.get(at)?,
    })
}

/// A file type and an inode; what makes no sense is [`DirEntry::UNREADABLE`].
pub(crate) fn any_edge(row: &Row<'_>, at: usize) -> Edge {
    edge(row, at).unwrap_or(DirEntry::UNREADABLE)
}

pub(crate) fn file_type(n: i64) -> Result<FileType> {
    let kind = u8::try_from(n).ok().and_then(FileType::from_u8);
    Ok(kind.ok_or_else(|| FormatError::Invalid { what: "file type", detail: n.to_string() })?)
}

pub(crate) fn edge(row: &Row<'_>, at: usize) -> Result<Edge> {
    Ok(Edge { kind: file_type(row.get(at)?)?, ino: Ino(row.get::<_, i64>(at + 1)? as u64) })
}

/// Attributes from the columns of [`ATTR_COLUMNS`], of which the first is column `at`.
pub(crate) fn attr(row: &Row<'_>, at: usize) -> Result<Attr> {
    let int = |i: usize| row.get::<_, i64>(at + i);
    // Columns added over the years are NULL in old rows.
    let late = |i: usize| row.get::<_, Option<i64>>(at + i).map(Option::unwrap_or_default);
    Ok(Attr {
        kind: file_type(int(0)?)?,
        flags: int(1)? as u8,
        mode: int(2)? as u16 & 0o7777,
        uid: int(3)? as u32,
        gid: int(4)? as u32,
        atime: time(int(5)?, late(6)?),
        mtime: time(int(7)?, late(8)?),
        ctime: time(int(9)?, late(10)?),
        nlink: count(int(11)?),
        length: Attr::sound_length(int(12)? as u64),
        rdev: late(13)? as u32,
        parent: Ino(late(14)? as u64),
        access_acl: late(15)? as u32,
        default_acl: late(16)? as u32,
        tier: late(17)? as u8,
    })
}

/// Values for `put_attr`: the inode, then the columns in the table's order.
pub(crate) fn attr_values(ino: Ino, a: &Attr) -> Vec<Sql> {
    let (atime, atimensec) = time_columns(a.atime);
    let (mtime, mtimensec) = time_columns(a.mtime);
    let (ctime, ctimensec) = time_columns(a.ctime);
    [
        ino.0 as i64,
        i64::from(a.kind as u8),
        i64::from(a.flags),
        i64::from(a.mode),
        i64::from(a.uid),
        i64::from(a.gid),
        atime,
        atimensec,
        mtime,
        mtimensec,
        ctime,
        ctimensec,
        i64::from(a.nlink),
        a.length as i64,
        i64::from(a.rdev),
        a.parent.0 as i64,
        i64::from(a.access_acl),
        i64::from(a.default_acl),
        i64::from(a.tier),
    ]
    .into_iter()
    .map(Sql::Integer)
    .collect()
}

pub(crate) fn blob(row: &Row<'_>, at: usize) -> Result<Bytes> {
    Ok(Bytes::from(row.get::<_, Option<Vec<u8>>>(at)?.unwrap_or_default()))
}
