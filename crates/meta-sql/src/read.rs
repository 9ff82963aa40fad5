//! Answers to reads.

use bytes::Bytes;
use ciderfs_format::{Attr, Edge, Ino, SessionId, Slice};
use ciderfs_meta::store::{Counter, DirCursor, DirEntry, DirStat, LockKind, Passed, Read, Value};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params};

use crate::codec;
use crate::error::Result;
use crate::names;
use crate::quota;
use crate::statements::Statements;

/// Runs `map` on the first row, if there is one.
pub(crate) fn first<T>(
    conn: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    map: impl FnOnce(&rusqlite::Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    let mut stmt = conn.prepare_cached(sql)?;
    let mut rows = stmt.query(params)?;
    rows.next()?.map(map).transpose()
}

/// Runs `map` on every row.
pub(crate) fn all<T>(
    conn: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    mut map: impl FnMut(&rusqlite::Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut stmt = conn.prepare_cached(sql)?;
    let mut rows = stmt.query(params)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(map(row)?);
    }
    Ok(out)
}

/// [`all`] without rows that make no sense.
pub(crate) fn readable<T>(
    conn: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    mut passed: Passed<'_>,
    mut map: impl FnMut(&rusqlite::Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let rows = all(conn, sql, params, |row| match map(row) {
        Err(e) if e.is_damage() => Ok(passed.keep(Err(e))),
        other => other.map(Some),
    })?;
    Ok(rows.into_iter().flatten().collect())
}

/// The value of one record.
pub(crate) fn read(conn: &Connection, s: &Statements, r: &Read) -> Result<Value> {
    Ok(match r {
        Read::Attr(ino) => Value::Attr(get_attr(conn, s, *ino)?),
        Read::Edge(dir, name) => Value::Edge(get_edge(conn, s, *dir, name)?),
        Read::Lookup(dir, name) => {
            Value::Lookup(first(conn, &s.lookup, params![dir.0 as i64, name], |row| {
                let edge = codec::edge(row, 0)?;
                let there = row.get::<_, Option<i64>>(2)?.is_some();
                Ok((edge, if there { Some(codec::attr(row, 3)?) } else { None }))
            })?)
        }
        Read::DirEmpty(dir) => Value::Bool(first(conn, &s.dir_entry, [dir.0 as i64], |_| Ok(()))?.is_none()),
        Read::Slices(ino, indx) => Value::Slices(get_slices(conn, s, *ino, *indx)?),
        Read::Symlink(ino) => {
            Value::Bytes(first(conn, &s.get_symlink, [ino.0 as i64], |r| codec::blob(r, 0))?)
        }
        Read::Xattr(ino, name) => {
            let name = Text(name);
            Value::Bytes(first(conn, &s.get_xattr, params![ino.0 as i64, name], |r| codec::blob(r, 0))?)
        }
        Read::XattrNames(ino) => {
            Value::Names(all(conn, &s.xattr_names, [ino.0 as i64], |r| Ok(codec::blob(r, 0)?.to_vec()))?)
        }
        Read::XattrSizes(ino, name) => {
            let sizes =
                |r: &rusqlite::Row<'_>| Ok((r.get::<_, Option<i64>>(0)?, r.get::<_, Option<i64>>(1)?));
            let sizes = first(conn, &s.xattr_sizes, params![ino.0 as i64, Text(name)], sizes)?;
            let (others, own) = sizes.unwrap_or_default();
            Value::XattrSizes(others.unwrap_or(0) as u64, own.map(|n| n as u64))
        }
        Read::Parents(ino) => Value::Parents(all(conn, &s.parents, [ino.0 as i64], |r| {
            Ok((Ino(r.get::<_, i64>(0)? as u64), r.get(1)?))
        })?),
        Read::Counter(c) => Value::Int(get_counter(conn, s, *c)?),
        Read::Setting => {
            // Before `format` there is no table: that is an answer, not an error.
            match first(conn, &s.get_setting, [], |r| codec::blob(r, 0)) {
                Err(e) if e.is_missing_table() => Value::Bytes(None),
                other => Value::Bytes(other?),
            }
        }
        Read::SliceRefs(id, size) => {
            let refs = first(conn, &s.get_refs, params![id.0 as i64, size], |r| codec::sum(r, 0))?;
            Value::Int(refs.unwrap_or(0))
        }
        Read::DirStat(ino) => Value::DirStat(first(conn, &s.get_dir_stat, [ino.0 as i64], |r| {
            Ok(DirStat { length: codec::sum(r, 0)?, space: codec::sum(r, 1)?, inodes: codec::sum(r, 2)? })
        })?),
        Read::Quota(key) => Value::Quota(quota::get(conn, s, *key)?),
        Read::Acl(id) => Value::Bytes(first(conn, &s.get_acl, [id], acl_record)?),
        Read::Session(sid) => Value::Bool(first(conn, &s.get_session, [sid.0 as i64], |_| Ok(()))?.is_some()),
        Read::Holds(ino, kind, (sid, owner)) => {
            let sql = match kind {
                LockKind::Flock => &s.has_flock,
                LockKind::Record => &s.has_plock,
            };
            Value::Bool(first(conn, sql, [ino.0 as i64, sid.0 as i64, *owner as i64], |_| Ok(()))?.is_some())
        }
        Read::Flocks(ino) => Value::Flocks(all(conn, &s.get_flocks, [ino.0 as i64], |r| {
            let owner = (SessionId(r.get::<_, i64>(0)? as u64), r.get::<_, i64>(1)? as u64);
            Ok((owner, r.get::<_, i64>(2)? == i64::from(b'W')))
        })?),
        Read::Plocks(ino) => Value::Plocks(all(conn, &s.get_plocks, [ino.0 as i64], |r| {
            let owner = (SessionId(r.get::<_, i64>(0)? as u64), r.get::<_, i64>(1)? as u64);
            Ok((owner, codec::blob(r, 2)?))
        })?),
    })
}

pub(crate) fn get_attr(conn: &Connection, s: &Statements, ino: Ino) -> Result<Option<Attr>> {
    match first(conn, &s.get_attr, [ino.0 as i64], |r| codec::attr(r, 0)) {
        Err(e) if e.is_missing_table() => Ok(None),
        other => other,
    }
}

fn get_edge(conn: &Connection, s: &Statements, dir: Ino, name: &[u8]) -> Result<Option<Edge>> {
    first(conn, &s.get_edge, params![dir.0 as i64, name], |r| codec::edge(r, 0))
}

pub(crate) fn get_slices(conn: &Connection, s: &Statements, ino: Ino, indx: u32) -> Result<Vec<Slice>> {
    let raw = first(conn, &s.get_slices, params![ino.0 as i64, indx], |r| codec::blob(r, 0))?;
    Ok(Slice::decode_list(&raw.unwrap_or_default())?)
}

pub(crate) fn get_counter(conn: &Connection, s: &Statements, c: Counter) -> Result<i64> {
    let value = match names::counter(c) {
        Some(name) => first(conn, &s.get_counter, [name], |r| codec::sum(r, 0))?,
        None => Some(conn.prepare_cached(&s.max_acl)?.query_row([], |r| r.get(0))?),
    };
    Ok(value.unwrap_or(0))
}

/// Names of extended attributes are stored as text, whatever their bytes; the engine does not look at them.
pub(crate) struct Text<'a>(pub(crate) &'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

/// The encoded rule of a row of `acl`.
fn acl_record(r: &rusqlite::Row<'_>) -> Result<Bytes> {
    let mut out = Vec::new();
    for i in 0..4 {
        let perm = r.get::<_, Option<i64>>(i)?.unwrap_or_default();
        out.extend_from_slice(&(perm as u16).to_be_bytes());
    }
    for i in 4..6 {
        let list = codec::blob(r, i)?;
        out.extend_from_slice(&((list.len() / 6) as u32).to_be_bytes());
        out.extend_from_slice(&list);
    }
    Ok(Bytes::from(out))
}

/// One page of a directory, in byte order of the names.
pub(crate) fn list(
    conn: &Connection,
    s: &Statements,
    dir: Ino,
    cursor: &DirCursor,
    limit: usize,
    attrs: bool,
) -> Result<(Vec<DirEntry>, DirCursor)> {
    let after: &[u8] = match cursor {
        DirCursor::After(name) => name,
        DirCursor::End => return Ok((Vec::new(), DirCursor::End)),
        _ => b"",
    };
    let sql = if attrs { &s.list_attrs } else { &s.list };
    let entries = all(conn, sql, params![dir.0 as i64, after, limit as i64], |row| {
        let edge = codec::any_edge(row, 1);
        let attr =
            if attrs && row.get::<_, Option<i64>>(3)?.is_some() { codec::attr(row, 4).ok() } else { None };
        Ok(DirEntry { name: codec::blob(row, 0)?.to_vec(), edge, attr })
    })?;
    let next = match entries.last() {
        Some(last) if entries.len() >= limit => DirCursor::After(last.name.clone()),
        _ => DirCursor::End,
    };
    Ok((entries, next))
}
