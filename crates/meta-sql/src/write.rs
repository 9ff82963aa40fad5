//! Guards and writes of a commit, inside a SQL transaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use ciderfs_format::{Ino, Slice};
use ciderfs_meta::store::{AttrPatch, Commit, Counter, Outcome, Output, StoreError, Write};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params, params_from_iter};

use crate::codec;
use crate::error::{Failure, Result};
use crate::names;
use crate::quota;
use crate::read::{self, first};
use crate::statements::Statements;

/// Checks the guards and, if all hold, applies the writes.
pub(crate) fn commit(conn: &Connection, s: &Statements, c: &Commit) -> Result<Outcome> {
    let mut values = Vec::with_capacity(c.guards.len());
    let mut holds = true;
    for guard in &c.guards {
        let value = read::read(conn, s, &guard.read())?;
        holds &= guard.holds(&value);
        values.push(value);
    }
    if !holds {
        return Ok(Outcome::Conflict(values));
    }
    Ok(Outcome::Done(c.writes.iter().map(|w| apply(conn, s, w)).collect::<Result<_>>()?))
}

fn run(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<Output> {
    conn.prepare_cached(sql)?.execute(params)?;
    Ok(Output::None)
}

fn apply(conn: &Connection, s: &Statements, w: &Write) -> Result<Output> {
    let ino = |i: &Ino| i.0 as i64;
    match w {
        Write::PutAttr(i, a) => run(conn, &s.put_attr, params_from_iter(codec::attr_values(*i, a))),
        Write::PatchAttr(i, p) => patch(conn, s, *i, p),
        Write::DelAttr(i) => run(conn, &s.del_attr, [ino(i)]),
        Write::PutEdge(d, name, e) => {
            run(conn, &s.put_edge, params![ino(d), name, ino(&e.ino), e.kind as u8])
        }
        Write::DelEdge(d, name) => run(conn, &s.del_edge, params![ino(d), name]),
        Write::PutSymlink(i, target) => run(conn, &s.put_symlink, params![ino(i), &target[..]]),
        Write::DelSymlink(i) => run(conn, &s.del_symlink, [ino(i)]),
        Write::PutXattr(i, name, v) => run(conn, &s.put_xattr, params![ino(i), read::Text(name), &v[..]]),
        Write::DelXattr(i, name) => run(conn, &s.del_xattr, params![ino(i), read::Text(name)]),
        Write::DelXattrs(i) => run(conn, &s.del_xattrs, [ino(i)]),
        // The index on edge.inode tells the parents.
        Write::AddParent(..) | Write::DelParents(_) => Ok(Output::None),
        Write::AppendSlices(i, indx, list) => {
            let raw = Slice::encode_list(list);
            let len = first(conn, &s.append_slices, params![ino(i), indx, raw], |r| Ok(r.get::<_, i64>(0)?))?;
            Ok(Output::Int(len.unwrap_or(0) / Slice::RECORD as i64))
        }
        Write::AppendSliceIfExists(i, range, slice) => {
            run(conn, &s.append_existing, params![ino(i), range.start, range.end, &slice.encode()[..]])
        }
        Write::ReplaceSlices { ino: i, indx, drop, insert } => {
            let list = read::get_slices(conn, s, *i, *indx)?;
            let rest = list.get(*drop..).unwrap_or_default();
            let raw = Slice::encode_list(&[insert.as_slice(), rest].concat());
            run(conn, &s.put_slices, params![ino(i), indx, raw])
        }
        Write::TakeSlices(i, indx) => take(conn, s, *i, *indx),
        Write::NewSliceRef(id, size) => run(conn, &s.new_ref, params![*id as i64, size]),
        Write::AddSliceRef(id, size, n) => Ok(Output::Int(add_refs(conn, s, *id, *size, *n)?)),
        Write::DropSliceRef(id, size) => run(conn, &s.del_ref, params![*id as i64, size]),
        Write::PutDelayedSlices(id, at, list) => {
            let raw: Vec<u8> = list
                .iter()
                .flat_map(|(id, size)| [&id.to_be_bytes()[..], &size.to_be_bytes()[..]].concat())
                .collect();
            run(conn, &s.put_delayed, params![*id as i64, at, raw])
        }
        Write::DelDelayedSlices(id, at) => run(conn, &s.del_delayed, params![*id as i64, at]),
        Write::AddCounter(c, n) => add_counter(conn, s, *c, *n),
        Write::PutDelfile(i, length, at) => run(conn, &s.put_delfile, params![ino(i), *length as i64, at]),
        Write::DelDelfile(i, _) => run(conn, &s.del_delfile, [ino(i)]),
        Write::PutDetached(i, at) => run(conn, &s.put_detached, [ino(i), *at]),
        Write::DelDetached(i) => run(conn, &s.del_detached, [ino(i)]),
        Write::PutSustained(sid, i) => run(conn, &s.put_sustained, [*sid as i64, ino(i)]),
        Write::DelSustained(sid, i) => run(conn, &s.del_sustained, [*sid as i64, ino(i)]),
        Write::InitDirStat(i) => run(conn, &s.put_dir_stat, [ino(i), 0, 0, 0]),
        Write::AddDirStat(i, d) => {
            let n = conn.prepare_cached(&s.add_dir_stat)?.execute([ino(i), d.length, d.space, d.inodes])?;
            Ok(Output::Int(n as i64))
        }
        Write::PutDirStat(i, d) => run(conn, &s.put_dir_stat, [ino(i), d.length, d.space, d.inodes]),
        Write::DelDirStat(i) => {
            run(conn, &s.del_dir_stat, [ino(i)])?;
            run(conn, &s.del_dir_quota, [ino(i)])
        }
        Write::DropDirStats
        | Write::PutQuotaLimits(..)
        | Write::PutQuotaUsage(..)
        | Write::AddQuota(..)
        | Write::DelQuota(_)
        | Write::DropOwnerQuotas => quota::apply(conn, s, w),
        Write::PutSetting(raw) => {
            let text = std::str::from_utf8(raw)
                .map_err(|e| Failure::Store(StoreError::Corrupt(format!("settings are not text: {e}"))))?;
            run(conn, &s.put_setting, [text])
        }
        Write::DelSetting => run(conn, &s.del_setting, []),
        Write::InitCounters => {
            for (name, value) in names::INITIAL {
                run(conn, &s.init_counter, params![name, value])?;
            }
            Ok(Output::None)
        }
        Write::PutSession(sid, expire, info) => {
            let there = first(conn, &s.get_session, [*sid as i64], |_| Ok(()))?.is_some();
            run(conn, &s.put_session, params![*sid as i64, expire, &info[..]])?;
            Ok(Output::Int(i64::from(there)))
        }
        Write::DelSession(sid) => run(conn, &s.del_session, [*sid as i64]),
        Write::PutAcl(id, rule) => put_acl(conn, s, *id, rule),
        Write::PutFlock(i, o, Some(write)) => {
            let kind = if *write { b'W' } else { b'R' };
            run(conn, &s.put_flock, params![ino(i), o.0 as i64, o.1 as i64, kind])
        }
        Write::PutFlock(i, o, None) => run(conn, &s.del_flock, [ino(i), o.0 as i64, o.1 as i64]),
        Write::TellAttr(i) => Ok(Output::Attr(read::get_attr(conn, s, *i)?)),
        Write::PutPlock(i, o, Some(list)) if !list.is_empty() => {
            run(conn, &s.put_plock, params![ino(i), o.0 as i64, o.1 as i64, &list[..]])
        }
        Write::PutPlock(i, o, _) => run(conn, &s.del_plock, [ino(i), o.0 as i64, o.1 as i64]),
    }
}

/// Updates only the columns that change, so that nobody's change of another column is undone.
fn patch(conn: &Connection, s: &Statements, ino: Ino, p: &AttrPatch) -> Result<Output> {
    let mut columns: Vec<&str> = Vec::new();
    let mut values: Vec<Sql> = Vec::new();
    let mut set = |column: &'static str, value: Option<i64>| {
        if let Some(v) = value {
            columns.push(column);
            values.push(Sql::Integer(v));
        }
    };
    set("flags=?", p.flags.map(i64::from));
    set("mode=?", p.mode.map(i64::from));
    set("uid=?", p.uid.map(i64::from));
    set("gid=?", p.gid.map(i64::from));
    let times = [
        ("atime=?", "atimensec=?", p.atime),
        ("mtime=?", "mtimensec=?", p.mtime),
        ("ctime=?", "ctimensec=?", p.ctime),
    ];
    for (micros, rest, time) in times {
        let columns = time.map(codec::time_columns);
        set(micros, columns.map(|c| c.0));
        set(rest, columns.map(|c| c.1));
    }
    set("nlink=min(max(nlink+?,0),4294967295)", Some(p.nlink).filter(|n| *n != 0).map(i64::from));
    set("length=?", p.length.map(|l| l as i64));
    set("parent=?", p.parent.map(|i| i.0 as i64));
    set("access_acl_id=?", p.tail.map(|t| i64::from(t.0)));
    set("default_acl_id=?", p.tail.map(|t| i64::from(t.1)));
    set("tier_id=?", p.tail.map(|t| i64::from(t.2)));
    if !columns.is_empty() {
        values.push(Sql::Integer(ino.0 as i64));
        let sql = format!("UPDATE {}node SET {} WHERE inode=?", s.prefix, columns.join(","));
        run(conn, &sql, params_from_iter(values))?;
    }
    Ok(Output::Attr(read::get_attr(conn, s, ino)?))
}

