//! Quotas: one table for directories, one for users and groups.

use ciderfs_format::Ino;
use ciderfs_format::quota::{Quota, QuotaLimits};
use ciderfs_meta::store::{Output, Passed, QuotaKey, Scanned, Write};
use rusqlite::{Connection, Row, params};

use crate::codec;
use crate::error::Result;
use crate::read::{first, readable};
use crate::statements::Statements;

/// `qtype` of users.
const USER: u32 = 1;
/// `qtype` of groups.
const GROUP: u32 = 2;

fn row(r: &Row<'_>, at: usize) -> Result<Quota> {
    Ok(Quota {
        limits: QuotaLimits { max_space: r.get(at)?, max_inodes: r.get(at + 1)? },
        used_space: codec::sum(r, at + 2)?,
        used_inodes: codec::sum(r, at + 3)?,
    })
}

/// Type and key of a row of users and groups.
fn owner(key: QuotaKey) -> (u32, i64) {
    match key {
        QuotaKey::User(id) => (USER, i64::from(id)),
        QuotaKey::Group(id) => (GROUP, i64::from(id)),
        QuotaKey::Dir(ino) => (0, ino.0 as i64),
    }
}

pub(crate) fn get(conn: &Connection, s: &Statements, key: QuotaKey) -> Result<Option<Quota>> {
    match key {
        QuotaKey::Dir(ino) => first(conn, &s.get_dir_quota, [ino.0 as i64], |r| row(r, 0)),
        _ => {
            let (kind, id) = owner(key);
            first(conn, &s.get_quota, params![kind, id], |r| row(r, 0))
        }
    }
}

/// Rows of `dirs` or of users and groups. Volumes of older clients, when open read-only, may lack the tables.
pub(crate) fn list(
    conn: &Connection,
    s: &Statements,
    passed: Passed<'_>,
    dirs: bool,
    limit: i64,
) -> Result<Vec<Scanned>> {
    match rows(conn, s, passed, dirs, limit) {
        Err(e) if e.is_missing_table() => Ok(Vec::new()),
        other => other,
    }
}

/// Kinds of owners that are not known are passed over.
fn rows(
    conn: &Connection,
    s: &Statements,
    passed: Passed<'_>,
    dirs: bool,
    limit: i64,
) -> Result<Vec<Scanned>> {
    if dirs {
        return readable(conn, &s.dir_quotas, [limit], passed, |r| {
            Ok(Scanned::Quota(QuotaKey::Dir(Ino(r.get::<_, i64>(0)? as u64)), row(r, 1)?))
        });
    }
    let rows = readable(conn, &s.quotas, [limit], passed, |r| {
        let id = r.get::<_, i64>(1)? as u32;
        let key = match r.get::<_, u32>(0)? {
            USER => QuotaKey::User(id),
            GROUP => QuotaKey::Group(id),
            _ => return Ok(None),
        };
        Ok(Some(Scanned::Quota(key, row(r, 2)?)))
    })?;
    Ok(rows.into_iter().flatten().collect())
}

/// Changes of quotas.
pub(crate) fn apply(conn: &Connection, s: &Statements, w: &Write) -> Result<Output> {
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| -> Result<usize> {
        Ok(conn.prepare_cached(sql)?.execute(params)?)
    };
    match w {
        Write::DropDirStats => run(&s.drop_dir_stats, &[])?,
        Write::DropOwnerQuotas => run(&s.drop_quotas, &[])?,
        Write::PutQuotaLimits(QuotaKey::Dir(ino), l) => {
            run(&s.limit_dir_quota, params![ino.0 as i64, l.max_space, l.max_inodes])?
        }
        Write::PutQuotaLimits(key, l) => {
            let (kind, id) = owner(*key);
            run(&s.limit_quota, params![kind, id, l.max_space, l.max_inodes])?
        }
        Write::PutQuotaUsage(QuotaKey::Dir(ino), space, inodes) => {
            run(&s.set_dir_quota, params![ino.0 as i64, space, inodes])?
        }
        Write::PutQuotaUsage(key, space, inodes) => {
            let (kind, id) = owner(*key);
            run(&s.set_quota, params![kind, id, space, inodes])?
        }
        Write::AddQuota(QuotaKey::Dir(ino), space, inodes) => {
            let n = run(&s.add_dir_quota, params![ino.0 as i64, space, inodes])?;
            return Ok(Output::Int(n as i64));
        }
        Write::AddQuota(key, space, inodes) => {
            let (kind, id) = owner(*key);
            run(&s.add_quota, params![kind, id, space, inodes])?;
            return Ok(Output::Int(1));
        }
        Write::DelQuota(QuotaKey::Dir(ino)) => run(&s.del_dir_quota, params![ino.0 as i64])?,
        Write::DelQuota(key) => {
            let (kind, id) = owner(*key);
            run(&s.del_quota, params![kind, id])?
        }
        _ => 0,
    };
    Ok(Output::None)
}