fn add_refs(conn: &Connection, s: &Statements, id: u64, size: u32, n: i64) -> Result<i64> {
    Ok(first(conn, &s.add_refs, params![id as i64, size, n], |r| Ok(r.get::<_, i64>(0)?))?.unwrap_or(0))
}

fn take(conn: &Connection, s: &Statements, ino: Ino, indx: u32) -> Result<Output> {
    let raw = first(conn, &s.take_slices, params![ino.0 as i64, indx], |r| codec::blob(r, 0))?;
    let list = Slice::decode_list(&raw.unwrap_or_default())?;
    let mut uses: BTreeMap<(u64, u32), i64> = BTreeMap::new();
    for slice in list.iter().filter(|s| s.id > 0) {
        *uses.entry((slice.id, slice.size)).or_default() += 1;
    }
    let mut out = Vec::with_capacity(uses.len());
    for ((id, size), n) in uses {
        let left = add_refs(conn, s, id, size, -n)?;
        out.push((Slice { id, size, ..Slice::default() }, left));
    }
    Ok(Output::Slices(out))
}

fn add_counter(conn: &Connection, s: &Statements, c: Counter, n: i64) -> Result<Output> {
    let Some(name) = names::counter(c) else {
        return Ok(Output::Int(read::get_counter(conn, s, c)?.saturating_add(n)));
    };
    if !matches!(c, Counter::UsedSpace | Counter::TotalInodes) {
        // The same number twice would be worse than none.
        let value = first(conn, &s.take_number, params![name, n], |r| Ok(r.get::<_, i64>(0)?))?;
        return value.map(Output::Int).ok_or_else(|| damaged_counter(c));
    }
    let value = first(conn, &s.add_counter, params![name, n], |r| Ok(r.get::<_, i64>(0)?))?;
    Ok(Output::Int(value.unwrap_or(n)))
}

/// A counter that cannot say which number is free.
pub(crate) fn damaged_counter(c: Counter) -> Failure {
    let text = format!("the counter {c:?} is damaged: it must be above all numbers in use");
    Failure::Store(StoreError::Corrupt(text))
}

/// Splits an encoded rule into the columns of `acl`.
fn put_acl(conn: &Connection, s: &Statements, id: u32, rule: &Bytes) -> Result<Output> {
    let bad = || Failure::Store(StoreError::Corrupt("an ACL rule is cut short".into()));
    let u16_at = |i: usize| Some(i64::from(u16::from_be_bytes([*rule.get(i)?, *rule.get(i + 1)?])));
    let list_at = |i: usize| {
        let n = u32::from_be_bytes(rule.get(i..i + 4)?.try_into().ok()?) as usize;
        let end = i + 4 + n.checked_mul(6)?;
        Some((rule.get(i + 4..end)?, end))
    };
    let (users, next) = list_at(8).ok_or_else(bad)?;
    let (groups, _) = list_at(next).ok_or_else(bad)?;
    run(conn, &s.put_acl, params![id, u16_at(0), u16_at(2), u16_at(4), u16_at(6), users, groups])
}
